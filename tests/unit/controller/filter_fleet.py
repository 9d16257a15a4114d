# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets: their batches, why a fleet stops, and which host migrates."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.nodeops.pm2.plugins.filter import fleet


def host(name: str, **different: Any) -> Dict[str, Any]:
    """An entry of fleet_hosts: a healthy host in the fleet `shop`."""
    return {
        "host": name,
        "known": True,
        "fleet": "shop",
        "database": "shop",
        "migrates": False,
        "serial": [1],
        "in_play": True,
        "failed_at": "",
        "lost": False,
        "revision": "",
        "needed": False,
        "in_order": False,
        **different,
    }


def gone(name: str, **different: Any) -> Dict[str, Any]:
    return host(name, **{"in_play": False, "lost": True, **different})


ME = {
    "host": "web1",
    "fleet": "Shop",
    "database": "db",
    "on_failure": "stop",
    "migrates": True,
    "serial": ["50%"],
}


class Undefined(Dict[str, Any]):
    """The variables of a host, one of which refers to an undefined variable."""

    def get(self, key: str, default: Any = None) -> Any:
        if key == "deploy_fleet":
            raise AnsibleUndefinedVariable("'color' is undefined")
        return super().get(key, default)


@pytest.mark.parametrize(
    ("variables", "in_play", "expected"),
    [
        (
            {"__deploy_me": ME},
            True,
            host("web1", fleet="Shop", database="db", migrates=True, serial=["50%"]),
        ),
        (
            {"__deploy_me": ME, "deploy_prepared": {"revision": "abc", "needed": True, "in_order": True}},
            True,
            host(
                "web1",
                fleet="Shop",
                database="db",
                migrates=True,
                serial=["50%"],
                revision="abc",
                needed=True,
                in_order=True,
            ),
        ),
        (
            {"__deploy_me": {**ME, "migrates": False}, "deploy_prepared": {}, "__deploy_aim": {"revision": "def"}},
            True,
            host("web1", fleet="Shop", database="db", serial=["50%"], revision="def"),
        ),
        (
            {"__deploy_me": ME, "deploy_prepared": {"revision": None}, "__deploy_aim": {"revision": "def"}},
            True,
            host("web1", fleet="Shop", database="db", migrates=True, serial=["50%"]),
        ),
        (
            {"__deploy_me": ME, "__deploy_failure": {"stage": "build"}},
            False,
            host(
                "web1",
                fleet="Shop",
                database="db",
                migrates=True,
                serial=["50%"],
                in_play=False,
                failed_at="build",
            ),
        ),
        (
            {"__deploy_me": ME, "__deploy_failure": {}},
            False,
            gone("web1", fleet="Shop", database="db", migrates=True, serial=["50%"]),
        ),
        ({"deploy_fleet": "mine"}, False, gone("web1", known=False, fleet="mine", database="")),
        (
            {"deploy_app": "shop", "pm2_namespace": "live"},
            False,
            gone("web1", known=False, fleet="shop/live", database=""),
        ),
        ({}, False, gone("web1", known=False, fleet="/", database="")),
        (
            Undefined(deploy_app="shop", pm2_namespace="live"),
            False,
            gone("web1", known=False, fleet="shop/live", database=""),
        ),
    ],
)
def test_what_is_known_of_a_host(variables: Dict[str, Any], in_play: bool, expected: Dict[str, Any]) -> None:
    assert fleet.fleet_hosts(["web1"], {"web1": variables}, ["web1"] if in_play else []) == [expected]


def test_no_secret_of_a_host_is_in_its_entry() -> None:
    prepared = {"invocation": {"module_args": {"environment": {"KEY": "s3cret"}}}}
    variables = {"__deploy_me": ME, "pg_login_password": "s3cret", "deploy_prepared": prepared}
    assert "s3cret" not in str(fleet.fleet_hosts(["web1"], {"web1": variables}, ["web1"]))


