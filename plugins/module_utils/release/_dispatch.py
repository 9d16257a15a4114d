# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""pm2_release: do the work of the state that is asked for."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall

# Each task sends and compiles every file anew, so a state imports only what it needs.


def prepare(call: ModuleCall) -> Dict[str, Any]:
    """State prepared."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _prepare

    result = _prepare.prepare(call)
    return _go_on(call, result) if call.options.go_on and _is_next_publish(call, result) else result


def _is_next_publish(call: ModuleCall, prepared: Dict[str, Any]) -> bool:
    options = call.options
    if prepared.get("upload") or prepared.get("in_order"):
        return False
    return not (prepared["needed"] and (options.dependencies or options.build or options.migrate))


def _go_on(call: ModuleCall, prepared: Dict[str, Any]) -> Dict[str, Any]:
    """Publish in the same call, as no stage lies between: another task would cost half a second."""
    following = ModuleCall(call.options._replace(state="published", release=prepared["release"]), call.check_mode)
    following.redactor, following.warnings, following.recovered = call.redactor, call.warnings, call.recovered
    try:
        published = publish(following)
    except NodeopsError as error:
        error.details.update({name: prepared[name] for name in ("release", "former", "version", "revision")})
        raise
    changed = prepared["changed"] or published["changed"]
    return {**prepared, **published, "changed": changed, "went_on": True}


def build(call: ModuleCall) -> Dict[str, Any]:
    """State built."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _build

    return _build.build(call)


def migrate(call: ModuleCall) -> Dict[str, Any]:
    """State migrated."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _build

    return _build.migrate(call)


def publish(call: ModuleCall) -> Dict[str, Any]:
    """State published."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _publish

    return _publish.publish(call)


def roll_back(call: ModuleCall) -> Dict[str, Any]:
    """State rolled_back."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _rollback

    return _rollback.roll_back(call)


def prune(call: ModuleCall) -> Dict[str, Any]:
    """State pruned."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _prune

    return _prune.prune(call)


def abandon(call: ModuleCall) -> Dict[str, Any]:
    """State abandoned."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _abandon

    return _abandon.abandon(call)


STATES: Dict[str, Callable[[ModuleCall], Dict[str, Any]]] = {
    "prepared": prepare,
    "built": build,
    "migrated": migrate,
    "published": publish,
    "rolled_back": roll_back,
    "pruned": prune,
    "abandoned": abandon,
}


def run(call: ModuleCall) -> Dict[str, Any]:
    """The module's result. Raises NodeopsError, its text without secrets."""
    try:
        if not os.path.isabs(call.options.root):
            raise NodeopsError(
                "root %r is not an absolute path. Nothing was changed. Give an absolute path." % call.options.root
            )
        return STATES[call.options.state](call)
    except NodeopsError as error:
        details = dict(error.details, release=error.details.get("release", call.options.release))
        details["current"] = _current(call)
        details.setdefault("former", details["current"] if call.former is None else call.former or None)
        failure = NodeopsError(call.redactor.text(str(error)), details)
        failure.settle(*error.outcome)
        raise failure from error


def _current(call: ModuleCall) -> Any:
    try:
        return call.current() or None
    except NodeopsError:
        return None
