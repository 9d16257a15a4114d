"""The next run switches a link on trial back, also if an earlier version of the collection noted it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._symlink import Switch
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _link_journal
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout

OLD, NEW = "releases/1", "releases/2"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(str(tmp_path))
    found.make()
    Path(found.current).symlink_to(NEW)
    return found


def begin(layout: Layout, is_of_an_earlier_version: bool) -> None:
    if is_of_an_earlier_version:
        Path(layout.private, "trial.json").write_text(json.dumps([OLD, NEW]))
    else:
        _link_journal.begin(layout, Switch(layout.current, OLD, NEW))


@pytest.mark.parametrize("is_of_an_earlier_version", [False, True])
def test_the_link_is_switched_back(layout: Layout, is_of_an_earlier_version: bool) -> None:
    begin(layout, is_of_an_earlier_version)
    assert _link_journal.pending(layout) == Switch(layout.current, OLD, NEW)
    assert _link_journal.undo(layout)
    assert str(Path(layout.current).readlink()) == OLD
    assert not _link_journal.undo(layout)


def test_a_link_that_was_changed_meanwhile_stays(layout: Layout) -> None:
    begin(layout, False)
    Path(layout.current).unlink()
    Path(layout.current).symlink_to("releases/3")
    assert _link_journal.pending(layout) is None
    assert not _link_journal.undo(layout)
    assert str(Path(layout.current).readlink()) == "releases/3"
    assert not Path(layout.private, "trial.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '["one"]', "{}", '{"before": null}', '{"path": "/x"}'])
def test_an_unreadable_note_is_refused(layout: Layout, text: str) -> None:
    Path(layout.private, "trial.json").write_text(text)
    with pytest.raises(
        NodeopsError, match=r"trial\.json of an interrupted deploy cannot be read.*Make sure .*/current"
    ):
        _link_journal.pending(layout)
