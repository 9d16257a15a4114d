"""Reading 200 processes with our client, against `pm2 jlist`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from support import places
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home

from bench.comparison import Comparison, in_turn, rounds

PROCESSES = 200
ROUNDS = 15
TARGET = 0.2

PROGRAM = """\
import sys
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
assert len([Process(item) for item in _daemon.find(sys.argv[1]).processes]) == int(sys.argv[2])
"""


def measure(directory: Path) -> Iterator[Comparison]:
    home = Pm2Home(VERSIONS[-1], directory / "pm2")
    try:
        _start(home, directory)
        yield from _compare(home)
    finally:
        home.kill()


def _start(home: Pm2Home, directory: Path) -> None:
    apps = [
        {"name": f"sleep-{number}", "script": "/bin/sleep", "args": ["100000"], "cwd": str(directory), "instances": 10}
        for number in range(PROCESSES // 10)
    ]
    for app in apps:
        options = {"namespace": "bench", "pm2_home": home.home, "pm2_executable": home.executable}
        fork = {**app, "exec_mode": "fork"}
        done = call("pm2_process", {**options, "apps": [fork], "save": False, "ready": {"min_uptime": 0}})
        assert not done["failed"], done["msg"]


def _compare(home: Pm2Home) -> Iterator[Comparison]:
    env = {**os.environ, "PYTHONPATH": str(places.COLLECTIONS)}

    def jlist() -> None:
        assert len(json.loads(home.cli("jlist").stdout)) == PROCESSES

    def read() -> None:
        daemon = _daemon.find(home.home)
        assert daemon is not None
        with daemon.client:
            assert len([Process(item) for item in daemon.processes]) == PROCESSES

    def read_as_program() -> None:
        subprocess.run([sys.executable, "-c", PROGRAM, home.home, str(PROCESSES)], env=env, check=True)

    mine, theirs = in_turn(read, jlist, rounds=rounds(ROUNDS))
    yield Comparison("reading 200 processes, in a process that runs", mine, "pm2 jlist", theirs, TARGET)
    mine, theirs = in_turn(read_as_program, jlist, rounds=rounds(ROUNDS))
    yield Comparison("reading 200 processes, as a whole program", mine, "pm2 jlist", theirs, None)
