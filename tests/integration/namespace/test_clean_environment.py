# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No variable of a shell reaches an app, and no secret of a definition is shown. Canaries prove it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List
from unittest import mock

import pytest
from ansible.module_utils import basic
from support import processes
from support.apps import free_port, http_app
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home
from support.sites import Json, Site, daemon_of, fresh_directory

SHELL = {
    "CI_JOB_TOKEN": "shell-canary-token",
    "AWS_SECRET_ACCESS_KEY": "shell-canary-aws",
    "HTTP_PROXY": "http://user:shell-canary-proxy@127.0.0.1:9",
    "LD_LIBRARY_PATH": "/shell-canary-library",
    "NODE_PATH": "/shell-canary-modules",
    "NODE_APP_INSTANCE": "shell-canary-instance",
    "npm_config_cache": "/shell-canary-npm",
    "PM2_CANARY": "shell-canary-pm2",
    "name": "shell-canary-name",
    "namespace": "shell-canary-namespace",
    "env": "shell-canary-env",
    "SHELL_CANARY": "1",
}
"""Variables that are exported in the shell of ansible-playbook, and so of the module. None may appear anywhere."""

SECRET = "own-canary-\"quoted\"-\\back\\-ünï-'single'"
SECRETS: Json = {
    "API_KEY": "own-canary-key",
    "ODD": SECRET,
    "LINES": "own-canary-first line\nown-canary-second line\n",
    "DATABASE_URL": "postgres://user:own-canary-password@127.0.0.1/db",
    "CONFIG": {"nested": ["own-canary-nested"]},
    "PIN": 4815162342,
}
PATIENT = {"min_uptime": 15, "timeout": 60}
"""Longer than a bad release needs to break on a busy machine."""
SHOWN = re.compile("canary|4815162342", re.IGNORECASE)
"""A pattern that no output may match."""

WRITES_ENVIRONMENT = """\
require('fs').writeFileSync('environment-' + process.env.NODE_APP_INSTANCE, JSON.stringify(process.env));
setInterval(() => {}, 1 << 30);
"""
BREAKS = """\
console.error(process.env);
console.error(JSON.stringify(process.env));
for (const [name, value] of Object.entries(process.env)) console.error(name + '=' + value);
console.error(process.argv);
throw new Error('cannot connect to ' + process.env.DATABASE_URL);
"""
ECOSYSTEM = """\
require('fs').writeFileSync(__dirname + '/evaluated', JSON.stringify(process.env));
const args = ['--token', 'own-canary-arg'];
module.exports = { apps: [{ name: 'filed', script: 'app.js', cwd: __dirname, env: %s, args }] };
"""


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    """A running daemon of each version for all tests of this file."""
    yield from daemon_of(request.param, fresh_directory(tmp_path_factory))


@pytest.fixture
def site(home: Pm2Home, tmp_path: Path) -> Iterator[Site]:
    """An empty namespace with some programs, emptied afterwards."""
    site = Site(home, "clean", tmp_path / "site")
    _write_programs(site.directory)
    yield site
    site.run(state="absent")


def _write_programs(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "app.js").write_text(WRITES_ENVIRONMENT)
    (directory / "bad.js").write_text(BREAKS)
    (directory / "ecosystem.config.js").write_text(ECOSYSTEM % json.dumps(SECRETS))
    (directory / "bad.config.js").write_text("throw new Error(JSON.stringify(process.env));\n")


def _apps(directory: Path, **more: Any) -> List[Json]:
    common = {"script": "app.js", "cwd": str(directory), "env": SECRETS, "args": ["--token", "own-canary-arg"]}
    return [
        {"name": "fork", **common, **more},
        {"name": "cluster", **common, "exec_mode": "cluster", "instances": 2, **more},
    ]


# -- the shell of controller and target, by a real ansible-playbook


@pytest.fixture(scope="module", params=VERSIONS)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Played"]:
    """A playbook that ran with canaries in its shell, and the daemon it left."""
    directory = fresh_directory(tmp_path_factory)
    home = Pm2Home(request.param, directory / "pm2")
    yield Played(home, directory)
    home.kill()
    assert not processes.end_all_of(directory)


