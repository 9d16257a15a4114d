"""From definitions to payloads, without PM2.

tests/integration compares with PM2: test_parity*.py and test_bad_input.py.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import (
    App,
    Context,
    DefinitionError,
    app_name,
    build_apps,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process, differences
from model.context import plain_context
from model.definitions import write_programs

Json = Dict[str, Any]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_programs(tmp_path)
    return tmp_path


def build(base: Path, definition: Json, namespace: str = "default", **context: Any) -> App:
    complete = {"name": "app", "script": "report.js", **definition}
    return build_apps([complete], plain_context(base, **context), namespace, str(base))[0]


def problems(base: Path, *given: Any, **context: Any) -> List[str]:
    """What is wrong with definitions, as "key: text"."""
    with pytest.raises(DefinitionError) as caught:
        build_apps(list(given), plain_context(base, **context), "default", str(base))
    return ["%s: %s" % (problem["key"], problem["text"]) for problem in caught.value.details["problems"]]


def test_the_payload_is_complete(base: Path) -> None:
    """Without one of these the daemon dies, or takes the value of an earlier app (facts: prepare)."""
    payload = build(base, {"args": "a b"}).payload(3, {"hash": "x"})

    assert payload["name"] == "app"
    assert payload["namespace"] == "default"
    assert payload["args"] == ["a", "b"]
    assert payload["node_args"] == []
    assert payload["exec_mode"] == "fork_mode"
    assert payload["pm_exec_path"] == str(base / "report.js")
    assert payload["pm_cwd"] == str(base)
    assert payload["pm_pid_path"] == str(base / "pm2/pids/app.pid")
    assert payload["pm_out_log_path"] == str(base / "pm2/logs/app-out.log")
    assert payload["pm_err_log_path"] == str(base / "pm2/logs/app-error.log")
    assert payload["NODE_APP_INSTANCE"] == 3
    assert payload["nodeops"] == {"hash": "x"}
    assert payload["username"] == "ann"
    assert payload["vizion"] is payload["autostart"] is payload["autorestart"] is True
    assert payload["merge_logs"] is True
    assert payload["env"] == plain_context(base).base_env
    assert not {"instances", "script", "pm_id", "status", "out_file", "unique_id"} & payload.keys()
    json.dumps(payload, allow_nan=False)


def test_payloads_share_nothing(base: Path) -> None:
    app = build(base, {})

    app.payload(0, {})["env"]["A"] = "x"

    assert "A" not in app.env
    assert "A" not in app.payload(1, {})["env"]


def test_env_of_other_environments_is_left_out(base: Path) -> None:
    payload = build(base, {"env_production": {"SECRET": "x"}}).payload(0, {})

    assert not [key for key in payload if key.startswith("env_")]
    assert "SECRET" not in json.dumps(payload)


@pytest.mark.parametrize(
    ("instances", "cpus", "expected"),
    [(None, 4, 1), (1, 4, 1), (3, 4, 3), (0, 4, 4), ("max", 4, 4), (-1, 4, 3), (-1, 1, 1), (-4, 4, 1), ("2", 4, 2)],
)
def test_instances(base: Path, instances: object, cpus: int, expected: int) -> None:
    assert build(base, {"instances": instances}, cpus=cpus).instances == expected


def test_all_but_more_cpus_than_there_are(base: Path) -> None:
    assert problems(base, {"script": "report.js", "instances": -5}, cpus=4) == [
        "instances: is -5, but this host has 4 CPUs"
    ]


def test_increment_var_counts_from_its_value(base: Path) -> None:
    app = build(base, {"increment_var": "COUNT", "env": {"COUNT": "40"}, "instances": 2})

    assert [app.payload(slot, {})["env"]["COUNT"] for slot in (0, 1)] == ["40", "41"]
    assert build(base, {"increment_var": "COUNT"}).payload(1, {})["env"]["COUNT"] == "1"
    assert build(base, {"increment_var": "C", "env": {"C": "x"}}).payload(1, {})["env"]["C"] == "1"


def test_a_namespace_has_logs_of_its_own(base: Path) -> None:
    """No two of these share a file: app b.c of namespace a, app c of namespace a.b, and b@a in any namespace."""
    pairs = [("default", "c"), ("a", "c"), ("a.b", "c"), ("a", "b.c"), ("default", "c@a"), ("default", "a.c")]

    found = [build(base, {"name": name}, namespace).config["pm_out_log_path"] for namespace, name in pairs]

    assert len(set(found)) == len(found)
    assert str(base / "pm2/logs/c@a-out.log") in found


def test_log_directories(base: Path) -> None:
    app = build(base, {"out_file": "logs/deep/o.log", "error_file": "/dev/null", "log_file": "~/all.log"})

    assert app.log_dirs == sorted([str(base), str(base / "logs/deep"), str(base / "pm2/pids")])


def test_long_names_do_not_fit_a_file(base: Path) -> None:
    long = {"name": "n" * 200, "script": "report.js"}

    with pytest.raises(DefinitionError, match="too long for the name of a log file"):
        build_apps([long], plain_context(base), "s" * 100, str(base))
    build_apps([{**long, "out_file": "o.log", "error_file": "e.log"}], plain_context(base), "s" * 100, str(base))


def test_a_link_as_cwd_is_kept(base: Path) -> None:
    """A `current` link may be moved later, and PM2 follows it at each restart."""
    app = build(base, {"cwd": "current"})

    assert app.config["pm_cwd"] == str(base / "current")
    assert app.config["pm_exec_path"] == str(base / "current/report.js")


def test_without_a_base_directory(base: Path) -> None:
    def config(definition: Json) -> Json:
        return build_apps([{"name": "app", **definition}], plain_context(base), "default", None)[0].config

    assert config({"script": str(base / "sub/report.js")})["pm_cwd"] == str(base / "sub")
    assert config({"script": "report.js", "cwd": str(base)})["pm_exec_path"] == str(base / "report.js")
    for definition in ({"script": "report.js"}, {"script": "sleep 1"}, {"script": str(base / "idle"), "cwd": "sub"}):
        with pytest.raises(DefinitionError, match="cwd"):
            config(definition)


def test_interpreters_by_version(base: Path) -> None:
    node = plain_context(base).node

    assert build(base, {"script": "extensionless"}, pm2_version=(5, 4, 3)).config["exec_interpreter"] == "node"
    assert build(base, {"script": "extensionless"}, pm2_version=(6, 0, 1)).config["exec_interpreter"] == node
    assert build(base, {"script": "idle.sh"}).config["exec_interpreter"] == "bash"
    assert build(base, {"script": "/bin/sleep"}).config["exec_interpreter"] == "none"
    maps = [build(base, {"script": "mapped.js"}, pm2_version=(n, 0, 0)).config for n in (5, 6, 7)]
    assert [config.get("source_map_support") for config in maps] == [True, True, None]


@pytest.mark.parametrize(
    ("version", "output", "expected"),
    [
        ((5, 4, 3), "v24.0.0", None),
        ((7, 0, 4), "v24.0.0", ("node", [])),
        ((7, 0, 4), "v22.18.0", ("node", [])),
        ((7, 0, 4), "v22.6.0", ("node", ["--experimental-strip-types"])),
        ((7, 0, 4), "v23.0.0", ("node", ["--experimental-strip-types"])),
        ((7, 0, 4), "v20.1.0", None),
        ((7, 0, 4), "nonsense", None),
    ],
)
def test_typescript(base: Path, version: Any, output: str, expected: object) -> None:
    """7.0 runs it on node if that node can; older versions need bun."""
    write_tool(base / "tools/node", "echo %s" % output)
    (base / "app.ts").write_text("")
    context: Json = {"pm2_version": version, "base_env": {**plain_context(base).base_env, "PATH": str(base / "tools")}}
    if expected is None:
        assert problems(base, {"script": "app.ts"}, **context)
    else:
        config = build(base, {"script": "app.ts"}, **context).config
        assert (config["exec_interpreter"], config["node_args"]) == expected


def write_tool(path: Path, command: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n%s\n" % command)
    path.chmod(0o755)


def test_a_python_script_without_a_python(base: Path) -> None:
    write_tool(base / "tools/python3", "true")
    path = {"PATH": str(base / "tools")}

    app = build(base, {"script": "idle.py"}, base_env={**plain_context(base).base_env, **path})

    assert app.config["exec_interpreter"] == "python3"
    assert app.env["PYTHONUNBUFFERED"] == "1"


def test_a_node_that_is_not_in_path(base: Path) -> None:
    app = build(base, {"env": {"PATH": "/nowhere"}})

    assert app.config["exec_interpreter"] == plain_context(base).node


def test_the_path_of_the_app_finds_its_interpreter(base: Path) -> None:
    """The daemon's spawn looks there for the interpreter."""
    write_tool(base / "tools/mine", "true")

    assert build(base, {"interpreter": "mine", "env": {"PATH": str(base / "tools")}})
    assert problems(base, {"script": "report.js", "interpreter": "mine"})


