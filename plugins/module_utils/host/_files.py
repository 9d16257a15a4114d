# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Files that survive a crash, and locks that free themselves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import Callable, Iterator, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

STATE_DIRECTORY = "nodeops"


def state_path(pm2_home: str, name: str) -> str:
    """Where the collection keeps a file of its own: ``$PM2_HOME/nodeops/<name>``."""
    return os.path.join(pm2_home, STATE_DIRECTORY, name)


def same(left: str, right: str) -> bool:
    """Whether two paths lead to the same place, also through links. An empty path leads nowhere."""
    return left == right or (bool(left) and os.path.realpath(left) == os.path.realpath(right))


def why(error: OSError) -> str:
    """Why something could not be written, as the end of a sentence. For a full disk it also says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "%s. Make room on its disk, then run again" % error.strerror
    return str(error.strerror or error)


def write_atomically(
    path: str,
    data: bytes,
    before_rename: Callable[[], None] = lambda: None,
    mode: int = 0o600,
    owner: Tuple[int, int] = (-1, -1),
) -> None:
    """Replace ``path`` by a file with ``data`` and ``mode``: a reader sees the old or the new, also after a power cut.

    ``owner``: user and group id, -1 for that of this process. Writes beside, fsyncs, renames, fsyncs the directory.
    Raises OSError, with the old file in place, if it cannot. ``before_rename`` is called directly before the rename.
    One writer at a time: callers hold a lock.
    """
    temporary = _temporary(path)
    discard_unfinished(path)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(handle, *owner)
        os.fchmod(handle, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        before_rename()
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


@contextlib.contextmanager
def readable_by_all() -> Iterator[None]:
    """Files made within can be read by all users, such as a web server's, whatever umask the user has."""
    former = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(former)


def discard_unfinished(path: str) -> None:
    """Remove what a killed ``write_atomically`` left beside ``path``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_temporary(path))


def _temporary(path: str) -> str:
    return os.path.join(os.path.dirname(path), ".%s.new" % os.path.basename(path))


def sync_directory(directory: str) -> None:
    """Make renames and unlinks in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock(pm2_home: str, name: str, what: str, timeout: float) -> Iterator[None]:
    """Hold ``$PM2_HOME/nodeops/<name>.lock``, as ``lock_file`` does."""
    with lock_file(state_path(pm2_home, name + ".lock"), what, timeout):
        yield


@contextlib.contextmanager
def lock_file(path: str, what: str, timeout: float) -> Iterator[None]:
    """Hold ``path`` (flock), waiting up to ``timeout`` seconds. The file and its directory are made if missing.

    The kernel frees the lock when its holder dies, so it cannot go stale. ``what`` says in the error what could not
    be done. Raises NodeopsError, naming the holder, if the lock was not free in time.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NodeopsError("%s: its lock %s cannot be made: %s." % (what, path, error.strerror)) from error
    try:
        _wait_for(handle, path, what, timeout)
        with contextlib.suppress(OSError):  # only for the error of a run that waits
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"pid %d since %s" % (os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%S%z").encode()), 0)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, path: str, what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(handle, 200, 0).decode("utf-8", "replace") or "an unknown process"
                raise NodeopsError(
                    "%s: another run holds %s (%s) and did not finish within %g s. Nothing was changed. "
                    "Wait for it to end, then run again." % (what, path, holder, timeout)
                ) from None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
