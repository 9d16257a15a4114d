"""Which cron patterns are accepted. tests/integration/definition/test_cron_croner.py compares with the real croner."""

from __future__ import annotations

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _cron


@pytest.mark.parametrize(
    "pattern",
    [
        "* * * * *",
        "0 3 * * *",
        "*/15 * * * *",
        "0 0 1 1 *",
        "0 0 31 1,3,4 *",
        "0 0 29 2 *",
        "0 0 L * *",
        "0 0 L 2 MON",
        "30 6-18/2 1-15 * mon-fri",
        "0,30 * * jan,JUL 0,7",
        "5 4 * * SUN",
        "*/10 * * * * *",
        "59 59 23 31 12 7",
        "  0   3\t*  *  *  ",
    ],
)
def test_accepted(pattern: str) -> None:
    assert _cron.problem(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("0 3 * * *\n* * * * *", "five fields"),
        ("0\x0b3 * * *", "five fields"),
        ("٣ * * * *", "five fields"),
        ("60 * * * *", "minute '60'"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * 32 * *", "day of month '32'"),
        ("* * * 0 *", "month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day of week '8'"),
        ("60 * * * * *", "second '60'"),
        ("-1 * * * *", "minute '-1'"),
        ("*/0 * * * *", "minute '*/0'"),
        ("*/61 * * * *", "minute '*/61'"),
        ("5/15 * * * *", "minute '5/15'"),
        ("10-5 * * * *", "minute '10-5'"),
        ("1-5,10 * * * *", "minute '1-5,10'"),
        ("1,,2 * * * *", "minute '1,,2'"),
        ("? * * * *", "five fields"),
        ("JAN * * * *", "minute 'JAN'"),
        ("* * * JAN-FOO *", "month 'JAN-FOO'"),
        ("* * * * SAT-SUN", "day of week 'SAT-SUN'"),
        ("* * * * 9/2", "day of week '9/2'"),
        ("* * l/2 * *", "day of month 'l/2'"),
        ("* * 15W * *", "day of month '15W'"),
        ("0 0 30 2 *", "never"),
        ("0 0 31 4,6,9,11 *", "never"),
        ("0 0 30-31 FEB MON", "never"),
    ],
)
def test_refused(pattern: str, words: str) -> None:
    assert words in str(_cron.problem(pattern))
