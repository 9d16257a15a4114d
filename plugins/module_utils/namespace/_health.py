# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Whether an application is healthy after its processes were started again: several good rounds in a row."""

from __future__ import annotations

import time
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _gate
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import Candidate, GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._pause import Started
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import LiveApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

PAUSE = 0.05  # seconds between two rounds
GRACE = 3.0  # seconds a process may be missing in PM2's list: its daemon may be starting again
_OVER = ("errored", "stopped", "stopping", "waiting restart")


def wait(
    started: Sequence[Started],
    sizes: Dict[str, int],
    read: Callable[[], List[Process]],
    ready: Ready,
    healthy: int,
) -> float:
    """Return if all is well ``healthy`` times in a row. The value is when that began (time.monotonic).

    All is well if every process runs and has not restarted, every check passes, and every pattern was logged. In the
    end each process has to be up for ``min_uptime``. ``sizes``: of the logs before the start. Raises GateFailure.
    """
    deadline = time.monotonic() + ready.timeout
    checks = [_checks.Progress(check) for check in ready.connections]
    good, since = 0, 0.0
    gone: Optional[float] = None
    while True:
        candidates, problem = _processes(started, read(), sizes)
        gone = None if len(candidates) == len(started) else gone or time.monotonic()
        if gone and time.monotonic() > gone + GRACE:
            raise GateFailure(problem or "a process is gone")
        problem = problem or _answers(checks, candidates, deadline) or _logged(ready, candidates)
        if problem:
            good = 0
        else:
            good += 1
            since = time.monotonic() if good == 1 else since
            young = _young(candidates, ready.min_uptime)
            if good >= healthy and young is None:
                return since
            problem = young or "it was well %d times in a row, healthy is %d" % (good, healthy)
        if time.monotonic() >= deadline:
            raise GateFailure("%s within %g s" % (problem, ready.timeout), candidates[0] if candidates else None)
        time.sleep(PAUSE)


def _processes(
    started: Sequence[Started], live: List[Process], sizes: Dict[str, int]
) -> Tuple[List[Candidate], Optional[str]]:
    """Those that were started, and what is still missing. Raises GateFailure for one that has failed."""
    identities = {process.identity: process for process in live}
    candidates, problem = [], None
    for one in started:
        process = identities.get(one.identity)
        if process is None:
            problem = problem or "%s is not in PM2's list" % one.name
            continue
        candidate = Candidate(LiveApp(process.name, [process]), process.instance or 0, "", sizes)
        candidate.process = process
        candidates.append(candidate)
        if process.restart_time > one.restarts or (process.status in _OVER and not _is_done(process)):
            times = process.restart_time - one.restarts
            again = " (PM2 has restarted it %d times)" % times if times else ""
            raise GateFailure("%s ended after its start%s, status %s" % (one.name, again, process.status), candidate)
        if not process.running and not _is_done(process):
            problem = problem or "%s did not run (status: %s)" % (one.name, process.status)
    return candidates, problem


def _is_done(process: Process) -> bool:
    """A job that is not restarted and has ended with 0."""
    return process.pm2_env.get("autorestart") is False and process.status == "stopped" and process.exit_code == 0


def _answers(checks: Sequence[_checks.Progress], candidates: Sequence[Candidate], deadline: float) -> Optional[str]:
    processes = [candidate.process for candidate in candidates if candidate.process and candidate.process.pid]
    pids = _checks.Pids({process.pid for process in processes}, set(), set())
    clustered = {process.pid: process.name for process in processes if process.exec_mode == "cluster_mode"}

    def peers(pid: int) -> Set[int]:
        name = clustered.get(pid)
        return {pid} if name is None else {other for other, its in clustered.items() if its == name}

    for check in checks:
        if not check.round(pids, peers, deadline):
            return "%s %s" % (check.check.label(), check.problem or "was not tried")
    return None


def _logged(ready: Ready, candidates: Sequence[Candidate]) -> Optional[str]:
    if not ready.log:
        return None
    missing = _checks.matches(ready.log, [candidate.log() for candidate in candidates])
    return "no process logged %r" % missing[0] if missing else None


def _young(candidates: Sequence[Candidate], min_uptime: float) -> Optional[str]:
    for candidate in candidates:
        process = candidate.process
        if process and process.running and _gate.is_young(process, min_uptime):
            return "%s was not up for %g s" % (process.name, min_uptime)
    return None
