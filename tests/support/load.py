"""Steady HTTP load on 127.0.0.1: a new connection for each request, and a count of every failure."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from types import TracebackType
from typing import List, Optional, Type


class Load:
    """Clients that send requests until `stop` is called or `limit` seconds have passed.

    `with Load(port) as load: …`, then `load.ok`, `load.failed`, `load.errors` (how often each kind of failure),
    `load.bodies` (how often each answer came) and `load.gap` (the longest time without a good answer, in seconds).
    These are complete after `stop`.
    """

    def __init__(
        self,
        port: int,
        path: str = "/",
        clients: int = 4,
        pause: float = 0.02,
        timeout: float = 20.0,
        limit: float = 600.0,
    ) -> None:
        self.port = port
        self.path = path
        self.pause = pause
        self.timeout = timeout
        self.limit = limit
        self.errors: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.gap = 0.0
        self._good: List[float] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _client in range(clients)]

    @property
    def ok(self) -> int:
        """Requests with a complete answer of status 200."""
        return len(self._good)

    @property
    def failed(self) -> int:
        """All other requests."""
        return sum(self.errors.values())

    def start(self) -> Load:
        """Start the clients. Returns after the first good answer, or raises after `timeout` seconds."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + self.timeout
        while not self.ok:
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"no answer on port {self.port}: {dict(self.errors)}")
            time.sleep(0.005)
        return self

    def stop(self) -> Load:
        """End the clients. Requests under way are finished and counted."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        times = sorted(self._good)
        self.gap = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
        return self

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    def _ask_on(self) -> None:
        deadline = time.monotonic() + self.limit
        while not self._stop.is_set() and time.monotonic() < deadline:
            try:
                body = get(self.port, self.path, self.timeout)
            except (OSError, ValueError) as error:
                with self._lock:
                    self.errors[f"{type(error).__name__}: {error}"] += 1
            else:
                with self._lock:
                    self.bodies[body] += 1
                    self._good.append(time.monotonic())
            self._stop.wait(self.pause)


def get(port: int, path: str = "/", timeout: float = 20.0) -> str:
    """The body of a GET. OSError if the connection fails, ValueError if the answer is not a whole one of status 200."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise ValueError(f"cut answer of {len(answer)} bytes")
    status = head.split(b" ", 2)[1].decode()
    if status != "200":
        raise ValueError(f"status {status}")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:") and int(line.partition(b":")[2]) != len(body):
            raise ValueError(f"cut body of {len(body)} bytes")
    return body.decode()
