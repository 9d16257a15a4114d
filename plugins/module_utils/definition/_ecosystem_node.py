# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Run node on an ecosystem file, with a clean environment, its own process group and a pipe for the result."""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import time
from typing import IO, Any, Dict, NamedTuple, Optional, cast

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._ecosystem_program import PROGRAM
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_group

MAX_RESULT = 16 * 1024 * 1024
"""Bytes of the result."""
_HEAD = struct.Struct(">I")
_CHUNK = 65536
_TOLD = 2000
_LAST_LINES = 5
_POLL = 0.05


class Evaluated(NamedTuple):
    """The content of a file, or why it cannot be used."""

    config: Dict[str, Any]
    error: Optional[str]


def evaluate(path: str, kind: str, context: Context, timeout: float) -> Evaluated:
    """Evaluate a file of ``kind`` js, json (as JavaScript) or yaml, in its directory. ``timeout`` in seconds."""
    if kind == "yaml" and not context.pm2_dir:
        return Evaluated({}, "YAML is read with PM2's own js-yaml, and the pm2 package was not found")
    reader, writer = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                [context.node, "-e", PROGRAM, path, kind, str(writer), context.pm2_dir],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writer,),
                env=dict(context.base_env),
                cwd=os.path.dirname(path),
                start_new_session=True,
            )
        except OSError as error:
            return Evaluated({}, "node cannot be run: %s: %s" % (context.node, error.strerror))
        finally:
            os.close(writer)
        return _Run(process, reader, timeout).result()
    finally:
        os.close(reader)


class _Run:
    """One run of node: reads its pipe and its stderr until there is a result, node ends, or the time is over."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int, timeout: float) -> None:
        self.process = process
        self.reader = reader
        self.timeout = timeout
        self.message = bytearray()
        self.said = bytearray()

    def result(self) -> Evaluated:
        try:
            finished = self._read()
        finally:
            self._end()
        if len(self.message) > MAX_RESULT:
            return Evaluated({}, "what it exports is larger than %d bytes" % MAX_RESULT)
        body = self._body()
        if body is not None:
            reply = json.loads(body.decode("utf-8", "surrogatepass"))
            if "config" in reply:
                return Evaluated(reply["config"], None)
            return Evaluated({}, self._cut(reply["error"]))
        if not finished:
            return Evaluated({}, "it took longer than %g seconds and was ended" % self.timeout)
        return Evaluated({}, "node ended with exit code %s%s" % (self.process.returncode, self._last_lines()))

    def _read(self) -> bool:
        """False if the time is over."""
        deadline = time.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.reader, selectors.EVENT_READ, self.message)
            selector.register(cast(IO[bytes], self.process.stderr).fileno(), selectors.EVENT_READ, self.said)
            while self._body() is None and len(self.message) <= MAX_RESULT:
                if time.monotonic() >= deadline:
                    return False
                has_ended = self.process.poll() is not None
                events = selector.select(_POLL)
                if not events and has_ended:
                    return True
                for key, _mask in events:
                    data = os.read(key.fd, _CHUNK)
                    if not data:
                        selector.unregister(key.fileobj)
                    key.data.extend(data)
                    del self.said[: -4 * _TOLD]
                if not selector.get_map():
                    self.process.wait(max(0.1, deadline - time.monotonic()))
                    return True
        return True

    def _body(self) -> Optional[bytes]:
        """The result, once it is complete."""
        if len(self.message) < _HEAD.size:
            return None
        (size,) = _HEAD.unpack_from(self.message)
        return bytes(self.message[_HEAD.size :]) if len(self.message) == _HEAD.size + size else None

    def _end(self) -> None:
        """End node and all processes that the file started."""
        _process_group.kill(self.process.pid)
        self.process.wait()
        _process_group.await_end(self.process.pid)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _last_lines(self) -> str:
        lines = [line for line in self.said.decode("utf-8", "replace").splitlines() if line.strip()]
        return ": " + self._cut(" | ".join(line.strip() for line in lines[-_LAST_LINES:])) if lines else ""

    @staticmethod
    def _cut(said: str) -> str:
        return said if len(said) <= _TOLD else said[:_TOLD] + "..."
