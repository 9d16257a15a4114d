# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The options of pg_restore."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _connection_options
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _store_options

STATES = ["restored", "verified", "undone", "recovered", "status"]

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    **_store_options.PLACE,
    **_connection_options.CONNECTION,
    "age_identity_file": {"type": "path"},
    "pm2_home": {"type": "path"},
    "pm2_executable": {"type": "path"},
    "state": {"type": "str", "choices": STATES, "default": "restored"},
    "databases": {"type": "list", "elements": "str"},
    "backup": {"type": "str", "default": "latest"},
    "confirm": {"type": "list", "elements": "str"},
    "namespace": {"type": "str"},
    "ready": _process_options.READY,
    "healthy": {"type": "int", "default": 3},
    "jobs": {"type": "int", "default": 2},
    "keep_previous": {"type": "int", "default": 1},
    "stop_timeout": {"type": "float", "default": 30},
    "fence_timeout": {"type": "float", "default": 10},
    "resurrect_timeout": {"type": "float", "default": 0},
}
