# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of hooks."""

from __future__ import annotations

from ansible_collections.nodeops.pm2.plugins.filter import hooks


def test_the_file_of_each_hook() -> None:
    given = {"drain": "hooks/drain.yml", "undrain": "/srv/undrain.yml", "failed": "", "before_build": None}
    assert hooks.hook_files(given, "/inventory") == {
        "drain": "/inventory/hooks/drain.yml",
        "undrain": "/srv/undrain.yml",
    }
