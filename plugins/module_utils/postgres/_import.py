# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""pg_backup with ``state: imported``: an existing plain SQL dump becomes a backup of the store.

It is loaded into a database of its own, which is dumped like any other database, and then dropped.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import secrets
import stat
import subprocess
import tempfile
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _contents,
    _database_dump,
    _databases,
    _disk_space,
    _names,
    _preflight,
    _programs,
    _psql,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._backup_call import Call, shown
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import (
    Connection,
    PgError,
    connection,
    last_lines,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session, identifier
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_BEGIN = b"-- PostgreSQL database dump"
_END = b"-- PostgreSQL database dump complete"
_CLUSTER = b"-- PostgreSQL database cluster dump"
_COPY = re.compile(rb"COPY .* FROM stdin;\s*\Z")
_RESTRICT = re.compile(rb"\\(un)?restrict \w+\s*\Z")
_HEAD = 20  # a dump has to begin within so many lines
_GZIP, _ARCHIVE = b"\x1f\x8b", b"PGDMP"
_RESTRICTING = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}  # major: the first minor whose psql knows \\restrict
_CHUNK = 1 << 20
_LOOK_EVERY = 1 << 20  # bytes between two looks at the disks of the server


class Content(NamedTuple):
    """What reading the whole file has found."""

    sha256: str
    end: int  # the line of the completion trailer, from 0
    size: int  # bytes, unpacked


def run(call: Call) -> Dict[str, Any]:
    """The result of ``state: imported``. Raises NodeopsError. The live database is never touched."""
    name, sha256 = _check(call)
    with _opened(call.params["source"]) as stream:
        content = _look(stream, call.params["source"], sha256)
        known = _imported_before(call, sha256)
        if known:
            return {"changed": False, "backup": shown(known)}
        with connection(call.params) as reached:
            tools, version = _psql.tools_for(call.params, reached)
            _programs.check_client(tools, version, call.params["accept_vulnerable_client"])
            _check_psql(tools)
            if call.check_mode:
                return {"changed": True, "backup": None}
            with call.store.lock("%s was not imported" % call.params["source"], call.params["lock_timeout"]):
                with _scratch(call, tools, reached, name, content) as (scratch, space):
                    _load(tools, reached, scratch, stream, content, space)
                    _points.reached("import loaded")
                    outside = _outside(tools, reached, name)
                    with call.store.draft(_stored_backup.POSTGRESQL) as draft:
                        found = _database_dump.dump(call, draft, tools, reached, name, "1.dump", scratch)
                        made = {"source": os.path.basename(call.params["source"]), "sha256": sha256}
                        databases = {name: {**found, **outside}}
                        everything = {"databases": databases, _stored_backup.IMPORTED: made}
                        backup = _database_dump.commit(call, draft, tools, version, everything)
                return {"changed": True, "backup": shown(backup)}


def _check(call: Call) -> "tuple[str, str]":
    """The name of the database, and the checksum in lower case."""
    source, sha256 = call.params["source"], call.params["sha256"]
    if not source or not sha256:
        raise NodeopsError("state imported needs source and sha256. Nothing was imported.")
    if len(call.databases) != 1:
        raise NodeopsError("databases is %s. Nothing was imported. Name the one database of the dump." % call.what)
    if not _SHA256.match(sha256):
        raise NodeopsError("sha256 is %r, which is not 64 hexadecimal digits. Nothing was imported." % sha256)
    return call.databases[0], sha256.lower()


def can_restrict(tools: Tools) -> bool:
    """Whether its psql can be restricted to SQL."""
    major, minor = tools.version
    return minor >= _RESTRICTING.get(major, 0) and major >= min(_RESTRICTING)


def _check_psql(tools: Tools) -> None:
    if not can_restrict(tools):
        raise NodeopsError(
            "%s is version %s: it cannot be kept from running psql commands in a dump (\\restrict). Nothing was "
            "imported. Update PostgreSQL's client programs." % (tools.psql, _programs.shown(tools.version))
        )


def _imported_before(call: Call, sha256: str) -> Optional[Backup]:
    def is_it(backup: Backup) -> bool:
        return backup.good and bool(backup.manifest["content"][_stored_backup.IMPORTED]["sha256"] == sha256)

    return next(filter(is_it, reversed(call.store.backups(scope=_stored_backup.of_imports(call.scope)))), None)


# -- the file ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """The file. It is opened once, so that what is loaded is what was checked."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NodeopsError("source %s cannot be read: %s. Nothing was imported." % (path, error.strerror)) from error
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NodeopsError("source %s is not a regular file. Nothing was imported." % path)
        yield stream


