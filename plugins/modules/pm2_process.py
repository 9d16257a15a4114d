#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring the PM2 processes of one namespace to what is defined."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_process
short_description: Bring the PM2 processes of one namespace to what is defined
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Starts, replaces, scales, stops and removes the processes of one namespace, and of no other.
  - A call is a transaction. New processes have to prove themselves (O(ready)) before the old ones are removed. If they
    do not, everything is put back, and the task fails with the reason and the end of the error log.
  - Cluster apps are replaced without downtime. Their new workers start beside the old ones on the same port.
  - Fork apps cannot share a port. They are stopped and started, and the old definition is started again if the new one
    fails.
  - An app gets a clean environment of E(PATH), E(HOME), E(USER), E(LOGNAME), E(SHELL), E(SHLVL), E(LANG), E(PM2_HOME)
    and what its definition says. Nothing of the caller's shell reaches it.
  - If a run was killed, the next one on the same namespace finishes or undoes it.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
  - nodeops.pm2.ready
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the names of variables and arguments, never their values.
  idempotent:
    support: partial
    details: With O(state=restarted) and O(state=reloaded) every run renews the processes.
options:
  namespace:
    description:
      - The namespace. Letters, digits, C(_), C(.) and C(-), at most 100 characters, not V(all) and not only digits.
    type: str
    required: true
  apps:
    description:
      - The apps, with the keys of PM2's ecosystem files (C(name), C(script), C(cwd), C(instances), C(env), ...).
      - Takes every key of PM2's schema, and its aliases. An unknown key is an error.
      - C(script) may be relative to C(cwd). Without C(cwd) it has to be absolute or a command in E(PATH).
    type: list
    elements: dict
  ecosystem:
    description:
      - An ecosystem file on the target (C(.js), C(.cjs), C(.mjs), C(.json), C(.yml), C(.yaml)).
      - The daemon's node runs a JavaScript file in a clean environment, for 10 seconds at most.
      - Relative paths in it are relative to its directory.
    type: path
  env_name:
    description:
      - Merges C(env_NAME) of each app into its C(env), as C(pm2 start --env NAME) does.
    type: str
  names:
    description:
      - Limits the call to these apps.
    type: list
    elements: str
  state:
    description:
      - V(started) makes every app as defined and running. Needs O(apps) or O(ecosystem).
      - V(stopped) stops the processes and keeps them in PM2's list.
      - V(restarted) and V(reloaded) do the same as V(started), and make every process a new one. V(restarted) stops
        before it starts, V(reloaded) replaces cluster apps without downtime. Without O(apps) and O(ecosystem) the
        processes are renewed as they are.
      - V(absent) removes the processes from PM2's list.
      - For V(stopped) and V(absent), O(apps) may name the apps. Without it all of the namespace is meant.
    type: str
    choices: [started, stopped, restarted, reloaded, absent]
    default: started
  prune:
    description:
      - Remove processes of this namespace that are not defined.
      - A new app may be one of them under another name, on the same port. So it is started when they have ended, unless
        O(strategy=replace). Cluster apps do not wait for one another, because their workers share ports.
    type: bool
    default: false
  strategy:
    description:
      - How an old process is replaced by a new one.
      - V(auto) uses V(replace) for cluster apps and V(restart) for others.
      - V(replace) starts the new one beside the old one, which is removed when the new one has proven itself. Use it
        for a fork app only if both can run at once (no common port).
      - V(restart) stops the old one first, and starts it again if the new one fails.
    type: str
    choices: [auto, replace, restart]
    default: auto
  save:
    description:
      - Write this namespace into C(dump.pm2) at the end, so that it comes back at boot.
    type: bool
    default: true
  max_affected:
    description:
      - Refuse the call if more processes than this would be changed. A replaced process counts once.
    type: int
seealso:
  - module: nodeops.pm2.pm2_info
  - module: nodeops.pm2.pm2_save
"""

EXAMPLES = r"""
- name: Two workers of the API and a queue worker, checked before the old ones go
  nodeops.pm2.pm2_process:
    namespace: shop-production
    apps:
      - name: shop-api
        script: server.js
        cwd: /srv/shop/releases/20261122-1
        exec_mode: cluster
        instances: 2
        env:
          NODE_ENV: production
          PORT: 3000
          DATABASE_URL: "{{ shop_database_url }}"
      - name: shop-worker
        script: worker.js
        cwd: /srv/shop/releases/20261122-1
        env:
          NODE_ENV: production
    prune: true
    max_affected: 3
    ready:
      timeout: 60
      http:
        - url: http://127.0.0.1:3000/health
          expect: status == 'ok'
      log:
        - connected to the queue

- name: What an ecosystem file says, with its env_production
  nodeops.pm2.pm2_process:
    namespace: shop-production
    ecosystem: /srv/shop/current/ecosystem.config.cjs
    env_name: production

