# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""TCP sockets of this host by netlink, as ``ss`` asks for them: sock_diag(7), linux/inet_diag.h.

It looks one connection up in the kernel's table, and lists only sockets that listen. /proc/net/tcp is slower: it is all
connections as text, also those in TIME_WAIT, and with 3,000 of them one look took 18 ms. Any user may ask. Every
function raises OSError if the kernel does not offer this, as in some containers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Iterator, List, NamedTuple, Tuple

_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _DUMP = 0x001, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_LISTEN, _ALL = 10, 0xFFFFFFFF  # TCP_LISTEN; every state
_ANY_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, pid
_QUESTION = struct.Struct("=BBBxI")  # inet_diag_req_v2 before its inet_diag_sockid: family, protocol, ext, states
_NAMES = struct.Struct(">HH16s16s")  # inet_diag_sockid: ports of both ends, addresses of both ends
_TAIL = struct.Struct("=5I")  # inet_diag_msg after its sockid: expires, rqueue, wqueue, uid, inode
_TIMEOUT = 5.0  # seconds; the kernel answers at once


class TcpSocket(NamedTuple):
    """A socket: the address of its own end, and its inode; 0 until a process has it."""

    address: Tuple[str, int]
    inode: int
    is_listening: bool


def connection(family: int, local: Tuple[str, int], remote: Tuple[str, int]) -> TcpSocket:
    """The socket of an open connection whose own end is ``local``. Raises FileNotFoundError if this host has none."""
    names = _NAMES.pack(local[1], remote[1], _packed(family, local[0]), _packed(family, remote[0]))
    for found in _ask(family, _ALL, names, 0):
        if not found.is_listening:  # for an unknown connection the kernel returns the socket that listens
            return found
    raise FileNotFoundError("there is no connection from %s:%d to %s:%d" % (*local, *remote))


def listening(family: int) -> List[TcpSocket]:
    """All sockets of ``family`` that listen, of all processes."""
    return list(_ask(family, 1 << _LISTEN, bytes(_NAMES.size), _DUMP))


def _ask(family: int, states: int, names: bytes, flags: int) -> Iterator[TcpSocket]:
    body = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, states) + names + bytes(4) + _ANY_COOKIE
    message = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | flags, 1, 0) + body
    with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)) as kernel:
        kernel.settimeout(_TIMEOUT)
        kernel.sendall(message)
        while True:
            answer = kernel.recv(1 << 16)
            while len(answer) >= _HEADER.size:
                length, kind = _HEADER.unpack_from(answer)[:2]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                yield _found(answer[_HEADER.size : length])
                answer = answer[(length + 3) & ~3 :]
            if not flags:
                return


def _found(body: bytes) -> TcpSocket:
    family, state = body[0], body[1]
    port, _remote_port, address, _remote = _NAMES.unpack_from(body, 4)
    length = 4 if family == socket.AF_INET else 16
    inode = _TAIL.unpack_from(body, 4 + _NAMES.size + 12)[4]
    return TcpSocket((socket.inet_ntop(family, address[:length]), port), inode, state == _LISTEN)


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")
