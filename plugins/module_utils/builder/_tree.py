# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""Copy a directory tree so that later changes of one do not reach the other, and find out if a tree was changed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

FICLONE = 0x40049409
_CHUNK = 1024 * 1024
_LONGEST_PATH = 4096
_NO_SOURCE = {b"node_modules", b".git", b"__pycache__"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_REFLINK = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


class NotReusable(Exception):
    """The tree cannot be used in another place. The text says why."""


class State(NamedTuple):
    """A summary of a tree. It changes with every change of the tree that does not set times back on purpose."""

    entries: int
    size: int
    """Bytes in files."""
    digest: str

    def as_dict(self) -> Dict[str, object]:
        return dict(self._asdict())


class PathRewrite:
    """Replaces the directory of the old release by that of the new one, in the text and the links of a copied tree."""

    def __init__(self, old: str, new: str) -> None:
        pairs = {os.path.realpath(old): os.path.realpath(new), old: new}
        self._pairs = {os.fsencode(before): os.fsencode(after) for before, after in pairs.items() if before != after}
        longest_first = sorted(self._pairs, key=len, reverse=True)
        self._pattern = re.compile(b"(?:" + b"|".join(map(re.escape, longest_first)) + rb")(?![\w.-])")

    def found(self, data: bytes) -> bool:
        """Whether ``data`` names the old directory."""
        return any(path in data for path in self._pairs) and self._pattern.search(data) is not None

    def text(self, data: bytes) -> bytes:
        """``data`` with the new directory."""
        return self._pattern.sub(lambda match: self._pairs[match.group()], data)


@contextlib.contextmanager
def _beside(source: str, target: str) -> Iterator[str]:
    """A temporary name in the directory of ``target``, renamed to it at the end.

    Raises NodeopsError if the disk is full.
    """
    temporary = os.path.join(os.path.dirname(target), ".%s.nodeops-new" % os.path.basename(target))
    remove(temporary)
    try:
        yield temporary
        _points.reached("copied")
        remove(target)
        os.rename(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise NodeopsError(
                "The disk is full: %s could not be copied to %s. What was copied is removed. Free some space, or keep "
                "fewer releases, then run again." % (source, target)
            ) from error
        raise


class Rules(NamedTuple):
    """What is special in a tree. Each function gets a path relative to the tree."""

    is_skipped: Callable[[str], bool] = lambda _name: False
    """Whether the path is left out of the copy and of the state."""
    is_volatile: Callable[[str], bool] = lambda _name: False
    """Whether it is copied, but left out of the state. Such a file may be binary and name the old directory."""


def copy(
    source: str,
    target: str,
    rules: Rules,
    rewrite: Optional[PathRewrite] = None,
    accept: Callable[[State], None] = lambda _state: None,
) -> State:
    """Copy the directory ``source`` with all its content to ``target``, which it replaces. Modes, links and times stay.

    Files are shared by reflink if the file system can do that, never by hard links. Text and links that name the old
    directory are rewritten. ``accept`` is called with the state of the source as it was copied; what it raises ends the
    copy. Returns the state of the copy. Raises NotReusable, OSError, and NodeopsError if the disk is full. Then nothing
    of the copy is left.
    """
    with _beside(source, target) as temporary:
        copying = _Copying(rewrite, rules)
        copying.directory(os.fsencode(source), os.fsencode(temporary), b"")
        accept(copying.before.state())
    return copying.after.state()


def copy_any(source: str, target: str) -> None:
    """Copy a file or a directory with all its content to ``target``, which it replaces.

    Raises OSError, NotReusable and NodeopsError.
    """
    if os.path.isdir(source):
        copy(source, target, Rules())
        return
    with _beside(source, target) as temporary:
        shutil.copy2(source, temporary)


def state(path: str, rules: Rules) -> State:
    """The state of a file or a tree. Raises OSError."""
    listing = _Listing()
    if os.path.isdir(path):
        _list(os.fsencode(path), b"", rules, listing)
    else:
        listing.add(b"", os.stat(path), b"")
    return listing.state()


def _list(path: bytes, relative: bytes, rules: Rules, listing: _Listing) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            name = relative + entry.name
            if rules.is_skipped(os.fsdecode(name)) or rules.is_volatile(os.fsdecode(name)):
                continue
            status = entry.stat(follow_symlinks=False)
            listing.add(name, status, os.readlink(entry.path) if stat.S_ISLNK(status.st_mode) else b"")
            if stat.S_ISDIR(status.st_mode):
                _list(entry.path, name + b"/", rules, listing)


def content(path: str) -> str:
    """A hash of the names, types and bytes of a file or a tree. Times, and what is not source of a package, do not
    count.

    Raises OSError.
    """
    digest = hashlib.sha256()
    _hash(os.fsencode(path), b"", digest.update)
    return digest.hexdigest()


def _hash(path: bytes, name: bytes, update: Callable[[bytes], None]) -> None:
    status = os.lstat(path) if name else os.stat(path)
    kind, is_file = stat.S_IFMT(status.st_mode), stat.S_ISREG(status.st_mode)
    executable = status.st_mode & 0o100 if is_file else 0
    update(b"%s\0%o\0%d\0" % (name, kind | executable, status.st_size if is_file else 0))
    if stat.S_ISLNK(status.st_mode):
        update(os.readlink(path) + b"\0")
    elif stat.S_ISDIR(status.st_mode):
        for inner in sorted(set(os.listdir(path)) - _NO_SOURCE):
            _hash(os.path.join(path, inner), name + b"/" + inner, update)
    elif is_file:
        with open(path, "rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                update(chunk)


def remove(path: str) -> None:
    """Remove a file, a link or a whole tree, if it is there. Raises OSError."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.lexists(path):
        shutil.rmtree(path)


class _Listing:
    """Builds a State. Directories count by name and mode only: skipped entries change their times and sizes."""

    def __init__(self) -> None:
        self._lines: List[bytes] = []
        self._size = 0

    def add(self, name: bytes, status: os.stat_result, link: bytes) -> None:
        line = b"%s\0%o" % (name, status.st_mode)
        if stat.S_ISREG(status.st_mode):
            self._size += status.st_size
            line += b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)
        self._lines.append(line + b"\0" + link)

    def state(self) -> State:
        digest = hashlib.sha256(b"\n".join(sorted(self._lines))).hexdigest()
        return State(len(self._lines), self._size, digest)


class _Copying:
    def __init__(self, rewrite: Optional[PathRewrite], rules: Rules) -> None:
        self._rewrite = rewrite
        self._rules = rules
        self._can_reflink = True
        self._is_root = os.geteuid() == 0
        self.before = _Listing()
        self.after = _Listing()

    def directory(self, source: bytes, target: bytes, relative: bytes) -> None:
        status = os.stat(source)
        os.mkdir(target, 0o700)
        with os.scandir(source) as entries:
            for entry in entries:
                name = relative + entry.name
                if not self._rules.is_skipped(os.fsdecode(name)):
                    self._entry(entry, os.path.join(target, entry.name), name)
                    _points.reached("entry_copied")
        if self._is_root:
            os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _entry(self, entry: os.DirEntry[bytes], target: bytes, name: bytes) -> None:
        status = entry.stat(follow_symlinks=False)
        before = after = b""
        copied = status
        if stat.S_ISDIR(status.st_mode):
            self.directory(entry.path, target, name + b"/")
        elif stat.S_ISLNK(status.st_mode):
            before = os.readlink(entry.path)
            after = self._link(before, target, status)
        elif stat.S_ISREG(status.st_mode):
            copied = self._file(entry.path, target, os.fsdecode(name), status)
        else:
            raise NotReusable("%s is not a file, directory or link" % os.fsdecode(entry.path))
        if not self._rules.is_volatile(os.fsdecode(name)):
            self.before.add(name, status, before)
            self.after.add(name, copied, after)

    def _link(self, text: bytes, target: bytes, status: os.stat_result) -> bytes:
        text = self._rewrite.text(text) if self._rewrite else text
        os.symlink(text, target)
        if self._is_root:
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        return text

    def _file(self, source: bytes, target: bytes, name: str, status: os.stat_result) -> os.stat_result:
        """Copy a file. Returns the status of the copy."""
        reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                is_rewritten = self._fill(reader, writer, name)
                if self._is_root:
                    os.fchown(writer, status.st_uid, status.st_gid)
                os.fchmod(writer, stat.S_IMODE(status.st_mode))
                # Python compares a file's time in seconds and its size with what it has compiled.
                modified = max(time.time_ns(), status.st_mtime_ns + 2 * 10**9) if is_rewritten else status.st_mtime_ns
                os.utime(writer, ns=(status.st_atime_ns, modified))
                return os.fstat(writer)
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _fill(self, reader: int, writer: int, name: str) -> bool:
        """Copy the content. Returns whether the copy differs from the original."""
        first = os.read(reader, _CHUNK)
        if self._rewrite is not None and self._is_to_rewrite(self._rewrite, reader, first, name):
            os.lseek(reader, 0, os.SEEK_SET)
            _write(writer, self._rewrite.text(b"".join(_chunks(reader))))
            return True
        if not self._reflink(reader, writer):
            _write(writer, first)
            if len(first) == _CHUNK:
                os.lseek(reader, _CHUNK, os.SEEK_SET)
                for chunk in _chunks(reader):
                    _write(writer, chunk)
        return False

    def _is_to_rewrite(self, rewrite: PathRewrite, reader: int, first: bytes, name: str) -> bool:
        """Whether it is text that names the old directory. Raises NotReusable if a binary file names it."""
        is_named, is_binary, overlap = rewrite.found(first), b"\0" in first, first[-_LONGEST_PATH:]
        for chunk in _chunks(reader) if len(first) == _CHUNK else ():
            is_named = is_named or rewrite.found(overlap + chunk)
            is_binary = is_binary or b"\0" in chunk
            overlap = chunk[-_LONGEST_PATH:]
        if is_named and is_binary and not self._rules.is_volatile(name):
            raise NotReusable("%s is a binary file that names the directory it was made in" % name)
        return is_named and not is_binary

    def _reflink(self, reader: int, writer: int) -> bool:
        if not self._can_reflink:
            return False
        try:
            fcntl.ioctl(writer, FICLONE, reader)
        except OSError as error:
            if error.errno not in _NO_REFLINK:
                raise
            self._can_reflink = False
            return False
        return True


def _chunks(reader: int) -> Iterator[bytes]:
    return iter(lambda: os.read(reader, _CHUNK), b"")


def _write(writer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view) :]
