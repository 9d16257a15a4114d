# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The files of a backup: read without following links, hashed, and its signed JSON documents."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import MANIFEST, VERIFIED

TYPES = {MANIFEST: "manifest", VERIFIED: "verification"}
"""What a document says of itself, so that the signature of one is none of another."""
_CHUNK = 1 << 20
_LARGEST_DOCUMENT = 256 << 20
"""Bytes. A larger file is not a manifest."""


def read_document(directory: str, name: str, key: _signing.Key, key_file: str) -> Tuple[Optional[Dict[str, Any]], str]:
    """A signed document, or None and why it cannot be trusted. Its bytes have to be exactly those of ``written``."""
    path = os.path.join(directory, name)
    try:
        with open(open_regular(path), "rb") as stream:
            data = stream.read(_LARGEST_DOCUMENT)
    except FileNotFoundError:
        return None, "it has no %s" % name
    except OSError as error:
        return None, "its %s cannot be read (%s)" % (name, error.strerror)
    try:
        document = json.loads(data.decode("utf-8"))
        is_ours = isinstance(document, dict) and written(document) == data
    except (ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        return None, "its %s is damaged" % name
    if not key.check(document):
        return None, "its %s is not signed with the key %s: it was changed, or belongs to another store" % (
            name,
            key_file,
        )
    if document.get("type") != TYPES[name]:
        return None, "its %s is not a %s" % (name, TYPES[name])
    return document, ""


def digest(path: str) -> Tuple[int, str]:
    """(size in bytes, SHA-256) of a regular file. Raises OSError."""
    with open(open_regular(path), "rb") as stream:
        return digest_of(stream)


def digest_of(stream: Any) -> Tuple[int, str]:
    """The same of an open file."""
    size = 0
    sha256 = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        size += len(chunk)
        sha256.update(chunk)
    return size, sha256.hexdigest()


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. It follows no link and waits for no pipe. Raises OSError."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(22, "it is not a regular file", path)
    return handle


def lstat(path: str) -> Optional[os.stat_result]:
    """None if there is nothing, or if it cannot be seen."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def check_file(path: str, recorded: Dict[str, Any]) -> List[str]:
    """The problems of a file of a backup, by what its manifest has ``recorded``."""
    name = recorded["name"]
    found = lstat(path)
    if found is None:
        return ["%s is missing" % name]
    problems = access_problems(found, name)
    if not stat.S_ISREG(found.st_mode):
        return [*problems, "%s is not a regular file" % name]
    try:
        size, sha256 = digest(path)
    except OSError as error:
        return [*problems, "%s cannot be read (%s)" % (name, error.strerror)]
    if size != recorded["size"]:
        problems.append("%s has %d bytes and was written with %d" % (name, size, recorded["size"]))
    elif sha256 != recorded["sha256"]:
        problems.append("%s is damaged: its SHA-256 is not the recorded one" % name)
    return problems


def access_problems(found: os.stat_result, name: str) -> List[str]:
    """Why other users could read or change it."""
    if stat.S_ISLNK(found.st_mode):
        return ["%s is a symbolic link" % name]
    if _trusted_path.is_foreign(found):
        return ["%s belongs to %s" % (name, _trusted_path.name_of(found.st_uid))]
    mode = stat.S_IMODE(found.st_mode)
    return ["%s is open to other users (mode %04o)" % (name, mode)] if mode & 0o077 else []


def written(document: Dict[str, Any]) -> bytes:
    """The bytes of a document on disk. People can read them, and each document has only one form."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
