"""Hosts that are directories of this machine, each with a PM2 and a port of its own, and the playbooks run on them."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from support import processes
from support.apps import QUICK, free_port, http_app
from support.load import get
from support.playbooks import GATE, SHORT_GATE
from support.pm2 import VERSIONS, Pm2Home

NAMESPACE = "shop"


class Run(NamedTuple):
    """A finished ansible-playbook."""

    code: int
    output: str

    @property
    def results(self) -> Dict[str, Dict[str, Any]]:
        """What it has handed on with set_stats, by host."""
        found = re.search(r"^\tRUN: (\{.*\})$", self.output, re.M)
        assert found, self.output
        return dict(json.loads(found.group(1))["deploy_results"])

    @property
    def outcome(self) -> Dict[str, str]:
        """The result of each host."""
        return {host: result["result"] for host, result in self.results.items()}

    @property
    def messages(self) -> Dict[str, str]:
        """What is said at the end, by host."""
        found = re.findall(
            r'^fatal: \[(\w+)\]: FAILED! => (\{.*"msg": "(?:Deploying|Rolling back).*\})$', self.output, re.M
        )
        return {host: str(json.loads(data)["msg"]) for host, data in found}


class Host:
    """One of them."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.pm2 = Pm2Home(VERSIONS[-1], directory / "pm2")
        self.root = directory / "srv"
        self.port = free_port()

    def describe(self, source: Path) -> Dict[str, Any]:
        """Its variables: one fork-mode app."""
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "pm2_namespace": NAMESPACE,
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
            "deploy_app": "shop",
            "deploy_root": str(self.root),
            "deploy_source": str(source),
            "deploy_dependencies": [],
            "deploy_processes": [{"name": "api", "script": "app.js", "env": {"PORT": str(self.port)}, **QUICK}],
            "deploy_ready": {
                "timeout": GATE,
                "min_uptime": 0.3,
                "http": [{"url": f"http://127.0.0.1:{self.port}/health"}],
            },
        }

    @property
    def current(self) -> str:
        """The id of the release that `current` names, empty without one."""
        link = self.root / "current"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else ""

    @property
    def releases(self) -> List[str]:
        """The names of the release directories."""
        return sorted(path.name for path in (self.root / "releases").glob("*"))

    @property
    def version(self) -> str:
        """The version that answers."""
        return str(json.loads(get(self.port))["version"])

    @property
    def pids(self) -> List[int]:
        """The pids of its processes."""
        return [int(item["pid"]) for item in self.pm2.processes(NAMESPACE)]

    @property
    def history(self) -> List[Dict[str, Any]]:
        """The lines of deploys.jsonl."""
        return [json.loads(line) for line in (self.root / "deploys.jsonl").read_text().splitlines()]


class Fleet:
    """Hosts and an inventory of them, below `directory`. Variables for all in `variables`, for one in `own[name]`."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.hosts = {name: Host(name, directory / name) for name in names}
        self.variables: Dict[str, Any] = {}
        self.own: Dict[str, Dict[str, Any]] = {name: {} for name in names}
        self.config = directory / "ansible.cfg"  # not the one of this machine
        self.config.write_text("[defaults]\n")
        self._versions = itertools.count(1)
        self.release_next()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def release(self, version: str, **options: Any) -> None:
        """Make the source a version of the app (options of `http_app`)."""
        http_app(self.source, version, **options)

    def release_next(self, **options: Any) -> str:
        """Make the source another version, which is returned. The first was 1."""
        version = str(next(self._versions))
        self.release(version, **options)
        return version

    def run(self, playbook: str, *arguments: str) -> Run:
        """Run a playbook of the collection."""
        hosts = {
            name: {**host.describe(self.source), **self.variables, **self.own[name]}
            for name, host in self.hosts.items()
        }
        inventory = self.directory / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        done = subprocess.run(
            ["ansible-playbook", f"nodeops.pm2.{playbook}", "-i", str(inventory), *arguments],
            env={
                **os.environ,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CONFIG": str(self.config),
                "ANSIBLE_SHOW_CUSTOM_STATS": "1",
            },
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        return Run(done.returncode, done.stdout)

    def deployed(self, *arguments: str) -> Run:
        """Deploy, which has to succeed."""
        run = self.run("deploy", *arguments)
        assert run.code == 0, run.output
        return run

    def failed(self, *arguments: str, playbook: str = "deploy") -> Run:
        """Run a playbook, which has to fail on a host."""
        run = self.run(playbook, *SHORT_GATE, *arguments)
        assert run.code == 2, run.output
        return run

    @property
    def versions(self) -> List[str]:
        """What each host answers."""
        return [host.version for host in self.hosts.values()]

    def end(self) -> None:
        """End all that it has started."""
        for host in self.hosts.values():
            host.pm2.kill()
        survivors = processes.end_all_of(self.directory)
        assert not survivors, f"still running after SIGKILL: {survivors}"
