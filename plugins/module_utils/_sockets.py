# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Which process answers a connection: the kernel's view, from /proc.

Workers of a cluster share one listening port, and old and new ones answer side by side. Whoever holds the accepted
socket of *our* connection is the one that is being asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Dict, Iterable, Optional, Set


def accepted_inode(connection: socket.socket) -> Optional[int]:
    """The inode of the other end of a local TCP connection.

    0 while nobody has accepted it yet, None when the other end is not on this host.
    """
    ours, theirs = connection.getsockname()[1], connection.getpeername()[1]
    local, remote = ":%04X" % theirs, ":%04X" % ours
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
            for line in stream:
                fields = line.split()
                if len(fields) > 9 and fields[1].endswith(local) and fields[2].endswith(remote):
                    return int(fields[9])
    return None


def holder(inode: int, pids: Iterable[int]) -> Optional[int]:
    """The first of ``pids`` that has the socket open."""
    wanted = "socket:[%d]" % inode
    for pid in pids:
        directory = "/proc/%d/fd" % pid
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                with contextlib.suppress(OSError):
                    if os.readlink(os.path.join(directory, name)) == wanted:
                        return pid
    return None


def trees(roots: Iterable[int]) -> Dict[int, int]:
    """Every descendant of ``roots`` (and they themselves) -> its root. ``npm start`` serves from a grandchild."""
    children: Dict[int, Set[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open("/proc/%s/stat" % entry, "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, set()).add(int(entry))
    found: Dict[int, int] = {}
    for root in roots:
        pending = [root]
        while pending:
            pid = pending.pop()
            if pid not in found:
                found[pid] = root
                pending.extend(children.get(pid, ()))
    return found
