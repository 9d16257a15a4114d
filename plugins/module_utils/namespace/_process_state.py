# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the status of a process means: whether it runs, may run again by itself, or rests."""

from __future__ import annotations

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

_RESTING = ("stopped", "errored")


def is_active(process: Process) -> bool:
    """Running or about to run by itself (launching, waiting for a restart): it may hold ports."""
    return process.status not in _RESTING or process.pid > 0


def is_between_lives(process: Process) -> bool:
    """It has crashed, and PM2 is restarting it: only then a stopped process still has its former pid (God.js:459)."""
    return process.status == "stopped" and process.pid > 0


def describe(process: Process) -> str:
    """The status PM2 claims, and what is true where that differs."""
    if process.status == "online" and not process.running:
        return "online without a live process"
    return process.status
