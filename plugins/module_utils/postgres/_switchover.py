# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The part of a restore in which the service is down: stop, swap, start, prove. If one fails, all is put back.

One call does all of it, because a cancelled job ends a playbook, but not a running module. The journal says what was
about to be done. The names of the databases, which change in one transaction, say what was done.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import UNDO_FAILED, UNDONE, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _health, _pause
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import LOG_TAIL_LINES, GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._pause import Pause
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._stopped import Stopped
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _bus
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases, _journal, _names, _swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import (
    BACK,
    LOADING,
    SWAPPING,
    Journal,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings

OLD, NEW = "old", "new"
RESTORE, UNDO, VERIFY = "restore", "undo", "verify"

_ANSWER = 20.0  # seconds after fence_timeout within which a server that is not frozen answers

Warn = Callable[[str], None]


class Downtime(NamedTuple):
    """How long the service was down, in seconds until it was well again, and the names of its processes."""

    seconds: float
    stopped: List[str]
    started: List[str]


class Switchover:
    """``journal``: what is to be done, or what a killed run was doing. ``fence_timeout`` is in seconds."""

    def __init__(
        self, server: Server, dest: str, journal: Journal, fence_timeout: float, timings: Timings, warn: Warn
    ) -> None:
        self._server = server
        self._dest = dest
        self._journal = journal
        self._fence_timeout = fence_timeout
        self._timings = timings
        self._warn = warn
        self._verb = journal.verb
        self._ready = _checks.parse(journal.ready)
        self._pause = Pause(journal.pm2_home, journal.pm2_executable, journal.namespace)
        self._redactor = Redactor()
        _checks.hide(journal.ready, self._redactor)
        self._well_since: Optional[float] = None
        self._seen: List[Stopped] = []
        self._resurrect_timeout = 0.0
        self.begun = False
        """Whether something live may have been touched. Before that, nothing has to be put back."""
        self.dropped: List[str] = []
        """The databases that were restored in vain."""
        self.opened: List[str] = []
        """The databases that were closed to connections and would have stayed closed."""
        self.kept: List[str] = []
        """The databases that a killed restore had left live, and that were swapped back. They may have new data."""

    def check(self, stop_timeout: float) -> None:
        """Raises NodeopsError if a process may take longer than that to stop. Warns if there is no process.

        A live database without the PM2_HOME of its processes is refused, because the processes would not be found.
        """
        if not self._pause.has_home and any(swap.previous for swap in self._journal.swaps):
            raise NodeopsError(
                "pm2_home %s does not exist. Nothing was changed. Give the PM2_HOME of namespace %s."
                % (self._journal.pm2_home, self._journal.namespace)
            )
        self._seen = self._pause.look()
        self._pause.check(self._seen, stop_timeout)
        if self._journal.namespace is not None and not self._seen:
            self._warn(
                "Nothing runs in namespace %s. So nothing is stopped, and it is not known whether the application is "
                "well." % self._journal.namespace
            )

    def check_room(self) -> None:
        """Raises NodeopsError if PM2 could not start the processes again. Writes a file, and removes it."""
        self._pause.check_room()

    def run(self) -> Downtime:
        """Do it. Raises NodeopsError; its outcome says whether everything is as before."""
        self.check_room()
        with self._pause.locked():
            processes = self._pause.find(self._seen)
            self._journal = self._journal._replace(phase=SWAPPING, processes=processes)
            _journal.write(self._dest, self._journal)
            self.begun = True
            start = time.monotonic()
            try:
                _points.reached("%s recorded" % self._verb)
                self._switch_over()
                end = self._well_since or time.monotonic()
                _signals.hold()
                _journal.remove(self._dest)
            except BaseException as error:
                self._put_back(error, start)
                raise
            _points.reached("%s committed" % self._verb)
        names = _names_of(processes)
        return Downtime(round(end - start, 3), names, names)

    def resume(self, resurrect_timeout: float) -> str:
        """Finish or undo what a killed run was doing. Returns whether the ``old`` or the ``new`` databases are live.

        If processes are missing, PM2 gets ``resurrect_timeout`` seconds to bring them back first.
        """
        self._verb = "recover"
        self._resurrect_timeout = resurrect_timeout
        outcome = OLD
        if self._journal.phase == LOADING:
            self._drop_leftovers(outcome)
            return outcome
        with self._pause.locked():
            try:
                if self._is_swapped() and self._journal.phase == SWAPPING:
                    outcome = self._prove_or_switch_back()
                else:
                    self._keep_what_was_live()
                    self._switch_back()
                self._drop_leftovers(outcome)
            except (NodeopsError, OSError):
                self._reopen_and_start()
                raise
        return outcome

    @property
    def processes(self) -> List[str]:
        """The names of those that are stopped and started."""
        return _names_of(self._journal.processes)

    # -- forward -----------------------------------------------------------------------------------------------------

    def _switch_over(self) -> None:
        with self._timings.measure("stop"):
            self._stop()
        with self._timings.measure("swap"):
            self._swap(_swap.renames(self._journal.swaps), self._journal.names)
            _points.reached("%s swapped" % self._verb)
        self._start_and_prove()

    def _stop(self) -> None:
        self._pause.stop(self._journal.processes)
        _points.reached("%s stopped" % self._verb)

    def _swap(self, moves: List[Any], opened: Sequence[str]) -> None:
        names = [before for before, _after in moves]
        deadline = time.monotonic() + self._fence_timeout
        with self._server.answering_within(self._fence_timeout + _ANSWER):
            _swap.fence(self._server, names, self._fence_timeout)
            _points.reached("%s fenced" % self._verb)
            _swap.disconnect(self._server, names, max(0.0, deadline - time.monotonic()))
            _points.reached("%s cleared" % self._verb)
            _swap.rename_all(self._server, moves, opened, max(0.0, deadline - time.monotonic()), self._verb)

    def _start_and_prove(self) -> None:
        sizes = _pause.log_sizes(self._pause.read())
        with contextlib.closing(self._pause.errors()) as errors:
            with self._timings.measure("start"):
                watched = self._start()
                _points.reached("%s started" % self._verb)
            with self._timings.measure("prove"):
                self._prove(watched, sizes, errors)
                _points.reached("%s proven" % self._verb)

    def _start(self) -> List[_pause.Started]:
        timeout, self._resurrect_timeout = self._resurrect_timeout, 0.0
        if timeout and not self._pause.await_resurrect(self._journal.processes, timeout):
            self._warn(
                "PM2 has not brought back its dump within %g s. So the processes of namespace %s are started without "
                "it. A later resurrect leaves out processes of the same names in other namespaces: run "
                "nodeops.pm2.recover for those." % (timeout, self._journal.namespace)
            )
        return self._pause.start(self._journal.processes)

    def _prove(self, watched: List[_pause.Started], sizes: Dict[str, int], errors: _bus.Errors) -> None:
        """Wait until the application is well. If none of the namespace's processes ran, nothing is checked."""
        asks = self._ready.connections or self._ready.log
        if not watched and (self._journal.namespace is not None or not asks):
            return
        live = self._pause.reader()

        def read() -> List[Process]:
            errors.collect()
            return live()

        try:
            self._well_since = _health.wait(watched, sizes, read, self._ready, self._journal.healthy)
        except GateFailure as error:
            raise self._explained(error, errors) from error

    def _explained(self, error: GateFailure, errors: _bus.Errors) -> GateFailure:
        details = dict(error.details)
        if error.candidate is not None:
            if error.candidate.process is not None:
                self._redactor.add_environment(error.candidate.process.env)
            lines = error.candidate.error_tail() or self._heard(error.candidate.process, errors)
            details["failed_process"] = {"name": error.candidate.app.name, "instance": error.candidate.slot}
            details["error_log"] = [self._redactor.text(line) for line in lines]
        found = GateFailure(self._redactor.text(str(error)).rstrip(".") + ".", error.candidate)
        found.details = details
        return found

    @staticmethod
    def _heard(process: Optional[Process], errors: _bus.Errors) -> List[str]:
        """The last output of a process that ended before it could write its log."""
        errors.collect()
        return errors.of(process.pm_id)[-LOG_TAIL_LINES:] if process else []

    # -- back --------------------------------------------------------------------------------------------------------

    def _put_back(self, error: BaseException, start: float) -> None:
        """Put everything back. ``error`` gets the outcome, and how long the service was down since ``start``."""
        try:
            self._switch_back()
            self._drop_leftovers(OLD)
        except (NodeopsError, OSError) as second:
            self._reopen_and_start()
            if isinstance(error, NodeopsError):
                error.settle(UNDO_FAILED, self._redactor.text(str(second)))
            return
        if isinstance(error, NodeopsError):
            error.settle(UNDONE)
            if self._well_since is not None:
                error.details["downtime"] = round(self._well_since - start, 3)

    def _reopen_and_start(self) -> None:
        """Open and start what is live now, because it cannot be put back: a service that tries is better than none."""
        with contextlib.suppress(NodeopsError, OSError):
            self.opened += _swap.unfence(self._server, self._journal.names, self._fence_timeout)
        with contextlib.suppress(NodeopsError, OSError):
            self._start()

    def _prove_or_switch_back(self) -> str:
        try:
            self._start_and_prove()
        except GateFailure as error:
            self._warn("The application was not well after the swap (%s). So the old database is live again." % error)
            self._keep_what_was_live()
            self._switch_back()
            return OLD
        return NEW

    def _keep_what_was_live(self) -> None:
        """Keep the new databases that are live since a restore was killed: people may have worked with them since.

        They become previous databases, as after an undo. If the journal cannot tell, the names do.
        """
        if self._journal.verb == UNDO or not self._is_swapped():
            return
        identity = _databases.new_id(self._server)
        swaps = [swap._replace(incoming=_names.previous(swap.name, identity)) for swap in self._journal.swaps]
        self._journal = self._journal._replace(verb=UNDO, swaps=swaps)
        self.kept = [swap.incoming for swap in swaps]
        self._warn(
            "The database that was live since the restore was killed is kept as %s. An undo makes it live again."
            % ", ".join(self.kept)
        )

    def _switch_back(self) -> None:
        _signals.hold()  # an interrupted undo would leave the service down
        self._well_since = None
        names = [swap.name for swap in self._journal.swaps if swap.previous]
        if self._is_swapped():
            with contextlib.suppress(NodeopsError):  # if the disk of the store is full, the names tell as well
                self._journal = self._journal._replace(phase=BACK)
                _journal.write(self._dest, self._journal)
            _points.reached("%s back recorded" % self._verb)
            self._pause.stop(self._journal.processes)
            _points.reached("%s back stopped" % self._verb)
            moves = _swap.renames_back(self._journal.swaps)
            self._swap(moves, names)
            _points.reached("%s back swapped" % self._verb)
        self.opened += _swap.unfence(self._server, names, self._fence_timeout)
        _points.reached("%s back open" % self._verb)
        try:
            self._start_and_prove()
        except GateFailure as error:
            self._warn("The application is not well with the old database either: %s" % error)

    def _drop_leftovers(self, outcome: str) -> None:
        """Drop what was restored and is not live. The database that an undo would have taken stays a previous one."""
        if outcome == OLD and self._journal.verb != UNDO:
            existing = _databases.names(self._server)
            for scratch in (swap.incoming for swap in self._journal.swaps):
                _databases.drop(self._server, scratch)
                self.dropped += [scratch] if scratch in existing else []
                _points.reached("%s scratch dropped" % self._verb)
        _journal.remove(self._dest)
        _points.reached("%s journal removed" % self._verb)

    def _is_swapped(self) -> bool:
        return _swap.is_swapped(_databases.names(self._server), self._journal.swaps)


def _names_of(processes: Sequence[Stopped]) -> List[str]:
    return sorted(process.name for process in processes)
