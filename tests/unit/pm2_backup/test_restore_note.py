"""The note of a restore is read as it was written, also if an earlier version of the collection wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _restore_note
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._restore_note import (
    Former,
    FormerFile,
    Unfinished,
)

FILES = {
    "/srv/shop/.env": FormerFile(EnvFile("/srv/shop/.env", b"A=canary", 0o600, "shop", "shop"), ["mark"]),
    "/srv/shop/new.env": FormerFile(None, []),
}
SHOP = Former([{"name": "web"}], [], True, ["mark"])
NOTE = Unfinished("20260101T000000Z", FILES, {"shop": SHOP})


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert _restore_note.find(home, ["shop"]) == {}
    _restore_note.write(home, "shop", NOTE)
    assert _restore_note.find(home, ["shop"]) == {_restore_note.path_of(home, "shop"): NOTE}
    assert _restore_note.find(home, ["other"]) == {}


def test_a_note_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    home = str(tmp_path)
    _restore_note.write(home, "shop", NOTE)
    path = Path(_restore_note.path_of(home, "shop"))
    document = json.loads(path.read_text())
    del document["format"]
    path.write_text(json.dumps(document))
    assert _restore_note.find(home, ["shop"]) == {str(path): NOTE}


def test_a_finished_namespace_is_removed_from_the_note_and_others_stay(tmp_path: Path) -> None:
    home = str(tmp_path)
    _restore_note.write(home, None, NOTE._replace(namespaces={"shop": SHOP, "other": SHOP}))
    _restore_note.settle(home, ["shop"], ["/srv/shop/.env"])
    (left,) = _restore_note.find(home, ["other"]).values()
    assert (list(left.namespaces), list(left.files)) == (["other"], ["/srv/shop/new.env"])
    _restore_note.settle(home, ["other"], [])
    assert list(Path(home, "nodeops").iterdir()) == []


def test_an_unreadable_note_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = Path(_restore_note.path_of(str(tmp_path), "shop"))
    path.parent.mkdir()
    path.write_text('{"backup": "x", "namespaces": {}, "files": {"canary": {"canary": 1}}}')
    with pytest.raises(NodeopsError, match="of an interrupted restore cannot be read") as caught:
        _restore_note.find(str(tmp_path), ["shop"])
    assert "canary" not in str(caught.value)
