"""pm2_save and the dump: concurrent saves, a cold resurrect, broken files, a full disk, entries of others."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _lock
from support import processes
from support.apps import worker_app
from support.crash_world import DumpReader
from support.killer import Runner
from support.modules import call
from support.pm2 import Pm2Home

READY = {"min_uptime": 0.05, "timeout": 20}

# What PM2 itself sets anew in each process, or takes from the environment its daemon was started in.
NEW_IN_EACH_RUN = frozenset(
    """pm_id unique_id created_at pm_uptime restart_time unstable_restarts status exit_code node_version version
    versioning prev_restart_delay PM2_DISCRETE_MODE PM2_PROGRAMMATIC PM2_JSON_PROCESSING SILENT PM2_USAGE""".split()
)

TELLS = """
const fs = require('fs');
const number = process.env.NODE_APP_INSTANCE;
fs.writeFileSync(`${process.env.TELL}.${number}`, JSON.stringify(process.env));
setInterval(() => {}, 1000);
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Runs each call in its own process."""
    with Runner() as made:
        yield made


def options(pm2: Pm2Home, namespace: str, **more: Any) -> Dict[str, Any]:
    """Options of both modules."""
    return {"pm2_home": pm2.home, "pm2_executable": pm2.executable, "namespace": namespace, **more}


def bring(pm2: Pm2Home, namespace: str, *apps: Dict[str, Any], **more: Any) -> Dict[str, Any]:
    """A call of pm2_process that must succeed."""
    result = call("pm2_process", options(pm2, namespace, apps=list(apps), ready=READY, **more))
    assert not result["failed"], result
    return result


def save(pm2: Pm2Home, namespace: str, check: bool = False) -> Dict[str, Any]:
    """A call of pm2_save that must succeed."""
    result = call("pm2_save", options(pm2, namespace), check)
    assert not result["failed"], result
    return result


def sleeper(name: str, **more: Any) -> Dict[str, Any]:
    """The cheapest possible app."""
    return {"name": name, "script": "/bin/sleep", "args": ["1000"], "cwd": "/", **more}


def entries(pm2: Pm2Home, namespace: Optional[str] = None) -> List[Dict[str, Any]]:
    """The entries of the dump."""
    saved = json.loads(pm2.dump.read_text())
    return [entry for entry in saved if namespace in (None, entry["namespace"])]


def names(pm2: Pm2Home, namespace: str) -> List[str]:
    return sorted(entry["name"] for entry in entries(pm2, namespace))


def backup(pm2: Pm2Home) -> Path:
    return Path(f"{pm2.dump}.bak")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def trace(path: Path) -> Tuple[int, int, bytes]:
    """A value that changes whenever the file is written or replaced."""
    return path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()


# -- many at once ------------------------------------------------------------------------------------------------------


def test_20_concurrent_saves_lose_nothing_and_no_reader_sees_a_bad_dump(pm2, runner):
    """Twenty runs in two namespaces each start an app and save. Then twenty saves each have to write."""
    for namespace in ("left", "right"):
        bring(pm2, namespace, sleeper("first"))
    reader = DumpReader(pm2, pause=0)
    reader.start()
    calls = [
        ("pm2_process", options(pm2, namespace, apps=[sleeper(f"app-{number}")], ready=READY))
        for number in range(10)
        for namespace in ("left", "right")
    ]
    results = runner.together(calls)
    assert [result.get("msg") for result in results if result["failed"]] == []
    assert all(result["saved"] for result in results)
    expected = sorted(["first", *[f"app-{number}" for number in range(10)]])
    assert names(pm2, "left") == names(pm2, "right") == expected

    inodes = {pm2.dump.stat().st_ino}
    over = threading.Event()

    def make_them_write() -> None:
        """A dump that others may read is written again."""
        while not over.wait(0.001):
            inodes.add(pm2.dump.stat().st_ino)
            os.chmod(pm2.dump, 0o644)

    meddler = threading.Thread(target=make_them_write)
    meddler.start()
    try:
        results = runner.together([("pm2_save", options(pm2, namespace)) for namespace in ("left", "right") * 10])
    finally:
        over.set()
        meddler.join()
    reader.stop()
    reader.check()
    assert [result.get("msg") for result in results if result["failed"]] == []
    written = sum(result["changed"] for result in results)
    assert written >= 2
    assert len(inodes) > 1
    assert names(pm2, "left") == names(pm2, "right") == expected
    print(f"{reader.reads} good reads, {written} of 20 saves wrote")


# -- resurrect ---------------------------------------------------------------------------------------------------------


def test_a_cold_resurrect_brings_back_exactly_what_was_saved(pm2, tmp_path):
    """For two namespaces with the same names. Stopped apps stay stopped; environment, number and definition stay."""
    (tmp_path / "tells.js").write_text(TELLS)

    def app(namespace: str, name: str, **more: Any) -> Dict[str, Any]:
        env = {"TELL": str(tmp_path / f"{namespace}-{name}"), "SECRET": f"s3 cret'\"\\ {namespace}", "EMPTY": ""}
        return {"name": name, "script": "tells.js", "cwd": str(tmp_path), "env": env, **more}

    for namespace, workers in (("left", 3), ("right", 2)):
        apps = [
            app(namespace, "api", exec_mode="cluster", instances=workers),
            app(namespace, "worker", instances=2, exec_mode="fork", args=["--a", "b c"], max_memory_restart="300M"),
            sleeper("paused"),
        ]
        bring(pm2, namespace, *apps, save=False)
        stopped = call("pm2_process", options(pm2, namespace, names=["paused"], state="stopped", save=False))
        assert not stopped["failed"], stopped
        assert save(pm2, namespace)["entries"] == workers + 3
    before = picture(pm2, tmp_path)
    saved = trace(pm2.dump)

    pm2.cli("kill")
    deadline = time.monotonic() + 60
    while pm2.daemon_pids():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for told in tmp_path.glob("*-*.[0-9]"):
        told.unlink()
    pm2.cli("resurrect")
    after = picture(pm2, tmp_path)
    assert list(after) == list(before)
    for process in before:
        for was, now in zip(before[process], after[process], strict=True):
            if isinstance(was, dict):
                assert {k: now.get(k) for k in {*was, *now}} == {k: was.get(k) for k in {*was, *now}}, process
            assert now == was, process
    assert trace(pm2.dump) == saved
    for namespace in ("left", "right"):
        assert save(pm2, namespace, check=True)["changed"] is False


def picture(pm2: Pm2Home, directory: Path) -> Dict[str, Any]:
    """What PM2 has of each process, and its real environment. Waits until all processes have reported."""
    items = pm2.jlist()
    return {
        f"{env['namespace']}/{env['name']}/{env['NODE_APP_INSTANCE']}": (
            env["status"],
            {key: env[key] for key in ("pm_exec_path", "pm_cwd", "exec_mode", "exec_interpreter")},
            (env.get("args"), env.get("max_memory_restart")),
            _told(directory / f"{env['namespace']}-{env['name']}.{env['NODE_APP_INSTANCE']}"),
        )
        for item in items
        for env in [item["pm2_env"]]
    }


def _told(path: Path) -> Optional[Dict[str, str]]:
    if path.name.partition("-")[2].startswith("paused"):
        return None
    deadline = time.monotonic() + 15
    while True:
        try:
            environment = json.loads(path.read_text())
            break
        except (FileNotFoundError, ValueError):
            assert time.monotonic() < deadline, path
            time.sleep(0.05)
    return {key: value for key, value in environment.items() if key not in NEW_IN_EACH_RUN}


# -- when and how it is written ----------------------------------------------------------------------------------------


def test_nothing_to_save_writes_nothing(pm2):
    """Neither at once nor after restarts, which change only counters and ids."""
    bring(pm2, "left", sleeper("app"))
    before = trace(pm2.dump), trace(backup(pm2)) if backup(pm2).exists() else None
    assert save(pm2, "left")["changed"] is False
    pm2.rpc("restartProcessId", {"id": pm2.jlist()[0]["pm_id"]})
    assert pm2.jlist()[0]["pm2_env"]["restart_time"] == 1
    assert save(pm2, "left")["changed"] is False
    assert save(pm2, "other")["changed"] is False
    assert (trace(pm2.dump), trace(backup(pm2)) if backup(pm2).exists() else None) == before


def test_only_the_owner_can_read_the_dump_and_its_backup(pm2):
    """The mode is 0600, whatever the umask, also if PM2 had written them for every user."""
    former = os.umask(0)
    try:
        bring(pm2, "left", sleeper("app"))
        assert mode(pm2.dump) == 0o600
        pm2.dump.chmod(0o644)
        assert save(pm2, "left", check=True)["changed"] is True
        assert save(pm2, "left")["changed"] is True
        assert (mode(pm2.dump), mode(backup(pm2))) == (0o600, 0o600)
        assert save(pm2, "left")["changed"] is False
    finally:
        os.umask(former)


def test_an_empty_namespace_is_saved_as_empty(pm2):
    """Removed apps do not come back at boot, and the others do."""
    bring(pm2, "left", sleeper("app"))
    bring(pm2, "right", sleeper("app"))
    right = entries(pm2, "right")
    for item in pm2.processes("left"):
        pm2.rpc("deleteProcessId", item["pm_id"])
    assert names(pm2, "left") == ["app"]
    done = save(pm2, "left")
    assert (done["changed"], done["entries"]) == (True, 0)
    assert entries(pm2) == right
    assert save(pm2, "left")["changed"] is False


def test_an_empty_namespace_and_no_dump_is_nothing_to_save(pm2):
    """No file is made."""
    bring(pm2, "left", sleeper("app"), save=False)
    assert save(pm2, "other")["changed"] is False
    assert not pm2.dump.exists()


def test_check_mode_predicts_and_writes_nothing(pm2):
    """`changed` and `entries` are those of the real run, and the dump stays as it was."""
    bring(pm2, "left", sleeper("app"))
    bring(pm2, "left", sleeper("app"), sleeper("more"), save=False)
    before = trace(pm2.dump)
    predicted = save(pm2, "left", check=True)
    assert trace(pm2.dump) == before
    assert not list(Path(pm2.home).glob("*.new"))
    done = save(pm2, "left")
    assert trace(pm2.dump) != before
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert (done["changed"], done["entries"]) == (True, 2)


def test_without_a_daemon_nothing_is_saved_and_none_is_started(pm2):
    """The empty list of a new daemon would be saved as an empty namespace."""
    bring(pm2, "left", sleeper("app"))
    pm2.kill()
    before = trace(pm2.dump)
    for check in (False, True):
        result = call("pm2_save", options(pm2, "left"), check)
        assert result["failed"]
        assert "No PM2 daemon runs" in result["msg"]
        assert "Nothing was saved" in result["msg"]
    assert not pm2.daemon_pids()
    assert trace(pm2.dump) == before


def test_a_save_in_the_middle_of_a_change_waits_and_then_saves_nothing(pm2, monkeypatch):
    """It would save processes that have not proven themselves yet."""
    bring(pm2, "busy", sleeper("app"), save=False)
    monkeypatch.setattr(_lock, "TIMEOUT", 0.1)
    with _lock.held(pm2.home, "busy", "was not changed"):
        refused = call("pm2_save", options(pm2, "busy"))
        assert call("pm2_save", options(pm2, "idle"))["failed"] is False
    assert refused["failed"]
    assert "Namespace busy was not saved" in refused["msg"]
    assert not pm2.dump.exists()
    assert save(pm2, "busy")["entries"] == 1


# -- bad files ---------------------------------------------------------------------------------------------------------

BROKEN = [b"", b'[{"name": "api", "namesp', b"null", b"[1]", b"\xff\xfe[", b"[" * 100000]


def test_a_broken_dump_is_replaced_from_its_good_backup(pm2):
    """The other namespaces' entries come from the backup, as in a resurrect. The broken file is kept aside."""
    bring(pm2, "left", sleeper("app"))
    bring(pm2, "right", sleeper("app"))
    good = pm2.dump.read_bytes()
    right = entries(pm2, "right")
    for content in BROKEN:
        pm2.dump.write_bytes(content)
        backup(pm2).write_bytes(good)
        assert save(pm2, "left", check=True)["changed"] is True
        assert pm2.dump.read_bytes() == content
        assert save(pm2, "left")["changed"] is True
        assert entries(pm2, "right") == right
        assert names(pm2, "left") == ["app"]
        assert backup(pm2).read_bytes() == good
        assert Path(f"{pm2.dump}.broken").read_bytes() == content
        assert mode(pm2.dump) == 0o600
        assert save(pm2, "left")["changed"] is False


