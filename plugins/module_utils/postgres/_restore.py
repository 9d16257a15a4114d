# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pg_restore: from options to a result."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _databases,
    _disk_space,
    _journal,
    _names,
    _preflight,
    _programs,
    _psql,
    _restore_options,
    _scratch,
    _status,
    _swap,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import LOADING, Journal, Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._recover import Recoverer, Recovery
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._scratch import ScratchDatabase
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import (
    RESTORE,
    UNDO,
    VERIFY,
    Switchover,
    Warn,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption, _store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Backup, Store

ARGUMENTS = _restore_options.ARGUMENTS

Params = Mapping[str, Any]
Result = Dict[str, Any]

_CONFIRMED = ("restored", "undone")
_HOW = "restored"
_NOTHING_TO_PROVE: Dict[str, Any] = {"timeout": 30.0, "min_uptime": 0.0}


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
            return _Call(params, check_mode, warn, store, server).run()


def check_options(params: Params) -> None:
    """Raises NodeopsError for options that cannot be right, whatever server and store there are."""
    state = params["state"]
    if params["databases"] is not None:
        _names.check_databases(params["databases"])
    elif state not in ("recovered", "status"):
        raise NodeopsError("state %s needs databases. Nothing was changed." % state)
    if state in _CONFIRMED and params["maintenance_db"] in (params["databases"] or ()):
        raise NodeopsError(
            "maintenance_db is %s, which is one of databases: it cannot be replaced over a connection to it. Nothing "
            "was changed. Give another one, such as postgres." % params["maintenance_db"]
        )
    if state in _CONFIRMED:
        _preflight.check_confirmation(params["confirm"], params["databases"])
    for name, least in (("jobs", 1), ("keep_previous", 1), ("healthy", 1)):
        if params[name] < least:
            raise NodeopsError("%s is %d, the least is %d. Nothing was changed." % (name, params[name], least))
    for name in ("lock_timeout", "stop_timeout", "fence_timeout", "resurrect_timeout"):
        if not 0 <= params[name] < float("inf"):
            raise NodeopsError(
                "%s must be a number of seconds >= 0, not %r. Nothing was changed." % (name, params[name])
            )
    _checks.parse(params["ready"])
    if params["namespace"] is not None:
        check_namespace(params["namespace"])
        _daemon.check_home(params["pm2_home"] or _daemon.default_home())


class _Call:
    def __init__(self, params: Params, check_mode: bool, warn: Warn, store: Store, server: Server) -> None:
        self._params = params
        self._check_mode = check_mode
        self._warn = warn
        self._store = store
        self._server = server
        self._timings = Timings()
        self._databases: List[str] = list(params["databases"] or [])
        self._recovered: Optional[Recovery] = None
        self._id = ""

    def run(self) -> Result:
        state = self._params["state"]
        if state == "status":
            found = _status.status(self._server, self._store, self._params["databases"], self._params["environment"])
            return {"changed": False, "status": found}
        if self._check_mode:
            self._check_unfinished()
            self._recovered = self._recoverer().foresee()
            return self._result(self._foreseen())
        if state == "recovered" and not self._store.exists:
            self._recovered = self._recoverer().run()
            return self._result({})
        what = "%s: nothing was %s" % (", ".join(self._databases) or "The databases", state)
        with self._store.lock(what, self._params["lock_timeout"]):
            self._server.lock(self._databases, self._params["lock_timeout"])
            self._check_unfinished()
            try:
                self._recovered = self._recoverer().run()
                return self._result(self._done())
            except NodeopsError as error:
                if self._recovered:
                    error.details.setdefault("recovered", self._recovered)
                if self._timings.measured:
                    error.details.setdefault("steps", self._timings.measured)
                raise _told(error, untouched=not self._recovered) from error

    def _check_unfinished(self) -> None:
        """Raises NodeopsError where a drill would have to finish a restore first: it leaves alone what is live."""
        journal = _journal.read(self._store.dest) if self._params["state"] == "verified" else None
        if journal and journal.is_about_live:
            raise NodeopsError(
                "A restore of %s was interrupted, and a drill does not touch what is live. Nothing was verified. Run "
                "state recovered first: that finishes or undoes it." % ", ".join(journal.names)
            )

    def _recoverer(self) -> Recoverer:
        params = self._params
        return Recoverer(
            self._server,
            self._store.dest,
            params["databases"],
            params["fence_timeout"],
            params["lock_timeout"],
            params["resurrect_timeout"],
            params["state"] == "recovered",
            self._timings,
            self._warn,
        )

    def _foreseen(self) -> Result:
        state = self._params["state"]
        if state == "recovered":
            return {}
        _preflight.check_server(self._server)
        if state == "undone":
            swaps = self._undo_swaps()
            self._switchover(self._journal(UNDO, swaps, None)).check(self._params["stop_timeout"])
            return {"changed": True, **_swapped(swaps, None)}
        backup, facts = self._chosen()
        self._checked(backup)
        lives = self._preflight(facts)
        if state == "verified":
            return {"backup": backup.id, "problems": []}
        swaps = self._restore_swaps(lives)
        self._switchover(self._journal(RESTORE, swaps, backup)).check(self._params["stop_timeout"])
        return {"changed": True, **_swapped(swaps, backup)}

    def _done(self) -> Result:
        state = self._params["state"]
        if state == "recovered":
            return {}
        _preflight.check_server(self._server)
        self._id = _databases.new_id(self._server)
        if state == "undone":
            return self._undo()
        return self._restore() if state == "restored" else self._verify()

    def _result(self, found: Result) -> Result:
        return {
            "state": self._params["state"],
            "recovered": self._recovered,
            "steps": self._timings.measured,
            **found,
            "changed": bool(found.get("changed") or self._recovered),
        }

    # -- restored, verified --------------------------------------------------------------------------------------------

    def _restore(self) -> Result:
        backup, facts = self._chosen()
        self._checked(backup)
        lives = self._preflight(facts)
        swaps = self._restore_swaps(lives)
        journal = self._journal(RESTORE, swaps, backup)
        switchover = self._switchover(journal)
        switchover.check(self._params["stop_timeout"])
        switchover.check_room()
        _points.reached("restore checked")
        with self._loaded(journal, backup, facts, lives) as problems:
            if problems:
                self._store.note_verified(backup, _HOW, problems)
                raise NodeopsError(
                    "What was restored from backup %s is not what was backed up: %s. The live database was not "
                    "touched, and the backup will not be taken as good any more. Choose another one."
                    % (backup.id, "; ".join(problems)),
                    {"problems": problems},
                )
            for swap in swaps:
                _databases.apply_properties(self._server, swap.incoming, lives[swap.name] or facts[swap.name])
                _points.reached("restore properties applied")
            self._store.note_verified(backup, _HOW, [])
            for name in self._databases:
                _preflight.check_prepared(self._server, name)
        try:
            down = switchover.run()
        except BaseException as error:
            if not switchover.begun:
                self._unload(journal, error)
            raise
        with self._timings.measure("prune"):
            self._prune()
        return {"changed": True, **_swapped(swaps, backup), **_down(down)}

    def _verify(self) -> Result:
        backup, facts = self._chosen()
        self._checked(backup)
        lives = self._preflight(facts)
        swaps = [Swap(name, _names.scratch(name, self._id), None) for name in self._databases]
        journal = self._journal(VERIFY, swaps, backup)
        with self._loaded(journal, backup, facts, lives) as problems:
            self._drop(swaps)
            _journal.remove(self._store.dest)
            noted = self._store.note_verified(backup, _HOW, problems)
        if problems:
            raise NodeopsError(
                "Backup %s does not restore to what was backed up: %s. It will not be taken as good any more. Make a "
                "new one." % (backup.id, "; ".join(problems)),
                {"problems": problems, "backup": backup.id, "verification": noted.verification},
            )
        return {"backup": backup.id, "problems": [], "verification": noted.verification}

    def _chosen(self) -> Any:
        """The backup, authentic and of this environment, and the facts of each database."""
        params = self._params
        wanted = params["backup"]
        if wanted == _store.LATEST:
            wanted = self._latest()
        backup = self._store.find(wanted, _store.POSTGRESQL)
        return backup, _preflight.check_backup(backup, self._databases, params["environment"], params["namespace"])

    def _latest(self) -> str:
        """The newest good one of this environment that has all the databases, and was not imported.

        Raises NodeopsError saying what there is.
        """
        environment, namespace = self._params["environment"], self._params["namespace"]
        backups = self._store.backups(_store.POSTGRESQL)
        fit = [b for b in backups if set(self._databases) <= set(b.manifest["content"].get("databases") or ())]
        ours = [b for b in fit if b.manifest["environment"] == environment]
        ours = [b for b in ours if namespace is None or b.manifest["namespace"] in (None, namespace)]
        own = [b for b in ours if not b.is_imported]
        good = [b for b in own if b.good]
        if good or (fit and not ours):
            return (good or fit)[-1].id  # of another environment: it is refused, with what is wrong
        asked = (_store.POSTGRESQL, environment, namespace, tuple(sorted(self._databases)))
        scope = own[-1].scope if own else asked
        shown = [b for b in ours if b.is_imported or b.scope == scope]
        return self._store.newest_good(shown, _store.described(scope)).id

    def _checked(self, backup: Backup) -> None:
        """Its bytes. Raises NodeopsError before any program of PostgreSQL sees them."""
        with self._timings.measure("check"):
            problems = self._store.check_files(backup)
        if problems:
            if not self._check_mode:
                self._store.note_verified(backup, "bytes", problems)
            raise NodeopsError(
                "Backup %s is damaged: %s. Nothing was changed. Choose another one." % (backup.id, "; ".join(problems)),
                {"problems": problems, "backup": backup.id},
            )
        _programs.check_archive(self._server.tools, self._server.version, backup.manifest["tools"]["pg_dump"])
        for recorded in backup.manifest["files"]:
            if _encryption.is_encrypted(recorded) and not self._params["age_identity_file"]:
                raise NodeopsError(
                    "Backup %s is encrypted. Nothing was changed. Give the private key's file in age_identity_file."
                    % backup.id
                )

    def _preflight(self, facts: Dict[str, Facts]) -> Dict[str, Optional[Facts]]:
        """The live databases. Raises NodeopsError when the backup cannot go into this server beside them."""
        server = self._server
        who = _preflight.login(server)
        lives = _preflight.live_of(server, self._databases)
        size: Dict[str, int] = {}
        for name, live in lives.items():
            outside = live or facts[name]
            _preflight.check_version(server, name, facts[name])
            _preflight.check_login(who, [outside["owner"]])
            _preflight.check_needs(server, who, name, facts[name], outside)
            if live and self._params["state"] != "verified":
                _preflight.check_live(server, who, name, self._after_recovery(name, live))
            if live:
                _databases.check_same_encoding(name, live, facts[name])
            tablespace = outside["tablespace"]
            size[tablespace] = size.get(tablespace, 0) + int(facts[name]["size"])
        spaces = [(_disk_space.find(server, tablespace), needed) for tablespace, needed in size.items()]
        known = [(space, needed) for space, needed in spaces if space is not None]
        if len(known) < len(spaces):
            self._warn(_disk_space.unchecked(sum(size.values())))
        _disk_space.check(known)
        return lives

    @contextlib.contextmanager
    def _loaded(
        self, journal: Journal, backup: Backup, facts: Dict[str, Facts], lives: Dict[str, Optional[Facts]]
    ) -> Iterator[List[str]]:
        """The scratch databases, loaded; what differs from the backup. They are dropped when the block fails."""
        directory = os.path.join(self._store.dest, ".partial-restore-" + journal.id)
        _journal.write(self._store.dest, journal)
        _points.reached("%s journal written" % journal.verb)
        try:
            problems = []
            for swap in journal.swaps:
                outside = lives[swap.name] or facts[swap.name]
                with self._readable(backup, facts[swap.name]["file"], directory) as archive:
                    scratch = ScratchDatabase(swap.incoming, swap.name, archive, facts[swap.name], outside)
                    problems += self._built(scratch, journal.verb)
            yield problems
        except _scratch.Unloadable as error:
            self._unload(journal, error)
            noted = self._store.note_verified(backup, _HOW, error.details["problems"])
            raise NodeopsError(
                "%s Backup %s will not be taken as good any more. Choose another one, or make a new one."
                % (error, backup.id),
                {**error.details, "backup": backup.id, "verification": noted.verification},
            ) from error
        except BaseException as error:
            self._unload(journal, error)
            raise

    def _built(self, scratch: ScratchDatabase, verb: str) -> List[str]:
        space = _disk_space.find(self._server, scratch.properties["tablespace"])
        problems = _scratch.build(self._server, scratch, self._params["jobs"], space, self._timings, verb)
        return ["%s: %s" % (scratch.database, problem) for problem in problems]

    @contextlib.contextmanager
    def _readable(self, backup: Backup, file: str, directory: str) -> Iterator[str]:
        """The path of the plain archive, which is gone afterwards when it had to be decrypted."""
        [recorded] = [each for each in backup.manifest["files"] if each["name"] == file]
        try:
            os.mkdir(directory, 0o700)
            with self._timings.measure("read"):
                path = _encryption.readable(backup, recorded, self._params["age_identity_file"] or "", directory)
            yield path
        except OSError as error:
            raise NodeopsError("%s cannot be made: %s. Nothing was changed." % (directory, error.strerror)) from error
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _unload(self, journal: Journal, error: BaseException) -> None:
        """Drop the scratch databases; where that fails the journal stays, and the next run does it."""
        try:
            self._drop(journal.swaps)
            _journal.remove(self._store.dest)
        except (NodeopsError, OSError) as second:
            if isinstance(error, NodeopsError):
                error.details["cleanup_error"] = str(second)

    def _drop(self, swaps: Sequence[Swap]) -> None:
        with self._timings.measure("drop"):
            for swap in swaps:
                _databases.drop(self._server, swap.incoming)

    def _restore_swaps(self, lives: Dict[str, Optional[Facts]]) -> List[Swap]:
        identity = self._id or _databases.new_id(self._server)
        return [
            Swap(name, _names.scratch(name, identity), _names.previous(name, identity) if live else None)
            for name, live in lives.items()
        ]

    def _prune(self) -> None:
        """The change is made: what cannot be removed now is removed by the next restore."""
        try:
            existing = _databases.names(self._server)
            for name in self._databases:
                for old in _status.previous(existing, name)[self._params["keep_previous"] :]:
                    _databases.drop(self._server, old)
                    _points.reached("restore pruned")
        except NodeopsError as error:
            self._warn("The restore is done. Older previous databases were not all removed: %s" % error)

    # -- undone --------------------------------------------------------------------------------------------------------

    def _undo(self) -> Result:
        swaps = self._undo_swaps()
        journal = self._journal(UNDO, swaps, None)
        switchover = self._switchover(journal)
        switchover.check(self._params["stop_timeout"])
        _points.reached("undo checked")
        down = switchover.run()
        return {"changed": True, **_swapped(swaps, None), **_down(down)}

    def _undo_swaps(self) -> List[Swap]:
        """Each live database makes way for the newest that was live before. Raises NodeopsError where there is none."""
        existing = self._names()
        who = _preflight.login(self._server)
        lives = _preflight.live_of(self._server, self._databases)
        identity = self._id or _databases.new_id(self._server)
        swaps = []
        for name, live in lives.items():
            kept = _status.previous(existing, name)
            if not kept:
                raise NodeopsError(
                    "There is no previous database of %s, so nothing can be undone. Nothing was changed. To go back to "
                    "a backup, use state restored." % name
                )
            if live:
                _preflight.check_live(self._server, who, name, self._after_recovery(name, live))
            _preflight.check_prepared(self._server, kept[0])
            swaps.append(Swap(name, kept[0], _names.previous(name, identity) if live else None))
        self._check_of_one_restore([swap.incoming for swap in swaps])
        return swaps

    @staticmethod
    def _check_of_one_restore(previous: Sequence[str]) -> None:
        """Raises NodeopsError for previous databases that were not put aside together: they may not go together."""
        parsed = [each for each in map(_names.parse, previous) if each]
        newest = max((each.id for each in parsed), default="")
        latest = [each.name for each in parsed if each.id == newest]
        if len(latest) < len(previous):
            raise NodeopsError(
                "%s are not of one restore, and the last one was of %s alone. Nothing was changed. To undo that one, "
                "name in databases (db_restore_databases) only: %s. The others can be undone by a call of their own."
                % (", ".join(sorted(previous)), ", ".join(latest), ", ".join(latest))
            )

    def _names(self) -> List[str]:
        """The databases there are; in check mode as they will be named when the interrupted restore is undone."""
        names = _databases.names(self._server)
        journal = _journal.read(self._store.dest) if self._check_mode else None
        if journal is None or journal.phase != _journal.BACK or not _swap.is_swapped(names, journal.swaps):
            return names
        renamed = dict(_swap.renames_back(journal.swaps))
        return sorted(renamed.get(name, name) for name in names)

    def _after_recovery(self, name: str, live: Facts) -> Facts:
        """In check mode the interrupted restore has only been looked at: its end opens the database."""
        if self._check_mode and self._recovered and name in self._recovered["databases"]:
            return {**live, "open": True}
        return live

    # -- both ----------------------------------------------------------------------------------------------------------

    def _journal(self, verb: str, swaps: List[Swap], backup: Optional[Backup]) -> Journal:
        params = self._params
        namespace = None if verb == VERIFY else params["namespace"]
        return Journal(
            id=self._id,
            verb=verb,
            phase=LOADING,
            server=_preflight.identify(self._server),
            swaps=swaps,
            backup=backup.id if backup else None,
            namespace=namespace,
            pm2_home=(params["pm2_home"] or _daemon.default_home()) if namespace is not None else None,
            pm2_executable=params["pm2_executable"],
            ready=_NOTHING_TO_PROVE if verb == VERIFY else dict(params["ready"]),
            healthy=params["healthy"],
            processes=[],
        )

    def _switchover(self, journal: Journal) -> Switchover:
        fence_timeout = self._params["fence_timeout"]
        return Switchover(self._server, self._store.dest, journal, fence_timeout, self._timings, self._warn)


def _swapped(swaps: Sequence[Swap], backup: Optional[Backup]) -> Result:
    return {
        "backup": backup.id if backup else None,
        "databases": [{"name": swap.name, "previous": swap.previous} for swap in swaps],
    }


def _down(down: Any) -> Result:
    return {"downtime": down.seconds, "stopped": down.stopped, "started": down.started, "rolled_back": False}


def _told(error: NodeopsError, untouched: bool) -> NodeopsError:
    """The same, which also says what became of everything. ``untouched``: before it nothing was finished or undone."""
    message, details = str(error).rstrip(".") + ".", error.details
    if details.get("rolled_back"):
        message += " Everything is as before: the old database is live, and what was stopped runs again."
    elif "rollback_error" in details:
        message += (
            " Putting everything back did not succeed (%s). Run again, or run state recovered: that finishes it."
            % str(details["rollback_error"]).rstrip(".")
        )
    elif "unfinished" in details:
        message += (
            " The restore of %s that was interrupted is not finished. Run again, or run state recovered: that "
            "finishes it." % ", ".join(details["unfinished"])
        )
    elif untouched and "Nothing was" not in message and "not touched" not in message:
        message += " The live database was not touched."
    if "cleanup_error" in details:
        cause = str(details["cleanup_error"]).rstrip(".")
        message += " The scratch database could not be dropped (%s): the next run does it." % cause
    return NodeopsError(message, details)
