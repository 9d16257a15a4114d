"""Idempotence and drift of our model, on real processes.

A process is as defined, whatever PM2 has done to it since its start. A definition in which one key is changed differs
only in that key and in the keys that depend on it.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _schema
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process, differences, reasons
from model import definitions
from model.context import build, build_one, context_of, prepare, start_daemon
from support import tiers
from support.pm2 import VERSIONS, Pm2Home

Json = Dict[str, Any]

RESTARTED_BY_HAND: Dict[str, Set[str]] = {
    "instance-var": {"instance_var", "instance", "env.WORKER_NUMBER"},
    "timeouts": {"kill_retry_time"},
}
"""The keys that `pm2 restart <app>` changes: it sends defaults too (API.js:1590 _handleAttributeUpdate)."""


def settle(home: Pm2Home, timeout: float = 30.0) -> None:
    """Wait until no process is starting or stopping."""
    deadline = time.monotonic() + timeout
    while any(item["pm2_env"]["status"] in ("launching", "stopping", "waiting restart") for item in home.jlist()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def found(home: Pm2Home, apps: List[App]) -> Dict[str, Set[str]]:
    """The keys in which the live processes of each app differ; {} if all is as defined."""
    by_name = {(app.namespace, app.name): app for app in apps}
    items = home.jlist()
    assert len(items) == sum(app.instances for app in apps)
    keys: Dict[str, Set[str]] = {}
    for process in map(Process, items):
        for difference in differences(by_name[process.namespace, process.name], process):
            keys.setdefault(process.name, set()).add(difference.key)
    return keys


def some_of(given: List[Json], step: int) -> List[Json]:
    """Every `step`-th value, and the special ones."""
    return [app for number, app in enumerate(given) if number % step == 0 or app.get("name") in RESTARTED_BY_HAND]


@pytest.mark.parametrize("steps", tiers.sample((5, 5), (1, 3)))
def test_nothing_differs_after_any_operation_of_pm2(pm2: Pm2Home, tmp_path: Path, steps: Tuple[int, int]) -> None:
    """`steps`: of the values on the newest PM2, and on an older one. With all of them it takes a minute."""
    base = tmp_path / "apps"
    definitions.write_programs(base)
    env = context_of(pm2).base_env
    apps = build(pm2, some_of(definitions.inline(base), steps[pm2.version != VERSIONS[-1]]), base)
    apps += build(pm2, [{"name": "plain", "script": "idle.sh", "log_file": True}], base, "another")
    start_daemon(pm2)
    for app in apps:
        prepare(pm2, app)

    assert found(pm2, apps) == {}, "after the start"

    ids = [item["pm_id"] for item in pm2.jlist() if item["pm2_env"]["autostart"]]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda pm_id: pm2.rpc("restartProcessId", {"id": pm_id}), ids))
    settle(pm2)
    assert found(pm2, apps) == {}, "after restartProcessId"

    pm2.cli("save", env=env)
    pm2.kill()
    pm2.cli("resurrect", env=env, timeout=120)
    settle(pm2)
    assert found(pm2, apps) == {}, "after save, an end and resurrect"

    pm2.cli("restart", "all", "--parallel", "16", env=env, timeout=120)
    pm2.cli("restart", "plain", "--update-env", env=env, timeout=120)
    settle(pm2)
    assert found(pm2, apps) == RESTARTED_BY_HAND, "after pm2 restart"

    pm2.cli("stop", "all", "--parallel", "16", env=env, timeout=120)
    assert found(pm2, apps) == RESTARTED_BY_HAND, "after pm2 stop all"

    pm2.cli("save", env=env)
    pm2.kill()
    pm2.cli("resurrect", env=env, timeout=120)
    settle(pm2)
    assert found(pm2, apps) == RESTARTED_BY_HAND, "after save, an end and resurrect of stopped processes"


BASE: Json = {"name": "app", "script": "idle.sh", "env": {"KEPT": "1"}}

# A value for each key that BASE does not have, and the keys that differ if it is added or removed, if more than one.
CHANGES: Dict[str, Tuple[Json, List[str]]] = {
    "script": ({"script": "command.sh"}, ["script"]),
    "cwd": ({"cwd": "sub", "script": "{base}/idle.sh"}, ["cwd"]),
    "args": ({"args": ["a", "b"]}, ["args"]),
    "exec_interpreter": ({"interpreter": "sh"}, ["exec_interpreter"]),
    "node_args": ({"node_args": "-x"}, ["node_args"]),
    "out_file": ({"out_file": "logs/o.log"}, ["out_file"]),
    "error_file": ({"error_file": "/dev/null"}, ["error_file"]),
    "log_file": ({"log_file": True}, ["log_file"]),
    "pid_file": ({"pid_file": "my.pid"}, ["pid_file"]),
    "disable_logs": ({"disable_logs": True}, ["disable_logs"]),
    "log_type": ({"log_type": "json"}, ["log_type"]),
    "log_date_format": ({"log_date_format": "HH"}, ["log_date_format"]),
    "time": ({"time": True}, ["log_date_format"]),
    "env": ({"env": {"KEPT": "2", "NEW": "secret-value"}}, ["env.KEPT", "env.NEW"]),
    "max_memory_restart": ({"max_memory_restart": "300M"}, ["max_memory_restart"]),
    "restart_delay": ({"restart_delay": 500}, ["restart_delay"]),
    "exp_backoff_restart_delay": ({"exp_backoff_restart_delay": 500}, ["exp_backoff_restart_delay"]),
    "source_map_support": ({"source_map_support": True}, ["source_map_support"]),
    "disable_source_map_support": ({"disable_source_map_support": True}, ["disable_source_map_support"]),
    "wait_ready": ({"wait_ready": True}, ["wait_ready"]),
    "kill_timeout": ({"kill_timeout": 5000}, ["kill_timeout"]),
    "shutdown_with_message": ({"shutdown_with_message": True}, ["shutdown_with_message"]),
    "listen_timeout": ({"listen_timeout": 5000}, ["listen_timeout"]),
    "cron_restart": ({"cron_restart": "0 3 * * *"}, ["cron_restart"]),
    "merge_logs": ({"merge_logs": False}, ["merge_logs"]),
    "vizion": ({"vizion": False}, ["vizion"]),
    "autorestart": ({"autorestart": False}, ["autorestart"]),
    "stop_exit_codes": ({"stop_exit_codes": [1, 2]}, ["stop_exit_codes"]),
    "watch_delay": ({"watch_delay": 100}, ["watch_delay"]),
    "ignore_watch": ({"ignore_watch": ["a"]}, ["ignore_watch"]),
    "watch_options": ({"watch_options": {"usePolling": True}}, ["watch_options"]),
    "min_uptime": ({"min_uptime": "5s"}, ["min_uptime"]),
    "max_restarts": ({"max_restarts": 3}, ["max_restarts"]),
    "post_update": ({"post_update": ["x"]}, ["post_update"]),
    "trace": ({"trace": True}, ["trace"]),
    "v8": ({"v8": True}, ["v8"]),
    "event_loop_inspector": ({"event_loop_inspector": True}, ["event_loop_inspector"]),
    "deep_monitoring": ({"deep_monitoring": True}, ["deep_monitoring"]),
    "increment_var": ({"increment_var": "COUNT"}, ["env.COUNT", "increment_var"]),
    "instance_var": ({"instance_var": "NUMBER"}, ["instance_var"]),
    "pmx": ({"pmx": False}, ["pmx"]),
    "automation": ({"automation": False}, ["pmx"]),
    "treekill": ({"treekill": False}, ["treekill"]),
    "port": ({"port": 8123}, ["env.PORT", "port"]),
    "kill_retry_time": ({"kill_retry_time": 55}, ["kill_retry_time"]),
    "io": ({"io": {"conf": {"secret": "secret-value"}}}, ["io"]),
    "exec_mode": (
        {"script": "report.js", "exec_mode": "cluster"},
        ["exec_interpreter", "exec_mode", "merge_logs", "script"],
    ),
}
AS_ROOT: Dict[str, Tuple[Json, List[str]]] = {
    "uid": ({"uid": "nobody"}, ["env.HOME", "gid", "uid"]),
    "gid": ({"uid": "root", "gid": "nogroup"}, ["env.HOME", "gid"]),
}
APART = frozenset(("name", "namespace", "instances", "autostart", "watch", "execute_command"))
"""Keys that other tests have: the identity, the count, and keys that need another state than the table's."""
NO_EFFECT = frozenset(
    (
        "name_prefix",
        "filter_env",
        "install_url",
        "force",
        "append_env_to_name",
        "disable_trace",
        "username",
        "windowsHide",
        "write",
    )
)


