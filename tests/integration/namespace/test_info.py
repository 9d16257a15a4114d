# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pm2_info finds every problem in a real situation, and only reads. The results of all modules are as documented."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from support.documented import mistakes, returns_of
from support.modules import call, finish, spawn
from support.pm2 import VERSIONS, Pm2Home
from support.sites import Json, Site, assert_same, daemon_of, eventually, files, fresh_directory


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    """A running daemon of each version for most tests of this file."""
    yield from daemon_of(request.param, fresh_directory(tmp_path_factory))


@pytest.fixture
def site(home: Pm2Home, tmp_path: Path) -> Iterator[Site]:
    """A namespace with one running app. Afterwards it is emptied, and the dump is as before."""
    site = Site(home, "prod", tmp_path / "site")
    site.run([sleeper("app")])
    assert info(home)["problems"] == []
    yield site
    site.run(state="absent")


def sleeper(name: str, **more: Any) -> Json:
    """A cheap app."""
    return {"name": name, "script": "/bin/sleep", "args": ["1000"], "cwd": "/", **more}


def info(home: Pm2Home, namespace: Optional[str] = None, **more: Any) -> Json:
    """The result of pm2_info, which has to be as documented. Nothing may be written."""
    before = files(home)
    params = {"pm2_home": home.home, "pm2_executable": home.executable, "namespace": namespace, **more}
    result = call("pm2_info", params, check=bool(more.get("check")))
    assert not result["failed"], result
    assert not result["changed"]
    assert mistakes("pm2_info", result) == []
    assert_same(before, files(home))
    return result


def kinds(result: Json) -> List[str]:
    """The kinds of the reported problems."""
    return [problem["kind"] for problem in result["problems"]]


def test_healthy(site: Site) -> None:
    """Daemon, process and dump are reported, without a problem or drift."""
    result = info(site.home)
    (daemon_pid,) = site.home.daemon_pids()
    daemon = result["daemon"]
    assert (daemon["running"], daemon["pid"], daemon["pm2_home"]) == (True, daemon_pid, site.home.home)
    assert daemon["version"] == daemon["installed_version"]
    assert daemon["version"].startswith(site.home.version)
    (process,) = result["processes"]
    assert (process["name"], process["pid"], process["running"]) == ("app", site.pid("app"), True)
    assert result["dump"]["mode"] == "0600"
    assert result["dump"]["source"] == str(site.home.dump)
    (entry,) = result["dump"]["entries"]
    assert (entry["name"], entry["namespace"], entry["status"]) == ("app", "prod", "online")
    assert (result["problems"], result["drift"]) == ([], [])


# -- problems


def _missing_directory(site: Site) -> List[str]:
    (site.directory / "gone").mkdir()
    site.run([sleeper("app", cwd=str(site.directory / "gone"))])
    shutil.rmtree(site.directory / "gone")
    return ["missing_cwd"]


def _online_without_a_process(site: Site) -> List[str]:
    _missing_directory(site)
    site.home.rpc("restartProcessId", {"id": site.only("app")["pm_id"]})
    assert eventually(lambda: site.only("app")["pm2_env"]["status"] == "online" and not site.only("app").get("pid"))
    return ["missing_cwd", "no_live_pid"]


def _crashing(site: Site) -> List[str]:
    site.home.cli("start", "/bin/false", "--name", "app", "--namespace", "prod", "--restart-delay", "30000")
    assert eventually(lambda: [p for p in site.processes() if p["pm2_env"]["status"] == "waiting restart"])
    return ["crash_loop"]


def _given_up(site: Site) -> List[str]:
    site.home.cli("start", "/bin/false", "--name", "app", "--namespace", "prod", "--max-restarts", "1")
    assert eventually(lambda: [p for p in site.processes() if p["pm2_env"]["status"] == "errored"])
    return ["crash_loop"]


def _collision(site: Site) -> List[str]:
    Site(site.home, "test", site.directory).run([sleeper("app")])
    return ["name_collision"]


def _readable_dump(site: Site) -> List[str]:
    site.home.dump.chmod(0o644)
    Path(f"{site.home.dump}.bak").unlink(missing_ok=True)
    return ["readable_dump"]


def _readable_backup(site: Site) -> List[str]:
    backup = Path(f"{site.home.dump}.bak")
    backup.unlink(missing_ok=True)
    backup.write_text("[]")
    backup.chmod(0o640)
    return ["readable_dump"]


def _broken_dump(site: Site) -> List[str]:
    site.home.dump.write_text("[{")
    return ["broken_dump"]


def _killed_run(site: Site) -> List[str]:
    site.run_killed_at("committed", [sleeper("app", args=["999"])])
    return ["open_transaction"]


