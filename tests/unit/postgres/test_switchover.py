"""What is live stays open to connections, also if nothing can be put back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, List
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import UNDO_FAILED, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases, _journal, _swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Journal, Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import RESTORE, Switchover
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._timings import Timings

JOURNAL = Journal(
    id="1",
    verb=RESTORE,
    phase=_journal.LOADING,
    server="7",
    swaps=[Swap("a", "a__new_1", "a__prev_1"), Swap("b", "b__new_1", "b__prev_1")],
    backup=None,
    namespace=None,
    pm2_home=None,
    pm2_executable=None,
    ready={"timeout": 1.0, "min_uptime": 0.0},
    healthy=1,
    processes=[],
)


def test_a_live_database_is_opened_though_the_undo_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: List[List[str]] = []

    def unfence(_server: Any, names: List[str], _timeout: float) -> List[str]:
        opened.append(list(names))
        if len(opened) == 1:
            raise NodeopsError("The server went away.")
        return list(names)

    monkeypatch.setattr(_swap, "fence", mock.Mock(side_effect=NodeopsError("A session did not end.")))
    monkeypatch.setattr(_swap, "unfence", unfence)
    monkeypatch.setattr(_databases, "names", lambda _server: ["a", "a__new_1", "b", "b__new_1"])
    (tmp_path / ".nodeops").mkdir()
    server: Any = mock.Mock(answering_within=lambda _seconds: contextlib.nullcontext())
    switchover = Switchover(server, str(tmp_path), JOURNAL, 1.0, Timings(), pytest.fail)
    with _signals.mask_kept(), pytest.raises(NodeopsError, match="A session did not end") as failed:
        switchover.run()
    assert (failed.value.outcome.kind, failed.value.outcome.reason) == (UNDO_FAILED, "The server went away.")
    assert opened == [["a", "b"], ["a", "b"]]
    assert switchover.opened == ["a", "b"]
    assert _journal.read(str(tmp_path)) is not None
