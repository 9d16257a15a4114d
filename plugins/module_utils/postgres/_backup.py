# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""One call of pg_backup: databases dumped into the store, each from one snapshot, with what was in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _connection_options,
    _contents,
    _journal,
    _names,
    _programs,
    _psql,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, PgError, connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption, _retention, _store, _store_options
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Backup, Store

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    **_store_options.STORE,
    **_connection_options.CONNECTION,
    "state": {"type": "str", "choices": ["present", "verified", "pruned", "imported"], "default": "present"},
    "databases": {"type": "list", "elements": "str", "required": True},
    "namespace": {"type": "str"},
    "backup": {"type": "str", "default": _store.LATEST},
    "source": {"type": "path"},
    "sha256": {"type": "str"},
}
"""The options of pg_backup."""

Warn = Callable[[str], None]

LOCK_WAIT = 20.0
"""Seconds a table may be held exclusively by others before the backup gives up."""
_HOW, _RESTORED = "bytes", "restored"


class Call(NamedTuple):
    """What one call works with."""

    params: Mapping[str, Any]
    check_mode: bool
    warn: Warn
    store: Store
    databases: Sequence[str]
    rules: Optional[_retention.Rules]

    def locked(self, what: str) -> ContextManager[None]:
        """The lock of the store, for what check mode only foresees. Raises NodeopsError."""
        if self.check_mode:
            return contextlib.nullcontext()
        return self.store.lock(what, self.params["lock_timeout"])

    @property
    def scope(self) -> _store.Scope:
        return (_store.POSTGRESQL, self.params["environment"], self.params["namespace"], tuple(sorted(self.databases)))

    @property
    def what(self) -> str:
        """For messages."""
        return ", ".join(self.databases)


def run(params: Mapping[str, Any], check_mode: bool, warn: Warn) -> Dict[str, Any]:
    """The module's result. ``params`` has every option of ARGUMENTS. Raises NodeopsError.

    Nothing is left in the store by a call that failed. What one leaves that was killed, the next one removes.
    """
    databases = _names.check_databases(params["databases"])
    rules = _retention.parse(dict(params))
    _encryption.check_recipients(params["age_recipients"])
    makes = params["state"] in ("present", "imported")
    store = Store(params["dest"], params["key_file"], create=makes, check_mode=check_mode)
    call = Call(params, check_mode, warn, store, databases, rules)
    if params["state"] == "verified":
        return verify(call)
    if params["state"] == "pruned":
        return prune(call)
    if params["state"] == "imported":
        from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _import

        return _import.run(call)
    return back_up(call)


# -- state present -----------------------------------------------------------------------------------------------------


def back_up(call: Call) -> Dict[str, Any]:
    """A new backup of all databases of the call."""
    with connection(call.params) as reached:
        tools, version = checked_tools(call, reached)
        check_there(call.databases, tools, reached)
        if call.check_mode:
            return {"changed": True, "backup": None, **_foreseen(call, tools)}
        with call.store.lock("%s was not backed up" % call.what, call.params["lock_timeout"]):
            warn_of_unfinished(call)
            verify_unfinished(call, tools)
            with call.store.draft(_store.POSTGRESQL) as draft:
                content = {}
                for number, name in enumerate(call.databases, 1):
                    content[name] = dump(call, draft, tools, reached, name, "%d.dump" % number)
                backup = commit(call, draft, tools, version, {"databases": content})
            return {"changed": True, "backup": shown(backup), **pruned(call, {})}


def checked_tools(call: Call, reached: Connection) -> "tuple[Tools, Version]":
    """The programs that fit the server, and its version. Warns of what a restore would refuse. Raises NodeopsError."""
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


def check_there(databases: Sequence[str], tools: Tools, reached: Connection) -> None:
    """Raises NodeopsError for a database that is not there, or cannot be connected to."""
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
                "Database %r of %s is closed to connections, as a restore leaves it that was killed. Nothing was "
                "backed up. Run pg_restore with state: recovered." % (name, reached)
            )


