# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How a live process is shown in the result of a module."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process


def process_result(process: Process) -> Dict[str, Any]:
    """What modules return of a live process; no environment."""
    return {
        "name": process.name,
        "namespace": process.namespace,
        "pm_id": process.pm_id,
        "pid": process.pid or None,
        "instance": process.instance,
        "status": process.status,
        "running": process.running,
        "restarts": process.restart_time,
        "exec_mode": process.exec_mode,
        "script": process.script,
        "cwd": process.cwd,
        "out_log": process.out_log,
        "error_log": process.err_log,
    }
