# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Which releases need not be kept, and their removal. What anything refers to is kept, and so is the last good one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from typing import Any, Iterable, List, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _procfs, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _definitions, _layout, _manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest

_IN_A_PATH = re.compile("/releases/(%s)" % _layout.ID)


def removable(manifests: List[Manifest], live: str, referenced: Set[str], keep: int, run: str) -> List[str]:
    """The ids that need not be kept; ``manifests`` with the last published first.

    These are kept: the ``keep`` last good releases, the live one included (predecessors of the live one come first),
    the last good one besides the live one, the last made of those that failed (to look at), those in ``referenced``,
    and what this ``run`` has prepared.
    """
    before = _manifest.predecessors(manifests, live)
    ranked = before + [manifest for manifest in manifests if manifest not in before and manifest.release != live]
    good = [manifest.release for manifest in ranked if manifest.good]
    kept = {live, *good[: max(keep - 1, 1)], *referenced}
    failed = [manifest for manifest in ranked if manifest.status in (_manifest.BAD, _manifest.ROLLED_BACK)]
    kept.update(manifest.release for manifest in sorted(failed, key=lambda manifest: manifest.created)[-1:])
    kept.update(manifest.release for manifest in manifests if manifest.unfinished and manifest.run == run)
    return [manifest.release for manifest in manifests if manifest.release not in kept]


def referenced(layout: Layout, pm2_home: str) -> Set[str]:
    """The ids that ``current``, PM2's processes of any namespace, the dump or the working directory of a process name.

    Raises NodeopsError if the daemon or the dump cannot be read.
    """
    found: Set[str] = set()
    current = _symlink.target(layout.current)
    if current is not None:
        found.add(layout.release_named_by(current))
        found.add(layout.release_at(os.path.realpath(layout.current)))
    daemon = _daemon.find(pm2_home)
    if daemon is not None:
        found.update(_mentioned(item.get("pm2_env") for item in daemon.read()))
    dump = _dump.read(pm2_home)
    if dump.problem and dump.source is None:
        raise NodeopsError(
            "%s. No release was removed, because it cannot be told what the dump refers to." % dump.problem
        )
    found.update(_mentioned(dump.entries))
    found.update(_in_use(layout))
    return found - {""}


def _mentioned(things: Iterable[Any]) -> Set[str]:
    found = set(_IN_A_PATH.findall(json.dumps(list(things))))
    return found | {name.rstrip("._+-") for name in found}  # an id may be followed by punctuation


def _in_use(layout: Layout) -> Set[str]:
    """The releases that are the working directory of any process on this host."""
    directories = map(_procfs.working_directory, _procfs.pids())
    return {layout.release_at(directory) for directory in directories if directory}


def remove(layout: Layout, release: str) -> None:
    """Remove a release and its definition. Raises NodeopsError."""
    removing = layout.release(_layout.REMOVING + release)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rename(layout.release(release), removing)  # from here on it is not a release any more
        _remove_tree(removing)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_definitions.path_of(layout, release))
    except OSError as error:
        raise NodeopsError("Release %s could not be removed: %s." % (release, error)) from error


def discard(layout: Layout, manifest: Manifest, pm2_home: str) -> bool:
    """Remove a release that was never finished. Returns whether it was removed.

    It stays if something refers to it, or if that cannot be told: a task that was killed while it published has left
    processes in it. The next run removes these, and then the release.
    """
    if not manifest.unfinished:
        return False
    try:
        if manifest.release in referenced(layout, pm2_home):
            return False
    except NodeopsError:
        return False
    remove(layout, manifest.release)
    return True


def _remove_tree(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_leftovers(layout: Layout) -> None:
    """Remove what killed runs have left unfinished. We hold the lock, so no other run works on it."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(layout.releases):
            if name.startswith((_layout.PREPARING, _layout.REMOVING)):
                with contextlib.suppress(OSError):
                    _remove_tree(layout.release(name))
        for name in os.listdir(layout.definitions):
            known, _dot, _json = name.rpartition(".")
            if not os.path.isdir(layout.release(known)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(layout.definitions, name))
