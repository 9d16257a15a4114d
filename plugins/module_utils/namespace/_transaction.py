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
import signal
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _procfs, _signals, _sockets, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _gate, _handover, _journal, _plan
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._checks import Check, Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import Candidate, GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._journal import Journal
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _bus, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import RemoteError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

STOP_GRACE = 30.0  # seconds on top of an app's own kill_timeout
STOP_PAUSE = 0.01  # seconds between two looks whether one of several has ended
RESTART_PAUSE = 1.0  # seconds until a process that is still stopped is asked to start again
RESTART_TIMEOUT = 30.0
RESTLESS_UPTIME = 2000  # ms; what was restarted and has been up for less may crash again at any moment
QUIET_READS, QUIET_PAUSE = 5, 0.03  # how often and after how many seconds a process must not be back
OUTCOME = {_journal.COMMITTED: "finished", _journal.TRYING: "undone"}


class Namespace:
    """The processes of one namespace in a daemon. Every change goes by pm_id and is guarded by unique_id."""

    def __init__(self, daemon: Daemon, name: str, ports: Iterable[int] = ()) -> None:
        self.daemon = daemon
        self.name = name
        self.ports = frozenset(ports)
        """Those its checks ask."""

    def read(self) -> List[Process]:
        """Our processes as they are now; modules of PM2 (pm2-logrotate) are nobody's app."""
        return ours(self.daemon.read(), self.name)

    def still_there(self, processes: Iterable[Process]) -> List[Process]:
        """Those of ``processes`` that are still in the list, as they are now: same pm_id, unique_id and namespace."""
        wanted = {process.identity for process in processes}
        return [process for process in self.read() if process.identity in wanted]

    def delete(self, processes: Iterable[Process], restless: bool = False) -> None:
        """Stop them and take them out of PM2's list. Raises AxonError when the daemon refuses.

        ``restless``: they may be crashing just now, so it is made sure that none comes back.
        """
        wanted = {process.identity for process in processes}
        if not wanted:
            return
        live = self.read()
        present = [process for process in live if process.identity in wanted]
        self._unwatch(present)
        departure = _handover.Departure(self.daemon.pid, present, live, self.ports)
        departure.hold()
        requests = self._send("deleteProcessId", present)
        departure.release()
        self._receive("deleteProcessId", requests)
        for process in present:
            _end_survivor(process)
        self._again("deleteProcessId", [process for process in present if restless or _is_restless(process)])

    def stop(self, processes: Iterable[Process]) -> None:
        """Stop them; they stay in the list, and are still watched when they were."""
        for _stopped in self.stop_each([list(processes)]):
            pass

    def stop_each(self, groups: Sequence[List[Process]]) -> Iterator[int]:
        """Stop them all at the same time; give the number of each group as soon as it has come to its end.

        PM2 looks only every 0.1 s whether a process has ended (God/Methods.js:174, kill_retry_time): one after the
        other that adds up. Nobody waits for a group that is slow.
        """
        present = {process.identity: process for process in self.still_there(p for group in groups for p in group)}
        pending = {
            number: self._send("stopProcessId", [present[p.identity] for p in group if p.identity in present])
            for number, group in enumerate(groups)
        }
        sent = time.monotonic()
        deadline = sent + max(map(_patience, present.values()), default=0.0)
        while pending:
            self.daemon.client.collect()
            ended = [number for number, requests in pending.items() if self._arrived(requests)]
            late = time.monotonic() >= deadline
            if not ended and not late:
                time.sleep(STOP_PAUSE)
                continue
            for number in list(pending) if late else ended:
                requests = pending.pop(number)
                self._receive("stopProcessId", requests, sent)
                self._again("stopProcessId", [process for process, _request in requests if _is_restless(process)])
                yield number

    def _arrived(self, requests: List[Tuple[Process, str]]) -> bool:
        return all(self.daemon.client.arrived(request) for _process, request in requests)

    def _again(self, method: str, processes: List[Process]) -> None:
        """Stop or delete once more what has come back.

        PM2 restarts a crashed process in two steps, and a stop or delete between them is forgotten: the second step
        puts the process back into the list, running (God.js:229 executeApp, the callback of forkMode and nodeApp).
        """
        quiet = 0
        deadline = time.monotonic() + STOP_GRACE
        while processes and quiet < QUIET_READS and time.monotonic() < deadline:
            time.sleep(QUIET_PAUSE)
            back = self.still_there(processes)
            if method == "stopProcessId":
                back = [p for p in back if p.status != "stopped" or _plan.is_between_lives(p)]
            quiet = 0 if back else quiet + 1
            self._receive(method, self._send(method, back))

    def unwatch(self, processes: Iterable[Process]) -> None:
        """End watching, which would start a stopped process again (Watcher.js:53)."""
        if processes:
            self._unwatch(self.still_there(processes))

    def _unwatch(self, processes: List[Process]) -> None:
        for process in processes:
            if process.pm2_env.get("watch"):
                with _already_gone():
                    self.daemon.client.call("stopWatch", "stopProcessId", process.pm_id)

    def _send(self, method: str, processes: List[Process]) -> List[Tuple[Process, str]]:
        return [(process, self.daemon.client.send(method, process.pm_id)) for process in processes]

    def _receive(self, method: str, requests: List[Tuple[Process, str]], sent: Optional[float] = None) -> None:
        for process, request in requests:
            with _already_gone():
                self.daemon.client.receive(request, method, _patience(process), sent)

    def restart(self, processes: Iterable[Process]) -> None:
        """Start stopped ones again as they were, and wait until each runs.

        One that is still being stopped is asked again: PM2 refuses to start it (God/ActionMethods.js:268).
        """
        waiting = {process.identity for process in processes}
        asked: Dict[Any, float] = {}
        start, timeout = time.monotonic(), RESTART_TIMEOUT
        while waiting:
            live = [process for process in self.read() if process.identity in waiting]
            timeout = max([timeout, *(RESTART_TIMEOUT + _patience(p) for p in live if p.status == "stopping")])
            down = [process for process in live if not process.running]
            if all(process.status in ("errored", "waiting restart") and process.identity in asked for process in down):
                return
            now = time.monotonic()
            if now > start + timeout:
                raise NodeopsError("%s did not start again within %g s" % (down[0].name, timeout))
            for process in down:
                last = asked.get(process.identity)
                if last is None or (process.status == "stopped" and now > last + RESTART_PAUSE):
                    self.daemon.client.send("restartProcessId", {"id": process.pm_id})
                    asked[process.identity] = now
            time.sleep(0.05)


