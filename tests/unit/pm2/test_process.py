"""A live process as the daemon lists it, and its comparison with a definition.

tests/integration/pm2/test_differences.py does this with real processes.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App, build_apps
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Difference, Process, differences, reasons
from model.context import plain_context
from model.definitions import write_programs

Json = Dict[str, Any]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_programs(tmp_path)
    return tmp_path


def app_of(base: Path, namespace: str = "default", **definition: Any) -> App:
    complete = {"name": "app", "script": "report.js", **definition}
    return build_apps([complete], plain_context(base), namespace, str(base))[0]


def item_of(app: App, /, pm_id: int = 3, slot: int = 0, **changes: Any) -> Json:
    """What the daemon makes of a payload (God.js:175 executeApp), with changes in pm2_env; None removes a key."""
    payload = app.payload(slot, {"hash": "x"})
    env: Json = {**payload, **payload["env"], "pm_id": pm_id, "status": "online", "unique_id": "u"}
    env["pm_pid_path"] = env["pm_pid_path"].replace(".pid", "-%d.pid" % pm_id)
    if not env.get("merge_logs"):
        for key in ("pm_out_log_path", "pm_err_log_path"):
            env[key] = re.sub("-[0-9]+[.]log$|[.]log$", "-%d.log" % pm_id, env[key])
    env.update(changes)
    env = {key: value for key, value in env.items() if value is not None}
    return {"pm_id": pm_id, "name": env["name"], "pid": os.getpid(), "pm2_env": env, "monit": {}}


def keys(defined: App, **changes: Any) -> List[str]:
    return [difference.key for difference in differences(defined, Process(item_of(defined, **changes)))]


def test_the_properties_of_an_item(base: Path) -> None:
    app = app_of(base, "prod", instances=2, env={"A": 1})

    process = Process(item_of(app, slot=1, restart_time=4, pm_uptime=1700000000000, exit_code=1))

    assert (process.pm_id, process.name, process.namespace, process.unique_id) == (3, "app", "prod", "u")
    assert (process.pid, process.status, process.restart_time, process.pm_uptime) == (
        os.getpid(),
        "online",
        4,
        1700000000000,
    )
    assert (process.exec_mode, process.instance, process.instance_var) == ("cluster_mode", 1, "NODE_APP_INSTANCE")
    assert (process.marker, process.is_module, process.exit_code) == ({"hash": "x"}, False, 1)
    assert process.out_log == str(base / "pm2/logs/app@prod-out-3.log")
    assert (process.cwd, process.script) == (str(base), str(base / "report.js"))
    assert process.env == app.env
    assert process.running


def test_an_item_with_almost_no_keys() -> None:
    """Such as a module of PM2, or the rest of a process. No missing key may be an error."""
    process = Process({"pm_id": 0, "name": "x", "pm2_env": {"pmx_module": True, "pm_id": 0}})

    assert (process.namespace, process.pid, process.instance, process.marker) == ("default", 0, None, None)
    assert process.is_module
    assert not process.running
    assert process.env == {}


def test_running_needs_a_live_process(base: Path) -> None:
    app = app_of(base)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    assert not Process({**item_of(app), "pid": ended.pid}).running
    assert not Process({**item_of(app), "pid": None}).running
    assert not Process(item_of(app, status="stopped")).running


def test_env_is_that_of_the_process_not_the_latest_given(base: Path) -> None:
    """A restart from a file replaces `env` and keeps the old top level, which is what the process gets."""
    app = app_of(base, env={"A": "1", "B": "2"})

    assert Process(item_of(app, env={})).env == app.env
    assert keys(app, env={}) == []
    assert keys(app, env={**app.env, "LATER": "x"}) == []
    assert keys(app, B=None) == ["env.B"]


def test_numbers_of_pm2_equal_our_text(base: Path) -> None:
    app = app_of(base, env={"PORT": 8080, "YES": True, "PART": 0.1}, kill_timeout=3000)

    assert keys(app, PORT=8080, YES=True, PART=0.1, kill_timeout="3000") == []


def test_variables_of_the_pm2_command_do_not_count(base: Path) -> None:
    leaked = {"PM2_USAGE": "CLI", "PM2_JSON_PROCESSING": "true", "PM2_DISCRETE_MODE": "true", "app": "{}"}

    assert keys(app_of(base), **leaked) == []
    assert keys(app_of(base), PM2_SERVE_PORT="1", SSH_CLIENT="x", app="{1}") == [
        "env.PM2_SERVE_PORT",
        "env.SSH_CLIENT",
        "env.app",
    ]


@pytest.mark.parametrize("slot", [None, -1, 2, "x", True, 0.5])
def test_an_instance_the_app_does_not_have(base: Path, slot: object) -> None:
    app = app_of(base, instances=2)

    assert keys(app, NODE_APP_INSTANCE=slot) == ["instance"]
    assert keys(app, NODE_APP_INSTANCE="1") == []


def test_increment_var_belongs_to_the_instance(base: Path) -> None:
    app = app_of(base, instances=3, increment_var="COUNT", env={"COUNT": "10"})

    assert keys(app, slot=2) == []
    assert keys(app, slot=2, COUNT=12) == []
    assert keys(app, slot=2, COUNT=10) == ["env.COUNT"]


def test_an_interpreter_may_have_two_names(base: Path) -> None:
    """PM2 5 says "node", 6 and 7 give its path. An update of the daemon does not change its apps."""
    app = app_of(base, script="extensionless")
    (base / "other").write_text("#!/bin/sh\n")
    (base / "other").chmod(0o755)

    assert app.config["exec_interpreter"] == plain_context(base).node
    assert keys(app, exec_interpreter="node") == []
    assert keys(app, exec_interpreter=str(base / "other")) == ["exec_interpreter"]
    assert keys(app, exec_interpreter="gone") == ["exec_interpreter"]


def test_missing_keys_mean_the_default(base: Path) -> None:
    """Keys are missing after a resurrect, and in the lists of older versions."""
    gone = [
        "vizion",
        "autorestart",
        "treekill",
        "windowsHide",
        "kill_retry_time",
        "automation",
        "pmx",
        "username",
        "args",
    ]

    assert keys(app_of(base), node_args=None, instance_var=None, **dict.fromkeys(gone)) == []


def test_log_files(base: Path) -> None:
    separate = app_of(base, merge_logs=False)
    merged = app_of(base, merge_logs=True)
    named = app_of(base, merge_logs=False, out_file="a-1.log", error_file="e.txt")
    nowhere = app_of(base, merge_logs=False, out_file="NULL", error_file="NULL")
    out = separate.config["pm_out_log_path"]

    assert keys(separate) == keys(merged) == keys(named) == keys(nowhere) == []
    assert keys(separate, pm_out_log_path=out.replace(".log", "-99.log")) == []
    assert keys(separate, pm_out_log_path=out, pm_err_log_path=out.replace("out", "error")) == ["merge_logs"]
    assert keys(merged, pm_out_log_path=out.replace(".log", "-3.log")) == ["merge_logs"]
    assert keys(separate, pm_out_log_path="/other-3.log") == ["out_file"]
    assert keys(named, pm_out_log_path=str(base / "a-77.log")) == []
    assert keys(separate, pm_log_path="/x.log") == ["log_file"]
    assert keys(separate, pm_pid_path="/x-3.pid") == ["pid_file"]
    assert keys(separate, merge_logs=True) == [], "pm2 restart <app> sets it, and the files stay"
    assert keys(nowhere, merge_logs=True) == []


def test_arguments_and_variables_are_named_without_values(base: Path) -> None:
    app = app_of(base, args=["--token=secret-1"], env={"A": "secret-2", "B": "secret-3"}, io={"key": "secret-4"})
    live = Process(item_of(app, args=["--token=secret-5"], A="secret-6", B=None, C="secret-7", io={"key": "secret-8"}))

    found = differences(app, live)

    assert sorted(found) == [
        Difference("args", "(set)", "(changed)"),
        Difference("env.A", "(set)", "(changed)"),
        Difference("env.B", None, "(set)"),
        Difference("env.C", "(set)", None),
        Difference("io", "(set)", "(changed)"),
    ]
    assert reasons(found) == ["args: changed", "io: changed", "env: added B", "env: changed A", "env: removed C"]


def test_reasons_are_sentences(base: Path) -> None:
    names = [Difference("env.V%d" % number, None, "(set)") for number in range(9)]
    found = [
        Difference("cwd", "/old", "/new"),
        Difference("max_memory_restart", None, 100),
        Difference("watch", ["a"], None),
        Difference("instance", None, "0 to 1"),
        Difference("node_args", "(set)", None),
    ]

    assert reasons([*found, *names]) == [
        "cwd: /old -> /new",
        "max_memory_restart: not set -> 100",
        'watch: ["a"] -> not set',
        "instance: its number is not known, the app has 0 to 1",
        "node_args: removed",
        "env: added V0, V1, V2, V3, V4, V5 and 3 more",
    ]
    assert reasons([]) == []
    assert len(reasons([Difference("cwd", "/" + "x" * 5000, "/new")])[0]) < 500
