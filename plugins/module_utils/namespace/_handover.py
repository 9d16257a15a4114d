# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Cluster workers behind one port: which takes its connections, and how one is drained without losing any.

The daemon listens and hands each connection to a worker, in turn (Node's round robin). A worker that closes its server
tells the daemon so, and a connection handed over meanwhile is given to another worker, as long as the first one lives
to refuse it. A worker with nothing in hand exits at once, and then that connection is lost: its client waits for ever.
So a connection of ours is held open in each worker that is to leave, until the daemon hands it no more.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _sockets
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

HANDOVER = 0.25  # seconds until a connection is in the hands of a worker
CONNECT_TIMEOUT = 1.0
# PM2 looks for a worker's children with ps before it sends the signal (TreeKill.js), so the signal comes late.
QUIET_ROUNDS = 3
ROUND_PAUSE = 0.1
KILL_TIMEOUT = 1600.0  # ms, KILL_TIMEOUT (constants.js)
_NUMBER = re.compile(r"(?<!\d)\d{2,5}(?!\d)")


class Endpoint(NamedTuple):
    host: str
    port: int


def endpoints(daemon_pid: int, workers: Iterable[Process], named: Iterable[int]) -> List[Endpoint]:
    """Where the daemon listens for these cluster workers.

    The kernel does not tell for which worker it listens. So a port counts if a check names it (``named``), or the
    environment or the arguments of a worker do, as in PORT=3000.
    """
    ports = set(named)
    for worker in workers:
        ports |= _numbers([*worker.env.values(), *_texts(worker.pm2_env.get("args"))])
    if not ports:
        return []
    return [Endpoint(*address) for address in _sockets.listening(daemon_pid) if address[1] in ports]


def named_ports(payload: Dict[str, Any]) -> Set[int]:
    """The ports that the environment or the arguments of a new cluster worker may name. A fork process has none."""
    if payload.get("exec_mode") != "cluster_mode":
        return set()
    variables = {**payload, **(payload.get("env") or {})}.values()
    return _numbers([str(v) for v in variables if isinstance(v, (str, int))] + _texts(payload.get("args")))


def _numbers(texts: Iterable[str]) -> Set[int]:
    return {int(number) for text in texts for number in _NUMBER.findall(text)}


def _texts(value: Any) -> List[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _is_serving(process: Process) -> bool:
    return process.exec_mode == "cluster_mode" and process.running


def _connect(endpoint: Endpoint) -> Optional[socket.socket]:
    try:
        return socket.create_connection(endpoint, CONNECT_TIMEOUT)
    except OSError:
        return None


def _taker(connection: socket.socket, pids: Set[int]) -> Optional[int]:
    """Which of ``pids`` takes this connection. None if another process does, or if none does in time."""
    deadline = time.monotonic() + HANDOVER
    while time.monotonic() < deadline:
        inode = _sockets.accepted_inode(connection)
        if inode is None:
            return None
        pid = _sockets.holder(inode, pids) if inode else None
        if pid is not None:
            return pid
        time.sleep(0.001)
    return None


def takers(endpoint: Endpoint, pids: Set[int]) -> Set[Optional[int]]:
    """Those of ``pids`` that take connections. It makes as many connections as are needed to meet each in turn.

    None stands for a connection that another process took, or that no worker took in time.
    """
    found: Set[Optional[int]] = set()
    for _try in range(2 * len(pids) + 2):
        connection = _connect(endpoint)
        if connection is None:
            break
        taker = None
        with contextlib.closing(connection), contextlib.suppress(OSError):  # it was reset
            taker = _taker(connection, pids)
        found.add(taker)
    return found


class Drain:
    """Drain workers that leave while others of the namespace stay: ``hold``, then tell them to end, then ``release``.

    Does nothing for fork processes, or if no worker stays that could take the connections.
    """

    def __init__(
        self, daemon_pid: int, leaving: Iterable[Process], live: Iterable[Process], ports: Iterable[int]
    ) -> None:
        going = [process for process in leaving if _is_serving(process)]
        ids = {process.identity for process in going}
        staying = [process for process in live if _is_serving(process) and process.identity not in ids]
        self._leaving = {process.pid for process in going} if staying else set()
        self._all = self._leaving | {process.pid for process in staying}
        self._endpoints = endpoints(daemon_pid, going, ports) if self._leaving else []
        self._held: List[socket.socket] = []
        patience = min((_milliseconds(process.pm2_env.get("kill_timeout")) for process in going), default=0.0)
        self._patience = 0.75 * patience / 1000  # PM2 ends them for good at the end of kill_timeout

    def hold(self) -> None:
        """Open a connection to each of those that leave."""
        for endpoint in self._endpoints:
            missing = set(self._leaving)
            tries = 0
            while missing and tries < len(self._all) + 2:
                connection = _connect(endpoint)
                if connection is None:
                    break
                taker = _taker(connection, self._all)
                tries += 1
                if taker in missing:
                    missing.remove(taker)
                    tries = 0
                elif taker is not None:
                    connection.close()
                    continue
                self._held.append(connection)  # also one whose taker is too slow to be seen: it may be any of them

    def release(self) -> None:
        """Wait until they get no new connection, then close ours."""
        try:
            deadline = time.monotonic() + self._patience
            quiet = 0
            while self._held and quiet < QUIET_ROUNDS and time.monotonic() < deadline:
                time.sleep(ROUND_PAUSE)
                quiet = 0 if self._takes_more() else quiet + 1
        finally:
            for connection in self._held:
                connection.close()
            self._held = []

    def _takes_more(self) -> bool:
        return any(takers(endpoint, self._all) & {None, *self._leaving} for endpoint in self._endpoints)


def _milliseconds(value: Any) -> float:
    try:
        return float(value or KILL_TIMEOUT)
    except (TypeError, ValueError):
        return KILL_TIMEOUT


class Takeover:
    """As many new cluster workers have to serve a port as old ones do, before the old ones go.

    ``wanted``: per app the ports that its new workers name (``named_ports``). No other port is asked of them, because
    the new release may listen on another one, or on none.
    """

    def __init__(
        self, daemon_pid: int, retiring: Iterable[Process], checked: Iterable[int], wanted: Dict[str, Set[int]]
    ) -> None:
        old = [process for process in retiring if _is_serving(process)]
        skip = set(checked)  # the checks of these ports ask each new process anyway
        self._old = {process.pid: process.name for process in old}
        self._wanted = wanted
        self._met: Dict[Endpoint, Set[int]] = {
            endpoint: set() for endpoint in endpoints(daemon_pid, old, ()) if endpoint.port not in skip
        }

    def problem(self, candidates: Dict[int, str]) -> Optional[str]:
        """What is still missing, None if nothing is. ``candidates``: of the new ones, pid -> name of the app.

        Makes connections, and sends nothing on them.
        """
        for endpoint, met in self._met.items():
            met.update(pid for pid in takers(endpoint, {*candidates, *self._old}) if pid is not None)
            apps = {name for pid, name in self._old.items() if pid in met}
            apps = {name for name in apps if endpoint.port in self._wanted.get(name, ())}
            mates = {pid for pid, name in candidates.items() if name in apps}
            old = sum(pid in met and name in apps for pid, name in self._old.items())
            if len(met & mates) < min(old, len(mates)):
                return "port %d is served by %d old processes and by %d of %d new ones" % (
                    endpoint.port,
                    old,
                    len(met & mates),
                    len(mates),
                )
        return None
