"""A namespace of a test: the modules change it, and PM2's own RPC shows it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from support import modules, processes
from support.pm2 import Pm2Home

Result = Dict[str, Any]

IDENTITY = ("namespace", "name", "pm_id", "pid", "unique_id", "status", "restart_time", "pm_uptime")


@contextlib.contextmanager
def home_in(directory: Path, version: str) -> Iterator[Pm2Home]:
    """A PM2_HOME that several tests share. Afterwards no process of `directory` runs."""
    home = Pm2Home(version, directory / "pm2")
    try:
        yield home
    finally:
        home.kill()
        survivors = processes.end_all_of(directory)
        assert not survivors, f"still running after SIGKILL: {survivors}"


class Namespace:
    """Calls of pm2_process on one namespace. Apps count as ready quickly, unless a test says otherwise."""

    READY: Mapping[str, Any] = {"min_uptime": 0.2, "timeout": 60}

    def __init__(self, home: Pm2Home, name: str) -> None:
        self.home = home
        self.name = name

    def params(self, apps: Optional[Sequence[Mapping[str, Any]]] = None, **options: Any) -> Dict[str, Any]:
        """The options of a call: the usual ones, `apps`, and `options`, which win."""
        ready = {**self.READY, **(options.pop("ready", None) or {})}
        usual = {"namespace": self.name, "pm2_home": self.home.home, "pm2_executable": self.home.executable}
        given = {} if apps is None else {"apps": list(apps)}
        return {**usual, "ready": ready, **given, **options}

    def call(self, apps: Optional[Sequence[Mapping[str, Any]]] = None, check: bool = False, **options: Any) -> Result:
        """The result of pm2_process, failed or not."""
        return modules.call("pm2_process", self.params(apps, **options), check=check)

    def bring(self, apps: Optional[Sequence[Mapping[str, Any]]] = None, **options: Any) -> Result:
        """The result of a call that has to succeed."""
        result = self.call(apps, **options)
        assert not result["failed"], result["msg"]
        return result

    def refuse(self, apps: Optional[Sequence[Mapping[str, Any]]] = None, **options: Any) -> Result:
        """The message of a call that has to fail."""
        result = self.call(apps, **options)
        assert result["failed"], f"not refused: {result['actions']}"
        return result

    def remove(self) -> None:
        """Remove all of the namespace."""
        self.bring(state="absent")

    def processes(self) -> List[Dict[str, Any]]:
        """The items of PM2's list, by pm_id."""
        return self.home.processes(self.name)

    def pids(self) -> List[int]:
        """The pids by pm_id; 0 for a process that does not run."""
        return [int(item["pid"]) for item in self.processes()]


def snapshot(home: Pm2Home) -> List[Dict[str, Any]]:
    """What a call that changes nothing leaves as it is, of every process of every namespace."""
    found = []
    for item in sorted(home.jlist(), key=lambda item: int(item["pm_id"])):
        found.append({key: item.get(key, item["pm2_env"].get(key)) for key in IDENTITY})
    return found
