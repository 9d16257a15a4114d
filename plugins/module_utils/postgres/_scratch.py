# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A scratch database: made beside the live one, loaded from the archive, compared with what was backed up."""

from __future__ import annotations

import time
from typing import List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _archive_errors,
    _contents,
    _databases,
    _disk_space,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Program
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings

_PAUSE = 0.05  # seconds between two looks at pg_restore and at the disks
_CHECK_SPACE_EVERY = 0.25  # seconds


class Unloadable(NodeopsError):
    """No server can load the archive. ``problems`` in the details says why."""


class ScratchDatabase(NamedTuple):
    """``name``: what it is called; ``database``: the one that it is a copy of, as ``archive`` and ``facts`` have it.

    ``properties`` are those of the live database: the copy gets them.
    """

    name: str
    database: str
    archive: str
    facts: Facts
    properties: Facts


def build(
    server: Server,
    scratch: ScratchDatabase,
    jobs: int,
    space: Optional[_disk_space.DiskSpace],
    timings: Timings,
    verb: str,
) -> List[str]:
    """Make the scratch database and load it. Returns what differs from the backup, [] if nothing does.

    Raises NodeopsError if it cannot be loaded, and Unloadable if the archive is the reason. It is not dropped here.
    """
    with timings.measure("create", scratch.database):
        server.execute(_databases.creation(scratch.name, scratch.properties, server.version))
        _points.reached("%s scratch created" % verb)
        _databases.check_properties(server, scratch.name, scratch.properties)
        if not scratch.facts.get("public", True):
            with Session(server.tools, server.connection, scratch.name) as session:
                session.execute("DROP SCHEMA public")
    with timings.measure("load", scratch.database):
        _load(server, scratch, jobs, space, verb)
        _points.reached("%s loaded" % verb)
    with Session(server.tools, server.connection, scratch.name) as session:
        with timings.measure("analyze", scratch.database):
            session.execute("ANALYZE")
            _points.reached("%s analyzed" % verb)
        with timings.measure("compare", scratch.database):
            problems = _contents.compare(scratch.facts, _contents.facts(session))
            _points.reached("%s compared" % verb)
    return problems


def _load(
    server: Server, scratch: ScratchDatabase, jobs: int, space: Optional[_disk_space.DiskSpace], verb: str
) -> None:
    """Owners and privileges are restored as they were. Only the database itself belongs to the login."""
    arguments = [server.tools.pg_restore, "--exit-on-error", "--no-password", "--no-subscriptions"]
    arguments += ["--jobs=%d" % jobs, "--dbname=" + server.connection.target(scratch.name), scratch.archive]
    next_look = 0.0
    with Program(arguments, server.connection, scratch.name) as program:
        _points.reached("%s loading" % verb)
        while program.poll() is None:
            if space and time.monotonic() >= next_look:
                next_look = time.monotonic() + _CHECK_SPACE_EVERY
                problem = _disk_space.problem(space)
                if problem:
                    program.end()
                    raise NodeopsError(
                        "Loading the backup of %s was given up: %s, and a full disk would end the whole server. The "
                        "live database was not touched. Free some space, then run again." % (scratch.database, problem)
                    )
            time.sleep(_PAUSE)
        try:
            program.wait()
        except PgError as error:
            message = (
                "The backup of %s could not be loaded into a scratch database: %s. The live database was not touched."
                % (scratch.database, str(error).rstrip("."))
            )
            proof = _archive_errors.of_a_bad_archive(program.text()) if (program.poll() or 0) > 0 else None
            if proof and _is_there(server, scratch.name):
                problem = "%s: it cannot be loaded (%s)" % (scratch.database, proof)
                raise Unloadable(message, {"problems": [problem]}) from error
            raise NodeopsError(message) from error


def _is_there(server: Server, database: str) -> bool:
    """Whether it still exists: another session, or the end of the server, may have removed it."""
    try:
        return database in _databases.names(server)
    except NodeopsError:
        return False
