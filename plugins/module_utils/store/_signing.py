# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The key that signs backups: a user without it can neither forge a backup nor change one unnoticed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

SIZE = 32
"""Bytes of a key. Its file has twice as many hexadecimal digits."""
SIGNATURE = "hmac"
_LONGEST_FILE = 4096


class Key:
    """Signs JSON documents with HMAC-SHA256. Shows nothing of itself."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Key(…)"

    def sign(self, document: Dict[str, Any]) -> str:
        """The signature (64 hexadecimal digits) of ``document`` without its key ``hmac``."""
        unsigned = {name: value for name, value in document.items() if name != SIGNATURE}
        return hmac.new(self._secret, canonical(unsigned), hashlib.sha256).hexdigest()

    def check(self, document: Dict[str, Any]) -> bool:
        """Whether the signature in ``document`` is that of this key for this content."""
        given = document.get(SIGNATURE)
        return isinstance(given, str) and hmac.compare_digest(given.encode(), self.sign(document).encode())


def canonical(document: Dict[str, Any]) -> bytes:
    """The only form of a JSON document. Raises ValueError for a value that JSON cannot hold."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load(path: str) -> Key:
    """The key in ``path``. Raises NodeopsError if there is none, or if others may know or replace it."""
    _trusted_path.check_parents(path, "The key")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NodeopsError(
            "The key %s does not exist. Nothing was changed. Without the key that signed them, backups cannot be told "
            "from forged ones. Put the key of this store back, or give its path in key_file." % path
        ) from None
    except OSError as error:
        why = "it is a symbolic link" if os.path.islink(path) else str(error.strerror)
        raise NodeopsError("The key %s cannot be read: %s. Nothing was changed." % (path, why)) from error
    with os.fdopen(handle, "rb") as stream:
        _check_file(path, os.fstat(stream.fileno()))
        text = stream.read(_LONGEST_FILE)
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) < SIZE:
        raise NodeopsError(
            "The key %s does not hold at least %d bytes, written as hexadecimal digits. Nothing was changed. Put the "
            "key of this store back." % (path, SIZE)
        )
    return Key(secret)


def _check_file(path: str, found: os.stat_result) -> None:
    problem = ""
    if not stat.S_ISREG(found.st_mode):
        problem = "is not a regular file"
    elif _trusted_path.is_foreign(found):
        problem = "belongs to %s" % _trusted_path.name_of(found.st_uid)
    elif stat.S_IMODE(found.st_mode) & 0o077:
        problem = "is open to other users (mode %04o): make it 0600" % stat.S_IMODE(found.st_mode)
    if problem:
        raise NodeopsError("The key %s %s. Nothing was changed. With the key, backups can be forged." % (path, problem))


def ensure(path: str) -> Key:
    """The key in ``path``. It is made if there is none. Raises NodeopsError."""
    _trusted_path.check_parents(path, "The key")
    if not os.path.lexists(path):
        try:
            _make(path)
        except OSError as error:
            raise NodeopsError(
                "The key %s cannot be made: %s. Nothing was changed." % (path, _files.why(error))
            ) from error
    return load(path)


def _make(path: str) -> None:
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # NFS locks no directories
            fcntl.flock(directory, fcntl.LOCK_EX)
        if not os.path.lexists(path):
            _files.write_atomically(path, secrets.token_hex(SIZE).encode() + b"\n")
    finally:
        os.close(directory)
