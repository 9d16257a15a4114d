"""A namespace in which calls are killed in the middle of changes, watched by a neighbour, a load and a reader."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type

from support import killer, processes
from support.apps import QUICK, free_port, http_app, worker_app
from support.load import Load
from support.pm2 import Pm2Home

SHOP = "shop"
NEIGHBOUR = "neighbour"


class Wanted(NamedTuple):
    """What has to run of one app: how many instances, which release, and whether they are `online` or `stopped`."""

    release: str
    instances: int
    status: str = "online"


class World:
    """Two releases of the apps `api` (cluster) and `worker` (fork) for the namespace `shop`.

    Another namespace has apps with the same names. As long as the world stands, every request to `api` and every
    read of the dump is checked.
    """

    def __init__(self, pm2: Pm2Home, runner: killer.Runner, directory: Path) -> None:
        self.pm2 = pm2
        self.runner = runner
        self.port = free_port()
        self._fork_port = free_port()
        self._directory = directory
        for release in ("1", "2"):
            http_app(directory / release, version=release, handback=True)
        worker_app(directory / "neighbour")
        self.reader = DumpReader(pm2)
        self.load: Optional[Load] = None
        self._start_neighbour()

    # -- calls -----------------------------------------------------------------------------------------------------

    def params(self, apps: Optional[List[Dict[str, Any]]] = None, **options: Any) -> Dict[str, Any]:
        """The options of a call of pm2_process in the namespace."""
        base = {"pm2_home": self.pm2.home, "pm2_executable": self.pm2.executable, "namespace": SHOP}
        if apps is None:
            return {**base, **options}
        ports = [app["env"]["PORT"] for app in apps if "PORT" in app["env"]]
        ready = {"min_uptime": 0.1, "timeout": 60, "http": [{"url": f"http://127.0.0.1:{port}/"} for port in ports]}
        return {**base, "apps": apps, "ready": ready, **options}

    def api(self, release: str, instances: int = 2) -> Dict[str, Any]:
        """A cluster app that listens on `port`."""
        return {
            "name": "api",
            "script": "app.js",
            "cwd": str(self._directory / release),
            "exec_mode": "cluster",
            "instances": instances,
            "kill_timeout": 20000,  # a busy machine must not make PM2 kill it in the middle of a request
            "env": {"PORT": self.port, "RELEASE": release},
            **QUICK,
        }

    def worker(self, release: str) -> Dict[str, Any]:
        """A fork app with its own port: old and new cannot run at the same time."""
        return {
            "name": "worker",
            "script": "app.js",
            "cwd": str(self._directory / release),
            "env": {"PORT": self._fork_port, "RELEASE": release},
            **QUICK,
        }

    def bring(self, params: Dict[str, Any], module: str = "pm2_process", check: bool = False) -> Dict[str, Any]:
        """A call that is not killed, and must succeed."""
        result = self.runner.call(module, params, check)
        assert not result["failed"], result
        return result

    def _start_neighbour(self) -> None:
        app: Dict[str, Any] = {
            "name": "api",
            "script": "worker.js",
            "cwd": str(self._directory / "neighbour"),
            "env": {"RELEASE": "n"},
            **QUICK,
        }
        apps = [{**app, "exec_mode": "cluster", "instances": 1}, {**app, "name": "worker"}]
        self.bring(self.params(apps, namespace=NEIGHBOUR))
        self._neighbour = self._seen_of_neighbour()

    # -- what has to hold ------------------------------------------------------------------------------------------

    def check_meanwhile(self) -> None:
        """At any moment: no request failed, every read of the dump was good, the neighbour is as it was."""
        assert self.load is None or not self.load.failed, dict(self.load.errors)
        self.reader.check()
        assert self._seen_of_neighbour() == self._neighbour

    def check_converged(self, wanted: Dict[str, Wanted]) -> None:
        """PM2's list, the processes and the dump have exactly the `wanted` apps; nothing is left over."""
        self.check_meanwhile()
        listed = self.pm2.processes(SHOP)
        expected = sorted(
            (name, str(slot), str(self._directory / app.release), app.release, app.status)
            for name, app in wanted.items()
            for slot in range(app.instances)
        )
        assert sorted(_described(item["pm2_env"]) for item in listed) == expected
        saved = [entry for entry in self.reader.read() if entry["namespace"] == SHOP]
        assert sorted(_described(entry) for entry in saved) == expected
        for item in listed:
            if item["pm2_env"]["status"] == "online":
                environment = processes.environ(item["pid"])
                assert processes.alive(item["pid"])
                assert str(_instance_of(environment)) == str(item["pm2_env"]["NODE_APP_INSTANCE"])
        self._check_no_leftover()

    def unchanged_by(self, params: Dict[str, Any], module: str = "pm2_process") -> None:
        """The same call again finds nothing to do."""
        before = [(item["pid"], item["pm2_env"]["restart_time"]) for item in self.pm2.processes(SHOP)]
        result = self.bring(params, module)
        assert not result["changed"], result
        assert [(item["pid"], item["pm2_env"]["restart_time"]) for item in self.pm2.processes(SHOP)] == before

    def _check_no_leftover(self) -> None:
        state = Path(self.pm2.home, "nodeops")
        files = [path.name for path in [*state.iterdir(), *Path(self.pm2.home).iterdir()]]
        assert not [name for name in files if name.endswith((".journal", ".new"))]
        deadline = time.monotonic() + 30  # the daemon's own helpers (ps) come and go
        while True:
            known = {item["pid"] for item in self.pm2.jlist()} | set(self.pm2.daemon_pids())
            left = [pid for pid in processes.all_pids() if processes.environ(pid).get("PM2_HOME") == self.pm2.home]
            strangers = [processes.cmdline(pid) for pid in left if pid not in known and processes.alive(pid)]
            if not strangers:
                return
            assert time.monotonic() < deadline, strangers
            time.sleep(0.05)

    def _seen_of_neighbour(self) -> Tuple[List[Tuple[Any, ...]], List[Any]]:
        live = [
            (item["pm_id"], item["pid"], env["restart_time"], env["status"], env["unique_id"], env["RELEASE"])
            for item in self.pm2.processes(NEIGHBOUR)
            for env in [item["pm2_env"]]
        ]
        return live, [entry for entry in self.reader.read() if entry["namespace"] == NEIGHBOUR]

    def serve(self) -> None:
        """From now on no request to `api` may fail."""
        self.load = Load(self.port, clients=2, pause=0.05, limit=850).start()

    def __enter__(self) -> World:
        self.reader.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self.load is not None:
            self.load.stop()
        self.reader.stop()
        if error is None:
            self.check_meanwhile()


