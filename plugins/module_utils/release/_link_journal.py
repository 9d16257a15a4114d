# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The journal of a switch of ``current`` to a static site that has not proven itself yet. It survives a killed run."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout


def _path(layout: Layout) -> str:
    return os.path.join(layout.private, "trial.json")


def begin(layout: Layout, switch: _symlink.Switch) -> None:
    """Write the switch down, durably, before it is made. Raises NodeopsError."""
    try:
        _files.write_atomically(_path(layout), json.dumps([switch.before, switch.after]).encode())
    except OSError as error:
        raise NodeopsError(
            "%s could not be written: %s. Nothing was changed." % (_path(layout), _files.why(error))
        ) from error


def end(layout: Layout) -> None:
    """Remove the journal: the site has proven itself, or the link is as it was."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(layout))
        _files.sync_directory(layout.private)


def pending(layout: Layout) -> Optional[_symlink.Switch]:
    """The switch that a killed run has left unproven, or None. Raises NodeopsError."""
    try:
        with open(_path(layout), encoding="utf-8") as stream:
            before, after = json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise NodeopsError(
            "The journal %s of an interrupted run cannot be read (%s). Nothing was changed. Make sure that %s leads to "
            "the right release, then remove the journal." % (_path(layout), error, layout.current)
        ) from error
    switch = _symlink.Switch(layout.current, before, after)
    return switch if _symlink.target(layout.current) == after else None  # else it was changed since


def undo(layout: Layout) -> bool:
    """Undo a switch that a killed run has left unproven. Returns whether there was one. Raises NodeopsError."""
    switch = pending(layout)
    if switch is not None:
        _symlink.revert(switch)
    if os.path.exists(_path(layout)):
        end(layout)
    return switch is not None
