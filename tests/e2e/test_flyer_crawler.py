# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""flyer-crawler: production and test on one daemon, another project beside them, and what its inventory promises.

Core: both are deployed at the same time (20 s). Full: twenty times, and the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Sequence, Tuple
from urllib.request import urlopen

import pytest
from e2e.systems import FlyerCrawler, StockAlert
from support import observe, tiers
from support.load import get
from support.playbooks import Run
from support.pm2 import Pm2Home

SHORT, LONG = 1, int(os.environ.get("NODEOPS_FLYER_ROUNDS", "20"))

pytestmark = pytest.mark.timeout(1800)  # seconds; two ansible-playbooks at once, 20 times, and other tests beside them

WITHOUT_LOGGING = ("-e", '{"deploy_hooks": {}}')
MAJOR = "'use strict';\n\nmodule.exports = (content) => ({ ...content, languages: ['de', 'he'] });\n"


@pytest.fixture
def environments(pm2_7: Pm2Home, tmp_path: Path) -> Tuple[FlyerCrawler, FlyerCrawler]:
    """Production and test, each with a checkout of its own."""
    for name in ("production", "test"):
        (tmp_path / name).mkdir()
    return FlyerCrawler(pm2_7, tmp_path / "production"), FlyerCrawler(pm2_7, tmp_path / "test", "test")


def at_once(*environments: FlyerCrawler, arguments: Sequence[str] = ()) -> List[Run]:
    """One ansible-playbook for each, started together."""
    with ThreadPoolExecutor(len(environments)) as pool:
        runs = list(pool.map(lambda environment: environment.play("deploy", *arguments), environments))
    for run in runs:
        assert run.code == 0, run.output
    return runs


@pytest.mark.parametrize("rounds", tiers.sample(SHORT, LONG))
def test_production_and_test_are_deployed_at_the_same_time(
    environments: Tuple[FlyerCrawler, FlyerCrawler], pm2_7: Pm2Home, tmp_path: Path, rounds: int
) -> None:
    stock_alert = StockAlert(pm2_7, tmp_path / "stock-alert")
    production, test = environments
    for number in range(rounds):
        production.release(f"1.0.{number}")
        test.release(f"1.1.{number}-rc")
        at_once(production, test, arguments=WITHOUT_LOGGING if number else ())
        production.assert_whole(f"1.0.{number}")
        test.assert_whole(f"1.1.{number}-rc")
        stock_alert.assert_unmoved()
        saved = [entry["namespace"] for entry in observe.dump_entries(pm2_7.dump)]
        assert sorted(saved) == ["default", *["flyer-crawler-prod"] * 3, *["flyer-crawler-test"] * 3]
    assert len(pm2_7.daemon_pids()) == 1
    for environment in environments:
        assert {entry["result"] for entry in environment.history()} == {"deployed"}
        assert len(environment.history()) == rounds


@pytest.mark.full
def test_a_major_version_is_migrated_after_a_backup(environments: Tuple[FlyerCrawler, FlyerCrawler]) -> None:
    """Without the migration it is refused; with vars/major.yml it goes live; flyers stay."""
    production, _test = environments
    production.deployed()
    with urlopen(f"http://127.0.0.1:{production.port}/flyers", b"bread") as answer:
        assert answer.status == 202
    production.release("2.0.0")
    (production.source / "migrations" / "002-languages.js").write_text(MAJOR)
    run = production.refused()
    assert "answered 503" in run.message
    production.assert_whole("1.0.0")

    major = production.inventory.parent / "vars" / "major.yml"
    data = production.root / "shared" / "data"
    data.joinpath("database.json").write_text('{"schema": 1, "flyers": 7}')
    production.deployed("-e", f"@{major}")
    production.assert_whole("2.0.0")
    assert json.loads(data.joinpath("database.json").read_text()) == {
        "schema": 2,
        "flyers": 7,
        "languages": ["de", "he"],
    }
    backups = list(data.glob("database-*.json"))
    assert [json.loads(backup.read_text()) for backup in backups] == [{"schema": 1, "flyers": 7}]
    flyers = json.loads(get(production.port, "/flyers"))
    assert flyers["new"] + flyers["read"] == 1


@pytest.mark.full
def test_a_version_sync_restarts_test_only(environments: Tuple[FlyerCrawler, FlyerCrawler]) -> None:
    production, test = environments
    at_once(production, test)
    live = production.live()
    before = test.live()
    test.release("1.0.1")
    test.deployed("-e", f"@{test.inventory.parent / 'vars' / 'version-sync.yml'}")
    test.assert_whole("1.0.1")
    assert not {value[0] for value in before.values()} & {value[0] for value in test.live().values()}
    production.assert_whole("1.0.0")
    assert production.live() == live


@pytest.mark.full
def test_dev_stands_beside_production(pm2_7: Pm2Home, tmp_path: Path) -> None:
    """Its processes are others, and so is one of its checks."""
    for name in ("production", "dev"):
        (tmp_path / name).mkdir()
    production, dev = FlyerCrawler(pm2_7, tmp_path / "production"), FlyerCrawler(pm2_7, tmp_path / "dev", "dev")
    at_once(production, dev)
    production.assert_whole("1.0.0")
    dev.assert_whole("1.0.0")
    names = {name for name, _pm_id in dev.live()}
    assert names == {"flyer-crawler-api-dev", "flyer-crawler-worker-dev", "flyer-crawler-vite-dev"}
    assert "The flyers of this week" in get(dev.vite)


@pytest.mark.full
def test_test_is_restarted_by_the_command_of_the_readme(environments: Tuple[FlyerCrawler, FlyerCrawler]) -> None:
    production, test = environments
    at_once(production, test)
    live, before = production.live(), test.live()
    readme = (test.inventory.parent / "README.md").read_text()
    command = next(line for line in readme.splitlines() if line.startswith("ansible test "))
    assert "-m nodeops.pm2.pm2_process" in command
    arguments = command.partition(" -a ")[2].strip("'")
    extra = f"@{test.directory / 'extra.json'}"
    done = subprocess.run(
        ["ansible", "test", "-i", str(test.inventory), "-e", extra, "-m", "nodeops.pm2.pm2_process", "-a", arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    test.assert_whole("1.0.0")
    assert not {value[0] for value in before.values()} & {value[0] for value in test.live().values()}
    assert production.live() == live
