# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A restore under way that changes files: what was there before it, kept until it is over.

One note for each namespace that is restored alone, and one for the restore of all: the dead restore of one namespace
says nothing of another. Whoever reads or writes them holds ``lock``, so what is found is of a restore that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Collection, ContextManager, Dict, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils import _env_files, _files
from ansible_collections.nodeops.pm2.plugins.module_utils._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error

_OF_ALL, _OF_ONE = "restore-of-all.note", "restore-of-namespace-%s.note"
"""Names that no journal of a namespace can have."""


class Unfinished(NamedTuple):
    """``files`` as they were (None: there was none); ``namespaces`` as the restore remembers them."""

    backup: str
    files: Dict[str, Optional[EnvFile]]
    namespaces: Dict[str, Any]


def lock(pm2_home: str, timeout: float) -> ContextManager[None]:
    """For all that restores into this PM2, from whichever store. Raises Pm2Error naming the holder."""
    return _files.lock(pm2_home, "restore", "Nothing was restored", timeout)


def path_of(pm2_home: str, namespace: Optional[str]) -> str:
    """Where it is kept (0600); None: of all namespaces."""
    return _files.state_path(pm2_home, _OF_ALL if namespace is None else _OF_ONE % namespace)


def find(pm2_home: str, namespaces: Collection[str]) -> Dict[str, Unfinished]:
    """What killed restores of any of ``namespaces`` have left, by path. Raises Pm2Error where it is unreadable."""
    paths = [path_of(pm2_home, namespace) for namespace in (None, *sorted(namespaces))]
    found = {path: note for path in paths for note in [_read(path)] if note}
    return {path: note for path, note in found.items() if set(namespaces) & set(note.namespaces)}


def _read(path: str) -> Optional[Unfinished]:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        files = {name: _env_files.from_json(each) if each else None for name, each in document["files"].items()}
        return Unfinished(document["backup"], files, document["namespaces"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Pm2Error(
            "What an interrupted restore has left in %s cannot be read (%s). Nothing was changed. Compare the "
            "environment files by hand, then remove it." % (path, type(error).__name__)
        ) from error


def write(pm2_home: str, namespace: Optional[str], unfinished: Unfinished) -> None:
    """Before anything is changed. What is noted there of other namespaces stays noted. Raises Pm2Error."""
    path = path_of(pm2_home, namespace)
    former = _read(path)
    if former:
        files, namespaces = {**former.files, **unfinished.files}, {**former.namespaces, **unfinished.namespaces}
        unfinished = unfinished._replace(files=files, namespaces=namespaces)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _write(path, unfinished)
    except OSError as error:
        raise Pm2Error("%s could not be written: %s. Nothing was restored." % (path, _files.why(error))) from error


def _write(path: str, unfinished: Unfinished) -> None:
    files = {name: each.as_json() if each else None for name, each in unfinished.files.items()}
    _files.write_atomically(path, json.dumps(dict(unfinished._asdict(), files=files)).encode())


def settle(pm2_home: str, namespaces: Collection[str], files: Collection[str]) -> None:
    """These are as they should be. What is noted of others stays noted. Raises OSError."""
    for path, note in find(pm2_home, namespaces).items():
        left = {name: each for name, each in note.namespaces.items() if name not in namespaces}
        if left:
            others = {name: each for name, each in note.files.items() if name not in files}
            _write(path, note._replace(files=others, namespaces=left))
        else:
            _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _files.discard_unfinished(path)
        os.unlink(path)
        _files.sync_directory(os.path.dirname(path))
