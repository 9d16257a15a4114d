"""What a failed call of pg_restore says of what it has left, by the type and the outcome of its cause."""

from __future__ import annotations

from typing import Any, Dict, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import UNDO_FAILED, UNDONE, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._signals import Interrupted
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import RpcTimeout
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_failure import CallFailed, RecoveryFailed


def failed(
    cause: NodeopsError,
    is_untouched: bool = True,
    cleanup_error: Optional[str] = None,
    details: Optional[Dict[str, Any]] = None,
) -> CallFailed:
    return CallFailed(cause, is_untouched, cleanup_error, details or {})


@pytest.mark.parametrize("kind", [PgError, RpcTimeout, Interrupted])
def test_what_others_say_gets_what_was_not_done(kind):
    assert str(failed(kind("It is gone"))) == "It is gone. The live database was not touched."


def test_after_a_recovery_in_the_same_call_the_live_database_may_have_been_touched():
    assert str(failed(PgError("It is gone"), is_untouched=False)) == "It is gone."


def test_a_refusal_says_itself_what_was_not_done():
    assert str(failed(NodeopsError("That is wrong. No change. Do this"))) == "That is wrong. No change. Do this."


def test_an_undone_restore_says_so():
    cause = PgError("The server said no")
    cause.settle(UNDONE)
    found = failed(cause)
    assert str(found) == (
        "The server said no. Everything is as before: the old database is live, and what was stopped runs again."
    )
    assert found.details == {"rolled_back": True}
    assert found.outcome.kind == UNDONE


def test_an_undo_that_failed_says_why_and_what_to_do():
    cause = NodeopsError("The application is not well.")
    cause.settle(UNDO_FAILED, "the server went away.")
    found = failed(cause)
    assert "Putting everything back did not succeed (the server went away). Run again" in str(found)
    assert found.details == {"rolled_back": False, "rollback_error": "the server went away."}
    assert found.outcome == cause.outcome


def test_a_recovery_that_failed_names_its_databases():
    cause = PgError("No connection", "08006", {"rpc_error": "x"})
    cause.settle(UNDONE)  # by what was tried in between: not the outcome of the recovery
    found = failed(RecoveryFailed(cause, ["shop", "bank"]))
    assert str(found).startswith("No connection. The restore of shop, bank that was interrupted is not finished. Run")
    assert "as before" not in str(found)
    assert found.details["unfinished"] == ["shop", "bank"]
    assert found.details["rpc_error"] == "x"


def test_a_scratch_database_that_is_left_is_told():
    found = failed(PgError("No space left"), cleanup_error="it is in use.")
    assert str(found).endswith("The scratch database could not be dropped (it is in use): the next run does it.")
    assert found.details == {"cleanup_error": "it is in use."}


def test_the_details_of_the_cause_win():
    found = failed(NodeopsError("No.", {"steps": [1]}), details={"steps": [], "recovered": {"opened": []}})
    assert found.details == {"steps": [1], "recovered": {"opened": []}}
