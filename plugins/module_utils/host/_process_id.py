# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Processes by pid and start time: the kernel gives a pid of a process that has ended to another one."""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs

_SSHD = re.compile(r"sshd(-session)?: ")
_TITLE = 4096  # bytes of a command line that are read


class ProcessId(NamedTuple):
    """A process of this host; ``start`` as in _procfs.Stat."""

    pid: int
    start: int

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return find(self.pid) == self


def find(pid: int) -> Optional[ProcessId]:
    """The process with that pid, None if there is none."""
    stat = _procfs.stat(pid)
    return ProcessId(pid, stat.start) if stat is not None and stat.runs else None


def pid_scope() -> str:
    """A name of this boot and this PID namespace: with the same name, a pid means the same process. "" if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        return ""
    namespace = _procfs.pid_namespace()
    return "%s %s" % (boot, namespace) if namespace else ""


def _is_hidden(pid: int) -> bool:
    """Whether it exists, and /proc hides it from us (a process of another user, with the mount option hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return _procfs.stat(pid) is None
    except (OSError, OverflowError):
        return False
    return False


def ancestors(pid: int) -> List[int]:
    """Parent, its parent, and so on, without init."""
    found: List[int] = []
    while len(found) < 100:
        stat = _procfs.stat(pid)
        if stat is None or stat.parent <= 1:
            break
        pid = stat.parent
        found.append(pid)
    return found


def _title(pid: int) -> str:
    return _procfs.command_line(pid, _TITLE).replace(b"\0", b" ").decode("utf-8", "replace")


def anchor(controller: Optional[int], start: Optional[int] = None, scope: str = "") -> Optional[ProcessId]:
    """The process that drives this run: when it ends, the run is abandoned. None if it is unknown.

    If ansible-playbook runs on this host, it is that: ``controller`` is its pid, ``start`` as in ProcessId, ``scope``
    its ``pid_scope``. It may have ended already. Without ``start`` and ``scope`` it has to be one of our ancestors.
    Otherwise it is the SSH session that this call came by.
    """
    if controller and start and scope and scope == pid_scope() and not _is_hidden(controller):
        return ProcessId(controller, start)
    line = ancestors(os.getpid())
    if controller is not None and controller in line:
        return find(controller)
    session = next((pid for pid in line if _SSHD.match(_title(pid))), None)
    return find(session) if session is not None else None
