"""Fixtures of all tests, and two rules of a run: nothing is skipped where CI=true, and no process is left behind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Generator, Iterator, TypeVar, Union

import pytest
from support import durability, places, processes
from support.pm2 import VERSIONS, Pm2Home
from support.postgres import Server

pytest.register_assert_rewrite("e2e")  # what is asserted beside the tests is explained as well
pytest_plugins = ["support.tiers"]

places.use_own_places()
durability.sync_nothing()

IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(params=VERSIONS)
def pm2(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pm2Home]:
    """Each PM2 version, with a fresh PM2_HOME; its daemon and all apps are ended afterwards."""
    yield from _pm2_home(request.param, tmp_path)


@pytest.fixture
def pm2_7(tmp_path: Path) -> Iterator[Pm2Home]:
    """The newest PM2 only, for what does not depend on the version."""
    yield from _pm2_home(VERSIONS[-1], tmp_path)


def _pm2_home(version: str, directory: Path) -> Iterator[Pm2Home]:
    home = Pm2Home(version, directory / "pm2")
    yield home
    home.kill()
    survivors = processes.end_all_of(directory)
    assert not survivors, f"still running after SIGKILL: {survivors}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of this run (one in each worker): take databases with names of your own, and drop them."""
    with Server() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one."""
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a skipped file is a failed one."""
    return _no_skip((yield))


Report = TypeVar("Report", bound=Union[pytest.TestReport, pytest.CollectReport])


def _no_skip(report: Report) -> Report:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {report.longrepr}"
    return report


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of the processes that xdist started: their master begins and ends the run."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A temporary directory with a short name: the path of a socket may not be long."""
    if not _is_worker(config) and not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix="pm2-test-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Whatever the tests left running below their temporary directory is ended, and fails the run; so does a ~/.pm2."""
    if _is_worker(session.config):
        return
    base = Path(session.config.option.basetemp)
    patience = 0 if session.exitstatus == pytest.ExitCode.INTERRUPTED else 30
    deadline = time.monotonic() + patience  # what was told to end may need a moment
    while (running := processes.belonging_to(base)) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [f"still running: {found}" for found in running]
    processes.end_all_of(base)
    if (places.HOME / ".pm2").exists():
        left.append(f"{places.HOME / '.pm2'} exists: something ran pm2 without a PM2_HOME of its own")
    if left:
        print("\nLEFT BEHIND BY THE TESTS\n" + "\n".join(left), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.exitstatus == pytest.ExitCode.OK and base.exists():  # it does not if no test has asked for a directory
        shutil.rmtree(base)
