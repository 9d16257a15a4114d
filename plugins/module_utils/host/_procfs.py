# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the kernel tells about processes: /proc/<pid>, see proc(5). No other file reads it.

A process may end at any moment, and what belongs to another user may be hidden. Both read as absent: None or empty,
never an error.
"""

from __future__ import annotations

import contextlib
import os
from typing import Container, Dict, Iterator, List, NamedTuple, Optional, Union

_SOCKET = "socket:["


class Stat(NamedTuple):
    """The fields of /proc/<pid>/stat that are used here."""

    state: str
    parent: int
    group: int
    start: int
    """Clock ticks since boot: a pid that was given away again has another."""

    @property
    def runs(self) -> bool:
        """A zombie has a pid and does nothing."""
        return self.state not in "ZX"


def pids() -> List[int]:
    """All processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat(pid: int) -> Optional[Stat]:
    """Its state, and whose child it is."""
    try:
        fields = _read(pid, "stat").rpartition(b")")[2].split()  # its name before may have spaces and brackets
        return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[2]), int(fields[19]))
    except (ValueError, IndexError):
        return None


def owner(pid: int) -> Optional[int]:
    """The uid it runs as."""
    try:
        return os.stat("/proc/%d" % pid).st_uid
    except OSError:
        return None


def command_line(pid: int, limit: int = -1) -> bytes:
    """Its arguments, each ended by NUL, or the title that it has written over them; ``limit``: bytes."""
    return _read(pid, "cmdline", limit)


def environment_block(pid: int) -> bytes:
    """What it was started with: NAME=value, each ended by NUL."""
    return _read(pid, "environ")


def environment(pid: int) -> Dict[str, str]:
    """What it was started with, by name; of one that is there twice the first, as getenv(3) finds it."""
    pairs = (item.partition(b"=") for item in reversed(environment_block(pid).split(b"\0")) if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _equals, value in pairs}


def program(pid: int) -> Optional[str]:
    """The path of the binary it runs."""
    return _link(pid, "exe")


def working_directory(pid: int) -> Optional[str]:
    """The real path of the directory it works in."""
    return _link(pid, "cwd")


def pid_namespace() -> Optional[str]:
    """Names the PID namespace of this process."""
    return _link("self", "ns/pid")


def sockets(pid: int) -> Iterator[int]:
    """The inodes of the sockets it has open."""
    for descriptor in _descriptors(pid):
        target = _link(pid, "fd/%d" % descriptor)
        if target is not None and target.startswith(_SOCKET):
            yield int(target[len(_SOCKET) : -1])


def has_open(pid: int, file: os.stat_result) -> bool:
    """Whether it has this file open."""
    for descriptor in _descriptors(pid):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(descriptor_path(pid, descriptor)), file):
                return True
    return False


def descriptor_path(pid: int, descriptor: int) -> str:
    """A path by which other programs open what this process has open."""
    return "/proc/%d/fd/%d" % (pid, descriptor)


def close_descriptors(but: Container[int]) -> None:
    """Close everything that this process has open, for one that is to live on alone. Raises OSError without /proc."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in but:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _descriptors(pid: int) -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc/%d/fd" % pid)]
    except OSError:
        return []


def _read(pid: int, name: str, limit: int = -1) -> bytes:
    try:
        with open("/proc/%d/%s" % (pid, name), "rb") as stream:
            return stream.read(limit)
    except OSError:
        return b""


def _link(pid: Union[int, str], name: str) -> Optional[str]:
    try:
        return os.readlink("/proc/%s/%s" % (pid, name))
    except OSError:
        return None
