# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups stay, beside restic's own choice, and over 30 days in which things go wrong.

Core: with two sets of rules. Full: with six.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _retention, _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._retention import Rules
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup
from support.tiers import full_but

UTC = datetime.timezone.utc
START = datetime.datetime(2025, 1, 30, 23, 30, tzinfo=UTC)
LATER = datetime.datetime(2030, 1, 1, tzinfo=UTC)

# Hours between backups, and what `restic forget --dry-run` 0.14.0 kept of them (numbers of backups, from 0).
GAPS = """
24 24 12 48 144 24 12 12 3 48 480 24 3 24 480 480 24 24 24 12 24 24 3 24 24 24 24 24 24 24 12 24 48 480
24 24 24 144 24 12 480 24 3 24 24 480 24 48 48 24 48 144 24 24 24 24 3 12 3 144 24 480 480 144 24 24 24
12 48
"""
FORGET = """
last=1 : 69
last=5 : 65-69
daily=7 : 62-66 68-69
daily=400 : 0-5 7 9-11 13-21 23-29 31-41 43-55 57 59-66 68-69
weekly=4 : 62-63 66 69
weekly=200 : 3-4 10 14-15 19 27 33 36 38 40 45 48 51 57 60-63 66 69
monthly=6 : 37 45 53 62 68-69
monthly=100 : 1 10 15 31 37 45 53 62 68-69
last=3 daily=7 weekly=5 monthly=12 : 1 10 15 31 37 45 53 61-69
within=30d : 63-69
within=1m : 63-69
within=1y2m3d4h : 0-69
within=36h daily=3 : 66 68-69
last=2 within=10d monthly=3 : 62 64-69
daily=1 weekly=1 monthly=1 : 69
last=70 : 0-69
last=100 : 0-69
daily=20 weekly=20 : 4 10 14-15 19 27 33 36 38 40 45 47-55 57 59-66 68-69
"""


def backup(number: int, created: datetime.datetime, problems: Optional[List[str]] = (), **manifest: Any) -> Backup:  # type: ignore[assignment]
    """The `number`-th to be made; `problems` of its verification, None if there was none."""
    document = {
        "sequence": number,
        "kind": "pm2",
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "environment": None,
        "namespace": None,
        "content": {},
        **manifest,
    }
    verification = None if problems is None else {"problems": list(problems)}
    return Backup(f"b{number}", f"/nowhere/b{number}", document, verification)


def days(*numbers: float) -> List[Backup]:
    """Good backups in this order, made so many days after the start."""
    return [backup(at, START + datetime.timedelta(days=day)) for at, day in enumerate(numbers)]


def kept(backups: List[Backup], rules: Rules, now: datetime.datetime = LATER) -> List[int]:
    chosen, removed, reasons = _retention.choose(backups, rules, now)
    assert sorted([*chosen, *removed]) == sorted(backups)
    assert set(reasons) == {each.id for each in chosen}
    assert all(reasons.values())
    return [each.sequence for each in chosen]


def _numbers(text: str) -> List[int]:
    found: List[int] = []
    for part in text.split():
        first, _dash, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@pytest.mark.parametrize("line", FORGET.strip().splitlines())
def test_as_restic(line: str) -> None:
    moments = [START]
    for gap in GAPS.split():
        moments.append(moments[-1] + datetime.timedelta(hours=int(gap)))
    rules, _colon, expected = line.partition(" : ")
    params: Dict[str, Any] = {}
    for rule in rules.split():
        name, _equals, value = rule.partition("=")
        params["keep_" + name] = value if name == "within" else int(value)
    parsed = _retention.parse(params)
    assert parsed
    assert kept([backup(at, moment) for at, moment in enumerate(moments)], parsed) == _numbers(expected)


def test_a_week_may_lie_in_two_years() -> None:
    dates = [(2024, 1, 2), (2024, 12, 29), (2024, 12, 30), (2025, 1, 5)]
    backups = [backup(at, datetime.datetime(*day, tzinfo=UTC)) for at, day in enumerate(dates)]
    assert kept(backups, Rules(weekly=2)) == [1, 3]
    assert kept(backups, Rules(weekly=3)) == [0, 1, 3]


