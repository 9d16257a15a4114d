# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""What modules have in common that need PostgreSQL, and no PM2."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils._module import Module
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor

NONE: Dict[str, Dict[str, Any]] = {}


class PgModule(Module):
    """A Module without the options that say which PM2 is meant."""

    COMMON = NONE

    def _invocation(self) -> Dict[str, Any]:
        given = getattr(self, "params", None) or {}
        shown = super()._invocation()["module_args"]
        # Elsewhere dictionaries with secrets, here a label and a path.
        shown.update({name: given[name] for name in ("environment", "source") if isinstance(given.get(name), str)})
        if shown.get("login_password"):
            shown["login_password"] = MASK
        return {"module_args": {name: without_urls(value) for name, value in shown.items()}}


def without_urls(value: Any) -> Any:
    """Without the passwords of URLs and of what else libpq takes: some give that where a name is asked for."""
    if isinstance(value, list):
        return [without_urls(each) for each in value]
    return Redactor().text(_address.shown(value)) if isinstance(value, str) else value
