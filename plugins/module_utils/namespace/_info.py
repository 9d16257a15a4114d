# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What pm2_info reports: the daemon, its processes, the dump, in what they differ, and what looks wrong."""

from __future__ import annotations

import os
import stat
import time
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_result import process_result
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

Problem = Dict[str, Any]

_TRIES = 5  # until PM2 has noticed the end of a process
_PAUSE = 0.05  # seconds between two of them
# What the pm2 program puts into a daemon's environment itself.
_DAEMON_OWN = frozenset(
    "SILENT PM2_HOME PM2_USAGE PM2_DISCRETE_MODE PM2_PROGRAMMATIC PM2_JSON_PROCESSING NODE_CHANNEL_FD "
    "NODE_CHANNEL_SERIALIZATION_MODE PWD SHLVL OLDPWD _".split()
)


def gather(pm2_home: str, executable: Optional[str], namespace: Optional[str]) -> Dict[str, Any]:
    """The result of pm2_info. Starts nothing, locks nothing, writes nothing."""
    _daemon.check_home(pm2_home)
    daemon = _daemon.find(pm2_home)
    everything = _processes(daemon) if daemon else []
    apps = [process for process in everything if not process.is_module]
    chosen = [process for process in apps if namespace in (None, process.namespace)]
    dump = _dump.read(pm2_home)
    installed = _installed(executable)
    problems = _process_problems(chosen) + _collisions(apps, namespace)
    problems += _home_problems(pm2_home, dump) + _daemon_problems(pm2_home, daemon, installed)
    return {
        "daemon": {
            "running": daemon is not None,
            "pid": daemon.pid if daemon else None,
            "version": _text(daemon.version) if daemon else None,
            "installed_version": _text(installed),
            "node": _daemon.node_of(daemon.pid) if daemon else None,
            "pm2_home": pm2_home,
        },
        "processes": [process_result(process) for process in chosen],
        "dump": _describe_dump(pm2_home, dump, namespace),
        "drift": _drift(chosen, dump, namespace) if daemon else [],
        "problems": problems,
    }


def _processes(daemon: Daemon) -> List[Process]:
    """All of them. PM2 may still list a process as online that has just ended: then the list is read again."""
    found = [Process(item) for item in daemon.processes]
    for _try in range(_TRIES):
        if all(process.running for process in found if process.status == "online"):
            break
        time.sleep(_PAUSE)
        found = [Process(item) for item in daemon.read()]
    return found


def _installed(executable: Optional[str]) -> Optional[_daemon.Version]:
    try:
        return _daemon.find_executable(executable).version
    except NodeopsError:
        return None


def _text(version: Optional[_daemon.Version]) -> Optional[str]:
    return "%d.%d.%d" % version if version else None


def _describe_dump(pm2_home: str, dump: _dump.Dump, namespace: Optional[str]) -> Dict[str, Any]:
    path = _dump.path_of(pm2_home)
    entries = [entry for entry in dump.entries if namespace in (None, _dump.namespace_of(entry))]
    return {
        "path": path,
        "exists": os.path.exists(path),
        "mode": _mode(path),
        "source": dump.source,
        "problem": dump.problem,
        "entries": [
            {
                "name": str(entry.get("name")),
                "namespace": _dump.namespace_of(entry),
                "instance": _instance(entry),
                "status": _dump.meaning(entry)["status"],
                "script": entry.get("pm_exec_path"),
                "cwd": entry.get("pm_cwd"),
            }
            for entry in entries
        ],
    }


def _instance(entry: _dump.Entry) -> Optional[int]:
    value = str(entry.get(str(entry.get("instance_var") or "NODE_APP_INSTANCE")))
    return int(value) if value.isdigit() else None


def _mode(path: str) -> Optional[str]:
    try:
        return "%04o" % stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def _drift(live: List[Process], dump: _dump.Dump, namespace: Optional[str]) -> List[Dict[str, Any]]:
    """Per app: what runs and is not saved, what is saved and does not run, and what differs."""
    saved: Dict[Tuple[str, str], List[_dump.Entry]] = {}
    for entry in dump.entries:
        if namespace in (None, _dump.namespace_of(entry)):
            saved.setdefault((_dump.namespace_of(entry), str(entry.get("name"))), []).append(entry)
    running: Dict[Tuple[str, str], List[_dump.Entry]] = {}
    for process in live:
        running.setdefault((process.namespace, process.name), []).append(_dump.entry_of(process.pm2_env))
    result = []
    for key in sorted(set(saved) | set(running)):
        kind, keys = _compare(saved.get(key, []), running.get(key, []))
        if kind:
            result.append({"namespace": key[0], "name": key[1], "kind": kind, "keys": keys})
    return result


