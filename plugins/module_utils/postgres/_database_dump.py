# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""One database dumped into the draft of a backup, and the draft made a verified backup."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _contents, _programs, _psql
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._backup_call import Call, damaged
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _draft, _encryption
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

LOCK_WAIT = 20.0
"""How many seconds others may hold a table exclusively before the backup gives up."""
HOW = "bytes"
"""How a new backup is verified: its archives and its bytes are read."""


def dump(
    call: Call,
    draft: _draft.Draft,
    tools: Tools,
    reached: Connection,
    name: str,
    file: str,
    database: Optional[str] = None,
) -> Dict[str, Any]:
    """Dump a database into the draft. Returns what is recorded of it.

    ``database``: its present name, if that is not ``name``. The dump is read again before it counts. Raises
    NodeopsError.
    """
    path = draft.path(file)
    database = database or name
    try:
        with _psql.Session(tools, reached, database) as session:
            snapshot = _contents.begin(session)
            _points.reached("backup snapshot taken")
            _contents.lock(session, LOCK_WAIT)
            # Before pg_dump reads them, which it does at its beginning: it finds the same numbers or later ones.
            sequences = _contents.read_sequences(session)
            with _programs.Program(_command(tools, reached, database, snapshot, path), reached, database) as program:
                _points.reached("backup dump started")
                found = _contents.read(session, sequences)
                _points.reached("backup facts read")
                program.wait()
            _points.reached("backup dumped")
        os.chmod(path, 0o600)
        _programs.read_archive(tools, path)
    except PgError as error:
        raise _failed(name, error) from error
    except OSError as error:
        raise PgError("Database %s was not backed up: %s. Nothing is left of it." % (name, error.strerror)) from error
    _points.reached("backup dump read")
    stored = _encryption.add(draft, file, call.params["age_recipients"], database=name)
    return {**found, "file": stored}


def _command(tools: Tools, reached: Connection, database: str, snapshot: str, path: str) -> List[str]:
    return [
        *(tools.pg_dump, "--format=custom", "--no-password", "--no-sync", "--file=" + path),
        *("--snapshot=" + snapshot, "--lock-wait-timeout=%d" % (LOCK_WAIT * 1000)),
        "--dbname=" + reached.target(database),
    ]


def _failed(name: str, error: PgError) -> PgError:
    said = str(error).rstrip(".")
    advice = ""
    if any(words in said for words in ("No space left", "File too large", "SIGXFSZ", "Disk quota")):
        advice = " Free some space on the disk of dest, then run again."
    elif error.sqlstate == "55P03" or "lock timeout" in said:
        advice = " A session holds a table exclusively (ALTER TABLE, VACUUM FULL, LOCK). Run again when it has ended."
    elif error.sqlstate == "42501" or "permission denied" in said:
        advice = " Connect as the owner of everything in it, or as a member of pg_read_all_data."
    return PgError("Database %s was not backed up: %s. Nothing is left of it.%s" % (name, said, advice), error.sqlstate)


def commit(call: Call, draft: _draft.Draft, tools: Tools, version: Version, content: Dict[str, Any]) -> Backup:
    """Make the draft a verified backup. Its archives have been read already; its bytes are read now."""
    params = call.params
    _points.reached("backup before commit")
    backup = draft.commit(params["environment"], params["namespace"], _programs.versions(tools, version), content)
    _signals.hold()
    _points.reached("backup committed")
    problems = call.store.check_files(backup)
    backup = call.store.note_verified(backup, HOW, problems)
    if problems:
        raise damaged(backup, problems)
    _points.reached("backup verified")
    return backup
