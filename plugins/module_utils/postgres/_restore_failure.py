# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How a restore, a drill, an undo or a recovery has failed: why, and what it has left."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import UNDO_FAILED, UNDONE, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._signals import Interrupted
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import AxonError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError

_BARE = (PgError, AxonError, Interrupted)
"""Errors of PostgreSQL and PM2, and signals. The messages of all other errors say what was not done."""


class RecoveryFailed(NodeopsError):
    """What a killed run has left is neither finished nor undone. ``databases``: those that it is about."""

    def __init__(self, cause: NodeopsError, databases: List[str]) -> None:
        super().__init__(
            "%s The restore of %s that was interrupted is not finished. Run again, or run state recovered: that "
            "finishes it." % (_sentence(cause), ", ".join(databases)),
            {**cause.details, "unfinished": databases},
        )


class CallFailed(NodeopsError):
    """A call of pg_restore failed. Its message is that of ``cause``, and says what became of everything.

    ``is_untouched``: it had not changed anything live before it failed. ``cleanup_error``: why a scratch database is
    left, None if none is. ``details`` are beside those of ``cause``.
    """

    def __init__(
        self, cause: NodeopsError, is_untouched: bool, cleanup_error: Optional[str], details: Dict[str, Any]
    ) -> None:
        message = _sentence(cause) + _left(cause, is_untouched)
        found = {**details, **cause.details}
        if cleanup_error:
            message += " The scratch database could not be dropped (%s): the next run does it." % (
                cleanup_error.rstrip(".")
            )
            found["cleanup_error"] = cleanup_error
        super().__init__(message, found)
        self.outcome = cause.outcome


def _sentence(error: NodeopsError) -> str:
    return str(error).rstrip(".") + "."


def _left(cause: NodeopsError, is_untouched: bool) -> str:
    if isinstance(cause, RecoveryFailed):
        return ""
    if cause.outcome.kind == UNDONE:
        return " Everything is as before: the old database is live, and what was stopped runs again."
    if cause.outcome.kind == UNDO_FAILED:
        return (
            " Putting everything back did not succeed (%s). Run again, or run state recovered: that finishes it."
            % cause.outcome.reason.rstrip(".")
        )
    return " The live database was not touched." if is_untouched and isinstance(cause, _BARE) else ""
