"""The demo's directories, its PM2 daemon as PM2's own tools show it, and its runs of `ansible-playbook`."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from support import processes
from support.apps import free_port
from support.pm2 import SOCKET_PATH_LIMIT

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(os.environ.get("DEMO_DIR") or ROOT / ".cache" / "demo")  # the tests set DEMO_DIR
PM2_HOME = DEMO / "pm2"
PM2 = ROOT / ".cache" / "pm2" / "7.0" / "node_modules" / ".bin" / "pm2"
LOGS = DEMO / "logs"
CONFIG = DEMO / "ansible.cfg"  # empty, so that no configuration of this machine is used
SETTINGS = DEMO / "settings.json"  # what the inventory cannot know: the demo's directory and free ports
ENVIRONMENTS = ("production", "test")


def relative(path: Path) -> str:
    """A path relative to the checkout."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


class Process(NamedTuple):
    """One process of PM2's list."""

    namespace: str
    name: str
    instance: int
    pm_id: int
    pid: int
    restarts: int
    status: str

    @property
    def slot(self) -> tuple[str, str, int]:
        """The identity that a replaced process keeps."""
        return (self.namespace, self.name, self.instance)


class View(NamedTuple):
    """The state at one moment, as PM2 and its dump file have it."""

    processes: List[Process]
    dump: Dict[str, List[str]]  # namespace -> its complete entries

    def of(self, environment: str) -> List[Process]:
        """The processes of an environment."""
        return [process for process in self.processes if process.namespace == f"shop-{environment}"]

    def saved(self, environment: str) -> List[str]:
        """The dump's entries of an environment."""
        return self.dump.get(f"shop-{environment}", [])


def look() -> View:
    """Run `pm2 jlist`, and read dump.pm2."""
    listed = json.loads(_pm2("jlist")) if daemon_answers() else []
    found = [
        Process(
            item["pm2_env"]["namespace"],
            item["name"],
            int(item["pm2_env"].get("NODE_APP_INSTANCE", 0)),
            item["pm_id"],
            item["pid"],
            item["pm2_env"]["restart_time"],
            item["pm2_env"]["status"],
        )
        for item in listed
    ]
    dump: Dict[str, List[str]] = {}
    dump_file = PM2_HOME / "dump.pm2"
    for entry in json.loads(dump_file.read_text()) if dump_file.exists() else []:
        dump.setdefault(entry["namespace"], []).append(json.dumps(entry, sort_keys=True))
    return View(sorted(found, key=lambda process: process.slot), dump)


def live_release(environment: str) -> Optional[str]:
    """The release that `current` names."""
    link = DEMO / environment / "current"
    return link.resolve().name if link.is_symlink() else None


def backups(environment: str) -> List[Dict[str, Any]]:
    """The manifests of an environment's backups, the oldest first."""
    found = [json.loads(path.read_text()) for path in (DEMO / "backups" / environment).glob("*/manifest.json")]
    return sorted(found, key=lambda manifest: int(manifest["sequence"]))


def manifests(environment: str) -> Dict[str, Dict[str, Any]]:
    """The manifests of an environment's releases, by version."""
    found = (DEMO / environment / "releases").glob("*/.nodeops-release.json")
    return {manifest["version"]: manifest for manifest in (json.loads(path.read_text()) for path in found)}


def history(environment: str) -> List[Dict[str, Any]]:
    """The lines of an environment's deploys.jsonl."""
    return [json.loads(line) for line in (DEMO / environment / "deploys.jsonl").read_text().splitlines()]


class Run(NamedTuple):
    """A finished ansible-playbook."""

    ok: bool
    changed: int  # tasks
    seconds: float
    log: Path
    summary: str  # the host's line in the play's summary
    message: str  # why it failed
    results: Dict[str, Any]  # the host's results for a pipeline (set_stats)


def command(playbook: str, environment: str, variables: Dict[str, str]) -> List[str]:
    """The command that runs a shipped playbook for one environment."""
    words = ["ansible-playbook", f"nodeops.pm2.{playbook}", "-i", "inventories/local", "--limit", environment]
    words += ["-e", f"@{relative(SETTINGS)}"]
    for name, value in variables.items():
        words += ["-e", f"{name}={value}" if " " not in value else json.dumps({name: value})]
    return words


