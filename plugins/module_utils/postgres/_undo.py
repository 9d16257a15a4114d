# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The undo of a restore: the databases that were live before it become live again."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _databases,
    _journal,
    _names,
    _preflight,
    _status,
    _swap,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_call import Call
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._switchover import UNDO, Downtime


def undo(call: Call) -> Tuple[List[Swap], Downtime]:
    """Undo the last restore. Raises NodeopsError."""
    swaps = find_swaps(call)
    switchover = call.switchover(call.journal(UNDO, swaps, None))
    switchover.check(call.params["stop_timeout"])
    _points.reached("undo checked")
    return swaps, switchover.run()


def find_swaps(call: Call) -> List[Swap]:
    """Each live database is replaced by its newest previous one. Raises NodeopsError if there is none."""
    existing = _names_after_recovery(call)
    who = _preflight.login(call.server)
    lives = _preflight.live_of(call.server, call.databases)
    identity = call.id
    swaps = []
    for name, live in lives.items():
        kept = _status.previous(existing, name)
        if not kept:
            raise NodeopsError(
                "There is no previous database of %s, so nothing can be undone. Nothing was changed. To go back to "
                "a backup, use state restored." % name
            )
        if live:
            _preflight.check_live(call.server, who, name, call.after_recovery(name, live))
        _preflight.check_prepared(call.server, kept[0])
        swaps.append(Swap(name, kept[0], _names.previous(name, identity) if live else None))
    _check_of_one_restore([swap.incoming for swap in swaps])
    return swaps


def _check_of_one_restore(previous: Sequence[str]) -> None:
    """Raises NodeopsError for previous databases of different restores: they may not fit together."""
    parsed = [each for each in map(_names.parse, previous) if each]
    newest = max((each.id for each in parsed), default="")
    latest = [each.name for each in parsed if each.id == newest]
    if len(latest) < len(previous):
        raise NodeopsError(
            "%s are not of one restore, and the last one was of %s alone. Nothing was changed. To undo that one, "
            "give only %s in databases (db_restore_databases). The others can be undone by another call."
            % (", ".join(sorted(previous)), ", ".join(latest), ", ".join(latest))
        )


def _names_after_recovery(call: Call) -> List[str]:
    """The names of all databases. In check mode: as they will be after the interrupted restore is undone."""
    names = _databases.names(call.server)
    journal = _journal.read(call.store.dest) if call.check_mode else None
    if journal is None or journal.phase != _journal.BACK or not _swap.is_swapped(names, journal.swaps):
        return names
    renamed = dict(_swap.renames_back(journal.swaps))
    return sorted(renamed.get(name, name) for name in names)
