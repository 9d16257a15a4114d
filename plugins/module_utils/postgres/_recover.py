# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The recovery: what killed runs have left on a server is finished or undone."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _databases,
    _journal,
    _names,
    _preflight,
    _swap,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_failure import RecoveryFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import Switchover, Warn
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings

Recovery = Dict[str, Any]
"""``databases``: whether the ``old`` or the ``new`` one of each is live; ``dropped``, ``kept``, ``opened``: databases;
``started``: processes. ``kept`` were live between a killed restore and this recovery.
"""


class Recoverer:
    """``databases``: those that this call is about, None for all. ``reopens``: without a journal, also open databases
    that an undo may have closed. (Another user may have closed them.) Times are in seconds; ``resurrect_timeout``: see
    ``Switchover``.
    """

    def __init__(
        self,
        server: Server,
        dest: str,
        databases: Optional[Sequence[str]],
        fence_timeout: float,
        lock_timeout: float,
        resurrect_timeout: float,
        reopens: bool,
        timings: Timings,
        warn: Warn,
    ) -> None:
        self._server = server
        self._dest = dest
        self._databases = databases
        self._fence_timeout = fence_timeout
        self._lock_timeout = lock_timeout
        self._resurrect_timeout = resurrect_timeout
        self._reopens = reopens
        self._timings = timings
        self._warn = warn

    def foresee(self) -> Optional[Recovery]:
        """What ``run`` would find. Which database will be live depends on the checks of the application."""
        journal = _journal.read(self._dest)
        found: Recovery = {"databases": {}, "dropped": list(self._leftovers()), "kept": [], "opened": [], "started": []}
        if journal:
            self._check_server(journal)
            existing = _databases.names(self._server)
            swapped = journal.phase == _journal.SWAPPING and _swap.is_swapped(existing, journal.swaps)
            found["databases"] = dict.fromkeys(journal.names, "new" if swapped else "old")
            found["started"] = sorted(process.name for process in journal.processes)
        return found if journal or found["dropped"] else None

    def run(self) -> Optional[Recovery]:
        """Finish or undo it. Returns None if there was nothing. Raises NodeopsError if it has to be tried again."""
        journal = _journal.read(self._dest)
        found: Recovery = {"databases": {}, "dropped": [], "kept": [], "opened": [], "started": []}
        _points.reached("recover begun")
        if journal:
            with self._timings.measure("recover"):
                self._finish(journal, found)
        for scratch, name in self._leftovers().items():
            if self._server.try_lock(name):
                if self._reopens:
                    found["opened"] += _swap.unfence(self._server, [name], self._fence_timeout)
                _databases.drop(self._server, scratch)
                found["dropped"].append(scratch)
                _points.reached("recover leftover dropped")
        if self._reopens:
            found["opened"] += self._forgotten()
        _points.reached("recover done")
        return found if journal or found["dropped"] or found["opened"] else None

    def _finish(self, journal: _journal.Journal, found: Recovery) -> None:
        self._check_server(journal)
        self._server.lock(journal.names, self._lock_timeout)
        switchover = Switchover(self._server, self._dest, journal, self._fence_timeout, self._timings, self._warn)
        with _signals.mask_kept():  # signals that it holds back may end what is done after it
            try:
                outcome = switchover.resume(self._resurrect_timeout)
            except NodeopsError as error:
                raise RecoveryFailed(error, journal.names) from error
        _points.reached("recover finished")
        found["databases"] = dict.fromkeys(journal.names, outcome)
        found.update(
            dropped=switchover.dropped, kept=switchover.kept, opened=switchover.opened, started=switchover.processes
        )

    def _check_server(self, journal: _journal.Journal) -> None:
        here = _preflight.identify(self._server)
        if journal.server != here:
            raise NodeopsError(
                "An interrupted restore of %s has to be finished first (%s). It was on another server: the cluster was "
                "%s, and this one is %s. Nothing was changed. Run state recovered with the connection of that server, "
                "or remove the journal if that server is gone."
                % (
                    ", ".join(journal.names),
                    _journal.path_of(self._dest),
                    journal.server,
                    here,
                )
            )

    def _leftovers(self) -> Dict[str, str]:
        """The scratch databases for the databases of this call, each with the database it was made for.

        If the call is about all databases, those that the login may not drop belong to others: they stay, with a
        warning.
        """
        found, foreign = {}, []
        rows = self._server.query("SELECT datname, pg_has_role(datdba, 'USAGE')::int FROM pg_database ORDER BY 1")
        for name, owned in rows:
            parsed = _names.parse(name or "")
            if not parsed or parsed.kind != "new" or parsed.name not in (self._databases or [parsed.name]):
                continue
            if self._databases is None and owned != "1":
                foreign.append(str(name))
            else:
                found[str(name)] = parsed.name
        if foreign:
            self._warn(
                "%s is left of a restore. It was left alone, because the login does not have the rights of its owner. "
                "Run state recovered as its owner." % ", ".join(foreign)
            )
        return found

    def _forgotten(self) -> List[str]:
        """Open databases that an undo has closed whose journal is lost. Returns them.

        A database that others have closed has no previous database.
        """
        existing = _databases.names(self._server)
        parsed = [_names.parse(name) for name in existing]
        kept = {each.name for each in parsed if each and each.kind == "prev"}
        wanted = [name for name in self._databases or () if name in kept and name in existing]
        return _swap.unfence(self._server, wanted, self._fence_timeout)
