# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The job that is installed on a host: its code, its options, what is refused, and that it needs no Ansible.

Core kills its installation at some files, full at every ninth.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _install
from support import modules, processes
from support.apps import http_app
from support.killer import Runner
from support.namespaces import home_in
from support.pm2 import Pm2Home

SECRET = "canary-7731"


@pytest.fixture(name="pm2", scope="module")
def _pm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    """A PM2 with one process in its dump."""
    directory = tmp_path_factory.mktemp("job")
    with home_in(directory, "7.0") as home:
        http_app(directory / "app", "1", port_env=0)
        home.cli("start", str(directory / "app" / "app.js"), "--name", "api")
        home.cli("save")
        yield home


class Host:
    """Calls of backup_job for one environment."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self.path = directory / "job"
        self.dest = directory / "store"
        self.params: Dict[str, Any] = {
            "path": str(self.path),
            "name": "shop",
            "pm2_home": pm2.home,
            "pm2_executable": pm2.executable,
            "jobs": [{"name": "backup", "steps": [self.step()]}],
        }

    def step(self, **params: Any) -> Dict[str, Any]:
        """A step that backs the dump up."""
        return {"module": "pm2_dump_backup", "params": {"dest": str(self.dest), "environment": "test", **params}}

    def call(self, check: bool = False, **changes: Any) -> Dict[str, Any]:
        """Its result."""
        return modules.call("backup_job", {**self.params, **changes}, check=check)

    def well(self, check: bool = False, **changes: Any) -> Dict[str, Any]:
        """A call that has to succeed."""
        result = self.call(check, **changes)
        assert not result["failed"], result
        return result

    def refused(self, **changes: Any) -> str:
        """A call that has to fail before it changes anything; its message."""
        before = tree(self.path)
        result = self.call(**changes)
        assert result["failed"]
        assert tree(self.path) == before
        assert SECRET not in json.dumps(result)
        return str(result["msg"])

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run the job by the machine's own Python, with nothing of this process's environment."""
        return subprocess.run(
            ["/usr/bin/python3", "-I", str(self.path / "current" / "run.py"), *command],
            env={},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def version(self) -> str:
        """What is installed."""
        return os.path.basename(os.readlink(self.path / "current"))


@pytest.fixture(name="host")
def _host(pm2: Pm2Home, tmp_path: Path) -> Host:
    return Host(pm2, tmp_path)


def tree(directory: Path) -> Dict[str, bytes]:
    """All files and their content, but the lock's."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_it_is_installed_once_and_runs_without_ansible(host: Host) -> None:
    result = host.well(check=True)
    assert result["changed"] is True
    assert not host.path.exists()

    result = host.well()
    assert result["changed"] is True
    current = str(host.path / "current" / "run.py")
    assert result["commands"] == {"backup": ["/usr/bin/python3", "-I", current, "backup", "--quiet"]}
    assert result["user"]["uid"] == os.geteuid()
    assert host.version == result["version"]
    for path in host.path.rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o077 == 0, path

    before = tree(host.path)
    assert host.well()["changed"] is False
    assert tree(host.path) == before

    done = host.run("backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backup of shop: pm2_dump_backup: changed, backup ")
    assert len(list(host.dest.glob("*-pm2-*"))) == 1
    assert host.run("backup", "--quiet").stdout == ""
    assert len(list(host.dest.glob("*-pm2-*"))) == 1
    assert {name for name in tree(host.path) if "/" not in name} == {"last-backup.json", "log"}
    assert tree(host.path / "lib") == {name[4:]: content for name, content in before.items() if name.startswith("lib/")}


def test_no_file_of_it_imports_ansible() -> None:
    sources = _install.sources()
    assert {name.split(".", 5)[5] for name in sources} >= {
        "jobs._run",
        "pm2_backup._dump_backup",
        "pm2_backup._pm2_recover",
        "postgres._backup",
        "postgres._restore",
        "store._offsite",
    }
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            names: List[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert not [found for found in names if found == "ansible" or found.startswith("ansible.")], name


def test_a_change_replaces_it_and_leaves_no_secret_behind(host: Host) -> None:
    host.params["jobs"][0]["ping_url"] = f"https://example.org/{SECRET}"
    host.well()
    first = host.version
    del host.params["jobs"][0]["ping_url"]
    assert host.well()["changed"] is True
    second = host.version
    assert sorted(os.listdir(host.path / "lib")) == sorted([first, second])
    assert not [name for name, content in tree(host.path).items() if SECRET.encode() in content]
    host.params["jobs"][0]["steps"] = [host.step(keep_last=3)]
    host.well()
    assert sorted(os.listdir(host.path / "lib")) == sorted([second, host.version])

    file = host.path / "current" / "config.json"
    file.write_text(file.read_text() + " ")  # somebody has changed it
    assert host.well()["changed"] is True
    assert host.well()["changed"] is False
    assert host.run("backup").returncode == 0


def killed_at(host: Host, number: int) -> int:
    """The exit code of a call in a process of its own, which is killed before it makes its `number`th file durable."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = [number]
    sync = os.fsync

    def killing(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    with mock.patch.object(os, "fsync", killing):
        host.call()
    os._exit(0)


@pytest.mark.parametrize("step", [45, pytest.param(9, marks=pytest.mark.full)])
def test_one_that_was_killed_while_it_was_installed_is_whole(host: Host, step: int) -> None:
    host.well()
    first = host.version
    for number in range(1, 100, step):
        host.params["jobs"][0]["steps"] = [host.step(keep_last=number)]
        assert killed_at(host, number) == -signal.SIGKILL
        assert host.version == first
        assert host.run("backup", "now").returncode == 2  # it can be read
    assert host.run("backup").returncode == 0
    assert host.well()["changed"] is True
    assert len(os.listdir(host.path / "lib")) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "name must be"),
        ({"metrics_dir": "/nowhere/at/all"}, "metrics_dir /nowhere/at/all is not a directory"),
        ({"log": "/nowhere/at/all/log"}, "The directory of the log"),
        ({"path": "/tmp/with space/job"}, "path must consist of"),
        ({"path": "/tmp/100%/job"}, "path must consist of"),
        ({"path": "{dest}/.job"}, "The directory of the job"),
        ({"path": "{dest}"}, "is in the backup store"),
        ({"log": "{dest}/log"}, "The log of the job"),
    ],
)
def test_what_would_only_show_at_night_is_refused(host: Host, changes: Dict[str, Any], says: str) -> None:
    host.dest.mkdir()
    assert says in host.refused(**{name: value.format(dest=host.dest) for name, value in changes.items()})


