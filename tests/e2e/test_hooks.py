# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hooks: each at its stage, in order, and what is left when one fails.

Core: all of them once (half a minute: six runs of ansible-playbook), and one that fails. Full: each that fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator, List

import pytest
from support import tiers
from support.fleet import Fleet

pytestmark = pytest.mark.timeout(900)  # seconds; many runs of ansible-playbook, and other tests beside them

BUILD = ["before_build", "after_build", "before_migrate", "after_migrate"]
SWITCH = ["drain", "before_publish", "after_publish", "undrain"]
DEPLOY = ["before_prepare", "after_prepare", *BUILD, *SWITCH]
ROLLBACK = ["drain", "before_rollback", "after_rollback", "undrain"]
ALL = list(dict.fromkeys([*DEPLOY, *ROLLBACK, "failed"]))
FAILING = ["before_prepare", "after_build", "before_migrate", *SWITCH]
"""One of each way that a run ends in."""
LIVE_FOR_A_MOMENT = "after_publish"

# Each notes its name; needs what it can see; fails when asked to by -e fail=<name>. It is evaluated on the controller,
# which takes a third of the time of a module, and there are ten of them in a run.
HOOK = """\
- name: Note {name}
  ansible.builtin.assert:
    that:
      - lookup('ansible.builtin.pipe', 'echo {name} ' ~ {seen} ~ ' >> {log}') == ''
      - fail | default('') != '{name}'
    quiet: true
"""


class Hooked(Fleet):
    """One host with every hook."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, ["web"])
        self.log = directory / "hooks.log"
        (directory / "hooks").mkdir()
        for name in ALL:
            self.write(name, HOOK.format(name=name, log=self.log, seen=_seen(name)))
        self.variables = {
            "deploy_build": [["node", "--version"]],
            "deploy_migrate": [["node", "--version"]],
            "deploy_hooks": {name: f"hooks/{name}.yml" for name in ALL},  # relative to the inventory
        }

    def write(self, name: str, text: str) -> None:
        """Write a hook's task file."""
        (self.directory / "hooks" / f"{name}.yml").write_text(text)

    def ran(self) -> List[str]:
        """The hooks that have run since the last call."""
        lines = [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


def _seen(name: str) -> str:
    """What a hook can read: the module's answer of the stage before it."""
    if name in ("after_publish",):
        return "deploy_published.release"
    if name in ("before_prepare", "failed", *ROLLBACK):
        return "deploy_app"
    return "deploy_prepared.release"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hooked]:
    hooked = Hooked(tmp_path)
    yield hooked
    hooked.end()


@pytest.fixture(name="deployed", scope="module")
def _deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    """A site that serves, for hooks that fail. At the end, after all that has failed, a deploy works."""
    hooked = Hooked(tmp_path_factory.mktemp("hooks"))
    hooks = hooked.variables.pop("deploy_hooks")
    hooked.deployed()
    hooked.variables["deploy_hooks"] = hooks
    yield hooked
    version = hooked.release_next()
    del hooked.variables["deploy_hooks"]
    hooked.deployed()
    assert hooked["web"].version == version
    hooked.end()


def test_each_hook_runs_at_its_stage(site: Hooked) -> None:
    site.deployed()
    assert site.ran() == DEPLOY

    # Nothing changes: no stage but the first.
    run = site.deployed()
    assert run.outcome == {"web": "unchanged"}
    assert site.ran() == ["before_prepare", "after_prepare"]

    # The release stays, but a process is going to change: the host leaves the load balancer.
    host = site["web"]
    processes = [{"name": "api", "script": "app.js", "env": {"PORT": str(host.port), "COLOUR": "blue"}}]
    site.own["web"] = {"deploy_processes": processes}
    run = site.deployed()
    assert run.outcome == {"web": "adjusted"}
    assert site.ran() == ["before_prepare", "after_prepare", *SWITCH]
    assert len(host.releases) == 1

    site.release("2")
    site.deployed()
    assert site.ran() == DEPLOY
    run = site.run("rollback")
    assert run.code == 0, run.output
    assert site.ran() == ROLLBACK
    assert host.version == "1"

    site.release("3", crash="boot")
    site.failed()
    expected = [name for name in DEPLOY if name != "after_publish"]
    assert site.ran() == [*expected, "failed"]
    assert host.version == "1"


