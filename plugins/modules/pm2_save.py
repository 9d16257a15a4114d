#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write one namespace's processes into dump.pm2."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_save
short_description: Write one namespace's live processes into PM2's dump
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Makes C(dump.pm2) hold exactly the processes that this namespace has now. C(pm2 resurrect) reads that file at boot.
    The entries of every other namespace stay as they are.
  - A namespace without processes is saved as empty, so that what was removed does not come back at boot.
  - The file is replaced atomically (written beside, fsynced, renamed), and only its owner can read it. The former file
    becomes C(dump.pm2.bak).
  - Nothing is written if the dump already says the same. Counters, ids and metrics do not count.
  - M(nodeops.pm2.pm2_process) saves by itself. This module is for changes made by other means.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows names and states of processes, no environment.
  idempotent:
    support: full
options:
  namespace:
    description:
      - The namespace to save.
    type: str
    required: true
seealso:
  - module: nodeops.pm2.pm2_process
"""

EXAMPLES = r"""
- name: Let what runs in production come back after a reboot
  nodeops.pm2.pm2_save:
    namespace: shop-production
  become: true
  become_user: shop
"""

RETURN = r"""
entries:
  description: How many processes of this namespace the dump holds after the call.
  returned: success
  type: int
  sample: 3
dump:
  description: The dump.
  returned: success
  type: str
  sample: /home/shop/.pm2/dump.pm2
recovered:
  description: V(finished) or V(undone) if an earlier run had been killed half-way, else null.
  returned: success
  type: str
problems:
  description: What is wrong with the namespace (C(app), C(key), C(text)).
  returned: if O(namespace) is refused
  type: list
  elements: dict
rpc_error:
  description: What the daemon answered.
  returned: if the daemon refused a request
  type: str
"""

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options, _save


def main() -> None:
    """Entry point."""
    module = _module.Module({**_process_options.CONNECTION, "namespace": {"type": "str", "required": True}}, masks={})

    def save() -> Dict[str, Any]:
        return _save.save(module.params["pm2_home"], module.params["namespace"], module.check_mode)

    _module.run(module, save)


if __name__ == "__main__":
    main()
