# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The context of a call on this host: the daemon's version and node, its user, the CPUs."""

from __future__ import annotations

import os
import pwd
from typing import Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon


def context_for(pm2_home: str, executable: Optional[str], daemon: Optional[Daemon]) -> Context:
    """The context, with the daemon's version and node, or those of the program that would start a daemon."""
    try:
        installed: Optional[_daemon.Executable] = _daemon.find_executable(executable)
    except NodeopsError:
        if daemon is None:
            raise
        installed = None
    version = daemon.version if daemon else None
    node = _daemon.node_of(daemon.pid) if daemon else None
    if installed is not None:
        version, node = version or installed.version, node or installed.node
    if version is None or node is None:
        raise NodeopsError(
            "The node of the PM2 daemon of %s cannot be told. Nothing was changed. Set pm2_executable." % pm2_home
        )
    user = pwd.getpwuid(os.geteuid())
    if daemon is not None:
        pm2_home = _daemon.home_as_named_by(daemon.pid, pm2_home)
    return Context(
        pm2_home=pm2_home,
        pm2_version=version,
        node=node,
        user=user.pw_name,
        uid=user.pw_uid,
        home=user.pw_dir,
        cpus=os.cpu_count() or 1,
        base_env=_daemon.base_environment(pm2_home, node),
        pm2_dir=installed.directory if installed else "",
    )
