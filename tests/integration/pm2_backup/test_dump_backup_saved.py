"""Bringing live processes to entries of a dump: what vanished with a daemon, what was changed, what rests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _resurrect
from support import observe, processes
from support.apps import free_port, http_app
from support.load import get
from support.namespaces import Namespace
from support.pm2 import Pm2Home

READY = {"timeout": 40, "min_uptime": 0.2, "http": [], "tcp": [], "log": []}

SLEEPER: Dict[str, Any] = {"script": "/bin/sleep", "args": ["1000"], "cwd": "/"}

Entry = Dict[str, Any]


def saved(pm2: Pm2Home, namespace: str = "left") -> List[Entry]:
    """The entries of a namespace in the dump."""
    return [entry for entry in observe.dump_entries(pm2.dump) if entry["namespace"] == namespace]


def bring(pm2: Pm2Home, entries: List[Entry], check: bool = False, **more: Any) -> Dict[str, Any]:
    options = {"save": True, "prune": True, "ready": READY, **more}
    with _signals.raised():  # a commit holds signals back, in this process too
        return _resurrect.bring(pm2.home, pm2.executable, "left", entries, check_mode=check, **options)


def state(pm2: Pm2Home) -> Dict[str, Any]:
    """Per process its status, and what it was defined as."""
    return {
        f"{env['name']}/{env.get('NODE_APP_INSTANCE')}": (
            env["status"],
            env["pm_exec_path"],
            env["exec_mode"],
            env.get("args"),
            env.get("COLOUR"),
            env.get("max_memory_restart"),
        )
        for item in pm2.processes("left")
        for env in [item["pm2_env"]]
    }


class Left(Namespace):
    """Two workers, a fork app, and one that was stopped on purpose."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        super().__init__(pm2, "left")
        self.port = free_port()
        http_app(directory, "1")
        api = {"name": "api", "script": "app.js", "cwd": str(directory), "exec_mode": "cluster", "instances": 2}
        env = {"PORT": self.port, "COLOUR": "blue", "TOKEN": "s3cret-t0ken"}
        self.apps: List[Dict[str, Any]] = [
            {**api, "env": env, "max_memory_restart": "300M"},
            {"name": "worker", **SLEEPER, "env": {"COLOUR": "green"}},
            {"name": "paused", **SLEEPER},
        ]
        self.bring(self.apps)
        self.bring(names=["paused"], state="stopped")


@pytest.fixture
def left(pm2, tmp_path):
    """One beside a namespace with the same names."""
    Namespace(pm2, "right").bring([{"name": name, **SLEEPER} for name in ("api", "worker")])
    return Left(pm2, tmp_path / "1")


def test_what_vanished_with_its_daemon_comes_back_as_it_was(pm2, left):
    """On each version: workers, environment, what rests; the second call finds nothing to do, and both are foreseen."""
    before, entries = state(pm2), saved(pm2)
    assert before["paused/0"][0] == "stopped"
    pm2.kill()
    pm2.dump.unlink()
    Path(f"{pm2.dump}.bak").unlink()
    foreseen = bring(pm2, entries, check=True)
    assert not pm2.daemon_pids()
    done = bring(pm2, entries, ready={**READY, "tcp": [str(left.port)]})
    assert foreseen["actions"] == done["actions"]
    assert [action["action"] for action in done["actions"]] == ["start"] * 4
    assert state(pm2) == before
    assert json.loads(get(left.port))["version"] == "1"
    assert len(saved(pm2)) == 4
    assert {entry["name"]: entry["status"] for entry in saved(pm2)}["paused"] == "stopped"
    pids = [item.get("pid") for item in left.processes()]
    for check in (True, False):
        again = bring(pm2, entries, check)
        assert (again["changed"], again["actions"]) == (False, []), again["actions"]
    assert [item.get("pid") for item in left.processes()] == pids
    # What rests can be started afterwards, and PM2 counts on from nothing.
    (paused,) = (item for item in left.processes() if item["name"] == "paused")
    pm2.rpc("restartProcessId", {"id": paused["pm_id"]})
    left.bring(left.apps)
    assert {item["pm2_env"]["status"] for item in left.processes()} == {"online"}


