# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""One call of pg_backup: databases dumped into the store, each from one snapshot, with facts about their content."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Mapping, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _backup_verify,
    _connection_options,
    _database_dump,
    _journal,
    _names,
    _programs,
    _psql,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._backup_call import Call, Warn, shown
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version
from ansible_collections.nodeops.pm2.plugins.module_utils.store import (
    _encryption,
    _retention,
    _store_options,
    _stored_backup,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    **_store_options.STORE,
    **_connection_options.CONNECTION,
    "state": {"type": "str", "choices": ["present", "verified", "pruned", "imported"], "default": "present"},
    "databases": {"type": "list", "elements": "str", "required": True},
    "namespace": {"type": "str"},
    "backup": {"type": "str", "default": _stored_backup.LATEST},
    "source": {"type": "path"},
    "sha256": {"type": "str"},
}
"""The options of pg_backup."""


def run(params: Mapping[str, Any], check_mode: bool, warn: Warn) -> Dict[str, Any]:
    """The module's result. ``params`` has every option of ARGUMENTS. Raises NodeopsError.

    A call that fails leaves nothing in the store. What a killed one leaves, the next one removes.
    """
    databases = _names.check_databases(params["databases"])
    rules = _retention.parse(dict(params))
    _encryption.check_recipients(params["age_recipients"])
    makes = params["state"] in ("present", "imported")
    store = Store(params["dest"], params["key_file"], create=makes, check_mode=check_mode)
    call = Call(params, check_mode, warn, store, databases, rules)
    if params["state"] == "verified":
        return _backup_verify.verify(call)
    if params["state"] == "pruned":
        return _prune(call)
    if params["state"] == "imported":
        # Not needed, and so not read, by a backup.
        from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _import

        return _import.run(call)
    return _back_up(call)


# -- state present -----------------------------------------------------------------------------------------------------


def _back_up(call: Call) -> Dict[str, Any]:
    """A new backup of all databases of the call."""
    with connection(call.params) as reached:
        tools, version = _checked_tools(call, reached)
        _check_there(call.databases, tools, reached)
        if call.check_mode:
            return {"changed": True, "backup": None, **_foreseen(call, tools)}
        with call.store.lock("%s was not backed up" % call.what, call.params["lock_timeout"]):
            _warn_of_unfinished(call)
            _backup_verify.verify_unfinished(call, tools)
            with call.store.draft(_stored_backup.POSTGRESQL) as draft:
                content = {}
                for number, name in enumerate(call.databases, 1):
                    content[name] = _database_dump.dump(call, draft, tools, reached, name, "%d.dump" % number)
                backup = _database_dump.commit(call, draft, tools, version, {"databases": content})
            return {"changed": True, "backup": shown(backup), **_pruned(call, {})}


def _checked_tools(call: Call, reached: Connection) -> "tuple[Tools, Version]":
    """The programs that fit the server, and its version. Warns of programs that a restore would refuse.

    Raises NodeopsError.
    """
    tools, version = _psql.tools_for(call.params, reached)
    _programs.check_major(tools, version)
    if tools.is_vulnerable and not call.params["accept_vulnerable_client"]:
        call.warn(
            "%s is version %s, which has %s: it makes backups, but pg_restore will refuse to restore with it. Update "
            "PostgreSQL's client programs to %s or newer."
            % (tools.pg_restore, _programs.shown(tools.version), _programs.CVE, _programs.safe_versions())
        )
    problem = _programs.restorer_problem(tools, version)
    if problem:
        call.warn("%s: it makes backups, but pg_restore will refuse to restore with it." % problem)
    return tools, version


def _check_there(databases: Sequence[str], tools: Tools, reached: Connection) -> None:
    """Raises NodeopsError for a database that does not exist or cannot be connected to."""
    with _psql.Session(tools, reached) as session:
        rows = session.query("SELECT datname, datallowconn, datistemplate FROM pg_database")
    found = {str(name): (allowed == "t", template == "t") for name, allowed, template in rows}
    for name in databases:
        if name not in found:
            near = sorted(each for each in found if each not in _names.RESERVED and not _names.parse(each))
            raise NodeopsError(
                "There is no database %r on %s. Nothing was backed up. There are: %s."
                % (name, reached, ", ".join(near) or "none")
            )
        if not found[name][0]:
            raise NodeopsError(
                "Database %r of %s is closed to connections, as after a restore that was killed. Nothing was backed "
                "up. Run pg_restore with state: recovered." % (name, reached)
            )


def _pruned(call: Call, result: Dict[str, Any]) -> Dict[str, Any]:
    """``result``, and what the keep rules removed, if there are any. Only after a success."""
    if call.rules is None or not call.store.exists:
        return result
    outcome = _retention.prune(call.store, call.scope, call.rules, _stored_backup.now(), call.check_mode)
    return {**result, **_retention.told(outcome, call.warn)}


def _foreseen(call: Call, tools: Tools) -> Dict[str, Any]:
    """What the keep rules would remove after the backup is made and those of killed runs are verified."""
    if call.rules is None:
        return {}
    backups = call.store.backups(scope=call.scope)
    for number, backup in enumerate(backups):
        if backup.verification is None:
            backups[number] = backup._replace(verification={"problems": _backup_verify.look(call, backup, tools)})
    return _retention.told(_retention.foresee(backups, call.rules, _stored_backup.now()), call.warn)


def _warn_of_unfinished(call: Call) -> None:
    """Warn of a killed restore. It is not over, though the application may run, and nothing else reminds of it."""
    with contextlib.suppress(NodeopsError):
        journal = _journal.read(call.store.dest)
        if journal and journal.is_about_live and set(journal.names) & set(call.databases):
            call.warn(
                "A restore of %s was interrupted and is neither finished nor undone. Run pg_restore with state: "
                "recovered." % ", ".join(journal.names)
            )


# -- state pruned ------------------------------------------------------------------------------------------------------


def _prune(call: Call) -> Dict[str, Any]:
    """Remove what no keep rule keeps."""
    if call.rules is None:
        raise NodeopsError("state is pruned, and no keep rule is given. Nothing was removed. Give keep_last, for one.")
    with call.locked("Nothing was removed"):
        result = _pruned(call, {})
    return {"changed": bool(result["removed"]), **result}
