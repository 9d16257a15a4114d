# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The lock of a deploy. It lasts over several module calls: a process of its own holds it.

A lock file with a flock cannot go stale, but a module lives for one task only. So the first task leaves a small process
behind that holds the flock. That process ends when it is told to, and when the run's *anchor* ends: the
ansible-playbook on this host, or the SSH session that it uses (if neither can be found: LIFETIME after the last task).
A run may continue after that, because its session was closed between two tasks. Then it takes the lock again, unless
another run had it meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from typing import Any, Dict, Iterator, NamedTuple, NoReturn, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_id, _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

LIFETIME = 3600.0  # seconds
TICK = 0.2  # seconds between two looks at the anchor
SIZE = 16384  # bytes of the lock file that are read
LONGEST_VERSION = 200  # characters; a version of package.json may have any length
PATIENCE = 25  # attempts to read an unreadable lock file, before the lock is given up
RELEASE_TIMEOUT = 5.0  # seconds
NO_PROCESS = [0, 0]  # an anchor that never exists
DISOWN_TIMEOUT = 30.0  # seconds that a task may take to put everything back


class Owner(NamedTuple):
    """The run that has the lock. ``run`` is its id; the rest is for people."""

    run: str
    user: str
    host: str
    link: str
    since: str
    app: str
    namespace: str
    action: str
    version: str
    pid: int = 0
    """The ansible-playbook, on ``host``; ``start`` and ``place`` as for _process_id.anchor."""
    start: int = 0
    place: str = ""
    goal: str = ""
    """Shown while the version is not known: "from /srv/shop"."""

    def text(self) -> str:
        goal = ("to " if self.action == "rollback" else "of ") + self.version if self.version else self.goal
        what = ("%s %s" % (self.action, goal)).strip()
        place = "%s, pid %d" % (self.host, self.pid) if self.pid else self.host
        return "a %s by %s (%s) since %s, run %s%s" % (
            what,
            self.user,
            place,
            self.since,
            self.run,
            ", " + self.link if self.link else "",
        )


