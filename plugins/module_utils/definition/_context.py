# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The context of a definition: the daemon, its user and its host."""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple


class Context(NamedTuple):
    """Everything normalisation depends on besides the definition."""

    pm2_home: str
    """Absolute."""
    pm2_version: Tuple[int, int, int]
    node: str
    """Absolute path of the daemon's node (its process.execPath)."""
    user: str
    """Name of the user the daemon runs as."""
    uid: int
    home: str
    """That user's home directory."""
    cpus: int
    base_env: Dict[str, str]
    """PATH HOME USER LOGNAME SHELL SHLVL LANG PM2_HOME: computed, not inherited."""
    pm2_dir: str = ""
    """Directory of the pm2 package (node_modules/pm2). "" if unknown: then there is no `serve` and no YAML."""
