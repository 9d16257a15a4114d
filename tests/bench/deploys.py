"""Deploys of a git repository without a build, of a new version and of the running one, against ansistrano.deploy.

Both run on this machine with the same Ansible and the same inventory, and deploy the same commit in turn. Ours also
replaces the application's processes, waits until they have proven themselves, and saves. ansistrano.deploy only makes
the release directory. It makes a new one even if the version runs already.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

from support.apps import free_port, http_app
from support.load import get
from support.pm2 import VERSIONS, Pm2Home

from bench import peers
from bench.comparison import Comparison, in_turn, rounds

ROUNDS = 5
APPS = (1, 3, 10)
FILES = 100
MIN_UPTIME = 0.5  # least seconds of the gate, beside a health check of each app: part of our time
KEEP = 3
TARGET_NEW = 0.6
TARGET_AGAIN = 0.35


def measure(directory: Path) -> Iterator[Comparison]:
    missing = peers.install()
    if missing:
        print(f"ansistrano.deploy {peers.VERSION} is NOT COMPARED WITH: {missing}. Ours alone:", flush=True)
    repository = Repository(directory)
    for count in APPS:
        home = Pm2Home(VERSIONS[-1], directory / f"pm2-{count}")
        try:
            yield from Fleet(directory / f"{count}", repository, home, count).compare(not missing)
        finally:
            home.kill()


class Repository:
    """A bare repository, and the work tree from which new versions are pushed."""

    def __init__(self, directory: Path) -> None:
        self.address = directory / "repository.git"
        self._tree = directory / "tree"
        self.version = 0
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.address), cwd=directory)
        self._git("init", "--quiet", "--initial-branch=main", str(self._tree), cwd=directory)
        for number in range(FILES):
            path = self._tree / f"part-{number % 10}" / f"file-{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}\n" * 200)

    def commit(self) -> None:
        """Push a new version of the application."""
        self.version += 1
        http_app(self._tree, str(self.version))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", str(self.version))
        self._git("push", "--quiet", str(self.address), "main")

    def _git(self, *arguments: str, cwd: Path | None = None) -> None:
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        subprocess.run(["git", *identity, *arguments], cwd=cwd or self._tree, check=True)


class Fleet:
    """An application with this many apps, a process each, which both deploy."""

    def __init__(self, directory: Path, repository: Repository, home: Pm2Home, count: int) -> None:
        self._repository = repository
        self._home = home
        self._ports = [free_port() for _number in range(count)]
        directory.mkdir()
        self._config = directory / "ansible.cfg"
        self._config.write_text("[defaults]\n")
        self._inventory = directory / "inventory.json"
        variables = {**self._common(), **self._ours(directory), **self._theirs(directory)}
        self._inventory.write_text(json.dumps({"all": {"hosts": {"bench": variables}}}))
        # Not a file of its own, because ansible-lint refuses a role that is not installed.
        self._their_play = directory / "ansistrano.json"
        self._their_play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": [peers.NAME]}]))

    def compare(self, with_peer: bool) -> Iterator[Comparison]:
        """In each round we deploy a new commit, they deploy it, and we deploy it again."""
        works = [self._new, self._again, *([self._peer] if with_peer else [])]
        new, again, *theirs = in_turn(*works, rounds=rounds(ROUNDS), before=self._repository.commit)
        apps = f"{len(self._ports)} app{'s' if len(self._ports) > 1 else ''}"
        if not theirs:
            yield Comparison(f"{apps}: the version that runs", again, "a new version", new, None)
            return
        name = f"ansistrano.deploy {peers.VERSION}"
        yield Comparison(f"{apps}: a new version, switched and gated", new, name, theirs[0], TARGET_NEW)
        yield Comparison(f"{apps}: the version that runs", again, name, theirs[0], TARGET_AGAIN)

    def _new(self) -> None:
        self._play(["nodeops.pm2.deploy"])
        for port in self._ports:
            version = json.loads(get(port))["version"]
            assert version == str(self._repository.version), f"{version} answers, not {self._repository.version}"

    def _again(self) -> None:
        output = self._play(["nodeops.pm2.deploy"])
        assert "changed=0 " in output, output

    def _peer(self) -> None:
        self._play([str(self._their_play)])

    def _play(self, arguments: List[str]) -> str:
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self._inventory), *arguments],
            env={**os.environ, "ANSIBLE_CONFIG": str(self._config), "ANSIBLE_ROLES_PATH": str(peers.ROLES)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _common(self) -> Mapping[str, Any]:
        return {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}

    def _ours(self, directory: Path) -> Dict[str, Any]:
        apps = [
            {"name": f"app-{number}", "script": "app.js", "env": {"PORT": str(port)}}
            for number, port in enumerate(self._ports)
        ]
        return {
            "pm2_namespace": "bench",
            "pm2_home": self._home.home,
            "pm2_executable": self._home.executable,
            "deploy_app": "bench",
            "deploy_root": str(directory / "ours"),
            "deploy_source_type": "git",
            "deploy_source": str(self._repository.address),
            "deploy_git_version": "main",
            "deploy_dependencies": [],
            "deploy_processes": apps,
            "deploy_ready": {
                "min_uptime": MIN_UPTIME,
                "http": [{"url": f"http://127.0.0.1:{port}/health"} for port in self._ports],
            },
            "deploy_keep": KEEP,
        }

    def _theirs(self, directory: Path) -> Dict[str, Any]:
        return {
            "ansistrano_deploy_to": str(directory / "theirs"),
            "ansistrano_deploy_via": "git",
            "ansistrano_git_repo": str(self._repository.address),
            "ansistrano_git_branch": "main",
            "ansistrano_keep_releases": KEEP,
            "ansistrano_allow_anonymous_stats": False,
        }
