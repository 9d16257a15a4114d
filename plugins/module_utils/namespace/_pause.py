# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Stop the processes of one namespace for a while, and start exactly those again."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _lock, _recovery, _resurrect
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_state import is_active
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._stopped import Stopped
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _bus, _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

DEFAULT_KILL_TIMEOUT = 1600.0  # ms, PM2_KILL_TIMEOUT (constants.js)
_ROOM = 64 << 10  # bytes
_START_TIMEOUT = 30.0  # seconds until processes that are made anew run
_AGAIN = 0.2  # seconds until PM2 is looked at again


class Started(NamedTuple):
    """A process that was started again. ``restarts``: how many PM2 had counted by then."""

    identity: str
    name: str
    restarts: int


class Pause:
    """Without ``home`` and ``namespace`` it has no processes, and does nothing."""

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
        """Whether the PM2_HOME exists. Without it nothing can run."""
        return not self._name or os.path.isdir(self._home)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other run changes the namespace meanwhile. Raises NodeopsError if another run does not finish in time."""
        try:
            self._hold()
            yield
        finally:
            self._lock.close()

    def _hold(self) -> None:
        if self._name and self.has_home:
            self._lock.enter_context(_lock.held(self._home, self._name, "was not stopped"))

    def look(self) -> List[Stopped]:
        """The processes that run or are about to run, as they are now. Changes nothing."""
        namespace = self._namespace()
        self._daemon = namespace.daemon.pid if namespace else None
        return _active(namespace) if namespace else []

    def find(self, seen: Sequence[Stopped]) -> List[Stopped]:
        """The same, after what a killed run has left of the namespace was finished or undone.

        If the daemon has gone since ``look``, it is also those that were ``seen`` then: they are made anew.
        """
        namespace = self._namespace()
        found: List[Stopped] = []
        if namespace is not None:
            _recovery.recover(namespace, self._home)
            found = _active(namespace)
        if self._daemon is not None and (namespace is None or namespace.daemon.pid != self._daemon):
            known = {(process.name, process.instance) for process in found}
            found += [process for process in seen if (process.name, process.instance) not in known]
        return found

    @staticmethod
    def check(processes: Sequence[Stopped], timeout: float) -> None:
        """Raises NodeopsError if one may take longer than ``timeout`` seconds to stop."""
        for process in processes:
            seconds = _milliseconds(process.entry.get("kill_timeout")) / 1000
            if seconds > timeout:
                raise NodeopsError(
                    "%s has %g s to stop (its kill_timeout), stop_timeout is %g s. Nothing was changed. Raise "
                    "stop_timeout: the service may be down for that long." % (process.name, seconds, timeout)
                )

    def check_room(self) -> None:
        """Raises NodeopsError if the disk of PM2_HOME is full: starting a process would then end the daemon, with all
        that it runs.
        """
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
        """Stop them. They stay in PM2's list. Without a daemon there are none."""
        namespace = self._namespace()
        if namespace is not None:
            namespace.stop(self._present(namespace, processes).values())

    def await_resurrect(self, processes: Sequence[Stopped], timeout: float) -> bool:
        """If one of them is missing, wait until PM2 has brought back all of its dump. False if it has not in time.

        At boot a ``pm2 resurrect`` may be under way. It leaves out an app if one of the same name runs, in any
        namespace, and it starts an app twice that is started beside it.
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
        except NodeopsError:  # it is just starting, or the first step that needs it will say what is wrong
            return False
        found = {(process.name, process.instance) for process in live if process.namespace == self._name}
        if all((process.name, process.instance) in found for process in processes):
            return True
        saved = Counter((_dump.namespace_of(each), each.get("name")) for each in _dump.read(self._home).entries)
        return not saved - Counter((process.namespace, process.name) for process in live)

    def start(self, processes: Sequence[Stopped]) -> List[Started]:
        """Start them again as they were, and wait until each runs or has failed.

        A process that has gone with its daemon is made anew. One that runs is left alone.
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
        return [Started(p.identity, p.name, p.restart_time) for p in found.values()]

    def _bring(self, missing: Sequence[Stopped]) -> None:
        """Make them anew as they were. Here it is enough that they run: they have to prove themselves later."""
        self._lock.close()  # the reconciler takes it
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
        """What its processes write to standard error from now on. The caller closes it."""
        return _bus.Errors(self._home, self._name)

    def reader(self) -> Callable[[], List[Process]]:
        """``read`` over one connection. If the daemon goes away, it is looked for again."""
        known: List[Namespace] = []

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

    def _present(self, namespace: Namespace, processes: Sequence[Stopped]) -> Dict[str, Process]:
        """By former identity, what each is now: the same process, or in another daemon that of its name and number."""
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

    def _namespace(self) -> Optional[Namespace]:
        """None if no daemon runs. Raises NodeopsError for one that does not answer."""
        if not self._name:
            return None
        daemon = _daemon.find_listening(self._home)
        return Namespace(daemon, self._name) if daemon else None


def _active(namespace: Namespace) -> List[Stopped]:
    active = [process for process in namespace.read() if is_active(process)]
    return [Stopped(p.identity, p.name, p.instance, _dump.entry_of(p.pm2_env)) for p in active]


def log_sizes(processes: Sequence[Process]) -> Dict[str, int]:
    """The sizes of their logs now: what is written later comes from the processes that are started next."""
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
