# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A namespace on the daemon of a test: module calls on it, and what really runs and is written."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, TypeVar
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points

from support import processes
from support.modules import call
from support.pm2 import Pm2Home

Json = Dict[str, Any]
Result = TypeVar("Result")

READY = {"min_uptime": 0.2, "timeout": 60}

PROBE = """\
// Writes down what it was given, and then does what PROBE (words) and signals say.
const fs = require('fs');
const path = require('path');
const { env } = process;
const does = (env.PROBE || '').split(' ');
const directory = path.join(env.PM2_HOME, 'reports');
const report = { argv: process.argv.slice(2), execArgv: process.execArgv, env, cwd: process.cwd(), children: [] };
const note = text => fs.appendFileSync(path.join(directory, process.pid + '.end'), text);

if (does.includes('parent')) report.children = [require('child_process').spawn('sleep', ['1000']).pid];
if (does.includes('stubborn')) process.on('SIGINT', () => {});
if (does.includes('noting')) {
  process.on('message', message => { if (message === 'shutdown') { note('message'); process.exit(0); } });
  process.on('SIGINT', () => { note('signal'); process.exit(0); });
}
const hoard = [];
process.on('SIGUSR2', () => {
  if (does.includes('hoarding')) hoard.push(Buffer.alloc(120 * 1024 * 1024, 1));
  else process.exit(Number(env.EXIT_CODE || 1));
});
report.pmx = Object.keys(require.cache).some(file => /@pm2\\/io|pm2-io-bpm/.test(file));
fs.mkdirSync(directory, { recursive: true });
const file = path.join(directory, String(process.pid));
fs.writeFileSync(file + '.tmp', JSON.stringify(report));
fs.renameSync(file + '.tmp', file + '.json');
process.stdout.write('out ' + process.pid + '\\n');
process.stderr.write('err ' + process.pid + '\\n');
const ready = () => { if (process.send && !fs.existsSync('silent')) process.send('ready'); };
setTimeout(ready, Number(env.READY_AFTER || 0));
setInterval(() => {}, 1 << 30);
"""
"""A Node program for tests. Each of its processes writes `reports/<pid>.json` in the PM2_HOME."""


class Seen(NamedTuple):
    """What must not change if there is nothing to do."""

    pm_id: int
    unique_id: str
    pid: int
    restarts: int
    status: str


