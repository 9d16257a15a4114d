# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` and `make demo-stop`, as somebody runs them who has just cloned the project."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support import places, processes
from support.load import get

pytestmark = pytest.mark.timeout(900)  # seconds; alone it takes two minutes, beside other tests more


def demo(home: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(places.ROOT / "scripts" / "demo"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "DEMO_DIR": str(directory), "CI_TOKEN": "canary-5d1e"},
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
    try:
        done = demo(home, directory)
        assert done.returncode == 0, done.stdout
        assert "✘" not in done.stdout
        proofs = re.search(r"^(\d+) proofs hold, in \d+ s", done.stdout, re.M)
        assert proofs, done.stdout
        assert int(proofs.group(1)) == len(re.findall(r"^  ✔ ", done.stdout, re.M)) > 30

        # What it says of the state it leaves is so.
        settings = json.loads((directory / "settings.json").read_text())
        production = json.loads(get(settings["shop_production_port"]))
        test = json.loads(get(settings["shop_test_port"]))
        assert (production["environment"], production["version"]) == ("production", "1.1.0")
        assert (test["environment"], test["version"]) == ("test", "1.0.0")
        assert list(home.iterdir()) == []
        assert not (places.HOME / ".pm2").exists()
        running = processes.belonging_to(directory)
        assert len(running) == 7  # the daemon, and twice two workers of the API and one of the queue
        for found in running:
            assert "canary-5d1e" not in processes.read(found.pid, "environ").decode()
    finally:
        stopped = demo(home, directory, "stop")
    assert stopped.returncode == 0, stopped.stdout
    assert "are ended (7 processes)" in stopped.stdout
    assert processes.belonging_to(directory) == []
    assert list(home.iterdir()) == []


def test_stop_without_a_demo_says_so(home: Path, tmp_path: Path) -> None:
    done = demo(home, tmp_path / "demo", "stop")
    assert done.returncode == 0
    assert "No demo is running" in done.stdout
    assert not (tmp_path / "demo").exists()
