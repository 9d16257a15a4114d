# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""What the modules that talk to PostgreSQL have in common."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils._module import Module
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor


class PgModule(Module):
    """A Module that hides the passwords in all its texts: of URLs, and of what else libpq takes."""

    def _shown(self, option: Optional[Dict[str, Any]], name: str, value: Any) -> Any:
        return without_urls(super()._shown(option, name, value))


def without_urls(value: Any) -> Any:
    """Without the passwords of URLs and connection strings: libpq takes these instead of the name of a database."""
    if isinstance(value, list):
        return [without_urls(each) for each in value]
    return Redactor().text(_address.shown(value)) if isinstance(value, str) else value