def run(label: str, words: List[str]) -> Run:
    """Run an ansible-playbook. Its output goes to its own log file."""
    log = LOGS / f"{len(list(LOGS.glob('*.log'))) + 1:02}-{label}.log"
    started = time.monotonic()
    with log.open("w") as stream:
        print(f"$ {shlex.join(words)}\n", file=stream, flush=True)
        code = subprocess.run(
            words,
            cwd=ROOT,
            env=_ansible_environment(),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        ).returncode
    output = log.read_text()
    recap = re.search(r"^shop-\w+ .*changed=(\d+)", output, re.M)
    summary = re.search(r"^TASK \[.* : Sum up\].*?^ +(\"shop-.*\")$", output, re.M | re.S)
    failure = re.search(
        r'^fatal: .*?"msg": ("(?:Deploying|Rolling back|Backing up|Restoring|Undoing)(?:[^"\\]|\\.)*")', output, re.M
    )
    return Run(
        code == 0,
        int(recap.group(1)) if recap else -1,
        time.monotonic() - started,
        log,
        json.loads(summary.group(1)) if summary else "",
        json.loads(failure.group(1)) if failure else "",
        _results(output),
    )


def _results(output: str) -> Dict[str, Any]:
    _before, title, after = output.partition("\tRUN: ")  # below CUSTOM STATS
    told: Dict[str, Dict[str, Dict[str, Any]]] = json.JSONDecoder().raw_decode(after)[0] if title else {}
    return next((result for hosts in told.values() for result in hosts.values()), {})


def _ansible_environment() -> Dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PM2_"))}
    return {
        **own,
        "ANSIBLE_HOME": os.environ["ANSIBLE_HOME"],
        "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
        "ANSIBLE_CONFIG": str(CONFIG),
        "ANSIBLE_REMOTE_TMP": str(DEMO / "tmp"),  # the default is below the home that /etc/passwd names
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SHOW_CUSTOM_STATS": "1",
    }


def port(environment: str) -> int:
    """The port of an environment's API."""
    return int(json.loads(SETTINGS.read_text())[f"shop_{environment}_port"])


def prepare() -> None:
    """Empty the demo's directory, and choose ports. Processes of an earlier demo have been ended."""
    if len(os.fsencode(PM2_HOME / "rpc.sock")) > SOCKET_PATH_LIMIT:
        raise SystemExit(f"{PM2_HOME} is too long a path for PM2's socket: use a checkout with a shorter path.")
    if DEMO.exists():
        subprocess.run(["rm", "-rf", str(DEMO)], check=True)
    LOGS.mkdir(parents=True)
    CONFIG.write_text("[defaults]\n")
    ports = {f"shop_{environment}_port": _port(4610 + 10 * i) for i, environment in enumerate(ENVIRONMENTS)}
    note({"shop_demo": str(DEMO), **ports})


def note(settings: Dict[str, Any]) -> None:
    """Add to SETTINGS."""
    known = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    SETTINGS.write_text(json.dumps({**known, **settings}) + "\n")


def _port(wanted: int) -> int:
    if "DEMO_DIR" in os.environ:
        return free_port()  # another demo may be about to take the usual ones
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


def daemon_answers() -> bool:
    """Whether a daemon listens in our PM2_HOME. `pm2` itself would start one."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(PM2_HOME / "rpc.sock"))
        except OSError:
            return False
    return True


def _pm2(*arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PM2_HOME": str(PM2_HOME)}
    return subprocess.run(
        [str(PM2), "--silent", *arguments], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def our_processes() -> List[int]:
    """The daemon and its applications: processes with our PM2_HOME, except a shell or `pm2 logs` of the user."""
    return [pid for pid in processes.all_pids() if _is_ours(pid) and processes.alive(pid)]


def _is_ours(pid: int) -> bool:
    if processes.environ(pid).get("PM2_HOME") != str(PM2_HOME):
        return False
    if "God Daemon (" in processes.cmdline(pid):
        return True
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(DEMO)
    except OSError:
        return False


def stop(patience: float = 15.0) -> int:
    """End the daemon of our PM2_HOME and its applications. Returns the number of processes ended."""
    ours = our_processes()
    if daemon_answers():
        _pm2("kill")
    deadline = time.monotonic() + patience
    while our_processes():
        if time.monotonic() > deadline - patience / 2:
            for pid in our_processes():
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise SystemExit(f"still running: {our_processes()}")
        time.sleep(0.1)
    return len(ours)
