# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Finish or undo a transaction from its journal: what a killed run has left, or what has failed."""

from __future__ import annotations

import os
from typing import Any, List, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _journal
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._journal import Journal
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

OUTCOME = {_journal.COMMITTED: "finished", _journal.TRYING: "undone"}


def undo(namespace: Namespace, transaction: str, stopped: Sequence[Process]) -> None:
    """Remove what a transaction started, and start again what it stopped."""
    leftover = [process for process in namespace.read() if transaction_of(process) == transaction]
    namespace.delete(leftover, restless=True)
    namespace.restart(stopped)


class Recovery(NamedTuple):
    """What was done about a killed run (``finished``, ``undone``, None), and whether the dump was written."""

    outcome: Optional[str]
    saved: bool


def recover(namespace: Namespace, pm2_home: str) -> Recovery:
    """Finish or undo what a killed run left in this namespace."""
    journal = _journal.read(pm2_home, namespace.name)
    if journal is None:
        return Recovery(None, False)
    live = namespace.read()
    stopped = [process for process in live if process.identity in journal.stopped]
    saved = False
    if journal.phase == _journal.COMMITTED:
        namespace.unwatch(stopped)
        namespace.delete([process for process in live if process.identity in journal.retire])
        _finish_switch(journal)
        if journal.finishes_saving:
            saved = _dump.save(pm2_home, namespace.name, _dump.entries_of(p.pm2_env for p in namespace.read()))
    else:
        undo(namespace, journal.transaction, stopped)
    _journal.remove(pm2_home, namespace.name)
    return Recovery(OUTCOME[journal.phase], saved)


def _finish_switch(journal: Journal) -> None:
    """Switch the link, unless it was changed meanwhile or its directory was removed."""
    if journal.switch:
        switch = _symlink.Switch(**journal.switch)
        if os.path.isdir(os.path.dirname(switch.path)) and _symlink.target(switch.path) == switch.before:
            _symlink.apply(switch)


def after_recovery(live: List[Process], journal: Optional[Journal]) -> List[Process]:
    """What ``recover`` would leave, for check mode."""
    if journal is None:
        return live
    if journal.phase == _journal.COMMITTED:
        kept = [process for process in live if process.identity not in journal.retire]
        return [
            _Predicted(p, watch=False) if p.identity in journal.stopped and p.pm2_env.get("watch") else p for p in kept
        ]
    old = [process for process in live if transaction_of(process) != journal.transaction]
    return [_Predicted(p, status="online") if p.identity in journal.stopped and not p.running else p for p in old]


class _Predicted(Process):
    """A process as it will be with ``changes``. One that will be online will also run."""

    def __init__(self, process: Process, **changes: Any) -> None:
        env = dict(process.pm2_env, **changes)
        super().__init__({"pm_id": process.pm_id, "name": process.name, "pid": 0, "pm2_env": env})

    @property
    def running(self) -> bool:
        return self.status == "online"


def transaction_of(process: Process) -> Optional[str]:
    """The id of the transaction that has started a process."""
    return (process.marker or {}).get("transaction")
