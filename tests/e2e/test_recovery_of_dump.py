# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BankimOnline's case: dump, .bak and daemon are gone. ai-admin's case: its .env is changed, and changed back.

All of it is in full: what it adds to test_backup_role.py is the examples themselves, and a newest backup that is
damaged.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from e2e.systems import AiAdmin, BankimOnline, StockAlert, System
from support import modules, namespaces, observe, processes
from support.load import Load, get
from support.playbooks import Run
from support.pm2 import Pm2Home
from support.readers import flip

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]  # seconds; several runs of ansible-playbook

MAY_BE_DOWN = 120.0
MAY_TAKE = 300.0
"""Seconds: what ai-admin's way back is allowed (mission.md)."""


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Iterator[Pm2Home]:
    with namespaces.home_in(tmp_path, "7.0") as pm2:
        yield pm2


class Guarded:
    """A system with a backup store, and our playbooks on it."""

    def __init__(self, system: System, files: List[str]) -> None:
        self.system = system
        self.store = system.directory / "backups"
        self.variables = {
            "backup_dest": str(self.store),
            "backup_files": files,
            "backup_databases": [],
            "backup_scheduler": "none",
        }

    def play(self, playbook: str, **more: Any) -> Run:
        """Run one of our playbooks, which has to succeed."""
        done = self.system.play(playbook, "-e", json.dumps({**self.variables, **more}))
        assert done.code == 0, done.output
        return done

    def fails(self, playbook: str, **more: Any) -> Run:
        """Run one that has to fail on the host."""
        return self.system.refused("-e", json.dumps({**self.variables, **more}), playbook=playbook)

    def backup(self) -> str:
        """Back up now; the id of the newest."""
        self.play("backup")
        found = [json.loads(path.read_text()) for path in self.store.glob("*-pm2-*/manifest.json")]
        return str(max(found, key=lambda manifest: int(manifest["sequence"]))["id"])


def environments(system: System) -> List[Tuple[str, Dict[str, str]]]:
    """What each process of the system really has, without what PM2 gives it anew in each run."""
    found = []
    for item in system.pm2.processes(system.host):
        has = json.loads(processes.environ(item["pid"])["pm2_env"])
        own = {name: value for name, value in has.items() if isinstance(value, str) and name.isupper()}
        found.append((f"{item['name']}/{item['pm2_env']['NODE_APP_INSTANCE']}", own))
    return sorted(found)


def test_bankim_online_comes_back_from_its_newest_good_backup(home, tmp_path):
    """No dump, no .bak, no daemon, and the last backup is damaged: one playbook, and every variable is there again."""
    system = BankimOnline(home, tmp_path / "bankim")
    system.deployed()
    guarded = Guarded(system, [])
    first = guarded.backup()
    had = environments(system)
    assert {env["JWT_SECRET"] for _name, env in had} == {"invented-signing-secret-of-bankim-online"}

    # As its team does it by hand; and that backup's disk block goes bad.
    home.cli("restart", "bankim-online-server", "--update-env", env={"LATER": "1"})
    home.cli("save")
    second = guarded.backup()
    assert second != first
    flip(guarded.store / second / "dump.pm2")

    home.kill()
    for path in (home.dump, Path(f"{home.dump}.bak")):
        path.unlink(missing_ok=True)
    with pytest.raises(OSError, match="refused"):
        get(system.port, "/api/health")

    run = guarded.play("recover")
    assert f"{second} is damaged" in run.output
    system.assert_whole("1.0.0")
    system.assert_kept()
    assert environments(system) == had
    assert len(observe.dump_entries(home.dump)) == 2

    # And the dump is good again: a boot brings the same.
    home.kill()
    home.cli("resurrect")
    deadline = time.monotonic() + 30
    while len(system.live()) < 2 or not _answers(system.port, "/api/health"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert environments(system) == had
    live = system.live()
    guarded.play("recover")
    assert system.live() == live
    guarded.backup()


def _answers(port: int, path: str) -> bool:
    try:
        get(port, path)
    except (OSError, ValueError):
        return False
    return True


def test_ai_admin_changes_its_env_file_and_goes_back(home, tmp_path):
    """Seven services read one .env. The change is proven by a log line and by health, and so is the way back.

    Nobody else notices; and a file with which they cannot work is not left in place.
    """
    system = AiAdmin(home, tmp_path / "ai-admin")
    system.deployed()
    file = system.root / "current" / ".env"
    guarded = Guarded(system, [str(file)])
    stock_alert = StockAlert(home, tmp_path / "stock-alert")
    neighbour = int(next(item["pm2_env"]["PORT"] for item in home.jlist() if item["name"] == "stock-alert"))
    good, text = guarded.backup(), file.read_text()

    with Load(neighbour, clients=2, pause=0.05, limit=300) as load:
        change(file, "SEARCH_BACKEND=keyword", "SEARCH_BACKEND=vector")
        renewed(system, "vector")
        assert backend(system) == "vector"

        pids = {pid for pid, *_rest in system.live().values()}
        begun = time.monotonic()
        with Load(system.port, "/health", clients=1, pause=0.05, limit=300) as gateway:
            guarded.play("recover", recover_backup=good)
        took = time.monotonic() - begun
        assert (file.read_text(), file.stat().st_mode & 0o777) == (text, 0o600)
        assert backend(system) == "keyword"
        assert not pids & {pid for pid, *_rest in system.live().values()}
        system.assert_whole("1.0.0")
        system.assert_kept()
        assert took < MAY_TAKE
        assert gateway.gap < MAY_BE_DOWN

        # A backup of a file with which it cannot work: the gate says so, and all is put back.
        change(file, "sslmode=verify-full", "sslmode=require")
        bad = guarded.backup()
        file.write_text(text)
        live = {name: restarts for (name, _id), (_pid, restarts, *_rest) in system.live().items()}
        run = guarded.fails("recover", recover_backup=bad)
        assert "/health" in run.message
        assert "Everything is as before" in run.message
        assert file.read_text() == text
        assert system.served() == {"1.0.0"}
        assert system.get("/health")["status"] == "healthy"
        assert live.keys() == {name for name, _id in system.live()}
    assert load.errors == {}
    assert load.ok > 100
    stock_alert.assert_unmoved()
    print(f"ai-admin: back after {took:.1f} s, its gateway without an answer for at most {gateway.gap:.2f} s")


def change(file: Path, old: str, new: str) -> None:
    """Change one line by hand."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def renewed(system: System, search: str) -> None:
    """All seven are restarted, and none else; the new back end is in the log and in the health page."""
    url = f"http://127.0.0.1:{system.port + 4}/health"
    ready = {"timeout": 20, "min_uptime": 0.5, "log": [f"search back end: {search}"]}
    ready["http"] = [{"url": url, "expect": f"status == 'healthy' && backend == '{search}'"}]
    options = {"namespace": system.host, "state": "restarted", "ready": ready}
    result = modules.call("pm2_process", {"pm2_home": system.pm2.home, **options})
    assert not result["failed"], result["msg"]
    assert len(result["actions"]) == 7


def backend(system: System) -> str:
    """What the search service says it works with."""
    return str(system.get("/health", system.port + 4)["backend"])
