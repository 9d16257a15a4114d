# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How PM2 finds files: Node's path.resolve, PM2's own which, and its guess whether a file is binary."""

from __future__ import annotations

import os
import stat
from typing import Optional

_BINARY_PROBE = 512


def resolve(*parts: str) -> str:
    """Node's path.resolve on POSIX: the last absolute part wins, "." and ".." are taken out, links are kept."""
    path = os.path.normpath(os.path.join(*parts))
    return path[1:] if path.startswith("//") else path


def expand_home(path: str, home: str) -> str:
    """A log or pid path with a leading "~" replaced, as PM2 does whatever follows it (Common.js:32 resolveHome)."""
    return resolve(home, "./" + path[1:]) if path.startswith("~") else path


def tilde_hint(path: str) -> str:
    """For the message about a script or directory that does not exist."""
    return ' (PM2 expands "~" in paths of logs only)' if path.startswith("~") else ""


def which(command: str, search_path: str, cwd: str) -> Optional[str]:
    """The absolute path of an executable as PM2 finds it (tools/which.js), or None.

    A command with a "/" is taken relative to ``cwd``, any other is searched in ``search_path`` (a PATH).
    """
    if not command:
        return None
    if "/" in command:
        candidate = resolve(cwd, command)
        return candidate if _is_executable(candidate) else None
    for directory in search_path.split(":"):
        candidate = resolve(cwd, directory, command)
        if _is_executable(candidate):
            return candidate
    return None


def _is_executable(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def extension(path: str) -> str:
    """Node's path.extname: "" for a name that only starts with a dot, "." for one that ends with it."""
    name = os.path.basename(path)
    at = name.rfind(".")
    return name[at:] if at > 0 and name != ".." else ""


def is_binary(path: str) -> bool:
    """PM2's guess from the first 512 bytes (tools/isbinaryfile.js). What is not a file is not binary.

    Raises OSError if the file cannot be read.
    """
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        head = file.read(_BINARY_PROBE)
    return looks_binary(head)


def looks_binary(head: bytes) -> bool:
    """The same for the first bytes of a file (isbinaryfile.js isBinaryCheck)."""
    total = len(head)
    if total == 0 or head.startswith(b"\xef\xbb\xbf"):
        return False
    suspicious = 0
    at = 0
    while at < total:
        byte = head[at]
        if byte == 0:
            return True
        if (byte < 7 or byte > 14) and (byte < 32 or byte > 127):
            follow = _utf8_tail(head, at)
            if follow:
                at += follow + 1
                continue
            at += _consumed_by_a_failed_tail(head, at)
            suspicious += 1
            if at > 32 and suspicious * 100 / total > 10:
                return True
        at += 1
    return suspicious * 100 / total > 10


def _utf8_tail(head: bytes, at: int) -> int:
    """How many continuation bytes follow, if this is a character of two or three bytes; else 0."""
    byte = head[at]
    if 193 < byte < 224 and at + 1 < len(head) and 127 < head[at + 1] < 192:
        return 1
    if 223 < byte < 240 and at + 2 < len(head) and 127 < head[at + 1] < 192 and 127 < head[at + 2] < 192:
        return 2
    return 0


def _consumed_by_a_failed_tail(head: bytes, at: int) -> int:
    """PM2 skips the byte after a lead byte even if it is not a continuation (isbinaryfile.js:66 and 71)."""
    byte = head[at]
    is_lead = (193 < byte < 224 and at + 1 < len(head)) or (223 < byte < 240 and at + 2 < len(head))
    return 1 if is_lead else 0
