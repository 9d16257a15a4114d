# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a restore is about to do, written before it does it, so that the next run can finish or undo it.

It is in the store. What has happened to the databases is not in it: their names tell.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._journal import JournalFile
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._stopped import Stopped

LOADING = "loading"  # a scratch database may exist, and is dropped; nothing live was touched
SWAPPING = "swapping"  # processes may be stopped, databases fenced or swapped: their names decide
BACK = "back"  # the new databases have failed: they are swapped back


class Swap(NamedTuple):
    """One database: ``incoming`` becomes ``name``, and what is ``name`` becomes ``previous`` (None: there is none)."""

    name: str
    incoming: str
    previous: Optional[str]


class Journal(NamedTuple):
    """``server`` is the cluster's system identifier, ``verb`` restore, undo or verify."""

    id: str
    verb: str
    phase: str
    server: str
    swaps: List[Swap]
    backup: Optional[str]
    namespace: Optional[str]
    pm2_home: Optional[str]
    pm2_executable: Optional[str]
    ready: Dict[str, Any]
    healthy: int
    processes: List[Stopped]

    @property
    def names(self) -> List[str]:
        """The databases it is about."""
        return [swap.name for swap in self.swaps]

    @property
    def is_about_live(self) -> bool:
        """Whether a live database, or a process, may have been touched."""
        return self.phase != LOADING


def path_of(dest: str) -> str:
    """Its path in the store ``dest``."""
    return os.path.join(dest, ".nodeops", "restore.journal")


def read(dest: str) -> Optional[Journal]:
    """The journal that a killed run left, or None. Raises NodeopsError if it cannot be used."""
    return _file(dest).read(_parse)


def _parse(document: Dict[str, Any]) -> Journal:
    swaps = [Swap(*swap) for swap in document.pop("swaps")]
    processes = [Stopped(*process) for process in document.pop("processes")]
    return Journal(swaps=swaps, processes=processes, **document)


def write(dest: str, journal: Journal) -> None:
    """Make ``journal`` durable, before anything that it announces is done. Raises NodeopsError."""
    try:
        _file(dest).write(journal._asdict())
    except NodeopsError as error:
        raise NodeopsError("%s The live database was not touched." % error) from error


def remove(dest: str) -> None:
    """There is nothing to finish or undo any more. Raises NodeopsError."""
    _file(dest).remove()


def _file(dest: str) -> JournalFile:
    return JournalFile(
        path_of(dest),
        "restore",
        "Look at the databases (pg_restore, state status) and the processes by hand, then remove the file.",
    )
