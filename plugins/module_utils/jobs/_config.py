# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The jobs of an environment, read from the JSON that is installed beside their code."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional
from urllib.parse import urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._kinds import KINDS

FORMAT = 1
MAKING = "backup"
"""The job that makes backups. The others verify or restore them."""
JOBS = (MAKING, "drill", "recover")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")  # becomes part of file names and of systemd's units


class JobStep(NamedTuple):
    """One step of a job. ``params`` has every option of the module of this name, with its defaults."""

    module: str
    params: Dict[str, Any]


class Job(NamedTuple):
    """``patience``: for how many seconds a failed step is tried again, for a server that is still starting."""

    name: str
    steps: List[JobStep]
    ping_url: Optional[str]
    patience: float


class Config(NamedTuple):
    """``directory`` holds the state of the jobs. ``path`` is the PATH for programs."""

    name: str
    environment: str
    directory: str
    log: str
    metrics_dir: Optional[str]
    path: str
    jobs: Dict[str, Job]

    def job(self, name: str) -> Job:
        """Raises NodeopsError when this environment has no such job."""
        if name not in self.jobs:
            raise NodeopsError(
                "There is no job %r of %s. There are: %s. Nothing was done."
                % (name, self.name, ", ".join(sorted(self.jobs)) or "none")
            )
        return self.jobs[name]


def read(path: str) -> Config:
    """The installed configuration. Raises NodeopsError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise NodeopsError(
            "The job's configuration %s cannot be read: %s. Nothing was done. Install the job again: run the playbook "
            "nodeops.pm2.backup." % (path, why)
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise NodeopsError(
            "The job's configuration %s is not of this version. Nothing was done. Install the job again: run the "
            "playbook nodeops.pm2.backup." % path
        )
    return parse(document)


def parse(document: Dict[str, Any]) -> Config:
    """The configuration. What does not depend on a step is checked: raises NodeopsError naming the wrong value.

    No URL is shown.
    """
    name = document["name"]
    if not _NAME.match(name):
        raise _wrong("name", name, "letters, digits, '.', '_' and '-', at most 64")
    directory = document["path"]
    log = document.get("log") or os.path.join(directory, "log")
    metrics_dir = document.get("metrics_dir") or None
    for option, value in (("path", directory), ("log", log), ("metrics_dir", metrics_dir)):
        if value is not None and (not os.path.isabs(value) or os.path.normpath(value) != value.rstrip("/")):
            raise _wrong(option, value, "an absolute path without '.' or '..'")
    jobs: Dict[str, Job] = {}
    for job in document["jobs"]:
        if job["name"] not in JOBS or job["name"] in jobs:
            raise _wrong("jobs.name", job["name"], "one of %s, each once" % ", ".join(JOBS))
        jobs[job["name"]] = Job(job["name"], _steps(job["steps"]), _ping_url(job), float(job.get("patience") or 0))
    environment = document.get("environment") or name
    return Config(name, environment, directory, log, metrics_dir, document.get("search_path") or os.defpath, jobs)


def _steps(steps: List[Dict[str, Any]]) -> List[JobStep]:
    if not steps:
        raise _wrong("jobs.steps", steps, "a list with at least one step: otherwise there is nothing to do")
    for step in steps:
        if step["module"] not in KINDS:
            raise _wrong("jobs.steps.module", step["module"], "one of %s" % ", ".join(KINDS))
    return [JobStep(step["module"], dict(step["params"])) for step in steps]


def _ping_url(job: Dict[str, Any]) -> Optional[str]:
    url = job.get("ping_url") or None
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"[\s\x00-\x1f]", url)
        good = good and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise NodeopsError(
            "ping_url of the job %s is not a URL that begins with http:// or https://. Nothing was changed. (The URL "
            "is not shown, because it may be a secret.)" % job["name"]
        )
    return str(url)


def _wrong(option: str, value: Any, needed: str) -> NodeopsError:
    return NodeopsError("%s must be %s, not %r. Nothing was changed." % (option, needed, value))
