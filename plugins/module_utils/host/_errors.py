# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The one exception the modules turn into a failure, and what a failed change has left."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

UNCHANGED = "unchanged"  # nothing had been changed
UNDONE = "undone"  # everything is as it was before the change
UNDO_FAILED = "undo failed"  # the next run finishes the undo
COMMITTED = "committed"  # the change was made: what failed came after it


class Outcome(NamedTuple):
    """What a failed change has left. ``reason``: why an undo failed, also one after the commit, without secrets."""

    kind: str = UNCHANGED
    reason: str = ""

    @property
    def details(self) -> Dict[str, Any]:
        """The part of a module's result that tells the outcome."""
        if self.kind == UNDONE:
            return {"rolled_back": True}
        reason = {"rollback_error": self.reason} if self.reason else {}
        if self.kind == UNDO_FAILED:
            return {"rolled_back": False, **reason}
        return {"committed": True, **reason} if self.kind == COMMITTED else {}


_OUTCOME_KEYS = ("rolled_back", "rollback_error", "committed")


class NodeopsError(Exception):
    """Something is wrong in a way the user can act on.

    The message says what is wrong, with what value, what was not done and what to do next. It holds no secret.
    ``details`` is JSON-able and becomes part of the module's result.
    """

    def __init__(self, message: str, details: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.details: Dict[str, Any] = details or {}
        self.outcome = Outcome()

    def settle(self, kind: str, reason: str = "") -> None:
        """Note what the failure has left: as ``outcome``, and in the details."""
        self.outcome = Outcome(kind, reason)
        for key in _OUTCOME_KEYS:
            self.details.pop(key, None)
        self.details.update(self.outcome.details)