class DumpReader:
    """Reads the dump again and again. A read that fails is a defect at any moment."""

    def __init__(self, pm2: Pm2Home, pause: float = 0.01) -> None:
        self.reads = 0
        self.bad: List[str] = []
        self._path = pm2.dump
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def start(self) -> None:
        """Begin. There has to be a dump."""
        self.read()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Fails if a read was bad."""
        assert not self.bad, self.bad[:3]

    def read(self) -> List[Dict[str, Any]]:
        """What the dump holds now."""
        entries = json.loads(self._path.read_bytes())
        assert isinstance(entries, list)
        assert all(isinstance(entry, dict) and entry["name"] for entry in entries)
        return entries

    def _read_on(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.read()
                self.reads += 1
            except (OSError, ValueError, KeyError, AssertionError) as error:
                self.bad.append(repr(error))


def _described(env: Dict[str, Any]) -> Tuple[str, str, str, str, str]:
    return (env["name"], str(env["NODE_APP_INSTANCE"]), env["pm_cwd"], env["RELEASE"], env["status"])


def _instance_of(environment: Dict[str, str]) -> object:
    """The number that a process was started with. A cluster worker gets it in a JSON of PM2's."""
    if "NODE_APP_INSTANCE" in environment:
        return environment["NODE_APP_INSTANCE"]
    return json.loads(environment["pm2_env"])["NODE_APP_INSTANCE"]
