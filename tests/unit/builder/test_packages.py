"""Packages of an app with an install script are never copied, unless no command runs that script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _packages

FILES = ["package.json", "package-lock.json"]


@pytest.mark.parametrize(
    ("commands", "is_copied"),
    [
        (["npm ci"], False),
        (["npm ci --ignore-scripts"], True),
        (["npm ci --ignore-scripts", "npm rebuild"], False),
        (["npm ci --ignore-scripts", "npm prune --ignore-scripts"], True),
    ],
)
def test_packages_are_copied_if_every_command_ignores_scripts(
    tmp_path: Path, commands: List[str], is_copied: bool
) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"scripts": {"postinstall": "node make.js"}}))
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": {}}))
    reason = _packages.why_not_copied(str(tmp_path), FILES, commands)
    assert (reason is None) is is_copied, reason


def test_packages_are_copied_if_npm_is_set_to_ignore_scripts(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"scripts": {"postinstall": "node make.js"}}))
    (tmp_path / ".npmrc").write_text("ignore-scripts = true\n")
    assert _packages.why_not_copied(str(tmp_path), FILES[:1], ["npm ci"]) is None
