# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""PostgreSQL's programs: where they are, which versions are safe, and how they are run."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import pwd
import re
import signal
import subprocess
import tempfile
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, PgError, last_lines

PROGRAMS = ("psql", "pg_dump", "pg_restore")
CVE = "CVE-2026-116314"
_SAFE_FROM = {15: 20, 16: 16, 17: 12, 18: 7}  # major: minor
_TRANSACTION_TIMEOUT = 17  # the major version that introduced it; from there on, pg_restore sets it
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
_VERSION = re.compile(r"\)\s+(\d+)(?:\.(\d+))?")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

Version = Tuple[int, int]
"""Major and minor."""


class Tools(NamedTuple):
    """Programs of one version."""

    psql: str
    pg_dump: str
    pg_restore: str
    version: Version

    @property
    def is_vulnerable(self) -> bool:
        """Whether its pg_restore runs code from a crafted archive."""
        major, minor = self.version
        return minor < _SAFE_FROM.get(major, 0) or major < min(_SAFE_FROM)


def find(pg_bindir: Optional[str], server_version: Optional[Version] = None) -> Tools:
    """The programs in ``pg_bindir``; otherwise those that fit the server best.

    The best ones have the server's own major version, because a newer pg_dump may write what an older server does not
    understand. Second best are the next newer ones. Without ``server_version``: the newest. Raises NodeopsError if
    there are none.
    """
    if pg_bindir:
        found = _in(pg_bindir)
        if found is None:
            raise NodeopsError(
                "pg_bindir is %s, which does not hold psql, pg_dump and pg_restore. Nothing was changed." % pg_bindir
            )
        return found
    all_found = [tools for tools in map(_in, _directories()) if tools]
    if not all_found:
        raise NodeopsError(
            "psql, pg_dump and pg_restore are not installed on this host (neither in PATH nor in %s). Nothing was "
            "changed. Install PostgreSQL's client programs (Debian: postgresql-client)." % ", ".join(_PLACES)
        )
    newest_first = sorted(all_found, key=lambda tools: tools.version, reverse=True)
    if server_version is None:
        return newest_first[0]
    fit = [tools for tools in newest_first if tools.version[0] >= server_version[0]]
    return min(fit, key=lambda tools: tools.version[0]) if fit else newest_first[0]


def _directories() -> List[str]:
    path = (os.environ.get("PATH") or STANDARD_PATH).split(os.pathsep)
    found = [os.path.dirname(os.path.realpath(os.path.join(each, "pg_dump"))) for each in path if each]
    for place in _PLACES:
        found += sorted(glob.glob(place))
    return list(dict.fromkeys(found))


def _in(directory: str) -> Optional[Tools]:
    # Not Debian's wrapper in /usr/bin: it would choose a version of its own.
    paths = [os.path.join(directory, name) for name in PROGRAMS]
    if not os.path.isabs(directory) or not all(map(_is_program, paths)):
        return None
    version = _version_of(paths[2])
    return Tools(paths[0], paths[1], paths[2], version) if version else None


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK) and os.path.basename(os.path.realpath(path)) != "pg_wrapper"