def test_it_is_run_by_the_systems_python_where_that_will_do(host: Host, tmp_path: Path) -> None:
    """Not by that of a virtual environment; and not by one that is too old."""
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\nexec /usr/bin/python3 -c "import sys; sys.version_info = (3, 7); $3"\n')
    old.chmod(0o755)
    for python, taken in (
        ("/usr/bin/python3", "/usr/bin/python3"),
        (str(old), sys.executable),
        ("/no", sys.executable),
    ):
        with mock.patch.object(_install, "SYSTEM_PYTHON", python):
            assert host.well()["commands"]["backup"][0] == taken


def test_its_code_is_found_before_that_of_the_host(host: Host, tmp_path: Path) -> None:
    """Also where the packages of the host's Ansible are regular ones, which come before those without __init__.py."""
    host.well()
    package = tmp_path / "packages" / "ansible_collections"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    done = subprocess.run(
        ["/usr/bin/python3", str(host.path / "current" / "run.py"), "backup"],
        env={"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_job_that_is_replaced_while_it_runs_goes_on(host: Host) -> None:
    """Also when the code that it began with is no longer there."""
    bad = {"module": "offsite", "params": {"dest": str(host.dest), "tool": "rsync", "target": "/no/such/place"}}
    host.params["jobs"][0]["steps"] = [host.step(), bad]
    host.well()
    code = host.path / "current" / "run.py"
    hook = (
        "import shutil, runpy, sys; sys.argv = [%r, 'backup'];"
        "sys.addaudithook(lambda event, _given: shutil.rmtree(%r, True) if event == 'fcntl.flock' else None);"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", hook % (str(code), str(host.path / "lib"))],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (host.path / "lib").exists()
    assert done.stdout.startswith("backup of shop: pm2_dump_backup: changed")
    assert "/no/such/place" in done.stderr


def test_a_quiet_job_that_ends_well_says_nothing(host: Host) -> None:
    """Its warnings are in the log; with --quiet they are told where it fails."""
    host.well()
    assert host.run("backup", "--quiet").returncode == 0
    (host.dest / "stray").touch()
    host.params["jobs"][0]["steps"] = [host.step(state="verified")]
    host.well()
    done = host.run("backup", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "stray in the store is not a backup" in (host.path / "log").read_text()
    assert "stray in the store is not a backup" in host.run("backup").stderr
    for path in host.dest.glob("*-pm2-*/dump.pm2"):
        path.write_text("[]")
    done = host.run("backup", "--quiet")
    assert done.returncode == 1
    assert "stray in the store is not a backup" in done.stderr


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"keep_lasst": 3}, "keep_lasst"),
        ({"keep_last": "many"}, "keep_last"),
        ({"state": "gone"}, "state must be one of"),
        ({"dest": None}, "dest"),
    ],
)
def test_the_options_of_a_step_are_checked_when_it_is_installed(host: Host, params: Dict[str, Any], says: str) -> None:
    host.well()
    message = host.refused(jobs=[{"name": "backup", "ping_url": f"https://{SECRET}", "steps": [host.step(**params)]}])
    assert says in message
    assert "pm2_dump_backup in the job backup" in message
    assert "Nothing was changed." in message