def _look(stream: IO[bytes], path: str, sha256: str) -> Content:
    """Check the whole file.

    Raises NodeopsError for a wrong checksum, and for a file that is not one whole plain dump.
    """
    found = _digest(stream)
    if found != sha256:
        raise NodeopsError(
            "source %s has the SHA-256 %s, not %s: it is damaged, or it is another file. Nothing was imported."
            % (path, found, sha256)
        )
    begins, end, copying, size = False, -1, False, 0
    try:
        for number, line in enumerate(_lines(stream)):
            size += len(line)
            if number < _HEAD:
                begins = begins or line.rstrip() == _BEGIN
                _check_kind(line, path)
            if copying:
                copying = not line.startswith(b"\\.")
                continue
            if end >= 0 and line.strip() and not line.startswith(b"--") and not _RESTRICT.match(line):
                end = -1  # it was not the end
            if line.rstrip() == _END:
                end = number
            elif _COPY.match(line):
                copying = True
            elif line.startswith(b"\\") and not _RESTRICT.match(line):
                raise NodeopsError(
                    "source %s has a command of psql in line %d (%s). Nothing was imported. Make the dump with pg_dump "
                    "--format=plain, of one database and without --create."
                    % (path, number + 1, line[:40].decode("utf-8", "replace").strip())
                )
    except (OSError, EOFError, ValueError) as error:
        raise NodeopsError("source %s cannot be unpacked: %s. Nothing was imported." % (path, error)) from error
    if not begins:
        raise NodeopsError(
            "source %s does not begin like a dump of pg_dump. Nothing was imported. Give a plain dump of pg_dump, "
            "which may be packed by gzip." % path
        )
    if end < 0:
        raise NodeopsError(
            "source %s is not complete: it does not end with '%s'. Nothing was imported. Make the dump again: the "
            "missing part is lost." % (path, _END.decode())
        )
    return Content(found, end, size)


def _check_kind(line: bytes, path: str) -> None:
    if line.startswith(_ARCHIVE):
        raise NodeopsError(
            "source %s is an archive of pg_dump (custom format). Nothing was imported. Only plain SQL can be checked "
            "before it is loaded." % path
        )
    if line.rstrip() == _CLUSTER:
        raise NodeopsError(
            "source %s is a dump of a whole cluster (pg_dumpall). Nothing was imported. Dump the one database with "
            "pg_dump." % path
        )


def _digest(stream: IO[bytes]) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    stream.seek(0)
    packed = stream.read(2) == _GZIP
    stream.seek(0)
    yield from gzip.GzipFile(fileobj=stream) if packed else stream


# -- the database ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _scratch(
    call: Call, tools: Tools, reached: Connection, name: str, content: Content
) -> "Iterator[tuple[str, Optional[_disk_space.DiskSpace]]]":
    """A new, empty database, and its disk space. It is dropped at the end.

    What killed imports have left is dropped first.
    """
    with Server(tools, reached) as server:
        _preflight.check_server(server)
        server.lock([name], call.params["lock_timeout"])
        parsed = [(database, _names.parse(database)) for database in _databases.names(server)]
        ours = [(database, found) for database, found in parsed if found and found.name == name]
        for database, found in ours:
            if found.kind == "new":
                _databases.drop(server, database)
        scratch = _names.scratch(name, _names.new_id(found.id for _database, found in ours))
        live = _databases.read(server, name)
        space = _disk_space.find(server, live["tablespace"] if live else _databases.DEFAULT_TABLESPACE)
        if space is None:
            call.warn(_disk_space.unchecked(content.size))
        else:
            _disk_space.check([(space, content.size)])
        try:
            if live:
                server.execute(_databases.creation(scratch, {**live, "owner": None}, server.version))
            else:
                server.execute("CREATE DATABASE %s TEMPLATE template0" % identifier(scratch))
            _points.reached("import scratch made")
            yield scratch, space
        finally:
            _databases.drop(server, scratch)


def _outside(tools: Tools, reached: Connection, name: str) -> Dict[str, Any]:
    """The properties of the live database, which are not in a dump. Empty if there is none."""
    with Session(tools, reached) as session:
        try:
            return _contents.properties(session, name)
        except PgError as error:
            if error.sqlstate != "3D000":
                raise
            return {}


def _load(
    tools: Tools,
    reached: Connection,
    database: str,
    stream: IO[bytes],
    content: Content,
    space: Optional[_disk_space.DiskSpace],
) -> None:
    """Run the dump in one transaction, in a psql that runs only SQL. Raises NodeopsError."""
    token = secrets.token_hex(16)
    arguments = [tools.psql, "--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--no-align"]
    arguments += ["--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-", "--dbname=" + reached.target(database)]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed:
        process = _programs.start(
            arguments,
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=said,
            env=reached.environ(database),
        )
        try:
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    _feed(process.stdin, stream, content, token, space)
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        text = last_lines(reached.shown(_content(said)))
        if code != 0 or not _content(printed).rstrip().endswith(token):
            raise PgError("The dump cannot be loaded: %s. Nothing was imported." % (text or "psql ended early"))
    if _digest(stream) != content.sha256:
        raise NodeopsError("source was changed while it was loaded. Nothing was imported.")


def _feed(
    psql: IO[bytes], stream: IO[bytes], content: Content, token: str, space: Optional[_disk_space.DiskSpace]
) -> None:
    """Write the dump between our \\restrict and \\unrestrict: psql accepts no other command in between.

    Those of the dump itself are left out. Raises NodeopsError if a disk of the server is about to be full.
    """
    psql.write(b"\\restrict %s\n" % token.encode())
    in_head = True
    fed = looked_at = 0
    for number, line in enumerate(_lines(stream)):
        fed += len(line)
        if space and fed >= looked_at:
            looked_at = fed + _LOOK_EVERY
            problem = _disk_space.problem(space)
            if problem:
                raise NodeopsError(
                    "Loading the dump was given up: %s, and a full disk would end the whole server. Nothing was "
                    "imported. Free some space, then run again." % problem
                )
        if (in_head or number > content.end) and _RESTRICT.match(line):
            continue
        if in_head and line.strip() and not line.startswith(b"--"):
            in_head = False
        psql.write(line)
    psql.write(b"\n\\unrestrict %s\n\\echo %s\n" % (token.encode(), token.encode()))


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    lines: List[bytes] = stream.read().splitlines()[-50:]
    return b"\n".join(lines).decode("utf-8", "replace")
