# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What one call of pg_restore works with."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases, _preflight
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import LOADING, Journal, Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._recover import Recoverer, Recovery
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import VERIFY, Switchover
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

HOW = "restored"
"""How a backup was verified: it was restored and compared."""

_NO_CHECKS: Dict[str, Any] = {"timeout": 30.0, "min_uptime": 0.0}


class Call:
    """One call: its options, its server and store, and what it has found out so far."""

    def __init__(
        self, params: Mapping[str, Any], check_mode: bool, warn: Callable[[str], None], store: Store, server: Server
    ) -> None:
        self.params = params
        self.check_mode = check_mode
        self.warn = warn
        self.store = store
        self.server = server
        self.timings = Timings()
        self.databases: List[str] = list(params["databases"] or [])
        self.recovered: Optional[Recovery] = None
        """What killed runs left, and this call has finished or undone. In check mode: what it would."""
        self.cleanup_error: Optional[str] = None
        """Why a scratch database is left."""
        self._id = ""

    @property
    def id(self) -> str:
        """The id in the names of databases that this call gives. Read it after the recovery."""
        if not self._id:
            self._id = _databases.new_id(self.server)
        return self._id

    def recoverer(self) -> Recoverer:
        params = self.params
        return Recoverer(
            self.server,
            self.store.dest,
            params["databases"],
            params["fence_timeout"],
            params["lock_timeout"],
            params["resurrect_timeout"],
            params["state"] == "recovered",
            self.timings,
            self.warn,
        )

    def journal(self, verb: str, swaps: List[Swap], backup: Optional[Backup]) -> Journal:
        """What is about to be done. A drill stops no process."""
        params = self.params
        namespace = None if verb == VERIFY else params["namespace"]
        return Journal(
            id=self.id,
            verb=verb,
            phase=LOADING,
            server=_preflight.identify(self.server),
            swaps=swaps,
            backup=backup.id if backup else None,
            namespace=namespace,
            pm2_home=(params["pm2_home"] or _daemon.default_home()) if namespace is not None else None,
            pm2_executable=params["pm2_executable"],
            ready=_NO_CHECKS if verb == VERIFY else dict(params["ready"]),
            healthy=params["healthy"],
            processes=[],
        )

    def switchover(self, journal: Journal) -> Switchover:
        fence_timeout = self.params["fence_timeout"]
        return Switchover(self.server, self.store.dest, journal, fence_timeout, self.timings, self.warn)

    def after_recovery(self, name: str, live: Facts) -> Facts:
        """The properties of a live database, which the recovery opens. In check mode it has not been opened yet."""
        if self.check_mode and self.recovered and name in self.recovered["databases"]:
            return {**live, "open": True}
        return live

    def note_verified(self, backup: Backup, how: str, problems: List[str]) -> Backup:
        """Note the verification in the store. Raises NodeopsError."""
        try:
            return self.store.note_verified(backup, how, problems)
        except NodeopsError as error:
            raise NodeopsError("%s The live database was not touched." % error, error.details) from error
