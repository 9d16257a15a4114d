# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Processes by number and start time: a number alone may be given to another one."""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional

_SSHD = re.compile(r"sshd(-session)?: ")


class Seen(NamedTuple):
    """A process of this host; ``start`` in clock ticks since boot (proc(5), stat, field 22)."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return look(self.pid) == self


def _stat(pid: int) -> List[str]:
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:
            return stream.read().rpartition(b")")[2].decode("ascii").split()
    except (OSError, ValueError):
        return []


def look(pid: int) -> Optional[Seen]:
    """The process of that number, None when there is none."""
    fields = _stat(pid)
    return Seen(pid, int(fields[19])) if len(fields) > 19 and fields[0] not in "ZX" else None


def place() -> str:
    """Names this boot of this kernel and this PID namespace: who names the same sees the same processes. "" without."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return "%s %s" % (stream.read().strip(), os.readlink("/proc/self/ns/pid"))
    except OSError:
        return ""


def _is_hidden(pid: int) -> bool:
    """Whether it is there, and not to be seen by us (another user's, in a /proc with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not _stat(pid)
    except (OSError, OverflowError):
        return False
    return False


def ancestors(pid: int) -> List[int]:
    """Parent, its parent, and so on, without init."""
    found: List[int] = []
    while len(found) < 100:
        fields = _stat(pid)
        pid = int(fields[1]) if len(fields) > 1 else 0
        if pid <= 1:
            break
        found.append(pid)
    return found


def _title(pid: int) -> str:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            return stream.read(4096).replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def anchor(controller: Optional[int], start: Optional[int] = None, where: str = "") -> Optional[Seen]:
    """The process whose end means that nobody drives this run any more; None when it cannot be told.

    It is the ansible-playbook where that runs on this host: ``controller`` is its pid, ``start`` as in Seen, ``where``
    its ``place``. It may have ended already. Without these two it has to be one of our ancestors. Else it is the SSH
    session that this call came by.
    """
    if controller and start and where and where == place() and not _is_hidden(controller):
        return Seen(controller, start)
    line = ancestors(os.getpid())
    if controller is not None and controller in line:
        return look(controller)
    session = next((pid for pid in line if _SSHD.match(_title(pid))), None)
    return look(session) if session is not None else None
