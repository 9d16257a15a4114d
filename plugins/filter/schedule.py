# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cron and systemd are told about the jobs of an environment."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

FIELDS = {
    "minute": "[0-5]?[0-9]",
    "hour": "[01]?[0-9]|2[0-3]",
    "day": "0?[1-9]|[12][0-9]|3[01]",
    "month": "0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec",
    "weekday": "[0-7]|sun|mon|tue|wed|thu|fri|sat",
}
NICKNAMES = "@(reboot|hourly|daily|midnight|weekly|monthly|yearly|annually)"


def _field(value: str) -> str:
    part = rf"([*]|({value})(-({value}))?)(/[1-9][0-9]*)?"
    return f"{part}(,{part})*"


FIVE_FIELDS = r"\s+".join(map(_field, FIELDS.values()))
TIME = re.compile(rf"({NICKNAMES}|{FIVE_FIELDS})\s*$", re.IGNORECASE)


def cron_mistakes(times: Iterable[Optional[str]]) -> List[str]:
    """Those of the times that cron does not read. An empty one stands for never, and is right."""
    return [time for time in times if time and not TIME.match(str(time))]


def systemd_units(jobs: Iterable[str], times: Mapping[str, str], prefix: str, boot_target: str) -> Dict[str, List[str]]:
    """The units of jobs and the links that enable them, as paths below the directory of the units.

    Paths are told by their exact names, because another environment's name may begin with this one's.
    """
    units = {job: prefix + job for job in jobs}
    timers = {job: f"timers.target.wants/{unit}.timer" for job, unit in units.items()}
    at_boot = {job: f"{boot_target}.wants/{unit}.service" for job, unit in units.items()}
    timed = [job for job, time in times.items() if time != "@reboot"]
    links = [timers[job] if job in timed else at_boot[job] for job in times]
    files = [f"{units[job]}.service" for job in times] + [f"{units[job]}.timer" for job in timed]
    possible = [
        path for job, unit in units.items() for path in (f"{unit}.service", f"{unit}.timer", timers[job], at_boot[job])
    ]
    return {"timed": timed, "links": links, "wanted": links + files, "possible": possible}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> Dict[str, Callable[..., Any]]:
        """By the names that a template uses."""
        return {"cron_mistakes": cron_mistakes, "systemd_units": systemd_units}
