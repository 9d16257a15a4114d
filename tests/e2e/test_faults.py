# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong in a deploy: what it says then, and that everything else is as it was.

Core: a fault of each kind (build, migration, gate, source: 35 s, of which 10 are the gate's). Full: all of them, disks,
two deploys at once, and what is removed by hand; 6 minutes.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple

import pytest
from support import faults, playbooks, processes, tiers
from support.apps import free_port
from support.faults import Before, Expected, Faulty, World

pytestmark = pytest.mark.timeout(900)  # seconds; a run of ansible-playbook for each, and other tests beside them

DIRECT = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "")

Variables = Dict[str, Any]


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One site and one neighbour for all; at the end, after all that has failed, a deploy works."""
    directory = tmp_path_factory.mktemp("faults")
    yield from faults.world(directory)


@pytest.fixture(name="site")
def _site(world: World) -> Iterator[Faulty]:
    """The site, with the source of a version that was never deployed, and nothing broken."""
    site = world[0]
    shutil.rmtree(site.source)
    site.renew()
    yield site
    if not (site.root() / "current" / faults.MANIFEST).exists():  # a test has failed half-way
        site.renew()
        site.deployed()


@pytest.fixture(name="before")
def _before(world: World, site: Faulty) -> Before:
    return Before(*world)


class Case(NamedTuple):
    """A fault. `cause` spoils the source, and gives the variables of the run."""

    name: str
    cause: Callable[[Faulty], Variables]
    expected: Expected


def health(site: Faulty, **check: Any) -> Variables:
    """The usual gate with another check, and the seconds it takes to give up."""
    url = f"http://127.0.0.1:{site.ports['production']}/health"
    return {"deploy_ready": {"timeout": 10, "min_uptime": 0.3, "http": [{"url": url, **check}]}}


def patch(site: Faulty, old: str, new: str) -> None:
    """Change the program of the new version."""
    path = site.source / "app.js"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# -- build and migration


def build_fails(_site: Faulty) -> Variables:
    return {"deploy_build": [["node", "-e", "console.error('type error in checkout.ts'); process.exit(3)"]]}


def npm_is_missing(site: Faulty) -> Variables:
    """A PATH with node on it and nothing else."""
    (site.source / "package.json").write_text('{"name": "shop", "version": "1.0.0"}')
    (site.source / "package-lock.json").write_text('{"lockfileVersion": 3}')
    tools = site.directory / "tools"
    tools.mkdir(exist_ok=True)
    if not (tools / "node").exists():
        (tools / "node").symlink_to(shutil.which("node") or "")
    commands = [["npm", "ci", "--omit=dev"]]
    files = ["package.json", "package-lock.json"]
    item = {"path": "node_modules", "files": files, "runtime": ["node", "--version"], "commands": commands}
    return {"deploy_dependencies": [item], "deploy_build_environment": {"PATH": str(tools)}}


def migration_fails(_site: Faulty) -> Variables:
    said = "console.log('add column'); console.error('column exists already'); process.exit(4)"
    return {"deploy_migrate": [["node", "--version"], ["node", "-e", said]]}


# -- the gate


def answers_500(site: Faulty) -> Variables:
    site.renew(health=500)
    return health(site)


def hangs(site: Faulty) -> Variables:
    patch(site, "const answer =", "if (request.url === '/health') return;\n  const answer =")
    return health(site, timeout=0.5)


def refuses(site: Faulty) -> Variables:
    """It is to move to another port, and does not listen there."""
    site.renew(listen=False)
    port = free_port()
    processes = site.describe("production")["deploy_processes"]
    processes[0]["env"]["PORT"] = str(port)
    return {**health(site, url=f"http://127.0.0.1:{port}/health"), "deploy_processes": processes}


def wrong_json(site: Faulty) -> Variables:
    patch(site, "status: settings.health === 200 ? 'ok' : 'failing'", "status: 'ok', database: 'down'")
    return health(site, expect="status == 'ok' && database == 'up'")


def crashes_later(site: Faulty) -> Variables:
    site.renew(crash=5)
    return {"deploy_ready": {**site.describe("production")["deploy_ready"], "min_uptime": 30, "timeout": 60}}


def log_directory(site: Faulty) -> Variables:
    """A file is where the directory should be: this stops root too."""
    blocked = site.directory / "blocked"
    blocked.write_text("")
    processes = site.describe("production")["deploy_processes"]
    processes[1]["error_file"] = str(blocked / "logs" / "worker.log")
    return {"deploy_processes": processes}


# -- the source


def closed_port(_site: Faulty) -> Variables:
    return {"deploy_source_type": "git", "deploy_source": f"http://127.0.0.1:{free_port()}/shop.git"}


def archive(
    site: Faulty,
    spoil: Callable[[bytes], bytes] = bytes,
    sha256: str = "",
    more: Mapping[str, str] = MappingProxyType({}),
) -> Variables:
    """An archive of the source with `more` files in it, spoiled; its own SHA-256 unless another is given."""
    path = site.directory / "shop.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(site.source, ".")
        noise = os.urandom(50000)
        for name, content in {"noise": noise, **{name: text.encode() for name, text in more.items()}}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(spoil(path.read_bytes()))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"deploy_source_type": "archive", "deploy_source": str(path), "deploy_source_sha256": sha256 or found}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def archive_is_cut(site: Faulty) -> Variables:
    return archive(site, cut)


def wrong_checksum(site: Faulty) -> Variables:
    return archive(site, sha256="1" * 64)


def leads_out(site: Faulty) -> Variables:
    return archive(site, more={"../../../escaped": "outside"})


# -- what stands in the way


def current_is_a_directory(site: Faulty) -> Variables:
    current = site.root() / "current"
    release = current.resolve()
    current.unlink()
    shutil.copytree(release, current)
    return {}


CASES: List[Case] = [
    Case(
        "the build fails",
        build_fails,
        Expected("build", ["Build failed: node -e", "it ended with exit code 3", "type error in checkout.ts"]),
    ),
    Case(
        "npm is missing",
        npm_is_missing,
        Expected("build", ["npm ci --omit=dev", "npm was not found on the PATH {tools}", "Install it there"]),
    ),
    Case(
        "the migration fails",
        migration_fails,
        Expected("migrate", ["Migrate failed: node -e", "it ended with exit code 4", "column exists already"]),
    ),
    Case(
        "the health check answers 500",
        answers_500,
        Expected(
            "publish",
            ["http check http://127.0.0.1:{port}/health answered 500, expected 200", "within 10 s"],
            is_bad=True,
        ),
    ),
    Case(
        "the health check hangs",
        hangs,
        Expected("publish", ["http check http://127.0.0.1:{port}/health did not answer within 0.5 s"], is_bad=True),
    ),
    Case(
        "the health check is refused",
        refuses,
        Expected(
            "publish",
            ["/health cannot be reached (Connection refused) within 10 s"],
            makes_room=["worker"],
            is_bad=True,
        ),
    ),
    Case(
        "the health check answers the wrong JSON",
        wrong_json,
        Expected(
            "publish",
            ["answered, but \"status == 'ok' && database == 'up'\" is not true of the answer", "down"],
            is_bad=True,
        ),
    ),
    Case(
        "the application crashes after five seconds",
        crashes_later,
        Expected("publish", ["api (instance", "exited", "crash of version v"], is_bad=True),
    ),
    Case(
        "the log directory cannot be made",
        log_directory,
        Expected("publish", ["The log directory {directory}/blocked/logs cannot be made", "Not a directory"]),
    ),
    Case(
        "the git host has a closed port",
        closed_port,
        Expected(
            "prepare", ["The repository {source} cannot be read: its host cannot be reached", "Nothing was deployed"]
        ),
    ),
    Case(
        "the archive is cut",
        archive_is_cut,
        Expected("prepare", ["The archive {source} is cut or damaged", "Nothing was deployed"]),
    ),
    Case(
        "the archive has another checksum",
        wrong_checksum,
        Expected(
            "prepare", ["The archive {source} has the SHA-256 ", "not {sha256}", "another file, or was cut or changed"]
        ),
    ),
    Case(
        "the archive leads out",
        leads_out,
        Expected("prepare", ["The archive {source} is refused", "'../../../escaped'", "Make the archive without it"]),
    ),
]


CORE = ["the build fails", "the migration fails", "the health check answers 500", "the archive has another checksum"]


@pytest.mark.parametrize("name", tiers.full_but(CORE, [case.name for case in CASES]))
def test_a_fault_leaves_the_old_release_serving(name: str, site: Faulty, before: Before) -> None:
    (case,) = [case for case in CASES if case.name == name]
    variables = case.cause(site)
    site.write_inventory(**variables)
    run = site.deploy(environment=DIRECT)
    facts = {
        "source": variables.get("deploy_source"),
        "sha256": variables.get("deploy_source_sha256"),
        "port": site.ports["production"],
        "directory": site.directory,
        "tools": site.directory / "tools",
    }
    words = [word if "'" in word else word.format(**facts) for word in case.expected.words]
    before.check(run, case.expected._replace(words=words))
    assert not list(site.directory.rglob("escaped"))


@pytest.mark.full
def test_disks_that_are_full_or_cannot_be_written(tmp_path: Path) -> None:
    """The disks are ours, see faults_of_disks.py."""
    try:
        printed = faults.run_in_own_mounts(Path(__file__).with_name("faults_of_disks.py"), tmp_path / "mounts")
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    assert printed is None, printed


# -- two at once, and what is done by hand


@pytest.mark.full
def test_two_deploys_of_one_environment_at_once(site: Faulty, before: Before) -> None:
    """The second is refused and told by whom; a rollback may wait. The first knows nothing of them."""
    go, begun_file = site.directory / "go", site.directory / "begun"
    go.unlink(missing_ok=True)
    begun_file.unlink(missing_ok=True)
    wait = f"require('fs').writeFileSync({str(begun_file)!r}, '');"
    wait += f"const t = setInterval(() => require('fs').existsSync({str(go)!r}) && clearInterval(t), 20)"
    site.write_inventory(deploy_build=[["node", "-e", wait]])
    first = playbooks.start("deploy", site.inventory)
    deadline = time.monotonic() + 120
    while not begun_file.exists():
        assert time.monotonic() < deadline, "the first deploy does not come to its build"
        time.sleep(0.05)
    second = site.deploy("-e", "deploy_force=true")
    try:
        owner = json.loads((site.root() / ".nodeops" / "deploy.lock").read_bytes())
        assert owner["pid"] == first.pid
        assert second.code == 2, second.output
        where = f"{getpass.getuser()} ({socket.gethostname()}, pid {first.pid})"
        for word in ("app in namespace production is locked: a deploy", where, owner["since"], owner["run"]):
            assert word in second.message
        assert "Nothing was changed. Wait until that run ends, or set lock_timeout" in second.message
        assert "deploy_lock_timeout" in second.message
        assert f"current still names {before.release}" in second.message
        assert second.results["production"]["stage"] == "prepare"
        before.check_processes()
        third = playbooks.start("rollback", site.inventory, "-e", "deploy_lock_timeout=300")
        assert third.stdout
        assert any("Bring the processes and current to the earlier release" in line for line in third.stdout)
        deadline = time.monotonic() + 120
        while not any("AnsiballZ_pm2_release" in processes.cmdline(pid) for pid in processes.descendants(third.pid)):
            assert third.poll() is None, "the rollback has not waited"
            assert time.monotonic() < deadline, "the rollback does not come to its module"
            time.sleep(0.05)
    finally:
        go.write_text("")
        done = playbooks.finish(first)
    assert done.code == 0, done.output
    back = playbooks.finish(third)
    assert back.code == 0, back.output
    assert site.current().name == before.release
    assert faults.served(site) == before.version
    told = [(line["result"], line["run"]) for line in faults.history(site.root())]
    assert told[-2] == ("deployed", owner["run"])
    assert told[-1][0] == "rolled back"
    before.check_left()


@pytest.mark.full
def test_the_live_release_was_removed_by_hand(site: Faulty, before: Before, world: World) -> None:
    """What runs goes on; a bad release changes nothing of that, a good one mends it."""
    shutil.rmtree(site.root() / "releases" / before.release)
    site.renew(health=500)
    site.write_inventory(**health(site))
    run = site.refused()
    assert "answered 500, expected 200" in run.message
    assert f"current still names {before.release}." in run.message
    before.check_processes()
    before.check_left()
    site.renew()
    site.deployed()
    assert site.served() == {site.version}
    Before(*world).check_processes()
    before.check_left()


@pytest.mark.full
def test_the_release_to_go_back_to_was_removed_by_hand(site: Faulty, world: World) -> None:
    for name in site.releases():
        if name != site.current().name:
            shutil.rmtree(site.root() / "releases" / name)
    former = site.current().name
    site.deployed()
    shutil.rmtree(site.root() / "releases" / former)
    before = Before(*world)
    there = f"There are: {before.release} (version "
    words = ["There is no earlier good release to go back to. Nothing was changed.", there]
    before.check(site.play("rollback"), Expected("rollback", words), "rollback")
    before = Before(*world)
    words = [f"There is no release '{former}' to go back to: no release has this id", "Nothing was changed.", there]
    before.check(site.play("rollback", "-e", f"rollback_to={former}"), Expected("rollback", words), "rollback")


@pytest.mark.full
def test_the_release_to_go_back_to_is_not_whole(site: Faulty, world: World) -> None:
    former = site.current().name
    site.deployed()
    (site.root() / "releases" / former / "app.js").unlink()
    before = Before(*world)
    words = [f"{site.root()}/releases/{former}/app.js", "nothing was changed"]
    before.check(site.play("rollback"), Expected("rollback", words), "rollback")


@pytest.mark.full
@pytest.mark.parametrize(("playbook", "kind"), [("deploy", "directory"), ("rollback", "file")])
def test_current_was_replaced(site: Faulty, before: Before, playbook: str, kind: str) -> None:
    current = site.root() / "current"
    if kind == "directory":
        current_is_a_directory(site)
    else:
        current.unlink()
        current.write_text("by hand")
    seen = sorted(map(str, site.root().rglob("*")))
    try:
        run = site.play(playbook)
        assert run.code == 2, run.output
        for word in (f"{current} is not a symbolic link", "Nothing was changed. Move it away, or choose another root"):
            assert word in run.message
        assert sorted(map(str, site.root().rglob("*"))) == seen
        before.check_processes()
        before.check_left()
    finally:
        shutil.rmtree(current) if kind == "directory" else current.unlink()
        current.symlink_to(f"releases/{before.release}")
