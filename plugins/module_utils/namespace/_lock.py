# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The lock of a namespace: one run at a time changes it."""

from __future__ import annotations

from typing import ContextManager

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files

TIMEOUT = 120.0  # seconds


def held(pm2_home: str, namespace: str, not_done: str) -> ContextManager[None]:
    """Hold the lock of ``namespace``. Raises NodeopsError when another run does not finish within TIMEOUT.

    ``not_done`` follows the namespace's name in that error: "was not changed".
    """
    # The prefix keeps it apart from other locks, whatever the namespace is called.
    name = "namespace-" + namespace
    return _files.lock(pm2_home, name, "Namespace %s %s" % (namespace, not_done), TIMEOUT)