def test_a_live_namespace_is_brought_to_its_entries_and_no_other_moves(pm2_7, tmp_path):
    """Changed, stopped, started, added and removed apps; reasons name variables and show no value."""
    pm2 = pm2_7
    left, right = Namespace(pm2, "left"), Namespace(pm2, "right")
    left.bring([{"name": name, **SLEEPER, "env": {"COLOUR": f"{name}-blue"}} for name in ("a", "b", "c", "d")])
    left.bring(names=["d"], state="stopped")
    right.bring([{"name": name, **SLEEPER} for name in ("a", "b")])
    entries, before = saved(pm2), state(pm2)
    left.bring(
        [{"name": "a", **SLEEPER, "env": {"COLOUR": "a-red", "MORE": "m0re-secret"}}, {"name": "new", **SLEEPER}]
    )
    left.bring(names=["b"], state="stopped")
    left.bring(names=["c"], state="absent")
    left.bring([{"name": "d", **SLEEPER, "env": {"COLOUR": "d-blue"}}])
    neighbour = observe.look(pm2.processes("right"))
    neighbours_entries = saved(pm2, "right")
    foreseen = bring(pm2, entries, check=True)
    done = bring(pm2, entries)
    assert foreseen["actions"] == done["actions"]
    assert {action["name"]: (action["action"], action["reasons"]) for action in done["actions"]} == {
        "a": ("restart", ["env: changed COLOUR", "env: removed MORE"]),
        "b": ("start", ["status: stopped"]),
        "c": ("start", ["not running"]),
        "d": ("restart", ["status: online -> stopped"]),
        "new": ("delete", ["not defined"]),
    }
    assert "m0re-secret" not in json.dumps([foreseen, done])
    assert state(pm2) == before
    assert [entry["name"] for entry in sorted(saved(pm2), key=lambda entry: entry["name"])] == ["a", "b", "c", "d"]
    assert not list(observe.changes(neighbour, observe.look(pm2.processes("right"))))
    assert saved(pm2, "right") == neighbours_entries
    assert not bring(pm2, entries)["changed"]


def test_without_prune_and_save_only_what_is_given_is_brought_back(pm2_7):
    """As after a daemon was killed while a database was swapped: only those that were stopped for it."""
    pm2 = pm2_7
    left = Namespace(pm2, "left")
    left.bring([{"name": name, **SLEEPER} for name in ("a", "b")])
    entries = [item["pm2_env"] for item in left.processes() if item["name"] == "a"]
    left.bring(names=["a"], state="stopped", save=False)
    dump = pm2.dump.read_bytes()
    assert bring(pm2, entries, save=False, prune=False)["changed"]
    assert [item["pm2_env"]["status"] for item in left.processes()] == ["online"] * 2
    assert pm2.dump.read_bytes() == dump


def test_numbers_that_pm2_gave_over_all_namespaces_stay(pm2_7, tmp_path):
    """PM2 numbers instances by name, so that a namespace may have those from 2 on."""
    pm2 = pm2_7
    http_app(tmp_path, "1", port_env=free_port())
    for namespace in ("other", "left"):
        more = ["--name", "api", "--namespace", namespace, "--force"]
        pm2.cli("start", str(tmp_path / "app.js"), "-i", "2", *more)
    pm2.cli("save")
    before, entries = state(pm2), saved(pm2)
    assert sorted(before) == ["api/2", "api/3"]
    assert bring(pm2, entries, save=False)["actions"] == []
    pm2.rpc("deleteProcessId", pm2.processes("left")[0]["pm_id"])
    assert [action["instance"] for action in bring(pm2, entries)["actions"]] == [2]
    assert state(pm2) == before
    assert not bring(pm2, entries)["changed"]


