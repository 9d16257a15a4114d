# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A watchdog for programs that we start: it ends them if this process is killed (SIGKILL, out of memory)."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Iterator, NoReturn

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs


@contextlib.contextmanager
def group_ends_with_us(group: int) -> Iterator[None]:
    """Within, a watchdog kills the process group if this process dies. The watchdog has a session of its own.

    Raises OSError if the watchdog cannot be started.
    """
    inside, outside = os.pipe()  # the watchdog reads its end when this process, the only writer, is gone
    try:
        watch = os.fork()
        if watch == 0:
            _watch(inside, group)
    except OSError:
        os.close(outside)
        raise
    finally:
        os.close(inside)
    try:
        yield
    finally:
        os.kill(watch, signal.SIGKILL)
        os.waitpid(watch, 0)
        os.close(outside)


def _watch(inside: int, group: int) -> NoReturn:
    """Everything else is closed: a caller that waits for the end of our output must not wait for the watchdog."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
        os.chdir("/")
        _procfs.close_descriptors(but=(inside,))
        os.read(inside, 1)
        os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)
