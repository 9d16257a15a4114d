# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of a play, and their summary."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.filter import results

LOST = {"result": "failed", "reason": "The host cannot be reached, or its variables were refused."}


def test_each_host_has_its_own_result_or_is_lost() -> None:
    done = {"result": "done"}
    hostvars: Dict[str, Dict[str, Any]] = {
        "web1": {"fact": done},
        "web2": {},
        "web3": {"fact": {}},
        "web4": {"fact": done},
    }
    found = results.host_results(hostvars, hostvars, "fact", LOST, ["web4"])
    assert found == {"web1": done, "web2": LOST, "web3": LOST, "web4": LOST}
    assert results.host_results(["web4"], hostvars, "fact", LOST) == {"web4": done}


@pytest.mark.parametrize(
    ("answers", "died"),
    [
        ([{}, {}, {}], False),
        ([{"release": "1"}], False),
        ([{"failed": True, "msg": "refused"}], False),
        ([{"failed": True, "module_stderr": "Killed"}], True),
        ([{}, {"failed": True, "exception": "Traceback"}], True),
        ([{"failed": True, "module_stderr": "Killed", "current": None}], False),
        ([{"failed": True, "exception": "Traceback", "current": "1"}], False),
        ([{"failed": False, "module_stderr": "a warning"}], False),
        ([{"failed": True, "msg": "refused"}, {"failed": True, "module_stderr": ""}], True),
    ],
)
def test_a_module_that_died_differs_from_one_that_failed(answers: List[Dict[str, Any]], died: bool) -> None:
    assert results.module_died(answers) is died


STEP = {"module": "pg_backup", "changed": True, "failed": False, "message": "", "seconds": 1.5}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"backup": {"id": "b1", "path": "/b1"}, "removed": ["b0"]}, {"backup": "b1", "removed": ["b0"]}),
        ({"backup": {"path": "/b1"}}, {"backup": None, "removed": []}),
        ({"backup": "b1", "removed": None}, {"backup": "b1", "removed": []}),
        ({"backup": None}, {"backup": None, "removed": []}),
        ({}, {"backup": None, "removed": []}),
    ],
)
def test_the_summary_of_a_step(result: Dict[str, Any], expected: Dict[str, Any]) -> None:
    assert results.job_steps([{**STEP, "result": result}, {"skipped": True}]) == [{**STEP, **expected}]


def deployed(**different: Any) -> Dict[str, Any]:
    return {
        "result": "deployed",
        "release": None,
        "former": None,
        "version": None,
        "stage": None,
        "check_mode": False,
        **different,
    }


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (deployed(release="2", version="1.1", former="1"), "deployed  2  (version 1.1)  before: 1"),
        (deployed(release="2", former="2"), "deployed  2"),
        (deployed(result="failed", release="2", former="1", stage="build"), "failed  2  before: 1  at: build"),
        (deployed(result="unchanged", release="2", check_mode=True), "would be unchanged  2"),
        (deployed(release="2", check_mode=True), "would be deployed  2"),
        (deployed(result="failed", stage="connect", check_mode=True), "failed  at: connect"),
        (deployed(result="untouched", check_mode=True), "untouched"),
    ],
)
def test_a_line_about_a_deploy(result: Dict[str, Any], line: str) -> None:
    assert results.deploy_summary({"web1": result}) == [f"web1  {line}"]


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"result": "done"}, "done"),
        ({"result": "done", "check_mode": True}, "would be done"),
        ({"result": "unchanged", "check_mode": True}, "unchanged"),
        (LOST, "failed"),
        ({"result": "done", "backup": "b1", "downtime": 2.345}, "done  backup: b1  downtime: 2.3 s"),
        ({"result": "done", "backup": None, "downtime": None}, "done"),
        (
            {
                "result": "failed",
                "steps": [
                    {"module": "pm2_dump_backup", "failed": False, "backup": "b1"},
                    {"module": "pg_backup", "failed": True, "backup": "b2"},
                    {"module": "offsite", "failed": False, "backup": None},
                    {"name": "copy"},
                ],
            },
            "failed  pm2_dump_backup: b1  pg_backup: failed  offsite: well",
        ),
    ],
)
def test_a_line_about_a_backup(result: Dict[str, Any], line: str) -> None:
    assert results.backup_summary({"web1": result}) == [f"web1  {line}"]


@pytest.mark.parametrize(("summary", "result"), [("deploy_summary", deployed()), ("backup_summary", LOST)])
def test_the_lines_are_in_columns(summary: str, result: Dict[str, Any]) -> None:
    lines = getattr(results, summary)({"web1": result, "long-name": result})
    assert [line.split(" ")[0] for line in lines] == ["web1", "long-name"]
    assert {line.index(result["result"]) for line in lines} == {len("long-name") + 2}
    assert getattr(results, summary)({}) == []
