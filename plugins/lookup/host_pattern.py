# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a playbook, or a clear error."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_pattern
short_description: Refuse a host pattern that no host of the inventory matches
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Returns the pattern that it is given, for C(hosts) of a play. If no host matches it, and there is an inventory, it
    fails before any task. Ansible itself would end such a play as a success.
  - If there is no inventory at all, as with C(ansible-playbook --syntax-check) and ansible-lint, it returns
    V(localhost), and the play finds no variables of an application there.
  - The playbooks of this collection use it.
options:
  _terms:
    description:
      - The pattern, or a list of patterns.
    required: true
"""

EXAMPLES = r"""
- name: Deploy
  hosts: "{{ lookup('nodeops.pm2.host_pattern', deploy_hosts | default('all')) }}"
  roles:
    - role: nodeops.pm2.deploy
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

from typing import Any, List, Mapping, Optional

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.plugins.lookup.inventory_hostnames import LookupModule as InventoryHostnames

DEFAULT_INVENTORY = "/etc/ansible/hosts"


class LookupModule(LookupBase):
    """Looks the pattern up among the hosts of the play."""

    def run(self, terms: List[Any], variables: Optional[Mapping[str, Any]] = None, **kwargs: Any) -> List[Any]:
        """The pattern, or `localhost` if there is no inventory."""
        variables = variables or {}
        patterns: List[Any] = self._flatten(terms)
        matches = InventoryHostnames(loader=self._loader, templar=self._templar).run(patterns, variables)
        # The hosts of the play are those that --limit leaves. A localhost that the inventory lacks is not among them.
        if not set(matches).isdisjoint(variables["ansible_play_hosts_all"]):
            return patterns
        if set(variables["ansible_inventory_sources"]) <= {DEFAULT_INVENTORY}:
            return ["localhost"]
        raise AnsibleLookupError(
            f"No host matches {', '.join(patterns)}. Is the path of the inventory right? Nothing was changed."
        )
