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
import struct
from typing import Dict, Iterable, List, Optional, Set, Tuple

_LISTEN = "0A"  # TCP_LISTEN, in the state column of /proc/net/tcp


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


def listening(pid: int) -> List[Tuple[str, int]]:
    """Where a process listens for TCP: the address to connect to, and the port."""
    inodes = _socket_inodes(pid)
    found = []
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
            for line in stream:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _LISTEN and fields[9] in inodes:
                    host, _colon, port = fields[1].partition(":")
                    found.append((_address(host, family), int(port, 16)))
    return found


def _socket_inodes(pid: int) -> Set[str]:
    directory = "/proc/%d/fd" % pid
    inodes = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(os.path.join(directory, name))
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def _address(text: str, family: int) -> str:
    """The kernel writes an address as 32-bit words in the machine's byte order; "any" is reached by loopback."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = socket.inet_ntop(family, struct.pack("=%dI" % len(words), *words))
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


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
