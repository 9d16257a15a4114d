"""Crash safety: pm2_process is killed (SIGKILL) at named points and at random times. The tests check what serves
meanwhile, what the next run does, and what is left.

Core: a kill before and one after the commit of each kind of change, 70 s. Full: at every point, and 230 at random.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from support import tiers
from support.crash_world import SHOP, Wanted, World
from support.killer import Runner
from support.pm2 import VERSIONS, Pm2Home, newest

pytestmark = pytest.mark.timeout(900)  # a hundred kills in one test, on a machine that may be busy

Params = Dict[str, Any]
Kills = List[Tuple[str, Optional[str]]]
"""Points, each with the value that the next run has to give in `recovered`."""

# The points of a change, in order, and what the next run reports: no change begun, undone, or finished.
BEFORE_ANYTHING = ["before fsync .shop.journal.new", "before rename shop.journal 1"]
OPENED = ["after rename shop.journal 1", "journal_written"]
STARTED_BESIDE = ["before send prepare", "after send prepare", "candidate_sent 1", "candidate_sent 2", "beside_started"]
PROVEN = ["gate_passed", "before rename shop.journal 2"]
COMMITTED = [
    "after rename shop.journal 2",
    "committed",
    "before fsync .dump.pm2.new",
    "before rename dump.pm2.bak",
    "after rename dump.pm2.bak",
    "before rename dump.pm2",
    "after rename dump.pm2",
    "saved",
]
RETIRING = ["before send deleteProcessId", "after send deleteProcessId", "retired", "before unlink shop.journal"]
OVER = ["after unlink shop.journal", "journal_removed"]

Points = Tuple[List[str], List[str], List[str], List[str]]

REPLACE: Points = (BEFORE_ANYTHING, OPENED + STARTED_BESIDE + PROVEN, COMMITTED + RETIRING, OVER)
RESTART = (
    BEFORE_ANYTHING,
    [
        *OPENED,
        "before send stopProcessId",
        "after send stopProcessId",
        "old_stopped",
        "before send prepare",
        "candidate_sent",
        "stop_first_started",
        *PROVEN,
    ],
    COMMITTED + RETIRING,
    OVER,
)
BOTH: Points = (
    [],
    ["beside_started", "beside_up", "old_stopped", "candidate_sent 3", "stop_first_started"],
    ["retired"],
    [],
)
SCALE_UP = (
    BEFORE_ANYTHING[1:],
    ["journal_written", "before send prepare", "candidate_sent", "gate_passed"],
    ["committed", "before rename dump.pm2", "saved", "before unlink shop.journal"],
    ["journal_removed"],
)
SCALE_DOWN = (
    BEFORE_ANYTHING[1:],
    ["journal_written"],
    ["committed", "before rename dump.pm2", "saved", "after send deleteProcessId", "retired"],
    ["journal_removed"],
)
ABSENT = SCALE_DOWN
STOPPED = (
    BEFORE_ANYTHING[1:],
    ["journal_written", "before send stopProcessId", "after send stopProcessId", "stopped"],
    ["committed", "before rename dump.pm2", "saved"],
    ["journal_removed"],
)


def kills(points: Points) -> Kills:
    said = (None, "undone", "finished", None)
    return [(name, recovered) for names, recovered in zip(points, said, strict=True) for name in names]


def some(points: Points) -> Kills:
    """One point after which the next run undoes the change, and one after which it finishes it."""
    return [(names[len(names) // 2], said) for names, said in zip(points[1:3], ("undone", "finished"), strict=True)]


def at_points(*changes: Points) -> pytest.MarkDecorator:
    """The points of a change: those in `chosen` in core, all in full."""
    return pytest.mark.parametrize("chosen", tiers.sample([*map(some, changes)], [*map(kills, changes)]))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Calls in processes that can be killed."""
    with Runner() as made:
        yield made


@pytest.fixture
def world(pm2: Pm2Home, runner: Runner, tmp_path: Path) -> Iterator[World]:
    """A namespace without apps, and its neighbour."""
    with World(pm2, runner, tmp_path) as made:
        yield made


def kill_at(world: World, point: str, params: Params) -> None:
    outcome = world.runner.run("pm2_process", params, at=point)
    assert outcome.killed, (point, outcome.points, outcome.result)


