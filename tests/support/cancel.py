"""A deploy or rollback whose controller is cancelled: the moments, the ways, and what has to be true afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Type

from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _journal

from support import playbooks, processes
from support.apps import http_app, worker_app
from support.playbooks import Run, Site
from support.pm2 import Pm2Home

NAMESPACE = "production"
MANIFEST = ".nodeops-release.json"
PATIENCE = 120.0  # seconds until a stage is reached
SETTLED = 90.0  # seconds within which a cancelled run leaves everything in order; 1 to 3 where nothing else runs

# Says that it is reached, and stays: a build for good, a hook and a migration until they may go on.
ENDLESS_BUILD = """\
require('child_process').spawn('sleep', ['600'], { cwd: __dirname });
require('fs').writeFileSync(process.argv[2], '');
setInterval(() => {}, 1000);
"""
MIGRATION = """\
const fs = require('fs');
const [, , marker, go, done] = process.argv;
fs.writeFileSync(marker, '');
setInterval(() => { if (fs.existsSync(go)) { fs.writeFileSync(done, ''); process.exit(0); } }, 20);
"""
HOOK = """\
- name: Say that this is reached, and wait
  ansible.builtin.command:
    argv: [sh, -c, 'touch "$0"; until test -e "$1"; do sleep 0.05; done', "{marker}", "{go}"]
"""


def until(condition: Callable[[], Any], what: Callable[[], str], timeout: float, pause: float = 0.02) -> None:
    """Wait until `condition` holds. AssertionError after `timeout` seconds, which tells `what` it is then."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what()}"
        time.sleep(pause)


# -- ways to cancel ----------------------------------------------------------------------------------------------------


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to ansible-playbook: what it has started lives on."""
    process.kill()


def terminate(process: subprocess.Popen[str]) -> None:
    """SIGTERM to ansible-playbook."""
    process.terminate()


def terminate_group(process: subprocess.Popen[str]) -> None:
    """SIGTERM to the process group, as CI runners begin."""
    os.killpg(process.pid, signal.SIGTERM)


def interrupt_group(process: subprocess.Popen[str]) -> None:
    """SIGINT to the process group: Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to ansible-playbook, to its workers and to the module: the run's process group before ansible-core 2.19.

    Since then each worker has a group of its own. The commands of a build have always had one.
    """
    workers = [pid for pid in processes.all_pids() if processes.parent(pid) == process.pid]
    for pid in [process.pid, *workers]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)


def kill_module(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the module alone, as when the host is short of memory; ansible-playbook goes on."""
    modules = [pid for pid in processes.descendants(process.pid) if "AnsiballZ_pm2_release" in processes.cmdline(pid)]
    for pid in modules:
        os.kill(pid, signal.SIGKILL)


Way = Callable[[subprocess.Popen[str]], None]


# -- what is cancelled -------------------------------------------------------------------------------------------------


