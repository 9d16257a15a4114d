# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The scratch database: made beside the live one, loaded from the archive, compared with what was backed up."""

from __future__ import annotations

import time
from typing import List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _archive_errors, _contents, _databases, _space
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Program
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Steps

_PAUSE = 0.05  # seconds between two looks at pg_restore and at the disks
_CHECK_SPACE_EVERY = 0.25  # seconds


class Unloadable(NodeopsError):
    """The archive can be loaded nowhere; ``problems`` in the details says why."""


class Source(NamedTuple):
    """One database of a backup: its plain archive, what it was, and what the copy gets from outside."""

    name: str
    scratch: str
    archive: str
    facts: Facts
    outside: Facts


def build(
    server: Server,
    source: Source,
    jobs: int,
    room: Optional[_space.Room],
    steps: Steps,
    verb: str,
) -> List[str]:
    """Make the scratch database and fill it. What differs from the backup; [] when it is the same.

    Raises NodeopsError when it cannot be loaded, and Unloadable when that is due to the archive. It is not dropped
    here.
    """
    with steps.step("create", source.name):
        server.execute(_databases.creation(source.scratch, source.outside, server.version))
        _points.reached("%s scratch created" % verb)
        _databases.try_on(server, source.scratch, source.outside)
        if not source.facts.get("public", True):
            with Session(server.tools, server.connection, source.scratch) as session:
                session.execute("DROP SCHEMA public")
    with steps.step("load", source.name):
        _load(server, source, jobs, room, verb)
        _points.reached("%s loaded" % verb)
    with Session(server.tools, server.connection, source.scratch) as session:
        with steps.step("analyze", source.name):
            session.execute("ANALYZE")
            _points.reached("%s analyzed" % verb)
        with steps.step("compare", source.name):
            problems = _contents.compare(source.facts, _contents.facts(session))
            _points.reached("%s compared" % verb)
    return problems


def _load(server: Server, source: Source, jobs: int, room: Optional[_space.Room], verb: str) -> None:
    """Owners and privileges are restored as they were: nothing but the database itself is of the login."""
    arguments = [server.tools.pg_restore, "--exit-on-error", "--no-password", "--no-subscriptions"]
    arguments += ["--jobs=%d" % jobs, "--dbname=" + server.connection.target(source.scratch), source.archive]
    next_look = 0.0
    with Program(arguments, server.connection, source.scratch) as program:
        _points.reached("%s loading" % verb)
        while program.poll() is None:
            if room and time.monotonic() >= next_look:
                next_look = time.monotonic() + _CHECK_SPACE_EVERY
                problem = _space.problem(room)
                if problem:
                    program.end()
                    raise NodeopsError(
                        "Loading the backup of %s was given up: %s, and a disk that is full would end the whole "
                        "server. The live database was not touched. Make room, then run again." % (source.name, problem)
                    )
            time.sleep(_PAUSE)
        try:
            program.wait()
        except PgError as error:
            message = (
                "The backup of %s could not be loaded into a scratch database: %s. The live database was not touched."
                % (source.name, str(error).rstrip("."))
            )
            proof = _archive_errors.of_a_bad_archive(program.text()) if (program.poll() or 0) > 0 else None
            if proof and _is_there(server, source.scratch):
                problem = "%s: it cannot be loaded (%s)" % (source.name, proof)
                raise Unloadable(message, {"problems": [problem]}) from error
            raise NodeopsError(message) from error


def _is_there(server: Server, database: str) -> bool:
    """Whether somebody, or the end of the server, has not taken it away meanwhile."""
    try:
        return database in _databases.names(server)
    except NodeopsError:
        return False
