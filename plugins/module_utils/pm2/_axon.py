# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""PM2's RPC: axon frames over the daemon's unix socket.

A frame is one byte ``(1 << 4) | argc``, then per argument a big-endian uint32 length and that many bytes. An argument
is ``s:`` plus a string or ``j:`` plus JSON (pm2-axon ``lib/sockets/sock.js``, amp and amp-message). A request is
``[j:{"type": "call", "method": m, "args": [...]}, s:<id>]``, its reply ``[j:{"args": [...]}, s:<id>]`` or
``[j:{"error": message, "stack": stack}, s:<id>]`` (pm2-axon-rpc ``lib/server.js``).
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

_LENGTH = struct.Struct(">I")
_UCRED = struct.Struct("3i")


class AxonError(NodeopsError):
    """No conversation with the daemon: it refused, closed the connection, or does not speak axon."""


class RpcTimeout(AxonError):
    """The daemon accepted the call and did not answer in time."""


class RemoteError(AxonError):
    """The daemon answered a call with an error."""


class Peer(NamedTuple):
    """The process at the other end of the socket (SO_PEERCRED), whatever pm2.pid says."""

    pid: int
    uid: int
    gid: int


def encode(arguments: Sequence[bytes]) -> bytes:
    """One frame of up to 15 arguments."""
    parts = [bytes([(1 << 4) | len(arguments)])]
    for argument in arguments:
        parts.append(_LENGTH.pack(len(argument)))
        parts.append(argument)
    return b"".join(parts)


def decode(buffer: Union[bytes, bytearray]) -> Optional[Tuple[List[bytes], int]]:
    """The first whole frame of ``buffer`` and its length in bytes, or None if it is not complete yet.

    Raises AxonError if the first byte does not begin a frame of version 1.
    """
    if not buffer:
        return None
    if buffer[0] >> 4 != 1:
        raise AxonError("The peer does not speak PM2's protocol: its frame starts with byte 0x%02x." % buffer[0])
    position = 1
    arguments = []
    for _argument in range(buffer[0] & 0xF):
        if len(buffer) < position + 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer, position)
        position += 4
        if len(buffer) < position + length:
            return None
        arguments.append(bytes(buffer[position : position + length]))
        position += length
    return arguments, position


class Client:
    """One connection to a daemon. Calls can be pipelined: ``send`` some, then ``receive`` or ``collect`` replies.

    ``timeout`` is in seconds and holds for each ``call``.
    """

    def __init__(self, path: str, timeout: float = 15.0) -> None:
        self.path = path
        self.timeout = timeout
        self._next_id = 0
        self._buffer = bytearray()
        self._replies: Dict[str, Any] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._connect(path)
        except OSError:
            self._socket.close()
            raise
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self.peer = Peer(*_UCRED.unpack(credentials))

    def _connect(self, path: str) -> None:
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                self._socket.connect(path)
                return
            except OSError as error:
                # EAGAIN: the backlog of a busy daemon is full (unix(7)).
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, method: str, *args: Any) -> str:
        """Send a call. Returns the id that its reply will have."""
        self._next_id += 1
        identifier = str(self._next_id)
        call = json.dumps({"type": "call", "method": method, "args": args}, allow_nan=False)
        self._send(encode([b"j:" + call.encode(), b"s:" + identifier.encode()]))
        return identifier

    def methods(self) -> List[str]:
        """The names of the methods the daemon exposes."""
        self._next_id += 1
        identifier = str(self._next_id)
        self._send(encode([b'j:{"type":"methods"}', b"s:" + identifier.encode()]))
        reply = self._wait(identifier, "methods", self.timeout)
        return sorted(reply.get("methods", {}))

    def call(self, method: str, *args: Any, timeout: Optional[float] = None) -> Any:
        """Call and wait. Returns the daemon's answer; raises RemoteError with its error, or RpcTimeout."""
        return self.receive(self.send(method, *args), method, timeout)

    def receive(
        self, identifier: str, method: str, timeout: Optional[float] = None, since: Optional[float] = None
    ) -> Any:
        """The answer to an earlier ``send``. ``timeout`` counts from ``since`` (of time.monotonic), else from now."""
        return _result(method, self._wait(identifier, method, self.timeout if timeout is None else timeout, since))

    def collect(self) -> None:
        """Read the replies that have arrived, without waiting."""
        self._socket.setblocking(False)
        try:
            while self._read_some():
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(self.timeout)

    def arrived(self, identifier: str) -> bool:
        """Whether the reply to an earlier ``send`` has arrived (after ``collect``)."""
        return identifier in self._replies

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self.timeout)
            self._socket.sendall(data)
        except socket.timeout:
            raise RpcTimeout("The PM2 daemon behind %s took no data for %g s." % (self.path, self.timeout)) from None
        except OSError as error:
            raise AxonError("The PM2 daemon behind %s went away: %s." % (self.path, error.strerror)) from error

    def _wait(self, identifier: str, method: str, timeout: float, since: Optional[float] = None) -> Dict[str, Any]:
        deadline = (time.monotonic() if since is None else since) + timeout
        while identifier not in self._replies:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise RpcTimeout(
                    "The PM2 daemon behind %s (pid %d) did not answer '%s' within %g s."
                    % (self.path, self.peer.pid, method, timeout)
                )
            self._socket.settimeout(remaining)
            try:
                self._read_some()
            except socket.timeout:
                continue
        reply: Dict[str, Any] = self._replies.pop(identifier)
        return reply

    def _read_some(self) -> bool:
        try:
            data = self._socket.recv(1 << 18)
        except (socket.timeout, BlockingIOError):
            raise
        except OSError as error:
            raise AxonError("The PM2 daemon behind %s went away: %s." % (self.path, error.strerror)) from error
        if not data:
            raise AxonError("The PM2 daemon behind %s closed the connection before it answered." % self.path)
        self._buffer += data
        while True:
            frame = decode(self._buffer)
            if frame is None:
                return True
            arguments, taken = frame
            del self._buffer[:taken]
            if len(arguments) == 2 and arguments[0].startswith(b"j:") and arguments[1].startswith(b"s:"):
                self._replies[arguments[1][2:].decode("utf-8", "replace")] = _reply(arguments[0][2:])


def _reply(data: bytes) -> Dict[str, Any]:
    try:
        reply = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise AxonError("The peer does not speak PM2's protocol: its reply starts with %r." % data[:40])
    return reply


def _result(method: str, reply: Dict[str, Any]) -> Any:
    if reply.get("error"):
        raise RemoteError(
            "The PM2 daemon refused '%s': %s" % (method, reply["error"]), {"rpc_error": str(reply["error"])}
        )
    answers = reply.get("args")
    return answers[0] if isinstance(answers, list) and answers else None