def changes() -> Dict[str, Tuple[Json, List[str]]]:
    return {**CHANGES, **AS_ROOT} if os.getuid() == 0 else CHANGES


def test_every_key_of_the_schema_is_in_a_table() -> None:
    assert {*CHANGES, *AS_ROOT, *APART, *NO_EFFECT} == set(_schema.BY_NAME)


def defined(home: Pm2Home, base: Path, change: Json, name: str) -> App:
    """BASE with a change, not started: a process that is only listed has its complete configuration."""
    absolute = {"script": change["script"].format(base=base)} if "script" in change else {}
    return build_one(home, {**BASE, **change, **absolute, "name": name, "autostart": False}, base)


def test_each_key_differs_if_it_is_added_or_removed(pm2: Pm2Home, tmp_path: Path) -> None:
    base = tmp_path / "apps"
    definitions.write_programs(base)
    start_daemon(pm2)
    for key, (change, _keys) in changes().items():
        prepare(pm2, defined(pm2, base, change, f"with-{key}"))
        prepare(pm2, defined(pm2, base, {}, f"without-{key}"))
    live = {item["name"]: Process(item) for item in pm2.jlist()}

    came, went, said = {}, {}, ""
    for key, (change, _keys) in changes().items():
        coming = differences(defined(pm2, base, change, f"without-{key}"), live[f"without-{key}"])
        going = differences(defined(pm2, base, {}, f"with-{key}"), live[f"with-{key}"])
        came[key], went[key] = (sorted(each.key for each in different) for different in (coming, going))
        said += "".join(f"{each}\n" for different in (coming, going) for each in (*different, *reasons(different)))

    expected = {key: keys for key, (_change, keys) in changes().items()}
    assert came == expected
    assert went == expected
    assert "secret-value" not in said
    assert "env: added NEW" in said


def test_watch_and_autostart(pm2: Pm2Home, tmp_path: Path) -> None:
    """These two change with the state of a process, so each state is checked."""
    base = tmp_path / "apps"
    definitions.write_programs(base)
    start_daemon(pm2)
    watching = build_one(pm2, {**BASE, "watch": ["bin"]}, base)
    plain = build_one(pm2, BASE, base)
    prepare(pm2, watching)

    def keys(app: App) -> List[str]:
        return [difference.key for difference in differences(app, Process(pm2.jlist()[0]))]

    assert keys(watching) == []
    assert keys(plain) == ["watch"]
    pm2.rpc("stopWatch", "stopProcessId", 0)
    assert keys(watching) == ["watch"], "it runs and is not watched any more"
    pm2.rpc("stopProcessId", 0)
    assert keys(watching) == [], "a stopped process is never watched"
    assert keys(build_one(pm2, {**BASE, "autostart": False}, base)) == ["autostart"]
