# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Make a release live in one transaction: processes, gate, ``current``, dump. Or put everything back."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils import (
    _checks,
    _daemon,
    _history,
    _link,
    _manifest,
    _plan,
    _recipe,
    _retention,
)
from ansible_collections.nodeops.pm2.plugins.module_utils._call import Call
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error
from ansible_collections.nodeops.pm2.plugins.module_utils._gate import GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils._manager import Manager, Options
from ansible_collections.nodeops.pm2.plugins.module_utils._manifest import Manifest

PAUSE = 0.1  # seconds between two rounds of checks of a static release


def publish(call: Call) -> Dict[str, Any]:
    """State published. Raises Pm2Error when everything is as it was."""
    options = call.options
    if call.check_mode and not os.path.isdir(call.layout.release(options.release or "")):
        return _foreseen(call)
    with call.locked("publish", first=False):
        manifest = call.prepared()
        former = call.live()
        is_live = former is not None and former.release == manifest.release
        recipe = _asked_for(call)
        try:
            if not is_live and not call.check_mode:
                _recipe.write(call.layout, manifest.release, recipe)
            result = bring(call, manifest, recipe, heal=is_live)
        except Pm2Error as error:
            if not is_live and not call.check_mode:
                _note_failure(call, manifest, error)
            raise
        if not call.check_mode:
            _keep_recipe(call, manifest, recipe)
            _settle(call, manifest, former, result)
    if not call.check_mode:
        call.lease.release()
    return result


def is_in_order(call: Call, live: Manifest) -> bool:
    """Whether ``published`` on the live release would find nothing to do. Raises Pm2Error where it would."""
    recipe = _asked_for(call)
    if not (recipe["apps"] or recipe["ecosystem"]):
        return _is_static_in_order(call, live, recipe)
    result = bring(call, live, recipe, heal=True, only_look=True)
    if result["changed"] or not result["settled"]:
        return False  # what has restarted just now may be in a crash loop: that takes longer to tell
    if not call.check_mode:
        _keep_recipe(call, live, recipe)
    return True


def _is_static_in_order(call: Call, live: Manifest, recipe: Dict[str, Any]) -> bool:
    """A release that had processes has them still, although this call does not name them."""
    try:
        former = _recipe.read(call.layout, live.release)
    except Pm2Error:
        return False
    checks = _checks.parse(recipe["ready"]).connections
    nobody = _checks.Pids(set(), set(), set())
    has_processes = former["apps"] or former["ecosystem"]
    return not has_processes and not any(_checks.attempt(check, nobody).problem for check in checks)


def _keep_recipe(call: Call, manifest: Manifest, recipe: Dict[str, Any]) -> None:
    """What the release consists of now; of one that was live before only after it has proven itself."""
    try:
        if _recipe.differs(call.layout, manifest.release, recipe):
            _recipe.write(call.layout, manifest.release, recipe)
    except Pm2Error as error:
        call.warnings.append(str(error))


def _asked_for(call: Call) -> Dict[str, Any]:
    options = call.options
    return {
        "apps": options.apps,
        "ecosystem": options.ecosystem,
        "env_name": options.env_name,
        "environment": options.environment,
        "environment_processes": options.environment_processes,
        "prune": options.prune,
        "strategy": options.strategy,
        "ready": options.ready,
    }