def ours(items: Iterable[Dict[str, Any]], namespace: str) -> List[Process]:
    """The processes of ``namespace`` in an answer of getMonitorData."""
    processes = (Process(item) for item in items)
    return [process for process in processes if process.namespace == namespace and not process.is_module]


def _patience(process: Process) -> float:
    """Seconds that PM2 may take to end it."""
    return STOP_GRACE + 2 * _milliseconds(process.pm2_env.get("kill_timeout")) / 1000


def _is_restless(process: Process) -> bool:
    """Whether PM2 may be about to restart it."""
    if process.status in ("launching", "waiting restart") or _plan.is_between_lives(process):
        return True
    return process.restart_time > 0 and time.time() * 1000 - process.pm_uptime < RESTLESS_UPTIME


def _end_survivor(process: Process) -> None:
    """PM2 takes a process out of its list even when it could not kill it (ActionMethods.js:363): then nobody would."""
    if not process.pid or not process.unique_id:
        return
    # Anywhere in it: the environment of a cluster worker is all in one variable.
    if process.unique_id.encode() in _procfs.environment_block(process.pid):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _already_gone() -> Any:
    """Somebody else deleted it meanwhile: that is what was wanted."""
    try:
        yield
    except RemoteError as error:
        if "id unknown" not in str(error):
            raise


