# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effect of a definition's keys on a running app, observed in /proc, in log files and in the app's behaviour.

Each function makes a probe. A probe gets the site, an app's name and the expected value, and returns what it saw. The
expected value only decides how long it waits: long for an event that has to happen, briefly for one that must not.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from support import processes
from support.rpc import RemoteError
from support.sites import Json, Site, eventually

Probe = Callable[[Site, str, Any], Any]
PATIENCE = 60.0  # seconds for an event that has to happen, on a busy machine
QUIET = 1.0  # seconds to wait for an event that must not happen
TRIES = 3  # of a measured time: a busy machine makes it longer, and never shorter


# -- /proc


def command_line(site: Site, name: str, _expected: Any) -> List[str]:
    """The arguments, with file names instead of paths, once the process is not the daemon's fork any more."""

    def words() -> List[str]:
        raw = processes.read(site.pid(name), "cmdline").rstrip(b"\0").split(b"\0")
        return [os.path.basename(os.fsdecode(word)) for word in raw]

    return eventually(lambda: found if "God" not in (found := words())[0] else [], PATIENCE) or words()


def executable(site: Site, name: str, _expected: Any) -> str:
    """The file name of the running program, with no version."""
    return re.sub(r"[\d.]+$", "", os.path.basename(os.readlink(f"/proc/{site.pid(name)}/exe")))


def directory(site: Site, name: str, _expected: Any) -> str:
    """The current directory, relative to the test's."""
    return os.path.relpath(os.readlink(f"/proc/{site.pid(name)}/cwd"), site.directory.parent)


def variables(*names: str) -> Probe:
    """The values of the environment variables of each instance, in the order of the instances."""

    def probe(site: Site, name: str, _expected: Any) -> Any:
        found = [_environment(site, int(item["pid"])) for item in site.processes(name)]
        rows = sorted([tuple(env.get(variable) for variable in names) for env in found], key=str)
        return rows[0] if len(rows) == 1 else rows

    return probe


def _environment(site: Site, pid: int) -> Dict[str, str]:
    """The environment; of a cluster worker as Node has it, because the kernel only knows that of the daemon's fork."""
    env = processes.environ(pid)
    return dict(site.report(pid)["env"]) if "NODE_UNIQUE_ID" in env else env


def is_cluster_worker(site: Site, name: str, _expected: Any) -> bool:
    """Node's cluster gives each worker a number."""
    return "NODE_UNIQUE_ID" in processes.environ(site.pid(name))


def owner(site: Site, name: str, _expected: Any) -> Tuple[int, int, Optional[str]]:
    """The user, the group and HOME."""
    pid = site.pid(name)
    ids = dict(re.findall(r"^(Uid|Gid):\t(\d+)", processes.read(pid, "status").decode(), re.M))
    return int(ids["Uid"]), int(ids["Gid"]), processes.environ(pid).get("HOME")


def instances(site: Site, name: str, _expected: Any = None) -> List[str]:
    """NODE_APP_INSTANCE of every living process."""
    living = [item for item in site.processes(name) if processes.alive(item["pid"])]
    return sorted(_environment(site, item["pid"])["NODE_APP_INSTANCE"] for item in living)


def runs(site: Site, name: str, _expected: Any) -> bool:
    """Whether there is a process."""
    return bool(site.only(name)["pid"]) and processes.alive(site.pid(name))


def listed(key: str) -> Probe:
    """The value in PM2's list, for keys that only PM2's own commands read."""
    return lambda site, name, _expected: site.only(name)["pm2_env"].get(key)


def knows_repository(site: Site, name: str, expected: bool) -> bool:
    """Whether PM2 has read the repository and revision that run. 7.0 does only if told to."""
    return bool(eventually(lambda: site.only(name)["pm2_env"].get("versioning"), PATIENCE if expected else 3.0))


def modules_of_pmx(site: Site, name: str, _expected: Any) -> bool:
    """Whether PM2's monitoring was loaded into the app."""
    return bool(site.report(site.pid(name))["pmx"])


def node_arguments(site: Site, name: str, _expected: Any) -> List[str]:
    """The options that Node was started with."""
    return list(site.report(site.pid(name))["execArgv"])


# -- files


def logged_to(text: str) -> Probe:
    """The names of the log files with `text`, in which PID stands for each process's pid; ids become N."""

    def probe(site: Site, name: str, expected: List[str]) -> List[str]:
        pids = [int(item["pid"]) for item in site.processes(name)]
        wanted = [re.compile(rf"\b{text.replace('PID', str(pid))}\b") for pid in pids]
        for pid in pids:
            site.report(pid)
        if not expected:
            return eventually(lambda: _files_with(site, wanted), QUIET)
        eventually(lambda: _files_with(site, wanted) == expected, PATIENCE)
        return _files_with(site, wanted)

    return probe


