# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""State pruned: remove the releases that need not be kept."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _live, _manifest, _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def prune(call: ModuleCall) -> Dict[str, Any]:
    """State pruned."""
    with call.locked("prune", first=True):
        _live.find(call)
        chosen = removable(call)
        removed = chosen if call.check_mode else remove_old(call)
    if not call.check_mode:
        call.lease.release()
    return {"changed": bool(removed), "removed": removed}


def remove_old(call: ModuleCall) -> List[str]:
    """Remove the releases that need not be kept. Returns their ids. What cannot be removed is a warning."""
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


def removable(call: ModuleCall) -> List[str]:
    """The ids that need not be kept. Raises NodeopsError if it cannot be told what is in use."""
    manifests = _manifest.read_all(call.layout)
    referenced = _retention.referenced(call.layout, call.options.pm2_home)
    return _retention.removable(manifests, call.current(), referenced, call.options.keep, call.options.run)
