# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Write the content of an archive, and nothing outside its directory, whatever the archive says."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source._directory import CHUNK, Line
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import disk_full, free

FILE, DIRECTORY, LINK, HARD_LINK = "file", "directory", "link", "hard link"
_MAX_LINKS = 40  # that the kernel follows


class Entry(NamedTuple):
    """One entry of an archive, as the archive has it."""

    name: str
    kind: str
    """FILE, DIRECTORY, LINK or HARD_LINK. Anything else is refused and named by this word."""
    executable: bool
    size: int
    """Bytes of a file."""
    target: str
    """For a link a path relative to it; for a hard link the name of an earlier entry."""
    mtime: Optional[float]
    read: Callable[[int], bytes]
    """The next bytes of a file, none at its end. Raises NodeopsError if the archive is damaged."""


def parts_of(name: str, archive: str) -> List[str]:
    """The parts of the path of an entry. Raises NodeopsError for one that is absolute or goes up."""
    if name.startswith("/"):
        raise _refused(archive, name, "its name is absolute")
    if "\0" in name:
        raise _refused(archive, name, "its name has a zero byte in it")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(archive, name, 'its name has ".." in it')
    return parts


class Tree:
    """The directory that an archive is unpacked into. Only what this object has written may be in it.

    It knows all paths from what it has written, so it never has to ask the file system. Nothing is written through a
    link. Links are made last, when all their targets are known.
    """

    def __init__(self, dest: str, archive: str, strip: int, own: bool) -> None:
        """``archive`` is its name in messages. ``own``: this collection packed it from a directory of the user. Then
        links are left as they are, and each file is hashed.
        """
        self._dest = dest
        self._archive = archive
        self._strip = strip
        self._own = own
        self._kinds: Dict[str, str] = {}
        self._links: Dict[str, str] = {}
        self._names: Dict[str, str] = {}
        self._lines: Dict[str, Line] = {}

    def add(self, entry: Entry) -> None:
        """Write an entry. Raises NodeopsError if it is refused, and OSError."""
        if entry.kind not in (FILE, DIRECTORY, LINK, HARD_LINK):
            raise self._refuse(entry, "it is a %s; a release holds only files, directories and links" % entry.kind)
        parts = parts_of(entry.name, self._archive)[self._strip :]
        if not parts:
            return
        path = "/".join(parts)
        self._make_parents(entry, parts)
        known = self._kinds.get(path)
        if known == DIRECTORY and entry.kind == DIRECTORY:
            return
        if known is not None and not (known == FILE and entry.kind in (FILE, HARD_LINK)):
            raise self._refuse(entry, "the archive has a %s of this name already" % known)
        if entry.kind == DIRECTORY:
            self._make_directory(path)
        elif entry.kind == LINK:
            self._add_link(path, entry, entry.target)
        elif entry.kind == HARD_LINK:
            self._add_hard_link(path, entry)
        else:
            self._write(path, entry)

    def finish(self) -> List[Line]:
        """Make the links, after checking that all of them stay inside. Returns what was written.

        Raises NodeopsError for a link that leads outside, and if no file was written.
        """
        for path, target in self._links.items():
            problem = "" if self._own else self._problem(path, target)
            if problem:
                raise _refused(self._archive, self._names[path], "it is a link to %r, %s" % (target, problem))
        for path, target in self._links.items():
            os.symlink(target, os.path.join(self._dest, path))
        if FILE not in self._kinds.values():
            raise NodeopsError(
                "The archive %s holds no files%s. Nothing was deployed."
                % (self._archive, " below strip=%d directories" % self._strip if self._strip else "")
            )
        return list(self._lines.values())

    def _refuse(self, entry: Entry, why: str) -> NodeopsError:
        return _refused(self._archive, entry.name, why)

    def _make_parents(self, entry: Entry, parts: List[str]) -> None:
        for length in range(1, len(parts)):
            parent = "/".join(parts[:length])
            kind = self._kinds.get(parent)
            if kind is None:
                self._make_directory(parent)
            elif kind != DIRECTORY:
                raise self._refuse(entry, "%r, which it lies in, is a %s" % (parent, kind))

    def _make_directory(self, path: str) -> None:
        full = os.path.join(self._dest, path)
        os.mkdir(full, 0o700)
        os.chmod(full, 0o755)
        self._kinds[path] = DIRECTORY
        self._lines[path] = Line(path, "5", True, "")

    def _add_link(self, path: str, entry: Entry, target: str) -> None:
        if not target or "\0" in target:
            raise self._refuse(entry, "it is a link without a usable target")
        self._kinds[path] = LINK
        self._links[path] = target
        self._names[path] = entry.name
        self._lines[path] = Line(path, "2", True, target)

    def _add_hard_link(self, path: str, entry: Entry) -> None:
        source = "/".join(parts_of(entry.target, self._archive)[self._strip :])
        kind = self._kinds.get(source)
        if kind == LINK:  # only one in the same directory means the same there
            if os.path.dirname(source) != os.path.dirname(path) or path in self._kinds:
                raise self._refuse(entry, "it is a hard link to the link %r" % entry.target)
            self._add_link(path, entry, self._links[source])
            return
        if kind != FILE:
            raise self._refuse(
                entry, "it is a hard link to %r, which is not an earlier file of the archive" % entry.target
            )
        if source == path:
            return
        self._discard(path)
        os.link(os.path.join(self._dest, source), os.path.join(self._dest, path), follow_symlinks=False)
        self._kinds[path] = FILE
        self._lines[path] = self._lines[source]._replace(path=path)

    def _discard(self, path: str) -> None:
        """Remove what an earlier entry of the same name wrote, as tar does."""
        if path in self._kinds:
            os.unlink(os.path.join(self._dest, path))
            del self._kinds[path]

    def _write(self, path: str, entry: Entry) -> None:
        if entry.size > CHUNK and entry.size > free(self._dest):
            raise disk_full(self._dest)
        self._discard(path)
        full = os.path.join(self._dest, path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        digest = hashlib.sha256()
        written = 0
        with open(os.open(full, flags, 0o600), "wb") as stream:
            self._kinds[path] = FILE
            while True:
                data = entry.read(CHUNK)
                if not data:
                    break
                written += len(data)
                if written > entry.size:
                    break
                if self._own:
                    digest.update(data)
                stream.write(data)
            if written != entry.size:
                raise self._refuse(entry, "it does not have the %d bytes it should have" % entry.size)
            stream.flush()
            os.fchmod(stream.fileno(), 0o755 if entry.executable else 0o644)
            if entry.mtime is not None:
                with contextlib.suppress(OSError, OverflowError):
                    os.utime(stream.fileno(), (entry.mtime, entry.mtime))
        self._lines[path] = Line(path, "0", entry.executable, digest.hexdigest())

    def _problem(self, path: str, target: str) -> str:
        """What is wrong with the target of a link, or "". It is followed as the kernel would follow it, over other
        links.
        """
        place, todo = _start(path, target)
        followed = 0
        while todo:
            if todo[-1] == "/":
                return "an absolute path"
            part = todo.pop()
            if part == "..":
                if not place:
                    return "which lies outside the archive"
                place.pop()
                continue
            link = self._links.get("/".join([*place, part]))
            if link is None:
                place.append(part)
                continue
            followed += 1
            if followed > _MAX_LINKS:
                return "which leads in a circle"
            todo.extend(_start("", link)[1])
        return ""


def _start(path: str, target: str) -> Tuple[List[str], List[str]]:
    """The directory of a link, and the parts of its target, the first one last; "/" for an absolute target."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return path.split("/")[:-1], [*reversed(parts), *(["/"] if target.startswith("/") else [])]


def _refused(archive: str, name: str, why: str) -> NodeopsError:
    return NodeopsError(
        "The archive %s is refused because of its entry %s: %s. Nothing was deployed. Make the archive without it."
        % (archive, ascii(name) if not name.isprintable() else repr(name), why)
    )
