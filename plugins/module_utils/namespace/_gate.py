# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Wait until new processes have proven themselves, or say why they have not."""

from __future__ import annotations

import os
import time
from typing import Callable, Dict, Iterable, List, Optional, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._handover import Takeover
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._plan import Defined
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

PID_GRACE = 1.5  # seconds PM2 may say "online" before the process exists
DEFAULT_LISTEN_TIMEOUT = 3000  # ms, GRACEFUL_LISTEN_TIMEOUT (constants.js)
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8192
LOG_READ_LIMIT = 1 << 20


class Candidate:
    """An instance that is being started. ``process`` is what PM2 says of it, None until it is in PM2's list."""

    def __init__(self, app: Defined, slot: int, request: str, log_sizes: Dict[str, int]) -> None:
        self.app = app
        self.slot = slot
        self.request = request
        self.process: Optional[Process] = None
        self.last_launching: Optional[float] = None
        self.first_online: Optional[float] = None
        self.last_running: Optional[float] = None
        self._log_sizes = log_sizes

    @property
    def label(self) -> str:
        return "%s (instance %d)" % (self.app.name, self.slot)

    def log(self) -> str:
        """What it has logged since its start: out and error log, at most the last MiB of each."""
        if self.process is None:
            return ""
        paths = {self.process.out_log, self.process.err_log} - {None, "", "/dev/null"}
        return "".join(self._read(path, LOG_READ_LIMIT) for path in sorted(filter(None, paths)))

    def error_tail(self) -> List[str]:
        """The last lines of its error log since its start. They are not redacted."""
        path = self.process.err_log if self.process else None
        lines = self._read(path, LOG_TAIL_BYTES).splitlines() if path else []
        return lines[-LOG_TAIL_LINES:]

    def _read(self, path: str, limit: int) -> str:
        try:
            with open(path, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                start = self._log_sizes.get(path, 0)
                stream.seek(max(start if start <= size else 0, size - limit))
                return stream.read(limit).decode("utf-8", "replace")
        except OSError:
            return ""


class GateFailure(NodeopsError):
    """The new processes have not proven themselves. ``candidate``: the one that failed, if it was a single one."""

    def __init__(self, message: str, candidate: Optional[Candidate] = None) -> None:
        super().__init__(message)
        self.candidate = candidate


Read = Callable[[], List[Process]]


def wait(
    candidates: List[Candidate],
    ready: Ready,
    read: Read,
    refused: Callable[[Candidate], Optional[str]],
    retiring: List[Process],
    kept: List[Process],
    takeover: Takeover,
) -> None:
    """Return when all candidates are up for ``min_uptime`` and every check has passed. Raises GateFailure.

    ``read`` gives PM2's list and updates the candidates. ``refused`` gives the daemon's error for a candidate that it
    refused to start. ``takeover`` knows the ports that new processes have to serve before ``retiring`` go.
    """
    deadline = time.monotonic() + ready.timeout
    checks = [_checks.Progress(check) for check in ready.connections]
    sharing = {candidate.app.name for candidate in candidates if _shares_port(candidate)}
    old: Set[int] = set()
    others: Set[int] = set()
    for process in [*retiring, *kept]:
        is_old = process in retiring or (process.exec_mode == "cluster_mode" and process.name in sharing)
        (old if is_old else others).add(process.pid)
    pause = 0.01
    while True:
        read()
        up = [_is_up(candidate, ready, refused) for candidate in candidates]
        if any(candidate.process is not None and candidate.process.pid for candidate in candidates) or not candidates:
            pids = _checks.Pids(_pids(candidates), old - {0}, others - {0})
            pending = [
                check for check in checks if not check.round(pids, lambda pid: _peers(candidates, pid), deadline)
            ]
        else:
            pending = list(checks)
        missing = _checks.matches(ready.log, [candidate.log() for candidate in candidates]) if ready.log else []
        untaken = None
        if all(up) and not pending and not missing:
            untaken = takeover.problem({c.process.pid: c.app.name for c in candidates if c.process and c.process.pid})
            read()
            if all(_is_up(candidate, ready, refused) for candidate in candidates) and not untaken:
                return
        if time.monotonic() >= deadline:
            raise _timed_out(candidates, up, pending, missing, untaken, ready)
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


def _pids(candidates: Iterable[Candidate]) -> Set[int]:
    return {candidate.process.pid for candidate in candidates if candidate.process and candidate.process.pid}


def _shares_port(candidate: Candidate) -> bool:
    """Cluster workers share their ports. Each fork process has its own (increment_var)."""
    return candidate.app.exec_mode == "cluster_mode"


def _peers(candidates: List[Candidate], pid: int) -> Set[int]:
    names = {c.app.name for c in candidates if c.process and c.process.pid == pid and _shares_port(c)}
    return {pid} | _pids(candidate for candidate in candidates if candidate.app.name in names)


def _is_up(candidate: Candidate, ready: Ready, refused: Callable[[Candidate], Optional[str]]) -> bool:
    """Whether it has been up long enough. Raises GateFailure if it never will be."""
    error = refused(candidate)
    if error:
        raise GateFailure("%s was not started: %s" % (candidate.label, error), candidate)
    process = candidate.process
    if process is None:
        return False
    if not candidate.app.starts(candidate.slot):
        return True
    if _finished_well(candidate.app, process):
        return True
    if process.restart_time > 0 or process.status in ("errored", "stopped", "stopping", "waiting restart"):
        raise GateFailure("%s %s%s" % (candidate.label, _how_it_died(process), _unwritable_log(process)), candidate)
    now = time.time()
    if process.status != "online":
        candidate.last_launching = now
        return False
    if candidate.first_online is None:
        candidate.first_online = now
        _check_ready_message(candidate, process)
    if not process.running:
        if now - (candidate.last_running or candidate.first_online) > PID_GRACE:
            if candidate.last_running:
                text = "%s exited soon after its start, and PM2 still says 'online'" % candidate.label
                raise GateFailure(text, candidate)
            raise GateFailure(
                "%s is 'online' for PM2, but there is no process: its interpreter (%s) or working directory (%s) "
                "cannot be used" % (candidate.label, candidate.app.config.get("exec_interpreter"), process.cwd),
                candidate,
            )
        return False
    candidate.last_running = now
    return now * 1000 - process.pm_uptime >= ready.min_uptime * 1000


def _finished_well(app: Defined, process: Process) -> bool:
    """Whether it is a job that has done its work: it is not restarted, and has ended with 0."""
    return app.config.get("autorestart") is False and process.status == "stopped" and process.exit_code == 0


def _how_it_died(process: Process) -> str:
    # A cluster worker that throws is reported with code 0, because its disconnect is quicker. That would mislead.
    code = " with exit code %s" % process.exit_code if process.exit_code else ""
    again = "" if not process.restart_time else ", PM2 has restarted it %s" % _times(process.restart_time)
    return "exited%s soon after its start%s (status: %s)" % (code, again, process.status)


def _unwritable_log(process: Process) -> str:
    """Why a cluster worker may have ended without a message: it cannot open its log."""
    for path in sorted({process.out_log or "", process.err_log or ""} - {"", os.devnull}):
        is_there = os.path.lexists(path)
        if not os.access(path if is_there else os.path.dirname(path), os.W_OK):
            return ": its log %s cannot be written" % path
    return ""


def _times(number: int) -> str:
    return "once" if number == 1 else "%d times" % number


def _check_ready_message(candidate: Candidate, process: Process) -> None:
    """With wait_ready PM2 says "online" after listen_timeout even if no 'ready' was sent (God.js, executeApp)."""
    if not candidate.app.config.get("wait_ready") or candidate.last_launching is None:
        return
    allowed = float(str(candidate.app.config.get("listen_timeout") or DEFAULT_LISTEN_TIMEOUT))
    if candidate.last_launching * 1000 - process.pm_uptime >= allowed - 150:
        raise GateFailure(
            "%s did not send 'ready' within its listen_timeout of %g ms (wait_ready)" % (candidate.label, allowed),
            candidate,
        )


def _timed_out(
    candidates: List[Candidate],
    up: List[bool],
    pending: List[_checks.Progress],
    missing: List[str],
    untaken: Optional[str],
    ready: Ready,
) -> GateFailure:
    late = next((candidate for candidate, is_up in zip(candidates, up) if not is_up), None)
    limit = " within %g s" % ready.timeout
    found = next((check for check in pending if check.problem), None)
    if found:
        return GateFailure("%s %s%s" % (found.check.label(), found.problem, limit), late or _first(candidates))
    if missing:
        return GateFailure("no new process logged %r%s" % (missing[0], limit), late or _first(candidates))
    if untaken:
        return GateFailure(untaken + limit, _first(candidates))
    if pending:
        return GateFailure("%s was not tried%s" % (pending[0].check.label(), limit), late or _first(candidates))
    if late is None:
        return GateFailure("the new processes were not up%s" % limit, _first(candidates))
    status = late.process.status if late.process else "not in PM2's list"
    return GateFailure("%s was not up for %g s%s (status: %s)" % (late.label, ready.min_uptime, limit, status), late)


def _first(candidates: List[Candidate]) -> Optional[Candidate]:
    return candidates[0] if candidates else None


def settle(processes: List[Process], min_uptime: float, read: Read) -> List[Process]:
    """Wait until processes that have restarted before are up for ``min_uptime``. Return the list as it is then.

    Raises GateFailure for one that restarts meanwhile. It is in a crash loop, even if PM2 says "online" now and then.
    """
    expected = {process.identity: process for process in processes}
    while True:
        live = read()
        now = [process for process in live if process.identity in expected]
        for process in now:
            if not process.running or process.restart_time != expected[process.identity].restart_time:
                raise GateFailure(
                    "%s is as defined, but it is in a crash loop: PM2 has restarted it %s (status: %s). Nothing "
                    "was changed. Look at %s"
                    % (process.name, _times(process.restart_time), process.status, process.err_log)
                )
        if not any(is_young(process, min_uptime) for process in now):
            return live
        time.sleep(0.05)


def is_young(process: Process, min_uptime: float) -> bool:
    """Whether it has been up for less than ``min_uptime`` seconds."""
    return time.time() * 1000 - process.pm_uptime < min_uptime * 1000
