# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of pm2_release, see release_action.py."""

from __future__ import annotations

from pathlib import Path

from support import own_process


def test_the_action_of_the_controller(tmp_path: Path) -> None:
    """Runs in its own process: once Ansible's controller is imported, every module takes itself for a part of it."""
    printed = own_process.run_tests(Path(__file__).with_name("release_action.py"), tmp_path / "own")
    assert printed is None, printed
