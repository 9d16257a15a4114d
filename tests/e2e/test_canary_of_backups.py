# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that backups and restores meet: on disk they are where they have to be, 0600, and nobody hears of them.

Core: a life with secrets (30 s: five runs of ansible-playbook). Full: what fails.
"""

from __future__ import annotations

import json
import stat
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from support.database_world import ENVIRONMENT, HELPERS, World
from support.environments import Environment, Outcome
from support.git_server import Watcher
from support.killer import Runner
from support.monitor import Monitor
from support.namespaces import home_in
from support.postgres import Server

pytestmark = pytest.mark.timeout(900)  # seconds; several runs of ansible-playbook, and other tests beside them

SECRETS = {
    "env of a process": "canary-process-71c0aa",
    "backed-up file": "canary-file-0d94e2",
    "backed-up file, changed": "canary-file-55b7c1",
    "path of the ping": "canary-ping-e3a918",
    "row": "canary-row-c64f07",
    "wrong password": "canary-password-2f8b60",
    "URL given as a database": "canary-url-9a71d3",
}

TELL = """\
if (require('fs').existsSync('.crash')) {
  console.error(JSON.stringify(process.env));
  console.error(require('fs').readFileSync('.env', 'utf8'));
  console.error('the end of what it said');
  process.exit(1);
}
"""


class Secretive(World):
    """A world whose processes have a secret."""

    def _environment(self, database: str) -> Dict[str, str]:
        return {**super()._environment(database), "TOKEN": SECRETS["env of a process"]}


# Notes its name, its arguments and its environment, and becomes the program it stands for.
NOTING = """\
#!/bin/sh
{{ echo "{name} $*"; env; }} >>{log}
exec {program} "$@"
"""


class Spied(Environment):
    """All of whose runs are as loud as one makes them to find a mistake, and listened to."""

    def __init__(self, world: World, monitor: Monitor) -> None:
        super().__init__(world)
        self.monitor = monitor
        self.programs = Path(tempfile.mkdtemp(dir=world.server.directory))  # where any user can go: one runs as nobody
        self.programs.chmod(0o755)
        self.told = self.programs / "told"
        self.told.touch()
        self.told.chmod(0o666)
        for name in HELPERS:
            path = self.programs / name
            path.write_text(NOTING.format(name=name, log=self.told, program=world.server.binaries.program(name)))
            path.chmod(0o755)
        self.secrets = {**SECRETS, "password of the database": world.server.password}

    def renew(self) -> None:
        """As it is; with a file that holds a secret."""
        super().renew()
        self.file.write_text(f"TOKEN={SECRETS['backed-up file']}\n")
        self.file.chmod(0o600)
        self.variables["pg_bindir"] = str(self.programs)
        self.variables["backup_ping_url"] = self.monitor.url(f"/{SECRETS['path of the ping']}")

    def leaks(self, text: str) -> List[str]:
        """The secrets that a text holds, as they are or as JSON has them."""
        return [
            name
            for name, secret in self.secrets.items()
            if secret in text or json.dumps(secret)[1:-1] in text or json.dumps(json.dumps(secret)[1:-1])[1:-1] in text
        ]

    def play(self, playbook: str, *arguments: str) -> Outcome:
        """Run one of our playbooks."""
        with Watcher(pause=0.05) as watcher:
            done = super().play(playbook, "-vvv", "--diff", *arguments)
        assert self.leaks(done.output) == [], playbook
        assert self.leaks("\n".join(watcher.seen)) == [], playbook
        assert self.leaks(self.told.read_text()) == [], playbook
        self.look_for_traces()
        return done

    def look_for_traces(self) -> None:
        """On the disk a secret is only in files that have to hold it, and there nobody else can read it."""
        for top in (self.world.dest, self.job, self.metrics, Path(self.world.pm2.home)):
            for path in top.rglob("*"):
                if not path.is_file() or path.is_symlink() or path.parent.name == "logs":  # the app's own
                    continue
                found = self.leaks(path.read_text(errors="replace"))
                mode = stat.S_IMODE(path.stat().st_mode)
                assert not found or (self._may_hold(path) and mode == 0o600), f"{path} ({mode:o}) holds {found}"

    def _may_hold(self, path: Path) -> bool:
        if path.is_relative_to(self.world.dest):
            return path.name not in ("manifest.json", "verified.json") and path.parent.parent == self.world.dest
        return path.name in ("config.json", "dump.pm2", "dump.pm2.bak")


@pytest.fixture(name="environment")
def _environment(postgres: Server, tmp_path: Path) -> Iterator[Spied]:
    with home_in(tmp_path, "7.0") as pm2, Runner() as runner, Monitor() as monitor:
        with Secretive(postgres, pm2, runner, tmp_path) as world:
            api = tmp_path / "app" / "api.js"
            api.write_text(TELL + api.read_text())
            environment = Spied(world, monitor)
            environment.renew()
            yield environment


def test_a_life_with_secrets(environment: Spied) -> None:
    world = environment.world
    confirmed = ("-e", f"db_restore_confirm={world.shop}@{ENVIRONMENT}")
    world.write(SECRETS["row"])
    environment.succeeds("backup")
    assert any(SECRETS["path of the ping"] in path for path, _body in environment.monitor.seen)
    held = "".join(path.read_text(errors="replace") for path in world.dest.glob("*-pm2-*/*"))
    assert {"env of a process", "backed-up file"} <= set(environment.leaks(held))  # the search does find them

    world.write("later")
    environment.succeeds("db_restore", *confirmed)
    assert world.ask()[0] == SECRETS["row"]
    environment.succeeds("db_undo", *confirmed)
    environment.succeeds("restore_drill")
    told = environment.told.read_text().splitlines()
    assert {line.split(" ")[0] for line in told} >= set(HELPERS)  # it was looked at them

    environment.file.write_text(f"TOKEN={SECRETS['backed-up file, changed']}\n")
    environment.succeeds("recover", "-e", "recover_backup=latest")
    assert SECRETS["backed-up file"] in environment.file.read_text()
    for _path, body in environment.monitor.seen:
        assert environment.leaks(body) == []


@pytest.mark.full
def test_secrets_when_something_fails(environment: Spied) -> None:
    world = environment.world
    confirmed = ("-e", f"db_restore_confirm={world.shop}@{ENVIRONMENT}")
    environment.succeeds("backup")
    before = world.look()

    crash = environment.file.parent / ".crash"
    crash.touch()
    run = environment.fails("db_restore", *confirmed)
    assert "the end of what it said" in run.output
    crash.unlink()
    environment.succeeds("recover")
    world.write("well again")
    assert world.ask()[0] == "well again"
    assert world.others() == before.others

    environment.variables["pg_login_password"] = SECRETS["wrong password"]
    run = environment.fails("backup")
    assert "password authentication failed" in run.output
    del environment.variables["pg_login_password"]

    url = f"postgresql://shop:{SECRETS['URL given as a database']}@127.0.0.1/shop"
    environment.variables["backup_databases"] = [url]
    run = environment.fails("backup")
    assert "Nothing was" in run.output
    del environment.variables["backup_databases"]

    (dump,) = world.dest.glob("*-postgresql-*/*.dump")
    dump.write_bytes(dump.read_bytes()[:-1])
    run = environment.fails("db_restore", *confirmed)
    assert "is damaged" in run.output
