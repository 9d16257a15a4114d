# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""Paths that all releases share: kept in one directory, with a link to it in each release."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _tree
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

DIRECTORY, FILE = "directory", "file"


class Item(NamedTuple):
    """One shared path, relative. ``type`` is None if it follows from what exists."""

    path: str
    type: Optional[str]


def link(shared_root: str, release: str, items: Sequence[Union[str, Mapping[str, Any]]]) -> List[str]:
    """Make each of ``items`` in ``release`` a relative link into ``shared_root``. Returns their paths.

    An item that is missing in ``shared_root`` is taken from the release, or becomes an empty directory. If both have
    it, that of the release is dropped: nothing in ``shared_root`` is ever removed or changed. Everything is checked
    before anything is changed. Raises NodeopsError.
    """
    checked = check(items)
    links = [_Link(shared_root, release, item) for item in checked]
    for each in links:
        each.check()
    for each in links:
        try:
            each.make()
        except OSError as error:
            place = " (%s)" % os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
            raise NodeopsError(
                "shared: %s could not be linked into the release: %s%s. Nothing in %s was removed."
                % (each.item.path, error.strerror, place, shared_root)
            ) from error
    return [item.path for item in checked]


def check(items: Sequence[Union[str, Mapping[str, Any]]]) -> List[Item]:
    """The items, typed. Raises NodeopsError that names a wrong one."""
    found: List[Item] = []
    for entry in items:
        item = _item(entry)
        for other in found:
            if item.path == other.path:
                raise _refusal(item.path, "is given twice")
            if (item.path + "/").startswith(other.path + "/") or (other.path + "/").startswith(item.path + "/"):
                raise _refusal(item.path, "and %s: one lies in the other. Share only the outer one" % other.path)
        found.append(item)
    return found


def _item(entry: Union[str, Mapping[str, Any]]) -> Item:
    fields: Dict[str, Any] = dict(entry) if isinstance(entry, dict) else {"path": entry}
    path, kind = fields.pop("path", None), fields.pop("type", None)
    if fields or not isinstance(path, str):
        raise NodeopsError(
            "shared: %r is neither a path nor a dictionary with path and type. Nothing was changed." % (entry,)
        )
    if kind not in (None, DIRECTORY, FILE):
        raise _refusal(path, "has the type %r: it can be directory or file" % (kind,))
    plain = os.path.normpath(path)
    if not path or os.path.isabs(path) or plain == "." or ".." in path.split("/"):
        raise _refusal(path, "has to be a path inside the release, relative and without '..'")
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise _refusal(path, "has a control character")
    if plain.startswith(".nodeops"):
        raise _refusal(path, "begins with .nodeops, like the collection's own files: choose another name")
    return Item(plain, FILE if kind == FILE else DIRECTORY if kind == DIRECTORY or path.endswith("/") else None)


def _refusal(path: str, reason: str) -> NodeopsError:
    return NodeopsError("shared: %r %s. Nothing was changed." % (path, reason))


class _Link:
    """One shared path and its link."""

    def __init__(self, shared_root: str, release: str, item: Item) -> None:
        self.item = item
        self._root = shared_root
        self._release = release
        self._kept = os.path.join(shared_root, item.path)
        self._place = os.path.join(release, item.path)
        self._type = item.type or DIRECTORY

    def check(self) -> None:
        """Refuse what cannot be shared. Changes nothing. Raises NodeopsError."""
        self._check_parents(self._root, self._kept, "the shared directory")
        self._check_parents(self._release, self._place, "the release")
        kept, shipped = _type_of(self._kept, follow=True), self._shipped()
        if kept is None and os.path.islink(self._kept):
            raise self._refusal("%s is a link to %s, which does not exist" % (self._kept, os.readlink(self._kept)))
        for place, found in (("in %s" % self._root, kept), ("in the release", shipped)):
            if found not in (None, DIRECTORY, FILE):
                raise self._refusal("it is neither a file nor a directory %s" % place)
            if found and self.item.type and found != self.item.type:
                raise self._refusal("it is a %s %s, not a %s" % (found, place, self.item.type))
        if kept and shipped and kept != shipped:
            raise self._refusal("it is a %s in %s, but the release ships a %s" % (kept, self._root, shipped))
        self._type = kept or shipped or self._type
        if self.item.type == FILE and not kept and not shipped:
            raise self._refusal(
                "the file %s does not exist, and the release does not have it either. Put it there once: it stays for "
                "all releases" % self._kept
            )

    def make(self) -> None:
        """Make the link. Raises OSError; the item in the shared directory is then as it was, or complete."""
        os.makedirs(os.path.dirname(self._place), exist_ok=True)
        if not os.path.lexists(self._kept):
            self._fill()
        # Of real paths: the kernel follows a link before it goes up from it.
        here = os.path.realpath(os.path.dirname(self._place))
        kept = os.path.join(os.path.realpath(os.path.dirname(self._kept)), os.path.basename(self._kept))
        target = os.path.relpath(kept, here)
        if os.path.islink(self._place) and os.readlink(self._place) == target:
            return
        _tree.remove(self._place)
        os.symlink(target, self._place)

    def _fill(self) -> None:
        os.makedirs(os.path.dirname(self._kept), exist_ok=True)
        if self._shipped() is None:
            os.mkdir(self._kept)
            return
        try:
            os.rename(self._place, self._kept)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _tree.copy_any(self._place, self._kept)

    def _shipped(self) -> Optional[str]:
        """The type of the item in the release. A link does not count: it leads to what another deploy tool had."""
        return None if os.path.islink(self._place) else _type_of(self._place, follow=False)

    def _check_parents(self, root: str, path: str, what: str) -> None:
        parent = os.path.dirname(path)
        while len(parent) > len(root):
            if os.path.lexists(parent) and not os.path.isdir(parent):
                raise self._refusal("%s is not a directory" % parent)
            parent = os.path.dirname(parent)
        real_root, real = os.path.realpath(root), os.path.realpath(os.path.dirname(path))
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            raise self._refusal("a link in its path leads out of %s, to %s" % (what, real))

    def _refusal(self, reason: str) -> NodeopsError:
        return NodeopsError("shared: %s cannot be shared: %s. Nothing was changed." % (self.item.path, reason))


def _type_of(path: str, follow: bool) -> Optional[str]:
    """None if nothing is there."""
    try:
        mode = (os.stat if follow else os.lstat)(path).st_mode
    except OSError:
        return None
    return DIRECTORY if stat.S_ISDIR(mode) else FILE if stat.S_ISREG(mode) else "special file"
