# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Bring processes and ``current`` to a release in one transaction, or put everything back."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._reconcile import (
    Additions,
    Options,
    Reconciler,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _definitions, _placement
from ansible_collections.nodeops.pm2.plugins.module_utils.release._live import Live
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def activate(
    call: ModuleCall,
    live: Live,
    manifest: Manifest,
    definition: Dict[str, Any],
    heal: bool = False,
    is_rollback: bool = False,
) -> Dict[str, Any]:
    """Bring the processes and ``current`` to a release. Returns the result of the module.

    ``heal``: replace processes that run as defined but answer badly. ``is_rollback``: the release was live before.
    Processes that only later releases had run in those: remove them.
    """
    switch = _switch(call, live, manifest)
    _hide_secrets(call, definition)
    if _definitions.has_processes(definition):
        additions = _additions(call, manifest, definition, switch, heal, is_rollback)
        result = _run(call, _reconciler(call, manifest, definition, additions, call.check_mode))
    else:
        from ansible_collections.nodeops.pm2.plugins.module_utils.release import _static_site

        result = _static_site.activate(call, definition, switch, is_rollback)
    result["recovered"] = result["recovered"] or call.recovered
    result["changed"] = _has_changed(call, result, switch)
    result["diff"] = [result["diff"], link_difference(switch)]
    result.update(
        release=manifest.release,
        directory=call.layout.release(manifest.release),
        former=live.release or None,
        version=manifest.version,
        revision=manifest.revision,
        removed=[],
    )
    return result


def is_in_order(call: ModuleCall, live: Live, manifest: Manifest, definition: Dict[str, Any]) -> bool:
    """Whether a release with processes is live, runs as defined and answers well. Changes nothing. Raises NodeopsError.

    A process that restarted just now is not in order: it may be in a crash loop, and that takes longer to find out.
    """
    switch = _switch(call, live, manifest)
    _hide_secrets(call, definition)
    additions = _additions(call, manifest, definition, switch, heal=True, is_rollback=False)
    reconciler = _reconciler(call, manifest, definition, additions, check_mode=True)
    result = _run(call, reconciler)
    return reconciler.is_settled and not _has_changed(call, result, switch)


def _switch(call: ModuleCall, live: Live, manifest: Manifest) -> _symlink.Switch:
    return _symlink.Switch(call.layout.current, live.link, call.layout.link_text(manifest.release))


def _hide_secrets(call: ModuleCall, definition: Dict[str, Any]) -> None:
    call.redactor.add_environment(definition["environment"])
    _checks.hide(definition["ready"], call.redactor)


def _has_changed(call: ModuleCall, result: Dict[str, Any], switch: _symlink.Switch) -> bool:
    is_recovered = result["recovered"] is not None or call.recovered is not None
    return bool(result["changed"] or switch.before != switch.after or is_recovered)


def _run(call: ModuleCall, reconciler: Reconciler) -> Dict[str, Any]:
    try:
        return reconciler.run()
    finally:
        call.warnings.extend(warning for warning in reconciler.warnings if warning not in call.warnings)


def _reconciler(
    call: ModuleCall, manifest: Manifest, definition: Dict[str, Any], additions: Additions, check_mode: bool
) -> Reconciler:
    return Reconciler(_reconcile_options(call, manifest, definition), check_mode, call.redactor, additions)


def _reconcile_options(call: ModuleCall, manifest: Manifest, definition: Dict[str, Any]) -> Options:
    directory = call.layout.release(manifest.release)
    environment = _environment(definition)
    ecosystem = definition["ecosystem"]
    if ecosystem:
        _placement.check_ecosystem(ecosystem)
    return Options(
        namespace=call.options.namespace,
        pm2_home=call.options.pm2_home,
        pm2_executable=call.options.pm2_executable,
        apps=None if ecosystem else [_placement.in_release(app, directory, environment) for app in definition["apps"]],
        ecosystem=os.path.join(directory, ecosystem) if ecosystem else None,
        env_name=definition["env_name"],
        prune=definition["prune"],
        strategy=definition["strategy"],
        ready=definition["ready"],
        max_affected=call.options.max_affected,
    )


def _additions(
    call: ModuleCall,
    manifest: Manifest,
    definition: Dict[str, Any],
    switch: _symlink.Switch,
    heal: bool,
    is_rollback: bool,
) -> Additions:
    def runs_in_another_release(process: Process) -> bool:
        return _placement.runs_in_another_release(call.layout, process, manifest.release)

    return Additions(
        environment=_environment(definition),
        check_apps=lambda apps: _placement.check_apps(call.layout, manifest.release, apps),
        removes=runs_in_another_release if is_rollback else None,
        heal=heal,
        switch=switch,
    )


def _environment(definition: Dict[str, Any]) -> Dict[str, Any]:
    """The variables of the inventory that the processes get."""
    environment: Dict[str, Any] = definition["environment"] if definition["environment_processes"] else {}
    return environment


def link_difference(switch: _symlink.Switch) -> Dict[str, str]:
    """The part of the module's diff that tells where ``current`` leads."""

    def text(target: Optional[str]) -> str:
        return "%s -> %s\n" % (switch.path, target) if target else ""

    return {
        "before_header": "current",
        "after_header": "current",
        "before": text(switch.before),
        "after": text(switch.after),
    }
