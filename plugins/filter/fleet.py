# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts belong together in a deploy, in which batches, and which fleets go no further."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable

Host = Dict[str, Any]
"""One entry of `fleet_hosts`. Nothing in it is a secret, so that it may become a fact."""


def fleet_hosts(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], in_play: Iterable[str]) -> List[Host]:
    """What the run knows of each host, by its facts and registered results. Each host is looked up once."""
    reached = set(in_play)
    return [_fleet_host(host, hostvars[host], host in reached) for host in hosts]


def _fleet_host(name: str, variables: Mapping[str, Any], in_play: bool) -> Host:
    me = _value(variables, "__deploy_me") or {}
    failure = _value(variables, "__deploy_failure") or {}
    prepared = _value(variables, "deploy_prepared") or {}
    aim = _value(variables, "__deploy_aim") or {}
    return {
        "host": name,
        "known": bool(me),
        "fleet": me["fleet"] if me else _fleet_by_inventory(variables),
        "database": me.get("database", ""),
        "migrates": bool(me.get("migrates")),
        "serial": me.get("serial", [1]),
        "in_play": in_play,
        "failed_at": failure.get("stage", ""),
        "lost": not in_play and not failure,
        "revision": prepared.get("revision", aim.get("revision", "")) or "",
        "needed": bool(prepared.get("needed")),
        "in_order": bool(prepared.get("in_order")),
    }


def _fleet_by_inventory(variables: Mapping[str, Any]) -> str:
    """The fleet of a host that never told it. The defaults of the role are not among its variables."""
    fleet = _value(variables, "deploy_fleet")
    if fleet is None:
        fleet = f"{_value(variables, 'deploy_app') or ''}/{_value(variables, 'pm2_namespace') or ''}"
    return str(fleet)


def _value(variables: Mapping[str, Any], name: str) -> Any:
    """A variable of a host. None if it is not set, or refers to a variable that is not defined."""
    try:
        return variables.get(name)
    except AnsibleUndefinedVariable:
        return None


def fleet_batches(hosts: Iterable[Host]) -> Dict[str, int]:
    """The number of each host's batch. The `serial` of a fleet's first host counts."""
    fleets: Dict[str, List[Host]] = {}
    for host in hosts:
        if host["known"] and host["in_play"]:
            fleets.setdefault(host["fleet"], []).append(host)
    return {name: batch for members in fleets.values() for name, batch in _batches(members)}


def _batches(members: List[Host]) -> Iterable[Tuple[str, int]]:
    serial = members[0]["serial"]
    if not serial:
        raise AnsibleFilterError(
            f"deploy_serial of {members[0]['host']} is an empty list. It has to say how many hosts of the fleet are "
            "deployed at a time. Nothing was changed."
        )
    batch, left = -1, 0
    for host in members:
        if left == 0:
            batch += 1
            left = _size(serial[min(batch, len(serial) - 1)], len(members))
        left -= 1
        yield host["host"], batch


def _size(serial: Any, hosts: int) -> int:
    """How many hosts a value such as 2 or "50%" of `serial` stands for: at least one."""
    text = str(serial)
    return max(1, int(hosts * _number(text[:-1]) / 100 if text.endswith("%") else _number(text)))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def stopped_fleets(hosts: Iterable[Host]) -> Dict[str, str]:
    """The fleets that go no further: a host has failed, is lost, or has another revision than the others."""
    hosts = list(hosts)
    stopped: Dict[str, str] = {}
    for host in hosts:
        if host["failed_at"]:
            stopped[host["fleet"]] = f"{host['host']} failed at {host['failed_at']}"
        elif not host["in_play"]:
            stopped[host["fleet"]] = f"{host['host']} cannot be reached, or its variables were refused"
    revisions: Dict[str, Dict[str, str]] = {}
    for host in hosts:
        if host["known"] and host["revision"]:
            revisions.setdefault(host["fleet"], {})[host["revision"][:12]] = host["host"]
    for fleet, found in revisions.items():
        if len(found) > 1 and fleet not in stopped:
            differing = ", ".join(f"{host} has {revision}" for revision, host in found.items())
            stopped[fleet] = f"its hosts would not run the same: {differing}"
    return stopped


def migrating_hosts(hosts: Iterable[Host], stopped: Mapping[str, str]) -> List[str]:
    """For each database of a fleet that goes on, the first host with a release that has to be migrated."""
    first: Dict[Tuple[str, str], str] = {}
    for host in hosts:
        if host["migrates"] and host["needed"] and host["fleet"] not in stopped:
            first.setdefault((host["fleet"], host["database"]), host["host"])
    return list(first.values())


class FilterModule:
    """The filters of this file."""

    def filters(self) -> Dict[str, Callable[..., Any]]:
        """By the names that a template uses."""
        return {
            "fleet_batches": fleet_batches,
            "fleet_hosts": fleet_hosts,
            "migrating_hosts": migrating_hosts,
            "stopped_fleets": stopped_fleets,
        }
