# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Options of all modules that use the backup store. Documented in doc_fragments/store.py."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks

PLACE: Dict[str, Any] = {
    "dest": {"type": "path", "required": True},
    "key_file": {"type": "path", "no_log": False},
    "environment": {"type": "str"},
    "lock_timeout": {"type": "float", "default": 60},
}
"""Which store, and the label of its backups."""

ENCRYPTION: Dict[str, Any] = {
    "age_recipients": {"type": "list", "elements": "str", "default": []},
    "age_identity_file": {"type": "path"},
}

RETENTION: Dict[str, Any] = {
    "keep_last": {"type": "int"},
    "keep_daily": {"type": "int"},
    "keep_weekly": {"type": "int"},
    "keep_monthly": {"type": "int"},
    "keep_within": {"type": "str"},
    "minimum": {"type": "int", "default": 1},
}

STORE: Dict[str, Any] = {**PLACE, **ENCRYPTION, **RETENTION}
"""All of them, for modules that make backups."""

MASKS: _masks.Masks = {"age_recipients": _masks.plain}
"""What of these options may be shown: recipients are public keys."""
