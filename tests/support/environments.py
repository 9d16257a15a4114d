"""An environment as an inventory describes it: the world of database_world.py, and our playbooks run on it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping, Set

from support import playbooks
from support.database_world import ENVIRONMENT, NAMESPACE, World

NAME = "shop-production"
_AS_THEY_ARE = ("pg_bindir",)


class Outcome(playbooks.Run):
    """A finished playbook of this environment."""

    @property
    def told_of_all(self) -> Dict[str, Dict[str, Any]]:
        """What it has handed on with set_stats, by host; fails where it has handed on nothing."""
        _before, title, after = self.output.partition("\tRUN: ")
        assert title, self.output
        found: Dict[str, Any] = json.JSONDecoder().raw_decode(after)[0]
        results = [value for name, value in found.items() if name.endswith("_results")]
        assert len(results) == 1
        return dict(results[0])

    @property
    def told(self) -> Dict[str, Any]:
        """The part of the environment."""
        return self.told_of_all[NAME]


class Environment:
    """`variables` go over those of the inventory, and those in `unset` are left out. `others` are other hosts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.directory = world.directory
        self.file = self.directory / "app" / ".env"
        self.job = Path(f"{world.dest}.job")
        self.metrics = self.directory / "metrics"
        self.cron = self.directory / "cron"
        self.units = self.directory / "units"
        self.inventory = self.directory / "inventory.json"
        self.variables: Dict[str, Any] = {}
        self.unset: Set[str] = set()
        self.others: Dict[str, Dict[str, Any]] = {}

    def renew(self) -> None:
        """Nothing is installed, and nothing backed up."""
        self.variables.clear()
        self.unset.clear()
        self.others.clear()
        for path in (self.job, self.world.dest, self.units, self.metrics):
            shutil.rmtree(path, ignore_errors=True)
        self.metrics.mkdir()
        self.file.write_text("FLAG=one\n")

    def describe(self) -> Dict[str, Any]:
        """The variables of the inventory: the server is reached over TCP, with a password and its authority."""
        login = {
            name if name in _AS_THEY_ARE else f"pg_{name}": value
            for name, value in self.world.server.login_tcp().items()
        }
        described = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "pm2_namespace": NAMESPACE,
            "pm2_home": self.world.pm2.home,
            "pm2_executable": self.world.pm2.executable,
            "deploy_ready": self.world.options()["ready"],
            "backup_dest": str(self.world.dest),
            "backup_environment": ENVIRONMENT,
            "backup_files": [str(self.file)],
            "backup_databases": [self.world.shop],
            "backup_metrics_dir": str(self.metrics),
            "backup_lock_timeout": 20,
            "backup_scheduler": "none",
            "backup_cron_file": str(self.cron),
            "backup_systemd_dir": str(self.units),
            **login,
        }
        return {name: value for name, value in {**described, **self.variables}.items() if name not in self.unset}

    def play(self, playbook: str, *arguments: str) -> Outcome:
        """Run one of our playbooks."""
        self.inventory.write_text(json.dumps({"all": {"hosts": {NAME: self.describe(), **self.others}}}))
        done = Outcome(*playbooks.run(playbook, self.inventory, *arguments))
        assert self.world.server.password not in done.output
        return done

    def succeeds(self, playbook: str, *arguments: str) -> Outcome:
        """It has to succeed."""
        done = self.play(playbook, *arguments)
        assert done.code == 0, done.output
        return done

    def fails(self, playbook: str, *arguments: str) -> Outcome:
        """It has to fail on the host, with results."""
        done = self.play(playbook, *arguments)
        assert done.code == 2, done.output
        assert done.told["result"] == "failed"
        return done

    def backups(self, kind: str) -> List[Dict[str, Any]]:
        """The manifests in the store, the oldest first."""
        found = [json.loads(path.read_text()) for path in self.world.dest.glob(f"*-{kind}-*/manifest.json")]
        return sorted(found, key=lambda manifest: int(manifest["sequence"]))

    def run_job(self, command: List[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command as a scheduler does, with nothing of this process's environment."""
        return subprocess.run(
            command, env=dict(environment), cwd="/", capture_output=True, text=True, check=False, timeout=120
        )

    @property
    def log(self) -> List[str]:
        """The lines of the jobs' log, without their times."""
        path = self.job / "log"
        return [line.split(" ", 1)[1] for line in path.read_text().splitlines()] if path.exists() else []

    def metric(self, job: str, name: str) -> float:
        """The value of a metric."""
        text = (self.metrics / f"nodeops_pm2_{NAME}_{job}.prom").read_text()
        found = re.search(rf"^nodeops_pm2_{name}{{.*}} (.*)$", text, re.M)
        assert found, text
        return float(found[1])
