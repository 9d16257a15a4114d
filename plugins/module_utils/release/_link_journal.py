# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The journal of a switch of ``current`` to a static site that has not proven itself yet. It survives a killed run."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._journal import JournalFile
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout


def begin(layout: Layout, switch: _symlink.Switch) -> None:
    """Write the switch down, durably, before it is made. Raises NodeopsError."""
    try:
        _file(layout).write({"before": switch.before, "after": switch.after})
    except NodeopsError as error:
        raise NodeopsError("%s Nothing was changed." % error) from error


def end(layout: Layout) -> None:
    """Remove the journal: the site has proven itself, or the link is as it was. Raises NodeopsError."""
    _file(layout).remove()


def pending(layout: Layout) -> Optional[_symlink.Switch]:
    """The switch that a killed run has left unproven, or None. Raises NodeopsError."""
    switch = _file(layout).read(lambda document: _parse(layout, document))
    if switch is None or _symlink.target(layout.current) != switch.after:
        return None  # the link was changed since
    return switch


def _parse(layout: Layout, document: Any) -> _symlink.Switch:
    if isinstance(document, list):  # as earlier versions wrote it
        before, after = document
        return _symlink.Switch(layout.current, before, after)
    return _symlink.Switch(layout.current, **document)


def _file(layout: Layout) -> JournalFile:
    return JournalFile(
        os.path.join(layout.private, "trial.json"),
        "deploy",
        "Make sure that %s leads to the right release, then remove the file." % layout.current,
    )


def undo(layout: Layout) -> bool:
    """Undo a switch that a killed run has left unproven. Returns whether there was one. Raises NodeopsError."""
    switch = pending(layout)
    if switch is not None:
        _symlink.revert(switch)
    if os.path.exists(_file(layout).path):
        end(layout)
    return switch is not None
