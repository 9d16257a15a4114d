# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` and `make demo-stop`, as they are run in a fresh clone.

Core, although it takes two minutes: it is the first thing that a new user runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Set

import pytest
from support import places, processes
from support.load import get

NAMES = ("production", "test")
pytestmark = pytest.mark.timeout(900)  # seconds; alone it takes two minutes, beside other tests more


def demo(home: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(places.ROOT / "scripts" / "demo"), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DEMO_DIR": str(directory),
            "CI_TOKEN": "canary-5d1e",
            "PYTEST_XDIST_WORKER": os.environ.get("PYTEST_XDIST_WORKER", "gw0"),  # whose ports it may take
        },
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty HOME."""
    path = tmp_path / "home"
    path.mkdir()
    return path


def test_the_demo_proves_what_it_says_and_stops_cleanly(home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    place = directory / "postgres"
    try:
        done = demo(home, directory)
        assert done.returncode == 0, done.stdout
        assert "✘" not in done.stdout
        proofs = re.search(r"^(\d+) proofs hold, in \d+ s", done.stdout, re.M)
        assert proofs, done.stdout
        assert int(proofs.group(1)) == len(re.findall(r"^  ✔ ", done.stdout, re.M)) > 45

        # What it says of the state it leaves is so.
        settings = json.loads((directory / "settings.json").read_text())
        production = json.loads(get(settings["shop_production_port"]))
        test = json.loads(get(settings["shop_test_port"]))
        assert (production["environment"], production["version"]) == ("production", "1.0.0")
        assert (test["environment"], test["version"]) == ("test", "1.0.0")
        assert list(home.iterdir()) == []
        assert not (places.HOME / ".pm2").exists()
        place = place.resolve()  # as root elsewhere: PostgreSQL's user has to get there
        server = {found.pid for found in processes.belonging_to(place)}
        assert server
        apps = {found.pid for found in processes.belonging_to(directory)} - server
        assert len(apps) == 7  # the daemon, and twice two workers of the API and one of the queue
        for pid in apps | server:
            assert "canary-5d1e" not in processes.read(pid, "environ").decode()

        # The databases as the demo says, after a restore and its undo.
        sold = [[row["name"] for row in json.loads(get(settings[f"shop_{name}_port"], "/products"))] for name in NAMES]
        assert sold == [["cocoa", "coffee", "mate"], ["cocoa", "coffee", "tea"]]
        gaps = re.findall(r"longest time without an answer of production: ([\d.]+) s", done.stdout)
        assert len(gaps) == 2
        assert_secret(directory, done.stdout, apps | server)
    finally:
        stopped = demo(home, directory, "stop")
    assert stopped.returncode == 0, stopped.stdout
    ended = re.search(r"are ended \((\d+) processes\)", stopped.stdout)
    assert ended, stopped.stdout
    assert int(ended.group(1)) > 7
    assert processes.belonging_to(directory) == []
    assert processes.belonging_to(place) == []
    assert place.is_relative_to(directory) or not place.exists()
    assert list(home.iterdir()) == []


def assert_secret(directory: Path, output: str, pids: Set[int]) -> None:
    """The database's passwords are in their passfiles, and nowhere else."""
    for name in ("admin", "shopkeeper"):
        password = (directory / f"{name}.pgpass").read_text().strip().rpartition(":")[2]
        assert len(password) == 32
        assert password not in output
        for pid in pids:
            assert password.encode() not in processes.read(pid, "environ") + processes.read(pid, "cmdline")
        found = subprocess.run(
            ["grep", "-rlF", password, "."], cwd=directory, capture_output=True, text=True, check=False
        )
        assert found.stdout.splitlines() == [f"./{name}.pgpass"]


def test_stop_without_a_demo_says_so(home: Path, tmp_path: Path) -> None:
    done = demo(home, tmp_path / "demo", "stop")
    assert done.returncode == 0
    assert "No demo is running" in done.stdout
    assert not (tmp_path / "demo").exists()
