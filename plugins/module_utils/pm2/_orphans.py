# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Orphans: processes that a killed daemon has left, which still hold their ports.

After ``kill -9`` of a daemon its Node children end. Others (python, sleep) go on, and a new daemon would start them a
second time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Dict, Iterable, List, NamedTuple, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _process_group, _process_id, _procfs

DEFAULT_KILL_TIMEOUT = 1600  # ms, KILL_TIMEOUT (constants.js)
CLUSTER_PROGRAM = "/lib/ProcessContainer.js"  # of each cluster worker, until it has set its title (God.js:42)


class Orphan(NamedTuple):
    pid: int
    name: str
    start_time: int  # _procfs.Stat.start


def find(pm2_home: str, namespace: str, names: Set[str], live_ids: Iterable[str], daemon_pid: int) -> List[Orphan]:
    """Processes of this user that a former daemon of ``pm2_home`` ran as one of ``names`` in ``namespace``.

    An orphan has the environment that PM2 gives every process (PM2_HOME, namespace, name, unique_id), and a pid file or
    a command line with its script. No live process has its unique_id, and its parent is not the daemon.
    """
    known = set(live_ids)
    found = []
    for pid in _procfs.pids():
        if _procfs.owner(pid) != os.geteuid():
            continue
        environment = _environment(pid)
        if (
            _files.same(environment.get("PM2_HOME", ""), pm2_home)
            and environment.get("namespace", "default") == namespace
            and environment.get("name") in names
            and environment.get("unique_id")
            and environment["unique_id"] not in known
            and _is_the_app_itself(pid, environment)
        ):
            stat = _procfs.stat(pid)
            if stat is None or stat.parent == daemon_pid:
                continue
            if _environment(stat.parent).get("unique_id") != environment["unique_id"]:
                found.append(Orphan(pid, environment["name"], stat.start))
    return found


def _is_the_app_itself(pid: int, environment: Dict[str, str]) -> bool:
    """Whether it is not a child of the app: that has the same environment, and may be meant to live on.

    No single sign is reliable. A pid file may be that of a later process. A title may be cut (node) or that of another
    program (``bash -c`` is replaced by the command it runs). A cluster worker is online before it has either: only its
    program, ProcessContainer.js, sets the title and writes the pid file (lines 25 and 71).
    """
    with contextlib.suppress(OSError), open(environment.get("pm_pid_path", ""), encoding="ascii") as stream:
        if stream.read().strip() == str(pid):
            return True
    command_line = os.fsdecode(_procfs.command_line(pid))
    return environment.get("pm_exec_path", "\n") in command_line or CLUSTER_PROGRAM in command_line


def end(orphans: Iterable[Orphan]) -> None:
    """Send SIGINT, and SIGKILL after PM2's own kill timeout. Waits until they have ended, but not without limit."""
    waiting = list(orphans)
    for orphan in waiting:
        _signal(orphan, signal.SIGINT)
    deadline = time.monotonic() + DEFAULT_KILL_TIMEOUT / 1000
    while waiting and time.monotonic() < deadline:
        time.sleep(0.02)
        waiting = [orphan for orphan in waiting if _is_alive(orphan)]
    for orphan in waiting:
        _signal(orphan, signal.SIGKILL)
    deadline = time.monotonic() + _process_group.PATIENCE
    while time.monotonic() < deadline and any(_is_alive(orphan) for orphan in waiting):
        time.sleep(0.002)


def _signal(orphan: Orphan, number: signal.Signals) -> None:
    if _is_alive(orphan):
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan.pid, number)


def _is_alive(orphan: Orphan) -> bool:
    return _process_id.ProcessId(orphan.pid, orphan.start_time).alive()


def _environment(pid: int) -> Dict[str, str]:
    found = _procfs.environment(pid)
    # Of a cluster worker it is all in one variable (ClusterMode.js:59).
    try:
        worker = json.loads(found.get("pm2_env", "{}"))
    except ValueError:
        return {}
    if isinstance(worker, dict):
        found.update({name: value for name, value in worker.items() if isinstance(value, str)})
    return found
