# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Check mode of state published, for a release that does not exist yet."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import app_name
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _plan
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import ours
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _activation, _definitions, _live, _static_site
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def predict(call: ModuleCall) -> Dict[str, Any]:
    """What would change, told by the names of the processes. An ecosystem file is not here yet, so its names are not
    known either: then the result says that the processes of the namespace would be replaced.
    """
    options = call.options
    live = _live.find(call)
    apps = [app for app in options.apps if isinstance(app, dict)]
    if not apps and not options.ecosystem:
        _checks.parse_of_files(options.ready)
        _static_site.removal_of_processes(call, _definitions.requested(options), is_rollback=False)
    daemon = _daemon.find_listening(options.pm2_home) if apps or options.ecosystem or options.prune else None
    processes = ours(daemon.processes, options.namespace) if daemon else []
    there: Dict[str, int] = {process.name: process.pm_id for process in processes}
    names = list(there) if options.ecosystem else [app_name(app) for app in apps]
    actions = []
    for name in names:
        verb = "replace" if name in there else "start"
        actions.append(_plan.action(verb, name, there.get(name), None, ["a new release"]))
    if options.prune:
        actions += [_plan.action("delete", n, i, None, ["not defined"]) for n, i in there.items() if n not in names]
    switch = _symlink.Switch(call.layout.current, live.link, call.layout.link_text(options.release or ""))
    return {
        "changed": True,
        "actions": actions,
        "processes": [],
        "saved": bool(actions),
        "recovered": None,
        "rolled_back": False,
        "release": options.release,
        "directory": call.layout.release(options.release or ""),
        "former": live.release or None,
        "removed": [],
        "diff": [_processes_difference(call, actions), _activation.link_difference(switch)],
    }


def _processes_difference(call: ModuleCall, actions: List[Dict[str, Any]]) -> Dict[str, str]:
    header = "namespace %s" % call.options.namespace
    lines = "".join("%s %s: %s\n" % (a["action"], a["name"], ", ".join(a["reasons"])) for a in actions)
    return {"before_header": header, "after_header": header, "before": "", "after": lines}
