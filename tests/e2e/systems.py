# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The five systems: their example applications, deployed with their example inventories on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, NamedTuple, Sequence, Set, Tuple
from urllib.parse import urlencode

from support import observe, places, playbooks
from support.apps import free_port, free_ports, http_app
from support.load import get
from support.playbooks import Run
from support.pm2 import Pm2Home
from support.postgres import ADMIN, Server

MANIFEST = ".nodeops-release.json"

Live = Dict[Tuple[str, int], Tuple[int, int, str, str]]


class Bad(NamedTuple):
    """One way of being bad."""

    spoil: Callable[[], None]
    """Makes the source so."""
    stage: str
    """Where the deploy has to notice it."""
    says: str
    """What its message has to hold."""


class StockAlert:
    """Another project on the same daemon, started and saved by PM2 itself."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self.pm2 = pm2
        http_app(directory, "stock")
        pm2.cli("start", "app.js", "--name", "stock-alert", cwd=str(directory), env={"PORT": str(free_port())})
        deadline = time.monotonic() + 60
        while not self._processes()[0]["pm2_env"].get("node_version"):  # PM2 fills it in when it knows it
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pm2.cli("save")
        self._seen = observe.look(self._processes())
        self._saved = self._entries()
        assert len(self._seen) == len(self._saved) == 1

    def _processes(self) -> List[Dict[str, Any]]:
        return [item for item in self.pm2.jlist() if item["name"] == "stock-alert"]

    def _entries(self) -> List[Dict[str, Any]]:
        return [entry for entry in observe.dump_entries(self.pm2.dump) if entry["name"] == "stock-alert"]

    def assert_unmoved(self) -> None:
        """Nothing of it has moved: no pid, no count, no variable, no entry of the dump."""
        assert list(observe.changes(self._seen, observe.look(self._processes()))) == []
        assert self._entries() == self._saved


class System:
    """An environment of one of the five. What differs from the inventory is where things are: host, ports, paths."""

    name: ClassVar[str]
    """Of the example and of the inventory."""
    host: str
    """Of the inventory; the namespace is called the same."""
    processes: int
    forks: ClassVar[bool] = True
    """Whether it has processes that make way for new ones, and so have a new pid after a deploy that was undone."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self.pm2 = pm2
        self.directory = directory
        self.root = directory / "root"
        self.source = directory / "source"
        self.inventory = places.ROOT / "inventories" / self.name / "hosts.yml"
        shutil.copytree(
            places.ROOT / "examples" / self.name, self.source, ignore=shutil.ignore_patterns("node_modules", "dist")
        )
        self.port = free_port()
        self.prepare()
        self.release("1.0.0")

    # -- what each of them says of itself ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """What is on the host before the first deploy."""

    def variables(self) -> Dict[str, Any]:
        """Its own paths and ports."""
        raise NotImplementedError

    def hand_over(self, version: str) -> None:
        """What the pipeline does with the source before it deploys."""

    def served(self) -> Set[str]:
        """The versions that its health pages and its front end tell."""
        raise NotImplementedError

    def bads(self) -> List[Bad]:
        """The ways in which its third version is bad; each spoils the one good source."""
        raise NotImplementedError

    def assert_kept(self) -> None:
        """What its inventory promises beyond that, seen after a second version."""

    # -- its versions ------------------------------------------------------------------------------------------------

    def release(self, version: str) -> None:
        """Make the source another version."""
        for path in (self.source / "package.json", self.source / "package-lock.json"):
            if path.exists():
                content = json.loads(path.read_text())
                content["version"] = version
                if "packages" in content:
                    content["packages"][""]["version"] = version
                path.write_text(json.dumps(content, indent=2) + "\n")
        self.hand_over(version)

    def spoil(self, path: str, old: str, new: str) -> None:
        """Change one text of the source."""
        text = (self.source / path).read_text()
        assert old in text
        (self.source / path).write_text(text.replace(old, new, 1))

    # -- the playbooks -----------------------------------------------------------------------------------------------

    def play(self, playbook: str, *arguments: str) -> Run:
        """Run one of our playbooks on the inventory, limited to this environment."""
        extra = self.directory / "extra.json"
        extra.write_text(json.dumps({**self._here(), **self.variables()}))
        given = ["--limit", self.host, "-e", f"@{extra}", *arguments]
        return playbooks.run(playbook, self.inventory, *given, environment={"CI_PROJECT_DIR": str(self.source)})

    def _here(self) -> Dict[str, Any]:
        tools = [os.path.dirname(path) for path in (shutil.which("node"), sys.executable) if path]
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
            "deploy_root": str(self.root),
            "deploy_path": tools,
            "deploy_build_environment": {
                "npm_config_cache": str(places.CACHE / "npm"),
                "npm_config_audit": "false",
                "npm_config_fund": "false",
                "npm_config_update_notifier": "false",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            },
        }

    def deployed(self, *arguments: str) -> Run:
        """Deploy, which has to succeed."""
        done = self.play("deploy", *arguments)
        assert done.code == 0, done.output
        return done

    def refused(self, *arguments: str, playbook: str = "deploy") -> Run:
        """A deploy, or another playbook, that has to fail on the host."""
        done = self.play(playbook, *playbooks.SHORT_GATE, *arguments)
        assert done.code == 2, done.output
        return done

    # -- what is there -----------------------------------------------------------------------------------------------

    def get(self, path: str, port: int | None = None) -> Any:
        """The JSON of one page."""
        return json.loads(get(port or self.port, path))

    def versions(self, path: str, port: int | None = None) -> Set[str]:
        """The versions that one page tells, asked often enough to meet every worker."""
        return {self.get(path, port)["version"] for _request in range(8)}

    def current(self) -> str:
        """The id of the release that `current` names."""
        return os.path.basename(os.readlink(self.root / "current"))

    def releases(self) -> Dict[str, str]:
        """What became of each release, by id."""
        found = {}
        for path in (self.root / "releases").iterdir():
            found[path.name] = json.loads((path / MANIFEST).read_text())["status"]
        return found

    def history(self) -> List[Dict[str, Any]]:
        """All outcomes, oldest first."""
        return [json.loads(line) for line in (self.root / "deploys.jsonl").read_text().splitlines()]

    def live(self) -> Live:
        """Per (app, pm_id): pid, restarts, status, working directory."""
        return {
            (item["name"], item["pm_id"]): (
                item["pid"],
                item["pm2_env"]["restart_time"],
                item["pm2_env"]["status"],
                item["pm2_env"]["pm_cwd"],
            )
            for item in self.pm2.processes(self.host)
        }

    def saved(self) -> List[Dict[str, Any]]:
        """Its entries of the dump."""
        return [entry for entry in observe.dump_entries(self.pm2.dump) if entry["namespace"] == self.host]

    def assert_whole(self, version: str) -> None:
        """One version, whole: what answers, `current`, the processes and the dump agree on it."""
        assert self.served() == {version}
        release = self.root / "releases" / self.current()
        assert self.releases()[release.name] == "good"
        assert json.loads((release / "package.json").read_text())["version"] == version
        live = self.live()
        assert len(live) == self.processes
        assert {(restarts, status) for _pid, restarts, status, _cwd in live.values()} == {(0, "online")}
        running = sorted((name, cwd) for (name, _pm_id), (_pid, _restarts, _status, cwd) in live.items())
        assert {cwd == str(release) or cwd.startswith(f"{release}/") for _name, cwd in running} == {True}
        assert sorted((entry["name"], entry["pm_cwd"]) for entry in self.saved()) == running


