# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a deploy, between real processes: it outlives tasks, names its owner, and ends with its run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_id
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release._lease import Lease, Owner
from support import places

PATIENCE = 60.0

# One task of a run, a child of the process that drives the run. It takes the lock, then works for some seconds.
TASK = """
import sys, time
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.release._lease import Lease, Owner
directory, run, controller, seconds, may_be_ended = sys.argv[1:]
owner = Owner(run, "mary", "laptop", "", "now", "shop", "prod", "deploy", "v2", int(controller))
lease = Lease(directory, owner)
with _signals.raised():
    lease.acquire(0)
    print("locked", flush=True)
    try:
        with lease.working(may_be_ended == "yes"):
            time.sleep(float(seconds))
        print("done", flush=True)
    except _signals.Interrupted:
        print("put back", flush=True)
"""
# The driver of a run: it starts a task, waits for it, and goes on.
DRIVER = """
import os, subprocess, sys, time
subprocess.run([*sys.argv[1:6], str(os.getpid()), *sys.argv[6:]])
time.sleep(600)
"""


def owner(run: str, pid: int = 0) -> Owner:
    return Owner(
        run, "joe", "desk", "https://ci.example.org/7", "2026-11-22T09:00:00Z", "shop", "prod", "deploy", "v3", pid
    )


def lease(directory: Path, run: str) -> Lease:
    """The lease of a run whose driver is this process's parent, which outlives the test."""
    return Lease(str(directory), owner(run, os.getppid()))


@pytest.fixture(name="drivers")
def _drivers(tmp_path: Path) -> Iterator[List[subprocess.Popen[str]]]:
    running: List[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()
    eventually(lambda: is_free(tmp_path))


def drive(
    drivers: List[subprocess.Popen[str]], directory: Path, run: str, seconds: float = 0, may_be_ended: bool = True
) -> subprocess.Popen[str]:
    """Start a driver with a task, and wait until the task has the lock."""
    task = [sys.executable, "-c", TASK, str(directory), run]
    end = [str(seconds), "yes" if may_be_ended else "no"]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *task, *end],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(places.COLLECTIONS)},
    )
    drivers.append(process)
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def said(directory: Path) -> Dict[str, Any]:
    found = json.loads((directory / "deploy.lock").read_text())
    assert isinstance(found, dict)
    return found


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_free(directory: Path) -> bool:
    other = lease(directory, "another-run")
    try:
        other.acquire(0)
    except NodeopsError:
        return False
    other.release()
    return True


def test_it_is_kept_after_the_task_has_ended_and_names_its_owner(
    tmp_path: Path, drivers: List[subprocess.Popen[str]]
) -> None:
    driver = drive(drivers, tmp_path, "first")
    assert driver.stdout
    assert driver.stdout.readline() == "done\n"
    with pytest.raises(NodeopsError) as refusal:
        lease(tmp_path, "second").acquire(0)
    message = str(refusal.value)
    for part in (
        "shop",
        "prod",
        "deploy of v2",
        "mary",
        f"laptop, pid {driver.pid}",
        "run first",
        "Nothing was changed",
    ):
        assert part in message
    assert refusal.value.details["locked_by"]["user"] == "mary"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"goal": "from /srv/shop"}, "a deploy of v3 by joe"),
        ({"version": "", "goal": "from /srv/shop"}, "a deploy from /srv/shop by joe"),
        ({"version": ""}, "a deploy by joe"),
        ({"action": "rollback"}, "a rollback to v3 by joe"),
        ({"action": "rollback", "version": "", "goal": "to the release before"}, "a rollback to the release before by"),
    ],
)
def test_it_names_the_version_as_far_as_it_is_known(fields: Dict[str, Any], text: str) -> None:
    assert owner("first")._replace(**fields).text().startswith(text)


