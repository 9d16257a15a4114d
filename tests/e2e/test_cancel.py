# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller is cancelled: with no next run the old or the new release serves whole, and nothing is left of it.

Core: a deploy that is killed at the gate (15 s: a deploy before it, and one after it). Full: each stage and each way of
being cancelled, rollbacks, modules that are killed on their host, and thirty random moments; 13 minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from support import cancel, playbooks, tiers
from support.cancel import Cancelled, Silence, Stage, Way
from support.load import Load
from support.namespaces import home_in

pytestmark = pytest.mark.timeout(1800)  # seconds; many runs of ansible-playbook, and other tests beside them

DEPLOY = [
    cancel.WORKER,
    cancel.MODULE,
    cancel.FETCH,
    cancel.between("after_prepare"),
    cancel.BUILD,
    cancel.between("before_publish"),
    cancel.GATE,
    cancel.SWITCH,
    cancel.between("after_publish", goes_on=True),
]
ROLLBACK = [
    cancel.MODULE,
    cancel.between("before_rollback"),
    cancel.GATE,
    cancel.SWITCH,
    cancel.between("after_rollback", goes_on=True),
]
WITH_ALL = (cancel.BUILD, cancel.GATE, cancel.SWITCH)
"""Where the module is killed too."""

UNHARMED: List[Way] = [cancel.kill, cancel.terminate, cancel.terminate_group, cancel.interrupt_group]
"""Those that leave the module the time to put everything back."""
TIMES = 30
TRIES = 5
"""A short stage may be over before it is seen, or before the run is cancelled."""
KEPT = 5 + 2  # deploy_keep, the one that failed last, and one that a cancelled run has left for the next


def moments(stages: List[Stage]) -> List[Tuple[Stage, Way]]:
    """Each way at each stage."""
    return [
        (stage, way)
        for stage in stages
        for way in (cancel.kill, cancel.terminate, *([cancel.kill_all] if stage in WITH_ALL else []))
    ]


def told(moment: Tuple[Stage, Way]) -> str:
    """The name of a test."""
    stage, way = moment
    return f"{stage.name}, {way.__name__}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cancelled]:
    """For all tests: what one has cancelled is what the next begins with. At the end, after all, a deploy works."""
    directory = tmp_path_factory.mktemp("cancel")
    with home_in(directory, "7.0") as pm2, Silence() as silence:
        made = Cancelled(pm2, directory, silence)
        yield made
        made.next_deploy_works()
        assert len(made.releases()) <= KEPT
        print(f"the longest took {made.longest:.2f} s to settle")


@pytest.fixture
def load(site: Cancelled) -> Iterator[Load]:
    """Not one request fails in the whole test."""
    with Load(site.ports["production"], clients=2, pause=0.05, limit=1800) as made:
        yield made
    assert made.failed == 0, made.errors
    assert made.ok > 20


@pytest.fixture(scope="module")
def two_releases(site: Cancelled) -> None:
    """There is an earlier one to go back to."""
    site.next_deploy_works()


def check_cancelled_at(site: Cancelled, stage: Stage, way: Way, playbook: str) -> None:
    """What is left of a run that is cancelled there, without another one."""
    for number in range(1, TRIES + 1):
        former = site.live_release
        process = cancel.reach(site, stage, playbook)
        run = site.cancel(process, way) if process else None
        site.go.touch()
        check_left(site, way)
        if run is not None and run.code != 0:
            if way is cancel.kill_all or (site.live_release != former) is stage.goes_on:
                return
            assert stage.is_short, f"{playbook} cancelled {stage.name}: live is {site.live_release}"
        assert number < TRIES, f"{playbook} was {TRIES} times over when it was to be cancelled {stage.name}"


def check_left(site: Cancelled, way: Way) -> None:
    """Nothing of the run, and one release everywhere; if its module was killed too, the next run sees to that."""
    site.settle()
    if way is cancel.kill_all:
        assert site.served() <= {site.version(release) for release in site.releases()}
    else:
        site.check_agreement()


@pytest.mark.parametrize(("stage", "way"), tiers.full_but([(cancel.GATE, cancel.kill)], moments(DEPLOY), ids=told))
def test_a_deploy_at_each_stage(site: Cancelled, load: Load, stage: Stage, way: Way) -> None:
    check_cancelled_at(site, stage, way, "deploy")
    if way is cancel.kill_all:
        site.next_deploy_works()


