"""pm2_release is killed (SIGKILL) at named points and at random. The old or the new release serves, and the next run
goes on.

Core: some points of each stage, 40 s. Full: all points, and thirty random moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from support import modules, processes, tiers
from support.killer import Outcome, Runner
from support.load import Load
from support.pm2 import Pm2Home
from support.releases import Application

pytestmark = pytest.mark.timeout(900)  # seconds; many kills in one test

PUBLISH = [
    "before rename <definition>",
    "after rename prod.journal 1",
    "beside_started",
    "beside_up",
    "old_stopped",
    "gate_passed",
    "after rename prod.journal 2",
    "committed",
    "before rename current",
    "after rename current",
    "switched",
    "before rename dump.pm2",
    "after rename dump.pm2",
    "saved",
    "after send deleteProcessId",
    "retired",
    "journal_removed",
    "before rename .nodeops-release.json",
    "after rename .nodeops-release.json",
]
ROLL_BACK = ["gate_passed", "committed", "switched", "saved", "retired"]
FILES = [
    "before rename trial.json",
    "after rename trial.json",
    "before rename current",
    "after rename current",
    "before unlink trial.json",
]


@pytest.fixture(name="runner", scope="module")
def _runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(name="app")
def _app(pm2_7: Pm2Home, tmp_path: Path, runner: Runner) -> Application:
    app = Application(pm2_7, tmp_path, call=runner.call)
    app.deployed()
    return app


def kill(app: Application, runner: Runner, options: Dict[str, Any], **when: Any) -> Outcome:
    """A call that is killed. Then the run is abandoned, as the play does if it still can, which leaves all in order."""
    outcome = runner.run("pm2_release", options, **when)
    more = {"release": options["release"]} if options["state"] == "published" else {}
    told = app.call("pm2_release", app.options("abandoned", options["run"], **more))
    live = app.current()
    if outcome.killed:
        assert (told["failed"], told.get("current", live)) == (False, live), told
        assert not (app.root / "releases" / more.get("release", "none")).exists() or more["release"] == live
    return outcome


def abandoned(app: Application, runner: Runner, options: Dict[str, Any], **when: Any) -> Outcome:
    """As `kill`, for an application with processes: they, the dump and the link are of one release."""
    outcome = kill(app, runner, options, **when)
    live = app.current()
    assert live
    told = app.history()[-1]
    if told["run"] == options["run"] and options["state"] == "published" and outcome.killed:
        assert told["result"] == ("deployed" if live == options["release"] else "failed")
    (version,) = app.served()
    app.check_agreement(live, version)
    return outcome


def lost(app: Application, runner: Runner, options: Dict[str, Any], **when: Any) -> Outcome:
    """A call that is killed together with its play. The lock is freed by itself, and the next run does the rest."""
    outcome = runner.run("pm2_release", options, **when)
    lock = app.root / ".nodeops" / "deploy.lock"
    if lock.exists():
        pid, _start = json.loads(lock.read_text()).get("holder") or (0, 0)
        while pid and processes.alive(pid):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.01)
    return outcome


def next_deploy_works(app: Application, version: str) -> None:
    app.release(version)
    result = app.deployed()
    app.check_agreement(result["release"], version)
    assert not [name for name in app.releases() if name.startswith(".")]


@pytest.mark.parametrize("points", tiers.sample(["beside_up", "committed", "after rename current"], PUBLISH))
def test_killed_while_it_publishes(app: Application, runner: Runner, points: List[str]) -> None:
    """At each point, a deploy of a new version is killed, then the next deploy runs."""
    version = 1
    with Load(app.port, clients=2, pause=0.05, limit=600) as load:
        for point in points:
            old, old_version = app.current(), str(version)
            version += 1
            app.release(str(version))
            run = app.run()
            release = app.call("pm2_release", app.prepared_options(run))["release"]
            at = point.replace("<definition>", f"{release}.json")
            options = app.published_options(run, release)
            abandons = version % 4 == 0  # otherwise the next run does it
            outcome = abandoned(app, runner, options, at=at) if abandons else lost(app, runner, options, at=at)
            assert outcome.killed, (point, outcome.points, outcome.result)
            assert app.served() <= {old_version, str(version)}
            assert app.current() in (old, release)
            version += 1
            next_deploy_works(app, str(version))
    assert load.failed == 0, load.errors


def test_killed_while_it_prepares(app: Application, runner: Runner) -> None:
    """The release is not live, and no incomplete release is left after the next deploy."""
    live = app.current()
    for point in ["before rename .nodeops-release.json", "after rename .nodeops-release.json", "<release>"]:
        app.release(f"killed at {point}")
        run = app.run()
        name = run.partition("-")[0]
        at = point.replace("<release>", f"before rename {name}")
        options = app.prepared_options(run, release=name)
        outcome = runner.run("pm2_release", options, at=at)
        assert outcome.killed, (point, outcome.points, outcome.result)
        app.call("pm2_release", app.options("abandoned", run))
        assert app.current() == live
        assert name not in app.releases()
    next_deploy_works(app, "2")


@pytest.mark.parametrize("points", tiers.sample(["gate_passed", "committed"], ROLL_BACK))
def test_killed_while_it_rolls_back(app: Application, runner: Runner, points: List[str]) -> None:
    """Then the same rollback runs again."""
    first = app.current()
    app.release("2")
    second = app.deployed()["release"]
    assert first
    for point in points:
        options = app.options("rolled_back", app.run(), release=first)
        told = point in ("gate_passed", "switched")
        outcome = (abandoned if told else lost)(app, runner, options, at=point)
        assert outcome.killed, (point, outcome.points, outcome.result)
        assert not told or app.current() == (first if point == "switched" else second)
        again = app.roll_back(release=first)
        assert not again["failed"], again
        app.check_agreement(first, "1")
        forward = app.roll_back(release=second)
        assert not forward["failed"], forward
        app.check_agreement(second, "2")


def test_a_rollback_after_a_kill_goes_back_from_what_was_committed(app: Application, runner: Runner) -> None:
    """It first finishes the killed run, and then looks which release is live. Check mode predicts that."""
    first = app.current()
    app.release("2")
    second = app.deployed()["release"]
    app.release("3")
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    assert lost(app, runner, app.published_options(run, release), at="committed").killed
    assert app.current() == second
    foreseen = modules.call("pm2_release", app.options("rolled_back", app.run()), check=True)
    assert (foreseen["former"], foreseen["release"]) == (release, second)
    back = app.roll_back()
    assert (back["failed"], back["recovered"], back["former"]) == (False, "finished", release)
    app.check_agreement(second, "2")
    assert app.manifest(release)["status"] == "rolled back"
    assert app.manifest(str(first))["status"] == "good"


@pytest.mark.parametrize("point", tiers.full_but(FILES[2:4], FILES))
def test_files_are_not_live_if_killed_before_they_have_proven_themselves(
    pm2_7: Pm2Home, tmp_path: Path, runner: Runner, point: str
) -> None:
    """The last point is after the gate: a release that is undone there is tried again."""
    app = Application(pm2_7, tmp_path, call=runner.call)
    first = app.deploy_files("1")["release"]
    app.source.joinpath("index.html").write_text("2")
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    options = app.published_options(run, release, apps=[], ready={"min_uptime": 0})
    assert runner.run("pm2_release", options, at=point).killed
    checked = modules.call("pm2_release", app.prepared_options(app.run()), check=True)
    assert (checked["needed"], checked["former"]) == (True, first)
    app.call("pm2_release", app.options("abandoned", run, release=release))
    assert app.current() == first
    assert app.releases() == [first]
    assert not (app.root / ".nodeops" / "trial.json").exists()
    assert app.deploy_files("2")["former"] == first


def test_files_are_live_if_killed_after_they_have_proven_themselves(
    pm2_7: Pm2Home, tmp_path: Path, runner: Runner
) -> None:
    app = Application(pm2_7, tmp_path, call=runner.call)
    app.deploy_files("1")
    app.source.joinpath("index.html").write_text("2")
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    options = app.published_options(run, release, apps=[], ready={"min_uptime": 0})
    assert kill(app, runner, options, at="after unlink trial.json").killed
    assert app.current() == release
    again = app.call("pm2_release", app.prepared_options(app.run()))
    assert (again["needed"], again["release"]) == (False, release)
    assert app.manifest(release)["status"] == "good"


@pytest.mark.full
def test_killed_at_random(app: Application, runner: Runner) -> None:
    """Thirty kills, at any moment of `prepared` or `published`."""
    chance = random.Random(7)
    killed: List[str] = []
    for number in range(2, 32):
        app.release(str(number))
        run = app.run()
        if chance.random() < 0.3:
            outcome = abandoned(app, runner, app.prepared_options(run), after=chance.uniform(0.0, 0.1))
        else:
            release = app.call("pm2_release", app.prepared_options(run))["release"]
            outcome = abandoned(app, runner, app.published_options(run, release), after=chance.uniform(0.0, 1.6))
        killed += ["killed"] if outcome.killed else []
        if number % 5 == 0:
            next_deploy_works(app, f"{number} again")
    assert len(killed) > 10
    next_deploy_works(app, "last")
    assert len(os.listdir(app.root / ".nodeops" / "definitions")) <= len(app.releases())


def test_a_full_disk_when_the_dump_is_written_puts_the_link_back(app: Application, runner: Runner) -> None:
    """The small journal fits on the disk. The dump, which is written after the switch, does not."""
    old = app.current()
    assert old
    app.release("2")
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    outcome = runner.run("pm2_release", app.published_options(run, release), file_limit=4000)
    assert outcome.result
    assert outcome.result["failed"], outcome.result
    assert "dump.pm2 could not be written" in outcome.result["msg"]
    assert outcome.result["rolled_back"] is True
    app.check_agreement(old, "1")
    next_deploy_works(app, "3")
