# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Which process answers a connection: the kernel tells by netlink, or in /proc if it has no netlink for it.

Workers of a cluster share one listening port, and old and new ones answer side by side. The process that holds the
accepted socket of *our* connection is the one that we ask.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Dict, Iterable, List, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs, _sock_diag

_LISTEN = "0A"  # TCP_LISTEN, in the state column of /proc/net/tcp
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""A process that listens on every address is reached by loopback."""


def accepted_inode(connection: socket.socket) -> Optional[int]:
    """The inode of the other end of a local TCP connection.

    0 until a process has accepted it, None if the other end is not on this host. Raises OSError if it was reset.
    """
    ours, theirs = connection.getsockname()[:2], connection.getpeername()[:2]
    try:
        return _sock_diag.connection(connection.family, theirs, ours).inode
    except OSError:  # not on this host, or no netlink
        return _accepted_in_proc(ours[1], theirs[1])


def _accepted_in_proc(ours: int, theirs: int) -> Optional[int]:
    local, remote = ":%04X" % theirs, ":%04X" % ours
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
            for line in stream:
                fields = line.split()
                if len(fields) > 9 and fields[1].endswith(local) and fields[2].endswith(remote):
                    return int(fields[9])
    return None


def listening(pid: int) -> List[Tuple[str, int]]:
    """The TCP sockets that a process listens on: the address to connect to, and the port."""
    inodes = set(_procfs.sockets(pid))
    found = []
    for family, table in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        try:
            sockets = [(each.address, each.inode) for each in _sock_diag.listening(family)]
        except OSError:
            sockets = _listening_in_proc(family, table)
        found += [(_ANY.get(host, host), port) for (host, port), inode in sockets if inode in inodes]
    return found


def _listening_in_proc(family: int, table: str) -> List[Tuple[Tuple[str, int], int]]:
    found = []
    with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
        for line in stream:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                host, _colon, port = fields[1].partition(":")
                found.append(((_address(host, family), int(port, 16)), int(fields[9])))
    return found


def _address(text: str, family: int) -> str:
    """The kernel writes an address as 32-bit words in the machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack("=%dI" % len(words), *words))


def holder(inode: int, pids: Iterable[int]) -> Optional[int]:
    """The first of ``pids`` that has the socket open."""
    return next((pid for pid in pids if inode in _procfs.sockets(pid)), None)


def trees(roots: Iterable[int]) -> Dict[int, int]:
    """``roots`` and all their descendants, each with its root. ``npm start`` serves from a grandchild."""
    children: Dict[int, Set[int]] = {}
    for entry in _procfs.pids():
        stat = _procfs.stat(entry)
        if stat is not None:
            children.setdefault(stat.parent, set()).add(entry)
    found: Dict[int, int] = {}
    for root in roots:
        pending = [root]
        while pending:
            pid = pending.pop()
            if pid not in found:
                found[pid] = root
                pending.extend(children.get(pid, ()))
    return found
