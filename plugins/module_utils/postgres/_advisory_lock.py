# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The lock on the server that keeps two restores of one database apart, whatever their host and store.

It is an advisory lock of the session: the server frees it when the session ends. Such locks hold within one database,
so all restores connect to the same one (``maintenance_db``).
"""

from __future__ import annotations

import time
from typing import Any, Iterable

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _names

_PAUSE = 0.05  # seconds between two tries


def try_lock(session: Any, name: str) -> bool:
    """Whether the lock was free. Then ``session`` holds it until it ends."""
    return bool(session.value("SELECT pg_try_advisory_lock(%d)::int" % _names.lock_key(name)) == "1")


def lock(session: Any, names: Iterable[str], timeout: float) -> None:
    """Get the locks of all ``names``, waiting up to ``timeout`` seconds. Raises NodeopsError saying who holds one."""
    deadline = time.monotonic() + timeout
    for name in sorted(set(names)):
        while not try_lock(session, name):
            if time.monotonic() >= deadline:
                raise NodeopsError(
                    "Another backup or restore works on database %s (%s) and did not finish within %g s. Nothing was "
                    "changed. Wait for it to end, then run again." % (name, _holder(session, name), timeout)
                )
            time.sleep(_PAUSE)


def _holder(session: Any, name: str) -> str:
    key = _names.lock_key(name)
    rows = session.query(
        "SELECT a.pid, a.usename, coalesce(host(a.client_addr), 'the server itself')"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND l.objsubid = 1 AND l.classid = %d AND l.objid = %d" % (key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF)
    )
    return "server process %s of %s from %s" % tuple(rows[0]) if rows else "it has just ended"