def test_what_fails_puts_everything_back(pm2_7):
    """A saved process that ends at its start: the live ones and the dump stay, and no secret is told."""
    pm2 = pm2_7
    left = Namespace(pm2, "left")
    left.bring([{"name": "a", **SLEEPER}])
    before, dump, pids = state(pm2), pm2.dump.read_bytes(), left.pids()
    entry = saved(pm2)[0]
    bad = {**entry, "name": "bad", "args": ["-c", "echo $TOKEN >&2; exit 3"], "pm_exec_path": "/bin/bash"}
    bad = {**bad, "autorestart": False, "TOKEN": "s3cret-t0ken", "env": {**entry["env"], "name": "bad"}}
    with pytest.raises(NodeopsError, match="exited with exit code 3") as failed:
        bring(pm2, [entry, bad])
    assert failed.value.details["rolled_back"] is True
    assert "s3cret" not in json.dumps([str(failed.value), failed.value.details])
    assert (state(pm2), pm2.dump.read_bytes(), left.pids()) == (before, dump, pids)


def test_what_was_changed_for_new_processes_is_put_back_before_old_ones_start(pm2_7):
    """An old process reads at its start what a restore has put back."""
    pm2 = pm2_7
    left = Namespace(pm2, "left")
    left.bring([{"name": "a", **SLEEPER}])
    bad = {**saved(pm2)[0], "args": ["-c", "exit 3"], "pm_exec_path": "/bin/bash", "autorestart": False}
    ran: List[List[int]] = []
    with pytest.raises(NodeopsError, match="exited with exit code 3") as failed:
        bring(pm2, [bad], revert=lambda: ran.append([pid for pid in left.pids() if pid]))
    assert failed.value.details["rolled_back"] is True
    assert ran == [[]]
    assert all(map(processes.alive, left.pids()))


BAD: Dict[str, Any] = {
    "env": None,
    "pm_pid_path": None,
    "pm_exec_path": "relative.js",
    "pm_cwd": 7,
    "exec_mode": "other",
    "cron_restart": "rubbish",
    "kill_timeout": ["soon"],
    "name": "a\nb",
    "args": {"a": 1},
    "exec_interpreter": [],
}


def test_no_entry_that_could_hurt_the_daemon_reaches_it(pm2_7):
    """One malformed call ends the daemon and every app of the host; all that is wrong is told."""
    pm2 = pm2_7
    left = Namespace(pm2, "left")
    left.bring([{"name": "a", **SLEEPER}])
    entry, pids = saved(pm2)[0], left.pids()
    for key, value in BAD.items():
        for broken in ({**entry, key: value}, {name: entry[name] for name in entry if name != key}):
            if key not in broken and key in ("cron_restart", "kill_timeout", "args", "exec_interpreter"):
                continue
            with pytest.raises(NodeopsError, match=r"cannot be brought back here.*Nothing of it was changed"):
                bring(pm2, [broken])
    missing = {"pm_cwd": "/nowhere", "pm_exec_path": "/nowhere/x", "exec_interpreter": "no-such-program"}
    with pytest.raises(NodeopsError) as failed:
        bring(pm2, [{**entry, **missing}])
    for words in ("working directory /nowhere does", "script /nowhere/x does", "interpreter no-such-program was"):
        assert words in str(failed.value)
    assert left.pids() == pids
    assert all(map(processes.alive, pids))


def test_what_a_killed_daemon_left_behind_is_ended_first(pm2_7):
    """Its children that are no Node live on, and a second one must not start beside them."""
    pm2 = pm2_7
    left = Namespace(pm2, "left")
    left.bring([{"name": "a", **SLEEPER}])
    (orphan,), entries = left.pids(), saved(pm2)
    for pid in pm2.daemon_pids():
        processes._signal(pid, 9)
    deadline = time.monotonic() + 5
    while pm2.daemon_pids() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.alive(orphan)
    done = bring(pm2, entries)
    assert [action["action"] for action in done["actions"]] == ["end_orphan", "start"]
    assert not processes.alive(orphan)
    assert len(left.pids()) == 1
