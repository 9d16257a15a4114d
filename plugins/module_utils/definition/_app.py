# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""An app as PM2's daemon is to run it, made from a definition."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _log_paths
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _values as values
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import number_of, number_text, truthy
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._normaliser import (
    Normalised,
    Normaliser,
    rendered_name,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._schema import DefinitionError, Problem

__all__ = ["App", "Context", "DefinitionError", "app_name", "build_apps"]

MAX_TOTAL = 1024 * 1024
"""Bytes of arguments and environment together; Linux takes a quarter of the stack limit, usually 2 MiB."""
CLUSTER_RESERVE = 16 * 1024
"""Bytes kept free in a cluster worker's pm2_env for what the daemon adds: versioning, metrics, ids."""


class App:
    """One app as PM2's daemon is to run it. Made by build_apps only."""

    def __init__(self, normalised: Normalised) -> None:
        config = normalised.config
        self.config = config
        """What the daemon gets, except env and the instance number; defaults filled in."""
        self.env = normalised.env
        """Complete: base environment and definition, each value as the process sees it."""
        self.instances = normalised.instances
        self.numbers = range(self.instances)
        """The numbers of its instances."""
        self.name: str = config["name"]
        self.namespace: str = config["namespace"]
        self.exec_mode: str = config["exec_mode"]
        self.instance_var: str = config["instance_var"]
        self.increment_var: Optional[str] = config.get("increment_var") or None
        self.autostart: bool = config["autostart"]
        self.log_dirs: List[str] = _log_paths.directories(config)
        """Directories that must exist before its start (PM2's command line makes them, its daemon does not)."""
        self.interpreter_path = normalised.interpreter_path
        """The file that exec_interpreter names; None if the script is started by itself."""
        self.warnings: List[str] = []
        """What is accepted but may not do what its author expects. No secrets."""

    def environment(self, slot: int) -> Dict[str, str]:
        """The env of one instance: increment_var counts up from its value as PM2 does (God.js:630)."""
        if not self.increment_var:
            return self.env
        first = number_of(self.env.get(self.increment_var, ""))
        first = first if truthy(first) else 0
        return {**self.env, self.increment_var: number_text(first + slot)}

    def starts(self, _slot: int) -> bool:
        """Whether this instance runs once it is started."""
        return self.autostart

    def payload(self, slot: int, marker: Dict[str, Any]) -> Dict[str, Any]:
        """The argument of `prepare` for one instance, ``slot`` counted from 0.

        It has no `instances`: without it, prepare starts one process and numbers nothing (God.js:114). The slot is at
        the top level, as PM2 itself keeps it, so that it survives restart, save and resurrect.
        """
        return {
            **self.config,
            "env": dict(self.environment(slot)),
            self.instance_var: slot,
            "nodeops": marker,
        }


def app_name(definition: Mapping[str, Any]) -> str:
    """The name of a definition's app, given or taken from its script. Raises DefinitionError."""
    try:
        return values.check_name(definition.get("name") or rendered_name(definition))
    except values.BadValue as error:
        raise DefinitionError([Problem("app", "name", str(error))]) from None


def build_apps(
    definitions: Sequence[Mapping[str, Any]], context: Context, namespace: str, base_dir: Optional[str]
) -> List[App]:
    """The apps of the definitions, in their order.

    ``base_dir`` (absolute): relative paths start from it, as from the shell's directory with `pm2 start`. Without it
    they are refused. Raises DefinitionError naming every problem of every definition.
    """
    check_namespace(namespace)
    problems: List[Problem] = []
    apps: List[App] = []
    numbers: Dict[str, int] = {}
    for number, definition in enumerate(definitions, 1):
        normaliser = Normaliser(definition, number, context, namespace, base_dir)
        normalised = normaliser.run()
        problems.extend(normaliser.problems)
        name = normaliser.name
        if name is not None and numbers.setdefault(name, number) != number:
            problems.append(
                Problem(normaliser.label, "name", "definitions %d and %d have it" % (numbers[name], number))
            )
        if normalised is not None and not normaliser.problems:
            app = App(normalised)
            app.warnings.extend(normaliser.warnings)
            problems.extend(Problem(normaliser.label, *problem) for problem in _too_large(app))
            apps.append(app)
    if problems:
        raise DefinitionError(problems)
    _warn_of_shared_logs(apps)
    return apps


def _too_large(app: App) -> Iterator[Tuple[str, str]]:
    """What the kernel would refuse. Then nothing would run, and PM2 would say "online" or fail late."""
    total = sum(len(item.encode("utf-8")) + 9 for item in [*app.config.get("args", ()), *app.config["node_args"]])
    for name, value in app.env.items():
        size = len(name.encode("utf-8")) + len(value.encode("utf-8")) + 2
        total += size + 8
        if size > values.MAX_STRING:
            yield "env.%s" % name, "has %d bytes, Linux takes up to %d" % (size, values.MAX_STRING)
    if total > MAX_TOTAL:
        yield "env", "and args have %d bytes, that is more than the %d allowed" % (total, MAX_TOTAL)
    if app.exec_mode == "cluster_mode":
        flat = json.dumps({**app.payload(0, {}), **app.env}, ensure_ascii=False).encode("utf-8")
        if len(flat) > values.MAX_STRING - CLUSTER_RESERVE:
            message = (
                "is too large for cluster mode: PM2 hands a worker its whole configuration, with the environment "
                "in it twice, as one variable; it has %d bytes, %d are allowed. Use fork mode or a file"
            )
            yield "env", message % (len(flat), values.MAX_STRING - CLUSTER_RESERVE)


def _warn_of_shared_logs(apps: List[App]) -> None:
    owners: Dict[str, str] = {}
    for app in apps:
        for key in ("pm_out_log_path", "pm_err_log_path"):
            path = app.config[key]
            owner = owners.setdefault(path, app.name)
            if owner != app.name and path != _log_paths.NOWHERE and app.config.get("merge_logs"):
                app.warnings.append("%s: writes to the same log file as %s: %s" % (app.name, owner, path))
