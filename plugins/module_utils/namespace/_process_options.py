# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Options that several modules take."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks

CONNECTION: Dict[str, Dict[str, Any]] = {
    "pm2_home": {"type": "path"},
    "pm2_executable": {"type": "path"},
}

READY: Dict[str, Any] = {
    "type": "dict",
    "default": {},
    "apply_defaults": True,
    "options": {
        "timeout": {"type": "float", "default": 30},
        "min_uptime": {"type": "float", "default": 2},
        "http": {
            "type": "list",
            "elements": "dict",
            "options": {
                "url": {"type": "str", "required": True},
                "status": {"type": "list", "elements": "int", "default": [200]},
                "expect": {"type": "str"},
                "headers": {"type": "dict"},
                "timeout": {"type": "float", "default": 5},
                "validate_certs": {"type": "bool", "default": True},
            },
        },
        "tcp": {"type": "list", "elements": "str"},
        "log": {"type": "list", "elements": "str"},
    },
}
"""What new processes have to prove; parsed by _checks.parse. Times in seconds."""

READY_MASK: _masks.Mask = _masks.keys(
    "timeout min_uptime log",
    {
        "http": _masks.each(_masks.keys("status expect timeout validate_certs", {"url": _masks.address})),
        "tcp": _masks.each(_masks.address),
    },
)

STRATEGY: Dict[str, Any] = {"type": "str", "choices": ["auto", "replace", "restart"], "default": "auto"}
