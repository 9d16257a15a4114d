# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several hosts in one run: in turn, stopped at the first bad one, behind a real HAProxy with examples/haproxy.

Core: a rolling deploy, a bad release, and hosts that would not run the same (40 s together). Full: the rest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from support import faults, haproxy, places
from support.apps import http_app
from support.fleet import Fleet
from support.haproxy import HAProxy
from support.load import Load

pytestmark = pytest.mark.timeout(900)  # seconds; many runs of ansible-playbook, and other tests beside them

NAMES = ["web1", "web2", "web3"]
EXAMPLE = places.ROOT / "examples" / "haproxy"


@pytest.fixture(scope="module", name="hosts")
def _hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three hosts with version 1 of an app, for all tests that begin with one."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    fleet.deployed()
    yield fleet
    fleet.end()


@pytest.fixture
def fleet(hosts: Fleet) -> Fleet:
    """All three run the same version, and are deployed one after the other."""
    hosts.variables = {}
    hosts.own = {name: {} for name in NAMES}
    if len({*currents(hosts)}) > 1 or len({*hosts.versions}) > 1:
        hosts.release_next()
        hosts.deployed()
    hosts.variables = {"deploy_serial": 1}
    return hosts


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Fleet]:
    """Three hosts on which nothing is deployed."""
    hosts = Fleet(tmp_path, NAMES)
    hosts.variables = {"deploy_serial": 1}
    yield hosts
    hosts.end()


@pytest.fixture
def balancer(fleet: Fleet, tmp_path: Path) -> Iterator[HAProxy]:
    """HAProxy before the three hosts, and the hooks of the example."""
    if not haproxy.program():
        pytest.skip("HAProxy is missing, and it takes root and apt-get to install it")
    with HAProxy(tmp_path / "lb", {name: host.port for name, host in fleet.hosts.items()}) as running:
        fleet.variables.update(
            deploy_hooks={name: str(EXAMPLE / f"{name}.yml") for name in ("drain", "undrain")},
            haproxy_host="localhost",
            haproxy_socket=running.socket,
            haproxy_backend=haproxy.BACKEND,
            haproxy_python=sys.executable,
        )
        running.wait_for(*NAMES)
        yield running


def bad_for(fleet: Fleet, name: str) -> Dict[str, Any]:
    """Variables with which every new release is bad on this host only: its health has to be one it never has."""
    url = f"http://127.0.0.1:{fleet[name].port}/health"
    return {"deploy_ready": {"timeout": 3, "min_uptime": 0.3, "http": [{"url": url, "status": [418]}]}}


def pids(fleet: Fleet) -> List[List[int]]:
    """The pids of each host."""
    return [host.pids for host in fleet.hosts.values()]


def currents(fleet: Fleet) -> List[str]:
    """What `current` names on each host."""
    return [host.current for host in fleet.hosts.values()]


def test_a_rolling_deploy_of_a_fork_app_loses_no_request(fleet: Fleet, balancer: HAProxy) -> None:
    before = pids(fleet)
    version = fleet.release_next()
    with Load(balancer.port, clients=2, pause=0.04) as load:
        run = fleet.deployed()
    assert load.failed == 0, load.errors
    assert load.ok > 100
    assert run.outcome == dict.fromkeys(NAMES, "deployed")
    assert fleet.versions == [version] * 3
    assert len(set(currents(fleet))) == 1  # one release id for all hosts of a run
    assert all(old != new for old, new in zip(before, pids(fleet), strict=True))
    balancer.wait_for(*NAMES)

    # The same again moves nothing, and takes no host out of the load balancer.
    now = pids(fleet)
    run = fleet.deployed()
    assert run.outcome == dict.fromkeys(NAMES, "unchanged")
    assert "Take the host out of HAProxy" not in run.output
    assert pids(fleet) == now


@pytest.mark.full
def test_a_rolling_rollback_loses_no_request(fleet: Fleet, balancer: HAProxy) -> None:
    was = fleet.versions
    fleet.release_next()
    fleet.deployed()
    with Load(balancer.port, clients=2, pause=0.04) as load:
        run = fleet.run("rollback")
    assert run.code == 0, run.output
    assert load.failed == 0, load.errors
    assert run.outcome == dict.fromkeys(NAMES, "rolled_back")
    assert fleet.versions == was
    balancer.wait_for(*NAMES)