class FlyerCrawler(System):
    """A directory of the controller (a CI checkout), an ecosystem file for each environment."""

    name = "flyer-crawler"
    processes = 3

    def __init__(self, pm2: Pm2Home, directory: Path, environment: str = "prod") -> None:
        self.host = f"flyer-crawler-{environment}"
        super().__init__(pm2, directory)

    def prepare(self) -> None:
        self.vite = free_port()

    def variables(self) -> Dict[str, Any]:
        return {
            "flyer_crawler_port": self.port,
            "flyer_crawler_vite_port": self.vite,
            "flyer_crawler_min_uptime": 0.5,
            "flyer_crawler_timeout": playbooks.GATE,
        }

    def served(self) -> Set[str]:
        return self.versions("/health")

    def assert_kept(self) -> None:
        for shared in ("flyer-images", "data"):
            assert (self.root / "current" / shared).resolve() == self.root / "shared" / shared

    def bads(self) -> List[Bad]:
        crash = "'use strict';\nthrow new Error('crash at boot of the worker');\n"
        return [
            Bad(lambda: self.spoil("worker.js", "'use strict';\n", crash), "publish", "crash at boot of the worker")
        ]


class BankimOnline(System):
    """A directory of the host, a cluster whose environment is in the dump only, a static front end."""

    name = "bankim-online"
    host = "bankim-online"
    processes = 2
    forks = False

    def variables(self) -> Dict[str, Any]:
        return {
            "deploy_source": str(self.source),
            "bankim_port": self.port,
            "bankim_min_uptime": 0.5,
            "bankim_timeout": playbooks.GATE,
        }

    def served(self) -> Set[str]:
        page = (self.root / "current" / "dist" / "index.html").read_text()
        built = page.partition("<footer>")[2].partition("</footer>")[0]
        return {*self.versions("/api/health"), *self.versions("/api/content-db/health"), built}

    def assert_kept(self) -> None:
        assert not (self.root / "current" / ".env").exists()
        assert {entry["env"]["JWT_SECRET"] for entry in self.saved()} == {"invented-signing-secret-of-bankim-online"}
        assert self.get("/api/health")["jwt_secret"] == "set"

    def bads(self) -> List[Bad]:
        def forgotten_variable() -> None:
            self.spoil(".env.example", "JWT_SECRET=", "CREDIT_BUREAU_KEY=\nJWT_SECRET=")

        def wrong_database() -> None:
            self.spoil("server/settings.js", "process.env.CONTENT_DATABASE_URL", "process.env.CONTENT_DATABASE")

        return [
            Bad(forgotten_variable, "prepare", "CREDIT_BUREAU_KEY"),
            Bad(wrong_database, "publish", "answered 503"),
        ]


