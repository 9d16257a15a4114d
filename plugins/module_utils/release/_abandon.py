# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""State abandoned: end a run that has failed between two of its calls."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.release import _live, _manifest, _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def abandon(call: ModuleCall) -> Dict[str, Any]:
    """State abandoned: something between two calls of this run has failed, or one of them was killed.

    Finish or undo what was left half done, remove what was prepared and is not live, write the history, unlock.
    """
    options = call.options
    removed: List[str] = []
    if call.check_mode:
        return {"changed": False, "removed": removed}
    if options.release and not os.path.isdir(call.layout.release(options.release)):
        call.lease.release()  # the state that failed has removed it and written the history already
        return {"changed": False, "removed": removed}
    with call.locked("abandon", first=True):  # a call may have been killed before it got the lock
        live = _live.find_recovered(call)
        if options.release:
            prepared = [call.prepared()]
        else:
            prepared = [m for m in _manifest.read_all(call.layout) if m.run == options.run and call.is_ours(m)]
        for each in prepared:
            if _retention.discard(call.layout, each, options.pm2_home):
                removed.append(each.release)
        reason = call.redactor.text(options.reason or "")
        manifest = prepared[0] if prepared else None
        is_live = manifest is not None and manifest.release == live.release  # the killed call was past its commit
        call.record("deployed" if is_live else "failed", manifest, stage=options.stage, reason=reason)
    call.lease.release()
    changed = bool(removed) or call.recovered is not None
    return {"changed": changed, "removed": removed, "recovered": call.recovered, "current": live.release or None}
