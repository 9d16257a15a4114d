# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of a play: of each host, of each step of a job, and in lines that people read."""

from __future__ import annotations

from numbers import Number
from typing import Any, Callable, Dict, Iterable, List, Mapping

Result = Mapping[str, Any]


def host_results(
    hosts: Iterable[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    fact: str,
    lost: Result,
    without: Iterable[str] = (),
) -> Dict[str, Result]:
    """The result that each host has noted as a fact. A host that has none, or is in `without`, gets `lost`."""
    ignored = set(without)
    return {host: lost if host in ignored else hostvars[host].get(fact) or lost for host in hosts}


def module_died(results: Iterable[Result]) -> bool:
    """Whether a module was killed or has crashed.

    A module that fails by itself tells what `current` names. One that is refused for its options begins nothing, and
    has neither an exception nor anything on its standard error.
    """
    silent = [result for result in results if result.get("failed") and "current" not in result]
    return any("module_stderr" in result or "exception" in result for result in silent)


def job_steps(steps: Iterable[Result]) -> List[Dict[str, Any]]:
    """Each step of a job in short."""
    return [_job_step(step) for step in steps if "module" in step]


def _job_step(step: Result) -> Dict[str, Any]:
    result = step.get("result") or {}
    backup = result.get("backup") or {}
    return {
        **{name: step[name] for name in ("module", "changed", "failed", "message", "seconds")},
        "backup": backup.get("id") if isinstance(backup, Mapping) else backup,
        "removed": result.get("removed") or [],
    }


def deploy_summary(results: Mapping[str, Result]) -> List[str]:
    """A line for each host about its deploy or rollback."""
    return _lines({host: _deploy_words(result) for host, result in results.items()})


def _deploy_words(result: Result) -> List[str]:
    words = [_outcome(result, result["result"] not in ("failed", "untouched"))]
    if result["release"]:
        words.append(result["release"])
    if result["version"]:
        words.append(f"(version {result['version']})")
    if result["former"] and result["former"] != result["release"]:
        words.append(f"before: {result['former']}")
    if result["stage"]:
        words.append(f"at: {result['stage']}")
    return words


def backup_summary(results: Mapping[str, Result]) -> List[str]:
    """A line for each host about its backup, drill, restore or recovery."""
    return _lines({host: _backup_words(result) for host, result in results.items()})


def _backup_words(result: Result) -> List[str]:
    words = [_outcome(result, result["result"] == "done")]
    for step in result.get("steps") or []:
        if "module" in step:
            words.append(f"{step['module']}: {'failed' if step['failed'] else step.get('backup') or 'well'}")
    if result.get("backup"):
        words.append(f"backup: {result['backup']}")
    downtime = result.get("downtime")
    if isinstance(downtime, Number):
        words.append(f"downtime: {downtime:.1f} s")
    return words


def _outcome(result: Result, changes: bool) -> str:
    return f"would be {result['result']}" if changes and result.get("check_mode") else str(result["result"])


def _lines(words: Mapping[str, List[str]]) -> List[str]:
    width = max(map(len, words), default=0)
    return ["  ".join([host.ljust(width), *said]) for host, said in words.items()]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> Dict[str, Callable[..., Any]]:
        """By the names that a template uses."""
        return {
            "backup_summary": backup_summary,
            "deploy_summary": deploy_summary,
            "host_results": host_results,
            "job_steps": job_steps,
            "module_died": module_died,
        }
