# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An environment is backed up, drilled, restored and undone by the playbooks, from one inventory.

Core: a backup, its drill, a restore and its undo (25 s: six runs of ansible-playbook), and lost processes that come
back (15 s). Full: check mode, drills of encrypted backups, and what fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, List

import pytest
from support import debian
from support.database_world import ENVIRONMENT, NAMESPACE, World
from support.environments import NAME, Environment
from support.killer import Runner
from support.namespaces import home_in
from support.postgres import Server

KEYGEN, RSYNC = debian.program("age-keygen", "age"), debian.program("rsync", "rsync")
pytestmark = pytest.mark.timeout(900)  # seconds; several runs of ansible-playbook, and other tests beside them


@pytest.fixture(name="site", scope="module")
def _site(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    directory = tmp_path_factory.mktemp("role")
    with home_in(directory, "7.0") as pm2, Runner() as runner, World(postgres, pm2, runner, directory) as world:
        yield Environment(world)


@pytest.fixture(name="environment")
def _environment(site: Environment) -> Environment:
    site.renew()
    return site


def steps(told: object) -> List[str]:
    """The modules of a result's steps, those that failed with a mark."""
    assert isinstance(told, dict)
    return [step["module"] + (" failed" if step["failed"] else "") for step in told["steps"]]


def test_an_environment_and_its_databases_have_a_way_back(environment: Environment) -> None:
    world = environment.world

    run = environment.succeeds("backup", "-vvv")
    assert steps(run.told) == ["pm2_dump_backup", "pg_backup"]
    (dump,), (databases,) = environment.backups("pm2"), environment.backups("postgresql")
    assert [step["backup"] for step in run.told["steps"]] == [dump["id"], databases["id"]]
    assert {manifest["environment"] for manifest in (dump, databases)} == {ENVIRONMENT}
    assert dump["namespace"] == NAMESPACE
    assert environment.metric("backup", "job_last_exit_code") == 0
    world.texts[databases["id"]] = {world.shop: world.state(world.shop).text}

    before = world.look()
    assert steps(environment.succeeds("restore_drill").told) == ["pm2_dump_backup", "pg_restore"]
    world.check(before)
    assert environment.metric("drill", "job_last_exit_code") == 0

    world.write("after the backup")
    before = world.look()
    right = f"{world.shop}@{ENVIRONMENT}"
    for number, wrong in enumerate((f"{world.shop}@test", f"{world.stock}@{ENVIRONMENT}")):  # hosts of the same run
        environment.others[f"wrong{number}"] = {**environment.describe(), "db_restore_confirm": wrong}
    results = environment.fails("db_restore").told_of_all
    assert len(results) == 3
    for result in results.values():
        assert f'db_restore_confirm="{right}"' in result["reason"]
        assert "Nothing was changed" in result["reason"]
    environment.others.clear()
    world.check(before)

    run = environment.succeeds("db_restore", "-e", f"db_restore_confirm={right}", "--check")
    world.check(before)

    run = environment.succeeds("db_restore", "-e", f"db_restore_confirm={right}", "-vvv")
    world.check(before, databases["id"])
    assert run.told["result"] == "done"
    assert run.told["backup"] == databases["id"]
    assert 0 < run.told["downtime"] < 30

    before = world.look()
    run = environment.succeeds("db_undo", "-e", f"db_restore_confirm={right}")
    world.check_undone(before)
    assert world.ask()[0] == "after the backup"
    assert run.told["downtime"] > 0


@pytest.mark.full
def test_what_is_only_tried_changes_nothing(environment: Environment) -> None:
    world = environment.world
    run = environment.succeeds("backup", "--check")
    assert run.told["result"] == "done"
    assert run.told["check_mode"] is True
    assert not world.dest.exists()
    assert not environment.job.exists()

    environment.succeeds("backup")
    right = ("-e", f"db_restore_confirm={world.shop}@{ENVIRONMENT}")
    environment.succeeds("db_restore", *right)
    before = world.look()
    environment.fails("db_undo", "-e", f"db_restore_confirm={world.shop}@test")
    world.check(before)
    environment.succeeds("db_undo", "--check", *right)
    world.check(before)
    assert environment.succeeds("recover").told["result"] == "unchanged"


@pytest.mark.full
def test_a_drill_restores_beside_what_is_live(environment: Environment) -> None:
    world = environment.world
    run = environment.fails("restore_drill")
    assert steps(run.told) == ["pm2_dump_backup failed", "pg_restore failed"]
    assert environment.metric("drill", "job_last_exit_code") == 1

    environment.succeeds("backup")
    before = world.look()
    run = environment.succeeds("restore_drill")
    assert steps(run.told) == ["pm2_dump_backup", "pg_restore"]
    world.check(before)
    assert environment.metric("drill", "job_last_exit_code") == 0
    assert environment.metric("drill", "job_last_success_timestamp_seconds") > 0
    (verified,) = [json.loads(path.read_text()) for path in world.dest.glob("*-postgresql-*/verified.json")]
    assert verified["how"] == "restored"

    (dump,) = world.dest.glob("*-postgresql-*/*.dump")
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)
    run = environment.fails("restore_drill")
    assert steps(run.told) == ["pm2_dump_backup", "pg_restore failed"]
    assert environment.metric("drill", "job_last_exit_code") == 1


