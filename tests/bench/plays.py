"""A play that finds ten apps in order, against a play with one ping, and against another collection's loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping

from support import places
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home

from bench.comparison import Comparison, in_turn, rounds

PLAYS = Path(__file__).parent / "plays"
PEER = places.CACHE / "bench" / "peer" / "bin"
OURS = Path(sys.prefix) / "bin"
ROUNDS = 11
APPS = 10


def measure(directory: Path) -> Iterator[Comparison]:
    home = Pm2Home(VERSIONS[-1], directory / "pm2")
    try:
        yield from _compare(home, directory)
    finally:
        home.kill()


def _compare(home: Pm2Home, directory: Path) -> Iterator[Comparison]:
    apps = [
        {"name": f"app-{number}", "script": "/bin/sleep", "args": ["100000"], "cwd": str(directory)}
        for number in range(APPS)
    ]
    done = call("pm2_process", {**_options(home), "apps": apps, "ready": {"min_uptime": 0.2}})
    assert not done["failed"], done["msg"]
    variables = {**_options(home), "apps": apps}
    order = Play("order.yml", OURS, variables)
    pids = _pids(home)

    ping = Play("ping.yml", OURS, {})
    yield Comparison("10 apps found in order", *_ratio(order, "one ping", ping, 1.3))
    peer = Play("peer.playbook", PEER, variables, home=home)
    yield Comparison("10 apps found in order", *_ratio(order, "ansible-modules-pm2's loop", peer, 0.25))

    assert _pids(home) == pids, "a play that should find everything in order has changed something"


def _ratio(ours: Play, name: str, other: Play, target: float) -> Any:
    mine, theirs = in_turn(ours.run, other.run, rounds=rounds(ROUNDS))
    return mine, name, theirs, target


def _options(home: Pm2Home) -> Dict[str, Any]:
    return {"namespace": "bench", "pm2_home": home.home, "pm2_executable": home.executable}


def _pids(home: Pm2Home) -> Dict[str, int]:
    return {item["name"]: item["pid"] for item in home.jlist()}


class Play:
    """A playbook and its variables, run by the ansible-playbook of a venv."""

    def __init__(
        self, name: str, bin_directory: Path, variables: Mapping[str, Any], home: Pm2Home | None = None
    ) -> None:
        self._command = [str(bin_directory / "ansible-playbook"), "-i", "localhost,", str(PLAYS / name)]
        given = {**variables, "ansible_python_interpreter": str(bin_directory / "python")}
        self._command += ["-e", json.dumps(given)]
        self._env = {**os.environ, "ANSIBLE_DEPRECATION_WARNINGS": "false"}
        if home:
            self._env["PM2_HOME"] = home.home

    def run(self) -> None:
        """Run the play, which must not change anything."""
        done = subprocess.run(self._command, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "changed=0" in done.stdout, done.stdout