def eventually(look: Callable[[], Result], timeout: float = 60.0) -> Result:
    """The first true value that `look` returns, or its last value when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


class Site:
    """A namespace on the daemon of `home`, with a directory for its files."""

    def __init__(self, home: Pm2Home, namespace: str, directory: Path) -> None:
        self.home = home
        self.namespace = namespace
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.probe = directory / "probe.js"
        self.probe.write_text(PROBE)

    # -- module calls

    def run(self, apps: Optional[Sequence[Json]] = None, check: bool = False, diff: bool = True, **more: Any) -> Json:
        """Call pm2_process on this namespace. It has to succeed, or to fail with `expect_failure=True`."""
        expected = bool(more.pop("expect_failure", False))
        params: Json = {
            "namespace": self.namespace,
            "pm2_home": self.home.home,
            "pm2_executable": self.home.executable,
            "ready": READY,
            **more,
        }
        if apps is not None:
            params["apps"] = list(apps)
        result = call("pm2_process", params, check=check, diff=diff)
        assert result["failed"] is expected, result
        return result

    def settled(self, apps: Sequence[Json], **more: Any) -> None:
        """A run that has nothing to do: `changed` is false, nothing is saved, no process is touched."""
        before = self.seen()
        result = self.run(apps, **more)
        assert not result["changed"], result["actions"] or "the dump was written"
        assert not result["saved"]
        assert result["diff"]["before"] == result["diff"]["after"]
        assert self.seen() == before

    def run_killed_at(self, point: str, apps: Optional[Sequence[Json]], **options: Any) -> None:
        """Run pm2_process in its own process, which ends at this point as if by kill -9."""

        def reached(name: str) -> None:
            if name == point:
                os._exit(9)

        child = os.fork()
        if child == 0:
            try:
                with mock.patch.object(_points, "reached", reached):
                    self.run(apps, **options)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, f"it never came to {point}"
        deadline = time.monotonic() + 60  # PM2 still finishes what it was told; a snapshot has to come after that
        before, now = None, self._statuses()
        while now != before or {"launching", "stopping"} & set(now.values()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
            before, now = now, self._statuses()

    def _statuses(self) -> Dict[Any, str]:
        return {(item["pm_id"], item.get("pid")): item["pm2_env"]["status"] for item in self.home.jlist()}

    def app(self, name: str, **more: Any) -> Json:
        """A definition that runs the probe in this site's directory."""
        return {"name": name, "script": str(self.probe), "cwd": str(self.directory), **more}

    # -- what is there

    def processes(self, name: Optional[str] = None) -> List[Json]:
        """The processes of this namespace, or of one of its apps, in the order of the instances."""
        items = self.home.processes(self.namespace)
        found = [item for item in items if name in (None, item["name"])]
        return sorted(found, key=lambda item: (item["name"], str(item["pm2_env"].get("NODE_APP_INSTANCE"))))

    def only(self, name: str) -> Json:
        """The process of an app with one instance."""
        (item,) = self.processes(name)
        return item

    def pid(self, name: str) -> int:
        """The pid of an app with one instance."""
        return int(self.only(name)["pid"])

    def seen(self) -> List[Seen]:
        """All that is compared of the namespace with a later look."""
        return [
            Seen(item["pm_id"], env["unique_id"], item.get("pid") or 0, env["restart_time"], env["status"])
            for item in self.processes()
            for env in (item["pm2_env"],)
        ]

    def report(self, pid: int) -> Json:
        """What the probe of this pid reports."""
        path = Path(self.home.home, "reports", f"{pid}.json")
        assert eventually(path.exists), f"no report of {processes.cmdline(pid)}"
        report: Json = json.loads(path.read_text())
        return report

    def logs(self) -> Iterator[Path]:
        """The text of every log file of the daemon and of this test."""
        yield from Path(self.home.home, "logs").glob("*.log")
        yield from self.directory.parent.rglob("*.log")


def files(home: Pm2Home) -> Dict[str, Any]:
    """The content, mode and change time of every file in PM2_HOME, except pm2.log, the apps' output and pid files."""
    found: Dict[str, Any] = {}
    for path in sorted(Path(home.home).rglob("*")):
        name = str(path.relative_to(home.home))
        if name.partition("/")[0] not in ("pm2.log", "reports", "logs", "pids"):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[name] = (status.st_mode, status.st_mtime_ns, status.st_ino, content)
    return found


def snapshot(home: Pm2Home) -> Dict[str, Any]:
    """All files and all processes, without the keys that PM2 fills in some time after a start."""
    found = files(home)
    late = (
        "axm_monitor",
        "axm_options",
        "axm_actions",
        "axm_dynamic",
        "versioning",
        "version",
        "node_version",
        "vizion_running",
    )
    for item in home.jlist():
        for key, value in [*item["pm2_env"].items(), ("pid", item.get("pid"))]:
            if key not in late:
                found[f"{item['name']} {item['pm_id']} {key}"] = value
    return found


def assert_same(before: Dict[str, Any], after: Dict[str, Any]) -> None:
    """Fail with the differences if anything has changed."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert not names, [(name, before.get(name), after.get(name)) for name in names]


def reasons_of(result: Mapping[str, Any], name: str) -> List[List[str]]:
    """The names of the keys that are the reasons of each action on the app."""
    actions = [action for action in result["actions"] if action["name"] == name]
    return [sorted({reason.partition(":")[0] for reason in action["reasons"]}) for action in actions]


def daemon_of(version: str, directory: Path, **environment: str) -> Iterator[Pm2Home]:
    """A running daemon for a fixture, started with a clean environment and `environment`. It is ended afterwards."""
    home = Pm2Home(version, directory / "pm2")
    home.cli("ping", env=environment)
    yield home
    home.kill()
    survivors = processes.end_all_of(directory)
    assert not survivors, f"still running after SIGKILL: {survivors}"


def fresh_directory(factory: pytest.TempPathFactory) -> Path:
    """A directory with a short name, because the path of a socket may not be long."""
    return factory.mktemp("d")