def _version_of(program: str) -> Optional[Version]:
    try:
        done = subprocess.run(
            [program, "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    return (int(found.group(1)), int(found.group(2) or 0)) if found else None


def shown(version: Version) -> str:
    """A version as PostgreSQL writes it."""
    return "%d.%d" % version


def check_client(tools: Tools, server_version: Version, accept_vulnerable: bool) -> None:
    """Raises NodeopsError for programs that are older than the server, or that run code from a crafted archive."""
    check_major(tools, server_version)
    if tools.is_vulnerable and not accept_vulnerable:
        raise NodeopsError(
            "%s is version %s, in which %s lets a crafted archive run code. Nothing was changed. Update PostgreSQL's "
            "client programs to %s or newer. If you trust all servers that the archives in the store are from, you "
            "can set accept_vulnerable_client instead." % (tools.pg_restore, shown(tools.version), CVE, safe_versions())
        )


def check_major(tools: Tools, server_version: Version) -> None:
    """Raises NodeopsError for programs that are older than the server."""
    if tools.version[0] < server_version[0]:
        raise NodeopsError(
            "The server is PostgreSQL %s, and %s is %s: programs that are older than the server cannot dump or restore "
            "it. Nothing was changed. Install the client programs of version %d, or give pg_bindir."
            % (shown(server_version), tools.pg_dump, shown(tools.version), server_version[0])
        )


def check_restorer(tools: Tools, server_version: Version) -> None:
    """Raises NodeopsError for a pg_restore that no server of that version understands."""
    problem = restorer_problem(tools, server_version)
    if problem:
        raise NodeopsError(
            "%s. Nothing was changed. Install the client programs of version %d, or give pg_bindir."
            % (problem, server_version[0])
        )


def restorer_problem(tools: Tools, server_version: Version) -> Optional[str]:
    """Why that pg_restore cannot restore into such a server; None if it can."""
    if tools.version[0] >= _TRANSACTION_TIMEOUT > server_version[0]:
        return "%s is version %s: it sets transaction_timeout, which a server of version %s does not know" % (
            *(tools.pg_restore, shown(tools.version), shown(server_version)),
        )
    return None


def check_archive(tools: Tools, server_version: Version, dumped_by: str) -> None:
    """Raises NodeopsError for an archive of a pg_dump (of version ``dumped_by``) that is newer than the pg_restore."""
    major = int(dumped_by.partition(".")[0])
    if tools.version[0] < major and major >= _TRANSACTION_TIMEOUT > server_version[0]:
        raise NodeopsError(
            "The backup was made by pg_dump %s. The programs that can read it can only restore into a server of "
            "version %d or newer, and this server is %s. Nothing was changed. Restore it into a newer server, or make "
            "a new backup with the client programs of version %d."
            % (dumped_by, _TRANSACTION_TIMEOUT, shown(server_version), server_version[0])
        )
    if tools.version[0] < major:
        raise NodeopsError(
            "The backup was made by pg_dump %s, and %s is version %s, which may not be able to read it. Nothing was "
            "changed. Install the client programs of version %d, or give pg_bindir."
            % (dumped_by, tools.pg_restore, shown(tools.version), major)
        )


def safe_versions() -> str:
    """The first versions without the vulnerability."""
    return ", ".join(shown(version) for version in _SAFE_FROM.items())


def start(arguments: Sequence[str], as_nobody: bool = False, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, which ends when this process is killed. ``options``: of Popen."""
    prepare = _as_nobody if as_nobody and os.geteuid() == 0 else _end_with_parent
    process = None
    try:
        with _signals.deferred():
            process = subprocess.Popen(list(arguments), cwd="/", start_new_session=True, preexec_fn=prepare, **options)
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        raise
    return process


def _end_with_parent() -> None:
    """In a child, before it runs a program."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.umask(0o077)
    for number in _signals.ENDING:  # a program may be ended by what this process ignores or blocks
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals.ENDING)


def _as_nobody() -> None:
    """The same, without root's rights."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    _end_with_parent()


class Program:
    """A running program. It ends with the ``with`` block, or with this process, and so does what it started."""

    def __init__(
        self,
        arguments: Sequence[str],
        connection: Optional[Connection] = None,
        database: Optional[str] = None,
        stdin: Optional[IO[Any]] = None,
        as_nobody: bool = False,
    ) -> None:
        """``arguments``: the program first, none of them a secret. ``as_nobody``: give up root's rights."""
        self._name = os.path.basename(arguments[0])
        self._connection = connection
        self._said = tempfile.TemporaryFile()
        environment = {"PATH": os.environ.get("PATH") or STANDARD_PATH, "LANG": "C", "LC_ALL": "C"}
        self._process = start(
            arguments,
            as_nobody,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env=connection.environ(database) if connection else environment,
        )

    def wait(self, timeout: Optional[float] = None) -> None:
        """Wait for its end. Raises PgError with what it printed, also if it takes longer than ``timeout`` seconds."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise PgError("%s took longer than %g s and was ended." % (self._name, timeout or 0)) from None
        if code != 0:
            end = "exit code %d" % code if code > 0 else "ended by %s" % signal.Signals(-code).name
            raise PgError("%s failed (%s): %s" % (self._name, end, self.said() or "it printed nothing"))

    def poll(self) -> Optional[int]:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """The last lines of its standard error, without the password."""
        return last_lines(self.text())

    def text(self) -> str:
        """All of its standard error, without the password."""
        self._said.seek(0)
        text = self._said.read().decode("utf-8", "replace")
        return self._connection.shown(text) if self._connection else text

    def end(self) -> None:
        """SIGKILL for it and for what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()
        self._said.close()


def run(
    arguments: Sequence[str],
    connection: Connection,
    database: Optional[str] = None,
    timeout: Optional[float] = None,
) -> None:
    """Run one of the programs to its end. Raises PgError."""
    with Program(arguments, connection, database) as program:
        program.wait(timeout)


def read_archive(tools: Tools, path: str) -> None:
    """Read all of an archive like a restore, but without a server: that finds what is cut or flipped. Raises PgError.

    If we are root, it runs as ``nobody``: reading an archive needs no rights of root.
    """
    with open(path, "rb") as stream:
        arguments = [tools.pg_restore, "--file=" + os.devnull]
        with Program(arguments, stdin=stream, as_nobody=True) as program:
            program.wait()


def versions(tools: Tools, server_version: Version) -> Dict[str, str]:
    """For the manifest of a backup."""
    return {"pg_dump": shown(tools.version), "postgresql": shown(server_version)}
