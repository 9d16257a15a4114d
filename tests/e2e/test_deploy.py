# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The deploy playbook, run by ansible-playbook as a user runs it, on a real PM2.

Core: the life of an application (30 s: six runs of ansible-playbook), and the shorter ones. Full: a git repository,
which is in core in test_canary.py, and what is forced.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
from support import places
from support.load import Load, get
from support.playbooks import Live, Site
from support.pm2 import Pm2Home

MANIFEST = ".nodeops-release.json"

pytestmark = pytest.mark.timeout(900)  # seconds; many runs of ansible-playbook, and other tests beside them


@pytest.fixture
def site(pm2_7: Pm2Home, tmp_path: Path) -> Site:
    return Site(pm2_7, tmp_path)


def test_the_life_of_an_application(site: Site) -> None:
    """First deploy, the same again, a new version, a broken one, back. (On every PM2: test_systems.py.)

    A release that answers 500 is in test_faults.py.
    """
    site.deployed()
    first = site.root() / site.current()
    assert first.parent == site.root() / "releases"
    live = site.live()
    assert sorted(name for name, _pm_id in live) == ["api", "api", "worker"]
    assert {cwd for _pid, _restarts, _status, cwd in live.values()} == {str(first)}
    assert {entry["pm_cwd"] for entry in site.saved()} == {str(first)}
    assert len(site.saved()) == 3
    assert site.served() == {"1"}
    assert not (site.root() / "current").resolve().joinpath("node_modules").exists()

    again = site.deployed()
    assert again.changed == set()
    assert site.live() == live
    assert site.releases() == [first.name]

    site.release("2")
    with Load(site.ports["production"], clients=2, pause=0.04) as load:
        site.deployed()
    assert load.failed == 0, load.errors
    assert load.ok > 50
    second = site.root() / site.current()
    assert second != first
    assert site.served() == {"2"}
    assert {entry["pm_cwd"] for entry in site.saved()} == {str(second)}
    assert site.releases() == sorted([first.name, second.name])

    live, saved = site.live(), site.saved()
    site.release("3", crash="boot")
    with Load(site.ports["production"], clients=2, pause=0.04) as load:
        run = site.refused()
    assert load.failed == 0, load.errors
    assert "crash at boot of version 3" in run.output
    assert f"current still names {second.name}" in run.message
    assert_serves_as_before(site, live)
    assert site.saved() == saved
    assert site.root() / site.current() == second
    assert run.results["production"]["result"] == "failed"
    assert run.results["production"]["stage"] == "publish"
    assert "exited" in run.results["production"]["reason"]
    bad = next(name for name in site.releases() if name not in (first.name, second.name))
    manifest = json.loads((first.parent / bad / MANIFEST).read_text())
    assert manifest["status"] == "bad"

    with Load(site.ports["production"], clients=2, pause=0.04) as load:
        back = site.play("rollback")
    assert back.code == 0, back.output
    assert load.failed == 0, load.errors
    assert site.root() / site.current() == first
    assert site.served() == {"1"}
    assert {entry["pm_cwd"] for entry in site.saved()} == {str(first)}
    assert back.results["production"]["result"] == "rolled_back"
    further = site.play("rollback")
    assert further.code == 2
    assert "no earlier good release" in further.message
    assert site.served() == {"1"}


def assert_serves_as_before(site: Site, live: Live) -> None:
    """Version 2 serves: the API was not touched, the worker (which had to make room) runs what it ran."""
    assert site.served() == {"2"}
    now = site.live()
    assert {key: value for key, value in now.items() if key[0] == "api"} == {
        key: value for key, value in live.items() if key[0] == "api"
    }
    assert {key: value[2:] for key, value in now.items()} == {key: value[2:] for key, value in live.items()}


def test_check_mode_on_an_empty_host_changes_nothing(site: Site) -> None:
    before = set(site.directory.rglob("*"))
    run = site.deployed("--check", "--diff")
    assert "Fetch a new release, unless its version is live" in run.changed
    assert set(site.directory.rglob("*")) == before
    assert site.pm2.daemon_pids() == []


@pytest.mark.full
def test_check_mode_of_a_new_version_changes_nothing(site: Site) -> None:
    site.deployed()
    site.release("2")
    before, live, saved = set(site.root().rglob("*")), site.live(), site.saved()
    assert "Fetch a new release, unless its version is live" in site.deployed("--check", "--diff").changed
    assert set(site.root().rglob("*")) == before
    assert (site.live(), site.saved()) == (live, saved)


def test_a_changed_variable_needs_no_new_release(site: Site) -> None:
    """With nothing to build the module prepares and publishes in one call."""
    site.write_inventory(deploy_build=[])
    site.deployed()
    live, saved = site.live(), site.saved()
    processes = site.describe("production")["deploy_processes"]
    processes[0]["env"]["COLOUR"] = "blue"
    site.write_inventory(deploy_build=[], deploy_processes=processes)
    before = set(site.root().rglob("*"))
    run = site.deployed("--check", "--diff")
    assert run.changed == {"Fetch a new release, unless its version is live"}
    assert "env.COLOUR" in run.output
    assert set(site.root().rglob("*")) == before
    assert (site.live(), site.saved()) == (live, saved)

    releases = site.releases()
    assert site.deployed().changed == {"Fetch a new release, unless its version is live"}
    assert json.loads(get(site.ports["production"], "/env"))["COLOUR"] == "blue"
    assert site.releases() == releases
    worker = {key: value for key, value in live.items() if key[0] == "worker"}
    assert worker.items() <= site.live().items()


