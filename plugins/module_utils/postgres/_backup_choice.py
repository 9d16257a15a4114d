# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Choosing the backup: of this environment, authentic, intact, and readable here."""

from __future__ import annotations

from typing import Dict, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _preflight, _programs
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_call import Call
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption, _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup


def choose(call: Call) -> Tuple[Backup, Dict[str, Facts]]:
    """The backup, authentic and of this environment, and the facts of each database."""
    params = call.params
    wanted = params["backup"]
    if wanted == _stored_backup.LATEST:
        wanted = _latest(call)
    backup = call.store.find(wanted, _stored_backup.POSTGRESQL)
    return backup, _preflight.check_backup(backup, call.databases, params["environment"], params["namespace"])


def _latest(call: Call) -> str:
    """The id of the newest good one of this environment that has all the databases and was not imported.

    Raises NodeopsError that says what there is.
    """
    environment, namespace = call.params["environment"], call.params["namespace"]
    backups = call.store.backups(_stored_backup.POSTGRESQL)
    fit = [b for b in backups if set(call.databases) <= set(b.manifest["content"].get("databases") or ())]
    ours = [b for b in fit if b.manifest["environment"] == environment]
    ours = [b for b in ours if namespace is None or b.manifest["namespace"] in (None, namespace)]
    own = [b for b in ours if not b.is_imported]
    good = [b for b in own if b.good]
    if good or (fit and not ours):
        return (good or fit)[-1].id  # one of another environment is refused later, with the reason
    asked = (_stored_backup.POSTGRESQL, environment, namespace, tuple(sorted(call.databases)))
    scope = own[-1].scope if own else asked
    shown = [b for b in ours if b.is_imported or b.scope == scope]
    return call.store.newest_good(shown, _stored_backup.described(scope)).id


def check_content(call: Call, backup: Backup) -> None:
    """Check its bytes before a program of PostgreSQL reads them. Raises NodeopsError."""
    with call.timings.measure("check"):
        problems = call.store.check_files(backup)
    if problems:
        if not call.check_mode:
            call.note_verified(backup, "bytes", problems)
        raise NodeopsError(
            "Backup %s is damaged: %s. Nothing was changed. Choose another one." % (backup.id, "; ".join(problems)),
            {"problems": problems, "backup": backup.id},
        )
    _programs.check_archive(call.server.tools, call.server.version, backup.manifest["tools"]["pg_dump"])
    for recorded in backup.manifest["files"]:
        if _encryption.is_encrypted(recorded) and not call.params["age_identity_file"]:
            raise NodeopsError(
                "Backup %s is encrypted. Nothing was changed. Give the private key's file in age_identity_file."
                % backup.id
            )
