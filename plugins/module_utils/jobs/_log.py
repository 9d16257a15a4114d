# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The log of the jobs: one line for each event, with the time in UTC, and one older file."""

from __future__ import annotations

import fcntl
import os
import time

LARGEST = 1024 * 1024
"""Bytes. A larger log is renamed to ``<path>.1``."""


def write(path: str, text: str) -> None:
    """Append ``text`` as one line, 0600. Several jobs may write at once. Raises OSError."""
    line = "%s %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), " ".join(text.split()))
    while True:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            found = os.fstat(handle)
            if not _is(path, found):  # another job has just renamed it
                continue
            if found.st_size > LARGEST:
                os.rename(path, path + ".1")
                continue
            os.write(handle, line.encode("utf-8", "replace"))
            return
        finally:
            os.close(handle)


def _is(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), found)
    except FileNotFoundError:
        return False