SITUATIONS: Dict[str, Callable[[Site], List[str]]] = {
    function.__name__.strip("_"): function
    for function in (
        _missing_directory,
        _online_without_a_process,
        _crashing,
        _given_up,
        _collision,
        _readable_dump,
        _readable_backup,
        _broken_dump,
        _killed_run,
    )
}
ALONE = {"deaf_daemon", "version_mismatch", "daemon_environment"}
"""Kinds with their own test, because they harm the daemon."""


@pytest.mark.parametrize("situation", SITUATIONS)
def test_problem(site: Site, situation: str) -> None:
    """Each problem is reported for the right process, and is gone after its cause is."""
    expected = SITUATIONS[situation](site)
    result = info(site.home)
    assert sorted(set(kinds(result))) == expected
    for problem in result["problems"]:
        about_processes = problem["kind"] in ("missing_cwd", "no_live_pid", "crash_loop")
        assert (problem["namespace"] == "prod") is (about_processes or problem["kind"] == "open_transaction")
        assert (problem["pm_id"] in [p["pm_id"] for p in site.processes()]) is about_processes
    assert set(kinds(info(site.home, "another"))) <= {"readable_dump", "broken_dump", "open_transaction"}
    for path in Path(site.home.home).glob("dump.pm2*"):
        path.unlink()
    Site(site.home, "test", site.directory).run(state="absent")
    site.run(state="absent")
    site.run([sleeper("app")])
    assert info(site.home)["problems"] == []


def test_every_kind_has_its_situation() -> None:
    """The tests cause every kind that RETURN names."""
    description = " ".join(returns_of("pm2_info")["problems"]["description"])
    named = set(re.findall(r"V\((\w+)\)", description))
    made = {
        "missing_cwd",
        "no_live_pid",
        "crash_loop",
        "name_collision",
        "readable_dump",
        "broken_dump",
        "open_transaction",
    }
    assert named == made | ALONE


@pytest.mark.parametrize("version", VERSIONS)
def test_daemon_with_variables_of_a_shell(version: str, tmp_path: Path) -> None:
    """The variables of a shell in a daemon's environment are named without values. Our own daemon has none."""
    for home in daemon_of(version, tmp_path / "d", MY_SECRET="canary", TERM="xterm"):
        (problem,) = info(home)["problems"]
        assert problem["kind"] == "daemon_environment"
        assert "MY_SECRET" in problem["message"]
        assert "canary" not in str(problem)
    home = Pm2Home(version, tmp_path / "ours" / "pm2")
    Site(home, "prod", tmp_path / "site").run([sleeper("app")])
    assert info(home)["problems"] == []
    home.kill()


def test_other_version_installed(tmp_path: Path) -> None:
    """The running daemon is not of the installed version of PM2."""
    newer = Pm2Home("7.0", tmp_path / "unused")
    for home in daemon_of("6.0", tmp_path / "d"):
        result = info(home, pm2_executable=newer.executable)
        assert kinds(result) == ["version_mismatch"]
        assert result["daemon"]["version"].startswith("6.0")
        assert result["daemon"]["installed_version"].startswith("7.0")


def test_deaf_daemon(pm2: Pm2Home) -> None:
    """A daemon whose socket was removed is reported as deaf, and not as absent."""
    pm2.cli("ping")
    (pid,) = pm2.daemon_pids()
    os.unlink(pm2.rpc_socket)
    result = info(pm2)
    assert kinds(result) == ["deaf_daemon"]
    assert f"pid {pid}" in result["problems"][0]["message"]
    assert result["daemon"]["running"] is False


# -- drift


def test_drift(site: Site) -> None:
    """Each kind of difference between the dump and the live processes, with the keys that differ."""
    web = site.app("web", exec_mode="cluster", instances=2)
    Site(site.home, "test", site.directory).run([sleeper("other")], save=False)
    site.run([sleeper("app"), sleeper("gone"), web])
    site.run([sleeper("app", env={"NEW": "canary"}), sleeper("unsaved")], save=False)
    site.home.cli("delete", "gone")
    site.home.cli("scale", "web", "1")
    told = {(d["namespace"], d["name"]): (d["kind"], d["keys"]) for d in info(site.home)["drift"]}
    assert told.pop(("prod", "app")) == ("differs", ["NEW", "env"])
    expected = {"gone": "not_live", "unsaved": "not_saved", "web": "instances_differ"}
    assert told.pop(("test", "other")) == ("not_saved", [])
    assert told == {("prod", name): (kind, []) for name, kind in expected.items()}
    assert {d["namespace"] for d in info(site.home, "prod")["drift"]} == {"prod"}
    site.run([sleeper("app"), web], prune=True)
    assert info(site.home, "prod")["drift"] == []
    Site(site.home, "test", site.directory).run(state="absent")


# -- it only reads


