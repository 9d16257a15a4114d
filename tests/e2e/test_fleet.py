# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several hosts in one run: in turn, stopped at the first bad one, behind a real HAProxy with examples/haproxy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from support import haproxy, places
from support.apps import http_app
from support.fleet import Fleet
from support.haproxy import HAProxy
from support.load import Load

pytestmark = pytest.mark.timeout(900)  # seconds; many runs of ansible-playbook, and other tests beside them

NAMES = ["web1", "web2", "web3"]
EXAMPLE = places.ROOT / "examples" / "haproxy"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Three hosts, one after the other; nothing is deployed."""
    hosts = Fleet(tmp_path, NAMES)
    hosts.variables = {"deploy_serial": 1}
    yield hosts
    hosts.end()


@pytest.fixture
def balancer(fleet: Fleet) -> Iterator[HAProxy]:
    """HAProxy before the three hosts, with version 1 on all of them, and the hooks of the example."""
    if not haproxy.program():
        pytest.skip("HAProxy is missing, and it takes root and apt-get to install it")
    fleet.deployed()
    with HAProxy(fleet.directory / "lb", {name: host.port for name, host in fleet.hosts.items()}) as running:
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
    fleet.release("2")
    with Load(balancer.port) as load:
        run = fleet.deployed()
    assert load.failed == 0, load.errors
    assert load.ok > 100
    assert run.outcome == dict.fromkeys(NAMES, "deployed")
    assert fleet.versions == ["2"] * 3
    assert len(set(currents(fleet))) == 1  # one release id for all hosts of a run
    assert all(old != new for old, new in zip(before, pids(fleet), strict=True))
    balancer.wait_for(*NAMES)

    # The same again moves nothing, and takes no host out of the load balancer.
    now = pids(fleet)
    run = fleet.deployed()
    assert run.outcome == dict.fromkeys(NAMES, "unchanged")
    assert "Take the host out of HAProxy" not in run.output
    assert pids(fleet) == now

    with Load(balancer.port) as load:
        run = fleet.run("rollback")
    assert run.code == 0, run.output
    assert load.failed == 0, load.errors
    assert run.outcome == dict.fromkeys(NAMES, "rolled_back")
    assert fleet.versions == ["1"] * 3
    balancer.wait_for(*NAMES)

    # HAProxy does not hide it: without the hooks requests are lost.
    del fleet.variables["deploy_hooks"]
    fleet.release("3")
    with Load(balancer.port) as load:
        fleet.deployed()
    assert load.failed > 0


def test_a_bad_release_stops_at_the_first_host(fleet: Fleet, balancer: HAProxy) -> None:
    before, live = pids(fleet), currents(fleet)
    fleet.release("2", health=500)
    with Load(balancer.port) as load:
        run = fleet.failed()
    assert load.failed == 0, load.errors
    assert fleet.versions == ["1"] * 3
    assert pids(fleet)[1:] == before[1:]  # they were not touched
    assert currents(fleet) == live
    assert run.outcome == {"web1": "failed", "web2": "untouched", "web3": "untouched"}
    assert "answered 500" in run.messages["web1"]
    assert "web1 failed at" in run.messages["web2"]
    assert {result["current"] for result in run.results.values()} == set(live)
    assert [host.releases for host in list(fleet.hosts.values())[1:]] == [[live[0]]] * 2
    assert [host.history[-1]["result"] for host in fleet.hosts.values()] == ["failed"] * 3
    balancer.wait_for(*NAMES)

    fleet.release("3")  # no lock is left
    assert fleet.deployed().outcome == dict.fromkeys(NAMES, "deployed")
    assert fleet.versions == ["3"] * 3


def test_the_fleet_goes_back_when_asked_to(fleet: Fleet, balancer: HAProxy) -> None:
    live = currents(fleet)
    fleet.own["web2"] = bad_for(fleet, "web2")
    fleet.variables["deploy_on_failure"] = "rollback"
    fleet.release("2")
    with Load(balancer.port) as load:
        run = fleet.failed()
    assert load.failed == 0, load.errors
    assert run.outcome == {"web1": "rolled_back", "web2": "failed", "web3": "untouched"}
    assert "web2 failed at" in run.messages["web1"]
    assert fleet.versions == ["1"] * 3
    assert currents(fleet) == live
    balancer.wait_for(*NAMES)


def test_the_last_server_is_not_drained(fleet: Fleet, balancer: HAProxy) -> None:
    for name in ("web2", "web3"):
        fleet[name].pm2.cli("stop", "api")
    balancer.wait_for("web1")
    before = fleet["web1"].pids
    fleet.release("2")
    run = fleet.failed("--limit", "web1")
    assert "nobody would answer" in run.messages["web1"]
    assert fleet["web1"].pids == before
    assert fleet["web1"].version == "1"
    assert balancer.up() == ["web1"]


def test_those_done_stay_on_the_new_release_otherwise(fleet: Fleet) -> None:
    fleet.deployed()
    fleet.own["web2"] = bad_for(fleet, "web2")
    fleet.release("2")
    run = fleet.failed()
    assert run.outcome == {"web1": "deployed", "web2": "failed", "web3": "untouched"}
    assert fleet.versions == ["2", "1", "1"]
    assert "web1" not in run.messages

    # Without a word where to, a fleet that does not run the same is not rolled back: web2 has nothing before version 1.
    run = fleet.failed(playbook="rollback")
    assert fleet.versions == ["2", "1", "1"]
    assert "rollback_to" in run.messages["web1"]
    run = fleet.run("rollback", "--limit", "web1")
    assert run.code == 0, run.output
    assert fleet.versions == ["1"] * 3


def test_a_host_that_cannot_be_reached_stops_its_fleet_and_no_other(fleet: Fleet) -> None:
    fleet.deployed()
    fleet.own["web2"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    fleet.own["web3"] = {"deploy_fleet": "another"}
    fleet.release("2")
    run = fleet.run("deploy")
    assert run.code == 4, run.output
    assert run.outcome == {"web1": "untouched", "web2": "failed", "web3": "deployed"}
    assert fleet.versions == ["1", "1", "2"]

    fleet.own["web2"] = {"deploy_keep": "many"}  # its variables are refused
    run = fleet.failed()
    assert run.outcome == {"web1": "untouched", "web2": "failed", "web3": "unchanged"}
    assert fleet.versions == ["1", "1", "2"]

    fleet.own["web2"] = {}
    fleet.deployed()
    assert fleet.versions == ["2"] * 3


def test_hosts_that_would_not_run_the_same_are_refused(fleet: Fleet) -> None:
    fleet.deployed()
    before = pids(fleet)
    fleet.release("2")
    other = fleet.directory / "other"
    http_app(other, "3")
    fleet.own["web3"] = {"deploy_source": str(other)}
    run = fleet.failed()
    assert run.outcome == dict.fromkeys(NAMES, "untouched")
    assert "would not run the same" in run.messages["web1"]
    assert pids(fleet) == before
    assert {len(host.releases) for host in fleet.hosts.values()} == {1}


def test_a_migration_runs_once_for_each_database(fleet: Fleet) -> None:
    log = fleet.directory / "migrations.log"
    command = ["node", "-e", f"require('fs').appendFileSync({json.dumps(str(log))}, process.cwd() + '\\n')"]
    fleet.variables["deploy_migrate"] = [command]
    fleet.own["web3"] = {"deploy_database": "of-its-own"}
    fleet.deployed()
    places_ = log.read_text().splitlines()
    assert sorted(Path(place).parents[2].name for place in places_) == ["web1", "web3"]
    log.unlink()
    fleet.deployed()  # the version runs: nothing to migrate
    assert not log.exists()

    before, live = pids(fleet), currents(fleet)
    fleet.own["web3"] = {"deploy_migrate": [["node", "-e", "console.error('column exists'); process.exit(1)"]]}
    fleet.own["web3"]["deploy_database"] = "of-its-own"
    fleet.release("2")
    run = fleet.failed()
    assert run.outcome == {"web1": "untouched", "web2": "untouched", "web3": "failed"}
    assert "column exists" in run.messages["web3"]
    assert (pids(fleet), currents(fleet)) == (before, live)
    assert {len(host.releases) for host in fleet.hosts.values()} == {1}


def test_batches(fleet: Fleet) -> None:
    """How many at a time: the processes of one batch start before those of the next."""
    fleet.variables["deploy_serial"] = [1, "50%"]
    fleet.release("1", health=500)
    run = fleet.failed()
    assert run.outcome == {"web1": "failed", "web2": "untouched", "web3": "untouched"}
    fleet.variables["deploy_serial"] = "67%"
    run = fleet.failed()
    assert run.outcome == {"web1": "failed", "web2": "failed", "web3": "untouched"}


def test_nobody(fleet: Fleet) -> None:
    for playbook in ("deploy", "rollback"):
        run = fleet.run(playbook, "-e", "deploy_hosts=nobody")
        assert run.code != 0
        assert "No host matches nobody" in run.output
        run = fleet.run(playbook, "--limit", "web1", "-e", "deploy_hosts=web2")
        assert run.code != 0
        assert "No host matches web2" in run.output


def test_check_mode_on_empty_hosts(fleet: Fleet) -> None:
    before = set(fleet.directory.rglob("*"))
    run = fleet.deployed("--check", "--diff")
    assert run.outcome == dict.fromkeys(NAMES, "deployed")
    assert {result["check_mode"] for result in run.results.values()} == {True}
    assert "web1  would be deployed" in run.output
    assert set(fleet.directory.rglob("*")) - before == {fleet.directory / "inventory.json"}
    run = fleet.failed("--check", playbook="rollback")
    assert run.outcome == dict.fromkeys(NAMES, "failed")
