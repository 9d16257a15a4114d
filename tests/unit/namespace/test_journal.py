"""A journal of an earlier version of the collection is finished or undone like one of this version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _journal
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._journal import Journal

JOURNAL = Journal("0123", _journal.TRYING, ["1:u"], ["2:v"], True, {"path": "/a", "before": None, "after": "b"})


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert _journal.read(str(tmp_path), "shop") is None
    _journal.write(str(tmp_path), "shop", JOURNAL)
    assert _journal.read(str(tmp_path), "shop") == JOURNAL
    assert _journal.read(str(tmp_path), "other") is None
    _journal.remove(str(tmp_path), "shop")
    assert _journal.read(str(tmp_path), "shop") is None


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "nodeops" / "shop.journal"
    path.parent.mkdir()
    path.write_text(json.dumps(JOURNAL._asdict()))
    assert _journal.read(str(tmp_path), "shop") == JOURNAL


def test_an_incomplete_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nodeops" / "shop.journal"
    path.parent.mkdir()
    path.write_text('{"transaction": "0123"}')
    with pytest.raises(NodeopsError, match=r"The journal .*/shop.journal of an interrupted run cannot be read"):
        _journal.read(str(tmp_path), "shop")
