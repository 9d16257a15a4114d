# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Metrics of a job for Prometheus: a file for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import os
from typing import Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files

PREFIX = "nodeops_pm2_"

_METRICS: Tuple[Tuple[str, str], ...] = (
    ("job_last_run_timestamp_seconds", "When the job has last ended, however it ended."),
    ("job_last_success_timestamp_seconds", "When the job has last ended well. Alert on its age."),
    ("job_last_exit_code", "How it has last ended: 0 is well."),
    ("job_last_duration_seconds", "How long it took."),
    ("backup_size_bytes", "The size of the newest backup."),
    ("backup_created_timestamp_seconds", "When the newest backup was made. One that is as before is not made again."),
)


class Backup(NamedTuple):
    """``size`` in bytes, ``created`` in seconds since 1970."""

    size: Optional[float]
    created: Optional[float]


class Numbers(NamedTuple):
    """Times in seconds since 1970, ``duration`` in seconds; ``backups`` by the module that made them."""

    run: float
    success: Optional[float]
    exit_code: int
    duration: float
    backups: Dict[str, Backup]


def path_of(directory: str, name: str, job: str) -> str:
    """The file of one job of one environment."""
    return os.path.join(directory, "nodeops_pm2_%s_%s.prom" % (name, job))


def write(directory: str, name: str, environment: str, job: str, numbers: Numbers) -> None:
    """Replace the file in one step, readable by all users. Raises OSError."""
    text = render(name, environment, job, numbers)
    _files.write_atomically(path_of(directory, name, job), text.encode(), mode=0o644)


def remove(directory: str, name: str, job: str) -> None:
    """Remove the file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path_of(directory, name, job))


def render(name: str, environment: str, job: str, numbers: Numbers) -> str:
    """The text of the file. An unknown value has no line, so that an alert on its absence works."""
    labels = {"name": name, "environment": environment, "action": job}
    lines: Dict[str, List[str]] = {metric: [] for metric, _help in _METRICS}
    lines["job_last_run_timestamp_seconds"].append(_line(labels, numbers.run))
    if numbers.success is not None:
        lines["job_last_success_timestamp_seconds"].append(_line(labels, numbers.success))
    lines["job_last_exit_code"].append(_line(labels, numbers.exit_code))
    lines["job_last_duration_seconds"].append(_line(labels, numbers.duration))
    for module, backup in sorted(numbers.backups.items()):
        own = {"name": name, "environment": environment, "module": module}
        if backup.size is not None:
            lines["backup_size_bytes"].append(_line(own, backup.size))
        if backup.created is not None:
            lines["backup_created_timestamp_seconds"].append(_line(own, backup.created))
    text = []
    for metric, explanation in _METRICS:
        if lines[metric]:
            text += ["# HELP %s%s %s" % (PREFIX, metric, explanation), "# TYPE %s%s gauge" % (PREFIX, metric)]
            text += [PREFIX + metric + line for line in lines[metric]]
    return "\n".join(text) + "\n"


def _line(labels: Dict[str, str], value: float) -> str:
    shown = ",".join('%s="%s"' % (key, _escaped(text)) for key, text in labels.items())
    return "{%s} %s" % (shown, repr(round(float(value), 3)) if value != int(value) else int(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
