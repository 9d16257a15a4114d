# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Bring back the processes of a namespace that has none left: from PM2's dump, otherwise from a backup."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _resurrect
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _dump_backup

ARGUMENTS: Dict[str, Dict[str, Any]] = dict(_dump_backup.ARGUMENTS, backup={"type": "str"})
"""The options of pm2_dump_backup. Without ``backup``, ``run`` decides whether a backup is needed."""


def run(params: Dict[str, Any], check_mode: bool, warn: Callable[[str], None]) -> Dict[str, Any]:
    """The result, with ``source``: live (nothing was missing), dump or backup.

    A namespace that has a process, even a stopped one, is not touched, unless ``backup`` names what to restore.
    """
    home = params["pm2_home"] or _daemon.default_home()
    namespace = params["namespace"]
    if params["backup"] is None:
        if _live(home, namespace):
            return {"changed": False, "source": "live"}
        found = _dump.read(home)
        entries = [entry for entry in found.entries if namespace in (None, _dump.namespace_of(entry))]
        if found.problem:
            warn("%s. %s" % (found.problem, "Its backup beside it was used." if entries else "A backup is restored."))
        if entries:
            return dict(_bring(params, home, entries, check_mode, warn), source="dump")
    wanted = dict(params, state="restored", backup=params["backup"] or "latest", apply=True)
    return dict(_dump_backup.run(wanted, check_mode, warn), source="backup")


def _live(home: str, namespace: Any) -> bool:
    daemon = _daemon.find(home)
    processes = [Process(item) for item in daemon.processes] if daemon else []
    return any(namespace in (None, item.namespace) for item in processes if not item.is_module)


def _bring(
    params: Dict[str, Any], home: str, entries: List[_dump.Entry], check_mode: bool, warn: Callable[[str], None]
) -> Dict[str, Any]:
    """Each namespace is a transaction of its own: if one cannot be brought back, the others still are."""
    actions: List[Dict[str, Any]] = []
    failures: Dict[str, NodeopsError] = {}
    for namespace in sorted({_dump.namespace_of(entry) for entry in entries}):
        own = [entry for entry in entries if _dump.namespace_of(entry) == namespace]
        try:
            done = _resurrect.bring(
                home, params["pm2_executable"], namespace, own, params["ready"], check_mode, True, warn=warn
            )
        except _signals.Interrupted:
            raise
        except NodeopsError as error:
            failures[namespace] = error
        else:
            actions.extend(dict(action, namespace=namespace) for action in done["actions"])
    if failures:
        told = " ".join("Namespace %s was not brought back: %s" % each for each in failures.items())
        details = {key: value for failure in failures.values() for key, value in failure.details.items()}
        failed = NodeopsError(told, dict(details, changed=bool(actions), actions=actions))
        failed.outcome = list(failures.values())[-1].outcome  # as the details are those of the last
        raise failed
    return {"changed": bool(actions), "actions": actions}
