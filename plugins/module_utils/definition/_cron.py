# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Cron patterns that PM2's daemon can take.

PM2 hands `cron_restart` to croner 4.1.97 (5.4, 6.0 and 7.0 ship the same file) inside the daemon (Worker.js
registerCron): a pattern that croner refuses kills the daemon and every app. So this accepts only patterns that croner
surely accepts. These are refused here: "?" (croner replaces it by the moment of the call), "5/15" (off by one for days
and months) and a range inside a list (croner refuses it).

A pattern that never fires is refused too. croner looks for the next time by recursion: for "0 0 31 4,6 *" that ends in
a stack overflow, and for "* * * * 9/2" (no weekday at all) it never ends. PM2's command line checks neither.

If a day of the month **and** a day of the week are given, croner needs both to match, unlike crontab(5).
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Set, Tuple

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LAST_DAY = "L"
_EVERY = "*"

_ALPHABET = re.compile("[A-Za-z0-9*,/ \\t-]+")
_NUMBER = re.compile("[0-9]{1,2}")
_RANGE = re.compile("([0-9]{1,2})-([0-9]{1,2})(?:/([0-9]{1,2}))?")
_STEP = re.compile("[*]/([0-9]{1,2})")


class _Field:
    """One field: its name for the user, the lowest and highest number, the largest step, names for numbers."""

    def __init__(self, label: str, low: int, high: int, step: int, names: Tuple[str, ...] = ()) -> None:
        self.label = label
        self.low = low
        self.high = high
        self.step = step
        self.names: Dict[str, str] = {name: str(number) for number, name in enumerate(names, low)}


_FIELDS = (
    _Field("second", 0, 59, 60),
    _Field("minute", 0, 59, 60),
    _Field("hour", 0, 23, 24),
    _Field("day of month", 1, 31, 31),
    _Field("month", 1, 12, 12, _MONTHS),
    _Field("day of week", 0, 7, 7, _DAYS),
)


def problem(pattern: str) -> Optional[str]:
    """Why this pattern cannot be used, or None if it can. Five fields, or six with seconds first."""
    parts = pattern.split()
    if not _ALPHABET.fullmatch(pattern) or len(parts) not in (5, 6):
        return "it needs five fields (minute hour day month weekday), or six with seconds first"
    if len(parts) == 5:
        parts.insert(0, "0")
    values: List[Set[int]] = []
    for field, part in zip(_FIELDS, parts):
        found = _values(field, part)
        if found is None:
            return "its %s %r is not *, a number from %d to %d, a list, a range or a step" % (
                field.label,
                part,
                field.low,
                field.high,
            )
        values.append(found)
    if not _ever(parts[3], values[3], values[4]):
        return "it never fires: no month of it has such a day"
    return None


def _values(field: _Field, part: str) -> Optional[Set[int]]:
    """The numbers that the part stands for; None if it does not have the accepted form."""
    everything = set(range(field.low, field.high + 1))
    if part == _EVERY:
        return everything
    if field.label == "day of month" and part.upper() == _LAST_DAY:
        return {28, 29, 30, 31}
    step = _STEP.fullmatch(part)
    if step:
        size = int(step.group(1))
        return set(range(field.low, field.high + 1, size)) if 0 < size <= field.step else None
    return _listed(field, part)


def _listed(field: _Field, part: str) -> Optional[Set[int]]:
    """The same for a range, or for a list of single numbers."""
    items = part.split(",")
    found: Set[int] = set()
    for item in items:
        numbers = "-".join(field.names.get(word.upper(), word) for word in item.split("-"))
        span = _RANGE.fullmatch(numbers) if len(items) == 1 else None
        if span:
            low, high, step = int(span.group(1)), int(span.group(2)), int(span.group(3) or 1)
        elif _NUMBER.fullmatch(numbers):
            low, high, step = int(numbers), int(numbers), 1
        else:
            return None
        if not field.low <= low <= high <= field.high or not 0 < step <= field.step:
            return None
        found.update(range(low, high + 1, step))
    return found


def _ever(day_part: str, days: Set[int], months: Set[int]) -> bool:
    """Whether some month has such a day. The 29th of February with a weekday comes within 28 years."""
    return day_part.upper() == _LAST_DAY or any(min(days) <= _LONGEST_MONTH[month - 1] for month in months)
