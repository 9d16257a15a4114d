# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Signals that end a run: before the commit the run is undone, after it they wait until the run is over."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Any, Dict, Iterator, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupted(NodeopsError):
    """A signal asked the run to end: it puts everything back first."""


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within, the first of ``ENDING`` raises Interrupted, later ones are ignored."""
    former = {number: signal.signal(number, _interrupt) for number in ENDING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        while signal.sigtimedwait(ENDING, 0):
            pass
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals of ``ENDING`` that come within are handled at its end: for starting a program with a ``preexec_fn``.

    Python calls hooks around such a fork and ignores what is raised in them. To block the signals would not be enough
    if there are threads: another thread may receive them.
    """
    came: List[int] = []
    handlers: Dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # other threads handle no signals
        handlers = {number: signal.getsignal(number) for number in ENDING}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[came[0]](came[0], None)


@contextlib.contextmanager
def mask_kept() -> Iterator[None]:
    """Signals that ``hold`` blocks within are unblocked at its end."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def hold() -> None:
    """Block signals: from here the run is finished, not undone. What remains is short and cannot be undone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _interrupt(number: int, _frame: Optional[FrameType]) -> None:
    for every in ENDING:
        signal.signal(every, signal.SIG_IGN)
    raise Interrupted("The run was ended by %s." % signal.Signals(number).name)