@pytest.mark.parametrize(
    ("span", "from_day"),
    [("10d", 21), ("1w", 24), ("1w3d", 21), ("1m", 3), ("240h", 21), ("1h", 30), ("9999y", 0), ("0d1h", 30)],
)
def test_within(span: str, from_day: int) -> None:
    """The month before 1 March begins on 1 February; the start is 30 January."""
    assert kept(days(*range(31)), Rules(within=span)) == list(range(from_day, 31))


def test_a_month_less_than_the_31st_is_counted_on_as_restic_does() -> None:
    moments = [datetime.datetime(2025, 3, day, tzinfo=UTC) for day in (2, 3, 4, 31)]
    backups = [backup(at, moment) for at, moment in enumerate(moments)]
    assert kept(backups, Rules(within="1m")) == [2, 3]  # later than 3 March


def test_the_order_is_that_of_making() -> None:
    """The clock was set back: the last one made stays."""
    assert kept(days(5, 6, 1), Rules(last=1)) == [2]
    assert kept(days(5, 6, 1, 2), Rules(daily=2)) == [2, 3]


def test_a_day_that_comes_twice_counts_once() -> None:
    assert kept(days(5, 4, 5.01), Rules(daily=3)) == [1, 2]


@pytest.mark.parametrize(
    ("minimum", "expected"), [(1, [4]), (3, [2, 3, 4]), (5, [0, 1, 2, 3, 4]), (99, [0, 1, 2, 3, 4])]
)
def test_the_minimum_stays(minimum: int, expected: List[int]) -> None:
    assert kept(days(0, 1, 2, 3, 4), Rules(last=1, minimum=minimum)) == expected


def test_only_good_ones_count() -> None:
    """A year of failures removes nothing that was good; and a bad one never stays instead of a good one."""
    good = days(0, 1, 2)
    bad = [backup(3 + at, START + datetime.timedelta(days=3 + at), ["damaged"]) for at in range(365)]
    never = [backup(400, START + datetime.timedelta(days=400), None)]
    chosen, removed, reasons = _retention.choose([*good, *bad, *never], Rules(last=2), LATER)
    assert [each.sequence for each in removed] == [0]
    assert reasons["b3"] == ["verified as bad"]
    assert reasons["b400"] == ["not verified"]
    assert [each.sequence for each in chosen[:2]] == [1, 2]


def test_without_a_good_one_nothing_goes() -> None:
    backups = [backup(at, START, None if at % 2 else ["damaged"]) for at in range(9)]
    assert kept(backups, Rules(last=1)) == list(range(9))


def test_what_is_not_good_goes_with_what_was_made_beside_it_but_not_within_a_week() -> None:
    backups = [backup(0, START, ["damaged"]), backup(1, START), backup(2, START, None), *days(0, 0, 0, 1)[3:]]
    assert kept(backups, Rules(last=1), START + datetime.timedelta(days=6)) == [0, 2, 3]
    assert kept(backups, Rules(last=1), START + datetime.timedelta(days=8)) == [3]


def test_what_is_dated_in_the_future_stays_and_does_not_count() -> None:
    """Whether it was the clock then or is the clock now that is wrong."""
    now = START + datetime.timedelta(days=3)
    assert kept(days(0, 1, 400, 2, 3), Rules(last=2), now) == [2, 3, 4]
    assert kept(days(0, 1, 2, 300, 400), Rules(daily=2), now) == [1, 2, 3, 4]
    assert kept(days(0, 1, 2, 300, 400), Rules(within="1d"), now) == [2, 3, 4]
    assert kept(days(300, 400), Rules(last=1), now) == [0, 1]
    assert kept(days(0, 1), Rules(last=2), START + datetime.timedelta(days=1, minutes=-4)) == [0, 1]


