# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a release consists of besides its files: its processes and their environment (0600). A rollback needs them."""

from __future__ import annotations

import json
import os
from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout
from ansible_collections.nodeops.pm2.plugins.module_utils.release._options import ReleaseOptions


def path_of(layout: Layout, release: str) -> str:
    """The file that holds it."""
    return os.path.join(layout.definitions, release + ".json")


def write(layout: Layout, release: str, definition: Dict[str, Any]) -> None:
    """Write it. Raises NodeopsError."""
    path = path_of(layout, release)
    try:
        _files.write_atomically(path, json.dumps(definition).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise NodeopsError("%s could not be written: %s." % (path, _files.why(error))) from error


def read(layout: Layout, release: str) -> Dict[str, Any]:
    """What ``write`` wrote. Raises NodeopsError if it does not exist or cannot be read."""
    path = path_of(layout, release)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            found = json.load(stream)
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        raise NodeopsError(
            "The processes and environment of release %s cannot be read (%s: %s). Nothing was changed."
            % (release, path, error)
        ) from error
    return found


def differs(layout: Layout, release: str, definition: Dict[str, Any]) -> bool:
    """Whether ``write`` would change the file."""
    try:
        return bool(read(layout, release) != json.loads(json.dumps(definition)))
    except NodeopsError:
        return True


def requested(options: ReleaseOptions) -> Dict[str, Any]:
    """What the options say the release consists of."""
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


def has_processes(definition: Dict[str, Any]) -> bool:
    """Whether the release has processes. One without is a static site."""
    return bool(definition["apps"] or definition["ecosystem"])