class AiAdmin(System):
    """An archive with its SHA-256, seven services that read one .env."""

    name = "ai-admin"
    host = "ai-admin"
    processes = 7

    def prepare(self) -> None:
        self.authority = self.directory / "ca.pem"
        self.authority.write_text("an invented certificate\n")
        self.port = free_ports(7)

    def hand_over(self, version: str) -> None:
        self.archive = self.directory / f"ai-admin-{version}.tar.gz"
        with tarfile.open(self.archive, "w:gz") as archive:
            archive.add(self.source, f"ai-admin-{version}")

    def variables(self) -> Dict[str, Any]:
        return {
            "deploy_source": str(self.archive),
            "deploy_source_sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest(),
            "ai_admin_first_port": self.port,
            "ai_admin_ca_file": str(self.authority),
            "ai_admin_min_uptime": 0.5,
            "ai_admin_timeout": playbooks.GATE,
        }

    def served(self) -> Set[str]:
        return {version for number in range(7) for version in self.versions("/health", self.port + number)}

    def assert_kept(self) -> None:
        file = self.root / "current" / ".env"
        assert file.stat().st_mode & 0o777 == 0o600
        assert "invented-signing-secret-of-ai-admin" in file.read_text()
        assert "invented-signing-secret-of-ai-admin" not in json.dumps(self.pm2.jlist())

    def bads(self) -> List[Bad]:
        def unverified() -> None:
            self.spoil("lib/database.js", "!== 'verify-full'", "!== 'require'")

        return [Bad(unverified, "publish", "/health")]


