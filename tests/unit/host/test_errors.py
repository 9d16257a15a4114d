"""The outcome of a failed change is one value, and a module's result gets its keys from it."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _errors
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError, Outcome


@pytest.mark.parametrize(
    ("kind", "reason", "details"),
    [
        (_errors.UNCHANGED, "", {}),
        (_errors.UNDONE, "", {"rolled_back": True}),
        (_errors.UNDO_FAILED, "no room", {"rolled_back": False, "rollback_error": "no room"}),
        (_errors.UNDO_FAILED, "", {"rolled_back": False}),
        (_errors.COMMITTED, "", {"committed": True}),
        (_errors.COMMITTED, "no room", {"committed": True, "rollback_error": "no room"}),
    ],
)
def test_the_details_have_the_outcome(kind: str, reason: str, details: Dict[str, Any]) -> None:
    error = NodeopsError("It failed.", {"name": "web"})
    error.settle(kind, reason)
    assert error.outcome == Outcome(kind, reason)
    assert error.details == {"name": "web", **details}


def test_an_error_means_unchanged_until_it_is_settled() -> None:
    assert NodeopsError("It failed.").outcome == Outcome(_errors.UNCHANGED)


def test_only_the_last_outcome_counts() -> None:
    error = NodeopsError("It failed.")
    error.settle(_errors.UNDO_FAILED, "no room")
    error.settle(_errors.COMMITTED)
    assert error.details == {"committed": True}
