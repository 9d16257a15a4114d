# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cron and systemd run on the host, without a controller: installed by the role, run once for real.

Core: cron, and a run of a unit that fails (20 s each). Full: changes of the table, each unit, and a booted systemd,
which alone takes half a minute.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from support import debian, scheduler, systemd
from support.database_world import World, until
from support.environments import NAME, Environment
from support.killer import Runner
from support.monitor import Monitor
from support.namespaces import home_in
from support.postgres import Server
from support.scheduler import Cron

pytestmark = pytest.mark.timeout(900)  # seconds; several runs of ansible-playbook, and other tests beside them
ANALYZE = debian.program("systemd-analyze", "systemd")


@pytest.fixture(name="environment", scope="module")
def _environment(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    directory = tmp_path_factory.mktemp("schedule")
    with home_in(directory, "7.0") as pm2, Runner() as runner, World(postgres, pm2, runner, directory) as world:
        yield Environment(world)


@pytest.fixture(autouse=True)
def _anew(environment: Environment) -> None:
    environment.renew()
    environment.variables["backup_now"] = False


def ended(environment: Environment, job: str) -> List[str]:
    """The lines of the log that say how a job has ended."""
    return [line for line in environment.log if re.match(rf"{job}: (ended well|FAILED)", line)]


def entries(cron: Cron) -> List[str]:
    """The lines of the table that are no comments."""
    return [line for line in cron.table().splitlines() if not line.startswith("#")]


@pytest.mark.skipif(bool(scheduler.why_not()), reason=scheduler.why_not())
def test_cron_runs_it(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Monitor() as monitor, Cron(tmp_path) as cron:
        monkeypatch.setenv("PATH", f"{cron.programs}:{os.environ['PATH']}")
        environment.variables.update(
            backup_scheduler="cron",
            backup_schedule="@reboot",  # cron then runs it at its own start
            backup_ping_url=monitor.url("/backup"),
        )
        environment.unset.add("backup_cron_file")  # cron is told by the user's crontab, as by default
        environment.succeeds("backup")
        assert [line.split(" ")[0] for line in entries(cron)] == ["@reboot", "30", "@reboot"]
        jobs = json.loads((environment.job / "current" / "config.json").read_text())["jobs"]
        ((at_boot,),) = [job["steps"] for job in jobs if job["name"] == "recover"]
        assert (at_boot["params"]["state"], at_boot["params"]["resurrect_timeout"]) == ("recovered", 120)
        assert environment.world.server.password not in cron.table()
        assert not environment.backups("postgresql")

        with cron.running():
            until(lambda: len(monitor.seen) == 2 and ended(environment, "recover"), "cron runs the jobs", 60)
        assert ended(environment, "backup")[0].startswith("backup: ended well")
        assert ended(environment, "recover")[0].startswith("recover: ended well")
        assert len(environment.backups("pm2")) == len(environment.backups("postgresql")) == 1
        assert environment.metric("backup", "job_last_exit_code") == 0
        assert time.time() - environment.metric("backup", "job_last_success_timestamp_seconds") < 60
        assert environment.metric("backup", "backup_size_bytes") > 0
        assert [path for path, _body in monitor.seen] == ["/backup/start", "/backup/0"]

        environment.variables["backup_scheduler"] = "none"
        environment.succeeds("backup")
        assert not entries(cron)
        assert not (environment.job / "current").exists()
        assert len(environment.log) > 4


@pytest.mark.full
@pytest.mark.skipif(bool(scheduler.why_not()), reason=scheduler.why_not())
def test_the_table_of_cron_is_what_is_scheduled(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cron(tmp_path) as cron:
        monkeypatch.setenv("PATH", f"{cron.programs}:{os.environ['PATH']}")
        environment.variables.update(backup_scheduler="cron", backup_schedule="5 4 * * *")
        environment.unset.add("backup_cron_file")
        assert environment.succeeds("backup", "--check").changed
        assert cron.table() == ""
        environment.succeeds("backup")
        assert environment.succeeds("backup").changed == set()

        environment.variables["backup_schedule"] = "5 4 * * 1-5"
        environment.variables["backup_drill_schedule"] = ""
        environment.succeeds("backup")
        assert [line.partition(" /")[0] for line in entries(cron)] == ["5 4 * * 1-5", "@reboot"]
        table = cron.table()
        environment.variables["backup_schedule"] = "61 2 * * *"
        assert "These are not: 61 2 * * *" in environment.fails("backup").message
        assert cron.table() == table


def unit(environment: Environment, job: str, kind: str = "service") -> Path:
    """The file of a unit."""
    return environment.units / f"nodeops-pm2-{NAME}-{job}.{kind}"


@pytest.mark.full
def test_systemd_can_run_it(environment: Environment) -> None:
    if not (ANALYZE and scheduler.crontab()):  # Ansible wants crontab even for a file below cron.d
        pytest.skip(debian.why_not("systemd-analyze or crontab", "systemd cron"))
    environment.variables.update(
        backup_scheduler="systemd", backup_schedule="*-*-* 02:15:00", backup_on_failure="tell-somebody@%n.service"
    )
    environment.succeeds("backup")
    assert environment.succeeds("backup").changed == set()
    links = {str(path.relative_to(environment.units)): path.resolve() for path in environment.units.glob("*.wants/*")}
    assert links == {
        f"timers.target.wants/{unit(environment, 'backup', 'timer').name}": unit(environment, "backup", "timer"),
        f"timers.target.wants/{unit(environment, 'drill', 'timer').name}": unit(environment, "drill", "timer"),
        f"multi-user.target.wants/{unit(environment, 'recover').name}": unit(environment, "recover"),
    }
    units = [str(path) for path in environment.units.glob("nodeops-*")]
    assert len(units) == 5
    verified = subprocess.run([ANALYZE, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    for job in ("backup", "drill"):
        said = re.search(r"^OnCalendar=(.*)$", unit(environment, job, "timer").read_text(), re.M)
        assert said
        subprocess.run([ANALYZE, "calendar", said[1]], check=True, capture_output=True)
    timer = unit(environment, "backup", "timer").read_text()
    assert "\nPersistent=true\n" in timer
    assert "\nRandomizedDelaySec=15min\n" in timer

    for job in ("recover", "backup", "drill"):
        done = run(environment, job)
        assert (done.returncode, done.stderr) == (0, "")
        assert ended(environment, job)[0].startswith(f"{job}: ended well")
    assert "pg_backup: changed, backup" in run(environment, "backup").stdout

    # without databases there is nothing to recover at boot
    environment.variables = {"backup_now": False, "backup_scheduler": "cron", "backup_databases": []}
    environment.succeeds("backup")
    assert not [path for path in environment.units.rglob("*") if not path.is_dir()]
    assert len(re.findall("run.py", environment.cron.read_text())) == 2
    environment.cron.unlink()


@pytest.mark.full
@pytest.mark.skipif(bool(systemd.why_not()), reason=systemd.why_not())
def test_systemd_runs_it(environment: Environment, tmp_path: Path) -> None:
    """At its boot, and when the timer says so."""
    environment.variables.update(
        backup_scheduler="systemd", backup_schedule="*-*-* *:*:0/2", backup_drill_schedule="", backup_random_delay="0"
    )
    environment.succeeds("backup")
    assert not environment.backups("postgresql")
    (root := tmp_path / "root").mkdir()
    log = tmp_path / "console"
    with systemd.booted(environment.units, [environment.directory], root, log) as container:
        until(
            lambda: container.poll() is not None or (ended(environment, "backup") and ended(environment, "recover")),
            "systemd runs the jobs",
            120,
        )
        assert container.poll() is None, log.read_text(errors="replace")
    assert ended(environment, "recover")[0].startswith("recover: ended well")
    assert ended(environment, "backup")[0].startswith("backup: ended well")
    assert len(environment.backups("pm2")) == len(environment.backups("postgresql")) == 1
    assert environment.metric("backup", "job_last_exit_code") == 0


def command(environment: Environment, job: str) -> List[str]:
    """What a service runs."""
    found = re.search(r"^ExecStart=(.*)$", unit(environment, job).read_text(), re.M)
    assert found
    return found[1].split(" ")


def run(environment: Environment, job: str) -> "subprocess.CompletedProcess[str]":
    """Run it as systemd does for root: with an empty environment but a PATH."""
    return environment.run_job(command(environment, job), BARE)


BARE: Dict[str, str] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}


def test_a_run_that_fails_is_seen(environment: Environment) -> None:
    world = environment.world
    with Monitor() as monitor:
        environment.variables.update(backup_scheduler="systemd", backup_ping_url=monitor.url("/backup"))
        environment.succeeds("backup")
        assert run(environment, "backup").returncode == 0
        good = environment.metric("backup", "job_last_success_timestamp_seconds")

        world.sql("postgres", f"ALTER DATABASE {world.shop} ALLOW_CONNECTIONS false")
        failed = run(environment, "backup")
        world.sql("postgres", f"ALTER DATABASE {world.shop} ALLOW_CONNECTIONS true")
        assert failed.returncode == 1
        assert world.shop in failed.stderr
        assert "pm2_dump_backup: unchanged" in failed.stdout
        assert ended(environment, "backup")[-1].startswith("backup: FAILED with exit code 1")
        assert any("pg_backup failed" in line and world.shop in line for line in environment.log)
        assert environment.metric("backup", "job_last_exit_code") == 1
        assert environment.metric("backup", "job_last_success_timestamp_seconds") == good
        assert environment.metric("backup", "job_last_run_timestamp_seconds") > good
        assert [path for path, _body in monitor.seen] == ["/backup/start", "/backup/0", "/backup/start", "/backup/1"]
        assert "pg_backup failed" in monitor.seen[-1][1]

        with world.session(world.shop, "BEGIN;", "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;"):
            started = subprocess.Popen(
                command(environment, "backup"), env=BARE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
            )
            until(world.is_held_up, "the backup waits for the table")
            started.send_signal(signal.SIGTERM)
            _output, errors = started.communicate(timeout=30)
        assert started.returncode == 1
        assert "SIGTERM" in errors
        assert monitor.seen[-1][0] == "/backup/1"
        world.check_left()
        assert len(environment.backups("postgresql")) == 1

    everything = [
        path.read_bytes() for path in environment.job.rglob("*") if path.is_file() and path.name != "config.json"
    ]
    everything += [path.read_bytes() for path in (*environment.metrics.iterdir(), *environment.units.glob("nodeops-*"))]
    assert not [content for content in everything if world.server.password.encode() in content]
    config = environment.job / "current" / "config.json"
    assert config.stat().st_mode & 0o777 == 0o600
