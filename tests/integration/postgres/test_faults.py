"""What goes wrong while databases are backed up, restored, undone and recovered.

After each fault, and at most one `recovered`, the live databases are exactly the old or the new ones, the application
answers with what is in them, nothing is left over and nobody else has moved. docs/faults.md lists them all.

Core: one or two faults of each kind. Full: all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set

import pytest
from support import cancel, faults, places, processes
from support.database_world import NAMESPACE, World, until
from support.killer import Outcome, Runner
from support.pm2 import Pm2Home
from support.postgres import Server, literal
from support.tiers import full_but

OLD, NEW = "old", "new"


class Stage:
    """A world with backups of it, made anew when a test has left it in disorder."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server = server
        self._directory = directory
        self._numbers = itertools.count(1)
        self.runner, self.second = Runner(), Runner()
        self._world: Optional[World] = None
        self.is_in_order = True
        """Whether the test before has found all as it has to be."""
        self.good = self.unhealthy = self.crashing = self.both = ""

    def ready(self) -> World:
        """A world that is in order, with a content nobody has a backup of."""
        if self._world is None or not (self.is_in_order or self._world.is_well()):
            self.renew()
        assert self._world
        number = next(self._numbers)
        self._world.write(f"live {number}")
        self._world.write(f"live stock {number}", self._world.stock)
        return self._world

    def renew(self) -> None:
        """A new world."""
        self.forget()
        directory = self._directory / f"w{next(self._numbers)}"
        world = self._world = World(self._server, Pm2Home("7.0", directory / "pm2"), self.runner, directory)
        world.write("of the good backup")
        self.good = world.backup()
        world.write("of the unhealthy backup", behaviour="unhealthy")
        self.unhealthy = world.backup()
        world.write("of the crashing backup", behaviour="crash 0")
        self.crashing = world.backup()
        world.write("of the backup of both")
        self.both = world.backup(world.shop, world.stock)

    def forget(self) -> None:
        """The world is not used any more."""
        if self._world:
            self._world.close()
        self._world = None

    def close(self) -> None:
        """The end of it all."""
        self.forget()
        self.runner.close()
        self.second.close()


