# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Bring live processes to entries of a dump, as one transaction of their namespace."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._reconcile import (
    Additions,
    Options,
    Reconciler,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump


def bring(
    pm2_home: str,
    pm2_executable: Optional[str],
    namespace: str,
    entries: List[_dump.Entry],
    ready: Dict[str, Any],
    check_mode: bool,
    save: bool,
    prune: bool = False,
    again: bool = False,
    warn: Callable[[str], None] = lambda _warning: None,
    revert: Optional[Callable[[], None]] = None,
    redactor: Optional[Redactor] = None,
) -> Dict[str, Any]:
    """The result of pm2_process with ``entries`` (of this namespace) in place of a definition.

    A daemon is started if none runs. ``prune``: processes of the namespace without an entry are removed. ``again``:
    processes that are as their entries say are renewed too. ``revert`` puts back what was changed for the new
    processes, and is called before old ones are started again. Raises ChangeFailed.
    """
    wanted: Optional[List[_dump.Entry]] = entries
    state = "reloaded" if again else "started"
    if not entries:
        wanted, state, prune = None, "absent", False
    options = Options(namespace, pm2_home, pm2_executable, ready, state=state, prune=prune, save=save)
    return _run(options, Additions(entries=wanted, revert=revert), check_mode, warn, redactor)


def renew(
    pm2_home: str,
    pm2_executable: Optional[str],
    namespace: str,
    ready: Dict[str, Any],
    check_mode: bool,
    warn: Callable[[str], None] = lambda _warning: None,
    revert: Optional[Callable[[], None]] = None,
    redactor: Optional[Redactor] = None,
) -> Dict[str, Any]:
    """Renew the processes of a namespace as they are: a file has changed that they read at their start."""
    options = Options(namespace, pm2_home, pm2_executable, ready, state="reloaded")
    return _run(options, Additions(revert=revert), check_mode, warn, redactor)


def _run(
    options: Options,
    additions: Additions,
    check_mode: bool,
    warn: Callable[[str], None],
    redactor: Optional[Redactor],
) -> Dict[str, Any]:
    reconciler = Reconciler(options, check_mode, redactor, additions)
    result = reconciler.run()
    for warning in reconciler.warnings:
        warn(warning)
    return result
