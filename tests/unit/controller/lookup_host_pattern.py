# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host pattern of a playbook."""

from __future__ import annotations

from typing import Any, List

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.nodeops.pm2.plugins.lookup import host_pattern

GROUPS = {"all": ["web1", "web2", "db1"], "web": ["web1", "web2"]}
DEFAULT = ["/etc/ansible/hosts"]


def look_up(pattern: Any, left: List[str], sources: List[str]) -> Any:
    plugin = host_pattern.LookupModule(loader=DataLoader())
    variables = {
        "groups": GROUPS if left else {"all": []},
        "ansible_play_hosts_all": left,
        "ansible_inventory_sources": sources,
    }
    return plugin.run([pattern], variables)


@pytest.mark.parametrize("pattern", ["all", "web", "web:!web1", "web*", "~(web|db)1", ["web1", "no_such_host"]])
def test_a_pattern_that_hosts_match(pattern: Any) -> None:
    patterns = pattern if isinstance(pattern, list) else [pattern]
    assert look_up(pattern, GROUPS["all"], ["hosts.yml"]) == patterns


@pytest.mark.parametrize(
    ("pattern", "left"),
    [("no_such_host", ["web1", "web2", "db1"]), ("web2", ["web1"]), ("all", []), ("localhost", ["web1"])],
)
def test_a_pattern_that_no_host_matches(pattern: str, left: List[str]) -> None:
    message = f"No host matches {pattern}. Is the path of the inventory right\\? Nothing was changed."
    with pytest.raises(AnsibleLookupError, match=message):
        look_up(pattern, left, ["hosts.yml"])


@pytest.mark.parametrize("sources", [[], DEFAULT])
def test_without_an_inventory(sources: List[str]) -> None:
    assert look_up("all", [], sources) == ["localhost"]
