"""The pure parts of a restore: statements, names, the journal, room on disks, options."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._pause import Pause
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._stopped import Stopped
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _databases,
    _disk_space,
    _journal,
    _preflight,
    _restore,
    _status,
    _swap,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._databases import Grant
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._disk_space import Disk, DiskSpace
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Journal, Swap

FACTS: Dict[str, Any] = {
    "owner": "own er",
    "encoding": "UTF8",
    "collate": "C.UTF-8",
    "ctype": "C.UTF-8",
    "provider": "libc",
    "icu_locale": None,
    "icu_rules": None,
    "tablespace": "pg_default",
    "connection_limit": -1,
    "acl": None,
    "settings": [],
    "comment": None,
}
BOTH = [Swap("a", "a__new_1", "a__prev_1"), Swap("b", "b__new_1", "b__prev_1")]
FRESH = [Swap("a", "a__new_1", None)]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_left_to_pm2_for_a_while_where_it_has_a_dump(tmp_path):
    pause = Pause(str(tmp_path), None, "shop")
    gone = [Stopped("1", "api", 0, {})]
    begun = time.monotonic()
    assert pause.await_resurrect(gone, 60)
    (tmp_path / "dump.pm2").write_text(json.dumps([{"name": "other"}]))
    assert pause.await_resurrect([], 60)
    assert not pause.await_resurrect(gone, 0.3)
    assert 0.3 < time.monotonic() - begun < 30


# -- statements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({}, " LOCALE_PROVIDER libc"),
        ({"provider": "icu", "icu_locale": "de"}, " LOCALE_PROVIDER icu ICU_LOCALE E'de'"),
        (
            {"provider": "icu", "icu_locale": "de", "icu_rules": "&a < b"},
            " LOCALE_PROVIDER icu ICU_LOCALE E'de' ICU_RULES E'&a < b'",
        ),
        ({"provider": "builtin", "icu_locale": "C.UTF-8"}, " LOCALE_PROVIDER builtin BUILTIN_LOCALE E'C.UTF-8'"),
        ({"tablespace": "fast"}, ' LOCALE_PROVIDER libc TABLESPACE "fast"'),
    ],
)
def test_a_database_is_made_as_the_other_one_was(more, end):
    common = (
        'CREATE DATABASE "x""y" WITH TEMPLATE template0 OWNER "own er" ENCODING E\'UTF8\''
        " LC_COLLATE E'C.UTF-8' LC_CTYPE E'C.UTF-8'"
    )
    assert _databases.creation('x"y', {**FACTS, **more}, (15, 0)) == common + end
    assert _databases.creation('x"y', FACTS, (14, 9)) == common


@pytest.mark.parametrize(
    ("role", "text", "statement"),
    [
        ("", "work_mem=7MB", 'ALTER DATABASE "d" SET "work_mem" TO E\'7MB\''),
        ("r", "app.name=it's = so", 'ALTER ROLE "r" IN DATABASE "d" SET "app.name" TO E\'it\\\'s = so\''),
        (
            "",
            'search_path="$user", public, "a, b", "q""q"',
            "ALTER DATABASE \"d\" SET \"search_path\" TO E'$user', E'public', E'a, b', E'q\"q'",
        ),
        ("", 'search_path=""', 'ALTER DATABASE "d" SET "search_path" TO E\'\''),
        ("", "search_path=", 'ALTER DATABASE "d" SET "search_path" TO \'\''),
        ("", "DateStyle=ISO, DMY", 'ALTER DATABASE "d" SET "DateStyle" TO E\'ISO, DMY\''),
    ],
)
def test_a_setting_means_the_same_again(role, text, statement):
    assert _databases.setting("d", role, text) == statement


def test_privileges_are_made_from_nothing_and_what_was_passed_on_comes_last():
    facts = {**FACTS, "owner": "o", "acl": ["…"]}
    grants = [
        Grant("middle", "reader", "TEMPORARY", False),
        Grant("o", "middle", "TEMPORARY", True),
        Grant("o", "", "CONNECT", False),
        Grant("o", "o", "CREATE", False),
    ]
    assert _databases.privileges("d", facts, grants) == [
        'REVOKE ALL ON DATABASE "d" FROM PUBLIC',
        'REVOKE ALL ON DATABASE "d" FROM "o"',
        'GRANT TEMPORARY ON DATABASE "d" TO "middle" WITH GRANT OPTION',
        'GRANT CONNECT ON DATABASE "d" TO PUBLIC',
        'GRANT CREATE ON DATABASE "d" TO "o"',
        'SET LOCAL ROLE "middle"',
        'GRANT TEMPORARY ON DATABASE "d" TO "reader"',
        "RESET ROLE",
    ]
    assert _databases.privileges("d", FACTS, []) == []


# -- the swap ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("swaps", "existing", "swapped"),
    [
        (BOTH, ["a", "b"], False),
        (BOTH, ["a", "a__new_1", "b", "b__new_1"], False),
        (BOTH, ["a", "a__prev_1", "b", "b__prev_1"], True),
        (BOTH, ["a", "a__prev_0", "b", "b__prev_0"], False),
        (FRESH, [], False),
        (FRESH, ["a__new_1"], False),
        (FRESH, ["a"], True),
        # an undo: what comes in is an older one
        ([Swap("a", "a__prev_1", "a__prev_2")], ["a", "a__prev_1"], False),
        ([Swap("a", "a__prev_1", "a__prev_2")], ["a", "a__prev_2"], True),
    ],
)
def test_the_names_tell_what_has_happened(swaps, existing, swapped):
    assert _swap.is_swapped(existing, swaps) is swapped


@pytest.mark.parametrize("swaps", [BOTH, FRESH, [*BOTH, Swap("c", "c__prev_1", None)]])
def test_there_and_back_is_where_it_began(swaps):
    before = sorted([swap.incoming for swap in swaps] + [swap.name for swap in swaps if swap.previous])
    names = list(before)
    for moves in (_swap.renames(swaps), _swap.renames_back(swaps)):
        assert not _swap._is_done(names, moves)
        for one, other in moves:
            assert one in names
            assert other not in names
            names[names.index(one)] = other
        assert _swap._is_done(names, moves)
        assert _swap.is_swapped(names, swaps) is (moves == _swap.renames(swaps))
    assert sorted(names) == before


def test_previous_ones_are_told_newest_first_and_only_this_databases():
    existing = [
        "a",
        "a__prev_20260101000000",
        "a__prev_20270101000000",
        "a__new_20280101000000",
        "ab__prev_20290101000000",
    ]
    assert _status.previous(existing, "a") == ["a__prev_20270101000000", "a__prev_20260101000000"]
    assert _status._since("a__prev_20270102030405") == "2027-01-02T03:04:05Z"


# -- the journal -------------------------------------------------------------------------------------------------------

JOURNAL = Journal(
    id="20260101000000",
    verb="restore",
    phase="swapping",
    server="7",
    swaps=BOTH,
    backup="x",
    namespace="shop",
    pm2_home="/home/a/.pm2",
    pm2_executable=None,
    ready={"timeout": 1.0},
    healthy=3,
    processes=[Stopped("1:u", "web", 0, {"name": "web", "env": {"A": "b"}})],
)


def test_a_journal_is_read_as_it_was_written_and_closed_to_others(tmp_path):
    assert _journal.read(str(tmp_path)) is None
    _journal.write(str(tmp_path), JOURNAL)
    assert _journal.read(str(tmp_path)) == JOURNAL
    path = Path(_journal.path_of(str(tmp_path)))
    assert path.stat().st_mode & 0o777 == 0o600
    _journal.remove(str(tmp_path))
    _journal.remove(str(tmp_path))
    assert _journal.read(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "swaps": 3, "processes": []}'])
def test_a_journal_that_cannot_be_used_is_never_ignored(tmp_path, text):
    path = Path(_journal.path_of(str(tmp_path)))
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(NodeopsError, match=r"journal .* cannot be read"):
        _journal.read(str(tmp_path))


def test_no_key_of_a_journal_is_optional(tmp_path):
    _journal.write(str(tmp_path), JOURNAL)
    path = Path(_journal.path_of(str(tmp_path)))
    document = json.loads(path.read_text())
    for key in set(document) - {"format"}:  # the first format had no number
        path.write_text(json.dumps({other: value for other, value in document.items() if other != key}))
        with pytest.raises(NodeopsError, match="cannot be read"):
            _journal.read(str(tmp_path))


# -- disk space --------------------------------------------------------------------------------------------------------

MIB = 1 << 20
ONE_DISK = [Disk("its data", "/data", 1, 0), Disk("its WAL", "/data/pg_wal", 1, 16 * MIB)]
TWO_DISKS = [Disk("its data", "/data", 1, 0), Disk("its WAL", "/wal", 2, 16 * MIB)]


@pytest.mark.parametrize(
    ("disks", "most_wal", "free", "complaint"),
    [
        # 100 MiB: 110 with slack, 100 of WAL, two segments, the reserve
        (ONE_DISK, None, {"/data": 258}, None),
        (ONE_DISK, None, {"/data": 257}, "/data has 257.0 MiB free"),
        (ONE_DISK, 50 * MIB, {"/data": 208}, None),
        (ONE_DISK, 50 * MIB, {"/data": 207}, "needs 208.0 MiB"),
        (TWO_DISKS, None, {"/data": 126, "/wal": 148}, None),
        (TWO_DISKS, None, {"/data": 125, "/wal": 148}, "/data has"),
        (TWO_DISKS, None, {"/data": 126, "/wal": 147}, "/wal has"),
    ],
)
def test_data_and_wal_have_to_fit_each_on_its_disk(disks, most_wal, free, complaint):
    space = DiskSpace(disks, 16 * MIB, most_wal)

    def measure(path: str) -> int:
        return int(free[path] * MIB)

    if complaint is None:
        _disk_space.check([(space, 100 * MIB)], measure)
    else:
        with pytest.raises(NodeopsError, match=complaint):
            _disk_space.check([(space, 100 * MIB)], measure)


def test_tablespaces_of_one_disk_and_their_wal_are_added_up():
    slow = Disk("its data", "/slow", 1, 0)
    wanted = [
        (DiskSpace(ONE_DISK, 16 * MIB, None), 100 * MIB),
        (DiskSpace([slow, ONE_DISK[1]], 16 * MIB, None), 50 * MIB),
    ]
    # 165 with slack, 150 of WAL, two segments, the reserve
    _disk_space.check(wanted, lambda _path: 363 * MIB)
    with pytest.raises(
        NodeopsError, match=r"needs 363\.0 MiB there \(110\.0 MiB for its data and 182\.0 MiB for its WAL"
    ):
        _disk_space.check(wanted, lambda _path: 363 * MIB - 1)


def test_databases_of_one_tablespace_are_added_up():
    space = DiskSpace(ONE_DISK, 16 * MIB, None)
    wanted = [(space, 100 * MIB), (space, 50 * MIB)]
    # 165 with slack, 150 of WAL, two segments, the reserve
    _disk_space.check(wanted, lambda _path: 363 * MIB)
    with pytest.raises(NodeopsError, match=r"needs 363\.0 MiB there \(165\.0 MiB for its data and 182\.0 MiB"):
        _disk_space.check(wanted, lambda _path: 363 * MIB - 1)


def test_loading_is_given_up_before_a_disk_is_full():
    space = DiskSpace(TWO_DISKS, 16 * MIB, None)
    assert _disk_space.problem(space, lambda _path: 33 * MIB) is None
    assert "its WAL" in str(_disk_space.problem(space, lambda path: (31 if path == "/wal" else 33) * MIB))
    assert "its data" in str(_disk_space.problem(space, lambda path: (7 if path == "/data" else 33) * MIB))


def test_sizes_are_told_for_people():
    assert [_disk_space.shown(size) for size in (0, 3 * MIB // 2, 5 << 30)] == ["0.0 MiB", "1.5 MiB", "5.0 GiB"]


# -- options -----------------------------------------------------------------------------------------------------------


def params(**more: Any) -> Dict[str, Any]:
    """What a module would have got."""
    defaults = {name: option.get("default") for name, option in _restore.ARGUMENTS.items()}
    ready = {"timeout": 30.0, "min_uptime": 2.0}
    return {**defaults, "dest": "/x", "databases": ["a"], "confirm": ["a"], "ready": ready, **more}


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"databases": None}, "state restored needs databases"),
        ({"databases": None, "state": "verified"}, "state verified needs databases"),
        ({"databases": []}, "databases is empty"),
        ({"maintenance_db": "a"}, "maintenance_db is a, which is also in databases"),
        ({"databases": ["a", "a"]}, "twice"),
        ({"databases": ["template1"]}, "reserved"),
        ({"databases": ["x" * 43], "confirm": ["x" * 43]}, "43 bytes"),
        ({"databases": ["a__prev_20260101000000"]}, "one that a restore gives"),
        ({"confirm": None}, "Name the same databases in confirm"),
        ({"confirm": []}, "Name the same databases in confirm"),
        ({"confirm": ["b"]}, "confirm names b, databases names a"),
        ({"confirm": ["a", "a"]}, "confirm names a, a"),
        ({"confirm": ["a", "b"], "state": "undone"}, "confirm names a, b"),
        ({"jobs": 0}, "jobs is 0"),
        ({"keep_previous": 0}, "keep_previous is 0"),
        ({"healthy": -1}, "healthy is -1"),
        ({"lock_timeout": -1.0}, "lock_timeout"),
        ({"fence_timeout": float("nan")}, "fence_timeout"),
        ({"stop_timeout": float("inf")}, "stop_timeout"),
        ({"resurrect_timeout": -1.0}, "resurrect_timeout"),
        ({"ready": {"timeout": 1.0, "min_uptime": 2.0}}, "min_uptime"),
        ({"namespace": "a/b", "pm2_home": "/tmp"}, "namespace"),
        ({"namespace": "shop", "pm2_home": "relative"}, "absolute"),
    ],
)
def test_options_that_cannot_be_right_are_refused(more, complaint):
    with pytest.raises(NodeopsError, match=complaint) as caught:
        _restore.check_options(params(**more))
    assert "nothing was changed" in str(caught.value).lower()


def test_what_replaces_nothing_may_connect_to_what_it_is_about():
    for state in ("verified", "recovered", "status"):
        _restore.check_options(params(maintenance_db="a", state=state, confirm=None))


def test_options_that_are_right(tmp_path):
    _restore.check_options(params())
    _restore.check_options(params(databases=["a", "b"], confirm=["b", "a"], state="undone"))
    _restore.check_options(params(databases=None, confirm=None, state="recovered"))
    _restore.check_options(params(namespace="shop", pm2_home=str(tmp_path), state="verified", confirm=None))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("environment", "namespace", "databases", "complaint"),
    [
        ("production", "shop", ["a"], None),
        ("production", None, ["a"], None),
        ("staging", "shop", ["a"], "is of environment production, and this call is for environment staging"),
        (None, "shop", ["a"], "this call is for environment none"),
        ("production", "other", ["a"], "is of namespace shop"),
        ("production", "shop", ["a", "c"], r"has no database c \(it has a, b\)"),
    ],
)
def test_a_backup_of_something_else_is_refused(environment, namespace, databases, complaint):
    from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

    content = {"databases": {"a": {"n": 1}, "b": {"n": 2}}}
    backup = Backup("id", "/x", {"environment": "production", "namespace": "shop", "content": content}, None)
    if complaint is None:
        assert _preflight.check_backup(backup, databases, environment, namespace) == {"a": {"n": 1}}
    else:
        with pytest.raises(NodeopsError, match=complaint):
            _preflight.check_backup(backup, databases, environment, namespace)
