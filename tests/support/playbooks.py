"""Our playbooks, run by ansible-playbook as a user runs them, and a site: one application, its inventory, its PM2."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from support import places
from support.apps import QUICK, free_port, http_app, worker_app
from support.load import get
from support.pm2 import Pm2Home

GATE = "{{ test_gate | default(60) }}"
"""Seconds a release has to prove itself in, on a machine that is busy."""
SHORT_GATE = ("-e", "test_gate=10")
"""Of a run that is to fail."""
WRITE_PATH = "require('fs').writeFileSync('path.txt', process.env.PATH)"

Live = Dict[Tuple[str, int], Tuple[int, int, str, str]]


class Run(NamedTuple):
    """A finished ansible-playbook."""

    code: int
    output: str

    @property
    def changed(self) -> Set[str]:
        """The tasks that changed something."""
        blocks = re.split(r"^TASK \[", self.output, flags=re.M)[1:]
        return {block.split("]")[0].split(" : ")[-1] for block in blocks if re.search(r"^changed: ", block, re.M)}

    @property
    def message(self) -> str:
        """The `msg` of the last task that failed on a host; empty where none did."""
        found = re.findall(r'^fatal: .*?"msg": ("(?:[^"\\]|\\.)*")', self.output, re.M)
        return str(json.loads(found[-1])) if found else ""

    @property
    def results(self) -> Dict[str, Dict[str, Any]]:
        """What the play left for the pipeline (set_stats `deploy_results`), by host; empty where it left nothing."""
        _before, title, after = self.output.partition("\tRUN: ")  # below CUSTOM STATS
        found = json.JSONDecoder().raw_decode(after)[0] if title else {}
        return dict(found.get("deploy_results", {}))


def start(
    playbook: str, inventory: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None
) -> subprocess.Popen[str]:
    """Start `ansible-playbook nodeops.pm2.<playbook> -i <inventory> <arguments>`, in a session of its own.

    Its configuration is not this machine's. `environment` comes on top of this process's. See `finish`.
    """
    config = places.HOME / "ansible.cfg"
    config.write_text("[defaults]\n")
    own = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_SHOW_CUSTOM_STATS": "1", "ANSIBLE_CONFIG": str(config)}
    return subprocess.Popen(
        ["ansible-playbook", f"nodeops.pm2.{playbook}", "-i", str(inventory), *arguments],
        env={**os.environ, **own, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 400.0) -> Run:
    """Wait for a started playbook. After `timeout` seconds it is killed, and this raises."""
    try:
        output, _errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Run(process.returncode, output)


def run(playbook: str, inventory: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> Run:
    """`start` and `finish`."""
    return finish(start(playbook, inventory, *arguments, environment=environment))


class Site:
    """An application in `source`, and an inventory that deploys it to one or two environments on one PM2."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self.pm2 = pm2
        self.source = directory / "source"
        self.inventory = directory / "inventory.json"
        self.directory = directory
        self.ports = {"production": free_port(), "test": free_port()}
        self.release("1")
        self.write_inventory()

    def release(self, version: str, **options: Any) -> None:
        """Make `source` a new version of the application."""
        http_app(self.source, version, **{"handback": True, **options})
        worker_app(self.source, version)

    def write_inventory(self, environments: Sequence[str] = ("production",), **variables: Any) -> None:
        """Describe the environments; `variables` are added to each."""
        hosts = {name: {**self.describe(name), **variables} for name in environments}
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts}}))

    def describe(self, name: str) -> Dict[str, Any]:
        """The variables of an environment."""
        port = self.ports[name]
        api = {"name": "api", "script": "app.js", "exec_mode": "cluster", "instances": 2, "env": {"PORT": str(port)}}
        api.update(QUICK)
        api["kill_timeout"] = 20000  # a busy machine must not make PM2 kill it in the middle of a request
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "pm2_namespace": name,
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
            "deploy_app": "app",
            "deploy_root": str(self.root(name)),
            "deploy_source": str(self.source),
            "deploy_dependencies": [],
            "deploy_build": [["node", "-e", WRITE_PATH], "node --version"],
            "deploy_processes": [api, {"name": "worker", "script": "worker.js", **QUICK}],
            "deploy_ready": {
                "timeout": GATE,
                "min_uptime": 0.5,
                "http": [{"url": f"http://127.0.0.1:{port}/health"}],
            },
        }

    def root(self, name: str = "production") -> Path:
        """The deploy_root of an environment."""
        return self.directory / name

    def play(self, playbook: str, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> Run:
        """Run one of our playbooks on this inventory."""
        return run(playbook, self.inventory, *arguments, environment=environment)

    def deploy(self, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> Run:
        """Run the deploy."""
        return self.play("deploy", *arguments, environment=environment)

    def deployed(self, *arguments: str) -> Run:
        """Run the deploy, which has to succeed."""
        done = self.deploy(*arguments)
        assert done.code == 0, done.output
        return done

    def refused(self, *arguments: str) -> Run:
        """Run the deploy, which has to fail on the host."""
        done = self.deploy(*SHORT_GATE, *arguments)
        assert done.code == 2, done.output
        return done

    def current(self, name: str = "production") -> Path:
        """The release that `current` names."""
        return Path(os.readlink(self.root(name) / "current"))

    def releases(self, name: str = "production") -> List[str]:
        """The names of the release directories."""
        return sorted(path.name for path in (self.root(name) / "releases").iterdir())

    def live(self, name: str = "production") -> Live:
        """Per (app, pm_id): pid, restarts, status, working directory."""
        return {
            (item["name"], item["pm_id"]): (
                item["pid"],
                item["pm2_env"]["restart_time"],
                item["pm2_env"]["status"],
                item["pm2_env"]["pm_cwd"],
            )
            for item in self.pm2.processes(name)
        }

    def saved(self, name: str = "production") -> List[Dict[str, Any]]:
        """The dump's entries of an environment."""
        return [entry for entry in json.loads(self.pm2.dump.read_text()) if entry["namespace"] == name]

    def served(self, name: str = "production") -> Set[str]:
        """The versions that answer."""
        return {json.loads(get(self.ports[name]))["version"] for _request in range(12)}