class Silence:
    """A server that takes connections and never says a word."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked = threading.Event()
        self._taken: List[socket.socket] = []
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])
                self.asked.set()

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in [self._listener, *self._taken]:
            each.close()


class Cancelled(Site):
    """A site whose runs are started, cancelled and looked at; version 1 is deployed.

    `longest`: seconds that the slowest run took to settle. `silence`: a git host that does not answer.
    """

    def __init__(self, pm2: Pm2Home, directory: Path, silence: Silence) -> None:
        self.number = 0
        self.longest = 0.0
        self.silence = silence
        super().__init__(pm2, directory)
        self.marker, self.go, self.done = (directory / name for name in ("marker", "go", "done"))
        self.temporary = directory / "tmp"
        self.hook = directory / "hook.yml"
        self.hook.write_text(HOOK.format(marker=self.marker, go=self.go))
        self.deployed()

    def release(self, version: str, **options: Any) -> None:
        """Make `source` a new version of the application."""
        http_app(self.source, version, handback=True, **options)
        worker_app(self.source, version)
        (self.source / "build.js").write_text(ENDLESS_BUILD)
        (self.source / "migration.js").write_text(MIGRATION)

    def describe(self, name: str) -> Dict[str, Any]:
        """Small commands, a short gate."""
        found = super().describe(name)
        ready = {**found["deploy_ready"], "min_uptime": 0.3}
        return {**found, "deploy_build": [["node", "--version"]], "deploy_ready": ready}

    def slow_gate(self) -> Dict[str, Any]:
        """The variables with which a publish waits, all old processes that have to make room stopped."""
        ready = self.describe(NAMESPACE)["deploy_ready"]
        return {"deploy_ready": {**ready, "timeout": 600, "log": ["this is never said"]}}

    def other_source(self) -> str:
        """Make `source` another version, which is returned."""
        self.number += 1
        version = f"next {self.number}"
        self.release(version)
        return version

    def begin(self, playbook: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a deploy of a new version, or a rollback to another release; with `variables` in the inventory."""
        for path in (self.marker, self.go, self.done):
            path.unlink(missing_ok=True)
        self.silence.asked.clear()
        shutil.rmtree(self.temporary, ignore_errors=True)
        if playbook == "deploy":
            self.other_source()
        else:
            variables["rollback_to"] = self.other_release()
        self.write_inventory(**variables)
        environment = {"ANSIBLE_REMOTE_TEMP": str(self.temporary)}  # so that the modules are seen to be ours
        return playbooks.start(playbook, self.inventory, environment=environment)

    def cancel(self, process: subprocess.Popen[str], way: Way) -> Run:
        """Cancel a run; its end."""
        way(process)
        output = process.stdout.read() if way is not kill and process.stdout else ""
        code = process.wait(PATIENCE)
        if process.stdout:
            process.stdout.close()  # what lives on may have it open
        return Run(code, output)

    def settle(self) -> None:
        """Wait until nothing of a cancelled run is left: no process of it, no lock.

        Both at once: a process that forks in the middle of a look at /proc is seen neither before nor after.
        """
        start = time.monotonic()
        until(
            lambda: not self.strangers() and not self.is_locked() and not self.strangers(),
            lambda: f"the end of {self.strangers()}, the lock is {'taken' if self.is_locked() else 'free'}",
            SETTLED,
        )
        self.longest = max(self.longest, time.monotonic() - start)

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def live_release(self) -> str:
        """The id that `current` names."""
        return self.current().name

    def other_release(self) -> str:
        """The id of the newest release that is not live and was once."""
        manifests = [json.loads(path.read_text()) for path in self.root().glob(f"releases/*/{MANIFEST}")]
        published = {manifest["published"]: manifest["release"] for manifest in manifests if manifest["published"]}
        return str([published[moment] for moment in sorted(published) if published[moment] != self.live_release][-1])

    def strangers(self) -> List[processes.Found]:
        """The processes that belong to this site and are neither its PM2 nor its application."""
        daemons = set(self.pm2.daemon_pids())
        expected = daemons.union(*(processes.descendants(pid) for pid in daemons))
        found = processes.belonging_to(self.directory)
        return [process for process in found if process.pid not in expected]

    def is_locked(self) -> bool:
        """Whether somebody has the lock of the deploy."""
        with open(self.root() / ".nodeops" / "deploy.lock", "rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def journal(self) -> Optional[_journal.Journal]:
        """What a publish has announced."""
        return _journal.read(self.pm2.home, NAMESPACE)

    def is_switching(self, former: str) -> bool:
        """Whether a publish has decided for the new release, or has switched."""
        journal = self.journal()
        return (journal is not None and journal.phase == _journal.COMMITTED) or self.live_release != former

    def version(self, release: str) -> str:
        """The version that a release answers."""
        text = (self.root() / "releases" / release / "app.js").read_text()
        settings = json.loads(text.partition("const settings = ")[2].partition(";\n")[0])
        return str(settings["version"])

    def check_agreement(self) -> str:
        """What is served, runs, is saved and what `current` names are one release, whole. Its id."""
        release = self.live_release
        assert self.served() == {self.version(release)}
        items = self.pm2.processes(NAMESPACE)
        assert sorted(item["name"] for item in items) == ["api", "api", "worker"]
        assert {Path(item["pm2_env"]["pm_cwd"]).name for item in items} == {release}
        assert all(item["pm2_env"]["status"] == "online" and processes.alive(item["pid"]) for item in items)
        assert [Path(entry["pm_cwd"]).name for entry in self.saved()] == [release] * 3
        assert self.journal() is None
        assert not [name for name in self.releases() if name.startswith(".")]
        return release

    def next_deploy_works(self) -> str:
        """An undisturbed deploy of another version. Its id."""
        version = self.other_source()
        self.write_inventory()
        self.deployed()
        release = self.check_agreement()
        assert self.version(release) == version
        assert not self.strangers()
        assert not self.is_locked()
        return release


# -- moments -----------------------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A moment of a run: the variables that make it last, and how it is seen."""

    name: str
    variables: Callable[[Cancelled], Dict[str, Any]]
    is_reached: Callable[[Cancelled, subprocess.Popen[str], str], bool]
    """Given the run and the release that was live before it."""
    goes_on: bool = False
    """Whether the new release is live in the end."""
    pause: float = 0.02
    """Seconds between two looks."""
    is_short: bool = False
    """Whether a run may be further when it is cancelled than when it was seen there."""


def reach(site: Cancelled, stage: Stage, playbook: str) -> Optional[subprocess.Popen[str]]:
    """Start a run; it is returned when it has reached the stage. None if it went well before that was seen."""
    former = site.live_release
    process = site.begin(playbook, **stage.variables(site))
    until(
        lambda: stage.is_reached(site, process, former) or process.poll() is not None,
        lambda: f"{playbook} {stage.name}",
        PATIENCE,
        stage.pause,
    )
    if process.poll() is None:
        return process
    run = playbooks.finish(process)
    assert stage.is_short, f"{playbook} ended before it was {stage.name}: {run.output}"
    assert run.code == 0, run.output
    return None


def _is_marked(site: Cancelled, _process: subprocess.Popen[str], _former: str) -> bool:
    return site.marker.exists()


def _is_asked(site: Cancelled, _process: subprocess.Popen[str], _former: str) -> bool:
    return site.silence.asked.is_set()


def _has_worker(site: Cancelled, _process: subprocess.Popen[str], _former: str) -> bool:
    return site.temporary.exists() and any(site.temporary.iterdir())


def _has_module(_site: Cancelled, process: subprocess.Popen[str], _former: str) -> bool:
    return any("AnsiballZ_pm2_release" in processes.cmdline(pid) for pid in processes.descendants(process.pid))


def _is_at_the_gate(site: Cancelled, _process: subprocess.Popen[str], former: str) -> bool:
    """The new worker runs: so the old one had to stop."""
    items = [item for item in site.pm2.processes(NAMESPACE) if item["name"] == "worker" and item["pid"]]
    return any(Path(item["pm2_env"]["pm_cwd"]).name != former for item in items)


def _is_switching(site: Cancelled, _process: subprocess.Popen[str], former: str) -> bool:
    return site.is_switching(former)


def _nothing(_site: Cancelled) -> Dict[str, Any]:
    return {}


def _hooked(name: str) -> Callable[[Cancelled], Dict[str, Any]]:
    """A hook that waits."""
    return lambda site: {"deploy_hooks": {name: str(site.hook)}}


def _deaf_git(site: Cancelled) -> Dict[str, Any]:
    return {"deploy_source_type": "git", "deploy_source": f"git://127.0.0.1:{site.silence.port}/app.git"}


def _endless_build(site: Cancelled) -> Dict[str, Any]:
    return {"deploy_build": [["node", "build.js", str(site.marker)]]}


def _migration(site: Cancelled) -> Dict[str, Any]:
    return {"deploy_migrate": [["node", "migration.js", *map(str, (site.marker, site.go, site.done))]]}


WORKER = Stage("at the start of a worker", _nothing, _has_worker, pause=0.002, is_short=True)
MODULE = Stage("at the start of a module", _nothing, _has_module, is_short=True)
FETCH = Stage("in the fetch", _deaf_git, _is_asked)
BUILD = Stage("in the build", _endless_build, _is_marked)
MIGRATE = Stage("in the migration", _migration, _is_marked)
GATE = Stage("at the gate", Cancelled.slow_gate, _is_at_the_gate)
SWITCH = Stage("at the switch", _nothing, _is_switching, goes_on=True, pause=0.001, is_short=True)


def between(hook: str, goes_on: bool = False) -> Stage:
    """Between two tasks of ours."""
    return Stage(hook.replace("_", " "), _hooked(hook), _is_marked, goes_on)
