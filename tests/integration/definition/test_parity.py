"""Our payloads give the same result as PM2: each definition is started by `pm2 start` and by us, then compared.

Two PM2_HOMEs of one version have all definitions at once. The pm2 command fills one from ecosystem files, build_apps
and `prepare` fill the other. The test compares the daemon's pm2_env, and the environment, command line and working
directory of each process. Both commands get the same clean environment, so what leaks through PM2's is known.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process, differences
from model import definitions
from model.context import build, context_of, prepare, start_daemon
from support import processes
from support.pm2 import VERSIONS, Pm2Home

Key = Tuple[str, str, int]
"""Namespace, name, and the index among its processes."""

VOLATILE = frozenset(
    (
        "pm_id",
        "unique_id",
        "created_at",
        "pm_uptime",
        "axm_actions",
        "axm_monitor",
        "axm_options",
        "axm_dynamic",
        "node_version",
        "versioning",
        "vizion_running",
        "prev_restart_delay",
    )
)
"""Keys that differ between any two starts of the same app."""

JUSTIFIED = {
    "instances": "not sent: one prepare per instance, so that NODE_APP_INSTANCE counts per namespace (architecture 5)",
    "nodeops": "the mark by which a later run knows its processes",
    "km_link": "whether the caller is linked to the PM2.io service: nothing of the caller gets in; it is false anyway",
    "PWD": "leaks from the pm2 command, which sets it to each cwd in turn and so to that of another app",
}
"""Keys that may differ, and why. These may differ too:

- LEAKED: the variables that the pm2 command sets in its own environment and so gives to every app.
- env_*: PM2 sends every environment of the file to the daemon, which never reads them. They may be others' secrets.
- A variable with the app's own name and the value "{}": PM2's (empty) settings of `pm2 set` for it.
- stop_exit_codes: [] becomes null in PM2, and 5.x and 6.x write that into the environment. Ours leave it out.
- cwd (beside pm_cwd) is absolute in ours. PM2 keeps it as written, and reads it only for the git metadata.
- Our default log paths have the namespace if it is not "default". PM2's are the same for apps of one name.
"""

LEAKED = frozenset(
    (
        "PM2_USAGE",
        "PM2_JSON_PROCESSING",
        "PM2_DISCRETE_MODE",
        "PM2_INTERACTOR_PROCESSING",
        "PM2_SILENT",
        "PM2_PROGRAMMATIC",
    )
)

SETTLE = 120.0


class Twins(NamedTuple):
    """The two homes with their processes."""

    plain: Pm2Home
    ours: Pm2Home
    base: Path


@pytest.fixture(scope="module", params=VERSIONS)
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    directory = tmp_path_factory.mktemp("parity")
    base = directory / "apps"
    definitions.write_programs(base)
    found = Twins(Pm2Home(request.param, directory / "plain"), Pm2Home(request.param, directory / "ours"), base)
    try:
        files = definitions.write_files(base)
        start_plain(found, files)
        start_ours(found, files)
        settle(found)
        yield found
    finally:
        found.plain.kill()
        found.ours.kill()
        survivors = processes.end_all_of(directory)
        assert not survivors


def start_plain(twins: Twins, files: List[definitions.File]) -> None:
    env = context_of(twins.plain).base_env
    for file in files:
        options = ["--env", file.env_name] if file.env_name else []
        if file.namespace != "default":
            options += ["--namespace", file.namespace]
        twins.plain.cli("start", file.name, *options, env=env, cwd=str(twins.base), timeout=120)


def start_ours(twins: Twins, files: List[definitions.File]) -> None:
    start_daemon(twins.ours)
    for app in apps_of(twins.ours, twins.base, files):
        prepare(twins.ours, app)


def apps_of(home: Pm2Home, base: Path, files: List[definitions.File]) -> List[App]:
    apps: List[App] = []
    for file in files:
        if file.name == definitions.TABLE:
            apps += build(home, definitions.inline(base), base)
        else:
            loaded = _ecosystem.load(str(base / file.name), file.env_name, context_of(home))
            apps += build(home, loaded, base, file.namespace)
    return apps


def keyed(home: Pm2Home) -> Dict[Key, Dict[str, Any]]:
    counts: Dict[Tuple[str, str], int] = {}
    found: Dict[Key, Dict[str, Any]] = {}
    items = home.jlist()
    for item in sorted(items, key=lambda item: (item["pm2_env"].get("NODE_APP_INSTANCE", 0), item["pm_id"])):
        group = (item["pm2_env"]["namespace"], item["name"])
        number = counts[group] = counts.get(group, -1) + 1
        found[group[0], group[1], number] = item
    return found


def report_of(home: Pm2Home, item: Dict[str, Any]) -> Path:
    return Path(home.home, "reports", "%d.json" % item["pm_id"])


def is_node(item: Dict[str, Any]) -> bool:
    script = item["pm2_env"]["pm_exec_path"]
    return script.endswith((".js", "extensionless", "folder")) and item["pm2_env"]["autostart"]


def settle(twins: Twins) -> None:
    """Wait until every program runs: node programs have written their report, the others have replaced their shell."""
    deadline = time.monotonic() + SETTLE
    for home in (twins.plain, twins.ours):
        waiting = [item for item in home.jlist() if is_node(item)]
        while waiting:
            assert time.monotonic() < deadline, [item["name"] for item in waiting]
            waiting = [item for item in waiting if not report_of(home, item).exists()]
            time.sleep(0.05)
    for home in (twins.plain, twins.ours):
        while any(processes.cmdline(item["pid"]).endswith(".sh") for item in home.jlist() if item["pid"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def text(value: object) -> object:
    """A scalar as text. The top level of pm2_env has numbers if we send text, and the process sees text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return re.sub("e([+-])0+", "e\\1", str(value)) if isinstance(value, (int, float)) else value