def test_no_option_of_a_step_is_shown(host: Host) -> None:
    result = host.call(jobs=[{"name": "backup", "steps": [host.step(login_password=SECRET)]}])
    assert result["failed"]
    assert SECRET not in json.dumps(result)
    assert host.well()["invocation"]["module_args"]["jobs"] == "********"


def test_a_place_that_others_can_change_is_refused(host: Host, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert "is not safe" in host.refused(path=str(shared / "job"))
    assert "is not safe" in host.refused(log=str(shared / "log"))
    assert not (shared / "job").exists()


def test_it_is_removed_and_its_log_stays(host: Host, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    host.params["metrics_dir"] = str(metrics)
    host.well()
    host.run("backup")
    assert len(list(metrics.iterdir())) == 1
    assert host.well(check=True, state="absent")["changed"] is True
    assert host.run("backup").returncode == 0
    assert host.well(state="absent")["changed"] is True
    assert not (host.path / "current").exists()
    assert not (host.path / "lib").exists()
    assert not list(metrics.iterdir())
    assert (host.path / "log").exists()
    assert host.well(state="absent")["changed"] is False


def test_metrics_do_not_stay_where_they_are_no_longer_written(host: Host, tmp_path: Path) -> None:
    for changes in ({"metrics_dir": "other"}, {"name": "other"}, {"metrics_dir": None}):
        for name in ("metrics", "other"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            (tmp_path / name).mkdir()
        host.params.update(metrics_dir=str(tmp_path / "metrics"), name="shop")
        host.well()
        host.run("backup")
        assert len(list((tmp_path / "metrics").iterdir())) == 1
        host.params.update(changes)
        if changes.get("metrics_dir"):
            host.params["metrics_dir"] = str(tmp_path / "other")
        assert host.well()["changed"] is True
        assert not list((tmp_path / "metrics").iterdir())


def test_a_job_runs_now_and_tells_each_step(host: Host) -> None:
    result = host.well(check=True, state="done", job="backup")
    assert (result["changed"], result["steps"][0]["result"]["backup"]) == (True, None)
    assert not host.path.exists()
    assert not host.dest.exists()

    result = host.well(state="done", job="backup")
    assert result["steps"][0]["result"]["backup"]["id"] in os.listdir(host.dest)
    assert host.well(state="done", job="backup")["changed"] is False

    bad = host.step(namespace="nobody", backup="latest", state="verified")
    result = host.call(state="done", job="backup", jobs=[{"name": "backup", "steps": [bad, host.step()]}])
    assert result["failed"]
    assert [step["failed"] for step in result["steps"]] == [True, False]
    assert result["msg"].startswith("pm2_dump_backup: ")

    message = host.refused(state="done", job="drill")
    assert "There is no job 'drill' of shop. There are: backup" in message
    assert "job" in host.refused(state="done")


def test_a_backup_that_is_none_to_rely_on_fails_the_job(host: Host, tmp_path: Path) -> None:
    home = tmp_path / "pm2"
    home.mkdir()
    dump = json.loads(Path(host.params["pm2_home"], "dump.pm2").read_text())
    dump[0]["pm_exec_path"] = str(tmp_path / "gone.js")
    (home / "dump.pm2").write_text(json.dumps(dump))
    result = host.call(state="done", job="backup", pm2_home=str(home))
    assert result["failed"]
    assert "gone.js" in result["msg"]
    assert result["steps"][0]["result"]["backup"]["verified"] is False
    assert json.loads((host.path / "last-backup.json").read_text())["exit_code"] == 1


def test_bad_calls_of_the_program_have_an_exit_code_of_their_own(host: Host) -> None:
    host.well()
    for command in ([], ["restore"], ["backup", "now"]):
        done = host.run(*command)
        assert done.returncode == 2, command
        assert done.stderr
    (host.path / "current" / "config.json").write_text("{")
    done = host.run("backup")
    assert done.returncode == 2
    assert "nodeops.pm2.backup" in done.stderr
    shutil.rmtree(host.path / "lib")
    assert host.run("backup").returncode != 0


def test_a_full_disk_leaves_what_was_installed(host: Host) -> None:
    host.well()
    before = tree(host.path)
    host.params["jobs"][0]["steps"] = [host.step(keep_last=9)]
    with Runner() as runner:
        result = runner.run("backup_job", host.params, file_limit=20000).result
    assert result
    assert result["failed"]
    assert "What was installed before is as it was." in result["msg"]
    assert {name: content for name, content in tree(host.path).items() if "/.new/" not in name} == before
    assert host.well()["changed"] is True
    assert "/.new/" not in str(tree(host.path).keys())


def test_the_lock_of_an_installation_is_waited_for(host: Host) -> None:
    host.well()
    host.params["jobs"][0]["steps"] = [host.step(keep_last=9)]
    with _files.lock_file(str(host.path / "lock"), "", 1.0):
        started = modules.spawn("backup_job", host.params)
        assert processes.alive(started.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(2.0)
    assert modules.finish(started)["changed"] is True
