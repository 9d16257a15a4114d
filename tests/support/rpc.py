"""An independent client of PM2's RPC, so that the tests do not observe with the code under test.

Frames are those of PM2's `amp` and `amp-message`: one byte with version and number of arguments, then each argument
after its length in four bytes, with `j:` before JSON and `s:` before a string.
"""

from __future__ import annotations

import json
import socket
from typing import Any, List


class RemoteError(Exception):
    """The daemon answered with an error."""


def call(path: str, method: str, *args: object, timeout: float = 30.0) -> Any:
    """The answer of `method`. OSError if no process listens at `path`, RemoteError if the daemon refuses."""
    request = [b"j:" + json.dumps({"type": "call", "method": method, "args": args}).encode(), b"s:test:0"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(_encode(request))
        answer = json.loads(_receive(connection)[0][2:])
    if "error" in answer:
        raise RemoteError(str(answer["error"]))
    return answer["args"][0] if answer["args"] else None


def _encode(parts: List[bytes]) -> bytes:
    return bytes([1 << 4 | len(parts)]) + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _receive(connection: socket.socket) -> List[bytes]:
    count = _exactly(connection, 1)[0] & 0x0F
    return [_exactly(connection, int.from_bytes(_exactly(connection, 4), "big")) for _part in range(count)]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            raise ConnectionError(f"the daemon closed the connection after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)
