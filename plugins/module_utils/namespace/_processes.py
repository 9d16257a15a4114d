# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The processes of one namespace in a running daemon: read them, stop, delete, and start them again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _handover
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_state import is_between_lives
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import RemoteError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

STOP_GRACE = 30.0  # seconds on top of an app's own kill_timeout
STOP_PAUSE = 0.01  # seconds between two looks whether one of several has ended
RESTART_PAUSE = 1.0  # seconds until a process that is still stopped is asked to start again
RESTART_TIMEOUT = 30.0
RESTLESS_UPTIME = 2000  # ms; what was restarted and has been up for less may crash again at any moment
QUIET_READS, QUIET_PAUSE = 5, 0.03  # how often and after how many seconds a process must not be back


class Namespace:
    """The processes of one namespace in a daemon. Every change goes by pm_id and is guarded by unique_id."""

    def __init__(self, daemon: Daemon, name: str, ports: Iterable[int] = ()) -> None:
        self.daemon = daemon
        self.name = name
        self.ports = frozenset(ports)
        """Those its checks ask."""

    def read(self) -> List[Process]:
        """The processes as they are now. Modules of PM2 (pm2-logrotate) are not apps of a namespace."""
        return ours(self.daemon.read(), self.name)

    def still_there(self, processes: Iterable[Process]) -> List[Process]:
        """Those of ``processes`` that are still in the list, as they are now: same pm_id, unique_id and namespace."""
        wanted = {process.identity for process in processes}
        return [process for process in self.read() if process.identity in wanted]

    def delete(self, processes: Iterable[Process], restless: bool = False) -> None:
        """Stop them and take them out of PM2's list. Raises AxonError if the daemon refuses.

        ``restless``: they may be crashing just now, so make sure that none comes back.
        """
        wanted = {process.identity for process in processes}
        if not wanted:
            return
        live = self.read()
        present = [process for process in live if process.identity in wanted]
        self._unwatch(present)
        drain = _handover.Drain(self.daemon.pid, present, live, self.ports)
        drain.hold()
        requests = self._send("deleteProcessId", present)
        drain.release()
        self._receive("deleteProcessId", requests)
        for process in present:
            _end_survivor(process)
        self._again("deleteProcessId", [process for process in present if restless or _is_restless(process)])

    def stop(self, processes: Iterable[Process]) -> None:
        """Stop them. They stay in the list, and PM2 still watches those that it watched."""
        for _stopped in self.stop_each([list(processes)]):
            pass

    def stop_each(self, groups: Sequence[List[Process]]) -> Iterator[int]:
        """Stop them all at the same time. Give the number of each group as soon as all of it has ended.

        PM2 looks only every 0.1 s whether a process has ended (God/Methods.js:174, kill_retry_time), which adds up if
        they are stopped one after the other. No group waits for a slower one.
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

        PM2 restarts a crashed process in two steps and forgets a stop or delete between them: the second step
        puts the process back into the list, running (God.js:229 executeApp, the callback of forkMode and nodeApp).
        """
        quiet = 0
        deadline = time.monotonic() + STOP_GRACE
        while processes and quiet < QUIET_READS and time.monotonic() < deadline:
            time.sleep(QUIET_PAUSE)
            back = self.still_there(processes)
            if method == "stopProcessId":
                back = [p for p in back if p.status != "stopped" or is_between_lives(p)]
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
        """Start stopped processes again as they were, and wait until each runs.

        PM2 refuses to start one that is still being stopped (God/ActionMethods.js:268), so it is asked again.
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
    if process.status in ("launching", "waiting restart") or is_between_lives(process):
        return True
    return process.restart_time > 0 and time.time() * 1000 - process.pm_uptime < RESTLESS_UPTIME


def _end_survivor(process: Process) -> None:
    """Kill what is left: PM2 takes a process out of its list even if it could not kill it (ActionMethods.js:363)."""
    if not process.pid or not process.unique_id:
        return
    # Anywhere in it: the environment of a cluster worker is all in one variable.
    if process.unique_id.encode() in _procfs.environment_block(process.pid):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _already_gone() -> Any:
    """Another run or user has deleted it meanwhile, as was intended."""
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
