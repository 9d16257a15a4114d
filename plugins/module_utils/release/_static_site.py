# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A release without processes: switch ``current``, check the web server's answers, switch back if a check fails."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import COMMITTED, UNDONE, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._failure import ChangeFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import ours
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._reconcile import Options, Reconciler
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _definitions, _link_journal, _placement
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall

PAUSE = 0.1  # seconds between two rounds of checks
_NO_PIDS = _checks.Pids(set(), set(), set())
_NOTHING: Dict[str, Any] = {
    "changed": False,
    "actions": [],
    "processes": [],
    "saved": False,
    "recovered": None,
    "rolled_back": False,
    "diff": {"before": "", "after": ""},
}


def is_in_order(call: ModuleCall, manifest: Manifest, definition: Dict[str, Any]) -> bool:
    """Whether nothing is left to do: no processes of the release are left, and all checks pass."""
    try:
        former = _definitions.read(call.layout, manifest.release)
    except NodeopsError:
        return False
    checks = _checks.parse(definition["ready"]).connections
    has_processes = _definitions.has_processes(former) or _left_processes(call, definition["prune"])
    return not has_processes and not any(_checks.attempt(check, _NO_PIDS).problem for check in checks)


def activate(
    call: ModuleCall, definition: Dict[str, Any], switch: _symlink.Switch, is_rollback: bool
) -> Dict[str, Any]:
    """Switch ``current`` and remove the processes that an earlier release left. ``is_rollback``: see _activation."""
    ready = _checks.parse_of_files(definition["ready"])
    removal = removal_of_processes(call, definition, is_rollback)
    result = Reconciler(removal, True, call.redactor).run() if removal else dict(_NOTHING)
    if not call.check_mode:
        _switch_and_check(call, ready, switch)
        if removal:
            result = _remove_processes(call, removal)
    return dict(result, changed=result["changed"] or switch.before != switch.after)


def _remove_processes(call: ModuleCall, removal: Options) -> Dict[str, Any]:
    try:
        return Reconciler(removal, False, call.redactor).run()
    except ChangeFailed as error:  # it has put back the processes, but not the link
        reason = error.reason.rstrip(".")
        if error.outcome.reason:
            reason += " (nor could all of them be put back: %s)" % error.outcome.reason.rstrip(".")
        failure = NodeopsError(
            "current is switched, and the processes that were there before could not be removed: %s. Run again."
            % reason,
            dict(error.details),
        )
        failure.settle(COMMITTED, error.outcome.reason)
        raise failure from error


def _switch_and_check(call: ModuleCall, ready: Ready, switch: _symlink.Switch) -> None:
    """Switch ``current`` and run the checks. If anything is raised, ``current`` is as it was before."""
    if switch.before != switch.after:
        _link_journal.begin(call.layout, switch)
    try:
        _symlink.apply(switch)
        _await_answers(ready)
        _signals.hold()
        _link_journal.end(call.layout)
    except BaseException as error:
        _symlink.revert(switch)
        _link_journal.end(call.layout)
        if isinstance(error, GateFailure):
            failure = GateFailure("%s. current is as it was before." % call.redactor.text(str(error)))
            failure.settle(UNDONE)
            raise failure from error
        raise


def _left_processes(call: ModuleCall, prune: bool) -> List[str]:
    """Names of processes that an earlier release has left: all of the namespace (``prune``), or those in releases."""
    home = call.options.pm2_home
    try:
        daemon = _daemon.find_listening(home) if os.path.isdir(home) else None
    except NodeopsError as error:
        if prune:
            raise
        call.warnings.append("Whether an earlier release has left processes cannot be told: %s" % error)
        return []
    processes = ours(daemon.processes, call.options.namespace) if daemon else []
    runs_in_release = _placement.runs_in_another_release
    return sorted({process.name for process in processes if prune or runs_in_release(call.layout, process, "")})


def removal_of_processes(call: ModuleCall, definition: Dict[str, Any], is_rollback: bool) -> Optional[Options]:
    """How to remove the processes that an earlier release has left; None if there are none.

    They may be removed with ``prune``, or by a rollback to a release that had none: its definition was written before
    they existed, so it could not ask for that. Else raises NodeopsError.
    """
    left = _left_processes(call, definition["prune"])
    if not left:
        return None
    if not definition["prune"] and not is_rollback:
        raise NodeopsError(
            "The release has no processes, but namespace %s has some that run in releases of %s: %s. Nothing was "
            "changed. Define the release's processes, or remove these with prune (deploy_remove_undefined)."
            % (call.options.namespace, call.layout.root, ", ".join(left))
        )
    return Options(
        namespace=call.options.namespace,
        pm2_home=call.options.pm2_home,
        pm2_executable=call.options.pm2_executable,
        ready=definition["ready"],
        names=left,
        state="absent",
        max_affected=call.options.max_affected,
    )


def _await_answers(ready: Ready) -> None:
    deadline = time.monotonic() + ready.timeout
    for check in ready.connections:
        while True:
            answer = _checks.attempt(check, _NO_PIDS)
            if not answer.problem:
                break
            if time.monotonic() >= deadline:
                raise GateFailure("%s %s within %g s" % (check.label(), answer.problem, ready.timeout))
            time.sleep(PAUSE)