@pytest.mark.full
def test_haproxy_does_not_hide_that_requests_are_lost_without_the_hooks(fleet: Fleet, balancer: HAProxy) -> None:
    del fleet.variables["deploy_hooks"]
    fleet.release_next()
    with Load(balancer.port, clients=2, pause=0.04) as load:
        fleet.deployed()
    assert load.failed > 0


def test_a_bad_release_stops_at_the_first_host(fleet: Fleet, balancer: HAProxy) -> None:
    before, live, was = pids(fleet), currents(fleet), fleet.versions
    releases = [host.releases for host in fleet.hosts.values()]
    fleet.release_next(crash="boot")
    with Load(balancer.port, clients=2, pause=0.04) as load:
        run = fleet.failed()
    assert load.failed == 0, load.errors
    assert fleet.versions == was
    assert pids(fleet)[1:] == before[1:]  # they were not touched
    assert currents(fleet) == live
    assert run.outcome == {"web1": "failed", "web2": "untouched", "web3": "untouched"}
    assert "crash at boot of version" in run.messages["web1"]
    assert "web1 failed at" in run.messages["web2"]
    assert {result["current"] for result in run.results.values()} == set(live)
    assert [host.releases for host in fleet.hosts.values()][1:] == releases[1:]
    assert [host.history[-1]["result"] for host in fleet.hosts.values()] == ["failed"] * 3
    balancer.wait_for(*NAMES)
    for host in fleet.hosts.values():
        faults.check_left(host.root, host.pm2)


@pytest.mark.full
def test_the_fleet_goes_back_when_asked_to(fleet: Fleet, balancer: HAProxy) -> None:
    live, was = currents(fleet), fleet.versions
    fleet.own["web2"] = bad_for(fleet, "web2")
    fleet.variables["deploy_on_failure"] = "rollback"
    fleet.release_next()
    with Load(balancer.port, clients=2, pause=0.04) as load:
        run = fleet.failed()
    assert load.failed == 0, load.errors
    assert run.outcome == {"web1": "rolled_back", "web2": "failed", "web3": "untouched"}
    assert "web2 failed at" in run.messages["web1"]
    assert fleet.versions == was
    assert currents(fleet) == live
    balancer.wait_for(*NAMES)


@pytest.mark.full
def test_the_last_server_is_not_drained(fleet: Fleet, balancer: HAProxy) -> None:
    before, was = fleet["web1"].pids, fleet.versions
    for name in ("web2", "web3"):
        fleet[name].pm2.cli("stop", "api")
    try:
        balancer.wait_for("web1")
        fleet.release_next()
        run = fleet.failed("--limit", "web1")
        assert "none would answer" in run.messages["web1"]
        assert fleet["web1"].pids == before
        assert fleet["web1"].version == was[0]
        assert balancer.up() == ["web1"]
    finally:
        for name in ("web2", "web3"):
            fleet[name].pm2.cli("start", "api")
        balancer.wait_for(*NAMES)


@pytest.mark.full
def test_those_done_stay_on_the_new_release_otherwise(fleet: Fleet) -> None:
    was = fleet.versions
    fleet.own["web2"] = bad_for(fleet, "web2")
    version = fleet.release_next()
    run = fleet.failed()
    assert run.outcome == {"web1": "deployed", "web2": "failed", "web3": "untouched"}
    assert fleet.versions == [version, *was[1:]]
    assert "web1" not in run.messages

    # Without a word where to, a fleet that does not run the same is not rolled back.
    run = fleet.failed(playbook="rollback")
    assert fleet.versions == [version, *was[1:]]
    assert "rollback_to" in run.messages["web1"]
    run = fleet.run("rollback", "--limit", "web1")
    assert run.code == 0, run.output
    assert fleet.versions == was


