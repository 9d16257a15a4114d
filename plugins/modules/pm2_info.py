#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Report on a PM2 daemon, its processes and its dump."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_info
short_description: Report on a PM2 daemon, its processes, its dump, and what looks wrong
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Only reads. It never starts a daemon and takes no lock, so it can run while another call changes something.
  - No value of an environment is returned.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  namespace:
    description:
      - Report on this namespace only. Without it, report on all.
    type: str
seealso:
  - module: nodeops.pm2.pm2_process
"""

EXAMPLES = r"""
- name: Look at production
  nodeops.pm2.pm2_info:
    namespace: shop-production
  register: shop

- name: Stop if something is wrong there
  ansible.builtin.assert:
    that: shop.problems | length == 0
    fail_msg: "{{ shop.problems | map(attribute='message') | join('; ') }}"
"""

RETURN = r"""
daemon:
  description: The daemon.
  returned: success
  type: dict
  contains:
    running:
      description: Whether one listens on its socket.
      type: bool
    pid:
      description: Its process id, as the kernel tells it, null if no daemon runs.
      type: int
    version:
      description: The version in memory, null if no daemon runs.
      type: str
      sample: 7.0.4
    installed_version:
      description: The version installed, null if C(pm2) was not found.
      type: str
    node:
      description: The node program that it runs on, null if no daemon runs.
      type: str
      sample: /usr/bin/node
    pm2_home:
      description: Its directory.
      type: str
processes:
  description: The processes without PM2's own modules; see M(nodeops.pm2.pm2_process) for the keys.
  returned: success
  type: list
  elements: dict
dump:
  description: What C(pm2 resurrect) would start from.
  returned: success
  type: dict
  contains:
    path:
      description: C(dump.pm2).
      type: str
    exists:
      description: Whether it is there.
      type: bool
    mode:
      description: Its permissions, null if it is not there.
      type: str
      sample: "0600"
    source:
      description:
        - The file that a resurrect would read. It is the backup if the dump is missing or broken, and null if neither
          can be read.
      type: str
    problem:
      description: What is wrong with the dump, null if nothing is.
      type: str
    entries:
      description: Its processes (C(name), C(namespace), C(instance), C(status), C(script), C(cwd)).
      type: list
      elements: dict
drift:
  description:
    - The apps of which dump and live processes differ, with C(namespace), C(name), C(kind) (V(not_saved), V(not_live),
      V(instances_differ), V(differs)) and the C(keys) that differ. Empty without a daemon.
  returned: success
  type: list
  elements: dict
problems:
  description:
    - What looks wrong, with C(kind) and C(message). If it is about one process, C(namespace), C(name) and C(pm_id) say
      which.
    - Kinds are V(missing_cwd), V(no_live_pid), V(crash_loop), V(name_collision), V(readable_dump), V(broken_dump),
      V(open_transaction), V(deaf_daemon), V(version_mismatch), V(daemon_environment).
  returned: success
  type: list
  elements: dict
"""

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _info, _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon


def main() -> None:
    """Entry point."""
    module = _module.Module({**_process_options.CONNECTION, "namespace": {"type": "str"}}, masks={})

    def gather() -> Dict[str, Any]:
        home = module.params["pm2_home"] or _daemon.default_home()
        return dict(_info.gather(home, module.params["pm2_executable"], module.params["namespace"]), changed=False)

    _module.run(module, gather)


if __name__ == "__main__":
    main()
