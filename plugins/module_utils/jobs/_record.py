# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a run of a job leaves for people and monitoring: log, ping, metrics, and the numbers of the last run."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import time
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _log, _metrics, _ping
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._config import MAKING, Config, Job
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._metrics import Backup, Numbers


class Record:
    """The record of one run of one job. Its own errors do not end the job: they go to ``warn``."""

    def __init__(self, config: Config, job: Job, warn: Callable[[str], None]) -> None:
        self._config = config
        self._job = job
        self._warn = warn
        self._said: List[str] = []
        self._backups: Dict[str, Backup] = {}
        self._begun = time.monotonic()

    def begin(self) -> None:
        self.say("started")
        self._ping("start")

    def say(self, text: str) -> None:
        """Write a line to the log. ``text`` holds no secret."""
        self._said.append(text)
        try:
            _log.write(self._config.log, "%s: %s" % (self._job.name, text))
        except OSError as error:
            self._trouble("The log %s cannot be written: %s." % (self._config.log, _files.why(error)))

    def backup(self, module: str, result: Dict[str, Any]) -> None:
        """Take the numbers of a backup that the job has made from a step's result."""
        found = result.get("backup")
        if isinstance(found, dict) and self._job.name == MAKING:
            self._backups[module] = Backup(found.get("size"), _seconds(found.get("created")))

    def end(self, code: int) -> None:
        duration = time.monotonic() - self._begun
        self.say("%s after %.1f s" % ("ended well" if code == 0 else "FAILED with exit code %d" % code, duration))
        now = time.time()
        former = _last(self._config, self._job.name)
        backups = {**former.backups, **self._backups} if former else self._backups
        success = now if code == 0 else former.success if former else None
        numbers = Numbers(now, success, code, duration, backups)
        try:
            _write_last(self._config, self._job.name, numbers)
        except OSError as error:
            self._trouble("The state of the job cannot be written: %s." % _files.why(error))
        if self._config.metrics_dir:
            try:
                _metrics.write(
                    self._config.metrics_dir, self._config.name, self._config.environment, self._job.name, numbers
                )
            except OSError as error:
                self._trouble(
                    "The metrics in %s cannot be written: %s." % (self._config.metrics_dir, _files.why(error))
                )
        self._ping(str(code))

    def _ping(self, what: str) -> None:
        if self._job.ping_url:
            problem = _ping.ping(self._job.ping_url, what, "\n".join(self._said) + "\n")
            if problem:
                self._trouble(problem)

    def _trouble(self, text: str) -> None:
        self._warn(text)
        with contextlib.suppress(OSError):
            _log.write(self._config.log, "%s: %s" % (self._job.name, text))


def _last_path(config: Config, job: str) -> str:
    return os.path.join(config.directory, "last-%s.json" % job)


def _last(config: Config, job: str) -> Optional[Numbers]:
    """The numbers of the previous run, None if there is none that can be read."""
    try:
        with open(_last_path(config, job), encoding="utf-8") as stream:
            found = json.load(stream)
        backups = {name: Backup(*values) for name, values in found["backups"].items()}
        return Numbers(found["run"], found["success"], found["exit_code"], found["duration"], backups)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_last(config: Config, job: str, numbers: Numbers) -> None:
    _files.write_atomically(_last_path(config, job), json.dumps(numbers._asdict()).encode())


def _seconds(created: Any) -> Optional[float]:
    """A time of a manifest (``2026-11-24T10:54:00Z``) in seconds since 1970."""
    try:
        return float(calendar.timegm(time.strptime(str(created)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None