@pytest.mark.parametrize("name", tiers.full_but([LIVE_FOR_A_MOMENT], FAILING))
def test_a_failing_hook_leaves_the_old_release(deployed: Hooked, name: str) -> None:
    site, host = deployed, deployed["web"]
    current, was, releases = host.current, host.version, host.releases
    version = site.release_next()
    run = site.failed("-e", f"fail={name}")
    ran = site.ran()  # that it got there says that the run before has left no lock
    assert ran[: DEPLOY.index(name) + 1] == DEPLOY[: DEPLOY.index(name) + 1]
    assert ran[-1] == "failed"
    assert run.results["web"]["result"] == "failed"
    assert f"Note {name}" in run.messages["web"]
    if name == "undrain":  # the release has proven itself; that the host is not back is for a person to see
        assert "may not be back in service" in run.messages["web"]
        assert host.version == version
        return
    assert ("undrain" in ran) == (name in SWITCH)
    assert host.current == current
    assert host.version == was
    assert run.results["web"]["current"] == (current if name != "before_prepare" else None)
    if name == LIVE_FOR_A_MOMENT:  # and is no target of a rollback
        assert "still names" in run.messages["web"]
    else:
        assert host.releases == releases


@pytest.mark.full
def test_a_hook_that_fails_late_does_not_take_back_what_another_run_has_published(tmp_path: Path) -> None:
    """The lock is free when after_publish runs. Here the hook itself is the other run."""
    site = Fleet(tmp_path, ["web"])
    host = site["web"]
    site.variables = {"deploy_processes": [], "deploy_ready": {"min_uptime": 0}}
    site.deployed()
    other = host.current
    site.release("2")
    site.deployed()
    link = f"- ansible.builtin.command: ln -sfn releases/{other} {host.root}/current\n"
    (tmp_path / "late.yml").write_text(link + "- ansible.builtin.fail: {msg: too late}\n")
    site.variables["deploy_hooks"] = {"after_publish": "late.yml"}
    site.release("3")
    run = site.failed()
    assert host.current == other
    message = run.messages["web"]
    assert "too late" in message
    assert f"Going back failed too: {other} is live, not " in message
    assert f"current names {other}" in message
    assert run.results["web"]["current"] == other


@pytest.mark.full
def test_fleets_whose_names_differ_in_case_only_are_two(tmp_path: Path) -> None:
    site = Fleet(tmp_path, ["upper", "lower"])
    site.variables = {"deploy_processes": [], "deploy_ready": {"min_uptime": 0}}
    site.own["upper"] = {"deploy_app": "Shop"}
    site.own["lower"] = {"deploy_source": str(tmp_path / "other")}
    (tmp_path / "other").mkdir()  # another revision, which would stop one fleet
    (tmp_path / "other" / "index.html").write_text("")
    assert site.deployed().outcome == {"upper": "deployed", "lower": "deployed"}


@pytest.mark.full
def test_a_hook_that_cannot_be_read_is_found_before_anything_changes(site: Hooked) -> None:
    site.write("undrain", "- nobody.knows.this: {}\n")
    run = site.run("deploy")
    assert run.code != 0
    assert "nobody.knows.this" in run.output
    assert site.ran() == []
    assert not site["web"].root.exists()

    (site.directory / "hooks" / "undrain.yml").unlink()
    run = site.run("deploy")
    assert run.code == 2, run.output
    assert "undrain.yml" in run.output
    assert site.ran() == []
    assert not site["web"].root.exists()


def test_an_unknown_hook_is_refused(site: Hooked) -> None:
    site.variables["deploy_hooks"]["before_deploy"] = "hooks/drain.yml"
    run = site.run("deploy")
    assert run.code == 2, run.output
    assert "before_deploy" in run.output
    assert not site["web"].root.exists()


@pytest.mark.parametrize("name", tiers.full_but(["before_prepare"], ["before_prepare", "before_publish"]))
def test_what_a_hook_hides_stays_hidden(site: Hooked, name: str) -> None:
    canary = "canary-5577"
    site.variables["hidden"] = canary
    command = "{argv: [sh, -c, 'echo $0; exit 3', '{{ hidden }}']}"
    site.write(name, f"- ansible.builtin.command: {command}\n  no_log: true\n")
    run = site.failed()
    assert canary not in run.output
    assert canary not in json.dumps(site["web"].history if name == "before_publish" else run.results)
    assert "no_log" in run.messages["web"]