def without_home(home: Pm2Home, item: Dict[str, Any], value: object) -> object:
    """A value without its PM2_HOME and pm_id, at every depth."""
    if isinstance(value, dict):
        return {key: without_home(home, item, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_home(home, item, inner) for inner in value]
    if not isinstance(value, str):
        return text(value)
    for ending in (".log", ".pid"):
        value = value.replace("-%d%s" % (item["pm_id"], ending), "-<id>%s" % ending)
    return value.replace(home.home, "<home>")


def is_justified(key: str, item: Dict[str, Any], value: object) -> bool:
    own_name = key == item["name"] and value == "{}"
    no_codes = key == "stop_exit_codes" and value == "null"
    return key in VOLATILE or key in JUSTIFIED or key in LEAKED or key.startswith("env_") or own_name or no_codes


def view(home: Pm2Home, item: Dict[str, Any], values: Dict[str, Any]) -> Dict[str, Any]:
    """The part of a mapping that is compared."""
    kept = {key: value for key, value in values.items() if value is not None and not is_justified(key, item, value)}
    return {key: without_home(home, item, value) for key, value in kept.items()}


def config_view(home: Pm2Home, base: Path, item: Dict[str, Any]) -> Dict[str, Any]:
    found = view(home, item, item["pm2_env"])
    found.pop("env")
    found.update(("env." + name, value) for name, value in view(home, item, item["pm2_env"]["env"]).items())
    if "cwd" in found:
        found["cwd"] = os.path.join(str(base), str(found["cwd"]))
    return found


def process_view(home: Pm2Home, item: Dict[str, Any]) -> Dict[str, Any]:
    pid = item["pid"]
    if not pid:
        return {}
    command = processes.read(pid, "cmdline").split(b"\0")
    found: Dict[str, Any] = {
        "cwd": os.readlink("/proc/%d/cwd" % pid),
        "cmdline": [without_home(home, item, os.fsdecode(word)) for word in command],
    }
    if is_node(item):
        report = json.loads(report_of(home, item).read_text())
        found["argv"], found["execArgv"] = report["argv"], report["execArgv"]
        environ = report["env"]
        # Node's own numbers for cluster workers, and for the pipe to the daemon.
        for name in ("NODE_UNIQUE_ID", "NODE_CHANNEL_FD"):
            environ.pop(name, None)
    else:
        environ = processes.environ(pid)
    # 5.x and 6.x write objects into a process's environment. Only the name is compared.
    found["environ"] = view(home, item, {name: value for name, value in environ.items() if "[object" not in value})
    return found


def differing(plain: Dict[str, Any], ours: Dict[str, Any]) -> Dict[str, Tuple[object, object]]:
    return {
        key: (plain.get(key), ours.get(key))
        for key in sorted(plain.keys() | ours.keys())
        if plain.get(key) != ours.get(key)
    }


def test_processes_that_plain_pm2_started_are_as_defined(twins: Twins) -> None:
    """The modules take over the same definition. Only leaked variables are to be changed."""
    files = definitions.write_files(twins.base)
    apps = {(app.namespace, app.name): app for app in apps_of(twins.plain, twins.base, files)}

    found = {}
    for key, item in keyed(twins.plain).items():
        different = differences(apps[key[:2]], Process(item))
        found[key] = {
            each.key: (each.before, each.after)
            for each in different
            if each.key != "env.PWD"
            and not (key[0] != "default" and each.key in ("out_file", "error_file", "log_file"))
        }
    assert told(found) == ""


def told(found: Dict[Key, Dict[str, Tuple[object, object]]]) -> str:
    """One line for each difference; "" if there is none."""
    lines = [
        f"{key[0]}/{key[1]} {key[2]}: {name}: PM2 {plain!r}, ours {ours!r}"
        for key, values in found.items()
        for name, (plain, ours) in values.items()
    ]
    return "\n".join(lines)


def test_the_same_processes(twins: Twins) -> None:
    plain, ours = keyed(twins.plain), keyed(twins.ours)

    assert sorted(ours) == sorted(plain)
    assert len({(namespace, name) for namespace, name, _number in ours}) >= 60
    assert {name for _namespace, name, _number in ours} >= {
        item["name"] for item in definitions.inline(twins.base) if "name" in item
    }


def test_the_same_configuration(twins: Twins) -> None:
    plain, ours = keyed(twins.plain), keyed(twins.ours)

    found = {}
    for key, item in ours.items():
        wanted = config_view(twins.plain, twins.base, plain[key])
        got = config_view(twins.ours, twins.base, item)
        found[key] = {
            name: values
            for name, values in differing(wanted, got).items()
            if not is_namespaced_log(key[0], name, *values)
        }
    assert told(found) == ""


def is_namespaced_log(namespace: str, name: str, plain: object, ours: object) -> bool:
    """The default log of a namespace other than "default"."""
    if namespace == "default" or name not in ("pm_log_path", "pm_out_log_path", "pm_err_log_path"):
        return False
    return str(ours).startswith("<home>/logs/") and str(ours).replace("@" + namespace, "") == plain


def test_the_same_environment_arguments_and_directory(twins: Twins) -> None:
    plain, ours = keyed(twins.plain), keyed(twins.ours)

    found = {}
    for key, item in ours.items():
        wanted, got = process_view(twins.plain, plain[key]), process_view(twins.ours, item)
        assert bool(wanted) == bool(got), key
        environ = differing(wanted.pop("environ", {}), got.pop("environ", {}))
        logs = {name for name, values in environ.items() if is_namespaced_log(key[0], name, *values)}
        rest = {name: values for name, values in environ.items() if name not in logs and name != "cwd"}
        found[key] = {**differing(wanted, got), **rest}
    assert told(found) == ""


def test_every_app_that_should_run_runs(twins: Twins) -> None:
    for home in (twins.plain, twins.ours):
        bad = [
            (item["name"], item["pm2_env"]["status"], item["pm2_env"]["restart_time"])
            for item in home.jlist()
            if item["pm2_env"]["autostart"]
            and (item["pm2_env"]["status"] != "online" or item["pm2_env"]["restart_time"])
        ]
        assert bad == []
