"""The message of a failed change: the reason, then the outcome of the change."""

from __future__ import annotations

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _errors
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._failure import ChangeFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (_errors.UNCHANGED, "web failed."),
        (_errors.UNDONE, "what was stopped runs again."),
        (_errors.UNDO_FAILED, "(no room). Run again: the next run finishes the undo."),
        (_errors.COMMITTED, "web failed."),
    ],
)
def test_the_message_ends_with_the_outcome(kind: str, end: str) -> None:
    cause = NodeopsError("web failed")
    cause.settle(kind, "no room")
    failed = ChangeFailed(cause, "web failed.", cause.details)
    assert str(failed).startswith("web failed.")
    assert str(failed).endswith(end)
    assert (failed.reason, failed.outcome) == ("web failed.", cause.outcome)


def test_the_message_points_to_an_error_log() -> None:
    failed = ChangeFailed(NodeopsError("web failed"), "web failed.", {"error_log": ["Error: boom"]})
    assert str(failed) == "web failed. The end of its error log is in error_log."


@pytest.mark.parametrize(("cause", "is_unproven"), [(GateFailure("late"), True), (NodeopsError("no disk"), False)])
def test_a_refusal_of_the_gate_is_recognised(cause: NodeopsError, is_unproven: bool) -> None:
    assert ChangeFailed(cause, "web failed.", {}).is_unproven is is_unproven
