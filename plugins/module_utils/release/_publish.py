# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Make a release live in one transaction: processes, gate, ``current``, dump. Or put everything back."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import app_name
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _plan
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import ours
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._reconcile import (
    Additions,
    Options,
    Reconciler,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from ansible_collections.nodeops.pm2.plugins.module_utils.release import (
    _definitions,
    _history,
    _live,
    _manifest,
    _placement,
    _retention,
    _trial,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.release._call import Call
from ansible_collections.nodeops.pm2.plugins.module_utils.release._live import Live
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest

PAUSE = 0.1  # seconds between two rounds of checks of a static release


def publish(call: Call) -> Dict[str, Any]:
    """State published. Raises NodeopsError when everything is as it was."""
    options = call.options
    if call.check_mode and not os.path.isdir(call.layout.release(options.release or "")):
        return _foreseen(call)
    with call.locked("publish", first=False):
        manifest = call.prepared()
        live = _live.find(call)
        is_live = live.release == manifest.release
        recipe = _asked_for(call)
        try:
            if not is_live and not call.check_mode:
                _definitions.write(call.layout, manifest.release, recipe)
            result = bring(call, live, manifest, recipe, heal=is_live)
        except NodeopsError as error:
            if error.details.get("committed"):
                _keep_recipe(call, manifest, recipe)
                _mark_good(call, manifest)
            elif not is_live and not call.check_mode:
                _note_failure(call, manifest, error)
            raise
        if not call.check_mode:
            _keep_recipe(call, manifest, recipe)
            _settle(call, manifest, live, result)
    if not call.check_mode:
        call.lease.release()
    return result


def is_in_order(call: Call, live: Live, manifest: Manifest) -> bool:
    """Whether ``published`` on the live release would find nothing to do. Raises NodeopsError where it would."""
    recipe = _asked_for(call)
    if not (recipe["apps"] or recipe["ecosystem"]):
        return _is_static_in_order(call, manifest, recipe)
    result = bring(call, live, manifest, recipe, heal=True, only_look=True)
    if result["changed"] or not result["settled"]:
        return False  # what has restarted just now may be in a crash loop: that takes longer to tell
    if not call.check_mode:
        _keep_recipe(call, manifest, recipe)
    return True


def _is_static_in_order(call: Call, manifest: Manifest, recipe: Dict[str, Any]) -> bool:
    """A release that had processes has them still, although this call does not name them."""
    try:
        former = _definitions.read(call.layout, manifest.release)
    except NodeopsError:
        return False
    checks = _checks.parse(recipe["ready"]).connections
    nobody = _checks.Pids(set(), set(), set())
    has_processes = former["apps"] or former["ecosystem"] or _left_over(call, recipe["prune"])
    return not has_processes and not any(_checks.attempt(check, nobody).problem for check in checks)


def _keep_recipe(call: Call, manifest: Manifest, recipe: Dict[str, Any]) -> None:
    """What the release consists of now; of one that was live before only after it has proven itself."""
    try:
        if _definitions.differs(call.layout, manifest.release, recipe):
            _definitions.write(call.layout, manifest.release, recipe)
    except NodeopsError as error:
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
    call: Call,
    live: Live,
    manifest: Manifest,
    recipe: Dict[str, Any],
    heal: bool = False,
    only_look: bool = False,
    back: bool = False,
) -> Dict[str, Any]:
    """Bring the processes and ``current`` to a release. ``heal``: processes that answer badly are renewed.

    ``only_look``: tell what that would change. ``back``: to one that was live before, and without the processes that
    only later releases had: they run in those.
    """
    switch = _symlink.Switch(call.layout.current, live.link, call.layout.link_text(manifest.release))
    switches = switch.before != switch.after
    call.redactor.add_environment(recipe["environment"])
    _checks.hide(recipe["ready"], call.redactor)
    if recipe["apps"] or recipe["ecosystem"]:
        options = _engine_options(call, manifest, recipe)
        additions = _additions(call, manifest, recipe, switch, heal, back)
        reconciler = Reconciler(options, only_look or call.check_mode, call.redactor, additions)
        try:
            result = reconciler.run()
            if only_look:
                result["settled"] = reconciler.is_settled
        finally:
            call.warnings.extend(warning for warning in reconciler.warnings if warning not in call.warnings)
    else:
        result = _bring_files(call, recipe, switch, back)
    result["recovered"] = result["recovered"] or call.recovered
    result["changed"] = result["changed"] or switches or result["recovered"] is not None
    result["diff"] = [result["diff"], _difference(switch)]
    result.update(
        release=manifest.release,
        directory=call.layout.release(manifest.release),
        former=live.release or None,
        version=manifest.version,
        revision=manifest.revision,
        removed=[],
    )
    return result


def _engine_options(call: Call, manifest: Manifest, recipe: Dict[str, Any]) -> Options:
    directory = call.layout.release(manifest.release)
    environment = _environment(recipe)
    ecosystem = recipe["ecosystem"]
    if ecosystem:
        _placement.check_ecosystem(ecosystem)
    return Options(
        namespace=call.options.namespace,
        pm2_home=call.options.pm2_home,
        pm2_executable=call.options.pm2_executable,
        apps=None if ecosystem else [_placement.in_release(app, directory, environment) for app in recipe["apps"]],
        ecosystem=os.path.join(directory, ecosystem) if ecosystem else None,
        env_name=recipe["env_name"],
        names=None,
        state="started",
        prune=recipe["prune"],
        strategy=recipe["strategy"],
        ready=recipe["ready"],
        save=True,
        max_affected=call.options.max_affected,
    )


def _additions(
    call: Call, manifest: Manifest, recipe: Dict[str, Any], switch: _symlink.Switch, heal: bool, back: bool
) -> Additions:
    return Additions(
        environment=_environment(recipe),
        check_apps=lambda apps: _placement.check_apps(call.layout, manifest.release, apps),
        removes=(lambda process: _runs_in_another(call, process, manifest.release)) if back else None,
        heal=heal,
        switch=switch,
    )


def _environment(recipe: Dict[str, Any]) -> Dict[str, Any]:
    """What the processes get of the variables of the inventory."""
    environment: Dict[str, Any] = recipe["environment"] if recipe["environment_processes"] else {}
    return environment


# -- a release without processes -------------------------------------------------------------------------------------


def _bring_files(call: Call, recipe: Dict[str, Any], switch: _symlink.Switch, back: bool) -> Dict[str, Any]:
    """A static site: switch, look whether the web server answers well, switch back where it does not."""
    ready = _checks.parse_of_files(recipe["ready"])
    removal = _removal(call, recipe, back)
    result = Reconciler(removal, True, call.redactor).run() if removal else dict(_NOTHING)
    if not call.check_mode:
        _try_files(call, ready, switch)
        if removal:
            result = _remove(call, removal)
    return dict(result, changed=result["changed"] or switch.before != switch.after)


def _remove(call: Call, removal: Options) -> Dict[str, Any]:
    try:
        return Reconciler(removal, False, call.redactor).run()
    except NodeopsError as error:  # what it has put back are the processes, not the link
        details = {name: value for name, value in error.details.items() if name != "rolled_back"}
        raise NodeopsError(
            "current is switched, and the processes that were there before could not be removed: %s. Run again."
            % str(error.__cause__ or error).rstrip("."),
            dict(details, committed=True),
        ) from error


_NOTHING: Dict[str, Any] = {
    "changed": False,
    "actions": [],
    "processes": [],
    "saved": False,
    "recovered": None,
    "rolled_back": False,
    "diff": {"before": "", "after": ""},
}


def _try_files(call: Call, ready: Ready, switch: _symlink.Switch) -> None:
    """Raises NodeopsError when ``current`` leads where it led before."""
    if switch.before != switch.after:
        _trial.begin(call.layout, switch)
    try:
        _symlink.apply(switch)
        _await_answers(ready)
        _signals.hold()
        _trial.end(call.layout)
    except BaseException as error:
        _symlink.revert(switch)
        _trial.end(call.layout)
        if isinstance(error, GateFailure):
            raise NodeopsError(
                "%s. current leads where it led before." % call.redactor.text(str(error)), {"rolled_back": True}
            ) from error
        raise


def _left_over(call: Call, prune: bool) -> List[str]:
    """The processes that a release without any would leave: of the namespace, or those of it that run in releases."""
    home = call.options.pm2_home
    try:
        daemon = _daemon.find_listening(home) if os.path.isdir(home) else None
    except NodeopsError as error:
        if prune:
            raise
        call.warnings.append("Whether an earlier release has left processes cannot be told: %s" % error)
        return []
    processes = ours(daemon.processes, call.options.namespace) if daemon else []
    return sorted({process.name for process in processes if prune or _runs_in_another(call, process, "")})


def _runs_in_another(call: Call, process: Process, release: str) -> bool:
    """Whether it runs in a release of the application, other than ``release``."""
    places = [process.pm2_env.get(key) for key in ("pm_cwd", "pm_exec_path")]
    found = {_retention.release_of(call.layout, os.path.realpath(p)) for p in places if isinstance(p, str)}
    return bool(found - {"", release})


def _removal(call: Call, recipe: Dict[str, Any], back: bool) -> Optional[Options]:
    """How the processes go that another release has left; None for none. Raises NodeopsError where they may not.

    The way ``back`` to a release that had none is theirs to go; nobody could say so in what that was published with.
    """
    left = _left_over(call, recipe["prune"])
    if not left:
        return None
    if not recipe["prune"] and not back:
        raise NodeopsError(
            "The release has no processes, but namespace %s has some that run in releases of %s: %s. Nothing was "
            "changed. Define the release's processes, or remove these with prune (deploy_remove_undefined)."
            % (call.options.namespace, call.layout.root, ", ".join(left))
        )
    return Options(
        namespace=call.options.namespace,
        pm2_home=call.options.pm2_home,
        pm2_executable=call.options.pm2_executable,
        apps=None,
        ecosystem=None,
        env_name=None,
        names=left,
        state="absent",
        prune=False,
        strategy="auto",
        ready=recipe["ready"],
        save=True,
        max_affected=call.options.max_affected,
    )


def _await_answers(ready: Ready) -> None:
    deadline = time.monotonic() + ready.timeout
    for check in ready.connections:
        while True:
            answer = _checks.attempt(check, _checks.Pids(set(), set(), set()))
            if not answer.problem:
                break
            if time.monotonic() >= deadline:
                raise GateFailure("%s %s within %g s" % (check.label(), answer.problem, ready.timeout))
            time.sleep(PAUSE)


def _difference(switch: _symlink.Switch) -> Dict[str, str]:
    def text(target: Optional[str]) -> str:
        return "%s -> %s\n" % (switch.path, target) if target else ""

    return {
        "before_header": "current",
        "after_header": "current",
        "before": text(switch.before),
        "after": text(switch.after),
    }


# -- afterwards ------------------------------------------------------------------------------------------------------


def _settle(call: Call, manifest: Manifest, live: Live, result: Dict[str, Any]) -> None:
    """The release is live. What cannot be written of that is a warning: it changes nothing about it."""
    was_live = live.release == manifest.release
    if not was_live or manifest.unfinished:
        _mark_good(call, manifest)
    if result["changed"]:
        call.record("deployed", manifest, former=live.release or None, actions=len(result["actions"]))
    if not was_live:
        result["removed"] = prune(call)


def _mark_good(call: Call, manifest: Manifest) -> None:
    published = manifest.published or _history.now()
    mark(call, manifest._replace(status=_manifest.GOOD, published=published, reason=None))


def mark(call: Call, manifest: Manifest) -> None:
    """Write what became of a release."""
    try:
        _manifest.write(call.layout.release(manifest.release), manifest)
    except NodeopsError as error:
        call.warnings.append(str(error))


def _note_failure(call: Call, manifest: Manifest, error: NodeopsError) -> None:
    """A release that has not proven itself is bad; one that was not even tried goes, and a next run makes it anew."""
    if isinstance(error.__cause__, GateFailure):
        mark(call, manifest._replace(status=_manifest.BAD, reason=call.redactor.text(str(error))))
        return
    try:
        _retention.discard(call.layout, manifest, call.options.pm2_home)
    except NodeopsError as second:
        call.warnings.append(str(second))


def prune(call: Call) -> List[str]:
    """Remove the releases that may go. Raises nothing: what could not be removed is a warning."""
    try:
        chosen = removable(call)
    except NodeopsError as error:
        call.warnings.append("No release was removed: %s" % error)
        return []
    removed = []
    for release in chosen:
        try:
            _retention.remove(call.layout, release)
            removed.append(release)
        except NodeopsError as error:
            call.warnings.append(str(error))
    return removed


def removable(call: Call) -> List[str]:
    """The ids that may go. Raises NodeopsError when it cannot be told what is in use."""
    manifests = _manifest.every(call.layout)
    referenced = _retention.referenced(call.layout, call.options.pm2_home)
    return _retention.removable(manifests, call.current(), referenced, call.options.keep, call.options.run)


# -- check mode ------------------------------------------------------------------------------------------------------


def _foreseen(call: Call) -> Dict[str, Any]:
    """A release that does not exist yet: its processes can only be told by their names, and of an ecosystem file not
    even these: the processes that are there are taken to be replaced.
    """
    options = call.options
    live = _live.find(call)
    apps = [app for app in options.apps if isinstance(app, dict)]
    if not apps and not options.ecosystem:
        _checks.parse_of_files(options.ready)
        _removal(call, _asked_for(call), back=False)
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
        "diff": [_processes_difference(call, actions), _difference(switch)],
    }


def _processes_difference(call: Call, actions: List[Dict[str, Any]]) -> Dict[str, str]:
    header = "namespace %s" % call.options.namespace
    lines = "".join("%s %s: %s\n" % (a["action"], a["name"], ", ".join(a["reasons"])) for a in actions)
    return {"before_header": header, "after_header": header, "before": "", "after": lines}
