# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How a change of a namespace has failed: why, and what it has left."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import UNDO_FAILED, UNDONE, NodeopsError, Outcome
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure


class ChangeFailed(NodeopsError):
    """A change of a namespace failed. The message says why, and what became of the change.

    ``reason`` is the first part of the message alone. ``is_unproven``: the gate refused the new processes.
    """

    def __init__(self, cause: NodeopsError, reason: str, details: Dict[str, Any]) -> None:
        """``reason`` and ``details`` are those of ``cause``, without secrets."""
        message = reason + _told(cause.outcome)
        if details.get("error_log"):
            message += " The end of its error log is in error_log."
        super().__init__(message, details)
        self.outcome = cause.outcome
        self.reason = reason
        self.is_unproven = isinstance(cause, GateFailure)


def _told(outcome: Outcome) -> str:
    if outcome.kind == UNDONE:
        return " Everything is as before: what was started has been removed, what was stopped runs again."
    if outcome.kind == UNDO_FAILED:
        return (
            " Putting everything back did not succeed (%s). Run again: the next run finishes the undo." % outcome.reason
        )
    return ""
