"""PostgreSQL's programs: which are found, which are safe, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _programs
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version


def install(directory: Path, version: str) -> str:
    """Programs that can tell their version, and no more."""
    directory.mkdir(parents=True)
    for name in _programs.PROGRAMS:
        (directory / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return str(directory)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three versions, and Debian's wrapper in PATH."""
    for version in ("14.20", "15.18", "17.12"):
        install(tmp_path / "lib" / version.split(".", maxsplit=1)[0] / "bin", version)
    wrapper = tmp_path / "pg_wrapper"
    shutil.copy(tmp_path / "lib" / "14" / "bin" / "psql", wrapper)
    (tmp_path / "bin").mkdir()
    for name in _programs.PROGRAMS:
        (tmp_path / "bin" / name).symlink_to(wrapper)
    monkeypatch.setattr(_programs, "_PLACES", (str(tmp_path / "lib" / "*" / "bin"),))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("server", "found"),
    [(None, (17, 12)), ((15, 3), (15, 18)), ((14, 1), (14, 20)), ((16, 2), (17, 12)), ((18, 0), (17, 12))],
)
def test_the_servers_own_version_is_the_best(machine: Path, server: Optional[Version], found: Version):
    assert _programs.find(None, server).version == found


def test_path_counts(machine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", install(machine / "own", "18.7") + ":/usr/bin:/bin")
    assert _programs.find(None, (18, 1)).psql == str(machine / "own" / "psql")


def test_pg_bindir(machine: Path):
    assert _programs.find(str(machine / "lib" / "15" / "bin")).version == (15, 18)
    for wrong in (machine, machine / "bin", Path("lib/15/bin")):
        with pytest.raises(NodeopsError, match="does not hold psql, pg_dump and pg_restore"):
            _programs.find(str(wrong))


def test_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_programs, "_PLACES", (str(tmp_path / "*"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeopsError, match="are not installed"):
        _programs.find(None)


@pytest.mark.parametrize("text", ["18devel", "19beta1", "16.2 (Debian 16.2-1.pgdg120+2)"])
def test_odd_versions(tmp_path: Path, text: str):
    tools = _programs.find(install(tmp_path / "bin", text))
    assert tools.version == {"18": (18, 0), "19": (19, 0), "16": (16, 2)}[text[:2]]


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        *(((15, 18), False), ((15, 19), False), ((15, 20), True), ((16, 15), False), ((16, 16), True)),
        *(((17, 11), False), ((17, 12), True), ((18, 6), False), ((18, 7), True)),
        *(((14, 30), False), ((9, 6), False), ((19, 0), True)),
    ],
)
def test_vulnerable_clients(version: Version, safe: bool):
    tools = Tools("psql", "pg_dump", "/x/pg_restore", version)
    _programs.check_client(tools, version, True)
    if safe:
        _programs.check_client(tools, version, False)
        return
    with pytest.raises(NodeopsError, match=r"CVE-2026-116314.*15\.20, 16\.16, 17\.12, 18\.7"):
        _programs.check_client(tools, version, False)


def test_clients_older_than_the_server():
    with pytest.raises(NodeopsError, match=r"The server is PostgreSQL 16\.3, and pg_dump is 15\.20"):
        _programs.check_client(Tools("psql", "pg_dump", "pg_restore", (15, 20)), (16, 3), True)


@pytest.mark.parametrize(
    ("client", "server", "fits"), [(17, 17, True), (16, 15, True), (17, 16, False), (18, 13, False)]
)
def test_clients_that_set_what_the_server_does_not_know(client: int, server: int, fits: bool):
    tools = Tools("psql", "pg_dump", "pg_restore", (client, 99))
    if fits:
        _programs.check_restorer(tools, (server, 0))
        return
    with pytest.raises(NodeopsError, match=rf"transaction_timeout.* Install the client programs of version {server}"):
        _programs.check_restorer(tools, (server, 0))


@pytest.mark.parametrize(
    ("client", "server", "dumped_by", "complaint"),
    [
        (16, 15, "16.3 (Debian 16.3-1)", ""),
        (15, 15, "16.3", "Install the client programs of version 16"),
        (17, 17, "18.1", "Install the client programs of version 18"),
        (15, 15, "17.2", "only restore into a server of version 17 or newer, and this server is 15.0.*of version 15"),
    ],
)
def test_archives_of_a_newer_pg_dump(client: int, server: int, dumped_by: str, complaint: str):
    tools = Tools("psql", "pg_dump", "pg_restore", (client, 99))
    if not complaint:
        _programs.check_archive(tools, (server, 0), dumped_by)
        return
    with pytest.raises(NodeopsError, match=complaint):
        _programs.check_archive(tools, (server, 0), dumped_by)


def test_what_a_program_said_when_it_failed():
    with _programs.Program(["/bin/sh", "-c", "echo one >&2; echo two >&2; exit 3"]) as program:
        with pytest.raises(PgError, match=r"sh failed \(exit code 3\): one \| two"):
            program.wait()
    with _programs.Program(["/bin/sh", "-c", "kill -9 $$"]) as program:
        with pytest.raises(PgError, match="ended by SIGKILL"):
            program.wait()


def test_a_program_ends_with_all_it_has_started(tmp_path: Path):
    with _programs.Program(["/bin/sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait"]) as program:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert program.poll() is None
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


in_parent: List[Callable[[], None]] = []
"""What is done in this process right after a fork, by the hook below."""
os.register_at_fork(after_in_parent=lambda: [action() for action in in_parent])


@pytest.mark.parametrize("_attempt", range(2))
def test_a_signal_while_a_program_starts_is_not_lost(_attempt: int, monkeypatch: pytest.MonkeyPatch):
    """Python ignores what is raised in hooks of a fork, of `logging` for one."""
    started = []
    monkeypatch.setattr(
        "subprocess.Popen", lambda *given, _real=subprocess.Popen, **options: noted(_real(*given, **options))
    )

    def noted(process):
        started.append(process)
        return process

    in_parent.append(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with _signals.raised(), pytest.raises(_signals.Interrupted):
            _programs.start(["/bin/sleep", "300"])
    finally:
        in_parent.clear()
    assert started[0].wait(10) == -signal.SIGKILL


def test_a_program_can_be_ended_by_a_signal():
    """What is blocked or ignored here is not there."""
    with _signals.raised():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _signals.hold()
        process = _programs.start(["/bin/sleep", "300"])
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_a_program_that_takes_too_long():
    with _programs.Program(["/bin/sleep", "300"]) as program:
        with pytest.raises(PgError, match=r"sleep took longer than 0\.1 s"):
            program.wait(0.1)
