# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The revision of a source directory, and the archive made of it."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "lib" / "deep").mkdir(parents=True)
    (root / "node_modules" / "x").mkdir(parents=True)
    (root / "server.js").write_text("server")
    (root / "lib" / "deep" / "a.js").write_text("a")
    (root / "lib" / "naïve name.js").write_text("n")
    (root / "node_modules" / "x" / "index.js").write_text("x")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link.js").symlink_to("server.js")
    return root


def revision(source: Path, *exclude: str) -> str:
    return _directory.read(str(source), exclude).revision


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("node_modules", "node_modules", True),
        ("lib/node_modules", "node_modules", True),
        ("lib/node_modules", "/node_modules", False),
        ("node_modules", "/node_modules", True),
        ("logs/a.log", "*.log", True),
        ("logs/a.log", "logs/*", True),
        ("logs", "logs/*", False),
        ("logs", "logs", True),
        ("logs", "Logs", False),
        ("blogs", "logs", False),
        ("a/logs/b", "/logs", False),
        (".env", ".env*", True),
        ("data[1]", "data[[]1]", True),
    ],
)
def test_excluded(path: str, pattern: str, expected: bool) -> None:
    assert _directory.excluded(path, [pattern]) is expected


def test_paths_are_sorted_and_an_excluded_directory_is_left_out_whole(source: Path) -> None:
    assert list(_directory.paths(str(source), ["node_modules"])) == [
        "lib",
        "lib/deep",
        "lib/deep/a.js",
        "lib/naïve name.js",
        "link.js",
        "run.sh",
        "server.js",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "server.js").write_text("other!"),
        lambda root: (root / "server.js").rename(root / "server2.js"),
        lambda root: (root / "server.js").chmod(0o755),
        lambda root: (root / "empty").mkdir(),
        lambda root: ((root / "link.js").unlink(), (root / "link.js").symlink_to("run.sh")),
        lambda root: ((root / "link.js").unlink(), (root / "link.js").write_text("server.js")),
    ],
    ids=["content", "name", "executable", "empty directory", "link target", "link becomes file"],
)
def test_the_revision_changes_with(source: Path, change: Callable[[Path], object]) -> None:
    before = revision(source)
    change(source)
    assert revision(source) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: os.utime(root / "server.js", (1, 1)),
        lambda root: (root / "server.js").chmod(0o640),
        lambda root: (root / "node_modules" / "y.js").write_text("y"),
    ],
    ids=["time", "permission", "excluded file"],
)
def test_the_revision_does_not_change_with(source: Path, change: Callable[[Path], object]) -> None:
    before = revision(source, "node_modules")
    change(source)
    assert revision(source, "node_modules") == before


def test_the_archive_holds_what_the_revision_names(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "source.tar.gz"
    packed = _directory.pack(str(source), ["node_modules"], str(dest))
    assert dest.stat().st_mode & 0o777 == 0o600
    with tarfile.open(dest) as archive:
        assert {(m.uid, m.gid, m.uname, m.gname) for m in archive.getmembers()} == {(0, 0, "", "")}
        archive.extractall(tmp_path / "out")
    assert _directory.read(str(tmp_path / "out"), []) == packed
    assert packed.files == 4
    assert packed.size == len("server") + len("a") + len("n") + len("#!/bin/sh\n")
    assert not list(tmp_path.glob("*.partial"))


def test_a_pipe_is_refused_by_name_and_nothing_is_left(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(NodeopsError, match="source/pipe is not a file"):
        _directory.pack(str(source), [], str(tmp_path / "source.tar.gz"))
    assert not list(tmp_path.glob("source.tar.gz*"))


def test_another_revision_than_expected_is_refused_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "source.tar.gz"
    first = _directory.pack(str(source), [], str(dest), revision(source))
    packed = dest.read_bytes()
    (source / "server.js").write_text("newer")
    with pytest.raises(NodeopsError, match="it changed meanwhile"):
        _directory.pack(str(source), [], str(dest), first.revision)
    with pytest.raises(NodeopsError, match="it changed meanwhile"):
        _directory.read(str(source), [], first.revision)
    assert dest.read_bytes() == packed
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_source_is_refused(source: Path) -> None:
    with pytest.raises(NodeopsError, match="no files to deploy"):
        _directory.read(str(source), ["*"])


@pytest.mark.parametrize("by", [-3, 3], ids=["shorter", "longer"])
def test_a_file_that_changes_length_while_it_is_packed_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    lstat = os.lstat

    def other_size(path: str) -> os.stat_result:
        status = lstat(path)
        if not str(path).endswith("server.js"):
            return status
        fields = list(status[:10])
        fields[stat.ST_SIZE] -= by
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", other_size)
    with pytest.raises(NodeopsError, match=r"server\.js changed while it was read"):
        _directory.pack(str(source), [], str(tmp_path / "source.tar.gz"))
