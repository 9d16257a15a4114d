# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""Run the commands of a build or a migration: one after the other, no shell, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import shlex
import signal
import subprocess
import time
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union, cast

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_group, _signals, _watchdog
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor

Command = Union[str, Sequence[str]]

MAX_OUTPUT = 64 * 1024
"""Bytes kept of a command's output: its last ones."""
LAST_LINES = 30
MAX_LINE = 2000
"""Characters shown of one line."""
TERM_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_CHUNK = 256 * 1024
_POLL = 0.05
_MAY_HOLD_HALF_A_SECRET = 16 * 1024
_ESCAPE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def base_environment(path: Sequence[str], extra: Dict[str, str]) -> Dict[str, str]:
    """The environment of a command: nothing of the shell or the job that runs this. ``extra`` overrides it.

    ``path`` are directories that come first in PATH. Raises NodeopsError if one is not absolute.
    """
    for directory in path:
        if not os.path.isabs(directory) or os.pathsep in directory:
            raise NodeopsError(
                "%r cannot be a directory of PATH. Nothing was run. Give each as an absolute path of its own."
                % directory
            )
    user = pwd.getpwuid(os.geteuid())
    directories = list(dict.fromkeys([*path, *STANDARD_PATH.split(os.pathsep)]))
    computed = {
        "PATH": os.pathsep.join(directories),
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "LANG": "C.UTF-8",
    }
    return {**computed, **extra}


def arguments(command: Command) -> List[str]:
    """The argv of a command. A string is split as a shell splits it, without any expansion. Raises NodeopsError."""
    if isinstance(command, str):
        try:
            argv = shlex.split(command)
        except ValueError as error:
            raise NodeopsError(
                "A command cannot be split into words (%s). Nothing was run. Write it as a list." % error
            ) from None
    else:
        if not isinstance(command, (list, tuple)) or any(
            isinstance(word, bool) or not isinstance(word, (str, int, float)) for word in command
        ):
            raise NodeopsError(
                "A command is a %s, not a string or a list of words. Nothing was run. Write it as one of these."
                % (type(command).__name__ if not isinstance(command, (list, tuple)) else "list with other things")
            )
        argv = [str(word) for word in command]
    if not argv or not argv[0]:
        raise NodeopsError("A command is empty. Nothing was run. Remove it, or give a program and its arguments.")
    if any("\0" in word for word in argv):
        raise NodeopsError("A command has a NUL character. Nothing was run.")
    return argv


def run(
    commands: Sequence[Command],
    cwd: str,
    environment: Dict[str, str],
    timeout: float,
    redactor: Redactor,
    what: str,
    ends_with_us: bool = True,
) -> List[Dict[str, Any]]:
    """Run ``commands`` in ``cwd`` until one fails. ``timeout``: seconds for each, 0 for no limit. ``what``: "build".

    Each has a session of its own, no standard input and no shell. When it is over, for whatever reason (also a signal
    to this process), the rest of its process group is killed, and this waits for its end. A process that has moved to
    another session lives on. ``ends_with_us``: the group is also killed if this process is (SIGKILL). Returns what ran
    and how long, in seconds. Raises NodeopsError with details command, rc, output.
    """
    argvs = [arguments(command) for command in commands]
    done = []
    for argv in argvs:
        redactor.add_arguments(argv)
        started = time.monotonic()
        _Run(argv, cwd, environment, redactor, what, ends_with_us).finish(timeout)
        seconds = round(time.monotonic() - started, 3)
        done.append({"command": shown(argv, redactor), "seconds": seconds})
    return done


def output(
    command: Command,
    cwd: str,
    environment: Dict[str, str],
    timeout: float,
    redactor: Redactor,
    what: str,
    limit: int = MAX_OUTPUT,
) -> str:
    """The output of a command, unmasked: at most its last ``limit`` bytes. Otherwise as ``run``."""
    program = _Run(arguments(command), cwd, environment, redactor, what, limit=limit)
    return program.finish(timeout).decode("utf-8", "replace")


