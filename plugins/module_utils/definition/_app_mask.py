# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What of the definition of an app may be shown."""

from __future__ import annotations

from typing import Any

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _schema
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK


def app(definition: Any) -> Any:
    """A definition with every value masked that may be a secret, or has a key that PM2 does not know."""
    if not isinstance(definition, dict):
        return MASK
    shown = {}
    for key, value in definition.items():
        found = _schema.ACCEPTED.get(key)
        if found is not None and found.name == "script" and isinstance(value, str):
            shown[key] = value if " " not in value else value.split(" ")[0] + " " + MASK
        else:
            secret = found is None or found.is_secret or found.name == "node_args"
            shown[key] = _masks.values(value) if secret else value
    return shown


APPS: _masks.Mask = _masks.each(app)
"""For the option ``apps``."""
