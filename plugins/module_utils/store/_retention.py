# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Which backups are kept: restic's rules over verified backups, with guards.

The rules go through the backups of one scope from the newest to the oldest. Days, weeks (ISO) and months are those of
UTC. A backup that is not verified as good, or is dated in the future, is never counted. So failed backups cost no good
one.
"""

from __future__ import annotations

import datetime
import re
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import TIME, Backup, Scope

COUNTS = ("last", "daily", "weekly", "monthly")
CLOCK_TOLERANCE = datetime.timedelta(minutes=5)
"""How far ahead of the clock a backup may be before it counts as dated in the future."""
BAD_STAYS = datetime.timedelta(days=7)
"""How long a backup that is not good is kept at least, so that people can look at it."""

_SPAN = re.compile(r"(?:[0-9]{1,4}[hdwmy])+")
_PART = re.compile(r"([0-9]+)([hdwmy])")

_PERIODS: Dict[str, Callable[[Backup], Any]] = {
    "last": lambda backup: backup.id,
    "daily": lambda backup: backup.created.date(),
    "weekly": lambda backup: tuple(backup.created.isocalendar())[:2],
    "monthly": lambda backup: (backup.created.year, backup.created.month),
}


class Rules(NamedTuple):
    """How many to keep: the last ones, and the last one of each of so many days, weeks and months that have one.

    ``within``: also all that are at most so much older than the last one ("30d", "1y6m"; hours, days, weeks, months,
    years). ``minimum``: how many good ones are always kept.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    within: Optional[str] = None
    minimum: int = 1


def parse(params: Dict[str, Any]) -> Optional[Rules]:
    """The rules of a module's options ``keep_…`` and ``minimum``; None when no ``keep_…`` is given.

    Raises NodeopsError.
    """
    given = {name: params.get("keep_" + name) for name in COUNTS}
    within = params.get("keep_within")
    minimum = params.get("minimum")
    minimum = 1 if minimum is None else minimum
    if not _is_count(minimum) or minimum < 1:
        raise _refusal("minimum", minimum, "Give at least 1: the last good backup is never removed.")
    for name, count in given.items():
        if count is not None and not _is_count(count):
            raise _refusal("keep_" + name, count, "Give how many to keep, or leave it out.")
    if within is not None and (not isinstance(within, str) or not _SPAN.fullmatch(within)):
        raise _refusal("keep_within", within, "Give numbers with units, such as 30d, 2w or 1y6m (h, d, w, m, y).")
    if within is None and all(count is None for count in given.values()):
        return None
    if not any(given.values()) and not any(int(number) for number, _unit in _PART.findall(within or "")):
        raise NodeopsError(
            "The rules keep nothing: each of keep_last, keep_daily, keep_weekly, keep_monthly and keep_within is 0 or "
            "not given. They would remove every backup. Nothing was removed. Give at least one of them a number."
        )
    counts = {name: count or 0 for name, count in given.items()}
    return Rules(within=within, minimum=minimum, **counts)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refusal(option: str, value: Any, advice: str) -> NodeopsError:
    return NodeopsError("%s cannot be %r. Nothing was removed. %s" % (option, value, advice))


def choose(
    backups: List[Backup], rules: Rules, now: datetime.datetime
) -> Tuple[List[Backup], List[Backup], Dict[str, List[str]]]:
    """(kept, removed, why each is kept, by id) of the backups of one scope, in the order in which they were made."""
    ordered = sorted(backups, key=lambda backup: backup.sequence)
    good = [backup for backup in ordered if backup.good]
    reasons: Dict[str, List[str]] = {}
    for backup in good:
        if is_ahead(backup, now):
            reasons[backup.id] = ["dated in the future"]
    _apply(rules, [backup for backup in good if backup.id not in reasons], reasons)
    for backup in good[-rules.minimum :]:
        reasons.setdefault(backup.id, ["minimum"])
    oldest = min((backup.sequence for backup in good if backup.id in reasons), default=-1)
    for backup in ordered:
        if not backup.good and (backup.sequence > oldest or now - backup.created <= BAD_STAYS):
            reasons[backup.id] = ["not verified" if backup.verification is None else "verified as bad"]
    kept = [backup for backup in ordered if backup.id in reasons]
    return kept, [backup for backup in ordered if backup.id not in reasons], reasons


