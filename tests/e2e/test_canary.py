# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets from every place a deploy takes them from: who may see them does, and nobody else, also when things fail.

Core: a life with secrets, with a rollback that fails (30 s: five runs of ansible-playbook). Full: each way to fail.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple
from urllib.parse import quote

import pytest
from support import playbooks
from support.git_server import GitServer, Repository, Watcher, serving
from support.load import get
from support.playbooks import Run, Site
from support.pm2 import Pm2Home

pytestmark = pytest.mark.timeout(900)  # seconds; many runs of ansible-playbook, and other tests beside them

SECRETS = {
    "env of a process": "canary-process-5d1c77",
    "vault": "canary-vault/8e20+f1",
    "number in the vault": "730482915566",
    "line of a key in the vault": "Y2FuYXJ5a2V5bGluZQ90aa",
    "inside JSON in the vault": "canary-json-77ab01",
    "password in a URL in the vault": "canary-dburl-31c9e4",
    "password of the repository": "canary-git-0b77d2",
    "deploy key": "Y2FuYXJ5ZGVwbG95a2V541",
    "build environment": "canary-build-c4a1f9",
    "header of a check": "canary-header-9e03b6",
}
VAULTED = {
    "API_SECRET": SECRETS["vault"],
    "PIN": int(SECRETS["number in the vault"]),
    "SIGNING_KEY": f"-----BEGIN KEY-----\n{SECRETS['line of a key in the vault']}\nsecond\n-----END KEY-----",
    "CREDENTIALS": json.dumps({"token": SECRETS["inside JSON in the vault"]}),
    "DATABASE_URL": f"postgres://shop:{SECRETS['password in a URL in the vault']}@db/shop",
}
DEPLOY_KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRETS['deploy key']}\n-----END OPENSSH PRIVATE KEY-----"
USERINFO = f"deploy:{SECRETS['password of the repository']}"

# What it prints at its start, and how it answers, is said by a file, so that one release can be good and then bad.
APP = """\
const fs = require('fs');
const mode = fs.readFileSync(process.env.MODE_FILE, 'utf8').trim();
const known = () => [JSON.stringify(process.env), fs.readFileSync('.env', 'utf8'), ...Object.values(process.env)];
if (mode === 'crash') {
  for (const line of known()) console.error(line);
  console.error('the end of what it said');
  process.exit(1);
}
require('http').createServer((request, response) => {
  const asks = request.url === '/health';
  const all = JSON.stringify({ headers: request.headers, known: known() });
  const isGood = !asks || request.headers['x-check'] === fs.readFileSync('header.txt', 'utf8');
  response.statusCode = asks && (mode === '500' || !isGood) ? 500 : 200;
  response.end(!asks || mode === 'json' || mode === '500' ? all : '{"status": "ok"}');
}).listen(process.env.PORT, '127.0.0.1');
"""

# Prints all it knows, in several forms.
TELL = """\
const fs = require('fs');
console.log(JSON.stringify(process.env));
for (const value of Object.values(process.env)) console.log('value: ' + value, encodeURIComponent(value));
console.error(fs.readFileSync('.env', 'utf8'));
console.error('the end of what it said');
process.exit(5);
"""

# What ansible-runner, AWX and log collectors get: every result as it is.
CALLBACK = """\
import json, os
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "notification", "everything"
    CALLBACK_NEEDS_ENABLED = False

    def note(self, kind, content):
        with open(os.environ["CANARY_RESULTS"], "a") as stream:
            stream.write(kind + " " + json.dumps(content, default=repr) + "\\n")

    def v2_runner_on_ok(self, result):
        self.note("ok", result._result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.note("failed", result._result)

    def v2_runner_on_skipped(self, result):
        self.note("skipped", result._result)

    def v2_runner_item_on_ok(self, result):
        self.note("item", result._result)

    def v2_runner_item_on_failed(self, result):
        self.note("item failed", result._result)

    def v2_on_file_diff(self, result):
        self.note("diff", result._result)

    def v2_playbook_on_stats(self, stats):
        self.note("stats", stats.custom)
"""

# Where a module of Ansible sends its line for the system's log.
JOURNAL = """\
import os

def sendv(*fields):
    with open(os.environ["CANARY_JOURNAL"], "a") as stream:
        stream.write(repr(fields) + "\\n")

def send(*arguments, **fields):
    sendv(arguments, fields)
"""


