"""What is read of processes in /proc, and the check that no other file reads it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs
from support import places

GONE = 2**22 + 1
"""Above the kernel's highest pid (PID_MAX_LIMIT)."""

WORDS = {
    "_trusted_path.py": {"/proc/sys/kernel/overflowuid", "/proc/self/uid_map"},
    "_process_id.py": {"/proc/sys/kernel/random/boot_id"},
    "_sockets.py": {"/proc/net/tcp", "/proc/net/tcp6"},
}
"""What other files of `host` may read: tables of the system, each in one file."""


@contextlib.contextmanager
def child(**environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that reports its start, then waits."""
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "one", "two"],
        env=environment,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.communicate()


def test_the_properties_of_a_process() -> None:
    with child(NAME="a=b", EMPTY="") as process:
        pid = process.pid
        stat = _procfs.stat(pid)
        assert stat is not None
        assert (stat.parent, stat.group, stat.runs) == (os.getpid(), pid, True)
        assert 0 < stat.start <= time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
        assert pid in _procfs.pids()
        assert _procfs.owner(pid) == os.geteuid()
        assert _procfs.command_line(pid).endswith(b"\0one\0two\0")
        assert _procfs.command_line(pid, 4) == os.fsencode(sys.executable)[:4]
        assert _procfs.environment(pid).items() >= {"NAME": "a=b", "EMPTY": ""}.items()
        assert b"NAME=a=b\0" in _procfs.environment_block(pid)
        assert _procfs.program(pid) == os.path.realpath(sys.executable)
        assert _procfs.working_directory(pid) == "/"


def test_the_first_of_two_variables_of_one_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_procfs, "environment_block", lambda _pid: b"A=1\0B=\0A=2\0\0")
    assert _procfs.environment(1) == {"A": "1", "B": ""}


def test_a_name_may_have_spaces_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        while _procfs.command_line(process.pid) != os.fsencode(program) + b"\0" + b"1000\0":
            time.sleep(0.01)
        stat = _procfs.stat(process.pid)
        process.kill()
    assert stat is not None
    assert stat.runs
    assert stat.parent == os.getpid()


def test_a_zombie_does_not_run() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        stat = _procfs.stat(pid)
        assert stat is not None
        assert not stat.runs
        assert _procfs.environment(pid) == {}
        assert _procfs.command_line(pid) == b""
    finally:
        os.waitpid(pid, 0)


def test_a_process_that_is_gone_is_absent_and_not_an_error() -> None:
    assert _procfs.stat(GONE) is None
    assert _procfs.owner(GONE) is None
    assert _procfs.command_line(GONE) == b""
    assert _procfs.environment_block(GONE) == b""
    assert _procfs.environment(GONE) == {}
    assert _procfs.program(GONE) is None
    assert _procfs.working_directory(GONE) is None
    assert list(_procfs.sockets(GONE)) == []
    assert not _procfs.has_open(GONE, os.stat("/"))


def test_the_open_files_of_a_process() -> None:
    with socket.socket() as mine, tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        assert os.fstat(mine.fileno()).st_ino in _procfs.sockets(os.getpid())
        assert os.fstat(file.fileno()).st_ino not in _procfs.sockets(os.getpid())
        found = os.fstat(other.fileno())
        assert _procfs.has_open(os.getpid(), found)
        assert os.path.samestat(os.stat(_procfs.descriptor_path(os.getpid(), other.fileno())), found)
        other.close()
        assert not _procfs.has_open(os.getpid(), found)


def test_all_but_some_descriptors_are_closed() -> None:
    with tempfile.TemporaryFile() as kept, tempfile.TemporaryFile():
        pid = os.fork()
        if pid == 0:
            try:
                _procfs.close_descriptors(but=(2, kept.fileno()))
                os._exit(0 if {int(name) for name in os.listdir("/proc/self/fd")} <= {0, 2, kept.fileno()} else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_pid_namespace_has_a_name() -> None:
    assert re.fullmatch(r"pid:\[\d+\]", _procfs.pid_namespace() or "")


def test_no_other_file_reads_proc() -> None:
    found = {
        path.name: set(re.findall(r"[\"'](/proc\b[^\"']*)", path.read_text()))
        for path in (places.ROOT / "plugins").rglob("*.py")
        if path.name != "_procfs.py"
    }
    assert {name: words for name, words in found.items() if words} == WORDS