def bring(
    call: Call, manifest: Manifest, recipe: Dict[str, Any], heal: bool, only_look: bool = False
) -> Dict[str, Any]:
    """Bring the processes and ``current`` to a release. ``heal``: processes that answer badly are renewed.

    ``only_look``: tell what that would change.
    """
    before = _link.target(call.layout.current)
    switch = _link.Switch(call.layout.current, before, call.layout.link_text(manifest.release))
    switches = switch.before != switch.after
    former = call.current()
    call.redactor.add_environment(recipe["environment"])
    _checks.hide(recipe["ready"], call.redactor)
    if recipe["apps"] or recipe["ecosystem"]:
        options = _engine_options(call, manifest, recipe, switch, heal)
        manager = Manager(options, only_look or call.check_mode, call.redactor)
        try:
            result = manager.run()
            if only_look:
                result["settled"] = manager.is_settled
        finally:
            call.warnings.extend(warning for warning in manager.warnings if warning not in call.warnings)
    else:
        result = _bring_files(call, recipe, switch)
    result["changed"] = result["changed"] or switches
    result["diff"] = [result["diff"], _difference(switch)]
    result.update(
        release=manifest.release,
        directory=call.layout.release(manifest.release),
        former=former or None,
        version=manifest.version,
        revision=manifest.revision,
        removed=[],
    )
    return result


def _engine_options(
    call: Call, manifest: Manifest, recipe: Dict[str, Any], switch: _link.Switch, heal: bool
) -> Options:
    directory = call.layout.release(manifest.release)
    environment = recipe["environment"] if recipe["environment_processes"] else {}
    ecosystem = recipe["ecosystem"]
    return Options(
        namespace=call.options.namespace,
        pm2_home=call.options.pm2_home,
        pm2_executable=call.options.pm2_executable,
        apps=None if ecosystem else [_in_release(app, directory, environment) for app in recipe["apps"]],
        ecosystem=os.path.join(directory, ecosystem) if ecosystem else None,
        env_name=recipe["env_name"],
        names=None,
        state="started",
        prune=recipe["prune"],
        strategy=recipe["strategy"],
        ready=recipe["ready"],
        save=True,
        max_affected=call.options.max_affected,
        environment=environment,
        switch=switch,
        heal=heal,
    )


def _in_release(app: Any, directory: str, environment: Dict[str, Any]) -> Any:
    """The definition with its cwd in the release; what it says itself wins over what is said for all."""
    if not isinstance(app, dict):
        return app
    cwd = app.get("cwd") or ""
    placed = dict(app, cwd=os.path.normpath(os.path.join(directory, cwd)) if isinstance(cwd, str) else cwd)
    if environment and isinstance(app.get("env"), (dict, type(None))):
        placed["env"] = dict(environment, **(app.get("env") or {}))
    return placed


# -- a release without processes -------------------------------------------------------------------------------------


def _bring_files(call: Call, recipe: Dict[str, Any], switch: _link.Switch) -> Dict[str, Any]:
    """A static site: switch, look whether the web server answers well, switch back where it does not."""
    ready = _checks.parse(recipe["ready"])
    changed = switch.before != switch.after
    if not call.check_mode:
        _link.apply(switch)
        try:
            _await_answers(ready)
        except BaseException as error:
            _link.revert(switch)
            if isinstance(error, GateFailure):
                raise Pm2Error(
                    "%s. current leads where it led before." % call.redactor.text(str(error)), {"rolled_back": True}
                ) from error
            raise
    return {
        "changed": changed,
        "actions": [],
        "processes": [],
        "saved": False,
        "recovered": None,
        "rolled_back": False,
        "diff": {"before": "", "after": ""},
    }


def _await_answers(ready: _checks.Ready) -> None:
    deadline = time.monotonic() + ready.timeout
    for check in ready.connections:
        while True:
            answer = _checks.attempt(check, _checks.Pids(set(), set(), set()))
            if not answer.problem:
                break
            if time.monotonic() >= deadline:
                raise GateFailure("%s %s within %g s" % (check.label(), answer.problem, ready.timeout))
            time.sleep(PAUSE)


def _difference(switch: _link.Switch) -> Dict[str, str]:
    def text(target: Optional[str]) -> str:
        return "%s -> %s\n" % (switch.path, target) if target else ""

    return {
        "before_header": "current",
        "after_header": "current",
        "before": text(switch.before),
        "after": text(switch.after),
    }


# -- afterwards ------------------------------------------------------------------------------------------------------


