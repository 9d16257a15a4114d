# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the status of a process means: whether it runs, may run again by itself, or rests."""

from __future__ import annotations

from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

_RESTING = ("stopped", "errored")


def is_active(process: Process) -> bool:
    """Whether it runs, or is about to by itself (launching, waiting for a restart). Then it may hold ports."""
    return process.status not in _RESTING or process.pid > 0


def is_between_lives(process: Process) -> bool:
    """Whether it has crashed and PM2 is restarting it. Only then a stopped process has its former pid (God.js:459)."""
    return process.status == "stopped" and process.pid > 0


def describe(process: Process) -> str:
    """The status that PM2 tells, or what is true if that differs."""
    if process.status == "online" and not process.running:
        return "online without a live process"
    return process.status
