"""The plan: which processes stay, start or go, in what order and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App, build_apps
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _plan
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import LiveApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from model.context import plain_context
from model.definitions import write_programs

Json = Dict[str, Any]
CLUSTER: Json = {"exec_mode": "cluster", "instances": 2}
NO_PROCESS = 2**22 + 1
"""Above the highest possible pid_max."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_programs(tmp_path)
    return tmp_path


def app_of(base: Path, **definition: Any) -> App:
    return build_apps([{"name": "app", "script": "report.js", **definition}], plain_context(base), "ours", str(base))[0]


def live(app: App, slot: int, pm_id: int | None = None, pid: int | None = None, **changes: Any) -> Process:
    """The processes of an app, as the daemon lists them."""
    number = slot if pm_id is None else pm_id
    payload = app.payload(slot, {})
    env: Json = {**payload, **payload["env"], "pm_id": number, "status": "online", "unique_id": f"u{number}"}
    env["pm_pid_path"] = env["pm_pid_path"].replace(".pid", f"-{number}.pid")
    if not env.get("merge_logs"):
        for key in ("pm_out_log_path", "pm_err_log_path"):
            env[key] = re.sub(r"\.log$", f"-{number}.log", env[key])
    env.update(changes)
    own = os.getpid() if pid is None else pid
    return Process({"pm_id": number, "name": env["name"], "pid": own, "pm2_env": env, "monit": {}})


def plan_of(app: Any, processes: List[Process], strategy: str = "auto", again: bool = False) -> _plan.AppPlan:
    (plan,) = _plan.bring_up([app], processes, strategy, again).apps
    return plan


def actions(plan: _plan.AppPlan) -> List[Tuple[str, Any, Any]]:
    return [(action["action"], action["pm_id"], action["instance"]) for action in plan.actions]


def test_all_is_started_if_nothing_runs(base: Path) -> None:
    plan = plan_of(app_of(base, **CLUSTER), [])
    assert actions(plan) == [("start", None, 0), ("start", None, 1)]
    assert {reason for action in plan.actions for reason in action["reasons"]} == {"not running"}
    assert plan.affected() == 2


def test_nothing_is_done_if_all_is_as_defined(base: Path) -> None:
    app = app_of(base, **CLUSTER)
    plan = plan_of(app, [live(app, 0), live(app, 1)])
    assert (plan.actions, plan.start, plan.retire, plan.affected()) == ([], [], [], 0)
    assert [process.pm_id for process in plan.keep] == [0, 1]


@pytest.mark.parametrize(
    ("mode", "strategy", "order", "verb"),
    [
        ("cluster", "auto", _plan.BESIDE, "replace"),
        ("cluster", "replace", _plan.BESIDE, "replace"),
        ("cluster", "restart", _plan.STOP_FIRST, "restart"),
        ("fork", "auto", _plan.STOP_FIRST, "restart"),
        ("fork", "replace", _plan.BESIDE, "replace"),
        ("fork", "restart", _plan.STOP_FIRST, "restart"),
    ],
)
def test_a_change_by_mode_and_strategy(base: Path, mode: str, strategy: str, order: str, verb: str) -> None:
    old = app_of(base, exec_mode=mode, env={"A": "1"})
    plan = plan_of(app_of(base, exec_mode=mode, env={"A": "2"}), [live(old, 0, pm_id=7)], strategy)
    assert plan.order == order
    assert actions(plan) == [(verb, 7, 0)]
    assert plan.affected() == 1, "a replaced process counts once"
    assert "A" in plan.actions[0]["reasons"][0]


@pytest.mark.parametrize(("before", "after"), [("fork", "cluster"), ("cluster", "fork")])
def test_a_change_of_mode_cannot_share_the_port(base: Path, before: str, after: str) -> None:
    old = app_of(base, exec_mode=before)
    assert plan_of(app_of(base, exec_mode=after), [live(old, 0)]).order == _plan.STOP_FIRST


@pytest.mark.parametrize("count", [1, 3])
def test_scaling_touches_only_surplus_and_missing_instances(base: Path, count: int) -> None:
    old = app_of(base, exec_mode="cluster", instances=2)
    new = app_of(base, exec_mode="cluster", instances=count)
    plan = plan_of(new, [live(old, 0), live(old, 1)])
    assert actions(plan) == ([("delete", 1, 1)] if count == 1 else [("start", None, 2)])
    assert plan.actions[0]["reasons"] == [f"instances: 2 running, {count} defined"]
    assert plan.affected() == 1


def test_of_two_processes_with_one_number_one_stays(base: Path) -> None:
    app = app_of(base, **CLUSTER)
    plan = plan_of(app, [live(app, 0), live(app, 0, pm_id=5), live(app, 1)])
    assert [process.pm_id for process in plan.keep] == [0, 1]
    assert actions(plan) == [("delete", 5, 0)]


def test_only_the_process_that_differs_is_replaced(base: Path) -> None:
    app = app_of(base, **CLUSTER, env={"A": "1"})
    plan = plan_of(app, [live(app, 0), live(app, 1, A="9")])
    assert actions(plan) == [("replace", 1, 1)]
    assert plan.start == [1]


@pytest.mark.parametrize(
    ("status", "pid", "reason"),
    [
        ("stopped", 0, "status: stopped"),
        ("errored", 0, "status: errored"),
        ("waiting restart", 0, "status: waiting restart"),
        ("online", NO_PROCESS, "status: online without a live process"),
    ],
)
def test_a_process_that_does_not_run_is_started_anew(base: Path, status: str, pid: int, reason: str) -> None:
    app = app_of(base)
    plan = plan_of(app, [live(app, 0, pm_id=4, pid=pid, status=status)])
    assert [process.pm_id for process in plan.retire] == [4]
    assert plan.start == [0]
    assert plan.actions[0]["reasons"] == [reason]
    resting = status in ("stopped", "errored")
    assert plan.actions[0]["action"] == ("start" if resting else "restart")
    assert plan.order == (_plan.BESIDE if resting else _plan.STOP_FIRST), "a process that may come back holds its port"


