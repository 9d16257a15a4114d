# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The exception that the modules turn into a failure."""

from __future__ import annotations

from typing import Any, Dict, Optional


class NodeopsError(Exception):
    """Something is wrong in a way the user can act on.

    The message says what is wrong, with what value, what was not done and what to do next. It holds no secret.
    ``details`` is JSON-able and becomes part of the module's result.
    """

    def __init__(self, message: str, details: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.details: Dict[str, Any] = details or {}
