# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The workspace of a source: a temporary directory, which the next run removes if this one is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import tempfile
import time
from typing import Iterator, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_id, _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

PREFIX = "tmp-"
MAX_TEXT = 1 << 20
"""Bytes. A larger file of a source is not read as text."""
_LOCK = "source.lock"
_SURVIVOR_WAIT = 20.0  # seconds


class Workspace(NamedTuple):
    """Where to write while a source is inspected or fetched."""

    private: str
    """The deploy's private directory, which may not exist in check mode."""
    directory: str
    """Temporary, 0700."""
    lock: Optional[int]
    """A descriptor to hand to programs that write below ``private``: while one of them lives, no other run works there.
    None if nothing is to be written there (check mode)."""


@contextlib.contextmanager
def workspace(private: str, check_mode: bool) -> Iterator[Workspace]:
    """A workspace that is removed at the end. What killed runs have left in ``private`` is removed first.

    In check mode it is one of the system's temporary directories, and nothing is written to ``private``. Programs that
    a killed run has started are ended. Raises NodeopsError if another run works there.
    """
    if check_mode:
        with _temporary(None) as directory:
            yield Workspace(private, directory, None)
        return
    handle = os.open(os.path.join(private, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(handle, private)
        sweep(private)
        with _temporary(private) as directory:
            yield Workspace(private, directory, handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _temporary(parent: Optional[str]) -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix=PREFIX if parent else "nodeops-", dir=parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep(private: str) -> None:
    """Remove the temporary directories that killed runs have left. The caller holds the lock of the workspace."""
    for name in os.listdir(private):
        if name.startswith(PREFIX):
            shutil.rmtree(os.path.join(private, name), ignore_errors=True)


def _wait_for(handle: int, private: str) -> None:
    """Take the lock, and write this process into its file."""
    deadline = time.monotonic() + _SURVIVOR_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise NodeopsError(
                    "Another program (git?) still works in %s and did not end within %g s. Nothing was changed. Wait "
                    "for it or end it, then run again." % (private, _SURVIVOR_WAIT)
                ) from None
        _end_survivors(handle)
        time.sleep(0.05)
    os.ftruncate(handle, 0)
    os.pwrite(handle, ("%d %d\n" % (_process_id.find(os.getpid()) or (0, 0))).encode("ascii"), 0)


def _end_survivors(handle: int) -> None:
    """End what a killed run has started. It has the lock file open: a part of git that waits for the network does not
    notice that git itself has ended.
    """
    words = os.pread(handle, 100, 0).decode("ascii", "replace").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return
    if _process_id.ProcessId(int(words[0]), int(words[1])).alive():
        return
    wanted = os.fstat(handle)
    for pid in _procfs.pids():
        if pid != os.getpid() and _procfs.has_open(pid, wanted):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def free(path: str) -> int:
    """The free bytes of the file system that holds ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def disk_full(path: str) -> NodeopsError:
    """The error for a full disk below ``path``."""
    return NodeopsError(
        "The disk that holds %s is full. The source was not fetched. Free some space (keep fewer releases: keep), then "
        "run again." % path
    )


def explained(error: OSError, what: str, path: str) -> NodeopsError:
    """An OSError as an error for users. ``what`` failed; ``path`` is on the disk that may be full."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    place = "%s: " % os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    return NodeopsError("%s: %s%s." % (what, place, error.strerror or error))
