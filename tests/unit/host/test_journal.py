"""A journal is written durably, read back or refused, and removed. It is the same in every room."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Dict

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._journal import JournalFile

ADVICE = "Look at it, then remove the file."


def journal(directory: Path) -> JournalFile:
    return JournalFile(str(directory / "state" / "x.journal"), "restore", ADVICE)


def parse(document: Any) -> Dict[str, Any]:
    return {"a": document["a"].upper()}


def test_it_is_read_as_written_and_other_users_cannot_read_it(tmp_path: Path) -> None:
    file = journal(tmp_path)
    assert file.read(parse) is None
    file.write({"a": "x"})
    assert json.loads(Path(file.path).read_text()) == {"a": "x", "format": 1}
    assert os.stat(file.path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(file.path)).st_mode & 0o777 == 0o700
    assert file.read(parse) == {"a": "X"}


def test_a_journal_without_a_number_has_the_first_format(tmp_path: Path) -> None:
    file = journal(tmp_path)
    file.write({})
    Path(file.path).write_text('{"a": "x"}')
    assert file.read(parse) == {"a": "X"}
    Path(file.path).write_text('["x", null]')
    assert file.read(list) == ["x", None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is not JSON"),
        ('{"a": "canary"', "it is not JSON"),
        ('{"a": "x", "format": 2}', "its format is not 1: another version"),
        ('{"b": "canary"}', "it is not what this version"),
        ('{"a": 5}', "it is not what this version"),
        ('["canary"]', "it is not what this version"),
        ("5", "it is not what this version"),
    ],
)
def test_an_unusable_journal_is_neither_ignored_nor_shown(tmp_path: Path, text: str, reason: str) -> None:
    file = journal(tmp_path)
    file.write({})
    Path(file.path).write_text(text)
    with pytest.raises(NodeopsError, match=reason) as caught:
        file.read(parse)
    assert str(caught.value).startswith(f"The journal {file.path} of an interrupted restore cannot be read: ")
    assert str(caught.value).endswith(f"Nothing was changed. {ADVICE}")
    assert "canary" not in str(caught.value)


def test_a_journal_that_cannot_be_opened_is_not_ignored(tmp_path: Path) -> None:
    file = journal(tmp_path)
    os.makedirs(file.path)
    with pytest.raises(NodeopsError, match="cannot be read: Is a directory"):
        file.read(parse)


def test_it_is_removed_with_the_rest_of_a_killed_write(tmp_path: Path) -> None:
    file = journal(tmp_path)
    file.write({"a": "x"})
    Path(tmp_path, "state", ".x.journal.new").write_text("half")
    file.remove()
    assert os.listdir(tmp_path / "state") == []
    file.remove()


def test_a_failure_to_write_or_remove_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = journal(tmp_path)
    file.write({"a": "x"})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NodeopsError, match=r"x\.journal could not be written: No space left on device\. Make room"):
        file.write({"a": "y"})
    assert file.read(parse) == {"a": "X"}
    monkeypatch.setattr(_files, "sync_directory", full)
    with pytest.raises(NodeopsError, match=r"x\.journal could not be removed: No space left on device"):
        file.remove()
