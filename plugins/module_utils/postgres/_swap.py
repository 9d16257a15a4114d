# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The swap: new connections are refused, old ones end, and all databases are renamed in one transaction."""

from __future__ import annotations

import time
from typing import Dict, Iterable, List, Sequence, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import identifier, literal
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server, is_lost

IN_USE = "55006"  # object_in_use
LOCKED = "55P03"  # lock_not_available
_PAUSE = 0.02  # seconds between two looks at who is connected
_LOCK_TIMEOUT = 5  # seconds for the renames to get their locks


def is_swapped(existing: Iterable[str], swaps: Sequence[Swap]) -> bool:
    """Whether these databases are swapped, by the names that exist. All are or none, as it is one transaction."""
    there = set(existing)
    return all(
        (swap.previous in there and swap.name in there)
        if swap.previous
        else (swap.name in there and swap.incoming not in there)
        for swap in swaps
    )


def renames(swaps: Iterable[Swap]) -> List[Tuple[str, str]]:
    """The renames that put the incoming databases in place."""
    moves = []
    for swap in swaps:
        if swap.previous:
            moves.append((swap.name, swap.previous))
        moves.append((swap.incoming, swap.name))
    return moves


def renames_back(swaps: Iterable[Swap]) -> List[Tuple[str, str]]:
    """The renames that undo ``renames``."""
    return [(after, before) for before, after in reversed(renames(swaps))]


def fence(server: Server, names: Iterable[str], timeout: float) -> None:
    """Refuse new connections, also those of superusers. Present ones stay. ``timeout``: see ``unfence``."""
    deadline = time.monotonic() + timeout
    for name in names:
        _allow(server, name, False, deadline - time.monotonic())


def unfence(server: Server, names: Iterable[str], timeout: float) -> List[str]:
    """Allow connections to those that are fenced. Returns them. Names of missing databases are left out.

    Raises NodeopsError if the transaction of another session holds the database for longer than ``timeout`` seconds.
    """
    opened = []
    for name in names:
        found = _databases.read(server, name)
        if found is not None and not found["open"]:
            _allow(server, name, True, timeout)
            opened.append(name)
    return opened


def _allow(server: Server, name: str, allowed: bool, timeout: float) -> None:
    verb, word = ("opened", "true") if allowed else ("closed", "false")
    try:
        server.execute("ALTER DATABASE %s ALLOW_CONNECTIONS %s" % (identifier(name), word), True, max(0.0, timeout))
    except PgError as error:
        if error.sqlstate != LOCKED:
            raise
        raise NodeopsError(
            "Database %s could not be %s to connections in time: an open transaction has changed it (GRANT … ON "
            "DATABASE, ALTER DATABASE). End that transaction (pg_stat_activity), then run again." % (name, verb)
        ) from error


def disconnect(server: Server, names: Sequence[str], timeout: float) -> None:
    """End every connection to the fenced databases. Raises NodeopsError naming those that stay after ``timeout`` s.

    A worker of autovacuum, which has no user, does not count: a rename ends it.
    """
    listed = ", ".join(map(literal, names))
    deadline = time.monotonic() + timeout
    refused: Set[str] = set()
    while True:
        left = server.query(
            "SELECT datname, coalesce(usename, usesysid::text), coalesce(application_name, ''), pid"
            " FROM pg_stat_activity WHERE datname IN (%s) AND usesysid IS NOT NULL ORDER BY pid" % listed
        )
        if not left:
            return
        for pid in {row[3] or "" for row in left} - refused:
            if not _terminate(server, pid):
                refused.add(pid)
        if time.monotonic() >= deadline:
            raise NodeopsError(
                "%d connections did not end within %g s: %s."
                % (len(left), timeout, "; ".join("%s by %s (%s, pid %s)" % tuple(row) for row in left[:5]))
            )
        time.sleep(_PAUSE)


def _terminate(server: Server, pid: str) -> bool:
    """False if we may not do that: the connection may end by itself."""
    try:
        server.query("SELECT pg_terminate_backend(%s)" % pid)
    except PgError as error:
        if error.sqlstate != "42501":
            raise
        return False
    return True


def rename_all(
    server: Server, moves: Sequence[Tuple[str, str]], opened: Sequence[str], timeout: float, verb: str
) -> None:
    """Carry out all ``moves`` (from, to) and open ``opened`` to connections, in one transaction.

    All databases moved are fenced. A connection that slips in while the transaction waits for its locks is ended, for
    up to ``timeout`` seconds. Raises PgError, with the names as they were.
    """
    statements = ["SET LOCAL lock_timeout = '%ds'" % _LOCK_TIMEOUT]
    statements += ["ALTER DATABASE %s RENAME TO %s" % (identifier(one), identifier(other)) for one, other in moves]
    statements += ["ALTER DATABASE %s ALLOW_CONNECTIONS true" % identifier(name) for name in opened]
    deadline = time.monotonic() + timeout
    while True:
        disconnect(server, [before for before, _after in moves], max(0.0, deadline - time.monotonic()))
        try:
            server.transaction(statements, lambda: _points.reached("%s renamed" % verb))
            return
        except PgError as error:
            if is_lost(error) and _is_done(_databases.names(server), moves):
                return
            if error.sqlstate != IN_USE or time.monotonic() >= deadline:
                raise


def _is_done(existing: Iterable[str], moves: Sequence[Tuple[str, str]]) -> bool:
    """Whether the transaction was committed before its connection was lost."""
    there = set(existing)
    after: Dict[str, bool] = {}
    for one, other in moves:
        after[one] = False
        after[other] = True
    return all((name in there) == present for name, present in after.items())