def _settle(call: Call, manifest: Manifest, former: Optional[Manifest], result: Dict[str, Any]) -> None:
    """The release is live. What cannot be written of that is a warning: it changes nothing about it."""
    was_live = former is not None and former.release == manifest.release
    if not was_live or manifest.unfinished:
        mark(
            call,
            manifest._replace(status=_manifest.GOOD, published=manifest.published or _history.now(), reason=None),
        )
    if result["changed"]:
        call.record("deployed", manifest, former=former.release if former else None, actions=len(result["actions"]))
    if not was_live:
        result["removed"] = prune(call)


def mark(call: Call, manifest: Manifest) -> None:
    """Write what became of a release."""
    try:
        _manifest.write(call.layout.release(manifest.release), manifest)
    except Pm2Error as error:
        call.warnings.append(str(error))


def _note_failure(call: Call, manifest: Manifest, error: Pm2Error) -> None:
    """A release that has not proven itself is bad; one that was not even tried goes, and a next run makes it anew."""
    if isinstance(error.__cause__, GateFailure):
        mark(call, manifest._replace(status=_manifest.BAD, reason=call.redactor.text(str(error))))
        return
    try:
        _retention.discard(call.layout, manifest, call.options.pm2_home)
    except Pm2Error as second:
        call.warnings.append(str(second))


def prune(call: Call) -> List[str]:
    """Remove the releases that may go. Raises nothing: what could not be removed is a warning."""
    try:
        chosen = removable(call)
    except Pm2Error as error:
        call.warnings.append("No release was removed: %s" % error)
        return []
    removed = []
    for release in chosen:
        try:
            _retention.remove(call.layout, release)
            removed.append(release)
        except Pm2Error as error:
            call.warnings.append(str(error))
    return removed


def removable(call: Call) -> List[str]:
    """The ids that may go. Raises Pm2Error when it cannot be told what is in use."""
    manifests = _manifest.every(call.layout)
    referenced = _retention.referenced(call.layout, call.options.pm2_home)
    return _retention.removable(manifests, call.current(), referenced, call.options.keep, call.options.run)


# -- check mode ------------------------------------------------------------------------------------------------------


def _foreseen(call: Call) -> Dict[str, Any]:
    """A release that does not exist yet: its processes can only be told by their names, and of an ecosystem file not
    even these: the processes that are there are taken to be replaced.
    """
    options = call.options
    apps = [app for app in options.apps if isinstance(app, dict)]
    daemon = _daemon.find_unless_deaf(options.pm2_home) if apps or options.ecosystem else None
    there: Dict[str, int] = {}
    for item in daemon.processes if daemon else []:
        if (item.get("pm2_env") or {}).get("namespace") == options.namespace:
            there[item["name"]] = item["pm_id"]
    if options.ecosystem:
        apps = [{"name": name} for name in there]
    actions = []
    for app in apps:
        name = str(app.get("name") or app.get("script"))
        verb = "replace" if name in there else "start"
        actions.append(_plan.action(verb, name, there.get(name), None, ["a new release"]))
    if options.prune and apps:
        names = {action["name"] for action in actions}
        actions += [_plan.action("delete", n, i, None, ["not defined"]) for n, i in there.items() if n not in names]
    switch = _link.Switch(
        call.layout.current, _link.target(call.layout.current), call.layout.link_text(options.release or "")
    )
    return {
        "changed": True,
        "actions": actions,
        "processes": [],
        "saved": bool(apps or options.ecosystem),
        "recovered": None,
        "rolled_back": False,
        "release": options.release,
        "directory": call.layout.release(options.release or ""),
        "former": call.current() or None,
        "removed": [],
        "diff": [_processes_difference(call, actions), _difference(switch)],
    }


def _processes_difference(call: Call, actions: List[Dict[str, Any]]) -> Dict[str, str]:
    header = "namespace %s" % call.options.namespace
    lines = "".join("%s %s: %s\n" % (a["action"], a["name"], ", ".join(a["reasons"])) for a in actions)
    return {"before_header": header, "after_header": header, "before": "", "after": lines}
