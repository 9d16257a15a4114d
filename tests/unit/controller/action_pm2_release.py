# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of pm2_release if the source cannot be read, packed or uploaded.

Run by test_controller.py in a process of its own.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Dict, List
from unittest import mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.nodeops.pm2.plugins.action import pm2_release
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _directory


class Action(pm2_release.ActionModule):
    """The action without a host: it records each call of the module, and the answer is that an upload is wanted."""

    def __init__(self, source: Path) -> None:
        common = {"root": "/srv/shop", "app": "shop", "namespace": "prod", "run": "20261122T093000Z-1"}
        task = mock.Mock(args={**common, "state": "prepared", "source": {"type": "directory", "address": str(source)}})
        super().__init__(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        self.calls: List[Dict[str, Any]] = []

    def _execute_module(self, module_args: Dict[str, Any], **_more: Any) -> Dict[str, Any]:  # type: ignore[override]
        self.calls.append(module_args)
        return {"upload": module_args["state"] == "prepared"}

    def failure(self) -> str:
        """The message of the action, which has to fail."""
        with mock.patch.object(ActionBase, "run"), pytest.raises(AnsibleActionFail) as raised:
            self.run(None, {})
        return str(raised.value)


def full(*_arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")


def test_a_source_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    action = Action(tmp_path)
    with mock.patch.object(_directory, "read", full):
        assert f"The source {tmp_path} cannot be read or packed: No space left on device" in action.failure()
    assert action.calls == []


def test_a_failure_between_the_calls_is_told_to_the_host_and_frees_the_lock(tmp_path: Path) -> None:
    action = Action(tmp_path)
    (tmp_path / "page").write_text("")
    with mock.patch.object(_directory, "pack", full):
        assert "No space left on device (/tmp/x)" in action.failure()
    first, second = action.calls
    assert (first["state"], second["state"]) == ("prepared", "abandoned")
    assert (second["run"], second["root"], second["stage"]) == (first["run"], "/srv/shop", "prepare")
    assert "No space left" in second["reason"]
    assert "source" not in second


def test_the_host_gets_every_package_for_the_check_of_scripts(tmp_path: Path) -> None:
    for name in ("", "packages/db", "packages/left-out", "node_modules/x", "packages/db/node_modules/y"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "package.json").write_text(f'{{"name": "{name}"}}')
    for forbidden, told in (([], {"package.json"}), (["reset"], {"package.json", "packages/db/package.json"})):
        action = Action(tmp_path)
        action._task.args["forbidden"] = forbidden
        action._task.args["source"]["exclude"] = ["left-out"]
        with mock.patch.object(ActionBase, "run"), mock.patch.object(action, "_upload", return_value="/tmp/x"):
            action.run(None, {})
        assert set(action.calls[0]["source"]["texts"]) == told