def test_no_rule_is_no_rule() -> None:
    assert _retention.parse({}) is None
    assert _retention.parse({"keep_last": None, "keep_within": None, "minimum": 3}) is None


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"keep_last": 0}, "keep nothing"),
        ({"keep_last": 0, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}, "keep nothing"),
        ({"keep_last": 0, "keep_within": "0d"}, "keep nothing"),
        ({"keep_within": "0h00m"}, "keep nothing"),
        ({"keep_last": -1}, "keep_last cannot be -1"),
        ({"keep_monthly": -1, "keep_last": 3}, "keep_monthly cannot be -1"),
        ({"keep_last": True}, "keep_last cannot be True"),
        ({"keep_last": "7"}, "keep_last cannot be '7'"),
        ({"keep_last": 1.5}, "keep_last cannot be 1.5"),
        ({"keep_within": ""}, "keep_within cannot be ''"),
        ({"keep_within": "30"}, "keep_within cannot be '30'"),
        ({"keep_within": "d30"}, "keep_within cannot be 'd30'"),
        ({"keep_within": "30d "}, "keep_within cannot be '30d '"),
        ({"keep_within": "-3d"}, "keep_within cannot be '-3d'"),
        ({"keep_within": "3s"}, "keep_within cannot be '3s'"),
        ({"keep_within": 30}, "keep_within cannot be 30"),
        ({"keep_last": 3, "minimum": 0}, "minimum cannot be 0"),
        ({"keep_last": 3, "minimum": -2}, "minimum cannot be -2"),
    ],
)
def test_refused(params: Dict[str, Any], words: str) -> None:
    with pytest.raises(NodeopsError, match=words) as caught:
        _retention.parse(params)
    assert "Nothing was removed" in str(caught.value)


# -- 30 days ---------------------------------------------------------------------------------------------------------


