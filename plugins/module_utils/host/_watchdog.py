# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What is to be done when this process is killed in a way that leaves it no time (SIGKILL, out of memory)."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Iterator, NoReturn

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs


@contextlib.contextmanager
def group_ends_with_us(group: int) -> Iterator[None]:
    """If this process dies within, the process group is killed: by a process of its own session that waits for it.

    Raises OSError when that cannot be started.
    """
    inside, outside = os.pipe()  # its end is seen when nobody holds ``outside`` any more
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
    """Nothing else of our process stays open here: who waits for the end of its output must not wait for this."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
        os.chdir("/")
        _procfs.close_descriptors(but=(inside,))
        os.read(inside, 1)
        os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)