def converge(world: World, params: Params, wanted: Dict[str, Wanted], recovered: object) -> None:
    """The same call again reaches its aim and reports what it found. A third call finds nothing to do."""
    result = world.bring(params)
    assert result["recovered"] == recovered
    assert result["changed"] or recovered is None
    world.check_converged(wanted)
    world.unchanged_by(params)


def alternate(
    world: World, kills: Kills, change: Callable[[str], Tuple[Params, Dict[str, Wanted]]], serves: bool
) -> None:
    """Release 2 over 1, 1 over 2, and so on. Each change is killed at the next point, and the next run does it."""
    world.bring(change("1")[0])
    if serves:
        world.serve()
    releases = ["2", "1"] * 30
    chosen = kills[:: 1 if world.pm2.version == VERSIONS[-1] else 2]  # what we do there is the same
    for (point, recovered), release in zip(chosen, releases, strict=False):
        params, wanted = change(release)
        kill_at(world, point, params)
        world.check_meanwhile()
        converge(world, params, wanted, recovered)


def replacement(world: World) -> Callable[[str], Tuple[Params, Dict[str, Wanted]]]:
    return lambda release: (world.params([world.api(release)]), {"api": Wanted(release, 2)})


def stop_and_start(world: World) -> Callable[[str], Tuple[Params, Dict[str, Wanted]]]:
    return lambda release: (world.params([world.worker(release)]), {"worker": Wanted(release, 1)})


def both(world: World) -> Callable[[str], Tuple[Params, Dict[str, Wanted]]]:
    return lambda release: (
        world.params([world.api(release), world.worker(release)]),
        {"api": Wanted(release, 2), "worker": Wanted(release, 1)},
    )


@at_points(REPLACE)
def test_a_replacement_killed_at_each_point_keeps_serving_and_converges(world, chosen):
    """Cluster: at each point the old or the new workers answer every request, until the next run has ended."""
    alternate(world, chosen[0], replacement(world), serves=True)


@at_points(RESTART)
def test_a_stop_and_start_killed_at_each_point_converges(world, chosen):
    """Fork: the next run restarts the old process or goes on with the new one, and reaches what is defined."""
    alternate(world, chosen[0], stop_and_start(world), serves=False)


@newest("pm2")
@at_points(BOTH)
def test_a_call_for_a_cluster_and_a_fork_app_killed_at_each_of_its_own_points_converges(world, chosen):
    """Both orders in one transaction."""
    alternate(world, chosen[0], both(world), serves=True)


@newest("pm2")
@at_points(SCALE_UP, SCALE_DOWN)
def test_scaling_killed_at_each_point_converges(world, chosen):
    """From one worker to two, and back: the numbers are 0..n-1 afterwards, and no request fails."""
    sizes = {1: world.params([world.api("1", 1)]), 2: world.params([world.api("1", 2)])}
    world.bring(sizes[1])
    world.serve()
    up, down = chosen
    for point, recovered in up:
        kill_at(world, point, sizes[2])
        converge(world, sizes[2], {"api": Wanted("1", 2)}, recovered)
        world.bring(sizes[1])
    world.bring(sizes[2])
    for point, recovered in down:
        kill_at(world, point, sizes[1])
        converge(world, sizes[1], {"api": Wanted("1", 1)}, recovered)
        world.bring(sizes[2])


@newest("pm2")
@at_points(ABSENT)
def test_absent_killed_at_each_point_converges(world, chosen):
    """Nothing is left in PM2's list or among the processes, and nothing comes back at boot."""
    start = world.params([world.api("1"), world.worker("1")])
    absent = world.params(state="absent")
    for point, recovered in chosen[0]:
        world.bring(start)
        kill_at(world, point, absent)
        converge(world, absent, {}, recovered)


@newest("pm2")
@at_points(STOPPED)
def test_stopped_killed_at_each_point_converges(world, chosen):
    """All are stopped in the list and in the dump. Before that, an undo started them again."""
    start = world.params([world.api("1"), world.worker("1")])
    stopped = world.params(state="stopped")
    wanted = {"api": Wanted("1", 2, "stopped"), "worker": Wanted("1", 1, "stopped")}
    for point, recovered in chosen[0]:
        world.bring(start)
        kill_at(world, point, stopped)
        converge(world, stopped, wanted, recovered)


