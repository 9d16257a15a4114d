# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Whether a path is safe from other users: only root and this user can put something else in its place."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import Iterator, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

_MOST_LINKS = 40
"""The kernel's own limit (path_resolution(7))."""


def check_parents(path: str, what: str) -> None:
    """Check each directory and link that leads to ``path``, which itself may be missing. ``what``: "The backup store".

    Raises NodeopsError if one belongs to another user than root and this one, or if others can write to it. A sticky
    directory, such as /tmp, may be writable: other users cannot replace what is ours there.
    """
    if not os.path.isabs(path) or os.path.normpath(path) != path.rstrip("/"):
        raise NodeopsError(
            "%s is given as %r. Nothing was changed. Give an absolute path without '..', '.' and '//'." % (what, path)
        )
    try:
        for place, found in _on_the_way(path):
            problem = _problem(found)
            if problem:
                raise NodeopsError(
                    "%s %s is not safe: %s %s. Nothing was changed. Choose a place whose directories belong to root or "
                    "to %s, and that others cannot write to; or run as the user it belongs to (become_user)."
                    % (what, path, place, problem, name_of(os.geteuid()))
                )
    except OSError as error:
        raise NodeopsError(
            "%s %s cannot be used by %s: %s: %s. Nothing was changed."
            % (what, path, name_of(os.geteuid()), error.filename or path, error.strerror)
        ) from error


def check_secret(path: str, option: str) -> None:
    """Check a file that holds a secret. Raises NodeopsError if it is missing, or others can read or replace it."""
    check_parents(path, option)
    try:
        found = os.stat(path)
    except OSError as error:
        raise NodeopsError("%s %s: %s. Nothing was changed." % (option, path, error.strerror)) from error
    if is_foreign(found) or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISREG(found.st_mode):
        raise NodeopsError(
            "%s %s has to be a file of root or of %s with mode 0600 (it is %04o). Nothing was changed."
            % (option, path, name_of(os.geteuid()), stat.S_IMODE(found.st_mode))
        )


def is_foreign(found: os.stat_result) -> bool:
    """Whether it belongs to another user than root and this one."""
    return found.st_uid not in (0, os.geteuid())


def is_writable_for_others(found: os.stat_result) -> bool:
    """Whether other users can write to it. The owner's private group, and the group of root, are not others."""
    mode = stat.S_IMODE(found.st_mode)
    return bool(mode & stat.S_IWOTH) or (bool(mode & stat.S_IWGRP) and not _is_private_group(found))


def name_of(uid: int) -> str:
    """A user's name, or "uid" and the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid %d" % uid


def _is_private_group(found: os.stat_result) -> bool:
    if found.st_gid == 0:
        return True
    try:
        group = grp.getgrgid(found.st_gid)
        owner = pwd.getpwuid(found.st_uid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and owner.pw_gid == found.st_gid and not set(group.gr_mem) - {owner.pw_name}


def _is_outside(uid: int) -> bool:
    """Whether this uid stands for users outside of this user namespace, such as the host's root."""
    with open("/proc/sys/kernel/overflowuid") as stream:
        if uid != int(stream.read()):
            return False
    with open("/proc/self/uid_map") as stream:
        spans = [tuple(map(int, line.split())) for line in stream]
    return not any(first <= uid < first + count for first, _outside, count in spans)


def _problem(found: os.stat_result) -> str:
    if is_foreign(found) and not _is_outside(found.st_uid):
        return "belongs to %s" % name_of(found.st_uid)
    if stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX and is_writable_for_others(found):
        return "can be written to by other users (mode %04o)" % stat.S_IMODE(found.st_mode)
    return ""


def _on_the_way(path: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Every directory and every link that leads to ``path``, those that links lead to included, but not itself."""
    links = 0
    here = "/"
    names = [name for name in path.split("/") if name]
    yield here, os.lstat(here)
    while len(names) > 1:
        name = names.pop(0)
        place = os.path.join(here, name)
        if name == "..":
            place = os.path.dirname(here)
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return
        yield place, found
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(40, "Too many levels of symbolic links", place)
            target = os.readlink(place)
            names = [part for part in target.split("/") if part not in ("", ".")] + names
            here = "/" if target.startswith("/") else here
        elif not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(20, "Not a directory", place)
        else:
            here = place