def test_a_broken_dump_with_a_broken_backup_is_refused(pm2):
    """The other namespaces would be lost. So nothing is written, and a change of processes is undone."""
    bring(pm2, "left", sleeper("app"))
    pm2.dump.write_bytes(BROKEN[0])
    backup(pm2).write_bytes(BROKEN[1])
    before = trace(pm2.dump), trace(backup(pm2)), pm2.processes("left")[0]["pid"]
    changed = options(pm2, "left", apps=[sleeper("app", env={"A": "b"})], ready=READY, strategy="replace")
    for module, params, check in (
        ("pm2_save", options(pm2, "left"), True),
        ("pm2_save", options(pm2, "left"), False),
        ("pm2_process", changed, True),
        ("pm2_process", changed, False),
    ):
        result = call(module, params, check)
        assert result["failed"], (module, check)
        assert str(pm2.dump) in result["msg"]
        assert str(backup(pm2)) in result["msg"]
        assert "would be lost" in result["msg"]
        (item,) = pm2.processes("left")
        assert (trace(pm2.dump), trace(backup(pm2)), item["pid"]) == before, (module, check)


def test_a_missing_dump_is_made_from_its_backup_or_anew(pm2):
    """If the dump is missing, PM2 uses the backup, and so does a save."""
    bring(pm2, "left", sleeper("app"))
    bring(pm2, "right", sleeper("app"))
    right = entries(pm2, "right")
    backup(pm2).write_bytes(pm2.dump.read_bytes())
    pm2.dump.unlink()
    assert save(pm2, "left")["changed"] is True
    assert entries(pm2, "right") == right
    pm2.dump.unlink()
    backup(pm2).unlink()
    assert save(pm2, "left")["changed"] is True
    assert [entry["namespace"] for entry in entries(pm2)] == ["left"]


