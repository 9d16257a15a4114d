# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times in cron's form, and the systemd units of an environment's jobs."""

from __future__ import annotations

from typing import Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.filter import schedule

GOOD = [
    "0 2 * * *",
    "30 3 * * 0",
    "*/5 0-23/2 1,15 JAN-mar Mon-Fri",
    "59 23 31 12 7",
    "05 09 09 09 sun",
    "0\t2   * * * ",
    "@reboot",
    "@Daily",
    "@annually ",
    "",
    None,
]
WRONG = [
    "60 2 * * *",
    "0 24 * * *",
    "0 2 0 * *",
    "0 2 32 * *",
    "0 2 * 13 *",
    "0 2 * * 8",
    "0 2 * *",
    "0 2 * * * *",
    "*/0 2 * * *",
    "5- 2 * * *",
    ", 2 * * *",
    " 0 2 * * *",
    "@sometimes",
    "daily",
    "*-*-* 02:00:00",
    "0 2 * * *\n* * * * *",
]


@pytest.mark.parametrize("time", GOOD)
def test_times_that_cron_accepts(time: str) -> None:
    assert schedule.cron_mistakes([time]) == []


@pytest.mark.parametrize("time", WRONG)
def test_times_that_cron_does_not_accept(time: str) -> None:
    assert schedule.cron_mistakes(["@daily", time]) == [time]


@pytest.mark.parametrize(
    ("times", "timed", "links", "files"),
    [
        ({}, [], [], []),
        (
            {"backup": "*-*-* 02:00:00"},
            ["backup"],
            ["timers.target.wants/shop-backup.timer"],
            ["shop-backup.service", "shop-backup.timer"],
        ),
        (
            {"recover": "@reboot"},
            [],
            ["default.target.wants/shop-recover.service"],
            ["shop-recover.service"],
        ),
        (
            {"backup": "daily", "recover": "@reboot"},
            ["backup"],
            ["timers.target.wants/shop-backup.timer", "default.target.wants/shop-recover.service"],
            ["shop-backup.service", "shop-recover.service", "shop-backup.timer"],
        ),
    ],
)
def test_the_units_that_are_wanted(times: Dict[str, str], timed: List[str], links: List[str], files: List[str]) -> None:
    units = schedule.systemd_units(["backup", "recover"], times, "shop-", "default.target")
    assert units["timed"] == timed
    assert units["links"] == links
    assert units["wanted"] == links + files
    assert set(units["wanted"]) <= set(units["possible"])


def test_the_units_that_there_could_be() -> None:
    assert schedule.systemd_units(["backup"], {}, "shop-", "multi-user.target")["possible"] == [
        "shop-backup.service",
        "shop-backup.timer",
        "timers.target.wants/shop-backup.timer",
        "multi-user.target.wants/shop-backup.service",
    ]
