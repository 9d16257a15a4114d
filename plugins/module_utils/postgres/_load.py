# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The scratch databases of a restore or a drill: loaded from the backup, compared with it, dropped."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Dict, Iterator, List, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases, _disk_space, _journal, _scratch
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._journal import Journal, Swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore_call import HOW, Call
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._scratch import ScratchDatabase
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup


@contextlib.contextmanager
def loaded(
    call: Call, journal: Journal, backup: Backup, facts: Dict[str, Facts], lives: Dict[str, Optional[Facts]]
) -> Iterator[List[str]]:
    """Load the scratch databases; yields what differs from the backup. They are dropped if the block fails."""
    directory = os.path.join(call.store.dest, ".partial-restore-" + journal.id)
    _journal.write(call.store.dest, journal)
    _points.reached("%s journal written" % journal.verb)
    try:
        problems = []
        for swap in journal.swaps:
            outside = lives[swap.name] or facts[swap.name]
            with _readable(call, backup, facts[swap.name]["file"], directory) as archive:
                scratch = ScratchDatabase(swap.incoming, swap.name, archive, facts[swap.name], outside)
                problems += _build(call, scratch, journal.verb)
        yield problems
    except _scratch.Unloadable as error:
        unload(call, journal)
        noted = call.note_verified(backup, HOW, error.details["problems"])
        raise NodeopsError(
            "%s Backup %s does not count as good any more. Choose another one, or make a new one." % (error, backup.id),
            {**error.details, "backup": backup.id, "verification": noted.verification},
        ) from error
    except BaseException:
        unload(call, journal)
        raise


def _build(call: Call, scratch: ScratchDatabase, verb: str) -> List[str]:
    space = _disk_space.find(call.server, scratch.properties["tablespace"])
    problems = _scratch.build(call.server, scratch, call.params["jobs"], space, call.timings, verb)
    return ["%s: %s" % (scratch.database, problem) for problem in problems]


@contextlib.contextmanager
def _readable(call: Call, backup: Backup, file: str, directory: str) -> Iterator[str]:
    """The path of the plain archive. If it had to be decrypted, it is removed afterwards."""
    [recorded] = [each for each in backup.manifest["files"] if each["name"] == file]
    try:
        os.mkdir(directory, 0o700)
        with call.timings.measure("read"):
            path = _encryption.readable(backup, recorded, call.params["age_identity_file"] or "", directory)
        yield path
    except OSError as error:
        raise NodeopsError("%s cannot be made: %s. Nothing was changed." % (directory, error.strerror)) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def unload(call: Call, journal: Journal) -> None:
    """Drop the scratch databases. If that fails, the journal stays, and the next run drops them."""
    try:
        drop(call, journal.swaps)
        _journal.remove(call.store.dest)
    except (NodeopsError, OSError) as error:
        call.cleanup_error = str(error)


def drop(call: Call, swaps: Sequence[Swap]) -> None:
    """Drop the scratch databases. Raises PgError."""
    with call.timings.measure("drop"):
        for swap in swaps:
            _databases.drop(call.server, swap.incoming)
