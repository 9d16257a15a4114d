"""A killed run that was committed is finished: its link is switched, unless the link was changed meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _journal, _recovery
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._journal import Journal


def recovered(home: Path, link: Path) -> None:
    """Recover from a run that was killed before it switched the link from `releases/1` to `releases/2`."""
    switch = {"path": str(link), "before": "releases/1", "after": "releases/2"}
    _journal.write(str(home), "shop", Journal("0123", _journal.COMMITTED, [], [], False, switch))
    empty: Any = mock.Mock(read=list)
    empty.name = "shop"
    assert _recovery.recover(empty, str(home)).outcome == "finished"
    assert _journal.read(str(home), "shop") is None


@pytest.mark.parametrize(
    ("found", "left"), [("releases/1", "releases/2"), ("releases/2", "releases/2"), ("releases/3", "releases/3")]
)
def test_a_link_that_was_changed_meanwhile_is_left(tmp_path: Path, found: str, left: str) -> None:
    link = tmp_path / "current"
    link.symlink_to(found)
    recovered(tmp_path, link)
    assert os.readlink(link) == left


def test_a_directory_that_was_removed_meanwhile_needs_no_link(tmp_path: Path) -> None:
    recovered(tmp_path, tmp_path / "gone" / "current")
    assert not (tmp_path / "gone").exists()
