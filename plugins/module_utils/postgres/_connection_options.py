# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Options of the modules that talk to PostgreSQL."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks

SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

CONNECTION: Dict[str, Dict[str, Any]] = {
    "login_host": {"type": "str"},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "path"},
    "passfile": {"type": "path", "no_log": False},
    "service": {"type": "str"},
    "service_file": {"type": "path"},
    "ssl_mode": {"type": "str", "choices": SSL_MODES},
    "ca_cert": {"type": "path"},
    "maintenance_db": {"type": "str", "default": "postgres"},
    "pg_bindir": {"type": "path"},
    "accept_vulnerable_client": {"type": "bool", "default": False},
}
"""The names are those of community.postgresql; see the documentation fragment ``postgresql``."""

MASKS: _masks.Masks = {"login_password": _masks.values}
"""What of these options may be shown."""
