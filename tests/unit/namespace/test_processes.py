"""What PM2 could not end is ended, and only that."""

from __future__ import annotations

import subprocess
from typing import Iterator

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _processes
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process


@pytest.fixture(name="running")
def _running() -> Iterator["subprocess.Popen[bytes]"]:
    """A process with the environment that PM2 gives to one of this unique_id."""
    with subprocess.Popen(["/bin/sleep", "60"], env={"unique_id": "0123-abcd"}) as started:
        yield started
        started.kill()


def deleted(pid: int, unique_id: str) -> Process:
    return Process({"pm_id": 0, "name": "web", "pid": pid, "pm2_env": {"unique_id": unique_id}})


def test_a_deleted_process_that_lives_on_is_killed(running: "subprocess.Popen[bytes]") -> None:
    _processes._end_survivor(deleted(running.pid, "0123-abcd"))
    assert running.wait(10) == -9


def test_a_process_that_got_the_pid_of_a_deleted_one_is_left_alone(running: "subprocess.Popen[bytes]") -> None:
    _processes._end_survivor(deleted(running.pid, "4567-efgh"))
    _processes._end_survivor(deleted(running.pid, ""))
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.2)