def dump(
    call: Call,
    draft: _store.Draft,
    tools: Tools,
    reached: Connection,
    name: str,
    file: str,
    database: Optional[str] = None,
) -> Dict[str, Any]:
    """Dump a database into the draft; what is recorded of it. ``database``: its name now, if that is another.

    The dump is read again before it counts. Raises NodeopsError.
    """
    path = draft.path(file)
    database = database or name
    try:
        with _psql.Session(tools, reached, database) as session:
            snapshot = _contents.begin(session)
            _points.reached("backup snapshot taken")
            _contents.lock(session, LOCK_WAIT)
            # Before pg_dump reads them, which it does at its beginning: what it finds is the same or further.
            sequences = _contents.read_sequences(session)
            with _programs.Program(_command(tools, reached, database, snapshot, path), reached, database) as program:
                _points.reached("backup dump started")
                found = _contents.read(session, sequences)
                _points.reached("backup facts read")
                program.wait()
            _points.reached("backup dumped")
        os.chmod(path, 0o600)
        _programs.read_archive(tools, path)
    except PgError as error:
        raise _failed(name, error) from error
    except OSError as error:
        raise PgError("Database %s was not backed up: %s. Nothing is left of it." % (name, error.strerror)) from error
    _points.reached("backup dump read")
    stored = _encryption.add(draft, file, call.params["age_recipients"], database=name)
    return {**found, "file": stored}


def _command(tools: Tools, reached: Connection, database: str, snapshot: str, path: str) -> List[str]:
    return [
        *(tools.pg_dump, "--format=custom", "--no-password", "--no-sync", "--file=" + path),
        *("--snapshot=" + snapshot, "--lock-wait-timeout=%d" % (LOCK_WAIT * 1000)),
        "--dbname=" + reached.target(database),
    ]


def _failed(name: str, error: PgError) -> PgError:
    said = str(error).rstrip(".")
    advice = ""
    if any(words in said for words in ("No space left", "File too large", "SIGXFSZ", "Disk quota")):
        advice = " Make room on the disk of dest, then run again."
    elif error.sqlstate == "55P03" or "lock timeout" in said:
        advice = " Something holds a table exclusively (ALTER TABLE, VACUUM FULL, LOCK): run again when it has ended."
    elif error.sqlstate == "42501" or "permission denied" in said:
        advice = " Connect as the owner of everything in it, or as a role with pg_read_all_data."
    return PgError("Database %s was not backed up: %s. Nothing is left of it.%s" % (name, said, advice), error.sqlstate)


def commit(call: Call, draft: _store.Draft, tools: Tools, version: Version, content: Dict[str, Any]) -> Backup:
    """Make the draft a backup that is verified: its archives have been read, and now its bytes are."""
    params = call.params
    _points.reached("backup before commit")
    backup = draft.commit(params["environment"], params["namespace"], _programs.versions(tools, version), content)
    _signals.hold()
    _points.reached("backup committed")
    problems = call.store.check_files(backup)
    backup = call.store.note_verified(backup, _HOW, problems)
    if problems:
        raise _damaged(backup, problems)
    _points.reached("backup verified")
    return backup


def pruned(call: Call, result: Dict[str, Any]) -> Dict[str, Any]:
    """``result`` with what the keep rules let go, if there are any. Only after a success."""
    if call.rules is None or not call.store.exists:
        return result
    outcome = _retention.prune(call.store, call.scope, call.rules, _store.now(), call.check_mode)
    return {**result, **_retention.told(outcome, call.warn)}


def _foreseen(call: Call, tools: Tools) -> Dict[str, Any]:
    """What the keep rules let go once the backup is made, and those of killed runs are verified."""
    if call.rules is None:
        return {}
    backups = call.store.backups(scope=call.scope)
    for number, backup in enumerate(backups):
        if backup.verification is None:
            backups[number] = backup._replace(verification={"problems": look(call, backup, tools)})
    return _retention.told(_retention.foresee(backups, call.rules, _store.now()), call.warn)


# -- state verified, state pruned --------------------------------------------------------------------------------------


def verify(call: Call) -> Dict[str, Any]:
    """Read all of a backup, the newest unless named: its files, and its archives as a restore would."""
    store, wanted = call.store, call.params["backup"]
    backup = _newest(call) if wanted == _store.LATEST else _named(call)
    tools = _programs.find(call.params["pg_bindir"])
    if call.check_mode:
        problems = look(call, backup, tools)
    else:
        with store.lock("Backup %s was not verified" % backup.id, call.params["lock_timeout"]):
            how, problems = _HOW, look(call, backup, tools)
            former = backup.verification or {}
            if not problems and former.get("how") == _RESTORED and former["problems"]:
                how, problems = _RESTORED, former["problems"]  # what a restore has found no look at the bytes refutes
            backup = store.note_verified(backup, how, problems)
    if problems:
        raise _damaged(backup, problems)
    return {"changed": False, "backup": shown(backup), "problems": []}


