# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""SQL by one psql that keeps running: it gets each statement on its standard input."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import signal
import subprocess
import tempfile
import time
from typing import Any, List, Mapping, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _programs
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, PgError, last_lines
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version

NO_CONNECTION = "08006"
Row = List[Optional[str]]

_SETTINGS = {  # a role or a database may have other ones: limits, and how values are written
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "client_min_messages": "error",
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog",
    "row_security": "off",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
}
_CHECK_CLIENT = "2s"  # how often the server checks during a statement that we are still connected
_CHUNK, _TAIL = 65536, 256  # bytes that are read at once; bytes that hold the end of an answer
_NOISE = re.compile(r"^(psql:.*?: )?(LINE \d+:|CONTEXT:|STATEMENT:|\s*\^)")
_PREFIX = re.compile(r"^(psql: ?(<stdin>:\d+:)?\s*)?((error|ERROR|FATAL):\s*)?")


def identifier(name: str) -> str:
    """Any name as SQL."""
    return '"%s"' % name.replace('"', '""')


def literal(text: str) -> str:
    """Any text without NUL as SQL."""
    return "E'%s'" % text.replace("\\", "\\\\").replace("'", "\\'")


class Session:
    """A connection to one database. ``with Session(tools, connection, database) as session: …``

    Every error of the server is a PgError with its ``sqlstate``; 08006 if there is no connection, or it is lost.
    """

    def __init__(self, tools: Tools, connection: Connection, database: Optional[str] = None) -> None:
        """``database``: by default the maintenance database. Raises PgError if there is no connection to it."""
        self.connection = connection
        self.database = database or connection.maintenance_db
        # The marks between fields, between rows, for NULL and at the end: no value can contain them.
        token = secrets.token_hex(8)
        self._field, self._row, self._null, self._end = ("\x1f%s%s" % (kind, token) for kind in "frne")
        self._errors = tempfile.TemporaryFile()
        self.patience: Optional[float] = None
        """Seconds that an answer may take before the connection counts as lost. None: as long as it takes."""
        self._is_asking = False
        self._asked_at = 0  # the position in the errors at which those of the last statement begin
        self._process = _programs.start(
            [
                *(tools.psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"),
                *("--field-separator=" + self._field, "--record-separator=" + self._row),
                *("--pset=null=" + self._null, "--dbname=" + connection.target(self.database)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=connection.environ(self.database),
        )
        self._answers = self._process.stdout.fileno() if self._process.stdout else -1
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        chosen = ", ".join("set_config(%s, %s, false)" % (literal(k), literal(v)) for k, v in _SETTINGS.items())
        self.query("SELECT " + chosen)
        number = int(self.value("SELECT current_setting('server_version_num')") or 0)
        self.version: Version = (number // 10000, number % 10000)
        if self.version >= (17, 0):
            self.query("SELECT set_config('transaction_timeout', '0', false)")
        if self.version >= (14, 0):
            with contextlib.suppress(PgError):  # not every system can
                self.query("SELECT set_config('client_connection_check_interval', '%s', false)" % _CHECK_CLIENT)

    def query(self, sql: str) -> List[Row]:
        """The rows of one statement. Values are text, NULL is None."""
        text = self._ask(sql)
        if not text:
            return []
        rows = text[:-1].split(self._row)  # psql ends the last row with a line break
        return [[None if value == self._null else value for value in row.split(self._field)] for row in rows]

    def execute(self, sql: str) -> None:
        """Run one statement without regard to its rows."""
        self._ask(sql)

    def value(self, sql: str) -> Optional[str]:
        """The first value of the first row; None if there is no row."""
        rows = self.query(sql)
        return rows[0][0] if rows else None

    def _ask(self, sql: str) -> str:
        process = self._process
        if process.stdin is None or process.stdout is None or process.stdin.closed:
            raise self._lost()
        self._asked_at = os.fstat(self._errors.fileno()).st_size
        end = "\n" + self._end
        self._is_asking = True
        try:
            statement = "%s\n;\n\\echo '%s' :SQLSTATE\n" % (sql.rstrip().rstrip(";"), end.replace("\n", "\\n"))
            process.stdin.write(statement.encode("utf-8", "surrogateescape"))
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._lost() from None
        answer, state = self._read(end.encode())
        self._is_asking = False
        if state != "00000":
            raise PgError(self._said() or "PostgreSQL failed with %s" % state, state)
        return answer

    def _read(self, end: bytes) -> Tuple[str, str]:
        """What psql printed, and the SQLSTATE that follows its end."""
        chunks: List[bytes] = []
        last = b""
        deadline = None if self.patience is None else time.monotonic() + self.patience
        while True:
            if deadline and not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._process.kill()
                raise PgError("The server did not answer within %g s" % (self.patience or 0), NO_CONNECTION)
            chunk = os.read(self._answers, _CHUNK)
            if not chunk:
                raise self._lost()
            chunks.append(chunk)
            last = (last + chunk)[-_TAIL:]
            if last.endswith(b"\n") and end in last:
                break
        text = b"".join(chunks)
        answer, _end, state = text.rpartition(end)
        return answer.decode("utf-8", "surrogateescape"), state.decode().strip()

    def _lost(self) -> PgError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if not hasattr(self, "version"):
            self._asked_at = 0  # psql may have ended before it got a statement
        said = self._said()
        where = "database %r of %s" % (self.database, self.connection)
        if not hasattr(self, "version"):
            return PgError("No connection to %s: %s" % (where, said or "psql ended"), NO_CONNECTION)
        return PgError("The connection to %s was lost: %s" % (where, said or "psql ended"), NO_CONNECTION)

    def _said(self) -> str:
        """What psql wrote to its standard error about the last statement: error, detail and hint of the server."""
        size = os.fstat(self._errors.fileno()).st_size - self._asked_at
        text = os.pread(self._errors.fileno(), max(0, size), self._asked_at).decode("utf-8", "replace")
        lines = [_PREFIX.sub("", line) for line in text.splitlines() if not _NOISE.match(line)]
        return self.connection.shown(last_lines("\n".join(lines)))

    def close(self) -> None:
        """End the connection; a statement that is still running is cancelled."""
        process = self._process
        with contextlib.suppress(OSError, ValueError):
            if process.stdin:
                process.stdin.close()
        if self._is_asking:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def tools_for(params: Mapping[str, Any], connection: Connection) -> Tuple[Tools, Version]:
    """The programs that fit the server, and the server's version. Raises NodeopsError, also if there is no server."""
    any_tools = _programs.find(params.get("pg_bindir"))
    try:
        with Session(any_tools, connection) as session:
            version = session.version
    except PgError as error:
        raise PgError("%s. Nothing was changed." % str(error).rstrip("."), error.sqlstate) from error
    if version[0] < 12:
        raise NodeopsError(
            "The server is PostgreSQL %s. The oldest that works is 12. Nothing was changed." % _programs.shown(version)
        )
    return _programs.find(params.get("pg_bindir"), version), version
