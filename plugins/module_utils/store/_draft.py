# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A backup while it is written: complete and signed at once, or nothing is left of it."""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
import socket
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing
from ansible_collections.nodeops.pm2.plugins.module_utils.store._documents import (
    TYPES,
    digest_of,
    open_regular,
    written,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import (
    FORMAT,
    MANIFEST,
    TIME,
    VERIFIED,
    Backup,
)

PARTIAL = ".partial-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


class Draft:
    """A backup before it is committed. Files may be written into ``directory``; then they have to be added."""

    def __init__(
        self, dest: str, key: _signing.Key, next_sequence: Callable[[], int], kind: str, created: datetime.datetime
    ) -> None:
        """``next_sequence`` gives the number of the backup when it is committed."""
        self._dest = dest
        self._key = key
        self._next_sequence = next_sequence
        self._kind = kind
        self._created = created
        self._files: List[Dict[str, Any]] = []
        self.id = "%s-%s-%s" % (created.strftime("%Y%m%dT%H%M%SZ"), kind, secrets.token_hex(3))
        self.directory = os.path.join(dest, PARTIAL + self.id)

    def path(self, name: str) -> str:
        """The path to write the file ``name`` to."""
        if not _NAME.match(name) or name in (MANIFEST, VERIFIED):
            raise ValueError("%r cannot be the name of a file of a backup" % name)
        return os.path.join(self.directory, name)

    def add(self, name: str, **facts: Any) -> None:
        """Add a file of ``directory``: make it 0600 and durable, and record it with ``facts``.

        Raises NodeopsError.
        """
        path = self.path(name)
        try:
            handle = open_regular(path, os.O_RDWR)
            with open(handle, "rb") as stream:
                os.fchmod(handle, 0o600)
                os.fsync(handle)
                size, sha256 = digest_of(stream)
        except OSError as error:
            raise not_written(error) from error
        self._files.append({**facts, "name": name, "size": size, "sha256": sha256})
        _points.reached("store file added")

    def write(self, name: str, data: bytes, **facts: Any) -> None:
        """Write and add a file with ``data``, recorded with ``facts``. Raises NodeopsError."""
        try:
            handle = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as stream:
                stream.write(data)
        except OSError as error:
            raise not_written(error) from error
        self.add(name, **facts)

    def commit(
        self, environment: Optional[str], namespace: Optional[str], tools: Dict[str, Any], content: Dict[str, Any]
    ) -> Backup:
        """Make it a backup, durable and not yet verified. ``tools``: versions by name. Raises NodeopsError.

        ``content`` describes it, and depends on its kind. It must hold no secret.
        """
        added = {each["name"] for each in self._files}
        others = set(os.listdir(self.directory)) - added
        if others or len(added) != len(self._files):
            raise RuntimeError("not added, or added twice: %s" % (others or added))
        path = os.path.join(self._dest, self.id)
        try:
            manifest: Dict[str, Any] = {
                "type": TYPES[MANIFEST],
                "format": FORMAT,
                "id": self.id,
                "sequence": self._next_sequence(),
                "kind": self._kind,
                "created": self._created.strftime(TIME),
                "environment": environment,
                "namespace": namespace,
                "host": socket.gethostname(),
                "tools": tools,
                "files": self._files,
                "content": content,
            }
            manifest[_signing.SIGNATURE] = self._key.sign(manifest)
            manifest = json.loads(written(manifest))  # as it will be read
            _points.reached("store sequence taken")
            _files.write_atomically(os.path.join(self.directory, MANIFEST), written(manifest))
            _points.reached("store manifest written")
            os.rename(self.directory, path)
            try:
                _files.sync_directory(self._dest)
            except OSError:
                os.rename(path, self.directory)
                raise
        except OSError as error:
            raise not_written(error) from error
        _points.reached("store backup committed")
        return Backup(self.id, path, manifest, None)


def not_written(error: OSError) -> NodeopsError:
    """The failure for an error of the system."""
    return NodeopsError("The backup was not written: %s. Nothing is left of it." % _files.why(error))
