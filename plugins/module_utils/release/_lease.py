# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The lock of a deploy: held over several module calls, by a process of its own, which ends with who drives the run.

A lock file with a flock cannot go stale, but a module lives for one task only. So the first task leaves a small process
behind that keeps the flock. It ends when it is told to, and when the run's *anchor* does: the ansible-playbook on this
host, or the SSH session it came by (where neither can be told: LIFETIME after the last task). A run that goes on after
that, because its session was closed between two tasks, takes the lock again, unless somebody else had it meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from typing import Any, Dict, Iterator, NamedTuple, NoReturn, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_id
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

LIFETIME = 3600.0  # seconds
TICK = 0.2  # seconds between two looks at the anchor
SIZE = 16384  # bytes of the lock file that are read
LONGEST_VERSION = 200  # characters; package.json may say whatever it likes
PATIENCE = 25  # looks at a lock file that cannot be read, before the lock is given up
RELEASE_TIMEOUT = 5.0
NO_PROCESS = [0, 0]  # an anchor that is no process
DISOWN_TIMEOUT = 30.0  # what a task may take to put everything back


class Owner(NamedTuple):
    """Who has the lock. ``run`` names the run; the rest is for people."""

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
    """What is known before the version is: "from /srv/shop"."""

    def text(self) -> str:
        goal = ("to " if self.action == "rollback" else "of ") + self.version if self.version else self.goal
        what = ("%s %s" % (self.action, goal)).strip()
        where = "%s, pid %d" % (self.host, self.pid) if self.pid else self.host
        return "a %s by %s (%s) since %s, run %s%s" % (
            what,
            self.user,
            where,
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
        """Take it, waiting up to ``timeout`` seconds. Raises NodeopsError naming the owner when another run has it.

        ``ended``: the run that is known to have ended, although its SSH session may live on (ControlPersist): its task
        is ended and its lock freed.
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
        """Go on with it: it is ours, or was ours last and is free.

        Raises NodeopsError when another run had it since.
        """
        self._check_driven()
        if not self._try(ours_only=True):
            self._refuse()

    def holder(self) -> Optional[Owner]:
        """Who holds it, for check mode; None when nobody does."""
        with contextlib.suppress(OSError):
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = None if _lock(handle) else _read(handle)
                return _owner(content) if content else None
            finally:
                os.close(handle)
        return None

    def note_version(self, version: str) -> None:
        """Let the lock say which version the run brings, once that is known."""
        self._owner = self._owner._replace(version=version[:LONGEST_VERSION])
        self._note(version=self._owner.version)

    def release(self) -> None:
        """Let it go, when it is ours. Does nothing when it is not."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                content = _read(handle)
                if content.get("run") != self._owner.run:
                    return
                # Also for a holder whose number could not be noted, because its task was killed just then.
                _write(handle, dict(content, anchor=NO_PROCESS, operation=None))
                _end_holder(content)
                deadline = time.monotonic() + RELEASE_TIMEOUT
                while not _lock(handle) and time.monotonic() < deadline:
                    time.sleep(0.005)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def working(self, may_be_ended: bool) -> Iterator[None]:
        """A task's work. ``may_be_ended``: when nobody drives the run any more it is told to put everything back."""
        seen = _process_id.look(os.getpid())
        self._note(operation=[*seen, may_be_ended] if seen else None)
        try:
            self._check_driven()  # now that it is noted: a holder that ended before did not know of it
            yield
        finally:
            self._note(operation=None)

    def _disown(self, run: str) -> bool:
        """Tell the holder of ``run`` that nobody drives it; whether it was that run's lock."""
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
                "The ansible-playbook or SSH session of run %s has ended, so this task was not begun. Nothing was "
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
                "The lock %s cannot be made: %s. Nothing was changed." % (self._path, error.strerror)
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
            "%s in namespace %s is locked: %s. Nothing was changed. Wait for it to end, or give lock_timeout (of the "
            "roles: deploy_lock_timeout) to wait here. The lock frees itself when that run ends, however it ends."
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
    os.pwrite(handle, data.ljust(SIZE)[:SIZE], 0)  # one size: a reader never sees the end of an older text


def _end_holder(content: Dict[str, Any]) -> None:
    pid, start = content.get("holder") or (0, 0)
    if pid and _process_id.Seen(pid, start).alive():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _fork_holder(handle: int) -> _process_id.Seen:
    """A process of its own session that keeps ``handle``, and so the flock, until the run has ended."""
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _hold(handle, outside)
        os._exit(0)
    os.close(outside)
    os.waitpid(child, 0)
    with os.fdopen(inside, "rb") as stream:
        seen = _process_id.look(int(stream.read() or b"0"))
    if seen is None:
        raise NodeopsError("The process that keeps the lock could not be started. Nothing was changed. Run again.")
    return seen


def _hold(handle: int, outside: int) -> NoReturn:
    """Keep the lock. Nothing else of the module's process stays open: who waits for its output must not wait for us."""
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
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != handle:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        unreadable = 0
        while unreadable < PATIENCE:
            content = _read(handle)  # {} while it is being written
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
        return _process_id.Seen(*anchor).alive()
    return time.time() < float(content.get("until") or 0)


def _end_operation(handle: int) -> None:
    """Nobody takes the result of the task that still works for this run. The lock is kept until that has ended."""
    content = _read(handle)
    for _look in range(PATIENCE):
        if not content:  # while it is being written
            time.sleep(TICK / PATIENCE)
            content = _read(handle)
    pid, start, may_be_ended = content.get("operation") or (0, 0, False)
    operation = _process_id.Seen(pid, start)
    if pid and operation.alive() and may_be_ended:
        os.kill(pid, signal.SIGTERM)
    while pid and operation.alive():
        time.sleep(TICK)
