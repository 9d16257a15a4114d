# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The processes of one namespace, stopped for a while; and started again, exactly those."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _plan, _resurrect, _transaction
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _bus, _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

LOCK_TIMEOUT = 120.0
DEFAULT_KILL_TIMEOUT = 1600.0  # ms, PM2_KILL_TIMEOUT (constants.js)
_ROOM = 64 << 10  # bytes
_START_TIMEOUT = 30.0  # seconds until processes that are made anew run
_AGAIN = 0.2  # seconds until PM2 is looked at again


class Stopped(NamedTuple):
    """A process that is to run again: what it was, and how to make it anew where it is lost.

    ``identity`` is that of _process.Process, ``entry`` that of a dump.
    """

    identity: str
    name: str
    instance: Optional[int]
    entry: Dict[str, Any]


class Watched(NamedTuple):
    """A process that was started again: ``restarts`` is what PM2 has counted until then."""

    identity: str
    name: str
    restarts: int


class Pause:
    """``home`` and ``namespace`` None: there are no processes, and nothing is done."""

    def __init__(self, home: Optional[str], executable: Optional[str], namespace: Optional[str]) -> None:
        self._home = home or ""
        self._executable = executable
        self._name = namespace or ""
        self._lock = contextlib.ExitStack()
        self._daemon: Optional[int] = None
        if namespace is not None:
            check_namespace(namespace)
            _daemon.check_home(self._home)

    @property
    def has_home(self) -> bool:
        """Whether there is such a PM2_HOME; where there is none nothing can run."""
        return not self._name or os.path.isdir(self._home)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other run changes the namespace meanwhile. Raises NodeopsError when one does, after a while."""
        try:
            self._hold()
            yield
        finally:
            self._lock.close()

    def _hold(self) -> None:
        if self._name and self.has_home:
            what = "Namespace %s was not stopped" % self._name
            self._lock.enter_context(_files.lock(self._home, _files.namespace_lock(self._name), what, LOCK_TIMEOUT))

    def look(self) -> List[Stopped]:
        """Those that run or are about to, as they are now. Nothing is changed."""
        namespace = self._namespace()
        self._daemon = namespace.daemon.pid if namespace else None
        return _active(namespace) if namespace else []

    def find(self, seen: Sequence[Stopped]) -> List[Stopped]:
        """The same, when what a killed run has left of the namespace is finished or undone.

        Of a daemon that has gone since ``look`` it is those that were ``seen`` then: they are made anew.
        """
        namespace = self._namespace()
        found: List[Stopped] = []
        if namespace is not None:
            _transaction.recover(namespace, self._home)
            found = _active(namespace)
        if self._daemon is not None and (namespace is None or namespace.daemon.pid != self._daemon):
            known = {(process.name, process.instance) for process in found}
            found += [process for process in seen if (process.name, process.instance) not in known]
        return found

    @staticmethod
    def check(processes: Sequence[Stopped], timeout: float) -> None:
        """Raises NodeopsError when one may take longer than ``timeout`` seconds to stop."""
        for process in processes:
            seconds = _milliseconds(process.entry.get("kill_timeout")) / 1000
            if seconds > timeout:
                raise NodeopsError(
                    "%s has %g s to stop (its kill_timeout), stop_timeout is %g s. Nothing was changed. Raise "
                    "stop_timeout: the service is down for so long." % (process.name, seconds, timeout)
                )

    def check_room(self) -> None:
        """Raises NodeopsError when PM2_HOME has no room: starting something would end the daemon, with all
        that it runs."""
        if not self._name or not self.has_home:
            return
        path = _files.state_path(self._home, "room")
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _files.write_atomically(path, bytes(_ROOM))
            os.unlink(path)
        except OSError as error:
            raise NodeopsError(
                "pm2_home %s cannot be written to: %s. Nothing was stopped." % (self._home, _files.why(error))
            ) from error

    def stop(self, processes: Sequence[Stopped]) -> None:
        """Stop them; they stay in PM2's list. Without a daemon there are none."""
        namespace = self._namespace()
        if namespace is not None:
            namespace.stop(self._present(namespace, processes).values())

    def await_resurrect(self, processes: Sequence[Stopped], timeout: float) -> bool:
        """Where one of them is missing: wait until PM2 has brought all of its dump back. False: it has not.

        At boot a ``pm2 resurrect`` is on its way. It leaves out what is called as something that runs, in whatever
        namespace, and starts twice what begins beside it.
        """
        deadline = time.monotonic() + timeout
        while not self._is_resurrected(processes):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_AGAIN)
        return True

    def _is_resurrected(self, processes: Sequence[Stopped]) -> bool:
        try:
            daemon = _daemon.find_listening(self._home) if self._name else None
            live = [process for process in map(Process, daemon.read() if daemon else []) if not process.is_module]
        except NodeopsError:  # it is just starting, or whoever needs it will say what is wrong
            return False
        found = {(process.name, process.instance) for process in live if process.namespace == self._name}
        if all((process.name, process.instance) in found for process in processes):
            return True
        saved = Counter((_dump.namespace_of(each), each.get("name")) for each in _dump.read(self._home).entries)
        return not saved - Counter((process.namespace, process.name) for process in live)

    def start(self, processes: Sequence[Stopped]) -> List[Watched]:
        """Start them again as they were, and wait until each runs or has failed.

        One that has gone with its daemon is made anew. Those that run are left alone.
        """
        if not processes:
            return []
        namespace = self._namespace()
        found: Dict[str, Process] = {}
        if namespace is not None:
            found = self._present(namespace, processes)
            namespace.restart(found.values())
        missing = [process for process in processes if process.identity not in found]
        if missing:
            self._bring(missing)
            namespace = self._namespace()
        found = self._present(namespace, processes) if namespace else {}
        lost = sorted({process.name for process in processes if process.identity not in found})
        if lost:
            raise NodeopsError("%s of namespace %s could not be started again." % (", ".join(lost), self._name))
        return [Watched(p.identity, p.name, p.restart_time) for p in found.values()]

    def _bring(self, missing: Sequence[Stopped]) -> None:
        """They start as they were, and prove themselves afterwards: here it is enough that they run."""
        self._lock.close()  # who brings them holds it
        try:
            ready = {"timeout": _START_TIMEOUT, "min_uptime": 0.0}
            entries = [dict(process.entry, status="online") for process in missing]
            _resurrect.bring(self._home, self._executable, self._name, entries, ready, False, False)
        finally:
            self._hold()

    def read(self) -> List[Process]:
        """All processes of the namespace."""
        namespace = self._namespace()
        return namespace.read() if namespace else []

    def errors(self) -> _bus.Errors:
        """What its processes say on standard error from now on. To be closed."""
        return _bus.Errors(self._home, self._name)

    def reader(self) -> Callable[[], List[Process]]:
        """``read`` over one connection; the daemon that goes away is looked for again."""
        known: List[_transaction.Namespace] = []

        def read() -> List[Process]:
            if known:
                with contextlib.suppress(NodeopsError):
                    return known[0].read()
                known.clear()
            namespace = self._namespace()
            if namespace is None:
                return []
            known.append(namespace)
            return namespace.read()

        return read

    def _present(self, namespace: _transaction.Namespace, processes: Sequence[Stopped]) -> Dict[str, Process]:
        """By former identity, as it is now: the same one; or, of another daemon, the one of that name and number."""
        live = namespace.read()
        identities = {process.identity: process for process in live}
        numbered = {(process.name, process.instance): process for process in live}
        found = {}
        for process in processes:
            now = identities.get(process.identity)
            if now is None and process.instance is not None:
                now = numbered.get((process.name, process.instance))
            if now is not None:
                found[process.identity] = now
        return found

    def _namespace(self) -> Optional[_transaction.Namespace]:
        """None where no daemon runs. Raises NodeopsError for one that does not answer."""
        if not self._name:
            return None
        daemon = _daemon.find_listening(self._home)
        return _transaction.Namespace(daemon, self._name) if daemon else None


def _active(namespace: _transaction.Namespace) -> List[Stopped]:
    active = [process for process in namespace.read() if _plan.is_active(process)]
    return [Stopped(p.identity, p.name, p.instance, _dump.entry_of(p.pm2_env)) for p in active]


def log_sizes(processes: Sequence[Process]) -> Dict[str, int]:
    """How much there is in their logs: what comes later is said by their next life."""
    sizes = {}
    for process in processes:
        for path in {process.out_log, process.err_log} - {None, ""}:
            with contextlib.suppress(OSError):
                sizes[str(path)] = os.stat(str(path)).st_size
    return sizes


def _milliseconds(value: object) -> float:
    try:
        return float(str(value or DEFAULT_KILL_TIMEOUT))
    except ValueError:
        return DEFAULT_KILL_TIMEOUT
