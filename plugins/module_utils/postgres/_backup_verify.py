# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""A backup verified as it lies in the store: its files, and its archives as a restore reads them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any, Dict, Iterator, List

from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _programs
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._backup_call import Call, damaged, shown
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._database_dump import HOW
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption, _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

_RESTORED = "restored"


def verify(call: Call) -> Dict[str, Any]:
    """Read all of a backup, by default the newest: its files, and its archives as a restore would."""
    store, wanted = call.store, call.params["backup"]
    backup = _newest(call) if wanted == _stored_backup.LATEST else _named(call)
    tools = _programs.find(call.params["pg_bindir"])
    if call.check_mode:
        problems = look(call, backup, tools)
    else:
        with store.lock("Backup %s was not verified" % backup.id, call.params["lock_timeout"]):
            how, problems = HOW, look(call, backup, tools)
            former = backup.verification or {}
            if not problems and former.get("how") == _RESTORED and former["problems"]:
                how, problems = _RESTORED, former["problems"]  # good bytes do not refute what a restore has found
            backup = store.note_verified(backup, how, problems)
    if problems:
        raise damaged(backup, problems)
    return {"changed": False, "backup": shown(backup), "problems": []}


def _newest(call: Call) -> Backup:
    """The newest of the scope, good or not: verifying has to find a bad one."""
    backups = call.store.backups(scope=call.scope)
    return backups[-1] if backups else call.store.newest_good(_all(call), _stored_backup.described(call.scope))


def _named(call: Call) -> Backup:
    """The one with the given id, made here or imported. Raises NodeopsError."""
    backup = call.store.find(call.params["backup"], _stored_backup.POSTGRESQL)
    scope = _stored_backup.of_imports(call.scope) if backup.is_imported else call.scope
    return call.store.find(backup.id, _stored_backup.POSTGRESQL, scope)


def _all(call: Call) -> List[Backup]:
    """Those of the scope, made here or imported, in the order in which they were made."""
    scopes = (call.scope, _stored_backup.of_imports(call.scope))
    return [backup for backup in call.store.backups(_stored_backup.POSTGRESQL) if backup.scope in scopes]


def look(call: Call, backup: Backup, tools: Tools) -> List[str]:
    """The problems of a backup. Without the private key, only the bytes of an encrypted file are checked."""
    problems = call.store.check_files(backup)
    if problems:
        return problems
    identity = call.params["age_identity_file"] or ""
    with tempfile.TemporaryDirectory(prefix="nodeops-", dir=_near(call.store)) as directory:
        for recorded in backup.manifest["files"]:
            if _encryption.is_encrypted(recorded) and not identity:
                continue
            try:
                with _readable(backup, recorded, identity, directory) as path:
                    _programs.read_archive(tools, path)
            except PgError as error:
                problems.append("%s: %s" % (recorded["name"], error))
    return problems


@contextlib.contextmanager
def _readable(backup: Backup, recorded: Dict[str, Any], identity: str, directory: str) -> Iterator[str]:
    path = _encryption.readable(backup, recorded, identity, directory)
    try:
        yield path
    finally:
        if os.path.dirname(path) == directory:
            os.unlink(path)


def _near(store: Store) -> str:
    """The directory for files that are decrypted for a moment: in the store, which other users cannot read."""
    return os.path.dirname(store.state_path("x"))


def verify_unfinished(call: Call, tools: Tools) -> None:
    """Verify what a killed run wrote and could not verify."""
    for backup in _all(call):
        if backup.verification is None:
            call.store.note_verified(backup, HOW, look(call, backup, tools))