@pytest.mark.full
@pytest.mark.skipif(not KEYGEN, reason=debian.why_not("age", "age"))
def test_a_drill_of_encrypted_backups_goes_as_far_as_the_keys_of_the_host(
    environment: Environment, tmp_path: Path
) -> None:
    assert KEYGEN
    identity = tmp_path / "key"
    subprocess.run([KEYGEN, "-o", str(identity)], check=True, capture_output=True)
    recipient = subprocess.run([KEYGEN, "-y", str(identity)], check=True, capture_output=True, text=True).stdout.strip()
    environment.variables["backup_age_recipients"] = [recipient]
    environment.succeeds("backup")
    assert not list(environment.world.dest.glob("*-postgresql-*/*.dump"))

    assert steps(environment.succeeds("restore_drill").told) == ["pm2_dump_backup", "pg_backup"]
    environment.variables["backup_age_identity_file"] = str(identity)
    before = environment.world.look()
    assert steps(environment.succeeds("restore_drill").told) == ["pm2_dump_backup", "pg_restore"]
    environment.world.check(before)


def test_a_playbook_looks_at_its_variables_first(environment: Environment) -> None:
    environment.unset = {"backup_dest"}
    run = environment.play("restore_drill")
    assert run.code == 2, run.output
    assert "missing required arguments: backup_dest" in run.output
    environment.unset.clear()
    run = environment.fails("db_undo", "-e", f"backup_databases={environment.world.shop}")
    assert "backup_databases has to be a list" in run.message


@pytest.mark.full
@pytest.mark.skipif(not RSYNC, reason=debian.why_not("rsync", "rsync"))
def test_what_fails_is_told_and_the_rest_is_done(environment: Environment, tmp_path: Path) -> None:
    world = environment.world
    environment.variables["backup_databases"] = [world.shop, "nobody_has_it"]
    environment.variables["backup_offsite"] = {"tool": "rsync", "target": str(tmp_path)}
    run = environment.fails("backup")
    assert steps(run.told) == ["pm2_dump_backup", "pg_backup failed", "offsite"]
    assert len(list(tmp_path.glob("*-pm2-*/manifest.json"))) == 1
    assert "nobody_has_it" in run.message
    assert len(environment.backups("pm2")) == 1
    assert not environment.backups("postgresql")
    assert environment.metric("backup", "job_last_exit_code") == 1
    assert environment.log[-1].startswith("backup: FAILED with exit code 1")

    environment.variables.update(backup_databases=[], backup_processes=False)
    assert f"{environment.file} would be in no backup" in environment.fails("backup").message
    environment.variables["backup_files"] = []
    assert "there is nothing to do" in environment.fails("backup").message

    environment.variables.update(backup_processes=True, backup_keep_within="often")
    del environment.variables["backup_files"]
    lost = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-o ConnectTimeout=2"}
    environment.others["lost"] = {**environment.describe(), "ansible_connection": "ssh", **lost}
    run = environment.play("backup")
    assert run.code != 0
    results = run.told_of_all
    assert {name: result["result"] for name, result in results.items()} == {NAME: "failed", "lost": "failed"}
    assert "often" in results[NAME]["reason"]
    assert "cannot be reached" in results["lost"]["reason"]


@pytest.fixture(name="losing")
def _losing(environment: Environment) -> Iterator[Environment]:
    """To lose its processes; afterwards all of them are there again, the neighbour's too."""
    yield environment
    world = environment.world
    world.pm2.kill()
    shutil.rmtree(world.pm2.home)
    Path(world.pm2.home).mkdir()
    world.start_processes()


def lose_dump(world: World) -> None:
    """Neither the daemon nor a dump that can be read."""
    world.pm2.kill()
    for path in world.pm2.dump.parent.glob("dump.pm2*"):
        path.write_text("[{")


def test_lost_processes_come_back(losing: Environment) -> None:
    environment, world = losing, losing.world
    environment.variables["backup_databases"] = []
    environment.succeeds("backup")
    saved = world.pm2.dump.read_text()
    lose_dump(world)
    environment.file.write_text("FLAG=two\n")
    assert environment.succeeds("recover").told["result"] == "done"
    assert world.ask()
    assert {item["pm2_env"]["namespace"] for item in world.pm2.jlist()} == {NAMESPACE}
    assert environment.file.read_text() == "FLAG=two\n"  # only what was lost
    entries = [entry["name"] for entry in json.loads(world.pm2.dump.read_text())]
    assert entries == [entry["name"] for entry in json.loads(saved) if entry["namespace"] == NAMESPACE]
    assert environment.succeeds("recover").told["result"] == "unchanged"


@pytest.mark.full
def test_what_was_lost_comes_from_the_dump_or_from_the_backup_that_is_named(losing: Environment) -> None:
    environment, world = losing, losing.world
    environment.variables["backup_databases"] = []
    environment.succeeds("backup")
    world.pm2.kill()
    run = environment.succeeds("recover")
    assert run.told["result"] == "done"
    assert world.ask()
    assert {item["pm2_env"]["namespace"] for item in world.pm2.jlist()} == {NAMESPACE}

    environment.file.write_text("FLAG=two\n")
    environment.succeeds("recover", "-e", "recover_backup=latest")
    assert environment.file.read_text() == "FLAG=one\n"

    world.pm2.kill()
    shutil.rmtree(world.pm2.home)
    shutil.rmtree(world.dest)
    Path(world.pm2.home).mkdir()
    run = environment.fails("recover")
    assert steps(run.told) == ["pm2_recover failed"]
