# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The diff of a change. It never shows a value of an environment or an argument."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable

from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _plan
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_state import describe
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

_SECRET_KEYS = ("args", "node_args", "io")


def summary(live: Iterable[Process]) -> Dict[str, Any]:
    """Per app, what a reader of a diff looks for first."""
    result: Dict[str, Any] = {}
    for name, processes in _plan.group(live).items():
        result[name] = {"instances": len(processes), "status": sorted({describe(p) for p in processes})}
    return result


def difference_text(namespace: str, before: Dict[str, Any], plan: _plan.Plan) -> Dict[str, str]:
    """Ansible's diff: ``before`` and ``after`` as text. They are equal if nothing changes."""
    old = {name: dict(value) for name, value in before.items()}
    new = {name: dict(value) for name, value in before.items()}
    for app in plan.apps:
        if app.app is None:
            _apply_removal(new, app)
        elif app.actions:
            target = new.setdefault(app.name, {})
            target.update(instances=app.app.instances, status=["online" if app.app.autostart else "stopped"])
            for difference in app.differences:
                secret = difference.key.split(".")[0] in _SECRET_KEYS
                old.setdefault(app.name, {})[difference.key] = "(hidden)" if secret else difference.before
                target[difference.key] = "(hidden, changed)" if secret else difference.after
    header = "namespace %s" % namespace
    return {"before_header": header, "after_header": header, "before": _text(old), "after": _text(new)}


def _apply_removal(new: Dict[str, Any], app: _plan.AppPlan) -> None:
    if app.retire:
        new.pop(app.name, None)
    elif app.stop:
        new[app.name]["status"] = ["stopped"]


def _text(state: Dict[str, Any]) -> str:
    return json.dumps(state, indent=2, sort_keys=True, default=str) + "\n"