def test_cluster_only_on_the_node_of_the_daemon(base: Path) -> None:
    node = plain_context(base).node
    write_tool(base / "tools/node", "true")
    os.symlink(node, base / "link-node")

    assert build(base, {"exec_mode": "cluster", "interpreter": str(base / "link-node")}).exec_mode == "cluster_mode"
    assert problems(base, {"script": "report.js", "exec_mode": "cluster", "interpreter": str(base / "tools/node")})
    assert problems(base, {"script": "report.js", "instances": 2, "interpreter": str(base / "tools/node")})
    assert build(base, {"instances": 2, "interpreter": str(base / "tools/node"), "exec_mode": "fork"}).instances == 2


@pytest.mark.parametrize("key", ["uid", "gid", "user"])
def test_other_users_only_as_root(base: Path, key: str) -> None:
    (problem,) = problems(base, {"script": "report.js", key: "root"})

    assert problem.startswith(key + ": can be used only when PM2 runs as root")


def test_other_users_as_root(base: Path) -> None:
    app = build(base, {"uid": "root", "env": {"HOME": "/mine"}}, uid=0)
    assert (app.config["uid"], app.config["gid"], app.env["HOME"]) == (0, 0, "/root")
    assert build(base, {"user": "0", "gid": "daemon"}, uid=0).config["gid"] == 1
    assert problems(base, {"script": "report.js", "uid": "root", "gid": "no-such-group"}, uid=0) == [
        "gid: there is no group no-such-group"
    ]
    assert problems(base, {"script": "report.js", "uid": 10**12}, uid=0) == ["uid: there is no user 1000000000000"]


