# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Carry out a plan as a transaction: start, prove, save, commit, retire; or put everything back.

The journal is written before each phase (see _journal). ``_points.reached`` marks the points between which a run can
be killed; the tests kill it there.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals, _sockets, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import (
    COMMITTED,
    UNDO_FAILED,
    UNDONE,
    NodeopsError,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import (
    _gate,
    _handover,
    _journal,
    _plan,
    _processes,
    _recovery,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Check, Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import Candidate, GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._journal import Journal
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_state import is_active
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _bus, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import RemoteError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process


class Transaction:
    """One change of one namespace, under the namespace's lock."""

    def __init__(
        self,
        namespace: Namespace,
        pm2_home: str,
        plan: _plan.Plan,
        ready: Ready,
        save: bool,
        redactor: Redactor,
        switch: Optional[_symlink.Switch] = None,
        revert: Optional[Callable[[], None]] = None,
    ) -> None:
        """``revert``: puts back what was changed for the new processes, before old ones are started again."""
        self._namespace = namespace
        self._home = pm2_home
        self._plan = plan
        self._ready = ready
        self._save = save
        self._redactor = redactor
        self._switch = switch
        self._revert = revert
        self._id = os.urandom(16).hex()
        self._errors = _bus.Errors(pm2_home, namespace.name)
        self._candidates: List[Candidate] = []
        self._retire = [process for app in plan.apps for process in app.retire]
        self._stop_first = [process for step in plan.stop_then_start for process in step.stop]
        self._stop = [process for app in plan.apps for process in app.stop]
        self._stopped = self._stop_first + [process for process in self._stop if is_active(process)]
        self._kept = [process for app in plan.apps for process in app.keep]

    def run(self) -> bool:
        """Do it. Return whether the dump was written. Raises NodeopsError, which tells by its outcome what is left."""
        try:
            return self._run()
        finally:
            self._errors.close()

    def _run(self) -> bool:
        self._write_journal(_journal.TRYING)
        _points.reached("journal_written")
        try:
            self._try()
            saved = self._commit()
        except BaseException as error:
            self._put_back(error)
            raise
        self._clear_away()
        return saved

    def _clear_away(self) -> None:
        """What is left to do after the commit. If it fails, the next run finishes it."""
        with after_commit():
            self._namespace.unwatch(self._stop)
            self._namespace.delete(self._retire)
            _points.reached("retired")
            _journal.remove(self._home, self._namespace.name)
        _points.reached("journal_removed")

    def _try(self) -> None:
        for plan in self._plan.apps:  # before anything is stopped for what could not be started
            if plan.app is not None and plan.start:
                make_directories(plan.app.log_dirs)
        beside = [plan for plan in self._plan.apps if plan.order == _plan.BESIDE]
        for plan in beside:
            self._start(plan)
        _points.reached("beside_started")
        if self._stop_first and self._candidates:
            # Nothing is stopped for a release whose first processes do not stay up or answer badly.
            self._wait(self._ready._replace(connections=self._answered_by_workers(), log=[]))
            _points.reached("beside_up")
        steps = self._plan.stop_then_start
        for number in self._namespace.stop_each([step.stop for step in steps]):
            _points.reached("old_stopped")
            for plan in steps[number].start:
                self._start(plan)
                _points.reached("stop_first_started")
        if self._candidates:
            self._wait(self._ready)
            _points.reached("gate_passed")
        if self._stop:
            self._namespace.stop(self._stop)
            _points.reached("stopped")

    def _answered_by_workers(self) -> List[Check]:
        """The checks that only cluster workers can answer: the daemon listens for them."""
        ports = {port for _host, port in _sockets.listening(self._namespace.daemon.pid)}
        return [check for check in self._ready.connections if check.port in ports]

    def _commit(self) -> bool:
        """From here a killed run is finished by the next one, not undone."""
        _signals.hold()
        self._write_journal(_journal.COMMITTED)
        _points.reached("committed")
        try:
            if self._switch:
                _symlink.apply(self._switch)
                _points.reached("switched")
            saved = self._save and _dump.save(self._home, self._namespace.name, self._entries())
        except BaseException:
            self._withdraw()
            raise
        _points.reached("saved")
        return saved

    def _withdraw(self) -> None:
        """Take the commit back: the next run must not finish a run that is killed during its undo."""
        if self._switch:
            with contextlib.suppress(NodeopsError, OSError):
                _symlink.revert(self._switch)
        try:
            self._write_journal(_journal.TRYING)
        except NodeopsError:  # the disk is full: better no journal than one that says committed
            _journal.remove(self._home, self._namespace.name)

    def _start(self, plan: _plan.AppPlan) -> None:
        if plan.app is None:
            return
        sizes = _file_sizes(plan.app.log_dirs)
        for slot in plan.start:
            payload = plan.app.payload(slot, {"transaction": self._id})
            request = self._namespace.daemon.client.send("prepare", payload)
            self._candidates.append(Candidate(plan.app, slot, request, sizes))
            _points.reached("candidate_sent")

    def _wait(self, ready: Ready) -> None:
        retiring = [process for process in self._retire if process.running]
        wanted = {c.app.name: _handover.named_ports(c.app.payload(c.slot, {})) for c in self._candidates}
        takeover = _handover.Takeover(self._namespace.daemon.pid, retiring, self._namespace.ports, wanted)
        _gate.wait(self._candidates, ready, self._read, self._refused, retiring, self._kept, takeover)

    def _read(self) -> List[Process]:
        self._errors.collect()
        live = self._namespace.read()
        mine = {(p.name, p.instance): p for p in live if _recovery.transaction_of(p) == self._id}
        for candidate in self._candidates:
            candidate.process = mine.get((candidate.app.name, candidate.slot))
        return live

    def _refused(self, candidate: Candidate) -> Optional[str]:
        client = self._namespace.daemon.client
        client.collect()
        if not client.arrived(candidate.request):
            return None
        try:
            client.receive(candidate.request, "prepare")
        except RemoteError as error:
            return str(error.details["rpc_error"])
        # The daemon has accepted it, and will not answer again.
        return None

    def _entries(self) -> List[_dump.Entry]:
        leaving = {process.identity for process in self._retire}
        resting = {process.identity for process in self._stop}
        live = [process for process in self._namespace.read() if process.identity not in leaving]
        return [_saved(process, process.identity in resting) for process in live]

    def _write_journal(self, phase: str) -> None:
        journal = Journal(
            transaction=self._id,
            phase=phase,
            retire=[process.identity for process in self._retire],
            stopped=[process.identity for process in self._stopped],
            save=self._save,
            switch=self._switch._asdict() if self._switch else None,
        )
        _journal.write(self._home, self._namespace.name, journal)

    def _put_back(self, error: BaseException) -> None:
        """Undo, and tell in ``error`` whether that worked and what the failed process logged last."""
        _signals.hold()  # an undo that is interrupted leaves nothing that serves
        if isinstance(error, NodeopsError):
            error.details.update(self._evidence(error))
        try:
            self._await_starts()
            if self._revert:
                self._revert()
            _recovery.undo(self._namespace, self._id, self._stopped)
            _journal.remove(self._home, self._namespace.name)
        except (NodeopsError, OSError) as second:
            if isinstance(error, NodeopsError):
                error.settle(UNDO_FAILED, self._redactor.text(str(second)))
            return
        if isinstance(error, NodeopsError):
            error.settle(UNDONE)

    def _await_starts(self) -> None:
        """Wait until every candidate is in PM2's list or refused: one that comes after the undo would stay for ever."""
        client = self._namespace.daemon.client
        deadline = time.monotonic() + _processes.STOP_GRACE
        while time.monotonic() < deadline:
            self._read()
            client.collect()
            if all(candidate.process or client.arrived(candidate.request) for candidate in self._candidates):
                return
            time.sleep(_processes.QUIET_PAUSE)

    def _evidence(self, error: NodeopsError) -> Dict[str, Any]:
        candidate = error.candidate if isinstance(error, GateFailure) else None
        if candidate is None:
            return {}
        self._errors.collect()
        lines = candidate.error_tail()
        if not lines and candidate.process is not None:
            lines = self._errors.of(candidate.process.pm_id)
        lines = [self._redactor.text(line) for line in lines[-_gate.LOG_TAIL_LINES :]]
        return {"failed_process": {"name": candidate.app.name, "instance": candidate.slot}, "error_log": lines}


@contextlib.contextmanager
def after_commit() -> Iterator[None]:
    """A failure within does not undo the change. Its message and its outcome ``COMMITTED`` say so."""
    try:
        yield
    except (NodeopsError, OSError) as error:
        late = NodeopsError(
            "%s. The change was made; old processes may be left. Run again: the next run removes them."
            % str(error).rstrip("."),
            dict(error.details) if isinstance(error, NodeopsError) else {},
        )
        late.settle(COMMITTED)
        raise late from error


def entries_after(live: List[Process], plan: _plan.Plan) -> List[_dump.Entry]:
    """What a transaction of ``plan`` would save, for check mode."""
    leaving = {process.identity for app in plan.apps for process in app.retire}
    resting = {process.identity for app in plan.apps for process in app.stop}
    entries = [_saved(p, p.identity in resting) for p in live if p.identity not in leaving]
    for app in plan.apps:
        if app.app is not None:
            entries += [_dump.entry_of_payload(app.app.payload(slot, {})) for slot in app.start]
    return entries


def _saved(process: Process, resting: bool) -> _dump.Entry:
    """The entry of a process. One that is to be stopped is saved as not watched: that ends after the save."""
    entry = _dump.entry_of(process.pm2_env)
    if resting:
        entry["status"] = "stopped"
        if entry.get("watch"):
            entry["watch"] = False
    return entry


def make_directories(directories: Iterable[str]) -> None:
    """Create the directories an app logs to, as the pm2 program does (Common.js, prepareAppConf)."""
    for directory in directories:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise NodeopsError("The log directory %s cannot be made: %s" % (directory, error.strerror)) from error


def _file_sizes(directories: Iterable[str]) -> Dict[str, int]:
    sizes = {}
    for directory in directories:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file():
                    sizes[entry.path] = entry.stat().st_size
    return sizes