def _newest(call: Call) -> Backup:
    """The newest of the scope, good or not: a bad one is what is to be found."""
    backups = call.store.backups(scope=call.scope)
    return backups[-1] if backups else call.store.newest_good(_all(call), _store.described(call.scope))


def _named(call: Call) -> Backup:
    """The one with the id that is given, made here or imported. Raises NodeopsError."""
    backup = call.store.find(call.params["backup"], _store.POSTGRESQL)
    scope = _store.of_imports(call.scope) if backup.is_imported else call.scope
    return call.store.find(backup.id, _store.POSTGRESQL, scope)


def _all(call: Call) -> List[Backup]:
    """Of the scope, made here or imported, in the order they were made."""
    scopes = (call.scope, _store.of_imports(call.scope))
    return [backup for backup in call.store.backups(_store.POSTGRESQL) if backup.scope in scopes]


def look(call: Call, backup: Backup, tools: Tools) -> List[str]:
    """The problems of a backup. What is encrypted is read as far as that goes without the private key."""
    problems = call.store.check_files(backup)
    if problems:
        return problems
    identity = call.params["age_identity_file"] or ""
    with tempfile.TemporaryDirectory(prefix="nodeops-", dir=_near(call.store)) as directory:
        for recorded in backup.manifest["files"]:
            if _encryption.is_encrypted(recorded) and not identity:
                continue
            try:
                with _readable(backup, recorded, identity, directory) as path:
                    _programs.read_archive(tools, path)
            except PgError as error:
                problems.append("%s: %s" % (recorded["name"], error))
    return problems


@contextlib.contextmanager
def _readable(backup: Backup, recorded: Dict[str, Any], identity: str, directory: str) -> Iterator[str]:
    path = _encryption.readable(backup, recorded, identity, directory)
    try:
        yield path
    finally:
        if os.path.dirname(path) == directory:
            os.unlink(path)


def _near(store: Store) -> str:
    """Where something decrypted may lie for a moment: in the store, which nobody else can read."""
    return os.path.dirname(store.state_path("x"))


def warn_of_unfinished(call: Call) -> None:
    """A restore that was killed is not over, though the application may run: nothing else says so every night."""
    with contextlib.suppress(NodeopsError):
        journal = _journal.read(call.store.dest)
        if journal and journal.is_about_live and set(journal.names) & set(call.databases):
            call.warn(
                "A restore of %s was interrupted and is neither finished nor undone. Run pg_restore with state: "
                "recovered." % ", ".join(journal.names)
            )


def verify_unfinished(call: Call, tools: Tools) -> None:
    """Verify what a run that was killed has written and could not verify any more."""
    for backup in _all(call):
        if backup.verification is None:
            call.store.note_verified(backup, _HOW, look(call, backup, tools))


def _damaged(backup: Backup, problems: List[str]) -> NodeopsError:
    return NodeopsError(
        "Backup %s is damaged: %s. It will not be restored, and no keep rule counts it. Make a new one."
        % (backup.id, "; ".join(problems)),
        {"backup": shown(backup), "problems": problems},
    )


def prune(call: Call) -> Dict[str, Any]:
    """Remove what the keep rules let go."""
    if call.rules is None:
        raise NodeopsError("state is pruned, and no keep rule is given. Nothing was removed. Give keep_last, for one.")
    with call.locked("Nothing was removed"):
        result = pruned(call, {})
    return {"changed": bool(result["removed"]), **result}


def shown(backup: Backup) -> Dict[str, Any]:
    """A backup as results have it."""
    manifest = backup.manifest
    return {
        "id": backup.id,
        "path": backup.path,
        "created": manifest["created"],
        "environment": manifest["environment"],
        "namespace": manifest["namespace"],
        "databases": sorted(manifest["content"]["databases"]),
        "size": backup.size,
        "encrypted": any(_encryption.is_encrypted(each) for each in manifest["files"]),
        "verified": backup.good,
    }