class Lease:
    """The lock ``<private>/deploy.lock``."""

    def __init__(self, private: str, owner: Owner) -> None:
        self._path = os.path.join(private, "deploy.lock")
        self._owner = owner
        self._anchor = _process_id.anchor(owner.pid or None, owner.start or None, owner.place)

    def acquire(self, timeout: float, ended: str = "") -> None:
        """Take the lock, waiting up to ``timeout`` seconds. Raises NodeopsError that names the owner if another run has
        it.

        ``ended``: a run that is known to have ended, although its SSH session may live on (ControlPersist). Its task is
        ended and its lock freed.
        """
        deadline = time.monotonic() + timeout
        if ended and self._disown(ended):
            deadline += DISOWN_TIMEOUT
        self._check_driven()
        while not self._try(ours_only=False):
            if time.monotonic() >= deadline:
                self._refuse()
            time.sleep(0.1)

    def ensure(self) -> None:
        """Continue with the lock: this run has it, or had it last and it is free.

        Raises NodeopsError if another run has had it since.
        """
        self._check_driven()
        if not self._try(ours_only=True):
            self._refuse()

    def holder(self) -> Optional[Owner]:
        """The run that holds the lock, or None. For check mode, which does not take it."""
        with contextlib.suppress(OSError):
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = None if _lock(handle) else _read(handle)
                return _owner(content) if content else None
            finally:
                os.close(handle)
        return None

    def note_version(self, version: str) -> None:
        """Write the version that the run deploys into the lock, once it is known."""
        self._owner = self._owner._replace(version=version[:LONGEST_VERSION])
        self._note(version=self._owner.version)

    def release(self) -> None:
        """Free the lock if this run has it; else do nothing."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                content = _read(handle)
                if content.get("run") != self._owner.run:
                    return
                # Also ends a holder whose pid is not in the file, because its task was killed before it wrote that.
                _write(handle, dict(content, anchor=NO_PROCESS, operation=None))
                _end_holder(content)
                deadline = time.monotonic() + RELEASE_TIMEOUT
                while not _lock(handle) and time.monotonic() < deadline:
                    time.sleep(0.005)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def working(self, may_be_ended: bool) -> Iterator[None]:
        """Note a task as working. ``may_be_ended``: the holder sends it SIGTERM once the run's anchor has ended."""
        seen = _process_id.find(os.getpid())
        self._note(operation=[*seen, may_be_ended] if seen else None)
        try:
            self._check_driven()  # once it is noted: a holder that ended before did not know of it
            yield
        finally:
            self._note(operation=None)

    def _disown(self, run: str) -> bool:
        """Let the holder of ``run`` know that its anchor has ended. Returns whether that run had the lock."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                content = _read(handle)
                if content.get("run") == run:
                    _write(handle, dict(content, anchor=NO_PROCESS))
                    return True
            finally:
                os.close(handle)
        return False

    def _check_driven(self) -> None:
        if self._anchor is not None and not self._anchor.alive():
            raise NodeopsError(
                "The ansible-playbook or SSH session of run %s has ended, so this task was not started. Nothing was "
                "changed. Run again." % self._owner.run
            )

    def _note(self, **fields: Any) -> None:
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                content = _read(handle)
                if content.get("run") == self._owner.run:
                    _write(handle, dict(content, **fields))
            finally:
                os.close(handle)

    def _try(self, ours_only: bool) -> bool:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NodeopsError(
                "The lock %s cannot be created: %s. Nothing was changed." % (self._path, error.strerror)
            ) from error
        try:
            content = _read(handle)
            ours = content.get("run") == self._owner.run
            if not _lock(handle):
                if ours:
                    _write(handle, dict(content, **self._life()))
                return ours
            if ours_only and not ours:
                return False
            content = dict(self._owner._asdict(), **self._life())
            try:
                _write(handle, content)
            except OSError as error:
                raise NodeopsError(
                    "The lock %s cannot be written: %s. Nothing was changed." % (self._path, error.strerror)
                ) from error
            _write(handle, dict(content, holder=list(_fork_holder(handle))))
            return True
        finally:
            os.close(handle)

    def _life(self) -> Dict[str, Any]:
        return {"anchor": list(self._anchor) if self._anchor else None, "until": time.time() + LIFETIME}

    def _refuse(self) -> NoReturn:
        handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = _read(handle)
        finally:
            os.close(handle)
        owner = _owner(content)
        raise NodeopsError(
            "%s in namespace %s is locked: %s. Nothing was changed. Wait until that run ends, or set lock_timeout (in "
            "the roles: deploy_lock_timeout) to wait here. The lock frees itself when that run ends, however it ends."
            % (self._owner.app, self._owner.namespace, owner.text()),
            {"locked_by": owner._asdict()},
        )


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(handle: int) -> Dict[str, Any]:
    try:
        content = json.loads(os.pread(handle, SIZE, 0).decode("utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _owner(content: Dict[str, Any]) -> Owner:
    fields = {name: content.get(name, "") for name in Owner._fields}
    fields.update(pid=int(content.get("pid") or 0), start=int(content.get("start") or 0))
    return Owner(**fields)


def _write(handle: int, content: Dict[str, Any]) -> None:
    data = json.dumps(content).encode("utf-8")
    # Always the same size: a reader never sees the end of an older content.
    os.pwrite(handle, data.ljust(SIZE)[:SIZE], 0)


def _end_holder(content: Dict[str, Any]) -> None:
    pid, start = content.get("holder") or (0, 0)
    if pid and _process_id.ProcessId(pid, start).alive():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _fork_holder(handle: int) -> _process_id.ProcessId:
    """Start a process in its own session that keeps ``handle`` open, and so the flock, until the run has ended."""
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _hold(handle, outside)
        os._exit(0)
    os.close(outside)
    os.waitpid(child, 0)
    with os.fdopen(inside, "rb") as stream:
        seen = _process_id.find(int(stream.read() or b"0"))
    if seen is None:
        raise NodeopsError("The process that holds the lock could not be started. Nothing was changed. Run again.")
    return seen


def _hold(handle: int, outside: int) -> NoReturn:
    """Hold the lock. All other files of the module's process are closed: Ansible waits until its output is closed."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.chdir("/")
        os.write(outside, b"%d" % os.getpid())
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        _procfs.close_descriptors(but=(0, 1, 2, handle))
        unreadable = 0
        while unreadable < PATIENCE:
            content = _read(handle)  # {} while another process writes it
            unreadable = 0 if content else unreadable + 1
            if content and not _still_wanted(content):
                break
            time.sleep(TICK)
        _end_operation(handle)
    finally:
        os._exit(0)


def _still_wanted(content: Dict[str, Any]) -> bool:
    anchor = content.get("anchor")
    if anchor:
        return _process_id.ProcessId(*anchor).alive()
    return time.time() < float(content.get("until") or 0)


def _end_operation(handle: int) -> None:
    """End the task that still works for this run: its result has no reader. Hold the lock until the task has ended."""
    content = _read(handle)
    for _look in range(PATIENCE):
        if not content:  # another process is writing it
            time.sleep(TICK / PATIENCE)
            content = _read(handle)
    pid, start, may_be_ended = content.get("operation") or (0, 0, False)
    operation = _process_id.ProcessId(pid, start)
    if pid and operation.alive() and may_be_ended:
        os.kill(pid, signal.SIGTERM)
    while pid and operation.alive():
        time.sleep(TICK)
