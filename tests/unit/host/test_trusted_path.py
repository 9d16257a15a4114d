"""Who counts as another user of a path: the members of its group, unless that group is the owner's alone."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from types import SimpleNamespace
from typing import Any, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _trusted_path


@pytest.mark.parametrize(
    ("group", "primary", "members", "is_writable"),
    [
        ("shop", 70001, [], False),
        ("shop", 70001, ["shop"], False),
        ("shop", 70001, ["shop", "guest"], True),
        ("shop", 70002, [], True),
        ("staff", 70001, [], True),
    ],
)
def test_a_group_with_another_member_can_write(
    monkeypatch: pytest.MonkeyPatch, group: str, primary: int, members: List[str], is_writable: bool
) -> None:
    owner: Any = SimpleNamespace(pw_name="shop", pw_gid=primary)
    its_group: Any = SimpleNamespace(gr_name=group, gr_mem=members)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: owner)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: its_group)
    found = os.stat_result((stat.S_IFDIR | 0o770, 0, 0, 0, 70000, 70001, 0, 0, 0, 0))
    assert _trusted_path.is_writable_for_others(found) is is_writable
