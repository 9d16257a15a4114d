# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The note of a restore that changes files: the former state, kept until the restore is over.

There is one note for each namespace that is restored alone, and one for a restore of all: the killed restore of one
namespace says nothing about another. Readers and writers hold ``lock``, so a note that they find is that of a killed
restore.

The former state is noted with marks of what was going to replace it. If neither is found any more, it was changed
since. The marks are signatures, so that values cannot be tried against them.
"""

from __future__ import annotations

import hashlib
from typing import Any, Collection, ContextManager, Dict, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._journal import JournalFile
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _env_files
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing

_OF_ALL, _OF_ONE = "restore-of-all.note", "restore-of-namespace-%s.note"
"""No journal of a namespace can have these names."""


class FormerFile(NamedTuple):
    """The former file (None if there was none), and the marks of what restores were going to write."""

    file: Optional[EnvFile]
    marks: List[str]

    def is_untouched(self, now: Optional[EnvFile], key: _signing.Key) -> bool:
        """Whether it is as before, or as a restore has left it. Mode and owner do not count."""
        if now is None:
            return self.file is None
        return (self.file is not None and self.file.data == now.data) or mark_of_file(now, key) in self.marks


class Former(NamedTuple):
    """The former namespace: its running and stopped processes, and its entries in the dump. ``marks``: as of a file."""

    live: List[_dump.Entry]
    saved: List[_dump.Entry]
    runs: bool
    marks: List[str]

    def is_untouched(self, now: "Former", is_settled: bool, key: _signing.Key) -> bool:
        """Whether it is as before, or as a restore has left it. ``is_settled``: the live processes can be compared.

        After a resurrect the live processes are those that were saved. If only files were restored, the live ones are
        saved.
        """

        def is_ours(entries: List[_dump.Entry]) -> bool:
            is_former = any(_dump.same(entries, former) for former in (self.live, self.saved))
            return is_former or mark_of_entries(entries, key) in self.marks

        return is_ours(now.saved) and (not is_settled or is_ours(now.live))


class Unfinished(NamedTuple):
    """What a killed restore has left: files by path, namespaces by name."""

    backup: str
    files: Dict[str, FormerFile]
    namespaces: Dict[str, Former]


def mark_of_file(file: EnvFile, key: _signing.Key) -> str:
    """The mark of the content of a file."""
    return key.sign({"type": "restored file", "path": file.path, "sha256": hashlib.sha256(file.data).hexdigest()})


def mark_of_entries(entries: List[_dump.Entry], key: _signing.Key) -> str:
    """The mark of the meaning of entries."""
    return key.sign({"type": "restored entries", "entries": _dump.canonical(entries)})


def lock(pm2_home: str, timeout: float) -> ContextManager[None]:
    """The lock for all restores into this PM2, whatever their store. Raises NodeopsError naming the holder."""
    return _files.lock(pm2_home, "restore", "Nothing was restored", timeout)


def path_of(pm2_home: str, namespace: Optional[str]) -> str:
    """The path of a note (0600). ``namespace`` is None for the restore of all."""
    return _files.state_path(pm2_home, _OF_ALL if namespace is None else _OF_ONE % namespace)


def find(pm2_home: str, namespaces: Collection[str]) -> Dict[str, Unfinished]:
    """The notes of killed restores of any of ``namespaces``, by path. Raises NodeopsError if one is unreadable."""
    paths = [path_of(pm2_home, namespace) for namespace in (None, *sorted(namespaces))]
    found = {path: note for path in paths for note in [_file(path).read(_parse)] if note}
    return {path: note for path, note in found.items() if set(namespaces) & set(note.namespaces)}


def _file(path: str) -> JournalFile:
    return JournalFile(path, "restore", "Compare the environment files by hand, then remove the file.")


def _parse(document: Dict[str, Any]) -> Unfinished:
    files = {name: _file_from_json(**each) for name, each in document["files"].items()}
    namespaces = {name: Former(**each) for name, each in document["namespaces"].items()}
    return Unfinished(document["backup"], files, namespaces)


def _file_from_json(file: Any, marks: List[str]) -> FormerFile:
    return FormerFile(_env_files.from_json(file) if file else None, marks)


def write(pm2_home: str, namespace: Optional[str], unfinished: Unfinished) -> None:
    """Write the note, before anything is changed. What it says about other namespaces stays. Raises NodeopsError.

    From then on no other note says anything about the same namespaces and files.
    """
    path = path_of(pm2_home, namespace)
    former = _file(path).read(_parse)
    merged = unfinished
    if former:
        files, namespaces = {**former.files, **unfinished.files}, {**former.namespaces, **unfinished.namespaces}
        merged = unfinished._replace(files=files, namespaces=namespaces)
    try:
        _file(path).write(_document(merged))
        settle(pm2_home, unfinished.namespaces, unfinished.files, but=path)
    except NodeopsError as error:
        raise NodeopsError("%s Nothing was restored." % error) from error


def _document(unfinished: Unfinished) -> Dict[str, Any]:
    files = {
        name: {"file": each.file.as_json() if each.file else None, "marks": each.marks}
        for name, each in unfinished.files.items()
    }
    namespaces = {name: each._asdict() for name, each in unfinished.namespaces.items()}
    return {"backup": unfinished.backup, "files": files, "namespaces": namespaces}


def settle(pm2_home: str, namespaces: Collection[str], files: Collection[str], but: str = "") -> None:
    """These namespaces and files are as they should be. Notes about others stay, and so does the whole note ``but``.

    Raises NodeopsError if that cannot be written.
    """
    for path, note in find(pm2_home, namespaces).items():
        if path == but:
            continue
        left = {name: each for name, each in note.namespaces.items() if name not in namespaces}
        if left:
            others = {name: each for name, each in note.files.items() if name not in files}
            _file(path).write(_document(note._replace(files=others, namespaces=left)))
        else:
            _file(path).remove()