class Played:
    """All that the modules do, on a PM2_HOME that had no daemon. `output` is all output of ansible-playbook."""

    def __init__(self, home: Pm2Home, directory: Path) -> None:
        self.home = home
        self.directory = directory / "apps"
        _write_programs(self.directory)
        port = free_port()
        server = http_app(directory / "server")
        web = {
            "name": "web",
            "script": server,
            "cwd": str(directory),
            "exec_mode": "cluster",
            "env": {"PORT": port, **SECRETS},
        }
        check = {"url": f"http://user:own-canary-url@127.0.0.1:{port}/", "headers": {"X-Token": "own-canary-header"}}
        first = _apps(self.directory)
        changed = _apps(self.directory, env={**SECRETS, "API_KEY": "own-canary-changed", "NEW": "own-canary-new"})
        bad = [{**app, "script": "bad.js"} for app in first]
        good: List[Json] = [
            {"apps": first},
            {"apps": first},
            {"apps": changed},
            {"apps": [web], "ready": {"min_uptime": 0.1, "http": [check]}},
            {"ecosystem": str(self.directory / "ecosystem.config.js")},
            {"state": "restarted", "names": ["fork"]},
            {"state": "stopped", "names": ["filed"]},
        ]
        wrong: List[Json] = [
            {"apps": bad[:1], "ready": PATIENT},
            {"apps": bad[1:], "ready": PATIENT},
            {
                "apps": [web],
                "ready": {"timeout": 5, "min_uptime": 0.1, "http": [{**check, "status": [201]}]},
                "state": "reloaded",
            },
            {"ecosystem": str(self.directory / "bad.config.js")},
            {"apps": first, "state": "wrong"},
        ]
        tasks = [self._task(number, options, False) for number, options in enumerate(good)]
        tasks += [self._task(number, options, True) for number, options in enumerate(wrong, len(good))]
        common = {"pm2_home": home.home}
        tasks += [
            {"name": "saved", "nodeops.pm2.pm2_save": {"namespace": "clean", **common}, "register": "saved"},
            {"name": "looked", "nodeops.pm2.pm2_info": common, "register": "info"},
            {"name": "told", "ansible.builtin.debug": {"msg": "{{ saved }} {{ info }}"}},
        ]
        play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        playbook = directory / "play.json"
        playbook.write_text(json.dumps([play]))
        (directory / "ansible.cfg").write_text("[defaults]\n")
        self.done = subprocess.run(
            ["ansible-playbook", "-vvv", "--diff", "-i", "localhost,", "-c", "local", str(playbook)],
            env={
                **os.environ,
                **SHELL,
                "PATH": os.environ["PATH"] + ":/shell-canary-path",
                "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_LOG_PATH": str(directory / "ansible.log"),
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        self.output = self.done.stdout + self.done.stderr + (directory / "ansible.log").read_text()
        self.failures = len(wrong)

    def _task(self, number: int, options: Json, fails: bool) -> Json:
        params = {
            "namespace": "clean",
            "pm2_home": self.home.home,
            "pm2_executable": self.home.executable,
            "ready": {"min_uptime": 0.3, "timeout": 20},
            **options,
        }
        task: Json = {"name": f"task {number}", "nodeops.pm2.pm2_process": params, "ignore_errors": fails}
        if fails:
            task["register"] = "result"
        return task


def test_playbook_ran(played: Played) -> None:
    """The tasks that should succeed did, and the others failed for the intended reasons."""
    assert played.done.returncode == 0, played.output[-3000:]
    recap = re.search(r"ok=(\d+) +changed=(\d+) .*failed=(\d+) .*ignored=(\d+)", played.done.stdout)
    assert recap
    assert (recap.group(3), recap.group(4)) == ("0", str(played.failures))
    for reason in ("error_log", "answered 200, expected 201", "bad.config.js", "value of state must be one of"):
        assert reason in played.output, reason


def test_playbook_shows_no_secret(played: Played) -> None:
    """ansible-playbook -vvv --diff and its log show no value of the shell, and none of a definition."""
    assert _matches(played.output) == []


def test_shell_reaches_no_process(played: Played) -> None:
    """Neither the daemon nor an app nor their children: in /proc/PID/environ, and in the environment that Node has."""
    (daemon,) = played.home.daemon_pids()
    pids = {daemon, *processes.descendants(daemon)}
    running = {item["pid"] for item in played.home.jlist() if item.get("pid")}
    assert len(running) >= 4
    assert running < pids
    for pid in pids:
        assert b"shell-canary" not in processes.read(pid, "environ").lower(), processes.cmdline(pid)
    seen = [*played.directory.glob("environment-*"), played.directory / "evaluated"]
    assert len(seen) == 3
    assert all("shell-canary" not in path.read_text().lower() for path in seen)


def test_shell_reaches_no_file(played: Played) -> None:
    """Neither the dump, the logs (the bad release prints its environment), the state, nor the daemon's list."""
    files = [path for path in Path(played.home.home).rglob("*") if path.is_file()]
    assert played.home.dump in files
    for path in files:
        assert b"shell-canary" not in path.read_bytes().lower(), path
    assert "shell-canary" not in json.dumps(played.home.jlist()).lower()
    assert any(b"own-canary" in path.read_bytes() for path in files if path.suffix == ".log"), "nothing was printed"


def test_secrets_are_private(played: Played) -> None:
    """Only the owner can read files with secrets. The app's own logs are not ours to protect."""
    for path in Path(played.home.home).rglob("*"):
        if path.is_file() and path.suffix != ".log" and b"canary" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


def _matches(text: str) -> List[str]:
    return [text[max(0, match.start() - 80) : match.end() + 20] for match in SHOWN.finditer(text)]


# -- results of the modules, call by call


def _shown(site: Site, options: Json, check: bool = False) -> Json:
    """The result of a call, in which no canary may be."""
    params = {
        "namespace": site.namespace,
        "pm2_home": site.home.home,
        "pm2_executable": site.home.executable,
        "ready": {"min_uptime": 0.2, "timeout": 20},
        **options,
    }
    result = call("pm2_process", params, check=check, diff=True)
    assert _matches(json.dumps(result, ensure_ascii=False)) == [], options
    assert _matches(str(result)) == [], options
    return result


def test_results(site: Site) -> None:
    """Success, check mode, and releases that print their environment and arguments when they fail."""
    good = _apps(site.directory)
    for check in (True, False):
        assert _shown(site, {"apps": good}, check)["changed"]
    for number, (name, script) in enumerate((("fork", "bad.js"), ("cluster", "bad.js"))):
        bad = [{**good[number], "script": script}]
        result = _shown(site, {"apps": bad, "ready": PATIENT})
        assert result["failed"], name
        assert result["rolled_back"] is True
        assert "cannot connect to" in str(result["error_log"]), "its output is shown, without values"
    command = {"name": "line", "script": "echo --token own-canary-in-line >&2; exit 3", "cwd": "/"}
    result = _shown(site, {"apps": [command], "ready": PATIENT})
    assert result["failed"]
    for module in ("pm2_info", "pm2_save"):
        told = call(module, {"pm2_home": site.home.home, **({"namespace": "clean"} if module == "pm2_save" else {})})
        assert not told["failed"]
        assert _matches(json.dumps(told)) == []


CANARY = "own-canary-value"
WRONG: Dict[str, Json] = {
    "wrong state": {"state": "wrong", "apps": [{"name": "a", "env": {"A": CANARY}, "args": CANARY}]},
    "apps is a string": {"apps": CANARY},
    "apps is JSON": {"apps": json.dumps([{"name": "a", "env": {"A": CANARY}}, CANARY])},
    "apps is a mapping": {"apps": {"a": {"env": {"A": CANARY}}}},
    "an app is a string": {"apps": [CANARY]},
    "an app is a list": {"apps": [[CANARY]]},
    "env is a string": {"apps": [{"name": "a", "script": "/bin/sleep", "env": f"A={CANARY}"}]},
    "env is a list": {"apps": [{"name": "a", "script": "/bin/sleep", "env": [CANARY]}]},
    "a name that is a key": {"apps": [{"name": "a", "script": "/bin/sleep", "env": {"autorestart": CANARY}}]},
    "a NUL in a value": {"apps": [{"name": "a", "script": "/bin/sleep", "env": {"A": CANARY + "\0"}}]},
    "args is a mapping": {"apps": [{"name": "a", "script": "/bin/sleep", "args": {"token": CANARY}}]},
    "an argument is a mapping": {"apps": [{"name": "a", "script": "/bin/sleep", "args": [{"token": CANARY}]}]},
    "io is a string": {"apps": [{"name": "a", "script": "/bin/sleep", "io": CANARY}]},
    "a key that is unknown": {"apps": [{"name": "a", "script": "/bin/sleep", "secrets": {"A": CANARY}}]},
    "an alias given twice": {"apps": [{"name": "a", "script": "/bin/sleep", "node_args": [CANARY], "nodeArgs": ["x"]}]},
    "a command line with args": {"apps": [{"name": "a", "script": f"curl {CANARY}", "args": ["x"], "cwd": "/"}]},
    "a script that is not there": {"apps": [{"name": "a", "script": "/none", "env": {"A": CANARY}, "args": [CANARY]}]},
    "an option that is unknown": {"apps": [{"name": "a", "script": "/bin/sleep"}], "env": {"A": CANARY}},
    "options that exclude each other": {"apps": [{"name": "a", "env": {"A": CANARY}}], "ecosystem": "/none"},
    "max_affected is not a number": {"apps": [{"name": "a", "env": {"A": CANARY}}], "max_affected": "many"},
    "http is a string": {"apps": [{"name": "a", "script": "/bin/sleep"}], "ready": {"http": CANARY}},
    "a check is a string": {"apps": [{"name": "a", "script": "/bin/sleep"}], "ready": {"http": [CANARY]}},
    "a check without url": {"apps": [{"name": "a"}], "ready": {"http": [{"headers": {"A": CANARY}}]}},
    "headers is a string": {"apps": [{"name": "a"}], "ready": {"http": [{"url": "http://h/", "headers": CANARY}]}},
    "a password in a bad URL": {"apps": [{"name": "a"}], "ready": {"http": [{"url": f"ftp://u:{CANARY}@h/"}]}},
    "a token in a URL": {"apps": [{"name": "a"}], "ready": {"http": [{"url": f"http://h:99999/?token={CANARY}"}]}},
    "ready is a string": {"apps": [{"name": "a", "script": "/bin/sleep"}], "ready": CANARY},
}


@pytest.mark.parametrize("title", WRONG)
def test_refusals(pm2_7: Pm2Home, tmp_path: Path, title: str) -> None:
    """Refused input of every kind is not shown, and nothing is started."""
    result = _shown(Site(pm2_7, "wrong", tmp_path / "site"), WRONG[title])
    assert result["failed"]
    assert pm2_7.daemon_pids() == []


@pytest.mark.parametrize("ending", ["js", "cjs", "json", "yml"])
def test_broken_ecosystem_files(pm2_7: Pm2Home, tmp_path: Path, ending: str) -> None:
    """The message does not quote a file with secrets that cannot be parsed."""
    site = Site(pm2_7, "wrong", tmp_path / "site")
    texts = {
        "js": f"module.exports = {{ apps: [{{ name: 'a', env: {{ A: '{CANARY}' }} , }}] ;\n",
        "cjs": f"const secret = '{CANARY}'; throw new Error('no database');\n",
        "json": f'{{"apps": [{{"name": "a", "env": {{"A": "{CANARY}" "B"}}}}]}}',
        "yml": f"apps:\n  - name: a\n    env: {{A: {CANARY}: x}}\n",
    }
    path = tmp_path / f"ecosystem.config.{ending}"
    path.write_text(texts[ending])
    assert _shown(site, {"ecosystem": str(path)})["failed"]


# -- the system's log, and the arguments of programs

_watched: List[str] = []
_watching = False


def _audit(event: str, arguments: Any) -> None:
    if _watching and event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        _watched.append(str(arguments[:2]))


sys.addaudithook(_audit)


def test_system_log_and_arguments(site: Site) -> None:
    """No value of a call reaches syslog or the journal, and no program gets a secret in its arguments."""
    global _watching
    logged: List[str] = []
    _watched.clear()

    def log(_module: Any, message: str, log_args: Any = None) -> None:
        logged.append(f"{message} {log_args}")

    _watching = True
    try:
        with (
            mock.patch.object(basic.AnsibleModule, "log", log),
            mock.patch("syslog.syslog", logged.append),
        ):
            site.home.kill()  # so that a daemon is started
            assert _shown(site, {"apps": _apps(site.directory)})["changed"]
            assert _shown(site, {"ecosystem": str(site.directory / "ecosystem.config.js")})["changed"]
            assert _shown(site, {"apps": [{**_apps(site.directory)[0], "script": "bad.js"}], "ready": PATIENT})[
                "failed"
            ]
            assert _shown(site, {"state": "wrong", "apps": _apps(site.directory)})["failed"]
    finally:
        _watching = False
    assert len(_watched) >= 2, "a daemon and node should have been started"
    assert _matches(str(_watched)) == []
    assert _matches(str(logged)) == []
    evaluated = json.loads((site.directory / "evaluated").read_text())
    assert set(evaluated) <= {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "SHLVL", "LANG", "PM2_HOME"}