def test_the_same_run_takes_it_again(tmp_path: Path, drivers: List[subprocess.Popen[str]]) -> None:
    drive(drivers, tmp_path, "first")
    lease(tmp_path, "first").ensure()
    lease(tmp_path, "first").note_version("9" * 20_000)  # from a package.json: the lock has room for it
    with pytest.raises(NodeopsError, match=r"deploy of 9{200} by"):
        lease(tmp_path, "second").ensure()
    lease(tmp_path, "second").release()  # of another run: nothing happens
    assert not is_free(tmp_path)
    lease(tmp_path, "first").release()
    assert is_free(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_driver_of_the_run(
    tmp_path: Path, drivers: List[subprocess.Popen[str]], number: signal.Signals
) -> None:
    driver = drive(drivers, tmp_path, "first")
    assert not is_free(tmp_path)
    driver.send_signal(number)
    driver.wait()
    eventually(lambda: is_free(tmp_path))


def test_a_task_whose_driver_is_gone_undoes_its_change_before_the_lock_is_free(
    tmp_path: Path, drivers: List[subprocess.Popen[str]]
) -> None:
    driver = drive(drivers, tmp_path, "first", seconds=60)
    eventually(lambda: bool(said(tmp_path).get("operation")))
    driver.kill()
    assert driver.stdout
    assert driver.stdout.readline() == "put back\n"
    eventually(lambda: is_free(tmp_path))


def test_a_task_that_must_not_be_ended_keeps_the_lock_until_it_is_done(
    tmp_path: Path, drivers: List[subprocess.Popen[str]]
) -> None:
    driver = drive(drivers, tmp_path, "first", seconds=6, may_be_ended=False)
    eventually(lambda: bool(said(tmp_path).get("operation")))
    driver.kill()
    time.sleep(0.6)
    assert not is_free(tmp_path)
    assert driver.stdout
    assert driver.stdout.readline() == "done\n"
    eventually(lambda: is_free(tmp_path))


def test_a_run_takes_it_again_if_its_holder_is_gone_unless_another_run_had_it(tmp_path: Path) -> None:
    mine = lease(tmp_path, "first")
    mine.acquire(0)
    holder = _process_id.ProcessId(*said(tmp_path)["holder"])
    os.kill(holder.pid, signal.SIGKILL)
    eventually(lambda: not holder.alive())
    mine.ensure()
    assert not is_free(tmp_path)
    mine.release()

    other = lease(tmp_path, "second")
    other.acquire(0)
    other.release()
    with pytest.raises(NodeopsError, match="run second"):
        mine.ensure()


def test_waiting_for_it(tmp_path: Path, drivers: List[subprocess.Popen[str]]) -> None:
    driver = drive(drivers, tmp_path, "first")
    start = time.monotonic()
    with pytest.raises(NodeopsError):
        lease(tmp_path, "second").acquire(0.5)
    assert time.monotonic() - start >= 0.5
    driver.kill()
    driver.wait()
    waiting = lease(tmp_path, "second")
    waiting.acquire(PATIENCE)
    waiting.release()


def test_its_holder_keeps_no_file_of_the_task_open(tmp_path: Path, drivers: List[subprocess.Popen[str]]) -> None:
    drive(drivers, tmp_path, "first")
    pid = said(tmp_path)["holder"][0]
    opened = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert opened == {os.devnull, str(tmp_path / "deploy.lock")}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid


def test_the_lock_of_a_run_that_the_controller_knows_to_have_ended_is_released(
    tmp_path: Path, drivers: List[subprocess.Popen[str]]
) -> None:
    """Over SSH its session may stay open, and then the host cannot know."""
    driver = drive(drivers, tmp_path, "first", seconds=60)
    eventually(lambda: bool(said(tmp_path).get("operation")))
    with pytest.raises(NodeopsError):
        lease(tmp_path, "second").acquire(0, ended="some other run")
    second = lease(tmp_path, "second")
    second.acquire(0, ended="first")
    assert driver.stdout
    assert driver.stdout.readline() == "put back\n"
    assert said(tmp_path)["run"] == "second"
    second.release()


def test_a_holder_whose_pid_was_not_written_is_released(tmp_path: Path, drivers: List[subprocess.Popen[str]]) -> None:
    """Its task was killed after it started the holder, before it wrote the pid."""
    driver = drive(drivers, tmp_path, "first")
    assert driver.stdout
    assert driver.stdout.readline() == "done\n"  # without this it writes the pid too
    content = said(tmp_path)
    del content["holder"]
    (tmp_path / "deploy.lock").write_text(json.dumps(content).ljust(16384))
    lease(tmp_path, "first").release()
    assert is_free(tmp_path)


def test_a_refusal_tells_the_controller_how_to_check_whether_that_run_has_ended(
    tmp_path: Path, drivers: List[subprocess.Popen[str]]
) -> None:
    drive(drivers, tmp_path, "first")
    with pytest.raises(NodeopsError) as refusal:
        lease(tmp_path, "second").acquire(0)
    assert {"run", "pid", "start", "place"} <= set(refusal.value.details["locked_by"])