def _compare(saved: List[_dump.Entry], live: List[_dump.Entry]) -> Tuple[Optional[str], List[str]]:
    if not saved:
        return "not_saved", []
    if not live:
        return "not_live", []
    if _dump.same(saved, live):
        return None, []
    if len(saved) != len(live):
        return "instances_differ", []
    before, after = _dump.meaning(saved[0]), _dump.meaning(live[0])
    return "differs", sorted(key for key in set(before) | set(after) if before.get(key) != after.get(key))


def _problem(kind: str, message: str, process: Optional[Process] = None) -> Problem:
    return {
        "kind": kind,
        "message": message,
        "namespace": process.namespace if process else None,
        "name": process.name if process else None,
        "pm_id": process.pm_id if process else None,
    }


def _process_problems(processes: Iterable[Process]) -> List[Problem]:
    found = []
    for p in processes:
        if p.cwd and not os.path.isdir(p.cwd):
            found.append(_problem("missing_cwd", "%s: its working directory %s does not exist" % (p.name, p.cwd), p))
        if p.status == "online" and not p.running:
            found.append(_problem("no_live_pid", "%s: PM2 says online, but there is no such process" % p.name, p))
        # A stop or restart on purpose in the first second leaves one unstable restart too (God.js:459).
        if p.status in ("errored", "waiting restart") or (p.pm2_env.get("unstable_restarts") or 0) > 1:
            message = "%s: restarted %d times (status: %s)" % (p.name, p.restart_time, p.status)
            found.append(_problem("crash_loop", message, p))
    return found


def _collisions(processes: Iterable[Process], namespace: Optional[str]) -> List[Problem]:
    homes: Dict[str, Set[str]] = {}
    watched: Set[str] = set()
    for process in processes:
        homes.setdefault(process.name, set()).add(process.namespace)
        if process.pm2_env.get("watch"):
            watched.add(process.name)
    found = []
    for name, namespaces in sorted(homes.items()):
        if len(namespaces) > 1 and (namespace is None or namespace in namespaces):
            message = "%s is in the namespaces %s: 'pm2 restart %s' works on all of them" % (
                name,
                ", ".join(sorted(namespaces)),
                name,
            )
            if name in watched:
                message += ", and so does PM2's watcher, which is on"
            found.append(dict(_problem("name_collision", message), name=name))
    return found


def _home_problems(pm2_home: str, dump: _dump.Dump) -> List[Problem]:
    found = []
    for path in (_dump.path_of(pm2_home), _dump.path_of(pm2_home) + ".bak"):
        mode = _mode(path)
        if mode is not None and int(mode, 8) & 0o077:
            message = "%s can be read by others (mode %s): it holds every app's secrets" % (path, mode)
            found.append(_problem("readable_dump", message))
    if dump.problem:
        found.append(_problem("broken_dump", dump.problem))
    directory = os.path.dirname(_files.state_path(pm2_home, ""))
    names = os.listdir(directory) if os.path.isdir(directory) else []
    for name in sorted(names):
        if name.endswith(".journal"):
            message = (
                "a run on namespace %s is under way or was interrupted; the next one finishes or undoes it" % name[:-8]
            )
            found.append(dict(_problem("open_transaction", message), namespace=name[:-8]))
    return found


def _daemon_problems(pm2_home: str, daemon: Optional[Daemon], installed: Optional[_daemon.Version]) -> List[Problem]:
    found = []
    if daemon is None:
        deaf = _daemon.running_without_socket(pm2_home)
        if deaf:
            message = "a daemon of %s runs (pid %d) and nothing listens on its socket" % (pm2_home, deaf)
            found.append(_problem("deaf_daemon", message))
        return found
    if installed and installed != daemon.version:
        message = "PM2 %s is installed, the daemon in memory is %s" % (_text(installed), _text(daemon.version))
        found.append(_problem("version_mismatch", message))
    foreign = _foreign_variables(daemon.pid, pm2_home)
    if foreign:
        message = "the daemon was started from a shell: its cluster apps inherit %d variables (%s%s)" % (
            len(foreign),
            ", ".join(foreign[:5]),
            ", …" if len(foreign) > 5 else "",
        )
        found.append(_problem("daemon_environment", message))
    return found


def _foreign_variables(pid: int, pm2_home: str) -> List[str]:
    """Names of variables that this collection would not have given to a daemon. Never a value."""
    names = set(_procfs.environment(pid))
    return sorted(names - _DAEMON_OWN - set(_daemon.base_environment(pm2_home, "/usr/bin/node")))
