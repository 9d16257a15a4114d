# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What there is to restore from, and what there is to go back to. Nothing is changed."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases, _journal, _names
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import literal
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store


def status(
    server: Server, store: Store, databases: Optional[Sequence[str]], environment: Optional[str]
) -> Dict[str, Any]:
    """``databases``: by default all that have backups in the store, or that a restore has left something of."""
    existing = _databases.names(server)
    backups = store.backups(_stored_backup.POSTGRESQL) if store.exists else []
    ours = [backup for backup in backups if environment in (None, backup.manifest["environment"])]
    if databases is None:
        wanted = {name for backup in ours for name in backup.manifest["content"].get("databases") or ()}
        wanted |= {parsed.name for parsed in map(_names.parse, existing) if parsed}
        databases = sorted(wanted)
    journal = _journal.read(store.dest)
    return {
        "databases": [_database(server, name, existing, ours) for name in databases],
        "interrupted": None
        if journal is None
        else {"state": journal.verb, "phase": journal.phase, "databases": journal.names},
    }


def _database(
    server: Server, name: str, existing: Sequence[str], backups: Sequence[_stored_backup.Backup]
) -> Dict[str, Any]:
    live = _databases.read(server, name)
    mine = [backup for backup in backups if name in (backup.manifest["content"].get("databases") or ())]
    good = [backup for backup in mine if backup.good and not backup.is_imported]
    return {
        "name": name,
        "exists": live is not None,
        "accepts_connections": bool(live and live["open"]),
        "size": _size(server, name) if live else None,
        "previous": [
            {"name": each, "since": _since(each), "size": _size(server, each)} for each in previous(existing, name)
        ],
        "scratch": [each for each in existing if _is(each, name, "new")],
        "backups": len(mine),
        "newest_good_backup": good[-1].id if good else None,
    }


def previous(existing: Sequence[str], name: str) -> List[str]:
    """The previous databases of ``name``, newest first."""
    return sorted((each for each in existing if _is(each, name, "prev")), reverse=True)


def _is(database: str, name: str, kind: str) -> bool:
    parsed = _names.parse(database)
    return parsed is not None and parsed.name == name and parsed.kind == kind


def _size(server: Server, name: str) -> Optional[int]:
    found = server.value(
        "SELECT CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END"
        " FROM pg_database WHERE datname = %s" % literal(name)
    )
    return int(found) if found else None


def _since(database: str) -> Optional[str]:
    """When it was replaced, by the clock of the host: ``2026-11-24T11:20:31Z``."""
    parsed = _names.parse(database)
    if parsed is None:
        return None
    text = parsed.id
    return "%s-%s-%sT%s:%s:%sZ" % (text[:4], text[4:6], text[6:8], text[8:10], text[10:12], text[12:])