def test_stopped_killed_while_the_daemon_waits_for_a_slow_app_converges(world, tmp_path):
    """The next run starts a process that PM2 is still stopping, which PM2 refuses until the old process is gone."""
    script = "process.on('SIGINT', () => setTimeout(process.exit, 1500)); setInterval(() => {}, 1000);"
    (tmp_path / "slow.js").write_text(script)
    app = {"name": "slow", "script": "slow.js", "cwd": str(tmp_path), "kill_timeout": 20000, "env": {"RELEASE": "1"}}
    start = world.params([app])
    stopped = world.params(state="stopped")
    for point in ("after send stopProcessId", "before send stopProcessId"):
        world.bring(start)
        kill_at(world, point, stopped)
        assert world.bring(start)["recovered"] == "undone"
        world.unchanged_by(start)
        world.bring(stopped)
        assert [item["pm2_env"]["status"] for item in world.pm2.processes("shop")] == ["stopped"]


# -- random times ------------------------------------------------------------------------------------------------------

RANDOM_KILLS = {"5.4": 15, "6.0": 15, "7.0": 50}


def kill_at_random_times(world: World, change: Callable[[str], Tuple[Params, Dict[str, Wanted]]]) -> None:
    """Many kills, spread over the duration of the change, which is measured first and after each kill that was late."""
    chance = random.Random(world.pm2.version)
    kills = RANDOM_KILLS[world.pm2.version]
    duration = statistics.median(world.runner.run("pm2_process", change(r)[0]).seconds for r in ("2", "1", "2"))
    said = {"undone": 0, "finished": 0, None: 0}
    killed = late = 0
    while killed < kills:
        release = "12"[(killed + late) % 2]
        params, wanted = change(release)
        moment = (killed + chance.random()) / kills * duration
        outcome = world.runner.run("pm2_process", params, after=moment)
        world.check_meanwhile()
        if not outcome.killed:
            late += 1
            assert late < max(RANDOM_KILLS.values()), "nearly all kills come too late"
            duration = min(duration * 0.95, outcome.seconds)
            continue
        killed += 1
        result = world.bring(params)
        said[result["recovered"]] += 1
        world.check_converged(wanted)
    world.unchanged_by(params)
    print(f"{killed} killed within {duration:.2f} s, {late} late; recovered: {said}; {world.reader.reads} dump reads")
    assert said["undone"] > kills * 0.1


@pytest.mark.full
def test_a_replacement_killed_at_random_times_keeps_serving_and_converges(world):
    """No request fails, whenever it is killed, and the next run reaches exactly what is defined."""
    world.bring(replacement(world)("1")[0])
    world.serve()
    kill_at_random_times(world, replacement(world))


@pytest.mark.full
def test_a_stop_and_start_killed_at_random_times_converges(world):
    """The next run reaches exactly what is defined, whenever the call was killed."""
    world.bring(stop_and_start(world)("1")[0])
    kill_at_random_times(world, stop_and_start(world))


# -- another call comes next -------------------------------------------------------------------------------------------

MOMENTS = [("old_stopped", "1", "undone"), ("stop_first_started", "1", "undone"), ("committed", "2", "finished")]


@newest("pm2")
@pytest.mark.parametrize("moments", tiers.sample(MOMENTS[1:2], MOMENTS))
def test_another_call_after_a_killed_one_recovers_first(world, moments):
    """stopped, absent and pm2_save undo or finish the change of the killed run before their own."""
    old, new = both(world)("1"), both(world)("2")
    for point, release, recovered in moments:
        running = both(world)(release)[1]
        stopped = {name: app._replace(status="stopped") for name, app in running.items()}
        nexts: List[Tuple[str, Params, Dict[str, Wanted]]] = [
            ("pm2_process", world.params(state="stopped"), stopped),
            ("pm2_process", world.params(state="absent"), {}),
            ("pm2_save", world.params(), running),
        ]
        for module, params, wanted in nexts:
            world.bring(old[0])
            kill_at(world, point, new[0])
            predicted = world.bring(params, module, check=True)
            done = world.bring(params, module)
            assert (predicted["recovered"], done["recovered"]) == (recovered, recovered)
            assert done["changed"]
            world.check_converged(wanted)


