# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Process groups of programs that we start: sending signals to all members, and waiting until all have ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Iterator

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs

PATIENCE = 10.0
"""Seconds to wait for a process after SIGKILL. One that takes longer hangs in the kernel (a dead network drive)."""


def send(group: int, number: int) -> None:
    """A signal to all members, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill(group: int) -> None:
    """SIGKILL to all members."""
    send(group, signal.SIGKILL)


def await_end(group: int) -> None:
    """Wait, after SIGKILL and the end of its leader, until no other member runs: one could still write to files."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and _exists(group) and any(members(group)):
        time.sleep(0.002)


def members(group: int) -> Iterator[int]:
    """The pids of its running processes, without zombies."""
    for pid in _procfs.pids():
        stat = _procfs.stat(pid)
        if stat is not None and stat.group == group and stat.runs:
            yield pid


def _exists(group: int) -> bool:
    """Whether it has members, including zombies: far cheaper than to list them."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
