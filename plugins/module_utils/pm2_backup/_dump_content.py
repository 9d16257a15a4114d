# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a backup of kind pm2 holds: entries of the dump, and environment files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _env_files
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils.store import (
    _draft,
    _encryption,
    _signing,
    _store,
    _stored_backup,
)

DUMP = "dump.pm2"
_FILE = "file-%03d"
_READS, _PAUSE = 5, 0.1  # seconds; PM2's own save empties the dump before it writes it


class Content(NamedTuple):
    """``source`` is the file that the entries were read from."""

    entries: List[_dump.Entry]
    files: List[EnvFile]
    source: str

    def namespaces(self) -> Dict[str, List[str]]:
        """The names of the processes of each namespace, in the order of the dump."""
        found: Dict[str, List[str]] = {}
        for entry in self.entries:
            found.setdefault(_dump.namespace_of(entry), []).append(str(entry.get("name")))
        return found

    def fingerprint(self, key: _signing.Key) -> str:
        """It is the same for the same meaning. It needs the key, so that values cannot be tried against it."""
        files = [[*each.facts().values(), hashlib.sha256(each.data).hexdigest()] for each in self.files]
        return key.sign({"entries": _dump.canonical(self.entries), "files": sorted(files)})


def collect(pm2_home: str, namespace: Optional[str], paths: List[str]) -> Content:
    """What there is to back up now. Raises NodeopsError if a file or the dump is missing or cannot be read."""
    dump = _read_dump(pm2_home)
    if dump.source is None:
        problem = dump.problem or "%s is missing, and so is its .bak" % _dump.path_of(pm2_home)
        raise NodeopsError("%s. A resurrect could bring back nothing. Nothing was backed up." % problem)
    entries = dump.entries if namespace is None else _dump.of_namespace(dump.entries, namespace)
    return Content(entries, [_env_files.read(path) for path in paths], dump.source)


def _read_dump(pm2_home: str) -> _dump.Dump:
    """The dump as a resurrect reads it, but not at the moment at which PM2 writes it."""
    for _try in range(_READS):
        dump = _dump.read(pm2_home)
        if dump.source == _dump.path_of(pm2_home) or not os.path.exists(_dump.path_of(pm2_home)):
            break
        time.sleep(_PAUSE)
    return dump


def write(draft: _draft.Draft, content: Content, recipients: List[str]) -> None:
    """Put all of it into a draft, encrypted if there are ``recipients``."""
    _write(draft, DUMP, json.dumps(content.entries).encode(), recipients, part="dump")
    for number, each in enumerate(content.files, 1):
        _write(draft, _FILE % number, each.data, recipients, part="file", **each.facts())
    _points.reached("dump backup written")


def _write(draft: _draft.Draft, name: str, data: bytes, recipients: List[str], **facts: Any) -> None:
    try:
        handle = os.open(draft.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    except OSError as error:
        raise NodeopsError("The backup could not be written: %s. Nothing was backed up." % _files.why(error)) from error
    _encryption.add(draft, name, recipients, **facts)


def is_readable(backup: _stored_backup.Backup, identity_file: Optional[str]) -> bool:
    """Whether ``load`` can read it: it is not encrypted, or there is a key."""
    return bool(identity_file) or not any(map(_encryption.is_encrypted, backup.manifest["files"]))


def load(store: _store.Store, backup: _stored_backup.Backup, identity_file: Optional[str]) -> Content:
    """The content of a backup whose files are intact. Raises NodeopsError."""
    entries: List[_dump.Entry] = []
    files = []
    with _workplace(store, backup) as directory:
        for recorded in backup.manifest["files"]:
            path = _encryption.readable(backup, recorded, identity_file or "", directory)
            try:
                with open(path, "rb") as stream:
                    data = stream.read()
            except OSError as error:
                raise NodeopsError("%s cannot be read: %s. Nothing was changed." % (path, error.strerror)) from error
            if recorded["part"] == "file":
                facts = {key: recorded[key] for key in ("path", "mode", "owner", "group")}
                files.append(EnvFile(data=data, **facts))
            else:
                entries = _parse(backup, data)
    return Content(entries, files, backup.path)


@contextlib.contextmanager
def _workplace(store: _store.Store, backup: _stored_backup.Backup) -> Iterator[str]:
    """A directory for decrypted files. What a killed run leaves of it is removed like a draft."""
    if not any(map(_encryption.is_encrypted, backup.manifest["files"])):
        yield ""
        return
    try:
        directory = tempfile.mkdtemp(prefix=".partial-read-", dir=store.dest)
    except OSError as error:
        raise NodeopsError(
            "Backup %s cannot be decrypted in %s: %s. Nothing was changed." % (backup.id, store.dest, _files.why(error))
        ) from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parse(backup: _stored_backup.Backup, data: bytes) -> List[_dump.Entry]:
    try:
        entries = json.loads(data)
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            return entries
    except (ValueError, RecursionError):
        pass
    raise NodeopsError("The dump in backup %s is not a list of processes. Nothing was changed." % backup.id)