def test_a_pid_file_of_pm2_is_accepted(base: Path) -> None:
    (base / "old.pid").write_text("123\n")

    assert build(base, {"pid_file": "old.pid"}).config["pm_pid_path"] == str(base / "old.pid")


def test_what_env_name_gives_comes_last(base: Path) -> None:
    """env_<name> wins over the PORT of port (API.js:1146), and that wins over the PORT of env."""
    definition = {"name": "app", "script": "report.js", "port": 80, "env": {"PORT": 1}, "env_test": {"PORT": 2}}

    (plain,) = build_apps(_ecosystem.merge_env([definition], None), plain_context(base), "default", str(base))
    (test,) = build_apps(_ecosystem.merge_env([definition], "test"), plain_context(base), "default", str(base))

    assert (plain.env["PORT"], test.env["PORT"]) == ("80", "2")


def test_warnings(base: Path) -> None:
    app = build(base, {"name_prefix": "x", "force": True, "write": False, "max_restarts": 0})

    assert len(app.warnings) == 3
    assert not build(base, {}).warnings


def test_apps_that_share_a_log(base: Path) -> None:
    given = [{"name": name, "script": "idle.sh"} for name in ("a b", "a_b", "a-c")]

    apps = build_apps(given, plain_context(base), "default", str(base))

    assert [len(app.warnings) for app in apps] == [0, 2, 0]


def test_names() -> None:
    assert app_name({"name": "x", "script": "y.js"}) == "x"
    assert app_name({"script": "/srv/my.app.js"}) == "my.app"
    assert app_name({"cmd": "./run/"}) == "run"
    for bad in ({}, {"script": 5}, {"script": "all.js"}, {"name": 5}):
        with pytest.raises(DefinitionError):
            app_name(bad)


def test_namespaces() -> None:
    assert check_namespace("flyer-crawler-prod") == "flyer-crawler-prod"
    for bad in (None, 5, "", "all", "5", "a b"):
        with pytest.raises(DefinitionError, match="namespace"):
            check_namespace(bad)


def test_a_secret_is_never_in_a_message(base: Path) -> None:
    secret = "do-not-show-me"
    bad = {
        "script": "report.js",
        "env": {"name": secret, "A": secret + "\0", "B": [secret, float("nan")]},
        "args": [{"token": secret}],
        "io": {"constructor": secret},
        "node_args": {"x": secret},
    }

    found = problems(base, bad)

    assert len(found) == 6
    assert secret not in str(found)


def test_it_is_quick(base: Path) -> None:
    """Building ten apps and comparing 200 processes takes a few milliseconds; ten times that is allowed here."""
    given = [{"name": "a%d" % n, "script": "report.js", "env": {"V%d" % v: v for v in range(30)}} for n in range(10)]
    context = plain_context(base)

    started = time.process_time()
    apps = build_apps(given, context, "default", str(base))
    built = time.process_time()
    live = [Process(live_item(app, number)) for app in apps for number in range(20)]
    found = [differences(apps[number // 20], process) for number, process in enumerate(live)]
    compared = time.process_time()

    assert found == [[]] * 200
    assert built - started < 0.05
    assert compared - built < 0.1


def live_item(app: App, pm_id: int) -> Json:
    payload = app.payload(0, {})
    return {"name": app.name, "pm_id": pm_id, "pid": 1, "pm2_env": {**live_paths(payload, pm_id), **app.env}}


def live_paths(payload: Json, pm_id: int) -> Json:
    return {**payload, "pm_pid_path": payload["pm_pid_path"].replace(".pid", "-%d.pid" % pm_id), "status": "online"}


def test_the_context_of_the_contract() -> None:
    assert Context._fields[:8] == ("pm2_home", "pm2_version", "node", "user", "uid", "home", "cpus", "base_env")