def _files_with(site: Site, wanted: Sequence[re.Pattern[str]]) -> List[str]:
    texts = [(path.name, path.read_text()) for path in site.logs()]
    found = [name for name, content in texts if any(pattern.search(content) for pattern in wanted)]
    if not all(any(pattern.search(content) for _name, content in texts) for pattern in wanted):
        return []
    return sorted(re.sub(r"-\d+\.", "-N.", name) for name in found)


def log_line(site: Site, name: str, _expected: Any) -> str:
    """The form of a logged line: digits as 9."""
    mine = re.compile(rf"^.*out {site.pid(name)}\b.*$", re.M)

    def find() -> str:
        found = (mine.search(path.read_text()) for path in site.logs())
        return next((re.sub(r"\d+", "9", match.group()) for match in found if match), "")

    return eventually(find, PATIENCE)


def pid_file(site: Site, name: str, _expected: Any) -> List[str]:
    """The names of the files with the pid; ids become N."""
    pid = str(site.pid(name))
    places = [*Path(site.home.home, "pids").glob("*"), *site.directory.parent.rglob("*.pid")]
    return sorted(re.sub(r"-\d+\.", "-N.", path.name) for path in places if path.read_text().strip() == pid)


def stack_names_source(site: Site, name: str, _expected: Any) -> bool:
    """Whether a stack trace names the source file of the script."""
    item = site.only(name)
    log = Path(str(item["pm2_env"]["pm_out_log_path"]))
    end = f"stack of {item['pid']} ends"
    assert eventually(lambda: log.exists() and end in log.read_text(), PATIENCE)
    stack = log.read_text().partition(f"stack of {item['pid']} begins")[2].partition(end)[0]
    return "original.ts" in stack


# -- behaviour: exits and restarts


def _await_probe(site: Site, item: Json) -> None:
    """Wait until the program handles signals, if it is the probe."""
    if item["pm2_env"]["pm_exec_path"] == str(site.probe):
        site.report(item["pid"])


def _restarted(site: Site, name: str, before: int, timeout: float) -> bool:
    def moved() -> bool:
        item = site.only(name)
        return int(item["pm2_env"]["restart_time"]) > before and item["pm2_env"]["status"] == "online"

    return eventually(moved, timeout)


def restarts_after(number: signal.Signals) -> Probe:
    """Whether PM2 starts the app again after a signal."""

    def probe(site: Site, name: str, expected: bool) -> bool:
        item = site.only(name)
        _await_probe(site, item)
        os.kill(item["pid"], number)
        before = int(item["pm2_env"]["restart_time"])
        if expected:
            return _restarted(site, name, before, PATIENCE)
        eventually(lambda: site.only(name)["pm2_env"]["status"] in ("stopped", "errored"), PATIENCE)
        return _restarted(site, name, before, QUIET)

    return probe


def outgrows(site: Site, name: str, expected: bool) -> bool:
    """Whether the app is restarted after it took 120 MiB."""
    item = site.only(name)
    site.report(item["pid"])
    os.kill(item["pid"], signal.SIGUSR2)
    if not expected:
        assert eventually(lambda: _memory(item["pid"]) > 130 << 20, PATIENCE), "it did not grow"
    return _restarted(site, name, int(item["pm2_env"]["restart_time"]), PATIENCE if expected else 2.5)


def _memory(pid: int) -> int:
    fields = processes.read(pid, "statm").split()
    return int(fields[1]) * 4096 if fields else 0


def crashes_until_errored(site: Site, name: str, _expected: Any) -> int:
    """How many crashes PM2 accepts; 4 means "more than 3"."""
    for crash in range(1, 4):
        item = site.only(name)
        os.kill(item["pid"], signal.SIGKILL)

        def settled(pid: int = item["pid"]) -> str:
            now = site.only(name)
            status = str(now["pm2_env"]["status"])
            return status if status == "errored" or (status == "online" and now["pid"] != pid) else ""

        if eventually(settled, PATIENCE) == "errored":
            return crash
    return 4


def crash_after_a_while(site: Site, name: str, _expected: Any) -> str:
    """The status after a crash of an app that has been up for 1.2 seconds."""
    item = site.only(name)
    time.sleep(max(0.0, 1.3 - (time.time() - item["pm2_env"]["pm_uptime"] / 1000)))
    os.kill(item["pid"], signal.SIGKILL)

    def settled() -> str:
        now = site.only(name)
        status = str(now["pm2_env"]["status"])
        return status if status == "errored" or (status == "online" and now["pid"] != item["pid"]) else ""

    return eventually(settled, PATIENCE)