def _milliseconds(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


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
        self._make_room = [process for room in plan.rooms for process in room.processes]
        self._stop = [process for app in plan.apps for process in app.stop]
        self._stopped = self._make_room + [process for process in self._stop if _plan.is_active(process)]
        self._kept = [process for app in plan.apps for process in app.keep]

    def run(self) -> bool:
        """Do it. Return whether the dump was written. Raises NodeopsError when everything was put back."""
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
        """What is left to do after the commit. Where it fails, the next run finishes it."""
        with after_commit():
            self._namespace.unwatch(self._stop)
            self._namespace.delete(self._retire)
            _points.reached("retired")
            _journal.remove(self._home, self._namespace.name)
        _points.reached("journal_removed")

    def _try(self) -> None:
        for plan in self._plan.apps:  # before anything makes way for what could not be started
            if plan.app is not None and plan.start:
                make_directories(plan.app.log_dirs)
        beside = [plan for plan in self._plan.apps if plan.order == _plan.BESIDE]
        for plan in beside:
            self._start(plan)
        _points.reached("beside_started")
        if self._make_room and self._candidates:
            # Nothing is stopped for a release whose first processes do not stay up or answer badly.
            self._wait(self._ready._replace(connections=self._answered_by_workers(), log=[]))
            _points.reached("beside_up")
        rooms = self._plan.rooms
        for number in self._namespace.stop_each([room.processes for room in rooms]):
            _points.reached("room_made")
            for plan in rooms[number].apps:
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
        """Not committed after all: a run killed while it puts back must not be finished by the next one."""
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
        mine = {(p.name, p.instance): p for p in live if _transaction_of(p) == self._id}
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
        # Taken in: it will not arrive again.
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
        """Undo, and tell in ``error`` whether that worked and what the failed process said last."""
        _signals.hold()  # an undo that is broken off leaves nothing that serves
        if isinstance(error, NodeopsError):
            error.details.update(self._evidence(error))
        try:
            self._await_starts()
            if self._revert:
                self._revert()
            undo(self._namespace, self._id, self._stopped)
            _journal.remove(self._home, self._namespace.name)
        except (NodeopsError, OSError) as second:
            if isinstance(error, NodeopsError):
                error.details.update(rolled_back=False, rollback_error=self._redactor.text(str(second)))
            return
        if isinstance(error, NodeopsError):
            error.details["rolled_back"] = True

    def _await_starts(self) -> None:
        """Until every candidate is in PM2's list or refused: one that appears after the undo would stay for ever."""
        client = self._namespace.daemon.client
        deadline = time.monotonic() + STOP_GRACE
        while time.monotonic() < deadline:
            self._read()
            client.collect()
            if all(candidate.process or client.arrived(candidate.request) for candidate in self._candidates):
                return
            time.sleep(QUIET_PAUSE)

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
    """What fails within does not undo the change, and says so: in words, and as the detail ``committed``."""
    try:
        yield
    except (NodeopsError, OSError) as error:
        raise NodeopsError(
            "%s. The change was made; old processes may be left. Run again: the next run removes them."
            % str(error).rstrip("."),
            dict(error.details if isinstance(error, NodeopsError) else {}, committed=True),
        ) from error


def undo(namespace: Namespace, transaction: str, stopped: Sequence[Process]) -> None:
    """Remove what a transaction started, and start again what it stopped."""
    leftover = [process for process in namespace.read() if _transaction_of(process) == transaction]
    namespace.delete(leftover, restless=True)
    namespace.restart(stopped)


class Recovery(NamedTuple):
    """What was done about a killed run: ``finished``, ``undone`` or None; and whether the dump was written."""

    outcome: Optional[str]
    saved: bool


def recover(namespace: Namespace, pm2_home: str) -> Recovery:
    """Finish or undo what a killed run left in this namespace."""
    journal = _journal.read(pm2_home, namespace.name)
    if journal is None:
        return Recovery(None, False)
    live = namespace.read()
    stopped = [process for process in live if process.identity in journal.stopped]
    saved = False
    if journal.phase == _journal.COMMITTED:
        namespace.unwatch(stopped)
        namespace.delete([process for process in live if process.identity in journal.retire])
        _finish_switch(journal)
        if journal.finishes_saving:
            saved = _dump.save(pm2_home, namespace.name, _dump.entries_of(p.pm2_env for p in namespace.read()))
    else:
        undo(namespace, journal.transaction, stopped)
    _journal.remove(pm2_home, namespace.name)
    return Recovery(OUTCOME[journal.phase], saved)


def _finish_switch(journal: Journal) -> None:
    """Unless somebody has let the link lead elsewhere meanwhile, or has removed where it is."""
    if journal.switch:
        switch = _symlink.Switch(**journal.switch)
        if os.path.isdir(os.path.dirname(switch.path)) and _symlink.target(switch.path) == switch.before:
            _symlink.apply(switch)


def after_recovery(live: List[Process], journal: Optional[Journal]) -> List[Process]:
    """What ``recover`` would leave, for check mode."""
    if journal is None:
        return live
    if journal.phase == _journal.COMMITTED:
        kept = [process for process in live if process.identity not in journal.retire]
        return [
            _Foreseen(p, watch=False) if p.identity in journal.stopped and p.pm2_env.get("watch") else p for p in kept
        ]
    old = [process for process in live if _transaction_of(process) != journal.transaction]
    return [_Foreseen(p, status="online") if p.identity in journal.stopped and not p.running else p for p in old]


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
    """The entry of a process; a stopped one is not watched any more, which is ended after the dump is written."""
    entry = _dump.entry_of(process.pm2_env)
    if resting:
        entry["status"] = "stopped"
        if entry.get("watch"):
            entry["watch"] = False
    return entry


class _Foreseen(Process):
    """A process as it will be with ``changes``; one that will be online will also run."""

    def __init__(self, process: Process, **changes: Any) -> None:
        env = dict(process.pm2_env, **changes)
        super().__init__({"pm_id": process.pm_id, "name": process.name, "pid": 0, "pm2_env": env})

    @property
    def running(self) -> bool:
        return self.status == "online"


def _transaction_of(process: Process) -> Optional[str]:
    return (process.marker or {}).get("transaction")


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
