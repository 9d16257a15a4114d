# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key of a store, and which places it may be in."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to somebody")
NOBODY = 65534
SOMEBODY = 61234


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    path = tmp_path / "store.key"
    _signing.ensure(str(path))
    return path


def test_it_is_made_once(key: Path) -> None:
    text = key.read_text()
    assert key.stat().st_mode & 0o7777 == 0o600
    assert len(bytes.fromhex(text)) == 32
    _signing.ensure(str(key))
    assert key.read_text() == text
    assert os.listdir(key.parent) == [key.name]


def test_two_that_make_it_have_the_same(tmp_path: Path) -> None:
    """Ten processes at once; what each has signed, every other believes."""
    text = (
        "import sys; from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing;"
        "sys.stdin.read(); print(_signing.ensure(sys.argv[1]).sign({}))"
    )
    argv = [sys.executable, "-c", text, str(tmp_path / "key")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    many = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _number in range(6)
    ]
    for each in many:
        assert each.stdin
        each.stdin.close()
    said = set()
    for each in many:
        assert each.stdout
        said.add(each.stdout.read())
        each.stdout.close()
        assert each.wait() == 0
    assert len(said) == 1
    assert os.listdir(tmp_path) == ["key"]


def test_the_signature_is_the_standards_own(key: Path) -> None:
    document = {"b": [1, None, "ü"], "a": {"z": 1.5}}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    expected = hmac.new(bytes.fromhex(key.read_text()), text, hashlib.sha256).hexdigest()
    assert _signing.load(str(key)).sign({**document, "hmac": "of nothing"}) == expected


def test_only_what_was_signed_is_believed(key: Path, tmp_path: Path) -> None:
    ours = _signing.load(str(key))
    other = _signing.ensure(str(tmp_path / "other"))
    unsigned = {"a": 1, "b": {"c": "d"}}
    signature = ours.sign(unsigned)
    signed = {**unsigned, "hmac": signature}
    assert ours.check(signed)
    assert not other.check(signed)
    assert not ours.check({**signed, "a": 2})
    assert not ours.check({**signed, "more": None})
    assert not ours.check(unsigned)
    for wrong in (None, "", 7, ["x"], signature.upper(), signature + "0", "ü"):
        assert not ours.check({**signed, "hmac": wrong})


def test_it_shows_nothing_of_itself(key: Path) -> None:
    secret = key.read_text().strip()
    assert secret not in repr(_signing.load(str(key)))


def test_loading_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NodeopsError, match=r"does not exist.*key of this store back"):
        _signing.load(str(tmp_path / "key"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not hold at least 32 bytes"),
        (b"00" * 31, "not hold at least 32 bytes"),
        (b"rubbish" * 10, "not hold at least 32 bytes"),
        (b"0" * 65, "not hold at least 32 bytes"),
        (b"\xff" * 64, "not hold at least 32 bytes"),
    ],
)
def test_a_bad_one_is_refused(key: Path, content: bytes, words: str) -> None:
    key.write_bytes(content)
    for use in (_signing.load, _signing.ensure):
        with pytest.raises(NodeopsError, match=words):
            use(str(key))
    assert key.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_one_that_others_may_read_or_change_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(NodeopsError, match="open to other users"):
        _signing.load(str(key))


def test_a_link_or_a_pipe_is_refused(key: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(key)
    with pytest.raises(NodeopsError, match="symbolic link"):
        _signing.load(str(tmp_path / "link"))
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(NodeopsError, match="symbolic link"):
        _signing.ensure(str(tmp_path / "gone"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(NodeopsError, match="not a regular file"):
        _signing.load(str(tmp_path / "pipe"))


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(NodeopsError, match="Not a directory"):
        _signing.ensure(str(place / "key"))
    with pytest.raises(NodeopsError, match=r"cannot be made.*No such file"):
        _signing.ensure(str(tmp_path / "no" / "key"))


@AS_ROOT
def test_somebody_elses_is_refused(key: Path) -> None:
    os.chown(key, SOMEBODY, SOMEBODY)
    with pytest.raises(NodeopsError, match=f"belongs to uid {SOMEBODY}"):
        _signing.load(str(key))


# -- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "key", "./key", "/a/../key", "/a//key", "/a/./key", "~/key", "/a/.."])
def test_only_absolute_paths(path: str) -> None:
    with pytest.raises(NodeopsError, match="absolute path"):
        _trusted_path.check_parents(path, "The store")


def test_what_may_be_on_the_way(tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "ours").mkdir()
    (tmp_path / "link").symlink_to(sticky / "ours")
    (tmp_path / "near").symlink_to("sticky/../sticky/ours")
    for path in (sticky / "ours" / "store", sticky / "new", tmp_path / "link" / "store", tmp_path / "near" / "x" / "y"):
        _trusted_path.check_parents(str(path), "The store")


def test_a_directory_others_may_write_to_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open"
    (place / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(place / "below")
    (place / "away").symlink_to(tmp_path)
    place.chmod(0o777)
    for path in (place / "key", place / "below" / "key", tmp_path / "link" / "key", place / "away" / "key"):
        with pytest.raises(NodeopsError, match=f"{place} can be written to by other users"):
            _trusted_path.check_parents(str(path), "The store")


def test_a_loop_and_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "file").write_text("")
    for name, words in (("a", "symbolic links"), ("file", "Not a directory")):
        with pytest.raises(NodeopsError, match=words):
            _trusted_path.check_parents(str(tmp_path / name / "key"), "The store")


@AS_ROOT
@pytest.mark.parametrize("owner", [SOMEBODY, NOBODY])
def test_a_directory_or_link_of_somebody_is_refused(tmp_path: Path, owner: int) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", owner, owner)
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(tmp_path / "link", owner, owner, follow_symlinks=False)
    for name in ("theirs", "link"):
        with pytest.raises(NodeopsError, match=f"{name} belongs to {_trusted_path.name_of(owner)}"):
            _trusted_path.check_parents(str(tmp_path / name / "store"), "The store")


@AS_ROOT
def test_a_group_of_several_is_somebody_else(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for group, is_refused in ((0, False), (NOBODY, True), (SOMEBODY, True)):
        os.chown(place, 0, group)
        place.chmod(0o775)
        if is_refused:
            with pytest.raises(NodeopsError, match="other users"):
                _trusted_path.check_parents(str(place / "store"), "The store")
        else:
            _trusted_path.check_parents(str(place / "store"), "The store")
