# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""An app made from live processes: to restart or reload an app that the call does not define."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

OF_ONE_RUN = frozenset(
    """axm_actions axm_dynamic axm_monitor axm_options created_at exit_code node_version pm_uptime restart_time status
    unique_id unstable_restarts updateEnv version versioning vizion_running _tree_pids""".split()
)
"""Keys of pm2_env that belong to one run of a process: a new process gets its own."""


class LiveApp:
    """Has the interface of _app.App; each instance stands for a live process."""

    def __init__(self, name: str, processes: List[Process]) -> None:
        first = processes[0]
        self.name = name
        self.namespace = first.namespace
        self.exec_mode = first.exec_mode
        self.instances = len(processes)
        self.numbers = range(self.instances)
        self.autostart = first.pm2_env.get("autostart") is not False
        self.config: Dict[str, Any] = first.pm2_env
        paths = (first.out_log, first.err_log, first.pm2_env.get("pm_log_path"))
        self.log_dirs = sorted({os.path.dirname(path) for path in paths if path and path != "/dev/null"})
        self._processes = processes

    def starts(self, _slot: int) -> bool:
        """Whether this instance runs after its start."""
        return self.autostart

    def payload(self, slot: int, marker: Dict[str, object]) -> Dict[str, object]:
        """What ``pm2 resurrect`` would send for the live process, as a new process with this number."""
        process = self._processes[slot]
        entry = {key: value for key, value in _dump.entry_of(process.pm2_env).items() if key not in OF_ONE_RUN}
        environment = dict(entry.get("env") or {})
        environment.pop("unique_id", None)
        environment.pop(process.instance_var, None)
        entry.update({"env": environment, "nodeops": marker, process.instance_var: slot})
        return entry