def test_the_variables_of_a_host_are_looked_up_once() -> None:
    looked_up: List[str] = []

    class Counted(Dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            looked_up.append(key)
            return super().__getitem__(key)

    names = [f"web{number}" for number in range(20)]
    hostvars = Counted({name: {"__deploy_me": ME} for name in names})
    fleet.fleet_hosts(names, hostvars, names)
    assert looked_up == names


@pytest.mark.parametrize(
    ("serial", "hosts", "expected"),
    [
        ([1], 3, [0, 1, 2]),
        ([2], 5, [0, 0, 1, 1, 2]),
        (["2"], 3, [0, 0, 1]),
        ([1, 2], 5, [0, 1, 1, 2, 2]),
        ([1, "100%"], 4, [0, 1, 1, 1]),
        ([1, "50%"], 3, [0, 1, 2]),
        (["67%"], 3, [0, 0, 1]),
        (["34%"], 3, [0, 1, 2]),
        (["10%"], 3, [0, 1, 2]),
        (["0%"], 2, [0, 1]),
        ([0], 2, [0, 1]),
        ([9], 2, [0, 0]),
        (["2.9"], 3, [0, 0, 1]),
        (["many"], 2, [0, 1]),
    ],
)
def test_the_batches_of_a_fleet(serial: List[Any], hosts: int, expected: List[int]) -> None:
    members = [host(f"web{number}", serial=serial) for number in range(hosts)]
    assert list(fleet.fleet_batches(members).values()) == expected


def test_each_fleet_has_batches_of_its_own() -> None:
    hosts = [
        host("a1", fleet="a"),
        host("b1", fleet="b", serial=[2]),
        host("a2", fleet="a", serial=[9]),
        gone("b2", fleet="b"),
        host("b3", fleet="b"),
        host("B1", fleet="B"),
        gone("c1", fleet="c", known=False),
    ]
    assert fleet.fleet_batches(hosts) == {"a1": 0, "a2": 1, "b1": 0, "b3": 0, "B1": 0}


def test_the_first_reachable_host_sets_the_size_of_a_batch() -> None:
    hosts = [gone("web1", serial=[3]), host("web2", serial=[1]), host("web3", serial=[3])]
    assert fleet.fleet_batches(hosts) == {"web2": 0, "web3": 1}


def test_an_empty_serial_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"deploy_serial of web1 is an empty list.*Nothing was changed\."):
        fleet.fleet_batches([host("web1", serial=[])])


NEW, OLD = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([host("web1"), host("web2")], {}),
        ([host("web1", failed_at="build"), host("web2")], {"shop": "web1 failed at build"}),
        ([gone("web1", failed_at="build", lost=False), host("web2")], {"shop": "web1 failed at build"}),
        ([gone("web1"), host("web2")], {"shop": "web1 cannot be reached, or its variables were refused"}),
        ([gone("web1", known=False)], {"shop": "web1 cannot be reached, or its variables were refused"}),
        ([host("web1", failed_at="build"), host("web2", failed_at="prepare")], {"shop": "web2 failed at prepare"}),
        ([host("web1", failed_at="build"), host("other", fleet="Shop")], {"shop": "web1 failed at build"}),
        ([host("web1", revision=NEW), host("web2", revision=NEW)], {}),
        ([host("web1", revision=NEW), host("web2")], {}),
        ([host("web1", revision=NEW), host("other", fleet="other", revision=OLD)], {}),
        (
            [host("web1", revision=NEW), host("web2", revision=OLD), host("web3", revision=NEW)],
            {"shop": "its hosts would not run the same: web3 has 0123456789ab, web2 has fedcba987654"},
        ),
        (
            [host("web1", revision=NEW), host("web2", revision=OLD, failed_at="build")],
            {"shop": "web2 failed at build"},
        ),
    ],
)
def test_why_a_fleet_stops(hosts: List[Dict[str, Any]], expected: Dict[str, str]) -> None:
    assert fleet.stopped_fleets(hosts) == expected


@pytest.mark.parametrize(
    ("different", "stopped", "expected"),
    [
        ([{}, {}], {}, ["web0"]),
        ([{"needed": False}, {}], {}, ["web1"]),
        ([{"migrates": False}, {}], {}, ["web1"]),
        ([{}, {"database": "reports"}], {}, ["web0", "web1"]),
        ([{}, {"fleet": "other"}], {}, ["web0", "web1"]),
        ([{}, {"fleet": "other"}], {"shop": "web0 failed at build"}, ["web1"]),
        ([{"fleet": "a b", "database": "c"}, {"fleet": "a", "database": "b c"}], {}, ["web0", "web1"]),
        ([], {}, []),
    ],
)
def test_one_host_migrates_each_database(
    different: List[Dict[str, Any]], stopped: Dict[str, str], expected: List[str]
) -> None:
    hosts = [host(f"web{number}", **{"migrates": True, "needed": True, **own}) for number, own in enumerate(different)]
    assert fleet.migrating_hosts(hosts, stopped) == expected