- name: Restart two apps of the test environment, and nothing else
  nodeops.pm2.pm2_process:
    namespace: shop-test
    names: [shop-api, shop-worker]
    state: restarted
  become: true
  become_user: shop

- name: Take the development environment down
  nodeops.pm2.pm2_process:
    namespace: shop-dev
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done. One entry for each process that is changed.
  returned: success, and if O(max_affected) refuses the call
  type: list
  elements: dict
  contains:
    action:
      description:
        - V(start), V(replace) (new beside old), V(restart) (old stopped first), V(stop), V(delete), or V(end_orphan)
          for a process that a killed daemon has left.
      type: str
    name:
      description: The app.
      type: str
    pm_id:
      description: PM2's id of the process that was found, null if there was none.
      type: int
    instance:
      description: The number of the instance, from 0.
      type: int
    reasons:
      description: Why. Names of variables, never their values.
      type: list
      elements: str
  sample:
    - action: replace
      name: shop-api
      pm_id: 4
      instance: 0
      reasons: ["cwd: /srv/shop/releases/1 -> /srv/shop/releases/2"]
processes:
  description: The processes of the namespace after the call. In check mode, as they are now.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The app.
      type: str
    namespace:
      description: The namespace.
      type: str
    pm_id:
      description: PM2's id.
      type: int
    pid:
      description: The process id, null if it does not run.
      type: int
    instance:
      description: The number of the instance.
      type: int
    status:
      description: PM2's status.
      type: str
    running:
      description: Whether there really is a process.
      type: bool
    restarts:
      description: How often PM2 has restarted it.
      type: int
    exec_mode:
      description: V(cluster_mode) or V(fork_mode).
      type: str
    script:
      description: The absolute path of the script or program.
      type: str
    cwd:
      description: The working directory.
      type: str
    out_log:
      description: Where its standard output goes.
      type: str
    error_log:
      description: Where its standard error goes. On failure see RV(error_log).
      type: str
saved:
  description: Whether C(dump.pm2) was written.
  returned: success
  type: bool
recovered:
  description: V(finished) or V(undone) if an earlier run had been killed half-way, else null.
  returned: success
  type: str
committed:
  description:
    - True if the failure came after the change was made and saved. Only old processes may be left, and the next run
      removes them.
  returned: on such a failure
  type: bool
rolled_back:
  description: On failure, whether everything was put back. Absent if nothing had been changed.
  returned: success, and on a failure after something was started or stopped
  type: bool
failed_process:
  description: The app and instance that did not prove itself.
  returned: on failure of a new process
  type: dict
  contains:
    name:
      description: The app.
      type: str
    instance:
      description: The number of the instance.
      type: int
error_log:
  description: The last lines of the failed process's error log, without secrets.
  returned: on failure of a new process
  type: list
  elements: str
rollback_error:
  description: Why the undo failed. The next run on the namespace finishes it.
  returned: if RV(rolled_back) is false
  type: str
problems:
  description: All that is wrong with the definition.
  returned: if the definition or the namespace is refused
  type: list
  elements: dict
  contains:
    app:
      description: The app, by name or number.
      type: str
    key:
      description: The key as it is written, empty if it is about the app.
      type: str
    text:
      description: What is wrong, without secrets.
      type: str
ecosystem:
  description: The file that cannot be used.
  returned: if O(ecosystem) is refused
  type: str
rpc_error:
  description: What the daemon answered.
  returned: if the daemon refused a request
  type: str
"""


from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _app_mask
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._reconcile import Options, Reconciler
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon


def main() -> None:
    """Entry point."""
    module = _module.Module(
        {
            **_process_options.CONNECTION,
            "namespace": {"type": "str", "required": True},
            "apps": {"type": "list", "elements": "dict"},
            "ecosystem": {"type": "path"},
            "env_name": {"type": "str"},
            "names": {"type": "list", "elements": "str"},
            "state": {
                "type": "str",
                "choices": ["started", "stopped", "restarted", "reloaded", "absent"],
                "default": "started",
            },
            "prune": {"type": "bool", "default": False},
            "strategy": _process_options.STRATEGY,
            "ready": _process_options.READY,
            "save": {"type": "bool", "default": True},
            "max_affected": {"type": "int"},
        },
        masks={"apps": _app_mask.APPS, "names": _masks.plain, "ready": _process_options.READY_MASK},
        mutually_exclusive=[("apps", "ecosystem")],
    )
    options = Options(**dict(module.params, pm2_home=module.params["pm2_home"] or _daemon.default_home()))
    reconciler = Reconciler(options, module.check_mode)

    _module.run(module, reconciler.run, reconciler.warnings)


if __name__ == "__main__":
    main()