def is_ahead(backup: Backup, now: datetime.datetime) -> bool:
    """Whether it is dated in the future: the clock is wrong now, or was wrong when it was made."""
    return backup.created > now + CLOCK_TOLERANCE


def _apply(rules: Rules, counted: List[Backup], reasons: Dict[str, List[str]]) -> None:
    left = {name: getattr(rules, name) for name in COUNTS}
    seen: Dict[str, Set[Any]] = {name: set() for name in COUNTS}
    since = _before(counted[-1].created, rules.within) if counted and rules.within else None
    for backup in reversed(counted):
        why = ["within"] if since is not None and backup.created > since else []
        for name in COUNTS:
            period = _PERIODS[name](backup)
            if left[name] and period not in seen[name]:
                seen[name].add(period)
                left[name] -= 1
                why.append(name)
        if why:
            reasons[backup.id] = why


def _before(moment: datetime.datetime, span: str) -> datetime.datetime:
    """The moment that is ``span`` earlier; the earliest possible one if the span is too long."""
    parts = {"h": 0, "d": 0, "w": 0, "m": 0, "y": 0}
    for number, unit in _PART.findall(span):
        parts[unit] += int(number)
    months = moment.year * 12 + moment.month - 1 - parts["y"] * 12 - parts["m"]
    try:
        first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
        days = moment.day - 1 - parts["d"] - 7 * parts["w"]  # 31 March less a month is 3 March, as in restic
        return first + datetime.timedelta(days=days, hours=-parts["h"])
    except (OverflowError, ValueError):
        return datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


def prune(store: Store, scope: Scope, rules: Rules, now: datetime.datetime, check_mode: bool) -> Dict[str, Any]:
    """Remove the backups of one scope that no rule keeps, oldest first. Call it with the lock held, after a success.

    Returns ``kept`` and ``removed`` (ids, in the order in which they were made), ``reasons`` (why each is kept, by id)
    and ``warnings``. Raises NodeopsError.
    """
    backups = store.backups(scope=scope)
    kept, removed, reasons = choose(backups, rules, now)
    if not check_mode:
        for backup in removed:
            _points.reached("prune removes")
            store.remove(backup)
    return {
        "kept": [backup.id for backup in kept],
        "removed": [backup.id for backup in removed],
        "reasons": reasons,
        "warnings": _warnings(backups, now),
    }


def foresee(backups: List[Backup], rules: Rules, now: datetime.datetime) -> Dict[str, Any]:
    """What ``prune`` would return after one more good backup, made now. ``backups``: all of the scope."""
    manifest = {"sequence": sys.maxsize, "created": now.strftime(TIME)}
    one_more = Backup("", "", manifest, {"problems": []})
    kept, removed, reasons = choose([*backups, one_more], rules, now)
    reasons.pop(one_more.id)
    return {
        "kept": [backup.id for backup in kept if backup is not one_more],
        "removed": [backup.id for backup in removed],
        "reasons": reasons,
        "warnings": _warnings(backups, now),
    }


def told(outcome: Dict[str, Any], warn: Callable[[str], None]) -> Dict[str, Any]:
    """``outcome``, which ``prune`` or ``foresee`` returned, without its warnings: ``warn`` gets them."""
    for warning in outcome.pop("warnings"):
        warn(warning)
    return outcome


def _warnings(backups: List[Backup], now: datetime.datetime) -> List[str]:
    ahead = [backup.id for backup in backups if is_ahead(backup, now)]
    if not ahead:
        return []
    return [
        "Backups are dated in the future (it is %s): %s. They are kept, and no keep rule counts them. Check the clock "
        "of this host." % (now.strftime(TIME), ", ".join(ahead))
    ]