@pytest.mark.full
@pytest.mark.parametrize(("stage", "way"), tiers.full_but([], moments(ROLLBACK), ids=told))
def test_a_rollback_at_each_stage(site: Cancelled, two_releases: None, load: Load, stage: Stage, way: Way) -> None:
    check_cancelled_at(site, stage, way, "rollback")
    if way is cancel.kill_all:
        site.next_deploy_works()


@pytest.mark.full
def test_a_migration_is_not_cut_short(site: Cancelled, load: Load) -> None:
    """It goes on, and the lock is kept until it is done."""
    for way in (cancel.kill, cancel.terminate):
        former = site.live_release
        process = cancel.reach(site, cancel.MIGRATE, "deploy")
        assert process
        site.cancel(process, way)
        time.sleep(1)  # several times as long as it takes to be told
        assert site.is_locked()
        assert any("migration.js" in found.cmdline for found in site.strangers())
        site.go.touch()
        site.settle()
        assert site.done.exists()
        assert site.check_agreement() == former
    site.next_deploy_works()


def begin_a_deploy_that_undrains(site: Cancelled, **variables: Any) -> Tuple["subprocess.Popen[str]", Path]:
    """At the gate; and what tells that the hook undrain has run."""
    sign, hook = site.directory / "undrained", site.directory / "undrain.yml"
    sign.unlink(missing_ok=True)
    task = {"name": "Undrain", "ansible.builtin.file": {"path": str(sign), "state": "touch", "mode": "0600"}}
    hook.write_text(json.dumps([task]))
    given = {**site.slow_gate(), "deploy_hooks": {"undrain": str(hook)}, **variables}
    process = cancel.reach(site, cancel.GATE._replace(variables=lambda _site: given), "deploy")
    assert process
    return process, sign


@pytest.mark.full
@pytest.mark.parametrize("in_one_call", [True, False], ids=["one call", "several calls"])
def test_a_module_that_is_killed_on_its_host(site: Cancelled, load: Load, in_one_call: bool) -> None:
    """Its own run puts everything back, and then the host may serve again."""
    former, releases = site.live_release, site.releases()
    variables: Dict[str, Any] = {"deploy_build": [], "deploy_hooks": {}} if in_one_call else {}
    process, undrained = begin_a_deploy_that_undrains(site, **variables)
    cancel.kill_module(process)
    run = playbooks.finish(process)
    assert run.code != 0
    result = run.results["production"]
    assert (result["result"], result["current"]) == ("failed", former), run.output
    site.settle()
    assert site.check_agreement() == former
    assert set(site.releases()) <= set(releases)
    assert undrained.exists() is not in_one_call
    site.next_deploy_works()


@pytest.mark.full
def test_a_host_whose_daemon_dies_with_the_module_is_not_put_into_service(site: Cancelled) -> None:
    process, undrained = begin_a_deploy_that_undrains(site)
    cancel.kill_module(process)
    for pid in site.pm2.daemon_pids():
        os.kill(pid, signal.SIGKILL)
    run = playbooks.finish(process)
    assert run.code != 0
    assert "no PM2 daemon runs" in run.message
    assert not undrained.exists(), run.output
    site.next_deploy_works()


@pytest.mark.full
def test_at_random(site: Cancelled, load: Load) -> None:
    """Thirty times, at any moment of a deploy or a rollback; a run that was over before does not count."""
    chance = random.Random(3)
    start = time.monotonic()
    site.next_deploy_works()
    whole = time.monotonic() - start
    cancelled = 0
    for number in range(1, 3 * TIMES + 1):
        if cancelled == TIMES:
            break
        way = cancel.kill_all if number % 5 == 0 else chance.choice(UNHARMED)
        playbook, length = ("deploy", whole) if chance.random() < 0.6 else ("rollback", 0.7 * whole)
        process = site.begin(playbook)
        try:
            process.wait(chance.uniform(0.2, 1.0) * length)
        except subprocess.TimeoutExpired:
            cancelled += site.cancel(process, way).code != 0
        else:
            run = playbooks.finish(process)
            assert run.code == 0, run.output
            whole *= 0.8  # the machine is less busy than it was
        check_left(site, way)
        if number % 5 == 0:
            site.next_deploy_works()
    assert cancelled == TIMES
    assert len(site.releases()) <= KEPT
