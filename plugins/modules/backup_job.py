#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install the jobs that back an environment up, and run them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_job
short_description: Install the jobs that back up an environment, or run one of them
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - A job is a list of steps. Each step is a module of this collection with its options.
  - The installation puts the code and the options of those modules into a directory of the host, with C(run.py), which
    cron or systemd starts. C(run.py) needs Python, but neither Ansible nor a controller. Code and options are replaced
    in one step, so a job runs either the old or the new ones.
  - A job writes a log, notifies a monitoring service, and leaves metrics for node_exporter. If a step fails, the exit
    code is not 0, and the steps after it are still run.
  - The role P(nodeops.pm2.backup#role) uses this module and makes the entries of cron or systemd.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The options may hold secrets.
  idempotent:
    support: partial
    details: The installation is idempotent. Running a job does what its steps do.
options:
  path:
    description:
      - The directory of the job. It is made if it is missing.
      - Only root and the user of the task may be able to write to it and to the directories above it. It must not be in
        a backup store.
    type: path
    required: true
  name:
    description: The name of the environment, for metrics and messages. Letters, digits, C(.), C(_) and C(-).
    type: str
    required: true
  environment:
    description: The label C(environment) of the metrics. The default is O(name).
    type: str
  state:
    description:
      - V(installed) installs code and options.
      - V(absent) removes them and the metrics. The log stays.
      - V(done) runs O(job) now, with the options given here. It need not be installed.
    type: str
    choices: [installed, absent, done]
    default: installed
  job:
    description: The job to run with O(state=done).
    type: str
    choices: [backup, drill, recover]
  log:
    description: The log. When it exceeds 1 MiB, it is renamed to C(<log>.1). The default is C(log) in O(path).
    type: path
  metrics_dir:
    description: The directory of node_exporter's textfile collector. Without it there are no metrics.
    type: path
  jobs:
    description: The jobs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Which job this is.
        type: str
        required: true
        choices: [backup, drill, recover]
      ping_url:
        description:
          - The URL of a monitoring service. The job sends a POST with the lines of its log when it begins (to C(/start)
            below this URL) and when it ends (to C(/<exit code>)).
        type: str
      patience:
        description: For how many seconds a failed step is tried again, for a server that is still starting.
        type: float
        default: 0
      steps:
        description: The steps of the job, at least one.
        type: list
        elements: dict
        required: true
        suboptions:
          module:
            description:
              - V(pm2_dump_backup), V(pg_backup) and V(pg_restore) are the modules of these names.
              - V(pm2_recover) brings back the processes of a namespace that has none left. It has the options of
                M(nodeops.pm2.pm2_dump_backup). With its option C(backup) it always restores that backup.
              - V(offsite) copies the backups elsewhere.
            type: str
            required: true
            choices: [pm2_dump_backup, pg_backup, pg_restore, pm2_recover, offsite]
          params:
            description: The options of the module. C(pm2_home) and C(pm2_executable) are those of this module.
            type: dict
            required: true
seealso:
  - module: nodeops.pm2.pm2_dump_backup
  - module: nodeops.pm2.pg_backup
  - module: nodeops.pm2.pg_restore
"""

EXAMPLES = r"""
- name: Install the job that cron runs
  nodeops.pm2.backup_job:
    path: /var/backups/shop.job
    name: shop-production
    metrics_dir: /var/lib/prometheus/node-exporter
    jobs:
      - name: backup
        ping_url: "{{ shop_backup_ping_url }}"
        steps:
          - module: pg_backup
            params:
              dest: /var/backups/shop
              databases: [shop]
              keep_daily: 30
  register: shop_job

- name: Back up now
  nodeops.pm2.backup_job:
    path: /var/backups/shop.job
    name: shop-production
    state: done
    job: backup
    jobs:
      - name: backup
        steps:
          - module: pg_backup
            params:
              dest: /var/backups/shop
              databases: [shop]
"""

RETURN = r"""
version:
  description: The version that is installed, a hash of its content.
  returned: with O(state=installed)
  type: str
  sample: 3f1c0a6c9b2e4d58
commands:
  description:
    - For each job, the command that runs it, as a list of arguments.
    - It uses C(/usr/bin/python3). If that is missing or older than 3.8, it uses the Python that ran this module.
  returned: with O(state=installed), empty with O(state=absent)
  type: dict
  sample:
    backup: [/usr/bin/python3, -I, /var/backups/shop.job/current/run.py, backup, --quiet]
user:
  description: The user that the job runs as, with C(name), C(uid) and C(home).
  returned: with O(state=installed) and O(state=absent)
  type: dict
  sample: {name: shop, uid: 1000, home: /home/shop}
steps:
  description:
    - How each step has ended, with C(module), C(changed), C(failed), C(message), C(seconds), and C(result), which is
      what the module returns.
  returned: with O(state=done), also if a step failed
  type: list
  elements: dict
"""

import os
import pwd
from typing import Any, Dict, List

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _config, _install, _kinds, _run
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon

STEP = {
    "module": {"type": "str", "required": True, "choices": list(_kinds.KINDS)},
    "params": {"type": "dict", "required": True},
}
JOB = {
    "name": {"type": "str", "required": True, "choices": list(_config.JOBS)},
    "ping_url": {"type": "str"},
    "patience": {"type": "float", "default": 0},
    "steps": {"type": "list", "elements": "dict", "required": True, "options": STEP},
}
ARGUMENTS: Dict[str, Dict[str, Any]] = {
    **_process_options.CONNECTION,
    "path": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "environment": {"type": "str"},
    "state": {"type": "str", "choices": ["installed", "absent", "done"], "default": "installed"},
    "job": {"type": "str", "choices": list(_config.JOBS)},
    "log": {"type": "path"},
    "metrics_dir": {"type": "path"},
    "jobs": {"type": "list", "elements": "dict", "default": [], "options": JOB},
}


MASKS: _masks.Masks = {"environment": _masks.values, "jobs": _masks.hidden}
"""No option of a step is shown: only the module of the step knows which of them are secret."""


def complete(module: _module.Module) -> Dict[str, Any]:
    """The configuration: the options. Those of every step are checked and filled up with defaults."""
    params = module.params
    jobs: List[Dict[str, Any]] = []
    for job in params["jobs"]:
        steps = [{"module": step["module"], "params": _completed(job["name"], step, params)} for step in job["steps"]]
        jobs.append(dict(job, steps=steps))
    names = ("path", "name", "environment", "log", "metrics_dir")
    found = {name: params[name] for name in names}
    return dict(found, format=_config.FORMAT, jobs=jobs, search_path=os.environ.get("PATH", os.defpath))


def _completed(job: str, step: Dict[str, Any], common: Dict[str, Any]) -> Dict[str, Any]:
    specification = _kinds.arguments(step["module"])
    given = {name: value for name, value in step["params"].items() if value is not None}
    if "pm2_home" in specification:
        given["pm2_home"] = given.get("pm2_home") or common["pm2_home"] or _daemon.default_home()
        given["pm2_executable"] = given.get("pm2_executable") or common["pm2_executable"]
    checked = ArgumentSpecValidator(specification).validate(given)
    if checked.error_messages:
        raise NodeopsError(
            "The options of %s in the job %s are wrong: %s. Nothing was changed."
            % (step["module"], job, "; ".join(checked.error_messages))
        )
    return {name: checked.validated_parameters.get(name) for name in specification}


def install(module: _module.Module) -> Dict[str, Any]:
    """O(state=installed)."""
    done = _install.install(complete(module), module.check_mode)
    return {"changed": done.changed, "version": done.version, "commands": done.commands, "user": _user()}


def remove(module: _module.Module) -> Dict[str, Any]:
    """O(state=absent)."""
    changed = _install.remove(complete(module), module.check_mode)
    return {"changed": changed, "commands": {}, "user": _user()}


def _user() -> Dict[str, Any]:
    user = pwd.getpwuid(os.geteuid())
    return {"name": user.pw_name, "uid": user.pw_uid, "home": user.pw_dir}


def perform(module: _module.Module) -> Dict[str, Any]:
    """O(state=done)."""
    config = _config.parse(complete(module))
    job = config.job(module.params["job"] or "")
    outcomes = _run.perform(config, job, module.check_mode, module.warn)
    result: Dict[str, Any] = {
        "changed": any(outcome.changed for outcome in outcomes),
        "steps": [
            {
                "module": outcome.module,
                "changed": outcome.changed,
                "failed": outcome.failed,
                "message": outcome.message,
                "seconds": round(outcome.seconds, 2),
                "result": outcome.result,
            }
            for outcome in outcomes
        ],
    }
    failed = ["%s: %s" % (outcome.module, outcome.message) for outcome in outcomes if outcome.failed]
    if _run.code_of(job, outcomes):
        raise NodeopsError("; ".join(failed) or "The job was ended before its last step.", result)
    return result


def main() -> None:
    """Entry point."""
    module = _module.Module(ARGUMENTS, MASKS, required_if=[("state", "done", ["job"])])

    def run() -> Dict[str, Any]:
        if module.params["state"] == "installed":
            return install(module)
        if module.params["state"] == "absent":
            return remove(module)
        return perform(module)

    _module.run(module, run)


if __name__ == "__main__":
    main()
