"""Names of databases: which are taken, which a restore gives, and what is taken apart again."""

from __future__ import annotations

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _names

AT = 1795518840.0  # 2026-11-24T11:14:00Z


@pytest.mark.parametrize(
    "name", ["shop", "Shop-2", "größe", 'a"b', "o'd", "a b", "x=y", "$", "%s", "a" * 42, "店" * 14]
)
def test_good(name: str):
    assert _names.check_database(name) == name
    assert len(_names.previous(name, "20261124111400").encode()) <= 63


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("a" * 43, "has 43 bytes: at most 42"),
        ("店" * 15, "has 45 bytes"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
        ("a\x7f", "control character"),
        ("../x", "slash"),
        ("postgresql://u:secret@h/d", "'postgresql://h/d' has a slash"),
        ("postgresql://u:secret/1@h/d", r"'postgresql://\.\.\.' has a slash"),
        ("host=h/d password=secret", r"'host=h/d password=\*+' has a slash"),
        ("postgres", "reserved"),
        ("template0", "reserved"),
        ("template1", "reserved"),
        ("shop__new_20261124111400", "one that a restore gives"),
        ("shop__prev_20261124111400", "one that a restore gives"),
        ("\udcff", "not valid UTF-8"),
    ],
)
def test_bad(name: str, why: str):
    with pytest.raises(NodeopsError, match=why) as caught:
        _names.check_database(name)
    assert str(caught.value).endswith("Nothing was changed.")


def test_lists():
    assert _names.check_databases(["a", "b"]) == ("a", "b")
    with pytest.raises(NodeopsError, match="databases is empty"):
        _names.check_databases([])
    with pytest.raises(NodeopsError, match="names 'a' twice"):
        _names.check_databases(["a", "b", "a"])


def test_ids_grow_whatever_the_clock_says():
    assert _names.new_id([], AT) == "20261124111400"
    assert _names.new_id(["20261124111359"], AT) == "20261124111400"
    assert _names.new_id(["20261124111400", "20200101000000"], AT) == "20261124111401"
    assert _names.new_id(["20270101000059"], AT) == "20270101000060"


def test_names_come_apart_again():
    for name in ("shop", "a__new_20200101000000x", "a__prev_1", "with\nline"):
        for kind, made in (("new", _names.scratch(name, "1" * 14)), ("prev", _names.previous(name, "1" * 14))):
            assert _names.parse(made) == (name, kind, "1" * 14)
    for other in (
        "shop",
        "__new_" + "1" * 14,
        "shop__new_" + "1" * 13,
        "shop__old_" + "1" * 14,
        "shop__new_" + "1" * 15,
    ):
        assert _names.parse(other) is None


def test_lock_keys():
    keys = {_names.lock_key(name) for name in ("shop", "Shop", "größe", "")}
    assert len(keys) == 4
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert _names.lock_key("shop") == _names.lock_key("shop")