@pytest.mark.full
def test_what_is_forced_is_a_new_release(site: Site) -> None:
    """Of the same content. A release is named by the second; the first run takes longer."""
    site.deployed()
    live, first = site.live(), site.current()
    site.deployed("-e", "deploy_force=true")
    assert site.current() != first
    assert not {value[0] for value in live.values()} & {value[0] for value in site.live().values()}


@pytest.mark.full
def test_git(site: Site) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", "-C", str(site.source), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit() -> str:
        git("add", "--all")
        git("commit", "--quiet", "--message", "change")
        return git("rev-parse", "HEAD")

    def revision() -> str:
        return str(json.loads((site.root() / "current" / MANIFEST).read_text())["revision"])

    git("init", "--quiet", "--initial-branch", "main")
    first = commit()
    git("tag", "v1")
    site.write_inventory(deploy_source_type="git", deploy_git_version="main")
    site.deployed()
    assert revision() == first
    assert not (site.root() / "current" / ".git").exists()
    site.release("2")
    assert site.deployed().changed == set()  # not committed: nothing to deploy
    second = commit()
    site.deployed()
    assert revision() == second
    assert site.served() == {"2"}
    site.deployed("-e", "deploy_git_version=v1")
    assert revision() == first
    assert site.served() == {"1"}


def test_a_directory_on_the_host_with_an_ecosystem_file(site: Site) -> None:
    env = {"PORT": site.ports["production"], "COLOUR": "grey"}
    (site.source / "ecosystem.config.cjs").write_text(
        "module.exports = {apps: [{name: 'api', script: 'app.js', exec_mode: 'cluster', instances: 2, cwd: __dirname, "
        f"env: {json.dumps(env)}, env_live: {{COLOUR: 'green'}}}}]}}"
    )
    site.write_inventory(
        deploy_source_location="host",
        deploy_processes=[],
        deploy_ecosystem="ecosystem.config.cjs",
        deploy_env_name="live",
        deploy_path=["/opt/tools"],
    )
    site.deployed()
    assert json.loads(get(site.ports["production"], "/env"))["COLOUR"] == "green"
    assert {cwd for _pid, _restarts, _status, cwd in site.live().values()} == {str(site.root() / site.current())}
    assert site.deployed().changed == set()

    path = (site.root() / "current" / "path.txt").read_text().split(":")  # of the build
    assert path[0] == "/opt/tools"
    assert os.path.dirname(site.pm2.executable) in path
    assert not [entry for entry in path if entry.startswith(str(places.CACHE / "venv"))]


def test_two_environments_at_once(site: Site) -> None:
    """The same app names, in one run, at the same time, on a host without a daemon."""
    site.write_inventory(["production", "test"], deploy_build=[])
    site.deployed()
    assert len(site.pm2.daemon_pids()) == 1
    for name in ("production", "test"):
        instances = {json.loads(get(site.ports[name]))["instance"] for _request in range(12)}
        assert instances == {"0", "1"}
        assert len(site.live(name)) == len(site.saved(name)) == 3


@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("--check",), marks=pytest.mark.full)], ids=["run", "check mode"]
)
def test_what_is_refused_changes_nothing(site: Site, arguments: Tuple[str, ...]) -> None:
    """What the role itself looks at; what its modules refuse is in test_releases.py and the unit tests.

    Each is tried on a host that is a fleet of its own.
    """
    migration: Dict[str, Any] = {"deploy_migrate": ["true"], "deploy_backup_before_migrate": True}
    refused: Dict[str, Tuple[Dict[str, Any], str]] = {
        "twice": ({"deploy_ecosystem": "ecosystem.config.cjs"}, "either apps or ecosystem"),
        "neither": (migration, "needs backup_dest and backup_databases"),
        "nowhere": ({**migration, "backup_dest": "/srv/backups/app"}, "needs backup_databases, as"),
    }
    hosts = {}
    for name, (variables, _message) in refused.items():
        own = {"deploy_fleet": name, "pm2_namespace": name, "deploy_root": str(site.root(name))}
        hosts[name] = {**site.describe("production"), **own, **variables}
    site.inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    run = site.refused(*arguments)
    for name, (_variables, message) in refused.items():
        assert message in run.results[name]["reason"]
        assert run.results[name]["stage"] == "prepare"
        assert not site.root(name).exists()
    assert site.pm2.daemon_pids() == []


def test_an_inventory_without_hosts_is_a_failure(site: Site) -> None:
    site.inventory.unlink()
    run = site.deploy()
    assert run.code != 0
    assert "No host matches all" in run.output
