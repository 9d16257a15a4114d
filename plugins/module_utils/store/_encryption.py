# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Encryption with ``age`` to public keys: the user that makes backups need not be able to read them.

age does not prove who wrote a file. The signed manifest of the store does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from typing import IO, Any, Dict, List, Union

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points, _signals, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _documents, _draft, _stored_backup

SUFFIX = ".age"
_RECIPIENT = re.compile(r"age1[0-9a-z]{20,}|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]{40,}(?: [^\n]*)?")
_SECRET = re.compile("AGE-SECRET-KEY|AGE-PLUGIN-|PRIVATE KEY", re.IGNORECASE)
_NOISE = re.compile(r"report unexpected or unhelpful errors")
_PARTIAL = ".partial"


def program() -> str:
    """The path of ``age``. Raises NodeopsError."""
    path = os.pathsep.join([os.environ.get("PATH", ""), STANDARD_PATH])
    found = shutil.which("age", path=path)
    if found is None:
        raise NodeopsError(
            "age, which encrypts the backups, is not installed. Nothing was changed. Install it (Debian: apt install "
            "age)."
        )
    return found


def check_recipients(recipients: List[str]) -> None:
    """Raises NodeopsError for something that is not a public key that ``age`` can encrypt to."""
    if not recipients:
        return
    for recipient in recipients:
        if _SECRET.search(recipient):
            raise NodeopsError(
                "One of age_recipients is a private key. Nothing was changed. Give public keys (age-keygen -y shows "
                "them), and make a new pair: this one has been seen."
            )
        if not _RECIPIENT.fullmatch(recipient):
            raise NodeopsError(
                "%r is not a public key of age. Nothing was changed. Give one that begins with age1, or an SSH key "
                "(ssh-ed25519 or ssh-rsa) as it stands in its .pub file." % recipient
            )
    with open(os.devnull, "rb") as nothing:
        _run(_encrypting(recipients), nothing, subprocess.DEVNULL, "age cannot encrypt to age_recipients")


def encrypt(source: str, target: str, recipients: List[str]) -> None:
    """Write ``source`` encrypted to ``target``, a new file, 0600. Raises NodeopsError and leaves no ``target``."""
    _into(target, source, _encrypting(recipients), "%s cannot be encrypted" % source)


def decrypt(source: str, target: str, identity_file: str) -> None:
    """Write ``source`` decrypted to ``target``, a new file, 0600. Raises NodeopsError and leaves no ``target``."""
    _trusted_path.check_secret(identity_file, "age_identity_file")
    partial = target + _PARTIAL
    argv = [program(), "--decrypt", "--identity", identity_file]
    _into(partial, source, argv, "%s cannot be decrypted with %s" % (source, identity_file))
    os.rename(partial, target)


def add(draft: _draft.Draft, name: str, recipients: List[str], **facts: Any) -> str:
    """Add the file ``name`` to a draft, encrypted if there are ``recipients``. Returns its name in the backup.

    Size and SHA-256 of the plain file are recorded as ``plain_size`` and ``plain_sha256``, and the plain file is
    removed. Raises NodeopsError.
    """
    if not recipients:
        draft.add(name, **facts)
        return name
    source = draft.path(name)
    target = name + SUFFIX
    try:
        size, sha256 = _documents.digest(source)
        encrypt(source, draft.path(target), recipients)
        os.unlink(source)
    except OSError as error:
        raise NodeopsError("%s cannot be encrypted: %s. Nothing was backed up." % (name, _files.why(error))) from error
    _points.reached("file encrypted")
    draft.add(target, plain_size=size, plain_sha256=sha256, **facts)
    return target


def is_encrypted(recorded: Dict[str, Any]) -> bool:
    """Whether a file is encrypted, by what its manifest records."""
    return "plain_sha256" in recorded


def readable(backup: _stored_backup.Backup, recorded: Dict[str, Any], identity_file: str, directory: str) -> str:
    """The path at which a file of a backup can be read: its own, or decrypted in ``directory`` of the caller.

    Raises NodeopsError if it cannot be decrypted, or is not what was encrypted. Check the backup's files first.
    """
    source = os.path.join(backup.path, recorded["name"])
    if not is_encrypted(recorded):
        return source
    if not identity_file:
        raise NodeopsError(
            "Backup %s is encrypted. Nothing was changed. Give the private key's file in age_identity_file." % backup.id
        )
    target = os.path.join(directory, recorded["name"][: -len(SUFFIX)])
    try:
        decrypt(source, target, identity_file)
        found = _documents.digest(target)
    except OSError as error:
        raise NodeopsError("%s cannot be decrypted: %s. Nothing was changed." % (source, _files.why(error))) from error
    if found != (recorded["plain_size"], recorded["plain_sha256"]):
        os.unlink(target)
        raise NodeopsError("%s does not decrypt to what was backed up. Nothing was changed." % source)
    return target


def _encrypting(recipients: List[str]) -> List[str]:
    return [program(), "--encrypt", *(word for each in recipients for word in ("--recipient", each))]


def _into(target: str, source: str, argv: List[str], what: str) -> None:
    """Run ``argv`` from ``source`` to ``target``, which is removed if it fails."""
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(handle, "wb") as output, open(source, "rb") as stream:
                _run(argv, stream, output, what)
                os.fsync(output.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(target)
            raise
    except OSError as error:
        raise NodeopsError("%s: %s. Nothing was changed." % (what, _files.why(error))) from error


def _run(argv: List[str], source: IO[bytes], target: Union[int, IO[bytes]], what: str) -> None:
    """Run age to its end; it is ended with us. Raises NodeopsError with what it printed."""
    with tempfile.TemporaryFile() as errors:
        status = _finish(argv, source, target, errors)
        errors.seek(0)
        said = errors.read(4096).decode("utf-8", "replace")
    if status != 0:
        lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.search(line)]
        raise NodeopsError(
            "%s: %s. Nothing was changed." % (what, " ".join(lines) or "age ended with exit code %d" % status)
        )


def _finish(argv: List[str], source: IO[bytes], target: Union[int, IO[bytes]], errors: IO[bytes]) -> int:
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _signals.ENDING)  # a signal here would leave a process behind
    process = None
    try:
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=target,
            stderr=errors,
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, former),
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        return process.wait()
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