@pytest.mark.parametrize("there", [False, True], ids=["no home", "empty home"])
def test_without_a_daemon(pm2: Pm2Home, there: bool) -> None:
    """No daemon is started, and neither a directory nor a file is made."""
    if not there:
        os.rmdir(pm2.home)
    result = info(pm2)
    assert result["daemon"]["running"] is False
    assert result["daemon"]["pid"] is None
    assert (result["processes"], result["drift"], result["problems"]) == ([], [], [])
    assert result["dump"]["exists"] is False
    assert pm2.daemon_pids() == []
    assert (os.listdir(pm2.home) if os.path.exists(pm2.home) else None) == ([] if there else None)


def test_dump_without_a_daemon(pm2: Pm2Home, tmp_path: Path) -> None:
    """After the daemon has ended, the dump is reported, and is not drift: no live process can be compared with it."""
    Site(pm2, "prod", tmp_path / "site").run([sleeper("app")])
    pm2.cli("kill")
    deadline = time.monotonic() + 60
    while pm2.daemon_pids():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    result = info(pm2)
    assert [entry["name"] for entry in result["dump"]["entries"]] == ["app"]
    assert result["drift"] == []
    assert kinds(result) == []


def test_while_a_run_is_under_way(site: Site) -> None:
    """It does not wait for the lock. It shows candidates beside the old processes, and that a run is under way."""
    params = {
        "namespace": "prod",
        "pm2_home": site.home.home,
        "pm2_executable": site.home.executable,
        "apps": [site.app("slow", exec_mode="cluster", instances=2)],
        "ready": {"min_uptime": 10, "timeout": 60},
    }
    process = spawn("pm2_process", params)
    assert eventually(lambda: len(site.processes("slow")) == 2), finish(process)
    start = time.monotonic()
    result = call("pm2_info", {"pm2_home": site.home.home, "pm2_executable": site.home.executable})
    assert time.monotonic() - start < 8
    assert process.poll() is None, "the run should still be under way"
    assert kinds(result) == ["open_transaction"]
    assert [p["name"] for p in result["processes"]].count("slow") == 2
    assert not finish(process)["failed"]
    assert kinds(info(site.home)) == []


# -- RETURN of all modules


def test_results_are_as_documented(site: Site) -> None:
    """On success, in check mode and on every kind of failure, all keys are documented, with their types."""
    home = site.home
    crash = site.directory / "crash.js"
    crash.write_text("throw new Error('no')\n")
    web = site.app("web", exec_mode="cluster", instances=2)
    calls: List[Tuple[str, Json, bool]] = [
        ("pm2_process", {"apps": [web, sleeper("app", args=["999"])]}, False),
        ("pm2_process", {"apps": [web, sleeper("app", args=["999"])]}, False),
        ("pm2_process", {"apps": [web], "prune": True}, False),
        ("pm2_process", {"apps": [sleeper("idle", autostart=False)]}, False),
        ("pm2_process", {"state": "reloaded"}, False),
        ("pm2_process", {"state": "stopped"}, False),
        ("pm2_process", {"apps": [web, sleeper("app", autostart=False)]}, False),
        ("pm2_process", {"apps": [{**web, "script": str(crash)}], "ready": {"min_uptime": 20, "timeout": 60}}, True),
        ("pm2_process", {"apps": [{**web, "script": "/none"}]}, True),
        ("pm2_process", {"apps": [web], "names": ["none"]}, True),
        ("pm2_process", {"ecosystem": str(crash)}, True),
        ("pm2_process", {"ecosystem": str(crash.with_suffix(".config.js"))}, True),
        ("pm2_process", {"state": "absent", "max_affected": 0}, True),
        ("pm2_process", {"state": "wrong"}, True),
        (
            "pm2_process",
            {"apps": [{**web, "env": {"A": "1"}}], "ready": {"tcp": ["1"], "min_uptime": 0.1, "timeout": 0.5}},
            True,
        ),
        ("pm2_save", {}, False),
        ("pm2_save", {"namespace": "a b"}, True),
        ("pm2_info", {}, False),
        ("pm2_process", {"state": "absent"}, False),
        ("pm2_save", {}, False),
        ("pm2_info", {}, False),
        ("pm2_info", {"pm2_home": "relative"}, True),
        ("pm2_process", {"apps": [web], "pm2_home": "/etc/passwd"}, True),
        ("pm2_save", {"pm2_home": str(site.directory)}, True),
    ]
    wrong: Dict[str, List[str]] = {}
    for module, options, fails in calls:
        for check in (True, False):
            ready = {"ready": {"min_uptime": 0.2}} if module == "pm2_process" else {}
            params = {"namespace": "prod", "pm2_home": home.home, "pm2_executable": home.executable, **ready, **options}
            result = call(module, params, check=check, diff=True)
            foreseen = check and fails and any(key in str(options) for key in ("crash.js", "tcp"))
            if foreseen and "ecosystem" not in options:
                continue  # check mode starts no process, so none can fail
            assert result["failed"] is fails, (module, options, result)
            found = mistakes(module, result)
            if found:
                wrong[f"{module} {options} {check}"] = found
    assert wrong == {}, "\n".join(f"{k}: {v}" for k, v in wrong.items())
