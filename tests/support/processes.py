"""Processes in /proc: finds those that belong to a directory of a test, and ends them for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Set


class Found(NamedTuple):
    """A process that belongs to a directory."""

    pid: int
    why: str
    cmdline: str


def all_pids() -> Iterator[int]:
    """Every pid of the machine."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def read(pid: int, name: str) -> bytes:
    """`/proc/<pid>/<name>`; empty for a process that is gone, a zombie, or another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def environ(pid: int) -> dict[str, str]:
    """The environment that the process was started with."""
    items = (item.partition(b"=") for item in read(pid, "environ").split(b"\0") if item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _equals, value in items}


def cmdline(pid: int) -> str:
    """The command line, its arguments joined by spaces."""
    return os.fsdecode(read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" "))


def parent(pid: int) -> int:
    """The parent's pid; 0 if there is none or none any more."""
    fields = read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    fields = read(pid, "stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def descendants(pid: int) -> Set[int]:
    """All children of `pid`, and their children."""
    parents = {child: parent(child) for child in all_pids()}
    found = {pid}
    grown = True
    while grown:
        new = {child for child, its in parents.items() if its in found} - found
        found |= new
        grown = bool(new)
    return found - {pid}


def belonging_to(directory: Path) -> List[Found]:
    """The processes that belong to `directory`: their PM2_HOME, working directory or a path they name lies in it.

    The caller and its ancestors do not count; their command line may name the directory.
    """
    own = set()
    pid = os.getpid()
    while pid:
        own.add(pid)
        pid = parent(pid)
    found = ((pid, _why(pid, str(directory))) for pid in all_pids() if pid not in own)
    return [Found(pid, why, cmdline(pid)) for pid, why in found if why and alive(pid)]


def _why(pid: int, directory: str) -> Optional[str]:
    home = environ(pid).get("PM2_HOME", "")
    if _inside(home, directory):
        return f"PM2_HOME={home}"
    if any(_inside(os.fsdecode(word), directory) for word in read(pid, "cmdline").split(b"\0")):
        return "command line names it"
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    return f"cwd={cwd}" if _inside(cwd, directory) else None


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def end(pids: Iterable[int]) -> None:
    """SIGKILL these and all that they start meanwhile. They are stopped first, so that none can start another."""
    targets = set(pids)
    for pid in targets:
        _signal(pid, signal.SIGSTOP)
    for pid in list(targets):
        targets |= descendants(pid)
    for pid in targets:
        _signal(pid, signal.SIGKILL)


def end_all_of(directory: Path, timeout: float = 10.0) -> List[Found]:
    """End every process that belongs to `directory`. Returns those that are left after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = belonging_to(directory)
        if not found or time.monotonic() > deadline:
            return found
        end(item.pid for item in found)
        time.sleep(0.02)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