@pytest.mark.full
def test_a_host_that_cannot_be_reached_stops_its_fleet_and_no_other(fleet: Fleet) -> None:
    was = fleet.versions
    fleet.own["web2"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    fleet.own["web3"] = {"deploy_fleet": "another"}
    version = fleet.release_next()
    run = fleet.run("deploy")
    assert run.code == 4, run.output
    assert run.outcome == {"web1": "untouched", "web2": "failed", "web3": "deployed"}
    assert fleet.versions == [*was[:2], version]

    fleet.own["web2"] = {"deploy_keep": "many"}  # its variables are refused
    run = fleet.failed()
    assert run.outcome == {"web1": "untouched", "web2": "failed", "web3": "unchanged"}
    assert fleet.versions == [*was[:2], version]

    fleet.own["web2"] = {}
    fleet.deployed()
    assert fleet.versions == [version] * 3


def test_hosts_that_would_not_run_the_same_are_refused(empty: Fleet) -> None:
    other = empty.directory / "other"
    http_app(other, "of another source")
    empty.own["web3"] = {"deploy_source": str(other)}
    run = empty.failed()
    assert run.outcome == dict.fromkeys(NAMES, "untouched")
    assert "would not run the same" in run.messages["web1"]
    assert [host.releases for host in empty.hosts.values()] == [[]] * 3
    assert [host.pm2.daemon_pids() for host in empty.hosts.values()] == [[]] * 3


@pytest.mark.full
def test_a_migration_runs_once_for_each_database(fleet: Fleet) -> None:
    log = fleet.directory / "migrations.log"
    command = ["node", "-e", f"require('fs').appendFileSync({json.dumps(str(log))}, process.cwd() + '\\n')"]
    fleet.variables["deploy_migrate"] = [command]
    fleet.own["web3"] = {"deploy_database": "of-its-own"}
    fleet.release_next()
    fleet.deployed()
    places_ = log.read_text().splitlines()
    assert sorted(Path(place).parents[2].name for place in places_) == ["web1", "web3"]
    log.unlink()
    fleet.deployed()  # the version runs: nothing to migrate
    assert not log.exists()

    before, live = pids(fleet), currents(fleet)
    releases = [host.releases for host in fleet.hosts.values()]
    fleet.own["web3"] = {"deploy_migrate": [["node", "-e", "console.error('column exists'); process.exit(1)"]]}
    fleet.own["web3"]["deploy_database"] = "of-its-own"
    fleet.release_next()
    run = fleet.failed()
    assert run.outcome == {"web1": "untouched", "web2": "untouched", "web3": "failed"}
    assert "column exists" in run.messages["web3"]
    assert (pids(fleet), currents(fleet)) == (before, live)
    assert [host.releases for host in fleet.hosts.values()] == releases


@pytest.mark.full
def test_batches(empty: Fleet) -> None:
    """How many at a time: the processes of one batch start before those of the next."""
    empty.variables["deploy_serial"] = [1, "50%"]
    empty.release_next(crash="boot")
    run = empty.failed()
    assert run.outcome == {"web1": "failed", "web2": "untouched", "web3": "untouched"}
    empty.variables["deploy_serial"] = "67%"
    run = empty.failed()
    assert run.outcome == {"web1": "failed", "web2": "failed", "web3": "untouched"}


@pytest.mark.full
def test_nobody(empty: Fleet) -> None:
    for playbook in ("deploy", "rollback"):
        run = empty.run(playbook, "-e", "deploy_hosts=nobody")
        assert run.code != 0
        assert "No host matches nobody" in run.output
        run = empty.run(playbook, "--limit", "web1", "-e", "deploy_hosts=web2")
        assert run.code != 0
        assert "No host matches web2" in run.output


@pytest.mark.full
def test_check_mode_on_empty_hosts(empty: Fleet) -> None:
    before = set(empty.directory.rglob("*"))
    run = empty.deployed("--check", "--diff")
    assert run.outcome == dict.fromkeys(NAMES, "deployed")
    assert {result["check_mode"] for result in run.results.values()} == {True}
    assert "web1  would be deployed" in run.output
    assert set(empty.directory.rglob("*")) - before == {empty.directory / "inventory.json"}
    run = empty.failed("--check", playbook="rollback")
    assert run.outcome == dict.fromkeys(NAMES, "failed")
