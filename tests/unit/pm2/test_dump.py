"""The dump: which of its keys count, how a namespace is saved in it, and what is never lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump

Json = Dict[str, Any]


def entry(name: str, namespace: str | None = "ours", **changes: Any) -> Json:
    found: Json = {"name": name, "status": "online", "env": {"A": "1", "unique_id": "u"}, "pm_uptime": 1, **changes}
    return found if namespace is None else {**found, "namespace": namespace}


def write(home: Path, entries: object) -> Path:
    path = home / "dump.pm2"
    path.write_text(json.dumps(entries), encoding="utf-8")
    path.chmod(0o600)
    return path


def names(home: Path) -> List[str]:
    return [item["name"] for item in json.loads((home / "dump.pm2").read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "changes",
    [
        {"pm_uptime": 2},
        {"restart_time": 9},
        {"axm_monitor": {"heap": 1}},
        {"env": {"A": "1", "unique_id": "another"}},
        {"status": "launching"},
        {"status": "errored"},
        {"pm_id": 4},
        {"nodeops": {"transaction": "x"}},
    ],
)
def test_keys_that_pm2_changes_by_itself_do_not_count(changes: Json) -> None:
    assert _dump.same([entry("a")], [entry("a", **changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"A": "2"}},
        {"env": {"A": "1", "B": "1"}},
        {"status": "stopped"},
        {"pm_cwd": "/elsewhere"},
        {"args": ["--new"]},
        {"name": "b"},
        {"namespace": "other"},
    ],
)
def test_keys_that_change_a_resurrect_count(changes: Json) -> None:
    assert not _dump.same([entry("a")], [{**entry("a"), **changes}])


def test_the_order_does_not_count_and_the_number_does() -> None:
    assert _dump.same([entry("a"), entry("b")], [entry("b"), entry("a")])
    assert not _dump.same([entry("a"), entry("a")], [entry("a")])


def test_the_id_in_a_log_path_does_not_count_unless_the_path_is_shared() -> None:
    before, after = {"pm_out_log_path": "/l/a-out-0.log"}, {"pm_out_log_path": "/l/a-out-7.log"}
    assert _dump.same([entry("a", **before)], [entry("a", **after)])
    assert not _dump.same([entry("a", merge_logs=True, **before)], [entry("a", merge_logs=True, **after)])


def test_modules_and_what_pm2_leaves_out_are_not_saved() -> None:
    live = [entry("a", pm_id=3, instances=2, prev_restart_delay=0), entry("pm2-logrotate", pmx_module=True)]
    (saved,) = _dump.entries_of(live)
    assert saved["name"] == "a"
    assert not {"pm_id", "instances", "prev_restart_delay"} & set(saved)


def test_a_save_keeps_every_other_namespace_and_the_order_of_the_boot(tmp_path: Path) -> None:
    others = [entry("x", "first", secret=1), entry("plain", None), entry("y", "last")]
    write(tmp_path, [others[0], entry("old"), others[1], entry("old2"), others[2]])
    assert _dump.save(str(tmp_path), "ours", [entry("new"), entry("new2")]) is True
    assert names(tmp_path) == ["x", "new", "new2", "plain", "y"]
    saved = json.loads((tmp_path / "dump.pm2").read_text(encoding="utf-8"))
    assert [item for item in saved if item["name"] in ("x", "plain", "y")] == others
    assert [item["name"] for item in json.loads((tmp_path / "dump.pm2.bak").read_text(encoding="utf-8"))] == [
        "x",
        "old",
        "plain",
        "old2",
        "y",
    ]


def test_an_entry_without_a_namespace_belongs_to_the_default_one(tmp_path: Path) -> None:
    write(tmp_path, [entry("plain", None), entry("ours")])
    assert _dump.save(str(tmp_path), "default", []) is True
    assert names(tmp_path) == ["ours"]


def test_an_empty_namespace_is_saved_as_empty(tmp_path: Path) -> None:
    write(tmp_path, [entry("a"), entry("b", "other")])
    assert _dump.save(str(tmp_path), "ours", []) is True
    assert names(tmp_path) == ["b"]


def test_nothing_to_save_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, [entry("a")])
    before = (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
    assert _dump.save(str(tmp_path), "ours", [entry("a", pm_uptime=99)]) is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) == before
    assert not (tmp_path / "dump.pm2.bak").exists()


def test_saving_nothing_makes_no_file(tmp_path: Path) -> None:
    assert _dump.save(str(tmp_path), "ours", []) is False
    assert not (tmp_path / "dump.pm2").exists()


def test_a_dump_that_other_users_can_read_is_written_again(tmp_path: Path) -> None:
    path = write(tmp_path, [entry("a")])
    path.chmod(0o644)
    assert _dump.save(str(tmp_path), "ours", [entry("a")]) is True
    for name in ("dump.pm2", "dump.pm2.bak"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_broken_dump_is_moved_aside_and_its_backup_is_used(tmp_path: Path) -> None:
    """A resurrect uses the backup too, but deletes the broken dump."""
    (tmp_path / "dump.pm2").write_text('[{"name": ', encoding="utf-8")
    (tmp_path / "dump.pm2.bak").write_text(json.dumps([entry("x", "other")]), encoding="utf-8")
    found = _dump.read(str(tmp_path))
    assert found.source == str(tmp_path / "dump.pm2.bak")
    assert found.problem
    assert _dump.save(str(tmp_path), "ours", [entry("a")]) is True
    assert names(tmp_path) == ["x", "a"]
    assert (tmp_path / "dump.pm2.broken").read_text(encoding="utf-8") == '[{"name": '


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', "[" * 100000, "null"])
def test_nothing_is_written_if_neither_can_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "dump.pm2").write_text(text, encoding="utf-8")
    (tmp_path / "dump.pm2.bak").write_text(text, encoding="utf-8")
    with pytest.raises(NodeopsError, match="was not saved, because the entries of the other namespaces would be lost"):
        _dump.save(str(tmp_path), "ours", [entry("a")])
    assert (tmp_path / "dump.pm2").read_text(encoding="utf-8") == text
    assert sorted(os.listdir(tmp_path)) == ["dump.pm2", "dump.pm2.bak", "nodeops"]


def test_a_missing_dump_is_replaced_by_its_backup(tmp_path: Path) -> None:
    (tmp_path / "dump.pm2.bak").write_text(json.dumps([entry("x", "other")]), encoding="utf-8")
    assert _dump.save(str(tmp_path), "ours", [entry("a")]) is True
    assert names(tmp_path) == ["x", "a"]


def test_a_write_that_fails_leaves_the_old_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(tmp_path, [entry("a")]).read_bytes()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NodeopsError, match=r"it is as it was: No space left on device"):
        _dump.save(str(tmp_path), "ours", [entry("b")])
    assert (tmp_path / "dump.pm2").read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".dump")]