class Days:
    """Daily runs against a real store, and what is expected of them by a rule of their own: sets, no order of steps."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, **params: Any) -> None:
        self.store = Store(str(place / "store"), create=True)
        self.params = params
        self.rules = _retention.parse(params) or Rules()
        self.clock = START
        self.expected: List[Backup] = []
        monkeypatch.setattr(_stored_backup, "now", lambda: self.clock)

    def run(self, content: str, fails: bool = False, bad: bool = False) -> None:
        """One: a backup when the content is new; it fails before its end, or is found to be bad."""
        with self.store.lock("Nothing", 1):
            good = [each for each in self.store.backups() if each.good]
            if good and Path(good[-1].path, "dump").read_text() == content:
                return
            try:
                with self.store.draft("pm2") as draft:
                    draft.write("dump", content.encode())
                    if fails:
                        raise NodeopsError("the disk is full")
                    made = draft.commit(None, None, {}, {})
            except NodeopsError:
                return
            made = self.store.note_verified(made, "bytes", ["bad"] if bad else [])
            self.expected.append(made)
            if not bad:
                pruned = _retention.prune(self.store, made.scope, self.rules, _stored_backup.now(), False)
                self.expected = self._left()
                assert pruned["kept"] == [each.id for each in self.expected]

    def _left(self) -> List[Backup]:
        good = [each for each in self.expected if each.good]
        past = [each for each in good if each.created <= self.clock + datetime.timedelta(minutes=5)]
        stay: Set[str] = {each.id for each in good if each not in past}
        stay |= {each.id for each in good[-self.rules.minimum :]}
        stay |= {each.id for each in past[max(0, len(past) - self.params.get("keep_last", 0)) :]}
        for name, form in (("daily", "%Y-%m-%d"), ("weekly", "%G-%V"), ("monthly", "%Y-%m")):
            last_of = {each.created.strftime(form): each for each in past}  # the last made of each
            made_last = sorted(last_of.values(), key=lambda each: each.sequence)
            stay |= {each.id for each in made_last[max(0, len(made_last) - self.params.get(f"keep_{name}", 0)) :]}
        if "keep_within" in self.params:
            since = past[-1].created - datetime.timedelta(days=int(self.params["keep_within"][:-1]))
            stay |= {each.id for each in past if each.created > since}
        first = min(each.sequence for each in good if each.id in stay)
        week = datetime.timedelta(days=7)
        return [
            each
            for each in self.expected
            if each.id in stay or (not each.good and (each.sequence > first or self.clock - each.created <= week))
        ]


def thirty_days(world: Days) -> None:
    """Changes, failures, and a clock that goes back, far ahead and back again: exactly what is expected stays."""
    ever: List[int] = []
    for day in range(30):
        shift = 0  # of the clock, in days
        if 9 <= day < 12:
            shift = -5  # back
        elif day == 17:
            shift = 200  # far ahead, for one day
        elif 23 <= day < 25:
            shift = -2
        for run in range(2):
            world.clock = START + datetime.timedelta(days=day + shift, hours=6 * run)
            content = f"{day // 2 if day < 8 else day} {run if day % 3 else 0}"  # some days change nothing
            world.run(content, fails=day % 7 == 3, bad=day % 11 == 5)
            there = world.store.backups()
            assert [each.id for each in there] == [each.id for each in world.expected]
            assert not world.store.broken()
            ever += [each.sequence for each in there[-1:] if each.sequence not in ever]
            assert ever == sorted(ever)
    assert sum(each.good for each in world.store.backups()) >= world.rules.minimum
    assert len(ever) > 25


def _name(params: Dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


THIRTY_DAYS: List[Dict[str, Any]] = [
    {"keep_last": 3},
    {"keep_daily": 7},
    {"keep_daily": 4, "keep_weekly": 3, "keep_monthly": 2},
    {"keep_within": "10d"},
    {"keep_last": 1, "minimum": 5},
    {"keep_last": 2, "keep_within": "4d", "keep_monthly": 1},
]


@pytest.mark.parametrize("params", full_but([THIRTY_DAYS[2], THIRTY_DAYS[5]], THIRTY_DAYS, ids=_name))
def test_thirty_days(params: Dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thirty_days(Days(tmp_path, monkeypatch, **params))


def test_check_mode_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Days(tmp_path, monkeypatch, keep_last=99)
    for number in range(3):
        world.run(str(number))
    scope = world.store.backups()[0].scope
    with world.store.lock("Nothing", 1):
        foreseen = _retention.prune(world.store, scope, Rules(last=1), _stored_backup.now(), True)
        assert len(world.store.backups()) == 3
        assert _retention.prune(world.store, scope, Rules(last=1), _stored_backup.now(), False) == foreseen
    assert [each.id for each in world.store.backups()] == foreseen["kept"]
    assert len(foreseen["removed"]) == 2


def test_other_scopes_are_left_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), create=True)
    with store.lock("Nothing", 1):
        for kind, environment, namespace, databases in (
            ("pm2", "production", "shop", ()),
            ("pm2", "production", "blog", ()),
            ("pm2", "staging", "shop", ()),
            ("pm2", None, None, ()),
            ("postgresql", "production", "shop", ("shop",)),
            ("postgresql", "production", "shop", ("shop", "orders")),
        ) * 2:
            with store.draft(kind) as draft:
                content = {"databases": dict.fromkeys(databases, 0)} if databases else {}
                made = draft.commit(environment, namespace, {}, content)
            store.note_verified(made, "bytes", [])
        first = store.backups()[4]
        assert first.scope == ("postgresql", "production", "shop", ("shop",))
        pruned = _retention.prune(store, first.scope, Rules(last=1), _stored_backup.now(), False)
        assert pruned["removed"] == [first.id]
        assert len(store.backups()) == 11


def test_the_future_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Days(tmp_path, monkeypatch, keep_last=1)
    world.clock = START + datetime.timedelta(days=9)
    world.run("early")
    world.clock = START
    world.run("late")
    early, late = world.store.backups()
    with world.store.lock("Nothing", 1):
        pruned = _retention.prune(world.store, late.scope, Rules(last=1), _stored_backup.now(), False)
    assert pruned["reasons"] == {early.id: ["dated in the future"], late.id: ["last"]}
    assert early.id in pruned["warnings"][0]
