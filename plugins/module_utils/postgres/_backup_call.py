# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""What one call of pg_backup works with, and a backup as its results show it."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, ContextManager, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption, _retention, _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

Warn = Callable[[str], None]


class Call(NamedTuple):
    """What one call works with."""

    params: Mapping[str, Any]
    check_mode: bool
    warn: Warn
    store: Store
    databases: Sequence[str]
    rules: Optional[_retention.Rules]

    def locked(self, what: str) -> ContextManager[None]:
        """The lock of the store; none in check mode, which changes nothing. Raises NodeopsError."""
        if self.check_mode:
            return contextlib.nullcontext()
        return self.store.lock(what, self.params["lock_timeout"])

    @property
    def scope(self) -> _stored_backup.Scope:
        return (
            _stored_backup.POSTGRESQL,
            self.params["environment"],
            self.params["namespace"],
            tuple(sorted(self.databases)),
        )

    @property
    def what(self) -> str:
        """For messages."""
        return ", ".join(self.databases)


def shown(backup: Backup) -> Dict[str, Any]:
    """A backup in the result of the module."""
    manifest = backup.manifest
    return {
        "id": backup.id,
        "path": backup.path,
        "created": manifest["created"],
        "environment": manifest["environment"],
        "namespace": manifest["namespace"],
        "databases": sorted(manifest["content"]["databases"]),
        "size": backup.size,
        "encrypted": any(_encryption.is_encrypted(each) for each in manifest["files"]),
        "verified": backup.good,
    }


def damaged(backup: Backup, problems: List[str]) -> NodeopsError:
    """The failure for a backup with these problems."""
    return NodeopsError(
        "Backup %s is damaged: %s. It will not be restored, and no keep rule counts it. Make a new backup."
        % (backup.id, "; ".join(problems)),
        {"backup": shown(backup), "problems": problems},
    )
