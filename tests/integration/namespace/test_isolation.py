"""An operation on one namespace changes nothing of another.

hypothesis chooses random operations on one namespace. Two other namespaces are on the same daemon. After each
operation, all that can be seen of the two is compared with the state before, and our own namespace with a model.

Core: 60 operations, always the same, about 15 s. Full: 1,000 operations on each version. A longer run:

    NODEOPS_ISOLATION_OPERATIONS=10000 scripts/test --full tests/integration/namespace/test_isolation.py -s -k 7.0
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterator, NamedTuple, Optional, Tuple, Union

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from integration.namespace.isolation_model import BAD_RELEASES, CLUSTER, FORK, GOOD_RELEASES, UP, Call, Definition
from integration.namespace.isolation_world import VARIABLES, World
from support import modules, processes
from support.pm2 import VERSIONS, Pm2Home

OPERATIONS = int(os.environ.get("NODEOPS_ISOLATION_OPERATIONS", "1000"))
"""Per version of PM2, shared by the parts of its run."""
PARTS = (1, 2)
CORE_OPERATIONS = 60
SEED = int(os.environ.get("NODEOPS_ISOLATION_SEED", "20261122"))
SHRINK = os.environ.get("NODEOPS_ISOLATION_SHRINK", "1") == "1"
"""Whether hypothesis looks for a shorter sequence if one fails, which takes up to 5 minutes."""
STEPS = 20
"""Operations of one example: few enough to read if it fails."""
SECONDS_PER_OPERATION = 1.5
"""An average that even a busy machine does not reach. Longer tests are stopped."""

NAMES = ("api", "worker", "jobs")
FIELDS = {
    "instances": ("instances",),
    "scale": ("instances",),
    "release": ("release",),
    "env": ("env",),
    "variables": ("env",),
    "logs": ("merge_logs", "own_log", "dated"),
    "args": ("args",),
    "mode": ("mode", "script"),
}
"""The kinds of edits; frequent ones are here twice."""
KINDS = (
    *(f"{state} done" for state in (*UP, "stopped", "absent")),
    *(f"{state} refused" for state in (*UP, "stopped", "absent")),
    *(f"{state} undone" for state in UP),
    *("auto", "replace", "restart"),
    *("check", "pm2_save", "pm2_save check", "pm2_info"),
    *(f"disturbed by {kind}" for kind in ("kill", "stop", "delete")),
)
"""The operations that must have occurred in a run."""

strategies = st.sampled_from(("auto", "auto", "replace", "restart"))
saves = st.sampled_from((True, True, False))
name_lists = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
name_limits = st.none() | name_lists
environments = st.dictionaries(
    st.sampled_from(VARIABLES), st.sampled_from(("1", "2", "", "two words = ü")), max_size=3
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def definitions(draw: st.DrawFn, name: str) -> Definition:
    """A good release of an app, with every property that can differ."""
    mode = draw(st.sampled_from((CLUSTER, CLUSTER, FORK) if name == "api" else (FORK, FORK, FORK, FORK, CLUSTER)))
    script = "app.js" if mode == CLUSTER else draw(st.sampled_from(("idle.sh", "idle.sh", "app.js")))
    return Definition(
        name,
        mode,
        draw(st.integers(1, 3 if script == "idle.sh" else 2)),
        draw(st.sampled_from(GOOD_RELEASES)),
        script,
        draw(environments),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(((), ("--fast",), ("two words", "ü")))),
    )


any_definition = st.sampled_from(NAMES).flatmap(definitions)


@st.composite
def bad(draw: st.DrawFn, name: str) -> Definition:
    """A release that cannot pass its checks. Only the api, as a cluster, has a port to be silent or unhealthy on."""
    app = draw(definitions(name))
    if name != "api" or app.mode != CLUSTER:
        return app._replace(release=draw(st.sampled_from(("crashes", "crashes", "missing"))))
    return app._replace(release=draw(st.sampled_from(BAD_RELEASES)))


@st.composite
def deployments(draw: st.DrawFn) -> Call:
    """Some apps with new definitions. The call may be limited to some of them, or may remove the others."""
    apps = tuple(draw(definitions(name)) for name in draw(name_lists))
    prune = draw(st.sampled_from((False, False, True)))
    names = draw(st.sampled_from((None, None, tuple(app.name for app in apps[:1]), ("api",))))
    return Call(
        state=draw(st.sampled_from(("started", "started", "started", "restarted", "reloaded"))),
        apps=apps,
        names=names if not prune or draw(st.sampled_from((False, False, True))) else None,
        strategy=draw(strategies),
        prune=prune,
        save=draw(saves),
        checks=draw(st.booleans()),
    )


@st.composite
def bad_deployments(draw: st.DrawFn) -> Call:
    """Deployments in which one of the apps is bad."""
    call = draw(deployments())
    apps = list(call.apps or ())
    number = draw(st.integers(0, len(apps) - 1))
    apps[number] = draw(bad(apps[number].name))
    state = draw(st.sampled_from(UP))
    return call._replace(state=state, apps=tuple(apps), names=None, checks=False)


@st.composite
def downs(draw: st.DrawFn) -> Call:
    """Calls that stop or remove all apps, some by name, or some by definition."""
    given = draw(st.sampled_from(("all", "names", "names", "names", "apps")))
    return Call(
        state=draw(st.sampled_from(("stopped", "absent"))),
        names=draw(name_lists) if given == "names" else None,
        apps=tuple(Definition(name) for name in draw(name_lists)) if given == "apps" else None,
        save=draw(saves),
    )


@st.composite
def renewals(draw: st.DrawFn) -> Call:
    """Calls that restart or reload all or some apps as they are."""
    state = draw(st.sampled_from(("restarted", "reloaded")))
    return Call(state=state, names=draw(name_limits), strategy=draw(strategies), save=draw(saves))


calls = st.one_of(deployments(), downs(), renewals())


def _limited(call: Call, limit: int) -> Call:
    """The call with a limit, above which it is refused."""
    return call._replace(max_affected=limit)


def _predicted(call: Call, limit: Optional[int]) -> Call:
    """The call in check mode, which changes nothing."""
    return call._replace(check_mode=True, max_affected=limit)


class Deploy(NamedTuple):
    """A call as given."""

    call: Call

    def do(self, world: World) -> None:
        world.do(self.call)


class Edit(NamedTuple):
    """The present definitions with one change of one app: a variable, the number of instances, the release, …"""

    field: str
    other: Definition
    strategy: str
    save: bool

    def do(self, world: World) -> None:
        live = _live(world)
        others = [app for app in live if app.name != self.other.name]
        mine = next((app for app in live if app.name == self.other.name), Definition(self.other.name))
        edited = mine._replace(**{name: getattr(self.other, name) for name in FIELDS[self.field]})
        world.do(Call(apps=(*others, edited), strategy=self.strategy, save=self.save, checks=True))


class Again(NamedTuple):
    """The present definitions again: what was disturbed is repaired, and nothing else is touched."""

    state: str
    save: bool

    def do(self, world: World) -> None:
        if _live(world):
            world.do(Call(state=self.state, apps=_live(world), prune=True, save=self.save))


class Save(NamedTuple):
    """pm2_save."""

    check_mode: bool

    def do(self, world: World) -> None:
        world.save(self.check_mode)


class Inform(NamedTuple):
    """pm2_info."""

    def do(self, world: World) -> None:
        world.inform()


class Disturb(NamedTuple):
    """Changes to our namespace without the collection."""

    kind: str
    number: int

    def do(self, world: World) -> None:
        world.disturb(self.kind, self.number)


Operation = Union[Deploy, Edit, Again, Save, Inform, Disturb]


def _live(world: World) -> Tuple[Definition, ...]:
    return tuple(app.definition for app in world.state.values())


WEIGHTED: Tuple[Tuple[int, st.SearchStrategy[Operation]], ...] = (
    (4, st.builds(Deploy, deployments())),
    (3, st.builds(Deploy, bad_deployments())),
    (6, st.builds(Edit, st.sampled_from(sorted(FIELDS)), any_definition, strategies, saves)),
    (2, st.builds(Again, st.sampled_from(("started", "started", "reloaded")), saves)),
    (3, st.builds(Deploy, downs())),
    (3, st.builds(Deploy, renewals())),
    (3, st.builds(Deploy, st.builds(_limited, calls, st.integers(0, 2)))),
    (3, st.builds(Deploy, st.builds(_predicted, calls | bad_deployments(), st.none() | st.integers(0, 4)))),
    (2, st.builds(Save, st.sampled_from((False, False, True)))),
    (1, st.builds(Inform)),
    (4, st.builds(Disturb, st.sampled_from(("kill", "stop", "delete")), st.integers(0, 5))),
)
operations = st.sampled_from([number for number, (weight, _strategy) in enumerate(WEIGHTED) for _time in range(weight)])


class OwnNamespace(RuleBasedStateMachine):
    """Operations on one namespace, which `world` does and compares.

    There is only one rule. With several, hypothesis would give each example only a few of them (swarm testing), and
    many examples would change nothing.
    """

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.begin()

    @rule(operation=operations.flatmap(lambda number: WEIGHTED[number][1]))
    def operate(self, operation: Operation) -> None:
        """One operation, then all is compared."""
        operation.do(self.world)

    def teardown(self) -> None:
        """There is still only one daemon."""
        self.world.end()


@pytest.fixture(
    params=[
        pytest.param((VERSIONS[-1], 0, CORE_OPERATIONS), id=f"{VERSIONS[-1]}-some", marks=pytest.mark.sample),
        *(
            pytest.param((version, part, OPERATIONS // len(PARTS)), id=f"{version}-part{part}", marks=pytest.mark.full)
            for version in VERSIONS
            for part in PARTS
        ),
    ]
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tuple[World, int, int]]:
    """A daemon of each version, the part of the run, and its operations. The daemon is ended afterwards."""
    version, part, operations = request.param
    world = World(version, tmp_path)
    yield world, part, operations
    world.pm2.kill()
    survivors = processes.end_all_of(tmp_path)
    assert not survivors, f"still running after SIGKILL: {survivors}"


@pytest.mark.timeout(600 + OPERATIONS / len(PARTS) * SECONDS_PER_OPERATION)
def test_no_operation_on_a_namespace_changes_anything_of_another(case: Tuple[World, int, int]) -> None:
    """The requested number of random operations: each kind occurs, and there is no violation."""
    world, part, wanted = case
    machine = type("OwnNamespace", (OwnNamespace,), {"world": world})
    try:
        for attempt in itertools.count():
            missing = wanted - world.count["operations"]
            if missing <= 0 or attempt == 3:
                break
            seed = SEED * 100 + part * 10 + attempt
            print(f"\nPM2 {world.pm2.version}, seed {seed}: {missing} operations")
            _run(machine, seed, -(-missing // STEPS))
    finally:
        print(f"PM2 {world.pm2.version}, part {part}: {world.count['violations']} violations in {world.report()}")
    assert world.count["operations"] >= wanted
    never = [kind for kind in KINDS if not world.count[kind]]
    assert not never or wanted < 500, f"these operations never occurred: {never}"


def _run(machine: type, seed: int, examples: int) -> None:
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if SHRINK else [])),
        report_multiple_bugs=False,
        print_blob=False,
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)


@pytest.fixture
def crash_loop(tmp_path: Path) -> Dict[str, Any]:
    """An app that always exits at once, and that PM2 always starts again."""
    script = tmp_path / "crash.sh"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    definition = {"name": "jobs", "script": str(script), "interpreter": "none", "cwd": str(tmp_path), "instances": 4}
    return {**definition, "max_restarts": 100000}


def test_a_crashing_app_does_not_come_back_after_it_was_removed(pm2: Pm2Home, crash_loop: Dict[str, Any]) -> None:
    """PM2 forgets a delete between the two steps of its restart, so the engine has to look again."""
    options = {"pm2_home": pm2.home, "pm2_executable": pm2.executable, "namespace": "shop"}
    pm2.cli("ping")
    for _time in range(6):
        ready = {"min_uptime": 1, "timeout": 5}
        result = modules.call("pm2_process", {**options, "apps": [crash_loop], "ready": ready})
        assert result["failed"], result
        assert result["rolled_back"], result
        time.sleep(0.1)
        left = [(item["pm_id"], item["pm2_env"]["status"]) for item in pm2.processes("shop")]
        assert not left, f"these came back: {left}"


def test_a_stopped_crash_loop_stays_stopped(pm2: Pm2Home, crash_loop: Dict[str, Any], tmp_path: Path) -> None:
    """The same with a stop of an app that `pm2` itself started."""
    path = tmp_path / "ecosystem.json"
    path.write_text(json.dumps([{**crash_loop, "namespace": "shop"}]))
    pm2.cli("start", str(path))
    options = {"pm2_home": pm2.home, "pm2_executable": pm2.executable, "namespace": "shop", "state": "stopped"}
    for _time in range(6):
        result = modules.call("pm2_process", options)
        assert not result["failed"], result
        time.sleep(0.1)
        found = [(item["pm2_env"]["status"], item["pid"]) for item in pm2.processes("shop")]
        assert found == [("stopped", 0)] * 4
        for item in pm2.processes("shop"):
            pm2.rpc("restartProcessId", {"id": item["pm_id"]})
        time.sleep(0.1)
