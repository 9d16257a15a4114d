# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a transaction is about to do. It is written first, so that the next run can finish or undo it."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._journal import JournalFile

TRYING = "trying"  # candidates may exist, the old are to be kept: undo
COMMITTED = "committed"  # the new have proven themselves: finish retiring the old


class Journal(NamedTuple):
    """``transaction`` is the id its candidates carry; ``retire`` and ``stopped`` are old processes (Process.identity).

    ``stopped`` are those the transaction may have stopped, which ran before. ``switch`` is a link that is switched with
    the processes (the fields of _symlink.Switch).
    """

    transaction: str
    phase: str
    retire: List[str]
    stopped: List[str]
    save: bool
    switch: Optional[Dict[str, Any]] = None

    @property
    def finishes_saving(self) -> bool:
        """Whether the run that finishes it also saves."""
        return self.save and self.phase == COMMITTED


def read(pm2_home: str, namespace: str) -> Optional[Journal]:
    """The journal a killed run left, or None. Raises NodeopsError when it is there and unreadable."""
    return _file(pm2_home, namespace).read(lambda document: Journal(**document))


def write(pm2_home: str, namespace: str, journal: Journal) -> None:
    """Make ``journal`` durable before anything it announces is done. Raises NodeopsError when it cannot."""
    _file(pm2_home, namespace).write(journal._asdict())


def remove(pm2_home: str, namespace: str) -> None:
    """The transaction is over: there is nothing to finish or undo. Raises NodeopsError when it cannot."""
    _file(pm2_home, namespace).remove()


def _file(pm2_home: str, namespace: str) -> JournalFile:
    return JournalFile(
        _files.state_path(pm2_home, namespace + ".journal"),
        "run",
        "Compare the namespace's processes by hand (nodeops.pm2.pm2_info), then remove the file.",
    )
