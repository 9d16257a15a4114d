"""An application that calls of pm2_release deploy, without a playbook: quick, and a call can be killed anywhere."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

from support import modules
from support.apps import QUICK, free_port, http_app, worker_app
from support.load import get
from support.pm2 import Pm2Home

Call = Callable[[str, Dict[str, Any]], Dict[str, Any]]


class Application:
    """An `api` (cluster, two workers) and a `worker` (fork), deployed from `source` to `root`.

    `call` runs a module, by default in this process.
    """

    def __init__(self, pm2: Pm2Home, directory: Path, namespace: str = "prod", call: Call = modules.call) -> None:
        self.pm2 = pm2
        self.namespace = namespace
        self.source = directory / "source"
        self.root = directory / namespace
        self.port = free_port()
        self.call = call
        self._number = itertools.count(1)
        self.release("1")

    def release(self, version: str, **options: Any) -> None:
        """Make `source` a new version of the application."""
        http_app(self.source, version, handback=True, **options)
        self._timeout = 60 if options.get("health", 200) == 200 else 8  # short if it cannot pass
        worker_app(self.source, version)

    def run(self) -> str:
        """A name for a new run, with another time than the last: so that releases of the same second differ."""
        return f"{time.strftime('%Y%m%dT%H%M%S')}.{next(self._number):04d}Z-{os.urandom(4).hex()}"

    def options(self, state: str, run: str, **more: Any) -> Dict[str, Any]:
        """The options of a call of pm2_release."""
        common = {
            "state": state,
            "run": run,
            "root": str(self.root),
            "app": "shop",
            "namespace": self.namespace,
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
            "owner": {"user": "mary", "host": "laptop", "pid": os.getppid()},
        }
        return {**common, **more}

    def prepared_options(self, run: str, **more: Any) -> Dict[str, Any]:
        """The options of the first call of a deploy."""
        source = {"type": "directory", "location": "host", "address": str(self.source)}
        return self.options("prepared", run, **{"source": source, **more})

    def published_options(self, run: str, release: str, **more: Any) -> Dict[str, Any]:
        """The options of the last call of a deploy."""
        return self.options("published", run, release=release, **{"apps": self.apps(), "ready": self.ready(), **more})

    def apps(self) -> List[Dict[str, Any]]:
        """The definitions of the apps."""
        api = {"name": "api", "script": "app.js", "exec_mode": "cluster", "instances": 2, "kill_timeout": 20000}
        return [{**api, "env": {"PORT": self.port}, **QUICK}, {"name": "worker", "script": "worker.js", **QUICK}]

    def ready(self) -> Dict[str, Any]:
        """The option `ready`."""
        http = [{"url": f"http://127.0.0.1:{self.port}/health"}]
        return {"timeout": self._timeout, "min_uptime": 0.2, "http": http}

    def deploy(self, **more: Any) -> Dict[str, Any]:
        """All calls of a deploy. Returns the result of the one that failed, or of the last."""
        run = self.run()
        prepared = self.call("pm2_release", self.prepared_options(run, **more))
        if prepared["failed"]:
            return prepared
        return self.call("pm2_release", self.published_options(run, prepared["release"]))

    def deployed(self, **more: Any) -> Dict[str, Any]:
        """A deploy that has to succeed."""
        result = self.deploy(**more)
        assert not result["failed"], result
        return result

    def deploy_files(self, content: str, **more: Any) -> Dict[str, Any]:
        """A quick deploy that has to succeed: a release without processes, only `index.html`."""
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir(parents=True)
        self.source.joinpath("index.html").write_text(content)
        run = self.run()
        prepared = self.call("pm2_release", self.prepared_options(run, **more))
        assert not prepared["failed"], prepared
        published = self.call(
            "pm2_release", self.published_options(run, prepared["release"], apps=[], ready={"min_uptime": 0}, **more)
        )
        assert not published["failed"], published
        return published

    def roll_back(self, **more: Any) -> Dict[str, Any]:
        """A rollback."""
        return self.call("pm2_release", self.options("rolled_back", self.run(), **more))

    # -- what there is -----------------------------------------------------------------------------------------------

    def current(self) -> Optional[str]:
        """The release that `current` names."""
        try:
            return os.path.basename(os.readlink(self.root / "current"))
        except FileNotFoundError:
            return None

    def releases(self) -> List[str]:
        """All release directories, also incomplete ones."""
        return sorted(os.listdir(self.root / "releases"))

    def manifest(self, release: str) -> Dict[str, Any]:
        """The manifest of a release."""
        found = json.loads((self.root / "releases" / release / ".nodeops-release.json").read_text())
        assert isinstance(found, dict)
        return found

    def history(self) -> List[Dict[str, Any]]:
        """The lines of the history."""
        return [json.loads(line) for line in (self.root / "deploys.jsonl").read_text().splitlines()]

    def served(self) -> Set[str]:
        """The versions that answer."""
        return {json.loads(get(self.port))["version"] for _request in range(8)}

    def directories(self) -> Set[str]:
        """The releases that the processes run from."""
        return {Path(item["pm2_env"]["pm_cwd"]).name for item in self.pm2.processes(self.namespace)}

    def saved_directories(self) -> Set[str]:
        """The releases that the entries in the dump name."""
        entries = json.loads(self.pm2.dump.read_text())
        return {Path(entry["pm_cwd"]).name for entry in entries if entry["namespace"] == self.namespace}

    def pids(self) -> Dict[str, int]:
        """The pids by name and instance."""
        return {
            f"{item['name']}-{item['pm2_env'].get('NODE_APP_INSTANCE')}": item["pid"]
            for item in self.pm2.processes(self.namespace)
        }

    def check_agreement(self, release: str, version: str) -> None:
        """The answers, the processes, the dump and `current` are of one release."""
        assert self.current() == release
        assert self.directories() == {release}
        assert self.saved_directories() == {release}
        assert self.served() == {version}
        assert all(item["pm2_env"]["status"] == "online" and item["pid"] for item in self.pm2.processes(self.namespace))
        assert len(self.pids()) == 3
