# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pg_restore: from options to a result."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _backup_choice,
    _databases,
    _disk_space,
    _journal,
    _load,
    _names,
    _preflight,
    _programs,
    _psql,
    _restore_options,
    _status,
    _undo,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_call import HOW, Call
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_failure import CallFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import (
    RESTORE,
    UNDO,
    VERIFY,
    Downtime,
    Warn,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

ARGUMENTS = _restore_options.ARGUMENTS

Params = Mapping[str, Any]
Result = Dict[str, Any]

_CONFIRMED = ("restored", "undone")


def run(params: Params, check_mode: bool, warn: Warn) -> Result:
    """The module's result. ``params`` has every option of ARGUMENTS. Raises NodeopsError."""
    check_options(params)
    store = Store(params["dest"], params["key_file"])
    with connection(params) as reached:
        tools, version = _psql.tools_for(params, reached)
        if params["state"] in ("restored", "verified"):
            _programs.check_client(tools, version, params["accept_vulnerable_client"])
            _programs.check_restorer(tools, version)
        with Server(tools, reached) as server:
            return _run(Call(params, check_mode, warn, store, server))


def check_options(params: Params) -> None:
    """Raises NodeopsError for options that are wrong with every server and store."""
    state = params["state"]
    if params["databases"] is not None:
        _names.check_databases(params["databases"])
    elif state not in ("recovered", "status"):
        raise NodeopsError("state %s needs databases. Nothing was changed." % state)
    if state in _CONFIRMED and params["maintenance_db"] in (params["databases"] or ()):
        raise NodeopsError(
            "maintenance_db is %s, which is also in databases: it cannot be replaced over a connection to it. Nothing "
            "was changed. Give another maintenance_db, such as postgres." % params["maintenance_db"]
        )
    if state in _CONFIRMED:
        _preflight.check_confirmation(params["confirm"], params["databases"])
    for name, least in (("jobs", 1), ("keep_previous", 1), ("healthy", 1)):
        if params[name] < least:
            raise NodeopsError("%s is %d. It must be at least %d. Nothing was changed." % (name, params[name], least))
    for name in ("lock_timeout", "stop_timeout", "fence_timeout", "resurrect_timeout"):
        if not 0 <= params[name] < float("inf"):
            raise NodeopsError(
                "%s must be a number of seconds >= 0, not %r. Nothing was changed." % (name, params[name])
            )
    _checks.parse(params["ready"])
    if params["namespace"] is not None:
        check_namespace(params["namespace"])
        _daemon.check_home(params["pm2_home"] or _daemon.default_home())


def _run(call: Call) -> Result:
    state = call.params["state"]
    if state == "status":
        found = _status.status(call.server, call.store, call.params["databases"], call.params["environment"])
        return {"changed": False, "status": found}
    if call.check_mode:
        _check_unfinished(call)
        call.recovered = call.recoverer().foresee()
        return _result(call, _foreseen(call))
    if state == "recovered" and not call.store.exists:
        call.recovered = call.recoverer().run()
        return _result(call, {})
    what = "%s: nothing was %s" % (", ".join(call.databases) or "The databases", state)
    with call.store.lock(what, call.params["lock_timeout"]):
        call.server.lock(call.databases, call.params["lock_timeout"])
        _check_unfinished(call)
        try:
            call.recovered = call.recoverer().run()
            return _result(call, _done(call))
        except NodeopsError as error:
            details: Dict[str, Any] = {}
            if call.recovered:
                details["recovered"] = call.recovered
            if call.timings.measured:
                details["steps"] = call.timings.measured
            raise CallFailed(error, not call.recovered, call.cleanup_error, details) from error


def _check_unfinished(call: Call) -> None:
    """Raises NodeopsError if a drill would have to finish a restore first: a drill changes nothing live."""
    journal = _journal.read(call.store.dest) if call.params["state"] == "verified" else None
    if journal and journal.is_about_live:
        raise NodeopsError(
            "A restore of %s was interrupted, and a drill does not touch live databases. Nothing was verified. Run "
            "state recovered first: that finishes or undoes the restore." % ", ".join(journal.names)
        )


def _foreseen(call: Call) -> Result:
    """The result of check mode, after the same checks."""
    state = call.params["state"]
    if state == "recovered":
        return {}
    _preflight.check_server(call.server)
    if state == "undone":
        swaps = _undo.find_swaps(call)
        call.switchover(call.journal(UNDO, swaps, None)).check(call.params["stop_timeout"])
        return {"changed": True, **_swapped(swaps, None)}
    backup, facts = _backup_choice.choose(call)
    _backup_choice.check_content(call, backup)
    lives = _check_databases(call, facts)
    if state == "verified":
        return {"backup": backup.id, "problems": []}
    swaps = _restore_swaps(call, lives)
    call.switchover(call.journal(RESTORE, swaps, backup)).check(call.params["stop_timeout"])
    return {"changed": True, **_swapped(swaps, backup)}


def _done(call: Call) -> Result:
    state = call.params["state"]
    if state == "recovered":
        return {}
    _preflight.check_server(call.server)
    if state == "undone":
        swaps, downtime = _undo.undo(call)
        return {"changed": True, **_swapped(swaps, None), **_down(downtime)}
    return _restore(call) if state == "restored" else _verify(call)


def _result(call: Call, found: Result) -> Result:
    return {
        "state": call.params["state"],
        "recovered": call.recovered,
        "steps": call.timings.measured,
        **found,
        "changed": bool(found.get("changed") or call.recovered),
    }


# -- restored, verified ------------------------------------------------------------------------------------------------


def _restore(call: Call) -> Result:
    backup, facts = _backup_choice.choose(call)
    _backup_choice.check_content(call, backup)
    lives = _check_databases(call, facts)
    swaps = _restore_swaps(call, lives)
    journal = call.journal(RESTORE, swaps, backup)
    switchover = call.switchover(journal)
    switchover.check(call.params["stop_timeout"])
    switchover.check_room()
    _points.reached("restore checked")
    with _load.loaded(call, journal, backup, facts, lives) as problems:
        if problems:
            call.note_verified(backup, HOW, problems)
            raise NodeopsError(
                "What was restored from backup %s is not what was backed up: %s. The live database was not touched. "
                "The backup does not count as good any more. Choose another one." % (backup.id, "; ".join(problems)),
                {"problems": problems},
            )
        for swap in swaps:
            _databases.apply_properties(call.server, swap.incoming, lives[swap.name] or facts[swap.name])
            _points.reached("restore properties applied")
        call.note_verified(backup, HOW, [])
        for name in call.databases:
            _preflight.check_prepared(call.server, name)
    try:
        downtime = switchover.run()
    except BaseException:
        if not switchover.begun:
            _load.unload(call, journal)
        raise
    with call.timings.measure("prune"):
        _prune(call)
    return {"changed": True, **_swapped(swaps, backup), **_down(downtime)}


def _verify(call: Call) -> Result:
    backup, facts = _backup_choice.choose(call)
    _backup_choice.check_content(call, backup)
    lives = _check_databases(call, facts)
    swaps = [Swap(name, _names.scratch(name, call.id), None) for name in call.databases]
    journal = call.journal(VERIFY, swaps, backup)
    with _load.loaded(call, journal, backup, facts, lives) as problems:
        _load.drop(call, swaps)
        _journal.remove(call.store.dest)
        noted = call.note_verified(backup, HOW, problems)
    if problems:
        raise NodeopsError(
            "Backup %s does not restore to what was backed up: %s. It does not count as good any more. Make a new one."
            % (backup.id, "; ".join(problems)),
            {"problems": problems, "backup": backup.id, "verification": noted.verification},
        )
    return {"backup": backup.id, "problems": [], "verification": noted.verification}


def _check_databases(call: Call, facts: Dict[str, Facts]) -> Dict[str, Optional[Facts]]:
    """The live databases. Raises NodeopsError if the backup cannot go into this server beside them."""
    server = call.server
    who = _preflight.login(server)
    lives = _preflight.live_of(server, call.databases)
    size: Dict[str, int] = {}
    for name, live in lives.items():
        outside = live or facts[name]
        _preflight.check_version(server, name, facts[name])
        _preflight.check_login(who, [outside["owner"]])
        _preflight.check_needs(server, who, name, facts[name], outside)
        if live and call.params["state"] != "verified":
            _preflight.check_live(server, who, name, call.after_recovery(name, live))
        if live:
            _databases.check_same_encoding(name, live, facts[name])
        tablespace = outside["tablespace"]
        size[tablespace] = size.get(tablespace, 0) + int(facts[name]["size"])
    spaces = [(_disk_space.find(server, tablespace), needed) for tablespace, needed in size.items()]
    known = [(space, needed) for space, needed in spaces if space is not None]
    if len(known) < len(spaces):
        call.warn(_disk_space.unchecked(sum(size.values())))
    _disk_space.check(known)
    return lives


def _restore_swaps(call: Call, lives: Dict[str, Optional[Facts]]) -> List[Swap]:
    return [
        Swap(name, _names.scratch(name, call.id), _names.previous(name, call.id) if live else None)
        for name, live in lives.items()
    ]


def _prune(call: Call) -> None:
    """Drop old previous databases. The restore is done: the next one drops what cannot be dropped now."""
    try:
        existing = _databases.names(call.server)
        for name in call.databases:
            for old in _status.previous(existing, name)[call.params["keep_previous"] :]:
                _databases.drop(call.server, old)
                _points.reached("restore pruned")
    except NodeopsError as error:
        call.warn("The restore is done. Older previous databases were not all removed: %s" % error)


def _swapped(swaps: Sequence[Swap], backup: Optional[Backup]) -> Result:
    return {
        "backup": backup.id if backup else None,
        "databases": [{"name": swap.name, "previous": swap.previous} for swap in swaps],
    }


def _down(down: Downtime) -> Result:
    return {"downtime": down.seconds, "stopped": down.stopped, "started": down.started, "rolled_back": False}