@pytest.mark.parametrize(
    ("definition", "kept"),
    [
        ({"autostart": False}, True),
        ({"cron_restart": "0 3 * * *", "autorestart": False}, True),
        ({"cron_restart": "0 3 * * *"}, False),
        ({"autorestart": False}, False),
    ],
)
def test_a_process_that_is_stopped_as_defined_is_left(base: Path, definition: Json, kept: bool) -> None:
    app = app_of(base, **definition)
    plan = plan_of(app, [live(app, 0, pid=0, status="stopped")])
    assert (plan.actions == []) is kept


def test_reloaded_renews_processes_that_are_as_defined(base: Path) -> None:
    app = app_of(base, **CLUSTER)
    plan = plan_of(app, [live(app, 0), live(app, 1)], again=True)
    assert actions(plan) == [("replace", 0, 0), ("replace", 1, 1)]
    assert all(action["reasons"] == ["asked for"] for action in plan.actions)


def test_an_app_that_is_not_defined_is_renewed_as_it_is(base: Path) -> None:
    app = app_of(base, **CLUSTER)
    processes = [live(app, 0), live(app, 1)]
    plan = plan_of(LiveApp("app", processes), processes, again=True)
    assert actions(plan) == [("replace", 0, 0), ("replace", 1, 1)]
    assert plan_of(LiveApp("app", processes), processes).actions == []


def test_stopping_leaves_stopped_processes(base: Path) -> None:
    app = app_of(base, **CLUSTER)
    plan = _plan.stop([live(app, 0), live(app, 1, pid=0, status="stopped")])
    assert [action["pm_id"] for action in plan.actions] == [0]
    assert plan.affected == 1


@pytest.mark.parametrize(("status", "pid"), [("waiting restart", 0), ("errored", 0), ("stopped", NO_PROCESS)])
def test_stopping_stops_a_crash_loop(base: Path, status: str, pid: int) -> None:
    """Only "stopped" without a pid is final. Between two starts a process is "stopped" with its former pid."""
    app = app_of(base)
    assert len(_plan.stop([live(app, 0, pid=pid, status=status)]).actions) == 1


def test_removing_takes_all_of_them(base: Path) -> None:
    app, other = app_of(base, **CLUSTER), app_of(base, name="other")
    plan = _plan.remove([live(app, 0), live(app, 1, pid=0, status="stopped"), live(other, 0, pm_id=9)], "not defined")
    assert [(action["action"], action["pm_id"], action["reasons"]) for action in plan.actions] == [
        ("delete", 0, ["not defined"]),
        ("delete", 1, ["not defined"]),
        ("delete", 9, ["not defined"]),
    ]
    assert plan.affected == 3


def test_affected_counts_over_all_apps(base: Path) -> None:
    app, other = app_of(base, **CLUSTER), app_of(base, name="other")
    up = _plan.bring_up([app], [], "auto", False)
    assert _plan.remove_undefined(up, [live(other, 0)], "auto").affected == 3


@pytest.mark.parametrize(
    ("old", "new", "strategy", "ending"),
    [
        ({}, {}, "auto", ["old"]),  # it may be the same app under another name, on the same port
        ({}, {}, "replace", []),
        ({}, {}, "restart", ["old"]),
        (CLUSTER, CLUSTER, "auto", []),
        ({}, CLUSTER, "auto", ["old"]),
        (CLUSTER, {}, "auto", ["old"]),
    ],
)
def test_a_new_app_waits_for_those_that_are_removed(
    base: Path, old: Json, new: Json, strategy: str, ending: List[str]
) -> None:
    kept, other = app_of(base, name="kept"), live(app_of(base, name="old", **old), 0, pm_id=9)
    up = _plan.bring_up([kept, app_of(base, name="new", **new)], [live(kept, 0)], strategy, False)
    plan = _plan.remove_undefined(up, [other], strategy)
    steps = [([p.name for p in step.stop], [app.name for app in step.start]) for step in plan.stop_then_start]
    assert steps == ([(ending, ["new"])] if ending else [])
    assert [action["action"] for action in plan.actions] == ["start"] * new.get("instances", 1) + ["delete"]


def test_a_renamed_cluster_app_is_not_stopped_for_a_new_worker(base: Path) -> None:
    old = [live(app_of(base, name="old", **CLUSTER), 0), live(app_of(base, name="job"), 0, pm_id=9)]
    up = _plan.bring_up([app_of(base, name="api", **CLUSTER), app_of(base, name="worker")], [], "auto", False)
    (step,) = _plan.remove_undefined(up, old, "auto").stop_then_start
    assert [process.name for process in step.stop] == ["job"]


def test_no_app_waits_for_one_that_does_not_run(base: Path) -> None:
    old = live(app_of(base, name="old"), 0, pid=0, status="stopped")
    up = _plan.bring_up([app_of(base, name="new")], [], "auto", False)
    assert _plan.remove_undefined(up, [old], "auto").stop_then_start == []


def test_no_reason_shows_a_value(base: Path) -> None:
    old, new = app_of(base, env={"TOKEN": "hunter2-old"}), app_of(base, env={"TOKEN": "hunter2-new"})
    assert "hunter2" not in str(plan_of(new, [live(old, 0)]).actions)