def test_a_full_disk_leaves_the_dump_and_undoes_the_change_of_processes(pm2, runner, tmp_path):
    """No file may be larger than 2,000 bytes, which is enough for a journal and not for a dump."""
    worker_app(tmp_path / "1")
    worker_app(tmp_path / "2")

    def apps(release: str) -> List[Dict[str, Any]]:
        app = {"script": "worker.js", "cwd": str(tmp_path / release)}
        return [{**app, "name": "api", "exec_mode": "cluster", "instances": 2}, {**app, "name": "worker"}]

    bring(pm2, "right", sleeper("app"))
    bring(pm2, "left", *apps("1"))
    before, live = trace(pm2.dump), pm2.processes("left")
    params = options(pm2, "left", apps=apps("2"), ready=READY)
    result = runner.run("pm2_process", params, file_limit=2000).result
    assert result
    assert result["failed"]
    assert f"{pm2.dump} could not be written, it is as it was: File too large" in result["msg"]
    assert result["rolled_back"] is True
    assert trace(pm2.dump) == before
    left = pm2.processes("left")
    assert [item["pm_id"] for item in left] == [item["pm_id"] for item in live]
    assert all(processes.alive(item["pid"]) for item in left)
    assert [item["pid"] for item in left if item["name"] == "api"] == [
        item["pid"] for item in live if item["name"] == "api"
    ]
    assert not list(Path(pm2.home).glob(".*.new"))
    assert not list(Path(pm2.home, "nodeops").glob("*.journal"))

    result = runner.run("pm2_process", params, file_limit=0).result
    assert result
    assert result["failed"]
    assert "could not be written: File too large" in result["msg"]
    assert [item["pid"] for item in pm2.processes("left")] == [item["pid"] for item in left]

    bring(pm2, "left", *apps("1"), sleeper("more"), save=False)
    result = runner.run("pm2_save", options(pm2, "left"), file_limit=2000).result
    assert result
    assert result["failed"]
    assert f"{pm2.dump} could not be written, it is as it was: File too large" in result["msg"]
    assert trace(pm2.dump) == before
    bring(pm2, "left", *apps("2"))
    assert {entry["pm_cwd"] for entry in entries(pm2, "left")} == {str(tmp_path / "2"), "/"}


