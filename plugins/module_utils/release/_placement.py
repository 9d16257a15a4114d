# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The processes of a release run in its directory, not in ``current``, which is the old release until they have proven
themselves.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout


def in_release(app: Any, directory: str, environment: Dict[str, Any]) -> Any:
    """The definition with its cwd in the release. Its own variables win over those for all processes."""
    if not isinstance(app, dict):
        return app
    cwd = app.get("cwd") or ""
    placed = dict(app, cwd=os.path.normpath(os.path.join(directory, cwd)) if isinstance(cwd, str) else cwd)
    if environment and isinstance(app.get("env"), (dict, type(None))):
        placed["env"] = dict(environment, **(app.get("env") or {}))
    return placed


def check_ecosystem(path: str) -> None:
    """Raises NodeopsError for an ecosystem file outside of the release."""
    normal = os.path.normpath(path)
    if os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
        raise NodeopsError(
            "ecosystem %r is outside of the release. Nothing was changed. Give its path in the release." % path
        )


def check_definitions(layout: Layout, definitions: Sequence[Any]) -> None:
    """Refuse what can be refused before the release exists. Raises NodeopsError."""
    for definition in definitions:
        if isinstance(definition, dict):
            for key in ("cwd", "script", "interpreter"):
                path = definition.get(key)
                if isinstance(path, str) and os.path.isabs(path) and _goes_by_current(layout, path):
                    raise _refusal(layout, str(definition.get("name") or definition.get("script")), key, path)


def check_apps(layout: Layout, release: str, apps: Sequence[App]) -> None:
    """Raises NodeopsError for an app that runs in ``current``, or in another release."""
    for app in apps:
        for key, path in _paths(app):
            if _goes_by_current(layout, path) or _is_in_another_release(layout, release, path):
                raise _refusal(layout, app.name, key, path)


def _paths(app: App) -> Iterator[Tuple[str, str]]:
    yield "cwd", app.config["pm_cwd"]
    yield "script", app.config["pm_exec_path"]
    if app.interpreter_path:
        yield "interpreter", app.interpreter_path


def _goes_by_current(layout: Layout, path: str) -> bool:
    """Whether the path leads through ``current``, by any name of the root."""
    root = os.path.realpath(layout.root)
    above, name = os.path.split(os.path.normpath(path))
    while name:
        if name == os.path.basename(layout.current) and os.path.realpath(above) == root:
            return True
        above, name = os.path.split(above)
    return False


def _is_in_another_release(layout: Layout, release: str, path: str) -> bool:
    places = [os.path.realpath(path), os.path.realpath(os.path.dirname(path))]  # a program may be a link
    top, own = os.path.realpath(layout.releases), os.path.realpath(layout.release(release))
    return any(is_below(place, top) and place != top and not is_below(place, own) for place in places)


def runs_in_another_release(layout: Layout, process: Process, release: str) -> bool:
    """Whether a process runs in a release of the application, other than ``release``."""
    places = [process.pm2_env.get(key) for key in ("pm_cwd", "pm_exec_path")]
    found = {layout.release_at(os.path.realpath(place)) for place in places if isinstance(place, str)}
    return bool(found - {"", release})


def is_below(path: str, top: str) -> bool:
    """Whether a real path is, or lies in, another one."""
    return (path + os.sep).startswith(top.rstrip(os.sep) + os.sep)


def _refusal(layout: Layout, app: str, key: str, path: str) -> NodeopsError:
    return NodeopsError(
        "App %s: its %s %s is not in the release that is published. A new release has to prove itself before %s leads "
        "to it, so another release would be tested in its place. Nothing was changed. Leave cwd out (it is the release "
        "by default), and give paths relative to it." % (app, key, path, layout.current)
    )
