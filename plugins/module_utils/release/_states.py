# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""pm2_release: which state is whose work."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.release._call import Call

# Python compiles every file anew in each task, so a state imports what it works with, and no more.


def prepare(call: Call) -> Dict[str, Any]:
    """State prepared."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _prepare

    result = _prepare.prepare(call)
    return _go_on(call, result) if call.options.go_on and _is_next_publish(call, result) else result


def _is_next_publish(call: Call, prepared: Dict[str, Any]) -> bool:
    options = call.options
    if prepared.get("upload") or prepared.get("in_order"):
        return False
    return not (prepared["needed"] and (options.dependencies or options.build or options.migrate))


def _go_on(call: Call, prepared: Dict[str, Any]) -> Dict[str, Any]:
    """State published in the same call: nothing lies between, and a task costs half a second."""
    following = Call(call.options._replace(state="published", release=prepared["release"]), call.check_mode)
    following.redactor, following.warnings, following.recovered = call.redactor, call.warnings, call.recovered
    try:
        published = publish(following)
    except NodeopsError as error:
        error.details.update({name: prepared[name] for name in ("release", "former", "version", "revision")})
        raise
    changed = prepared["changed"] or published["changed"]
    return {**prepared, **published, "changed": changed, "went_on": True}


def build(call: Call) -> Dict[str, Any]:
    """State built."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _build

    return _build.build(call)


def migrate(call: Call) -> Dict[str, Any]:
    """State migrated."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _build

    return _build.migrate(call)


def publish(call: Call) -> Dict[str, Any]:
    """State published."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _publish

    return _publish.publish(call)


def roll_back(call: Call) -> Dict[str, Any]:
    """State rolled_back."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _rollback

    return _rollback.roll_back(call)


def prune(call: Call) -> Dict[str, Any]:
    """State pruned."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _live, _publish

    with call.locked("prune", first=True):
        _live.find(call)
        chosen = _publish.removable(call)
        removed = chosen if call.check_mode else _publish.prune(call)
    if not call.check_mode:
        call.lease.release()
    return {"changed": bool(removed), "removed": removed}


def abandon(call: Call) -> Dict[str, Any]:
    """State abandoned: something between two calls of this run has failed, or one of them was killed.

    Finish or undo what that has left, tell it, remove what was prepared and is not live, unlock.
    """
    from ansible_collections.nodeops.pm2.plugins.module_utils.release import _live, _manifest

    options = call.options
    removed: List[str] = []
    if call.check_mode:
        return {"changed": False, "removed": removed}
    if options.release and not os.path.isdir(call.layout.release(options.release)):
        call.lease.release()  # the state that failed has removed it and told it already
        return {"changed": False, "removed": removed}
    with call.locked("abandon", first=True):  # a call may have been killed before it had the lock
        live = _live.recovered(call)
        if options.release:
            prepared = [call.prepared()]
        else:
            prepared = [m for m in _manifest.every(call.layout) if m.run == options.run and call.is_ours(m)]
        for manifest in prepared:
            if _retention.discard(call.layout, manifest, options.pm2_home):
                removed.append(manifest.release)
        reason = call.redactor.text(options.reason or "")
        told = prepared[0] if prepared else None
        is_live = told is not None and told.release == live.release  # the killed call had decided so
        call.record("deployed" if is_live else "failed", told, stage=options.stage, reason=reason)
    call.lease.release()
    changed = bool(removed) or call.recovered is not None
    return {"changed": changed, "removed": removed, "recovered": call.recovered, "current": live.release or None}


STATES: Dict[str, Callable[[Call], Dict[str, Any]]] = {
    "prepared": prepare,
    "built": build,
    "migrated": migrate,
    "published": publish,
    "rolled_back": roll_back,
    "pruned": prune,
    "abandoned": abandon,
}


def run(call: Call) -> Dict[str, Any]:
    """The module's result. Raises NodeopsError, its text without secrets."""
    try:
        if not os.path.isabs(call.options.root):
            raise NodeopsError("root %r is no absolute path. Nothing was changed. Give one." % call.options.root)
        return STATES[call.options.state](call)
    except NodeopsError as error:
        details = dict(error.details, release=error.details.get("release", call.options.release))
        details["current"] = _current(call)
        details.setdefault("former", details["current"] if call.former is None else call.former or None)
        raise NodeopsError(call.redactor.text(str(error)), details) from error


def _current(call: Call) -> Any:
    try:
        return call.current() or None
    except NodeopsError:
        return None
