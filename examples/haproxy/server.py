"""Takes a server out of a backend of a running HAProxy, or back into it, through HAProxy's runtime socket.

    python3 server.py SOCKET BACKEND SERVER drain|ready SECONDS

`drain`: the server gets no new connection, and is put into maintenance when its present ones have ended. Refused if no
other server of the backend is up. `ready`: puts the server back, and waits until HAProxy counts it as up. SECONDS is
the time limit. Prints the status that HAProxy gives the server, or exits with a message if it fails.
"""

from __future__ import annotations

import csv
import io
import socket
import sys
import time

PAUSE = 0.1  # seconds between two looks


class HAProxy:
    """One server of one backend in the runtime API, which takes one command per connection."""

    def __init__(self, path: str, backend: str, server: str) -> None:
        self.path, self.backend, self.server = path, backend, server

    def ask(self, command: str) -> str:
        """The answer to a command. Errors are answers too."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.path)
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()

    def servers(self) -> dict[str, dict[str, str]]:
        """The rows of `show stat` for the backend's servers, by name."""
        table = csv.DictReader(io.StringIO(self.ask("show stat").lstrip("# ")))
        found = {row["svname"]: row for row in table if row["pxname"] == self.backend and row["type"] == "2"}
        if self.server not in found:
            raise SystemExit(f"HAProxy knows no server {self.backend}/{self.server}. Nothing was changed.")
        return found

    def state(self, state: str) -> None:
        """Set the server's administrative state."""
        answer = self.ask(f"set server {self.backend}/{self.server} state {state}")
        if answer:
            raise SystemExit(f"HAProxy refused to set {self.backend}/{self.server} to {state}: {answer}")

    def drain(self, seconds: float) -> None:
        """Take the server out of service when its last connection has ended."""
        servers = self.servers()
        if not any(_is_up(row) for name, row in servers.items() if name != self.server):
            raise SystemExit(
                f"No other server of {self.backend} is up, so none would answer without {self.server}. "
                "Nothing was changed."
            )
        self.state("drain")
        deadline = time.monotonic() + seconds
        while int(self.servers()[self.server]["scur"]):
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.server} still has connections after {seconds:g} s. It was left draining.")
            time.sleep(PAUSE)
        self.state("maint")

    def ready(self, seconds: float) -> None:
        """Put the server back into service."""
        self.servers()
        self.state("ready")
        deadline = time.monotonic() + seconds
        while not _is_up(self.servers()[self.server]):
            if time.monotonic() > deadline:
                raise SystemExit(f"HAProxy's check does not find {self.server} up after {seconds:g} s.")
            time.sleep(PAUSE)


def _is_up(row: dict[str, str]) -> bool:
    return row["status"].startswith(("UP", "no check"))


def main(path: str, backend: str, server: str, action: str, seconds: str) -> None:
    """Run one action."""
    haproxy = HAProxy(path, backend, server)
    try:
        {"drain": haproxy.drain, "ready": haproxy.ready}[action](float(seconds))
        print(f"{backend}/{server}: {haproxy.servers()[server]['status']}")
    except OSError as error:
        raise SystemExit(f"HAProxy cannot be asked at {path}: {error}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
