# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The options of pm2_release."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional


class ReleaseOptions(NamedTuple):
    """The options as the module got them; times in seconds."""

    state: str
    root: str
    app: str
    namespace: str
    pm2_home: str
    pm2_executable: Optional[str]
    run: str
    owner: Dict[str, Any]
    release: Optional[str]
    from_release: Optional[str]
    version: Optional[str]
    force: bool
    lock_timeout: float
    source: Optional[Dict[str, Any]]
    shared: List[Any]
    environment: Dict[str, Any]
    environment_file: Optional[str]
    environment_processes: bool
    contract: Dict[str, Any]
    dependencies: List[Dict[str, Any]]
    build: List[Any]
    build_environment: Dict[str, Any]
    path: List[str]
    timeout: float
    migrate: List[Any]
    forbidden: List[str]
    apps: List[Dict[str, Any]]
    ecosystem: Optional[str]
    env_name: Optional[str]
    prune: bool
    strategy: str
    max_affected: Optional[int]
    ready: Dict[str, Any]
    keep: int
    go_on: bool
    stage: Optional[str]
    reason: Optional[str]
