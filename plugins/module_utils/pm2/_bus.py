# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The daemon's event bus (``$PM2_HOME/pub.sock``): error lines of a process that never reach its log file.

A cluster worker that throws at its start writes to its log asynchronously and exits at once: the file stays empty
(ProcessContainer.js:263). The same lines are sent over the bus first. A frame is ``[s:<event>, j:<data>]`` (pm2-axon
pub-emitter); each subscriber gets every event.
"""

from __future__ import annotations

import collections
import json
import os
import socket
from typing import Deque, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _axon

LINES = 50
_EVENT = b"s:log:err"


class Errors:
    """Collects the error lines of one namespace, the last 50 of each process. Never fails, as it is only evidence."""

    def __init__(self, pm2_home: str, namespace: str) -> None:
        self._namespace = namespace
        self._lines: Dict[int, Deque[str]] = {}
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open = False
        try:
            self._socket.settimeout(1)
            self._socket.connect(os.path.join(pm2_home, "pub.sock"))
            self._socket.setblocking(False)
            self._open = True
        except OSError:
            self._socket.close()

    def close(self) -> None:
        self._open = False
        self._socket.close()

    def collect(self) -> None:
        """Read the events that have arrived, so that the daemon does not have to buffer them."""
        while self._open:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._buffer += data
            self._take_frames()

    def _take_frames(self) -> None:
        try:
            frame = _axon.decode(self._buffer)
            while frame is not None:
                arguments, taken = frame
                del self._buffer[:taken]
                if len(arguments) == 2 and arguments[0] == _EVENT:
                    self._take(json.loads(arguments[1][2:].decode("utf-8", "replace")))
                frame = _axon.decode(self._buffer)
        except (_axon.AxonError, ValueError, TypeError, KeyError):
            self.close()

    def _take(self, event: Dict[str, Dict[str, str]]) -> None:
        process = event["process"]
        if process.get("namespace") == self._namespace:
            lines = self._lines.setdefault(int(process["pm_id"]), collections.deque(maxlen=LINES))
            lines.extend(line for line in str(event["data"]).splitlines() if line.strip())

    def of(self, pm_id: int) -> List[str]:
        """The error lines of a process."""
        return list(self._lines.get(pm_id, ()))
