# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Process groups of programs that we start: whom a signal reaches, and when the last of them has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Iterator

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs

PATIENCE = 10.0
"""Seconds after which one that SIGKILL does not end is given up: it hangs in the kernel (a dead network drive)."""


def send(group: int, number: int) -> None:
    """A signal to all members, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill(group: int) -> None:
    """SIGKILL to all members."""
    send(group, signal.SIGKILL)


def await_end(group: int) -> None:
    """After SIGKILL, when its leader is gone: until no other member runs, who may still write somewhere."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and _exists(group) and any(members(group)):
        time.sleep(0.002)


def members(group: int) -> Iterator[int]:
    """The pids of those that run; zombies do not."""
    for pid in _procfs.pids():
        stat = _procfs.stat(pid)
        if stat is not None and stat.group == group and stat.runs:
            yield pid


def _exists(group: int) -> bool:
    """Whether a process group has members, zombies too: far cheaper than to look for them."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