# -- entries of others -------------------------------------------------------------------------------------------------

ODD = (
    r'{"name": "api", "namespace": "odd", "pm_exec_path": "/x", "env": {"\u00fc\u2603": "\ud83d\ude00\ud800", '
    r'"__proto__": "p", "q": "\"\\\/\u0000\u2028</script>"}, "big": 12345678901234567890123, '
    r'"float": 0.1, "exponent": 1E+5, "small": -1.5e-300, "large": 1.7976931348623157e308, "minus": -0.0, '
    r'"null": null, "nested": [[], {}, [1, 1.0, true]], "": ""}'
)
NO_NAMESPACE = '{"name": "old", "pm_exec_path": "/x", "env": {}}'


def test_entries_of_others_keep_their_meaning_and_their_order(pm2):
    """For any JSON: numbers of any size, floats, any text. Also for entries without a namespace (PM2's default)."""
    bring(pm2, "left", sleeper("app"), save=False)
    text = f"[{ODD}, {NO_NAMESPACE}]"
    pm2.dump.write_text(text)
    assert save(pm2, "left")["changed"] is True

    def exactly(source: str) -> Any:
        return json.loads(source, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=list)

    assert exactly(pm2.dump.read_text())[:2] == exactly(text)
    assert [entry["name"] for entry in json.loads(pm2.dump.read_text())] == ["api", "old", "app"]
    bring(pm2, "left", sleeper("app"), sleeper("more"))
    assert exactly(pm2.dump.read_text())[:2] == exactly(text)