@pytest.fixture(scope="module", name="stage")
def _stage(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(postgres, tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.fixture(name="world")
def _world(stage: Stage, request: pytest.FixtureRequest) -> Iterator[World]:
    failed = request.session.testsfailed
    yield stage.ready()
    stage.is_in_order = request.session.testsfailed == failed


def failure(outcome: Outcome, *words: str, rolled_back: Optional[bool] = None) -> Dict[str, Any]:
    """The result of a call that has failed, with a message that holds the words."""
    result = outcome.result
    assert result, f"killed: {outcome.points}"
    assert result["failed"], result
    for word in words:
        assert word in result["msg"], f"{word!r} is not in: {result['msg']}"
    assert "Traceback" not in json.dumps(result)
    if rolled_back is not None:
        assert result["rolled_back"] is rolled_back, result
    return result


def success(outcome: Outcome) -> Dict[str, Any]:
    """The result of a call that has not."""
    assert outcome.result, f"killed: {outcome.points}"
    assert not outcome.result["failed"], outcome.result["msg"]
    return outcome.result


def recover_if_failed(world: World, outcome: Outcome) -> None:
    """What whoever reads the message does."""
    assert outcome.result, f"killed: {outcome.points}"
    if outcome.result["failed"]:
        world.recovered()


def killed(outcome: Outcome) -> None:
    """It has to have been killed."""
    assert outcome.killed, (outcome.points, outcome.result)


# -- the module is killed at a point -----------------------------------------------------------------------------------


class Point(NamedTuple):
    """Where a call is killed, and which databases are live after it and one `recovered`."""

    name: str
    live: str = OLD


def core(chosen: str, every: List[Point]) -> List[Any]:
    """`every` for parametrize: those that are named in core, the others in full."""
    names = chosen.split(", ")
    assert not set(names) - {point.name for point in every}
    return [
        pytest.param(point, id=point.name, marks=() if point.name in names else pytest.mark.full) for point in every
    ]


def points(verb: str, old: str, new: str = "") -> List[Point]:
    """Those of `verb`; `old` and `new` are separated by commas."""
    split = [(name, live) for names, live in ((old, OLD), (new, NEW)) for name in names.split(", ") if name]
    return [Point(f"{verb} {name}", live) for name, live in split]


LOADING = "checked, journal written, scratch created, loading, loaded, analyzed, compared, properties applied, "
SWAPPING = "recorded, stopped, fenced, cleared, renamed"
RESTORE = points("restore", LOADING + SWAPPING, "swapped, started, proven, committed, pruned")
UNDO = points("undo", "checked, " + SWAPPING, "swapped, started, proven, committed")
VERIFY = points("verify", "journal written, scratch created, loading, loaded, analyzed, compared")
BACK = points(
    "restore",
    "back recorded, back stopped, fenced 2, cleared 2, renamed 2, back swapped, back open, started 2, proven, "
    "scratch dropped, journal removed",
)
"""Of a restore that puts everything back, because the application is not well."""
STILL_LIVE = BACK[: [point.name for point in BACK].index("restore back swapped")]
"""Those at which the new database is live, and may be for a week when the restore is killed there."""

STOPPED, FENCED, SWAPPED = "restore stopped", "restore fenced", "restore swapped"
SCRATCH = "restore scratch created"

RECOVER = {
    STOPPED: points("recover", "begun, back open, started, proven, scratch dropped, journal removed, finished, done"),
    SWAPPED: points("recover", "", "started, proven, journal removed, finished"),
}
"""By where the restore was killed before."""
RECOVER_BACK = points(
    "recover", "back recorded, back stopped, fenced, cleared, renamed, back swapped, back open, started 2"
)
"""After a restore that was killed when it was swapped, with an application that is not well then."""

BACKUP = [
    "store draft made",
    "backup snapshot taken",
    "backup dump started",
    "facts table read",
    "backup facts read",
    "backup dumped",
    "backup dump read",
    "store file added",
    "backup before commit",
    "store sequence taken",
    "store manifest written",
    "store backup committed",
    "backup committed",
    "store verification noted",
    "backup verified",
]


@pytest.mark.parametrize("point", core("restore loading, restore renamed, restore swapped, restore committed", RESTORE))
def test_restore_killed(stage: Stage, world: World, point: Point) -> None:
    before = with_a_previous(stage, world)
    killed(world.runner.run("pg_restore", world.options(backup=stage.good), at=point.name))
    world.recovered()
    world.check(before, stage.good if point.live == NEW else None)


@pytest.mark.parametrize("point", core("verify loaded", VERIFY))
def test_verify_killed(stage: Stage, world: World, point: Point) -> None:
    """The drill: it never touches what is live."""
    before = world.look()
    killed(world.runner.run("pg_restore", world.options("verified", backup=stage.good), at=point.name))
    world.recovered()
    world.check(before)


@pytest.mark.parametrize("point", core("restore back swapped", BACK))
def test_restore_killed_on_its_way_back(stage: Stage, world: World, point: Point) -> None:
    before = world.look()
    killed(world.runner.run("pg_restore", world.options(backup=stage.crashing), at=point.name))
    result = world.recovered()
    was_live = point in STILL_LIVE
    assert len(result["recovered"]["kept"] if result["recovered"] else []) == was_live
    world.check(before, kept=int(was_live))


@pytest.mark.parametrize("point", core("undo renamed, undo swapped", UNDO))
def test_undo_killed(stage: Stage, world: World, point: Point) -> None:
    before = with_a_previous(stage, world)
    killed(world.runner.run("pg_restore", world.options("undone"), at=point.name))
    world.recovered()
    if point.live == NEW:
        world.check_undone(before)
    else:
        world.check(before)


@pytest.mark.parametrize(
    ("first", "point"),
    full_but(
        core=[(STOPPED, Point("recover back open")), (SWAPPED, Point("recover started", NEW))],
        values=[(first, point) for first, points in RECOVER.items() for point in points],
        ids=lambda value: f"{value[0]}-{value[1].name}",
    ),
)
def test_recover_killed(stage: Stage, world: World, first: str, point: Point) -> None:
    """What mends a restore that was killed is killed as well."""
    before = world.look()
    killed(world.runner.run("pg_restore", world.options(backup=stage.good), at=first))
    killed(world.runner.run("pg_restore", world.options("recovered"), at=point.name))
    world.recovered()
    world.check(before, stage.good if point.live == NEW else None)


@pytest.mark.parametrize("point", core("recover back swapped", RECOVER_BACK))
def test_recover_killed_on_its_way_back(stage: Stage, world: World, point: Point) -> None:
    before = world.look()
    killed(world.runner.run("pg_restore", world.options(backup=stage.crashing), at=SWAPPED))
    killed(world.runner.run("pg_restore", world.options("recovered"), at=point.name))
    world.recovered()
    world.check(before, kept=1)


@pytest.mark.parametrize("at", full_but([SWAPPED], [SWAPPED, "restore proven"]))
def test_what_was_written_between_a_kill_and_the_recovery_is_kept(stage: Stage, world: World, at: str) -> None:
    """A week may lie between: a drill does not end it, a backup warns, and what goes back is there for an undo."""
    before = world.look()
    killed(world.runner.run("pg_restore", impatient(world.options(backup=stage.good)), at=at))
    world.write("a week of work", behaviour="unhealthy")
    for check in (False, True):
        drill = world.runner.run("pg_restore", world.options("verified", backup=stage.good), check=check)
        failure(drill, "was interrupted", "Nothing was verified", "state recovered")
    warned = success(world.runner.run("pg_backup", world.backup_options()))["warnings"]
    assert any("is neither finished nor undone" in text for text in warned), warned

    recovered = world.bring("pg_restore", world.options("recovered"))["recovered"]
    assert recovered["databases"] == {world.shop: "old"}
    assert recovered["dropped"] == []
    [kept] = recovered["kept"]
    assert kept == world.previous()[-1]
    world.check(before, kept=1)
    world.sql("postgres", f"ALTER DATABASE {kept} ALLOW_CONNECTIONS true")
    assert world.sql(kept, "SELECT note FROM orders WHERE id = 1") == "a week of work"
    world.sql("postgres", f"DROP DATABASE {kept}")


GIVES_UP_SOON = {"postgres._server.PATIENCE": 3.0, "postgres._switchover._ANSWER": 5.0}
"""Seconds until a server that does not answer counts as lost: in earnest 10 and 20."""


def impatient(options: Dict[str, Any]) -> Dict[str, Any]:
    """With a gate that gives up soon."""
    options["ready"]["timeout"] = 6  # what is put back has to be well within it too
    return options


SOME_OF_A_BACKUP = ["backup dumped", "store manifest written", "store backup committed"]


@pytest.mark.parametrize("point", full_but(SOME_OF_A_BACKUP, BACKUP))
def test_backup_killed(stage: Stage, world: World, point: str) -> None:
    """What it leaves is no backup; the next one removes it."""
    before = world.look()
    killed(world.runner.run("pg_backup", world.backup_options(), at=point))
    complete = [name for name in world.stored() if not name.startswith(".")]
    world.bring("pg_backup", world.backup_options())
    assert set(before.backups) - {".nodeops"} <= set(complete)
    world.check(before)


@pytest.mark.full
def test_every_step_is_killed_at(stage: Stage, world: World) -> None:
    """No point of a backup, a drill, a restore, one that goes back, an undo or a recover is missing from the lists."""
    met = set(world.runner.run("pg_backup", world.backup_options()).points)
    for options in (
        world.options("verified", backup=stage.good),
        world.options(backup=stage.good),
        world.options(backup=stage.crashing),
        world.options("undone"),
    ):
        met |= set(world.runner.run("pg_restore", options).points)
    for backup in (stage.good, stage.crashing):
        killed(world.runner.run("pg_restore", world.options(backup=backup), at=SWAPPED))
        met |= set(world.runner.run("pg_restore", world.options("recovered")).points)
    in_lists = [*RESTORE, *VERIFY, *BACK, *UNDO, *RECOVER_BACK, *(point for each in RECOVER.values() for point in each)]
    known = {re.sub(r" \d$", "", point.name) for point in in_lists} | {*BACKUP}
    named = {point for point in met if point.startswith(("restore ", "verify ", "undo ", "recover ", "backup "))}
    assert len(named) > 50
    assert not named - known


def with_a_previous(stage: Stage, world: World) -> Any:
    """The world before a call that needs a previous database."""
    before = world.look()
    if world.shop not in before.previous:
        world.bring("pg_restore", world.options(backup=stage.good))
        world.write("after a restore")
        before = world.look()
    return before


@pytest.mark.full
def test_killed_at_random(stage: Stage, world: World) -> None:
    """At any moment of a restore: sometimes the old, sometimes the new."""
    chance = random.Random(4)
    options = world.options(backup=stage.good)
    duration = world.runner.run("pg_restore", options).seconds
    seen = []
    for number in range(6):
        world.write(f"random {number}")
        before = world.look()
        outcome = world.runner.run("pg_restore", options, after=(number + chance.random()) / 6 * duration)
        if outcome.killed:  # else it was quicker than the one that was measured
            world.recovered()
        seen.append(world.check_either(before, stage.good))
    assert not seen[0]


def test_check_mode_after_a_kill(stage: Stage, world: World) -> None:
    """What the killed run has closed is opened before the next restore looks at it."""
    before = world.look()
    options = world.options(backup=stage.good)
    killed(world.runner.run("pg_restore", options, at=FENCED))
    foreseen = success(world.runner.run("pg_restore", options, check=True))
    assert foreseen["changed"]
    assert foreseen["recovered"]["databases"] == {world.shop: "old"}
    world.recovered()
    world.check(before)


def test_killed_and_restored_again(stage: Stage, world: World) -> None:
    """Every call recovers first: `recovered` is not needed for it."""
    before = world.look()
    killed(world.runner.run("pg_restore", world.options(backup=stage.good), at=STOPPED))
    success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    world.check(before, stage.good)


# -- what works for the module is killed -------------------------------------------------------------------------------


def test_pg_restore_is_killed(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        for pid in world.helpers("pg_restore"):
            os.kill(pid, signal.SIGKILL)
        failure(call.result(), "pg_restore")
    world.check(before)


def test_the_module_is_killed_while_pg_restore_loads(stage: Stage, world: World) -> None:
    """pg_restore may outlive the module; what it still does is for nothing."""
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        for pid in world.runner.pids():
            os.kill(pid, signal.SIGKILL)
        killed(call.result())
        world.recovered()
    world.check(before)


@pytest.mark.full
def test_the_session_that_loads_is_terminated(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        world.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {world.loading_backends}")
        failure(call.result(), "pg_restore")
    world.check(before)


def test_the_backend_that_loads_is_killed(stage: Stage, world: World) -> None:
    """The server ends all its sessions then, and starts again by itself."""
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        for pid in world.sql("postgres", f"SELECT pid FROM pg_stat_activity WHERE {world.loading_backends}").split():
            os.kill(int(pid), signal.SIGKILL)
        outcome = call.result()
    failure(outcome)
    world.server_was_restarted()
    world.recovered()
    world.check(before)


@pytest.mark.full
def test_the_postmaster_is_killed_while_it_loads(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        world.server.kill()
        world.server.start()
        outcome = call.result()
    failure(outcome)
    world.server_was_restarted()
    world.recovered()
    world.check(before)


@pytest.mark.parametrize("point", full_but([FENCED], [STOPPED, FENCED, SWAPPED]))
def test_the_postmaster_is_killed(stage: Stage, world: World, point: str) -> None:
    """It is started again at once, and the module connects again."""
    before = world.look()
    shell = f"kill -9 {world.server.pid}"
    call = world.start("pg_restore", world.options(backup=stage.good), at=point, shell=shell)
    until(lambda: not processes.alive(world.server.pid), "the server is gone")
    world.server.kill()
    world.server.start()
    outcome = call.result()
    world.server_was_restarted()
    recover_if_failed(world, outcome)
    world.check_either(before, stage.good)


@pytest.mark.full
def test_the_postmaster_stays_away(stage: Stage, world: World) -> None:
    """For longer than the module waits."""
    before = world.look()
    options, shell = world.options(backup=stage.good), f"kill -9 {world.server.pid}"
    outcome = world.runner.run("pg_restore", options, at=SWAPPED, shell=shell, constants=GIVES_UP_SOON)
    world.server.kill()
    world.server.start()
    failure(outcome)
    world.server_was_restarted()
    world.recovered()
    world.check_either(before, stage.good)


@pytest.mark.full
def test_the_postmaster_is_killed_during_an_undo(stage: Stage, world: World) -> None:
    before = with_a_previous(stage, world)
    call = world.start("pg_restore", world.options("undone"), at="undo fenced", shell=f"kill -9 {world.server.pid}")
    until(lambda: not processes.alive(world.server.pid), "the server is gone")
    world.server.kill()
    world.server.start()
    outcome = call.result()
    world.server_was_restarted()
    recover_if_failed(world, outcome)
    if world.state(world.shop).oid != before.states[world.shop].oid:
        world.check_undone(before)
    else:
        world.check(before)


@pytest.mark.full
def test_the_server_is_restarted(stage: Stage, world: World) -> None:
    """As by an update of its package, in the middle of the swap."""
    before = world.look()
    shell = f"kill -INT {world.server.pid}"
    call = world.start("pg_restore", world.options(backup=stage.good), at=FENCED, shell=shell)
    until(lambda: not processes.alive(world.server.pid), "the server stops")
    world.server.start()
    outcome = call.result()
    world.server_was_restarted()
    recover_if_failed(world, outcome)
    world.check_either(before, stage.good)


@pytest.mark.parametrize("point", full_but([SWAPPED], [STOPPED, FENCED, SWAPPED]))
def test_the_sessions_of_the_module_are_terminated(stage: Stage, world: World, point: str) -> None:
    before = world.look()
    ours = "pg_stat_activity WHERE application_name = 'nodeops.pm2' AND pid <> pg_backend_pid()"
    outcome = world.runner.run(
        "pg_restore",
        world.options(backup=stage.good),
        at=point,
        shell=world.psql(f"SELECT pg_terminate_backend(pid) FROM {ours}"),
    )
    recover_if_failed(world, outcome)
    world.check_either(before, stage.good)


def test_the_server_freezes(stage: Stage, world: World) -> None:
    """The session of the module stands still in the middle of the swap: it is given up, and the application started."""
    before = world.look()
    frozen = world.directory / "frozen"
    find = world.psql("SELECT pid FROM pg_stat_activity WHERE application_name = 'nodeops.pm2'")
    shell = f"({find}) > {frozen}; kill -STOP $(cat {frozen})"
    options = world.options(backup=stage.good, fence_timeout=0.5)
    try:
        outcome = world.runner.run("pg_restore", options, at=FENCED, shell=shell, constants=GIVES_UP_SOON)
        failure(outcome, "The connection to postgres@", "still holds its locks", rolled_back=False)
        assert online(world) == {"api", "worker"}
    finally:
        os.kill(int(frozen.read_text()), signal.SIGCONT)
    world.recovered()
    world.check(before)


def online(world: World) -> Set[str]:
    return {item["name"] for item in world.pm2.processes(NAMESPACE) if item["pm2_env"]["status"] == "online"}


def test_pg_dump_is_killed(world: World) -> None:
    """In the middle of a database that takes a moment."""
    large = world.server.create_database(rows=300_000)
    before = world.look()
    options = world.backup_options(large)
    outcome = world.runner.run("pg_backup", options, at="backup dump started", shell="pkill -9 -P $PPID pg_dump")
    world.server.drop_database(large)
    failure(outcome, large, "pg_dump failed (ended by SIGKILL)")
    assert world.stored() == before.backups
    world.check(before)


@pytest.mark.full
def test_the_session_of_a_backup_is_terminated(world: World) -> None:
    before = world.look()
    with world.session(world.shop, "BEGIN;", "LOCK TABLE orders;"):
        call = world.start("pg_backup", world.backup_options())
        until(world.is_held_up, "the backup waits for a table")
        world.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {world.waiting_backends}")
        failure(call.result(), world.shop)
    assert world.stored() == before.backups
    world.check(before)


@pytest.mark.full
def test_the_postmaster_is_killed_during_a_backup(world: World) -> None:
    before = world.look()
    with world.session(world.shop, "BEGIN;", "LOCK TABLE orders;"):
        call = world.start("pg_backup", world.backup_options())
        until(world.is_held_up, "the backup waits for a table")
        world.server.kill()
    failure(call.result())
    world.server.start()
    world.server_was_restarted()
    assert world.stored() == before.backups
    world.check(before)


def test_a_backup_while_rows_are_inserted(world: World) -> None:
    """The sequences move on after pg_dump has read them, and while the tables are counted."""
    name = world.server.create_database(rows=100)
    call = "DO $$ BEGIN LOOP INSERT INTO items (name, number) VALUES ('new', 1); COMMIT; END LOOP; END $$;"
    with world.session(name) as writer:
        assert writer.stdin
        print(call, file=writer.stdin, flush=True)
        until(lambda: int(world.sql(name, "SELECT count(*) FROM items")) > 200, "rows are inserted")
        shell = "sleep 1"  # pg_dump has read the sequences, and what is counted is still to come
        outcome = world.runner.run("pg_backup", world.backup_options(name), at="backup dump started", shell=shell)
        made = success(outcome)["backup"]["id"]
        world.bring("pg_restore", world.options("verified", name, backup=made))
    world.server.drop_database(name)


# -- it is told to end -------------------------------------------------------------------------------------------------


def test_terminated_while_it_loads(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        for pid in world.runner.pids():
            os.kill(pid, signal.SIGTERM)
        failure(call.result(), "SIGTERM")
    world.check(before)


@pytest.mark.parametrize("point", full_but([SWAPPED], [STOPPED, FENCED, SWAPPED]))
def test_terminated(stage: Stage, world: World, point: str) -> None:
    """Until the new databases have proven themselves it puts everything back."""
    before = world.look()
    outcome = world.runner.run("pg_restore", world.options(backup=stage.good), at=point, shell="kill -TERM $PPID")
    failure(outcome, "SIGTERM", rolled_back=True)
    world.check(before)


@pytest.mark.full
def test_terminated_after_a_recovery(stage: Stage, world: World) -> None:
    """What a killed run has left is put back first; then it can be told to end as ever."""
    before = world.look()
    options = world.options(backup=stage.good)
    killed(world.runner.run("pg_restore", options, at=FENCED))
    outcome = world.runner.run("pg_restore", options, at="restore loading", shell="kill -TERM $PPID")
    failure(outcome, "SIGTERM")
    world.check(before)


@pytest.mark.full
@pytest.mark.parametrize("point", ["undo stopped", "undo swapped"])
def test_an_undo_is_terminated(stage: Stage, world: World, point: str) -> None:
    before = with_a_previous(stage, world)
    outcome = world.runner.run("pg_restore", world.options("undone"), at=point, shell="kill -TERM $PPID")
    failure(outcome, "SIGTERM", rolled_back=True)
    world.check(before)


def test_a_backup_is_terminated(world: World) -> None:
    before = world.look()
    with world.session(world.shop, "BEGIN;", "LOCK TABLE orders;"):
        call = world.start("pg_backup", world.backup_options())
        until(world.is_held_up, "the backup waits for a table")
        for pid in world.runner.pids():
            os.kill(pid, signal.SIGTERM)
        failure(call.result(), "SIGTERM")
    assert world.stored() == before.backups
    world.check(before)


@pytest.mark.parametrize("way", full_but([cancel.terminate], [cancel.kill, cancel.terminate, cancel.kill_all]))
def test_the_controller_is_ended(stage: Stage, world: World, tmp_path: Path, way: cancel.Way) -> None:
    """Killed, it leaves a module that goes on. Told to end, it tells the module (since ansible-core 2.19)."""
    before = world.look()
    with world.brakes():
        playbook = start_playbook(tmp_path, "pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads", 60)
        way(playbook)
        playbook.wait(60)
    until(lambda: not processes.belonging_to(tmp_path / "ansible") and not world.helpers(), "the module ends", 60)
    playbook.communicate()
    if way is cancel.kill_all:
        world.recovered()
    is_new = world.check_either(before, stage.good)
    assert way is cancel.terminate or is_new == (way is cancel.kill)


def start_playbook(directory: Path, module: str, options: Dict[str, Any]) -> subprocess.Popen[str]:
    """One task, as a user runs it."""
    task = {"name": "Restore", f"nodeops.pm2.{module}": options}
    play = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [task]}]
    path = directory / "play.yml"
    path.write_text(json.dumps(play))
    return subprocess.Popen(
        ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=places.HOME,
        env={**os.environ, "ANSIBLE_REMOTE_TEMP": str(directory / "ansible")},  # by which the module is found
    )


# -- who is connected --------------------------------------------------------------------------------------------------


def test_clients_come_back_in_a_loop(stage: Stage, world: World) -> None:
    before = world.look()
    visitors = world.visitors(8, 0)
    try:
        until(lambda: world.sql("postgres", visits(world)) == "9", "they come")
        success(world.runner.run("pg_restore", world.options(backup=stage.good)))
        until(lambda: world.sql("postgres", visits(world)) == "9", "they come again")
    finally:
        visitors.kill()
        visitors.wait()
    world.check(before, stage.good)


def visits(world: World) -> str:
    return (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = {literal(world.shop)} AND application_name = 'visitor'"
    )


def test_a_session_is_idle_in_a_transaction(stage: Stage, world: World) -> None:
    """Its write is not committed, so it is neither in the old nor in the new database."""
    before = world.look()
    with world.session(world.shop, "BEGIN;", "UPDATE orders SET note = 'never' WHERE id = 2;"):
        success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    world.check(before, stage.good)


@pytest.mark.full
def test_a_session_holds_a_table_locked(stage: Stage, world: World) -> None:
    before = world.look()
    with world.session(world.shop, "BEGIN;", "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;"):
        success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    world.check(before, stage.good)


def test_a_transaction_was_prepared(stage: Stage, world: World) -> None:
    """It can be neither terminated nor moved: whoever prepared it has to end it."""
    world.sql(world.shop, "BEGIN; UPDATE orders SET note = 'prepared' WHERE id = 2; PREPARE TRANSACTION 'transfer 7'")
    try:
        before = world.look()
        failure(world.runner.run("pg_restore", world.options(backup=stage.good)), "prepared transaction", "transfer 7")
        world.check(before)
    finally:
        world.sql(world.shop, "ROLLBACK PREPARED 'transfer 7'")


@pytest.mark.full
def test_a_transaction_is_prepared_meanwhile(stage: Stage, world: World) -> None:
    before = world.look()
    prepare = world.psql("BEGIN; LOCK TABLE held; PREPARE TRANSACTION 'transfer 8'", world.shop)
    options = world.options(backup=stage.good, fence_timeout=0.5)
    try:
        outcome = world.runner.run("pg_restore", options, at=STOPPED, shell=prepare)
        failure(outcome, "prepared transaction", rolled_back=True)
    finally:
        world.sql(world.shop, "ROLLBACK PREPARED 'transfer 8'")
    world.check(before)


@pytest.mark.full
def test_a_transaction_is_prepared_in_the_new_database(stage: Stage, world: World) -> None:
    """Until it is gone there is no way back: the new database stays live and open, and the application tries."""
    before = world.look()
    prepare = world.psql("BEGIN; LOCK TABLE held; PREPARE TRANSACTION 'transfer 9'", world.shop)
    options = impatient(world.options(backup=stage.unhealthy, fence_timeout=0.5))
    try:
        outcome = world.runner.run("pg_restore", options, at=SWAPPED, shell=prepare)
        failure(outcome, "Putting everything back did not succeed", "prepared transaction", rolled_back=False)
        tries(world)
        again = failure(world.runner.run("pg_restore", world.options("recovered", fence_timeout=0.5)))
        assert f"The restore of {world.shop} that was interrupted is not finished." in again["msg"]
        assert "not touched" not in again["msg"]
        tries(world)
    finally:
        world.sql(world.shop, "ROLLBACK PREPARED 'transfer 9'")
    world.recovered()
    world.check(before, kept=1)


def tries(world: World) -> None:
    """The application runs, on the new database."""
    assert world.sql(world.shop, "SELECT what FROM behaviour") == "unhealthy"
    live = {item["name"]: item["pm2_env"]["status"] for item in world.pm2.processes(NAMESPACE)}
    assert live == {"api": "online", "paused": "stopped", "worker": "online"}


def test_a_transaction_has_changed_the_database(stage: Stage, world: World) -> None:
    """For as long as it is open nobody can close the database to connections."""
    before = world.look()
    grant = f"GRANT CONNECT ON DATABASE {world.shop} TO {world.brake};"
    with world.session("postgres", "BEGIN;", grant):
        outcome = world.runner.run("pg_restore", world.options(backup=stage.good, fence_timeout=0.5))
        failure(outcome, world.shop, "could not be closed to connections in time", rolled_back=True)
    world.check(before)


# -- the application ---------------------------------------------------------------------------------------------------


def test_the_application_is_unhealthy_after_the_restore(stage: Stage, world: World) -> None:
    before = world.look()
    options = impatient(world.options(backup=stage.unhealthy))
    failure(world.runner.run("pg_restore", options), "/health", "503", rolled_back=True)
    world.check(before)


def test_the_application_crashes_at_its_start_after_the_restore(stage: Stage, world: World) -> None:
    before = world.look()
    outcome = world.runner.run("pg_restore", world.options(backup=stage.crashing))
    failure(outcome, "api", rolled_back=True)
    world.check(before)


@pytest.mark.full
def test_the_application_crashes_five_seconds_after_the_restore(stage: Stage, world: World) -> None:
    """It answers well until then: what notices it is `min_uptime`, which what is put back has to last too."""
    world.write("crashes late", behaviour="crash 5")
    late = world.backup()
    world.write("live again")
    before = world.look()
    options = world.options(backup=late)
    options["ready"].update(timeout=60, min_uptime=15)
    failure(world.runner.run("pg_restore", options), "api", rolled_back=True)
    world.check(before)


@pytest.mark.full
def test_a_playbook_whose_restore_fails(stage: Stage, world: World, tmp_path: Path) -> None:
    """What a pipeline sees: exit code 2, and why."""
    before = world.look()
    playbook = start_playbook(tmp_path, "pg_restore", impatient(world.options(backup=stage.unhealthy)))
    printed, _errors = playbook.communicate(timeout=200)
    assert playbook.returncode == 2
    assert "answered 503, expected 200" in printed
    assert '"rolled_back": true' in printed
    world.check(before)


@pytest.mark.full
def test_the_undo_is_unhealthy_too(stage: Stage, world: World) -> None:
    """The database to go back to is one the application does not get on with any more."""
    world.write("will be the previous", behaviour="unhealthy")
    success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    before = world.look()
    options = impatient(world.options("undone"))
    failure(world.runner.run("pg_restore", options), "503", rolled_back=True)
    world.check(before)


@pytest.mark.full
def test_neither_the_new_nor_the_old_is_healthy(stage: Stage, world: World) -> None:
    """The application was ill before: it is put back all the same, and that is said."""
    world.write("ill", behaviour="unhealthy")
    before = world.look()
    options = impatient(world.options(backup=stage.unhealthy))
    failure(world.runner.run("pg_restore", options), "503", rolled_back=True)
    world.write("well again")
    world.check_processes()
    assert world.state(world.shop).oid == before.states[world.shop].oid
    assert world.others() == before.others


def test_a_process_that_somebody_stops_meanwhile_stays_stopped(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        (worker,) = [item for item in world.pm2.processes(NAMESPACE) if item["name"] == "worker"]
        world.pm2.rpc("stopProcessId", worker["pm_id"])
    result = success(call.result())
    assert "worker" not in json.dumps(result["started"])
    world.pm2.rpc("restartProcessId", {"id": worker["pm_id"]})
    world.check(before, stage.good)


# -- PM2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", full_but([STOPPED], [SCRATCH, STOPPED, SWAPPED]))
def test_the_daemon_of_pm2_is_killed(stage: Stage, world: World, point: str) -> None:
    """Its processes are gone with it: they are made again as they were. The neighbour's are for `recover` of PM2."""
    before = world.look()
    (daemon,) = world.pm2.daemon_pids()
    outcome = world.runner.run("pg_restore", world.options(backup=stage.good), at=point, shell=f"kill -9 {daemon}")
    recover_if_failed(world, outcome)
    world.check_without_neighbour(before, stage.good)
    stage.forget()


@pytest.mark.full
def test_everything_is_killed_at_once(stage: Stage, world: World) -> None:
    """As by a power cut: the module, the server and PM2; then what starts at boot, PM2 after `recovered` has begun.

    What the neighbour has under a name of ours comes back all the same, and nothing runs twice.
    """
    before = world.look()
    (daemon,) = world.pm2.daemon_pids()
    all_of_it = f"kill -9 {world.server.pid} {daemon} $PPID"
    killed(world.runner.run("pg_restore", world.options(backup=stage.good), at=SWAPPED, shell=all_of_it))
    world.server.kill()
    world.pm2.kill()
    world.server.start()
    recovery = world.start("pg_restore", world.options("recovered", resurrect_timeout=60))
    time.sleep(3)
    world.pm2.cli("resurrect")
    assert "warnings" not in success(recovery.result())
    world.check_as_after_a_boot(before, stage.good)
    stage.forget()


# -- two at once -------------------------------------------------------------------------------------------------------


def test_two_restores_at_once(stage: Stage, world: World) -> None:
    """The second waits for as long as it is told to, and is refused; the first knows nothing of it."""
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        options = world.options(backup=stage.good, lock_timeout=0.3)
        failure(stage.second.run("pg_restore", options), "another run holds", "Nothing was changed")
    success(call.result())
    world.check(before, stage.good)


def test_two_restores_at_once_from_two_stores(stage: Stage, world: World, tmp_path: Path) -> None:
    """As from two hosts: what keeps them apart is the server."""
    before = world.look()
    copy = tmp_path / "copy"
    shutil.copytree(world.dest, copy)
    shutil.copy(f"{world.dest}.key", f"{copy}.key")
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        options = world.options(backup=stage.good, dest=str(copy), lock_timeout=0.3)
        failure(stage.second.run("pg_restore", options), world.shop, "Nothing was changed")
    success(call.result())
    world.check(before, stage.good)


def test_the_second_of_two_restores_waits(stage: Stage, world: World) -> None:
    """Both work, one after the other: what the first has made live is what the second keeps."""
    before = world.look()
    calls = [("pg_restore", world.options(backup=backup)) for backup in (stage.good, stage.both)]
    for result in world.runner.together(calls):
        assert not result["failed"], result
    assert world.state(world.shop).text in [world.texts[backup][world.shop] for backup in (stage.good, stage.both)]
    (kept,) = world.previous()
    assert (
        world.sql("postgres", f"SELECT oid FROM pg_database WHERE datname = '{kept}'") != before.states[world.shop].oid
    )
    world.check_left()
    world.check_processes()


@pytest.mark.full
def test_a_backup_during_a_restore(stage: Stage, world: World) -> None:
    """As the timer does it: it says that it could not, and by whom; the restore does not notice."""
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        outcome = stage.second.run("pg_backup", world.backup_options(lock_timeout=0.3))
        failure(outcome, "another run holds", "Nothing was changed")
    success(call.result())
    assert world.stored() == before.backups
    world.check(before, stage.good)


@pytest.mark.full
def test_a_restore_during_a_backup(stage: Stage, world: World) -> None:
    before = world.look()
    with world.session(world.shop, "BEGIN;", "LOCK TABLE orders;"):
        call = world.start("pg_backup", world.backup_options())
        until(world.is_held_up, "the backup waits for a table")
        options = world.options(backup=stage.good, lock_timeout=0.3)
        failure(stage.second.run("pg_restore", options), "another run holds", "Nothing was changed")
    success(call.result())
    world.check(before)


def test_a_deploy_during_the_swap(stage: Stage, world: World, tmp_path: Path) -> None:
    """Whoever else changes the namespace waits until its processes run again."""
    before = world.look()
    go = tmp_path / "go"
    shell = f"until test -e {go}; do sleep 0.02; done"
    deploy = {"namespace": NAMESPACE, "pm2_home": world.pm2.home, "pm2_executable": world.pm2.executable}
    call = world.start("pg_restore", world.options(backup=stage.good), at=STOPPED, shell=shell)
    until(lambda: all(item["pid"] == 0 for item in world.pm2.processes(NAMESPACE)), "the processes are stopped")
    with ThreadPoolExecutor(1) as pool:
        options = {**deploy, "state": "restarted", "names": ["worker"]}
        outcome = pool.submit(stage.second.run, "pm2_process", options)
        try:
            until(lambda: any(map(has_a_lock_open, stage.second.pids())), "the deploy is at the lock")
        finally:
            go.touch()
    success(call.result())
    success(outcome.result())
    world.check(before, stage.good)


def has_a_lock_open(pid: int) -> bool:
    """Which it has waited for, or waits for still."""
    with contextlib.suppress(OSError):
        return any(path.readlink().suffix == ".lock" for path in Path(f"/proc/{pid}/fd").iterdir())
    return False


# -- what somebody does by hand ----------------------------------------------------------------------------------------


def test_the_scratch_database_is_dropped_while_it_loads(stage: Stage, world: World) -> None:
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options(backup=stage.good))
        until(world.is_loading, "the restore loads")
        for name in world.others():
            if "__new_" in name:
                world.server.drop_database(name)
        failure(call.result())
    world.check(before)


def test_the_file_of_the_backup_is_cut_after_it_was_checked(stage: Stage, world: World) -> None:
    world.write("to be cut")
    backup = world.backup()
    world.write("live after that")
    before = world.look()
    (dump,) = (world.dest / backup).glob("*.dump")
    outcome = world.runner.run("pg_restore", world.options(backup=backup), at=SCRATCH, shell=f"truncate -s -300 {dump}")
    failure(outcome)
    world.check(before)
    shutil.rmtree(world.dest / backup)


def test_a_database_that_was_not_backed_up_is_missing(stage: Stage, world: World) -> None:
    """The live database was dropped by mistake: it is made again, and there is nothing to go back to."""
    text = world.texts[stage.good][world.shop]
    world.server.drop_database(world.shop)
    success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    now = world.state(world.shop)
    assert now.text == text
    world.check_left()
    world.check_processes()


def test_the_journal_is_lost_after_a_kill(stage: Stage, world: World) -> None:
    """The names of the databases tell enough to clear away what was left, and to lift the fence."""
    before = world.look()
    killed(world.runner.run("pg_restore", world.options(backup=stage.good), at=SCRATCH))
    (world.dest / ".nodeops" / "restore.journal").unlink()
    world.recovered()
    world.check(before)


# -- the clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_clock_was_set_back(stage: Stage, world: World) -> None:
    """What was kept is of a time to come: still each new one is newer, and the undo takes the newest."""
    before = with_a_previous(stage, world)
    (kept,) = world.previous()
    future = f"{world.shop}__prev_20991231235959"
    world.sql("postgres", f"ALTER DATABASE {kept} RENAME TO {future}")
    before = world.look()
    success(world.runner.run("pg_restore", world.options(backup=stage.good)))
    (newer,) = world.previous()
    assert newer > future
    world.check(before, stage.good)
    before = world.look()
    success(world.runner.run("pg_restore", world.options("undone")))
    world.check_undone(before)


# -- several databases in one call -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", core(SWAPPED, [Point(FENCED), Point(SWAPPED, NEW)]))
def test_two_databases_killed(stage: Stage, world: World, point: Point) -> None:
    """All or none."""
    names = (world.shop, world.stock)
    before = world.look()
    killed(world.runner.run("pg_restore", world.options("restored", *names, backup=stage.both), at=point.name))
    world.recovered(*names)
    world.check(before, stage.both if point.live == NEW else None, *names)


def test_the_second_of_two_databases_does_not_load(stage: Stage, world: World) -> None:
    names = (world.shop, world.stock)
    before = world.look()
    with world.brakes():
        call = world.start("pg_restore", world.options("restored", *names, backup=stage.both))
        until(world.is_loading, "the first loads")
        first = world.sql("postgres", f"SELECT datname FROM pg_stat_activity WHERE {world.loading_backends}")
        world.sql("postgres", f"COMMENT ON ROLE {world.brake} IS NULL")
        until(
            lambda: world.sql(
                "postgres", f"SELECT 1 FROM pg_database WHERE datname LIKE '%\\_\\_new\\_%' AND datname <> '{first}'"
            ),
            "the second comes",
        )
        for name in world.others():
            if "__new_" in name and name != first:
                world.server.drop_database(name)
        failure(call.result())
    world.check(before)


@pytest.mark.full
def test_two_databases_and_an_unhealthy_application(stage: Stage, world: World) -> None:
    names = (world.shop, world.stock)
    world.write("of both, unhealthy", behaviour="unhealthy")
    backup = world.backup(*names)
    world.write("live again")
    before = world.look()
    options = impatient(world.options("restored", *names, backup=backup))
    failure(world.runner.run("pg_restore", options), "503", rolled_back=True)
    world.check(before)


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_left", full_but([1000], [1000, 4000]))
def test_no_file_of_a_backup_may_get_larger(stage: Stage, world: World, bytes_left: int) -> None:
    """A quota, or a full disk: nothing that is not complete is a backup."""
    before = world.look()
    failure(world.runner.run("pg_backup", world.backup_options(), file_limit=bytes_left))
    assert world.stored() == before.backups
    world.check(before)


def test_no_file_of_a_restore_may_get_larger(stage: Stage, world: World) -> None:
    """Seen before anything is stopped."""
    before = world.look()
    outcome = world.runner.run("pg_restore", world.options(backup=stage.good), file_limit=100)
    failure(outcome, "cannot be written to", "File too large")
    world.check(before)


@pytest.mark.parametrize("tier", ["not full", pytest.param("full", marks=pytest.mark.full)])
def test_disks_that_are_full(tmp_path: Path, tier: str) -> None:
    """The disks are ours, see faults_of_disks.py. In core it takes 20 s: a server and a world of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a disk to the user that PostgreSQL runs as")
    try:
        printed = faults.run_in_own_mounts(Path(__file__).with_name("faults_of_disks.py"), tmp_path / "mounts", tier)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    assert printed is None, printed
