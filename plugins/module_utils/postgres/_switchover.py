# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The part of a restore in which the service is down: stop, swap, start, prove; or all as it was before.

One call does all of it, because a cancelled job ends a playbook but not a module that runs. The journal says what was
about to be done; what was done is told by the names of the databases, which change in one transaction.
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

_ANSWER = 20.0  # seconds beside fence_timeout in which a server answers that is not frozen

Warn = Callable[[str], None]


class Downtime(NamedTuple):
    """What the service has seen: seconds until it was well again, and the names of its processes."""

    seconds: float
    stopped: List[str]
    started: List[str]


class Switchover:
    """``journal`` is what is to be done, or what a killed run was doing; ``fence_timeout`` in seconds."""

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
        """Whether something live may have been touched: until then nothing has to be put back."""
        self.dropped: List[str] = []
        """What was restored in vain."""
        self.opened: List[str] = []
        """What was closed to connections, and would have stayed so."""
        self.kept: List[str] = []
        """What a killed restore had left live, and went back: it may have been written to."""

    def check(self, stop_timeout: float) -> None:
        """Raises NodeopsError where a process could take longer than that to stop. Warns where there is none.

        A live database without the PM2_HOME of its processes is refused: what runs would not be found.
        """
        if not self._pause.has_home and any(swap.previous for swap in self._journal.swaps):
            raise NodeopsError(
                "pm2_home %s does not exist. Nothing was changed. Give that of namespace %s."
                % (self._journal.pm2_home, self._journal.namespace)
            )
        self._seen = self._pause.look()
        self._pause.check(self._seen, stop_timeout)
        if self._journal.namespace is not None and not self._seen:
            self._warn(
                "Nothing runs in namespace %s, so nothing is stopped, and whether the application is well is not known."
                % self._journal.namespace
            )

    def check_room(self) -> None:
        """Raises NodeopsError where PM2 could not start again what was stopped. Writes a file, and removes it."""
        self._pause.check_room()

    def run(self) -> Downtime:
        """Do it. Raises NodeopsError, with the outcome UNDONE if all is as before."""
        self.check_room()
        with self._pause.locked():
            processes = self._pause.find(self._seen)
            self._journal = self._journal._replace(phase=SWAPPING, processes=processes)
            _journal.write(self._dest, self._journal)
            self.begun = True
            start = time.monotonic()
            try:
                _points.reached("%s recorded" % self._verb)
                self._there()
                end = self._well_since or time.monotonic()
                _signals.hold()
                _journal.remove(self._dest)
            except BaseException as error:
                self._put_back(error, start)
                raise
            _points.reached("%s committed" % self._verb)
        names = _distinct(process.name for process in processes)
        return Downtime(round(end - start, 3), names, names)

    def resume(self, resurrect_timeout: float) -> str:
        """Finish or undo what a killed run was doing: whether the ``old`` databases are live, or the ``new`` ones.

        Processes that are missing are left to PM2 for so many seconds first.
        """
        self._verb = "recover"
        self._resurrect_timeout = resurrect_timeout
        outcome = OLD
        if self._journal.phase == LOADING:
            self._clear_away(outcome)
            return outcome
        with self._pause.locked():
            try:
                if self._is_swapped() and self._journal.phase == SWAPPING:
                    outcome = self._prove_or_go_back()
                else:
                    self._keep_what_was_live()
                    self._go_back()
                self._clear_away(outcome)
            except (NodeopsError, OSError):
                self._let_in()
                raise
        return outcome

    @property
    def processes(self) -> List[str]:
        """Those that are stopped and started."""
        return _distinct(process.name for process in self._journal.processes)

    # -- there -------------------------------------------------------------------------------------------------------

    def _there(self) -> None:
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
                "PM2 has not brought back within %g s what its dump holds. So the processes of namespace %s are "
                "started without it, and a resurrect that comes later leaves out what has their names in other "
                "namespaces: run nodeops.pm2.recover for those." % (timeout, self._journal.namespace)
            )
        return self._pause.start(self._journal.processes)

    def _prove(self, watched: List[_pause.Started], sizes: Dict[str, int], errors: _bus.Errors) -> None:
        """Where a namespace is given and none of its processes ran, nobody is there to answer."""
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
        """What a process said that ended before it could write its log."""
        errors.collect()
        return errors.of(process.pm_id)[-LOG_TAIL_LINES:] if process else []

    # -- and back ----------------------------------------------------------------------------------------------------

    def _put_back(self, error: BaseException, start: float) -> None:
        """All as before; ``error`` tells whether that worked, and how long it was down since ``start``."""
        try:
            self._go_back()
            self._clear_away(OLD)
        except (NodeopsError, OSError) as second:
            self._let_in()
            if isinstance(error, NodeopsError):
                error.settle(UNDO_FAILED, self._redactor.text(str(second)))
            return
        if isinstance(error, NodeopsError):
            error.settle(UNDONE)
            if self._well_since is not None:
                error.details["downtime"] = round(self._well_since - start, 3)

    def _let_in(self) -> None:
        """There was no way back. Whatever is live: better an application that tries than one that is down."""
        with contextlib.suppress(NodeopsError, OSError):
            self.opened += _swap.unfence(self._server, self._journal.names, self._fence_timeout)
        with contextlib.suppress(NodeopsError, OSError):
            self._start()

    def _prove_or_go_back(self) -> str:
        try:
            self._start_and_prove()
        except GateFailure as error:
            self._warn("After the swap the application was not well (%s), so the old database is live again." % error)
            self._keep_what_was_live()
            self._go_back()
            return OLD
        return NEW

    def _keep_what_was_live(self) -> None:
        """A killed restore may have ended long ago, and people have worked since with what it had left live.

        So that becomes a previous database, as after an undo. Where the journal cannot tell, the names do.
        """
        if self._journal.verb == UNDO or not self._is_swapped():
            return
        identity = _databases.new_id(self._server)
        swaps = [swap._replace(incoming=_names.previous(swap.name, identity)) for swap in self._journal.swaps]
        self._journal = self._journal._replace(verb=UNDO, swaps=swaps)
        self.kept = [swap.incoming for swap in swaps]
        self._warn(
            "What was live since the restore was killed is kept as %s: an undo makes it live again."
            % ", ".join(self.kept)
        )

    def _go_back(self) -> None:
        _signals.hold()  # a way back that is broken off leads nowhere
        self._well_since = None
        names = [swap.name for swap in self._journal.swaps if swap.previous]
        if self._is_swapped():
            with contextlib.suppress(NodeopsError):  # the disk of the store is full: the names tell as well
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

    def _clear_away(self, outcome: str) -> None:
        """What was restored and is not live goes; what an undo would have taken stays a previous database."""
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


def _distinct(names: Any) -> List[str]:
    return sorted(names)