class SalesOperator(System):
    """Node and Python in one repository, strict configuration, build and migration."""

    name = "sales-operator"
    host = "sales-operator"
    processes = 3

    def prepare(self) -> None:
        self.service = free_port()

    def variables(self) -> Dict[str, Any]:
        return {
            "sales_operator_port": self.port,
            "sales_operator_ai_port": self.service,
            "sales_operator_min_uptime": 0.5,
            "sales_operator_timeout": playbooks.GATE,
        }

    def served(self) -> Set[str]:
        assert "sales_operator_requests_total" in get(self.port, "/metrics")
        assert self.get("/ready")["checks"] == {"database": "ok", "ai_service": "ok"}
        return {*self.versions("/health"), *self.versions("/health", self.service)}

    def assert_kept(self) -> None:
        logs = self.root / "shared" / "logs"
        assert {path.name for path in logs.iterdir()} == {"app.log", "worker.log", "ai-service.log"}
        assert "version 1.0.0 listens" in (logs / "app.log").read_text()
        manifest = json.loads((self.root / "current" / MANIFEST).read_text())
        taken = {item["path"]: item["taken_from"] for item in manifest["dependencies"]}
        assert set(taken) == {"app/node_modules", "ai-service/.venv"}
        assert None not in taken.values()
        prefix = Path(self.get("/health", self.service)["python"])
        assert prefix.resolve() == (self.root / "current" / "ai-service" / ".venv").resolve()

    def bads(self) -> List[Bad]:
        def failing_migration() -> None:
            migration = self.source / "app" / "db" / "migrations" / "0002-score.js"
            migration.write_text("throw new Error('there is no column score');\n")

        def forced_push() -> None:
            self.spoil("app/package.json", "node db/migrate.js", "drizzle-kit push --force")

        return [
            Bad(forced_push, "prepare", "drizzle-kit push --force"),
            Bad(failing_migration, "migrate", "there is no column score"),
        ]


class PrimeCloudPro(System):
    """A branch of a git repository, a cluster, a checklist and a backup before the migration.

    Its database is on `server`, which a test has to give before it makes one.
    """

    name = "prime-cloud-pro"
    host = "prime-cloud-pro-production"
    processes = 2
    forks = False
    server: ClassVar[Server]

    def prepare(self) -> None:
        self.database = self.server.create_database(rows=-1)
        self.dest = self.directory / "backups"
        self.key = self.directory / "deploy_key"
        self.key.write_text("an invented key\n")
        self.key.chmod(0o600)
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        identity = ["-c", "user.name=ci", "-c", "user.email=ci@example.org"]
        return subprocess.run(
            ["git", "-C", str(self.source), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def hand_over(self, version: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"Version {version}")

    def variables(self) -> Dict[str, Any]:
        where = urlencode({"host": self.server.socket_directory, "port": self.server.port})
        return {
            "deploy_source": str(self.source),
            "deploy_git_key_file": str(self.key),
            "prime_port": self.port,
            "prime_min_uptime": 0.5,
            "prime_timeout": playbooks.GATE,
            "prime_tests": "passed",
            "prime_change": "CHG-1",
            "prime_database": self.database,
            "prime_database_url": f"postgresql://{ADMIN}@/{self.database}?{where}",
            "prime_psql": self.server.binaries.program("psql"),
            "backup_dest": str(self.dest),
            "pg_login_host": self.server.socket_directory,
            "pg_login_port": self.server.port,
            "pg_login_user": ADMIN,
            "pg_passfile": None,
            "pg_bindir": str(self.server.binaries.directory),
            "pg_accept_vulnerable_client": True,
        }

    def served(self) -> Set[str]:
        page = (self.root / "current" / "dist" / "index.html").read_text()
        return {*self.versions("/health"), page.partition("<footer>")[2].partition("</footer>")[0]}

    def assert_kept(self) -> None:
        manifests = [json.loads(path.read_text()) for path in self.dest.glob("*/manifest.json")]
        manifests.sort(key=lambda manifest: int(manifest["sequence"]))
        tables = [sorted(manifest["content"]["databases"][self.database]["tables"]) for manifest in manifests]
        assert tables == [[], ['"public"."migrations"', '"public"."orders"']]  # before the first migration, the second
        limits = [(entry["max_memory_restart"], entry["node_args"]) for entry in self.saved()]
        assert limits == [(300 * 1024 * 1024, ["--max-old-space-size=256"])] * 2

    def bads(self) -> List[Bad]:
        def type_error() -> None:
            self.spoil("src/server.js", "function health() {", "function health( {")

        def not_healthy() -> None:
            self.spoil("src/server.js", "ok ? 200 : 503", "500")

        return [
            Bad(type_error, "build", "src/server.js is not valid JavaScript"),
            Bad(not_healthy, "publish", "answered 500"),
        ]


SYSTEMS: Sequence[type[System]] = (FlyerCrawler, BankimOnline, AiAdmin, SalesOperator, PrimeCloudPro)