class Spied(Site):
    """A site with secrets from everywhere, all of whose runs are listened to."""

    def __init__(self, pm2: Pm2Home, directory: Path, server: GitServer) -> None:
        self.server = server
        self.mode = directory / "mode"
        self.mode.write_text("good")
        self.outputs: List[str] = []
        self.repository = Repository(directory / "origin" / "shop")
        super().__init__(pm2, directory)
        self._password = directory / "vault-password"
        self._password.write_text("open sesame")
        self.vault(deploy_environment=VAULTED, deploy_git_key=DEPLOY_KEY)
        spies = {"callback/everything.py": CALLBACK, "lib/systemd/journal.py": JOURNAL, "lib/systemd/__init__.py": ""}
        for name, text in {**spies, "lib/systemd/daemon.py": "def booted():\n    return True\n"}.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.heard: Dict[str, str] = {}

    def release(self, version: str, **_options: Any) -> None:
        """A commit of the application."""
        example = "".join(f"{name}=\n" for name in VAULTED)
        header = SECRETS["header of a check"]
        program = {"app.js": APP, "tell.js": TELL, "header.txt": header}
        self.repository.commit(**program, **{"version": version, "example.env": example})

    def vault(self, **variables: Any) -> None:
        """Write the encrypted variables of the inventory."""
        self.vaults({"group_vars/all.json": variables})

    def vaults(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Write several files of encrypted variables."""
        paths = [self.directory / name for name in files]
        for path, variables in zip(paths, files.values(), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(variables))
        command = ["ansible-vault", "encrypt", "--vault-password-file", str(self._password), *map(str, paths)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        assert all(path.read_text().startswith("$ANSIBLE_VAULT;") for path in paths)

    def describe(self, name: str) -> Dict[str, Any]:
        """The variables of the environment."""
        port = self.ports[name]
        env = {"PORT": port, "MODE_FILE": str(self.mode), "TOKEN": SECRETS["env of a process"]}
        check = {"url": f"http://127.0.0.1:{port}/health", "headers": {"X-Check": SECRETS["header of a check"]}}
        return {
            **super().describe(name),
            "deploy_source_type": "git",
            "deploy_source": self.server.url("shop/.git", f"{USERINFO}@"),
            "deploy_environment_file": ".env",
            "deploy_contract": {"example": "example.env"},
            "deploy_build": [["node", "--version"]],
            "deploy_build_environment": {"NPM_TOKEN": SECRETS["build environment"]},
            "deploy_processes": [{"name": "api", "script": "app.js", "env": env}],
            "deploy_ready": {"timeout": playbooks.GATE, "min_uptime": 0.3, "http": [check]},
        }

    def play(self, playbook: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
        """Run a playbook, as loud as one does to find a mistake, and look who can hear a secret."""
        told = {name: self.directory / f"heard-{name}" for name in ("results", "journal", "log")}
        temporary = self.directory / "remote-tmp"
        spies = {
            "ANSIBLE_CALLBACK_PLUGINS": str(self.directory / "callback"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self._password),
            "ANSIBLE_LOG_PATH": str(told["log"]),
            "ANSIBLE_REMOTE_TEMP": str(temporary),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "local-tmp"),
            "CANARY_RESULTS": str(told["results"]),
            "CANARY_JOURNAL": str(told["journal"]),
            "PYTHONPATH": str(self.directory / "lib"),
        }
        for path in told.values():
            path.write_text("")
        with Watcher(pause=0.05) as watcher:
            run = playbooks.run(playbook, self.inventory, "-vvv", "--diff", *arguments, environment=spies)
        self.heard = {"output": run.output, "argv": "\n".join(watcher.seen)}
        self.heard.update({name: path.read_text() for name, path in told.items()})
        for name, text in self.heard.items():
            assert leaks(text) == [], f"in {name}"
        self.look_for_traces()
        return run

    def look_for_traces(self) -> None:
        """On the disk a secret is only where it has to be, and there nobody else can read it."""
        for top in (self.root(), Path(self.pm2.home), self.directory / "remote-tmp", self.directory / "local-tmp"):
            for path in top.rglob("*"):
                if not path.is_file() or path.is_symlink() or path.parent.name == "logs":  # the app's own
                    continue
                with contextlib.suppress(FileNotFoundError):  # a file that lives for a moment
                    found = leaks(path.read_text(errors="replace"))
                    assert not found or self._belongs_there(path), f"{path} holds {found}"

    def _belongs_there(self, path: Path) -> bool:
        if path.name == "header.txt" or path.suffix == ".pack":  # the test's own, committed
            return True
        is_private = stat.S_IMODE(path.stat().st_mode) == 0o600
        is_dump = path.name in ("dump.pm2", "dump.pm2.bak") and str(path.parent) == self.pm2.home
        is_definition = path.parent == self.root() / ".nodeops" / "definitions"
        return is_private and (is_dump or is_definition or path.name == ".env")


def leaks(text: str) -> List[str]:
    """The secrets that a text holds, in whatever form."""
    found = []
    for name, secret in SECRETS.items():
        encoded = {base64.b64encode(text.encode()).decode().rstrip("=") for text in (secret, f"deploy:{secret}")}
        if any(form in text for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], *encoded}):
            found.append(name)
    return found


@pytest.fixture
def site(pm2_7: Pm2Home, tmp_path: Path) -> Iterator[Spied]:
    with serving(tmp_path / "origin", USERINFO) as server:
        yield Spied(pm2_7, tmp_path, server)


def test_a_life_with_secrets(site: Spied) -> None:
    """Deploys that go well, in check mode too; what is rotated; a rollback that fails."""
    site.deployed("--check")
    hook = site.directory / "hook.yml"
    hook.write_text("[{ansible.builtin.command: {argv: [sleep, '3.141']}}]")
    site.write_inventory(deploy_hooks={"after_prepare": str(hook)})
    site.deployed()
    assert "Invoked with" in site.heard["journal"]  # all ears are open
    assert "sleep 3.141" in site.heard["argv"]
    assert '"former"' in site.heard["results"]
    assert "PLAY RECAP" in site.heard["log"]
    site.write_inventory()
    (environment,) = [item["pm2_env"] for item in site.pm2.processes("production")]
    assert environment["TOKEN"] == SECRETS["env of a process"]
    assert environment["API_SECRET"] == SECRETS["vault"]
    assert SECRETS["line of a key in the vault"] in (site.root() / "current" / ".env").read_text()
    assert len(leaks(get(site.ports["production"]))) >= 6  # it does have them
    first = site.current()

    processes = site.describe("production")["deploy_processes"]
    processes[0]["env"]["TOKEN"] = "rotated"
    site.write_inventory(deploy_processes=processes)
    assert "env.TOKEN" in site.deployed().output

    site.release("2")
    site.deployed()
    second = site.current()
    assert second != first
    site.mode.write_text("crash")
    run = site.play("rollback")
    assert run.code == 2
    assert site.current() == second
    assert "the end of what it said" in run.output


@pytest.mark.full
def test_what_finds_nothing_to_do_and_what_goes_back(site: Spied) -> None:
    site.deployed()
    first = site.current()
    assert site.deployed().changed == set()
    site.release("2")
    site.deployed()
    assert site.play("rollback").code == 0
    assert site.current() == first


@pytest.mark.full
def test_secrets_that_only_the_file_holds(site: Spied) -> None:
    """Not in the environment of the processes: a release that crashes prints them, also one that was live before."""
    site.write_inventory(deploy_environment_processes=False)
    site.deployed()
    site.release("2")
    site.mode.write_text("crash")
    run = site.refused()
    assert "the end of what it said" in run.output
    site.mode.write_text("good")
    site.deployed()
    site.mode.write_text("crash")
    run = site.play("rollback")
    assert run.code == 2
    assert "the end of what it said" in run.output


@pytest.mark.full
def test_secrets_when_something_fails(site: Spied) -> None:
    site.deployed()
    tell = {"deploy_build": [["node", "tell.js"]]}
    rules = {"example": "example.env", "rules": {name: {"min_length": 500} for name in VAULTED}}
    weak = {"weak": list(map(str, VAULTED.values())), "rules": {name: {"base64_bytes": 7} for name in VAULTED}}
    wrong = site.server.url("shop/.git", "deploy:canary-git-0b77d2-wrong@")
    expect = site.describe("production")["deploy_ready"]
    expect["http"][0]["expect"] = "status == 'fine'"
    cases: Dict[str, Any] = {
        "the build prints them": ("good", tell, "the end of what it said"),
        "they are too short": ("good", {"deploy_contract": rules}, "API_SECRET is too short"),
        "they are weak": ("good", {"deploy_contract": weak}, "SIGNING_KEY is not base64"),
        "the app crashes and prints them": ("crash", {}, "the end of what it said"),
        "the health check answers with them": ("500", {}, "answered 500"),
        "the health check answers wrong JSON with them": ("json", {"deploy_ready": expect}, "status == 'fine'"),
        "git is refused": ("good", {"deploy_source": wrong}, "access was refused"),
    }
    for name, (mode, variables, words) in cases.items():
        site.release(name)
        site.mode.write_text(mode)
        site.write_inventory(**variables)
        run = site.refused()
        assert words in run.output, name


WRONG: List[Tuple[Dict[str, Any], str]] = [
    ({"deploy_environment": [VAULTED]}, "deploy_environment"),
    ({"deploy_environment": SECRETS["vault"]}, "deploy_environment"),
    ({"deploy_environment": VAULTED["PIN"]}, "deploy_environment"),
    ({"deploy_environment": {**VAULTED, "OTHER": "{{ undefined_here }}"}}, "undefined_here"),
    ({"deploy_environment": {**VAULTED, "not a name": SECRETS["vault"]}}, "not a name"),
    ({"deploy_environment": {**VAULTED, "NUL": SECRETS["vault"] + "\0"}}, "NUL"),
    ({"deploy_build_environment": [SECRETS["build environment"]]}, "deploy_build_environment"),
    ({"deploy_git_key": SECRETS["vault"]}, "private key"),
    ({"deploy_processes": SECRETS["vault"]}, "deploy_processes"),
    ({"deploy_processes": [f"api TOKEN={SECRETS['vault']}"]}, "deploy_processes"),
    ({"deploy_processes": [f"TOKEN={SECRETS['vault']}"]}, "TOKEN"),
    ({"deploy_processes": [{"name": "api", "script": "app.js", "env": SECRETS["vault"]}]}, "env"),
    ({"deploy_processes": [{"name": "api", "script": "app.js", "env": [SECRETS["vault"]]}]}, "env"),
    ({"deploy_processes": [{"name": "api", "script": "app.js", "enviroment": VAULTED}]}, "enviroment"),
    ({"deploy_processes": [{"name": "api", "script": "app.js", "env": {"cwd": SECRETS["vault"]}}]}, "cwd"),
    ({"deploy_ready": {"http": [{"url": "http://h/", "headers": SECRETS["vault"]}]}}, "headers"),
    ({"deploy_ready": {"http": [{"url": "http://h/", "headers": {"X": SECRETS["vault"] + "\n"}}]}}, "header"),
    ({"deploy_ready": {"http": [{"url": "http://h/", "header": {"X": SECRETS["vault"]}}]}}, "header"),
    ({"deploy_source": f"deploy:{SECRETS['vault']}@git.example.org:x"}, "a name and a password"),
    ({"deploy_ready": {"http": [{"url": f"http://deploy:/{SECRETS['vault']}@h/"}]}}, "ready.http url 'http://...'"),
    ({"deploy_source": f"https://deploy:/{SECRETS['vault']}@git.example.org/x"}, "https://... is not a usable URL"),
    ({"deploy_source": f"ftp://deploy:{SECRETS['vault']}@git.example.org/x"}, "ftp"),
]
"""Variables, and words of the message that refuses them."""


@pytest.mark.full
def test_secrets_in_variables_of_the_wrong_form(site: Spied) -> None:
    """Each on a host that is a fleet of its own; nothing is deployed to any."""
    hosts, files = {}, {"group_vars/all.json": {"deploy_environment": VAULTED, "deploy_git_key": DEPLOY_KEY}}
    for number, (vaulted, _words) in enumerate(WRONG):
        own = {"deploy_fleet": f"f{number}", "pm2_namespace": f"n{number}", "deploy_root": str(site.root(f"n{number}"))}
        described = {**site.describe("production"), **own}
        hosts[f"h{number}"] = {name: value for name, value in described.items() if name not in vaulted}
        files[f"host_vars/h{number}.json"] = vaulted
    site.inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    site.vaults(files)
    run = site.play("deploy")
    assert run.code == 2, run.output
    assert "Traceback" not in run.output
    for number, (_vaulted, words) in enumerate(WRONG):
        told = "".join(re.findall(rf"^fatal: \[h{number}\]:.*?(?=^[^\s}}]|\Z)", run.output, re.M | re.S))
        assert words in told, f"{words!r} is not in: {told}"
        assert not (site.root(f"n{number}") / "current").exists()
    assert os.listdir(site.pm2.home) == []