def restart_gap(*choices: float) -> Probe:
    """The time between a crash and the start after it: the nearest of the choices, in seconds."""

    def once(site: Site, name: str) -> float:
        item = site.only(name)
        crashed = time.time()
        os.kill(item["pid"], signal.SIGKILL)
        assert _restarted(site, name, int(item["pm2_env"]["restart_time"]), PATIENCE)
        return float(site.only(name)["pm2_env"]["pm_uptime"]) / 1000 - crashed

    return _measured(once, choices)


def time_to_online(*choices: float) -> Probe:
    """The time PM2 waits after a start until it says that the app is online: the nearest of the choices, in seconds.

    In this restart the app says 'ready' only after READY_AFTER, and never if a file `silent` is in its directory.
    """

    def once(site: Site, name: str) -> float:
        item = site.only(name)
        silent = Path(item["pm2_env"]["pm_cwd"], "silent")
        if "SILENT" in item["pm2_env"]:
            silent.touch()
        site.home.rpc("restartProcessId", {"id": item["pm_id"]})
        waited = time.time() - float(site.only(name)["pm2_env"]["pm_uptime"]) / 1000
        silent.unlink(missing_ok=True)
        return waited

    return _measured(once, choices)


def _measured(once: Callable[[Site, str], float], choices: Sequence[float]) -> Probe:
    """The choice nearest to the measured time. It measures again if that is not the expected one."""

    def probe(site: Site, name: str, expected: float) -> float:
        for _try in range(TRIES):
            value = once(site, name)
            nearest = min(choices, key=lambda choice: abs(choice - value))
            if nearest == expected:
                break
        return nearest

    return probe


# -- behaviour: being stopped


def stop_time(*choices: float) -> Probe:
    """How long a stop takes: the nearest of the choices, in seconds."""

    def once(site: Site, name: str) -> float:
        if not site.only(name)["pid"]:
            site.home.rpc("restartProcessId", {"id": site.only(name)["pm_id"]})
        item = site.only(name)
        _await_probe(site, item)
        start = time.monotonic()
        site.home.rpc("stopProcessId", item["pm_id"])
        return time.monotonic() - start

    return _measured(once, choices)


def last_words(site: Site, name: str, _expected: Any) -> str:
    """How the app was asked to end: by a signal or by a message."""
    item = site.only(name)
    site.report(item["pid"])
    site.home.rpc("stopProcessId", item["pm_id"])
    return Path(site.home.home, "reports", f"{item['pid']}.end").read_text()


def child_survives(site: Site, name: str, expected: bool) -> bool:
    """Whether a child of the app lives on after a stop."""
    item = site.only(name)
    (child,) = site.report(item["pid"])["children"]
    site.home.rpc("stopProcessId", item["pm_id"])
    survives = not eventually(lambda: not processes.alive(child), QUIET if expected else PATIENCE)
    processes.end([child])
    return survives


# -- behaviour: being watched


def restarted_by(*files: str) -> Probe:
    """Which changed files of the app's directory made PM2 restart it.

    The files that have to restart it come first: then it is known that PM2 watches.
    """

    def probe(site: Site, name: str, expected: List[str]) -> List[str]:
        root = Path(site.only(name)["pm2_env"]["pm_cwd"])
        ordered = sorted(files, key=lambda file: file not in expected)
        found = {file: _touch_restarts(site, name, root / file, file in expected) for file in ordered}
        return [file for file in files if found[file]]

    return probe


def _touch_restarts(site: Site, name: str, path: Path, expected: bool) -> bool:
    deadline = time.monotonic() + (PATIENCE if expected else 1.5)
    before = int(site.only(name)["pm2_env"]["restart_time"])
    while time.monotonic() < deadline:
        path.write_text(str(time.monotonic()))
        try:
            if _restarted(site, name, before, 0.5):
                _await_quiet(site, name)
                return True
        except RemoteError:
            continue
    return False


def _await_quiet(site: Site, name: str) -> None:
    """Wait, because a further event of the same change would count for the next file."""
    deadline = time.monotonic() + PATIENCE
    before = -1
    while (now := int(site.only(name)["pm2_env"]["restart_time"])) != before and time.monotonic() < deadline:
        before = now
        time.sleep(QUIET)


def watch_gap(*choices: float) -> Probe:
    """The time between a change of a file and the restart: the nearest of the choices, in seconds."""

    def once(site: Site, name: str) -> float:
        _await_quiet(site, name)
        item = site.only(name)
        before, deadline = int(item["pm2_env"]["restart_time"]), time.monotonic() + PATIENCE
        while time.monotonic() < deadline:  # PM2 scans the directory first, and does not say when it is ready
            changed = time.time()
            Path(item["pm2_env"]["pm_cwd"], "watched.txt").write_text(str(changed))
            if _restarted(site, name, before, max(choices) + 5):
                return float(site.only(name)["pm2_env"]["pm_uptime"]) / 1000 - changed
        raise AssertionError("no restart")

    return _measured(once, choices)
