# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Files with the environment of processes (``.env``, ecosystem files): read, compared, put back by rename."""

from __future__ import annotations

import base64
import contextlib
import grp
import os
import pwd
import stat
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

LARGEST = 16 << 20
"""Bytes. A larger file is not an environment file."""
NOTHING_CHANGED = "Nothing was changed."


class EnvFile(NamedTuple):
    """``data``: its content; ``mode``: its permission bits; ``owner`` and ``group``: by name, or as a number."""

    path: str
    data: bytes
    mode: int
    owner: str
    group: str

    def facts(self) -> Dict[str, Any]:
        """What a manifest records of it."""
        return {"path": self.path, "mode": self.mode, "owner": self.owner, "group": self.group}

    def as_json(self) -> Dict[str, Any]:
        """With its content, for a file that is as secret."""
        return dict(self.facts(), data=base64.b64encode(self.data).decode())


def from_json(document: Dict[str, Any]) -> EnvFile:
    """The file of ``as_json``."""
    return EnvFile(**dict(document, data=base64.b64decode(document["data"])))


def check_paths(paths: Iterable[str], outside_of: str) -> None:
    """Raises NodeopsError for a path that is not absolute and plain, is given twice, or is in ``outside_of``."""
    seen = set()
    for path in paths:
        problem = ""
        if not path.startswith("/") or os.path.normpath(path) != path or "\0" in path:
            problem = "is not an absolute path without '..', '.' and '//'"
        elif path in seen:
            problem = "is given twice"
        elif (os.path.realpath(path) + "/").startswith(os.path.realpath(outside_of) + "/"):
            problem = "is in the backup store"
        if problem:
            raise NodeopsError("files: %r %s. %s" % (path, problem, NOTHING_CHANGED))
        seen.add(path)


def read(path: str) -> EnvFile:
    """The present file; links are followed. Raises NodeopsError if there is none, or if it is not a file."""
    found = look(path)
    if found is None:
        raise NodeopsError("%s does not exist. %s" % (path, NOTHING_CHANGED))
    return found


def look(path: str) -> Optional[EnvFile]:
    """The present file, None if there is none. Raises NodeopsError if it is not a file."""
    _check_way(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NodeopsError("%s cannot be read: %s. %s" % (path, error.strerror, NOTHING_CHANGED)) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise NodeopsError("%s is not a regular file. %s" % (path, NOTHING_CHANGED))
    with os.fdopen(handle, "rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise NodeopsError(
            "%s has more than %d bytes: it is not an environment file. %s" % (path, LARGEST, NOTHING_CHANGED)
        )
    return EnvFile(path, data, status.st_mode & 0o777, _user_name(status.st_uid), _group_name(status.st_gid))


def differs(wanted: EnvFile) -> bool:
    """Whether ``put`` would change anything."""
    return look(wanted.path) != wanted


def check(wanted: EnvFile) -> None:
    """Raises NodeopsError if ``put`` could not put it back as it was."""
    look(wanted.path)
    directory = os.path.dirname(_place(wanted.path))
    if not os.path.isdir(directory):
        raise NodeopsError("%s cannot be put back: %s does not exist. %s" % (wanted.path, directory, NOTHING_CHANGED))
    if not os.access(directory, os.W_OK):
        raise NodeopsError(
            "%s cannot be put back: %s may not write into %s. %s"
            % (wanted.path, _trusted_path.name_of(os.geteuid()), directory, NOTHING_CHANGED)
        )
    _owner(wanted)


def put(wanted: EnvFile) -> None:
    """Put it back: content, mode and owner at once. A link to it stays a link. Raises NodeopsError."""
    place = _place(wanted.path)
    try:
        _files.write_atomically(place, wanted.data, mode=wanted.mode, owner=_owner(wanted))
    except OSError as error:
        raise NodeopsError("%s could not be put back: %s." % (wanted.path, _files.why(error))) from error


def put_former(path: str, former: Optional[EnvFile]) -> None:
    """Undo a ``put``. ``former`` is None if there was no file. Raises NodeopsError."""
    if former is not None:
        if differs(former):
            put(former)
        return
    place = _place(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
        _files.sync_directory(os.path.dirname(place))


def _place(path: str) -> str:
    return os.path.realpath(path)


def _check_way(path: str) -> None:
    """Root may only use a path that no other user can redirect. Other users have no more than their own rights."""
    if os.geteuid() == 0:
        _trusted_path.check_parents(path, "The file")
        _trusted_path.check_parents(_place(path), "The file")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _owner(wanted: EnvFile) -> Tuple[int, int]:
    """The ids of owner and group here. Raises NodeopsError if one does not exist, or if we cannot set it."""
    try:
        uid = int(wanted.owner) if wanted.owner.isdigit() else pwd.getpwnam(wanted.owner).pw_uid
        gid = int(wanted.group) if wanted.group.isdigit() else grp.getgrnam(wanted.group).gr_gid
    except KeyError:
        raise NodeopsError(
            "%s belonged to %s and group %s, and this host does not have both. %s Create them first."
            % (wanted.path, wanted.owner, wanted.group, NOTHING_CHANGED)
        ) from None
    if os.geteuid() != 0 and (uid != os.geteuid() or gid not in {os.getegid(), *os.getgroups()}):
        raise NodeopsError(
            "%s belonged to %s and group %s, which %s cannot give to a file. %s Run as %s."
            % (
                wanted.path,
                wanted.owner,
                wanted.group,
                _trusted_path.name_of(os.geteuid()),
                NOTHING_CHANGED,
                wanted.owner,
            )
        )
    return uid, gid


def names(files: Iterable[EnvFile]) -> List[str]:
    """Their paths."""
    return [each.path for each in files]