@newest("pm2")
@pytest.mark.parametrize("points", tiers.sample(["old_stopped"], None))
def test_check_mode_after_a_killed_run_predicts_the_next_run(world, points):
    """The prediction has exactly the actions that are then done, and changes nothing."""
    old, new = both(world)("1")[0], both(world)("2")[0]
    stopped, restarted = world.params(state="stopped"), world.params(state="restarted")
    nexts = {
        "beside_started": (old, stopped),
        "old_stopped": (new, old, restarted),
        "stop_first_started": (new, stopped),
        "committed": (new, old, stopped),
        "saved": (new, restarted),
    }
    for point in points or nexts:
        for following in nexts[point]:
            world.bring(old)
            kill_at(world, point, new)
            before = settled(world)
            files = {path.name: path.read_bytes() for path in Path(world.pm2.home, "nodeops").iterdir()}
            predicted = world.bring(following, check=True)
            assert settled(world) == before
            assert {path.name: path.read_bytes() for path in Path(world.pm2.home, "nodeops").iterdir()} == files
            done = world.bring(following)
            for key in ("recovered", "actions", "saved", "changed"):
                assert predicted[key] == done[key], (point, following.get("state"), key)
            world.check_meanwhile()


def settled(world: World) -> List[Tuple[Any, ...]]:
    """The processes, after the last requests of the killed run have taken effect."""
    states = None
    while states != (states := [_state(item) for item in world.pm2.processes(SHOP)]):
        time.sleep(0.1)
    return states


def _state(item: Dict[str, Any]) -> Tuple[Any, ...]:
    runs = item["pm2_env"]["status"] in ("launching", "online")
    return item["pm_id"], item["pid"], runs, item["pm2_env"]["restart_time"]


# -- two faults --------------------------------------------------------------------------------------------------------


@newest("pm2")
@pytest.mark.parametrize("part", tiers.sample(slice(2, None, 5), slice(None)))
def test_a_recovery_that_is_killed_too_is_finished_by_the_run_after_it(world, part):
    """The undo and the finish can be repeated."""
    again = ["before send deleteProcessId", "after send deleteProcessId", "before unlink shop.journal"]
    faults = [
        *[("beside_started", second, "undone") for second in again],
        *[("stop_first_started", second, "undone") for second in [*again, "after send restartProcessId"]],
        *[("committed", second, "finished") for second in [*again, "before rename dump.pm2", "after rename dump.pm2"]],
        *[("after send deleteProcessId", second, "finished") for second in again[2:]],
    ]
    world.bring(both(world)("1")[0])
    world.serve()
    for (first, second, recovered), release in zip(faults[part], ["2", "1"] * len(faults), strict=False):
        params, wanted = both(world)(release)
        kill_at(world, first, params)
        kill_at(world, second, params)
        world.check_meanwhile()
        converge(world, params, wanted, recovered)


DAEMON_DIES = ["beside_started", "old_stopped", "gate_passed", "committed"]


@newest("pm2")
@pytest.mark.parametrize("points", tiers.sample(["old_stopped"], DAEMON_DIES))
def test_a_daemon_killed_in_the_middle_of_a_change_is_a_clear_failure_and_the_next_run_converges(
    pm2, runner, tmp_path, points
):
    """Without a daemon the run cannot undo anything, and says so. The next one starts a daemon and all apps."""
    for point in points:
        with World(pm2, runner, tmp_path) as world:
            world.bring(both(world)("1")[0])
            params, wanted = both(world)("2")
            (daemon,) = pm2.daemon_pids()
            outcome = runner.run("pm2_process", params, at=point, shell=f"kill -9 {daemon}; sleep 0.3")
            assert outcome.result
            result = outcome.result
            assert result["failed"]
            assert not result.get("rolled_back")
            assert "went away" in result["msg"] or "closed the connection" in result["msg"]
            assert "Run again" in result["msg"]
            assert not pm2.daemon_pids()
            world.reader.check()
            result = world.bring(params)
            assert len(pm2.daemon_pids()) == 1
            assert result["recovered"] == "undone"
            world._start_neighbour()  # it ended with its daemon
            world.check_converged(wanted)
            world.unchanged_by(params)
        pm2.kill()


def test_a_change_that_was_committed_when_the_host_went_down_does_not_remove_the_old_at_boot(world):
    """Killed after the commit and before the dump is saved: a resurrect brings back the old apps, and they stay."""
    world.bring(replacement(world)("1")[0])
    kill_at(world, "committed", replacement(world)("2")[0])
    os.kill(world.pm2.daemon_pids()[0], signal.SIGKILL)
    world.pm2.kill()
    world.pm2.cli("resurrect")
    world._neighbour = world._seen_of_neighbour()
    result = world.bring(world.params(), "pm2_save")
    assert result["entries"] == 2
    world.check_converged({"api": Wanted("1", 2)})
    converge(world, *replacement(world)("2"), recovered=None)
