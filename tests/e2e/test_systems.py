# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The five systems, each from its first deploy to a rollback, with another project beside it that must not move.

Core: one of them, whole (40 s: nine runs of ansible-playbook); flyer-crawler's deploys are in test_flyer_crawler.py.
Full: all of them, and what is particular to one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from e2e.systems import SYSTEMS, BankimOnline, PrimeCloudPro, StockAlert, System
from support import namespaces, tiers
from support.pm2 import Pm2Home
from support.postgres import Server

pytestmark = pytest.mark.timeout(900)  # seconds; about ten runs of ansible-playbook, and other tests beside them

OLDER = ("5.4", "6.0")
CASES: List[Tuple[type[System], str]] = [
    *((system, "7.0") for system in SYSTEMS),
    *((BankimOnline, version) for version in OLDER),
]
CORE = [(BankimOnline, "7.0")]


@pytest.fixture
def system(request: pytest.FixtureRequest, kind: type[System], version: str, tmp_path: Path) -> Iterator[System]:
    if kind is PrimeCloudPro:
        PrimeCloudPro.server = request.getfixturevalue("postgres")
    with namespaces.home_in(tmp_path, version) as pm2:
        yield kind(pm2, tmp_path)


@pytest.mark.parametrize(("kind", "version"), tiers.full_but(CORE, CASES, ids=lambda case: f"{case[0].name}-{case[1]}"))
def test_the_life_of_a_system(system: System, tmp_path: Path) -> None:
    stock_alert = StockAlert(system.pm2, tmp_path / "stock-alert")
    is_short = system.pm2.version in OLDER

    if not is_short:
        run = system.deployed("--check")
        assert run.results[system.host]["result"] == "deployed"
        assert not system.root.exists()

    run = system.deployed()
    assert run.results[system.host]["result"] == "deployed"
    system.assert_whole("1.0.0")
    first = system.current()

    if not is_short:
        live = system.live()
        assert system.deployed().changed == set()
        assert system.live() == live

    system.release("1.1.0")
    system.deployed()
    system.assert_whole("1.1.0")
    system.assert_kept()
    second = system.current()
    stock_alert.assert_unmoved()

    good = tmp_path / "good"
    shutil.copytree(system.source, good, ignore=shutil.ignore_patterns(".git"))
    for number, bad in enumerate(system.bads()[-1 if is_short else 0 :], 1):
        live = system.live()
        bad.spoil()
        system.release(f"1.2.{number}")
        run = system.refused()
        assert bad.says in run.message
        assert run.results[system.host]["stage"] == bad.stage
        system.assert_whole("1.1.0")
        assert system.current() == second
        if not system.forks or bad.stage != "publish":
            assert system.live() == live
        left = {name: status for name, status in system.releases().items() if name not in (first, second)}
        assert sorted(left.values()) == (["bad"] if bad.stage == "publish" else [])
        assert (system.history()[-1]["result"], system.history()[-1]["stage"]) == ("failed", bad.stage)
        stock_alert.assert_unmoved()
        shutil.copytree(good, system.source, dirs_exist_ok=True)

    run = system.play("rollback")
    assert run.code == 0, run.output
    assert run.results[system.host]["result"] == "rolled_back"
    system.assert_whole("1.0.0")
    assert system.current() == first
    assert system.releases()[second] == "rolled back"

    stock_alert.assert_unmoved()


@pytest.mark.full
def test_one_variable_of_bankim_online_is_changed_and_kept(pm2_7: Pm2Home, tmp_path: Path) -> None:
    """No new release: the processes are replaced, and the dump has the new value beside all the old ones."""
    system = BankimOnline(pm2_7, tmp_path)
    system.deployed()
    first, before, saved = system.current(), system.live(), system.saved()[0]["env"]

    run = system.deployed("-e", "bankim_jwt_secret=another-invented-signing-secret-of-bankim")
    assert run.results[system.host]["result"] == "adjusted"
    system.assert_whole("1.0.0")
    assert system.current() == first
    assert not {value[0] for value in before.values()} & {value[0] for value in system.live().values()}
    for entry in system.saved():
        changed = {name for name in saved.keys() | entry["env"].keys() if saved.get(name) != entry["env"].get(name)}
        assert changed - {"unique_id", "NODE_APP_INSTANCE"} == {"JWT_SECRET"}

    live = system.live()
    run = system.refused("-e", "bankim_jwt_secret=secret")
    assert "JWT_SECRET" in run.message
    assert system.live() == live


@pytest.mark.full
def test_production_of_prime_cloud_pro_needs_its_checklist_and_staging_none(
    pm2_7: Pm2Home, postgres: Server, tmp_path: Path
) -> None:
    PrimeCloudPro.server = postgres
    for name in ("production", "staging"):
        (tmp_path / name).mkdir()
    production, staging = PrimeCloudPro(pm2_7, tmp_path / "production"), PrimeCloudPro(pm2_7, tmp_path / "staging")
    run = production.refused("-e", "prime_change=soon")
    assert "CHG-<number>" in run.message
    assert not production.root.exists()

    production.deployed()
    live = production.live()

    production.release("1.0.1")
    run = production.refused("-e", '{"backup_databases": ["nobody_has_it"]}')
    assert (run.results[production.host]["stage"], "nobody_has_it" in run.message) == ("migrate", True)
    production.assert_whole("1.0.0")
    assert production.live() == live

    staging.host, staging.processes = "prime-cloud-pro-staging", 1
    staging.git("checkout", "--quiet", "-b", "develop")
    staging.release("1.1.0")
    staging.deployed("-e", "prime_change=none")
    staging.assert_whole("1.1.0")
    assert staging.get("/health")["environment"] == "staging"
    production.assert_whole("1.0.0")
    assert production.live() == live