def test_a_module_of_pm2_is_neither_saved_nor_an_app(pm2, tmp_path):
    """pm2-logrotate has the namespace `default`, and PM2 starts modules by itself."""
    script = worker_app(tmp_path)
    bring(pm2, "default", sleeper("app"))
    module = {
        "name": "pm2-logrotate",
        "namespace": "default",
        "pmx_module": True,
        "pm_exec_path": script,
        "pm_cwd": str(tmp_path),
        "pm_pid_path": str(tmp_path / "module.pid"),
        "pm_out_log_path": str(tmp_path / "out.log"),
        "pm_err_log_path": str(tmp_path / "err.log"),
        "exec_mode": "fork_mode",
        "exec_interpreter": "node",
        "env": {},
    }
    pm2.rpc("prepare", module)
    bring(pm2, "default", sleeper("app", env={"A": "b"}), prune=True)
    assert save(pm2, "default")["entries"] == 1
    assert [entry["name"] for entry in entries(pm2)] == ["app"]
    gone = call("pm2_process", options(pm2, "default", state="absent"))
    assert not gone["failed"], gone
    (item,) = pm2.jlist()
    assert (item["name"], item["pm2_env"]["restart_time"]) == ("pm2-logrotate", 0)
    assert processes.alive(item["pid"])
    assert entries(pm2) == []


def test_a_plain_pm2_save_in_between_does_not_disturb_the_next_run(pm2):
    """PM2 writes the same processes in its own form. What it saved of other namespaces stays."""
    bring(pm2, "left", sleeper("app"))
    bring(pm2, "right", sleeper("app"), sleeper("more"), save=False)
    pm2.cli("save")
    assert names(pm2, "right") == ["app", "more"]
    assert bring(pm2, "left", sleeper("app"))["saved"] is (mode(pm2.dump) != 0o600)
    assert save(pm2, "left")["changed"] is False
    assert save(pm2, "right")["changed"] is False
    pids = [item["pid"] for item in pm2.jlist()]
    pm2.cli("save", "--force")
    assert bring(pm2, "left", sleeper("app"), sleeper("new"))["saved"] is True
    assert [item["pid"] for item in pm2.jlist()][: len(pids)] == pids
    assert names(pm2, "left") == ["app", "new"]
    assert names(pm2, "right") == ["app", "more"]
