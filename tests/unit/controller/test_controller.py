# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plugins that run on the controller: the other files of this directory hold their tests.

Each of them runs in a process of its own: once Ansible's controller is imported, every module that is called in the
same process takes itself for a part of it, and gives its warnings to the terminal.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import own_process

FILES = sorted(path.name for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))


def test_there_are_tests_of_each_kind() -> None:
    assert {name.partition("_")[0] for name in FILES} == {"action", "filter", "lookup"}


@pytest.mark.parametrize("name", FILES)
def test_plugin(name: str, tmp_path: Path) -> None:
    printed = own_process.run_tests(Path(__file__).with_name(name), tmp_path / "own")
    assert printed is None, printed