def shown(argv: Sequence[str], redactor: Redactor) -> str:
    """A command line for people: quoted as for a shell, secrets masked."""
    return redactor.text(" ".join(_quoted(redactor.text(word)) for word in argv))


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./*-]+", word) else shlex.quote(word)


def find_program(name: str, cwd: str, path: str) -> Tuple[str, str]:
    """The path of a program; or "", with why it cannot be used and what to do."""
    candidates = [name] if "/" in name else [os.path.join(directory, name) for directory in path.split(os.pathsep)]
    refused = ""
    for candidate in (os.path.join(cwd, candidate) for candidate in candidates):
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate, ""
            refused = candidate
    if refused:
        return "", "%s may not be executed (chmod +x?)" % refused
    if "/" in name:
        return "", "%s was not found in %s" % (name, cwd)
    return "", "%s was not found on the PATH %s. Install it there, or give its directory in deploy_path" % (name, path)


class CommandFailed(NodeopsError):
    """A command failed. ``status``: its exit status; None if it was not started, or took too long."""

    def __init__(self, message: str, status: Optional[int], details: Dict[str, Any]) -> None:
        super().__init__(message, details)
        self.status = status


class _Run:
    """One command that runs."""

    def __init__(
        self,
        argv: List[str],
        cwd: str,
        environment: Dict[str, str],
        redactor: Redactor,
        what: str,
        ends_with_us: bool = True,
        limit: int = MAX_OUTPUT,
    ) -> None:
        self._argv = argv
        self._cwd = cwd
        self._environment = environment
        self._redactor = redactor
        self._what = what
        self._ends_with_us = ends_with_us
        self._limit = limit
        self._tail = bytearray()
        self._is_cut = False

    def finish(self, timeout: float) -> bytes:
        """Wait until it has ended; the end of its output. Raises NodeopsError if it failed or took too long."""
        with self._started() as process:
            is_over = self._read(process, timeout)
            if not is_over:
                raise self._failure("it took longer than %g s and was ended" % timeout, None)
            status = self._end(process, signal.SIGKILL)
        if status < 0:
            raise self._failure(_ended_by(-status), status)
        if status > 0:
            raise self._failure("it ended with exit code %d" % status, status)
        return bytes(self._tail)

    @contextlib.contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        program, reason = find_program(self._argv[0], self._cwd, self._environment.get("PATH", ""))
        if reason:
            raise self._failure(reason, None)
        former = signal.pthread_sigmask(
            signal.SIG_BLOCK, _signals.ENDING
        )  # or it would be lost between its start and the assignment
        process: Optional[subprocess.Popen[bytes]] = None
        with contextlib.ExitStack() as ending:
            try:
                try:
                    process = self._start(program)
                    if self._ends_with_us:
                        ending.enter_context(_watchdog.group_ends_with_us(process.pid))
                except (OSError, ValueError) as error:
                    raise self._failure(_why_not_started(error), None) from error
                signal.pthread_sigmask(signal.SIG_SETMASK, former)
                yield process
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, former)
                if process is not None:
                    self._end(process, signal.SIGTERM)
                    cast(IO[bytes], process.stdout).close()

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv,
            executable=program,
            cwd=self._cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_reset_umask_and_signals,
        )

    def _read(self, process: subprocess.Popen[bytes], timeout: float) -> bool:
        """Read until the command itself has ended, even if another process holds its output. False: out of time."""
        output = cast(IO[bytes], process.stdout).fileno()
        os.set_blocking(output, False)
        deadline = time.monotonic() + timeout if timeout else float("inf")
        is_open = True
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            pause = 0.001
            while True:
                has_ended = _has_ended(process)
                if has_ended or time.monotonic() >= deadline:
                    self._drain(output)
                    return has_ended
                if not is_open:
                    time.sleep(pause)
                elif selector.select(pause) and not self._take(output):
                    selector.unregister(output)
                    is_open, pause = False, 0.001
                pause = min(pause * 2, _POLL)

    def _drain(self, output: int) -> None:
        """Read what is in the pipe now. Another process may write to it for ever."""
        for _chunk in range(16):
            with contextlib.suppress(BlockingIOError):
                if self._take(output):
                    continue
            return

    def _take(self, output: int) -> bool:
        """Read some, and keep the end of it. False at the end of the output."""
        data = os.read(output, _CHUNK)
        self._tail += data
        if len(self._tail) > self._limit:
            self._is_cut = True
            del self._tail[: -self._limit]
        return bool(data)

    def _end(self, process: subprocess.Popen[bytes], first: int) -> int:
        """End the rest of the process group, and return the command's exit status."""
        if process.returncode is None:
            # Not reaped yet: so no other process can have its pid.
            _process_group.send(process.pid, first)
            deadline = time.monotonic() + TERM_GRACE
            try:
                while first != signal.SIGKILL and time.monotonic() < deadline and not _is_group_over(process):
                    time.sleep(0.02)
            finally:  # also if a signal interrupts the wait
                _process_group.kill(process.pid)
                process.wait()
                _process_group.await_end(process.pid)
        return cast(int, process.returncode)

    def _failure(self, reason: str, status: Optional[int]) -> CommandFailed:
        lines = self._last_lines()
        hint = ""
        if re.search("ENOSPC|[Nn]o space left on device|EDQUOT|[Dd]isk quota exceeded", "\n".join(lines)):
            hint = " The disk is full: make room, then run again."
        elif lines:
            hint = " Its last lines: " + " | ".join(line.strip() for line in lines[-3:])
        command = shown(self._argv, self._redactor)
        return CommandFailed(
            "%s%s failed: %s: %s.%s" % (self._what[:1].upper(), self._what[1:], command, reason, hint),
            status,
            {"command": command, "rc": status, "output": lines},
        )

    def _last_lines(self) -> List[str]:
        text = _ESCAPE.sub("", self._tail.decode("utf-8", "replace"))
        text = _UNSEEN.sub("", text.replace("\r\n", "\n"))
        if self._is_cut:
            first, newline, rest = text.partition("\n")
            # The part that is missing may be the first half of a secret.
            text = rest if newline else first[_MAY_HOLD_HALF_A_SECRET:]
        lines = [line.rstrip() for line in self._redactor.text(text).splitlines() if line.strip()]
        return [line if len(line) <= MAX_LINE else line[:MAX_LINE] + "..." for line in lines[-LAST_LINES:]]


def _reset_umask_and_signals() -> None:
    """In the child: a web server can read the files it makes, and signals end it, whatever this process inherited."""
    os.umask(0o022)
    for number in _signals.ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals.ENDING)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _is_group_over(process: subprocess.Popen[bytes]) -> bool:
    """Whether no process of the command's group runs any more, apart from zombies."""
    return _has_ended(process) and not any(_process_group.members(process.pid))


def _ended_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "signal %d" % number
    hint = " (the kernel does that when memory runs out)" if number == signal.SIGKILL else ""
    return "it was ended by %s%s" % (name, hint)


def _why_not_started(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "it cannot be started: %s" % error
    if isinstance(error, FileNotFoundError):
        return "it cannot be started: its directory, or the interpreter that its first line names, does not exist"
    return "it cannot be started: %s" % error.strerror
