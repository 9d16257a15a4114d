"""One version of PM2 with its own PM2_HOME."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import pytest

from support import places, processes, rpc

VERSIONS = ("5.4", "6.0", "7.0")
"""The versions under test; requirements/pm2 pins them exactly."""


def newest(fixture: str) -> pytest.MarkDecorator:
    """For a test whose `fixture` gives each version: only the newest, for behaviour of ours that is the same on all."""
    return pytest.mark.parametrize(fixture, VERSIONS[-1:], indirect=True)


SOCKET_PATH_LIMIT = 107
"""The longest path of a Unix socket on Linux, in bytes (sun_path without its final NUL)."""


class Pm2Home:
    """A PM2_HOME for one version of PM2. It makes the directory and starts nothing by itself."""

    def __init__(self, version: str, path: Path) -> None:
        self.version = version
        self.home = str(path)
        self.executable = str(places.CACHE / "pm2" / version / "node_modules" / ".bin" / "pm2")
        if not os.path.exists(self.executable):
            raise RuntimeError(f"PM2 {version} is not set up: run scripts/setup")
        if len(os.fsencode(self.rpc_socket)) > SOCKET_PATH_LIMIT:
            raise RuntimeError(f"{self.rpc_socket} is too long for a socket: choose a shorter TMPDIR")
        path.mkdir(parents=True, exist_ok=True)

    @property
    def rpc_socket(self) -> str:
        """The socket that the daemon listens on for RPC."""
        return os.path.join(self.home, "rpc.sock")

    @property
    def dump(self) -> Path:
        """PM2's dump file."""
        return Path(self.home, "dump.pm2")

    def environment(self, env: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
        """The environment of `cli`: of the caller's variables only PATH, and `env`."""
        base = {"PATH": os.environ["PATH"], "HOME": str(places.HOME), "LANG": "C.UTF-8", "PM2_HOME": self.home}
        return {**base, **(env or {})}

    def cli(
        self,
        *args: str,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        check: bool = True,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `pm2 --silent <args>`. Unless `check` is off, a non-zero exit raises with the output in the message."""
        done = subprocess.run(
            [self.executable, "--silent", *args],
            env=self.environment(env),
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"pm2 {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def rpc(self, method: str, *args: object) -> Any:
        """The answer of the running daemon. OSError if there is none."""
        return rpc.call(self.rpc_socket, method, *args)

    def jlist(self) -> List[Dict[str, Any]]:
        """All processes in the daemon's list (`getMonitorData`, as `pm2 jlist` prints it); [] without a daemon."""
        try:
            return list(self.rpc("getMonitorData", {}))
        except (FileNotFoundError, ConnectionRefusedError):
            return []

    def processes(self, namespace: str) -> List[Dict[str, Any]]:
        """The items of `jlist` in this namespace, by pm_id."""
        items = [item for item in self.jlist() if item["pm2_env"].get("namespace", "default") == namespace]
        return sorted(items, key=lambda item: int(item["pm_id"]))

    def daemon_pids(self) -> List[int]:
        """Every process that is a God Daemon of this home. More than one is a defect.

        The title alone is not enough: it has the home, cut at the length of the original command line. A process whose
        parent is a God Daemon too is a child of the daemon between its fork and its exec.
        """
        titled = [pid for pid in processes.all_pids() if "God Daemon (" in processes.cmdline(pid)]
        found = {pid for pid in titled if processes.environ(pid).get("PM2_HOME") == self.home and processes.alive(pid)}
        return sorted(pid for pid in found if processes.parent(pid) not in found)

    def kill(self) -> None:
        """SIGKILL the daemon and all processes of this home. Removes no file. Fails if a process survives."""
        processes.end(self.daemon_pids())
        survivors = processes.end_all_of(Path(self.home))
        assert not survivors, f"still running after SIGKILL: {survivors}"
