"""A real HAProxy in front of ports of 127.0.0.1: Debian's package, with a configuration and a socket of its own."""

from __future__ import annotations

import csv
import io
import socket
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional

from support import debian
from support.apps import free_port

BACKEND = "shop"

_CONFIGURATION = """\
global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  timeout connect 10s
  timeout check 5s
  timeout client 60s
  timeout server 60s
frontend shop
  bind 127.0.0.1:{port}
  default_backend {backend}
backend {backend}
  balance roundrobin
  option httpchk GET /health
  # A connection that is refused counts: nothing but leaving in time saves a request.
  retries 0
  default-server check inter 200ms fall 3 rise 1
"""


def program() -> Optional[str]:
    """The path of HAProxy, installed where that can be done. None if it cannot be."""
    return debian.program("haproxy", "haproxy")


class HAProxy:
    """`with HAProxy(directory, {"web1": 20001, …}) as balancer: …`; listens on `balancer.port`."""

    def __init__(self, directory: Path, servers: Dict[str, int]) -> None:
        found = program()
        if not found:
            raise RuntimeError("HAProxy is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        self.program = found
        self.port = free_port()
        self.socket = str(directory / "admin.sock")
        self._configuration = directory / "haproxy.cfg"
        lines = [f"  server {name} 127.0.0.1:{port}\n" for name, port in servers.items()]
        text = _CONFIGURATION.format(socket=self.socket, port=self.port, backend=BACKEND)
        self._configuration.write_text(text + "".join(lines))
        self._process: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> HAProxy:
        self._process = subprocess.Popen(
            [self.program, "-db", "-f", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"HAProxy does not start: {self.check()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def check(self) -> str:
        """What HAProxy says of its configuration."""
        done = subprocess.run(
            [self.program, "-c", "-f", str(self._configuration)], check=False, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def _answers(self) -> bool:
        """Whether the runtime API does: its socket is there a moment before it listens."""
        try:
            return bool(self.ask("show info"))
        except OSError:
            return False

    def ask(self, command: str) -> str:
        """The answer to a command of the runtime API."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def up(self) -> List[str]:
        """The servers that take part."""
        rows = csv.DictReader(io.StringIO(self.ask("show stat").lstrip("# ")))
        return [
            row["svname"] for row in rows if row["pxname"] == BACKEND and row["type"] == "2" and "UP" in row["status"]
        ]

    def wait_for(self, *servers: str, timeout: float = 60.0) -> None:
        """Until exactly these take part."""
        deadline = time.monotonic() + timeout
        while self.up() != list(servers):
            assert time.monotonic() < deadline, f"HAProxy finds up: {self.up()}"
            time.sleep(0.05)
