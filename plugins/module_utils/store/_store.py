# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The backup store: a directory in which each backup is complete or absent, and signed.

::

    <dest>/.nodeops/      lock, sequence, ids of removed backups and what restores note
    <dest>/.partial-<id>/ being written, or left by a killed run
    <dest>/.removed-<id>/ being removed, or left by a killed run
    <dest>/<id>/          manifest.json (signed), verified.json (signed), and the files the manifest names
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple, cast

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing

Scope = Tuple[str, Optional[str], Optional[str], Tuple[str, ...]]
"""What a row of backups is of: kind, environment, namespace, databases."""

FORMAT = 1
PM2, POSTGRESQL = "pm2", "postgresql"
IMPORTED = "imported"
"""In ``content``: where a backup was imported from. Nobody knows of when its data is."""
LATEST = "latest"
MANIFEST, VERIFIED = "manifest.json", "verified.json"
NOTHING_CHANGED = "Nothing was changed."

_TYPES = {MANIFEST: "manifest", VERIFIED: "verification"}
"""What a document says of itself, so that the signature of one is none of another."""
_STATE = ".nodeops"
_PARTIAL, _REMOVED = ".partial-", ".removed-"
_UNFINISHED = ".%s.new" % VERIFIED
_OF_THE_DISK = "lost+found"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9]+-[0-9a-f]{6}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
TIME = "%Y-%m-%dT%H:%M:%SZ"
_CHUNK = 1 << 20
_LARGEST_DOCUMENT = 256 << 20
"""Bytes; what is larger is no manifest."""
_SHOWN = 5
_REMEMBERED = 10000
"""Ids of backups that were removed."""


def now() -> datetime.datetime:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


class Backup(NamedTuple):
    """A backup whose manifest is authentic. Its files are not looked at before ``Store.check_files``."""

    id: str
    path: str
    manifest: Dict[str, Any]
    verification: Optional[Dict[str, Any]]

    @property
    def sequence(self) -> int:
        return cast(int, self.manifest["sequence"])

    @property
    def kind(self) -> str:
        return cast(str, self.manifest["kind"])

    @property
    def is_imported(self) -> bool:
        return IMPORTED in self.manifest["content"]

    @property
    def created(self) -> datetime.datetime:
        """UTC, as the clock of the host said it."""
        return datetime.datetime.strptime(self.manifest["created"], TIME).replace(tzinfo=datetime.timezone.utc)

    @property
    def scope(self) -> Scope:
        databases = self.manifest["content"].get("databases") or ()
        own = self.kind, self.manifest["environment"], self.manifest["namespace"], tuple(sorted(databases))
        return of_imports(own) if self.is_imported else own

    @property
    def size(self) -> int:
        """Bytes of its files on disk, the manifest not counted."""
        return sum(each["size"] for each in self.manifest["files"])

    @property
    def good(self) -> bool:
        """Whether it was verified, and the last verification found no problem."""
        return self.verification is not None and not self.verification["problems"]


class Store:
    """The backups below ``dest``, an absolute path. ``key_file``: its key, by default ``<dest>.key``, beside it.

    ``create`` makes the directory and the key where they are missing; in check mode it only finds out whether it could.
    Without it a store may be missing: then ``exists`` is false and it has no backups. Raises NodeopsError when others
    could put something in the place of either.
    """

    def __init__(
        self, dest: str, key_file: Optional[str] = None, create: bool = False, check_mode: bool = False
    ) -> None:
        self.dest = dest.rstrip("/") or "/"
        self.key_file = key_file or self.dest + ".key"
        self._held = 0
        self._key: Optional[_signing.Key] = None
        _trusted_path.check_parents(dest, "The backup store")
        if self.dest == "/" or (self.key_file + "/").startswith(self.dest + "/"):
            raise NodeopsError(
                "The backup store %s cannot have its key at %s. %s Keep the key outside of the store: else whoever can "
                "change a copy of the store can sign it too." % (dest, self.key_file, NOTHING_CHANGED)
            )
        self.exists = self._check_directory()
        if create:
            self._check_creation()
        if create and not check_mode:
            self._create()
            self.exists = self._check_directory()

    def _check_creation(self) -> None:
        """Raises NodeopsError for what is no store and cannot become one."""
        if os.path.lexists(self.key_file):
            self._key = _signing.load(self.key_file)
        elif any(map(_ID.match, self._names())):
            raise NodeopsError(
                "The backup store %s has backups, but its key %s is missing. Nothing was backed up. Put the key "
                "back: with a new one no backup of this store could be told from a forged one. If it is lost for "
                "good, move the store away and begin a new one." % (self.dest, self.key_file)
            )
        self._must_be_ours("Nothing was backed up", may_be_damaged=False)

    def _must_be_ours(self, what: str, may_be_damaged: bool) -> None:
        """Raises NodeopsError for a directory with something in it that is no store.

        A store that was copied without what is hidden in it has backups and nothing else; of which one can be restored
        though another ``may_be_damaged``.
        """
        if not self.exists or _STATE in os.listdir(self.dest):
            return
        names = sorted(set(os.listdir(self.dest)) - {_OF_THE_DISK})
        others = [name for name in names if not _ID.match(name)]
        if others:
            raise NodeopsError(
                "The directory %s is no backup store and not empty (%s). %s. Give the store a directory of its own."
                % (self.dest, ", ".join(others[:_SHOWN]), what)
            )
        broken = self.broken()
        if broken and not (may_be_damaged and len(broken) < len(names)):
            raise NodeopsError(
                "The directory %s has no %s, as a store that was fetched back may, but not all in it can be trusted: "
                "%s. %s. Fetch these again, or move them away." % (self.dest, _STATE, _listed(broken), what)
            )

    def _create(self) -> None:
        try:
            if not os.path.lexists(self.dest):
                os.makedirs(os.path.dirname(self.dest), exist_ok=True)
                with contextlib.suppress(FileExistsError):  # another run makes it too
                    os.mkdir(self.dest, 0o700)
                _files.sync_directory(os.path.dirname(self.dest))
            self._check_directory()
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._state(""), 0o700)
                _files.sync_directory(self.dest)
            if stat.S_IMODE(os.stat(self.dest).st_mode) != 0o700:
                os.chmod(self.dest, 0o700)
        except OSError as error:
            raise NodeopsError(
                "The backup store %s cannot be made: %s. Nothing was backed up." % (self.dest, _files.why(error))
            ) from error
        self._key = _signing.ensure(self.key_file)

    def _check_directory(self) -> bool:
        try:
            found = os.lstat(self.dest)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise NodeopsError(
                "The backup store %s cannot be used: %s. %s" % (self.dest, error.strerror, NOTHING_CHANGED)
            ) from error
        problem = ""
        if stat.S_ISLNK(found.st_mode):
            problem = "is a symbolic link: give the directory that it leads to"
        elif not stat.S_ISDIR(found.st_mode):
            problem = "is no directory"
        elif _trusted_path.is_foreign(found):
            problem = "belongs to %s: run as that user (become_user)" % _trusted_path.name_of(found.st_uid)
        elif _trusted_path.is_writable_for_others(found):
            problem = "can be written to by other users (mode %04o), who may have put something into it" % (
                stat.S_IMODE(found.st_mode)
            )
        elif not os.access(self.dest, os.R_OK | os.W_OK | os.X_OK):
            problem = "belongs to %s and is closed to %s: run as its owner (become_user)" % (
                _trusted_path.name_of(found.st_uid),
                _trusted_path.name_of(os.geteuid()),
            )
        if problem:
            raise NodeopsError("The backup store %s %s. %s" % (self.dest, problem, NOTHING_CHANGED))
        return True

    @property
    def key(self) -> _signing.Key:
        """Raises NodeopsError when there is none that can be trusted."""
        if self._key is None:
            self._key = _signing.load(self.key_file)
        return self._key

    def _state(self, name: str) -> str:
        return os.path.join(self.dest, _STATE, name)

    def state_path(self, name: str) -> str:
        """Where something that belongs to the store but is no backup is kept, such as a restore's journal."""
        return self._state(name)

    @contextlib.contextmanager
    def lock(self, what: str, timeout: float) -> Iterator[None]:
        """Hold the store, waiting up to ``timeout`` seconds; again within itself is free.

        What killed runs have left is removed first. ``what`` says in the error what was not done. Raises NodeopsError
        naming the holder.
        """
        if self._held:
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1
            return
        self._must_exist(what)
        self._must_be_ours(what, may_be_damaged=True)
        with _files.lock_file(self._state("lock"), what, timeout):
            self._held = 1
            try:
                self.sweep()
                yield
            finally:
                self._held = 0

    def _must_exist(self, what: str) -> None:
        if not self.exists:
            raise NodeopsError("%s: there is no backup store at %s. %s" % (what, self.dest, NOTHING_CHANGED))

    def _must_be_held(self) -> None:
        if not self._held:
            raise RuntimeError("the store is not locked")

    # -- reading -----------------------------------------------------------------------------------------------------

    def backups(self, kind: Optional[str] = None, scope: Optional[Scope] = None) -> List[Backup]:
        """The authentic backups, in the order they were made (whatever the clock said)."""
        found = []
        for name in self._names():
            backup, _why = self._read(name)
            if backup and kind in (None, backup.kind) and scope in (None, backup.scope):
                found.append(backup)
        return sorted(found, key=lambda backup: (backup.sequence, backup.id))

    def broken(self) -> List[Tuple[str, str]]:
        """(name, why) of whatever stands in the store and is no authentic backup."""
        return [(name, why) for name in self._names() for backup, why in [self._read(name)] if backup is None]

    def _names(self) -> List[str]:
        if not self.exists:
            return []
        names = os.listdir(self.dest)
        ours = [name for name in names if name == _STATE or name.startswith((_PARTIAL, _REMOVED))]
        return sorted(set(names) - set(ours) - {_OF_THE_DISK})

    def _read(self, name: str) -> Tuple[Optional[Backup], str]:
        path = os.path.join(self.dest, name)
        if not _ID.match(name):
            return None, "it is not named as a backup is"
        found = _lstat(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return None, "it is no directory"
        manifest, why = self._document(path, MANIFEST)
        if manifest is None:
            return None, why
        if manifest.get("format") != FORMAT:
            return None, "it has format %r, and this version reads format %d" % (manifest.get("format"), FORMAT)
        if manifest.get("id") != name:
            return None, "its manifest is that of %s" % manifest.get("id")
        verification, _why = self._document(path, VERIFIED)
        if verification is not None and verification.get("id") != name:
            verification = None
        return Backup(name, path, manifest, verification), ""

    def _document(self, directory: str, name: str) -> Tuple[Optional[Dict[str, Any]], str]:
        """A signed document, or None and why it cannot be believed. Not one of its bytes may be another."""
        path = os.path.join(directory, name)
        try:
            with open(_open(path), "rb") as stream:
                data = stream.read(_LARGEST_DOCUMENT)
        except FileNotFoundError:
            return None, "it has no %s" % name
        except OSError as error:
            return None, "its %s cannot be read (%s)" % (name, error.strerror)
        try:
            document = json.loads(data.decode("utf-8"))
            is_ours = isinstance(document, dict) and _written(document) == data
        except (ValueError, RecursionError):
            is_ours = False
        if not is_ours:
            return None, "its %s is damaged" % name
        if not self.key.check(document):
            return None, "its %s is not signed with the key %s: it was changed, or is of another store" % (
                name,
                self.key_file,
            )
        if document.get("type") != _TYPES[name]:
            return None, "its %s is no %s" % (name, _TYPES[name])
        return document, ""

    def find(self, wanted: str, kind: str, scope: Optional[Scope] = None) -> Backup:
        """The backup with this id, or for "latest" the newest that is verified as good. Raises NodeopsError."""
        if wanted == LATEST:
            return self.newest_good(self.backups(kind, scope), described(scope) if scope else "kind %s" % kind)
        self._must_be_there()
        if not _ID.match(wanted):
            raise NodeopsError(
                "%r is no id of a backup. %s Give one, such as 20261124T105400Z-%s-0a1b2c, or %s. %s"
                % (wanted, NOTHING_CHANGED, kind, LATEST, self._there_are(kind, scope))
            )
        if _lstat(os.path.join(self.dest, wanted)) is None:
            raise NodeopsError(
                "Backup %s is not in %s. %s %s" % (wanted, self.dest, NOTHING_CHANGED, self._there_are(kind, scope))
            )
        backup, why = self._read(wanted)
        if backup is None:
            raise NodeopsError(
                "Backup %s cannot be trusted: %s. %s %s" % (wanted, why, NOTHING_CHANGED, self._there_are(kind, scope))
            )
        if backup.kind != kind:
            raise NodeopsError(
                "Backup %s is one of kind %s, and %s is needed. %s %s"
                % (wanted, backup.kind, kind, NOTHING_CHANGED, self._there_are(kind, scope))
            )
        if scope is not None and backup.scope != scope:
            raise NodeopsError(
                "Backup %s is of %s, and one of %s is needed. %s %s"
                % (wanted, described(backup.scope), described(scope), NOTHING_CHANGED, self._there_are(kind, scope))
            )
        return backup

    def newest_good(self, backups: List[Backup], of: str) -> Backup:
        """Of some in the order they were made, but for what is imported: the newest of those may be years old.

        ``of`` says in the error what they are of. Raises NodeopsError, which also names those that are imported.
        """
        self._must_be_there()
        own = [backup for backup in backups if not backup.is_imported]
        good = [backup for backup in own if backup.good]
        if good:
            return good[-1]
        imported = [backup.id for backup in backups if backup.is_imported and backup.good][-_SHOWN:]
        ids = ", ".join(reversed(imported))
        advice = " What is imported is never latest; name it by its id: %s." % ids if imported else ""
        if own:
            raise NodeopsError(
                "None of the %d backups of %s in %s is verified as good. %s Verify the newest (%s) with state: "
                "verified, or name one by its id.%s" % (len(own), of, self.dest, NOTHING_CHANGED, own[-1].id, advice)
            )
        broken = self.broken()
        also = "" if not broken else " What is there cannot be trusted: %s." % _listed(broken)
        raise NodeopsError("There is no backup of %s in %s.%s %s%s" % (of, self.dest, also, NOTHING_CHANGED, advice))

    def _must_be_there(self) -> None:
        if not self.exists:
            raise NodeopsError("There is no backup store at %s. %s" % (self.dest, NOTHING_CHANGED))

    def _there_are(self, kind: str, scope: Optional[Scope]) -> str:
        newest = [backup.id for backup in self.backups(kind, scope) if backup.good][-_SHOWN:]
        return "The newest good ones are: %s." % ", ".join(reversed(newest)) if newest else "No good one is there."

    def check_files(self, backup: Backup) -> List[str]:
        """Every problem of its files: missing, too many, size, content, mode, kind. All bytes are read."""
        try:
            problems = _closed(os.lstat(backup.path), "the directory")
            present = set(os.listdir(backup.path))
        except OSError as error:
            return ["the directory cannot be read (%s)" % error.strerror]
        again, why = self._read(backup.id)
        if again is None or again.manifest != backup.manifest:
            problems.append(why or "its manifest is another than before")
        if VERIFIED in present and self._document(backup.path, VERIFIED)[0] is None:
            problems.append(self._document(backup.path, VERIFIED)[1])
        known = {each["name"] for each in backup.manifest["files"]} | {MANIFEST, VERIFIED}
        problems += ["%s does not belong to it" % name for name in sorted(present - known)]
        for name in sorted({MANIFEST, VERIFIED} & present):
            problems += _closed(os.lstat(os.path.join(backup.path, name)), name)
        for each in backup.manifest["files"]:
            problems += _check_file(os.path.join(backup.path, each["name"]), each)
        return problems

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def draft(self, kind: str) -> Iterator[Draft]:
        """A backup that is being written; nothing is left of it unless it is committed. Raises NodeopsError."""
        self._must_be_held()
        draft = Draft(self, kind, now())
        try:
            os.mkdir(draft.directory, 0o700)
        except OSError as error:
            raise _not_written(error) from error
        try:
            _points.reached("store draft made")
            yield draft
        finally:
            shutil.rmtree(draft.directory, ignore_errors=True)

    def next_sequence(self) -> int:
        """A number greater than that of every backup there is or was; remembered."""
        self._must_be_held()
        try:
            with open(_open(self._state("sequence")), "rb") as stream:
                last = int(stream.read(40))
        except (OSError, ValueError):
            last = 0
        number = 1 + max([last, *(backup.sequence for backup in self.backups())])
        _files.write_atomically(self._state("sequence"), b"%d\n" % number)
        return number

    def note_verified(self, backup: Backup, how: str, problems: List[str]) -> Backup:
        """Remember a verification. ``how``: bytes, resurrectable or restored. Raises NodeopsError."""
        self._must_be_held()
        document: Dict[str, Any] = {
            "type": _TYPES[VERIFIED],
            "id": backup.id,
            "at": now().strftime(TIME),
            "how": how,
            "problems": list(problems),
        }
        document[_signing.SIGNATURE] = self.key.sign(document)
        try:
            _files.write_atomically(os.path.join(backup.path, VERIFIED), _written(document))
        except OSError as error:
            raise NodeopsError(
                "The verification of backup %s cannot be noted: %s." % (backup.id, _files.why(error))
            ) from error
        _points.reached("store verification noted")
        return backup._replace(verification=document)

    def remove(self, backup: Backup) -> None:
        """Remove it; from its first moment nobody takes it for a backup. Raises NodeopsError."""
        self._must_be_held()
        leaving = os.path.join(self.dest, _REMOVED + backup.id)
        try:
            os.rename(backup.path, leaving)
            _files.sync_directory(self.dest)
            _points.reached("store removal begun")
            shutil.rmtree(leaving)
        except OSError as error:
            raise NodeopsError("Backup %s could not be removed: %s." % (backup.id, error.strerror)) from error
        _points.reached("store backup removed")
        self._note_removed(backup.id)

    def _note_removed(self, identifier: str) -> None:
        with contextlib.suppress(OSError):  # of a full disk: then it goes here and stays elsewhere
            noted = [*self._removed(), identifier][-_REMEMBERED:]
            _files.write_atomically(self._state("removed"), "".join("%s\n" % name for name in noted).encode())

    def removed(self) -> Set[str]:
        """The ids of the backups that ``remove`` has removed; copies of them elsewhere may go too."""
        return set(self._removed())

    def _removed(self) -> List[str]:
        try:
            with open(_open(self._state("removed")), encoding="ascii") as stream:
                return [name for name in stream.read().split("\n") if _ID.match(name)]
        except (OSError, ValueError):
            return []

    def sweep(self) -> List[str]:
        """Remove what killed runs have left; what was removed. Call it with the lock held."""
        self._must_be_held()
        swept = []
        for name in sorted(os.listdir(self.dest)):
            path = os.path.join(self.dest, name)
            if name.startswith((_PARTIAL, _REMOVED)):
                shutil.rmtree(path, ignore_errors=True)  # who still writes into it is met again the next time
                swept.append(name)
                if name.startswith(_REMOVED):
                    self._note_removed(name[len(_REMOVED) :])
            elif _ID.match(name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(path, _UNFINISHED))
        return swept


class Draft:
    """A backup before it is one. Files may be written into ``directory``, then have to be added."""

    def __init__(self, store: Store, kind: str, created: datetime.datetime) -> None:
        self._store = store
        self._kind = kind
        self._created = created
        self._files: List[Dict[str, Any]] = []
        self.id = "%s-%s-%s" % (created.strftime("%Y%m%dT%H%M%SZ"), kind, secrets.token_hex(3))
        self.directory = os.path.join(store.dest, _PARTIAL + self.id)

    def path(self, name: str) -> str:
        """Where the file ``name`` is to be written."""
        if not _NAME.match(name) or name in (MANIFEST, VERIFIED):
            raise ValueError("%r cannot be the name of a file of a backup" % name)
        return os.path.join(self.directory, name)

    def add(self, name: str, **facts: Any) -> None:
        """A file that stands in ``directory``: made 0600 and durable, and recorded with ``facts``.

        Raises NodeopsError.
        """
        path = self.path(name)
        try:
            handle = _open(path, os.O_RDWR)
            with open(handle, "rb") as stream:
                os.fchmod(handle, 0o600)
                os.fsync(handle)
                size, sha256 = _digest(stream)
        except OSError as error:
            raise _not_written(error) from error
        self._files.append({**facts, "name": name, "size": size, "sha256": sha256})
        _points.reached("store file added")

    def write(self, name: str, data: bytes, **facts: Any) -> None:
        """A file with ``data``, recorded with ``facts``. Raises NodeopsError."""
        try:
            handle = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as stream:
                stream.write(data)
        except OSError as error:
            raise _not_written(error) from error
        self.add(name, **facts)

    def commit(
        self, environment: Optional[str], namespace: Optional[str], tools: Dict[str, Any], content: Dict[str, Any]
    ) -> Backup:
        """Make it a backup, durable and not yet verified. ``tools``: versions by name. Raises NodeopsError.

        ``content`` is what its kind has to say of it, and may hold no secret.
        """
        added = {each["name"] for each in self._files}
        others = set(os.listdir(self.directory)) - added
        if others or len(added) != len(self._files):
            raise RuntimeError("not added, or twice: %s" % (others or added))
        path = os.path.join(self._store.dest, self.id)
        try:
            manifest: Dict[str, Any] = {
                "type": _TYPES[MANIFEST],
                "format": FORMAT,
                "id": self.id,
                "sequence": self._store.next_sequence(),
                "kind": self._kind,
                "created": self._created.strftime(TIME),
                "environment": environment,
                "namespace": namespace,
                "host": socket.gethostname(),
                "tools": tools,
                "files": self._files,
                "content": content,
            }
            manifest[_signing.SIGNATURE] = self._store.key.sign(manifest)
            manifest = json.loads(_written(manifest))  # as it will be read
            _points.reached("store sequence taken")
            _files.write_atomically(os.path.join(self.directory, MANIFEST), _written(manifest))
            _points.reached("store manifest written")
            os.rename(self.directory, path)
            try:
                _files.sync_directory(self._store.dest)
            except OSError:
                os.rename(path, self.directory)
                raise
        except OSError as error:
            raise _not_written(error) from error
        _points.reached("store backup committed")
        return Backup(self.id, path, manifest, None)


def of_imports(scope: Scope) -> Scope:
    """The row in which the imported ones of the same databases are: apart from those that are made by schedule."""
    kind, environment, namespace, databases = scope
    return "%s %s" % (IMPORTED, kind), environment, namespace, databases


def described(scope: Scope) -> str:
    """A scope in words: "postgresql shop, orders in production"."""
    kind, environment, namespace, databases = scope
    words = [kind, ", ".join(databases)] if databases else [kind]
    if namespace is not None:
        words.append("namespace %s" % namespace)
    if environment is not None:
        words.append("in %s" % environment)
    return " ".join(words)


def digest(path: str) -> Tuple[int, str]:
    """(size in bytes, SHA-256) of a regular file. Raises OSError."""
    with open(_open(path), "rb") as stream:
        return _digest(stream)


def _digest(stream: Any) -> Tuple[int, str]:
    size = 0
    sha256 = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        size += len(chunk)
        sha256.update(chunk)
    return size, sha256.hexdigest()


def _open(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file: no link is followed, no pipe waited for. Raises OSError."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(22, "it is no regular file", path)
    return handle


def _lstat(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _check_file(path: str, recorded: Dict[str, Any]) -> List[str]:
    name = recorded["name"]
    found = _lstat(path)
    if found is None:
        return ["%s is missing" % name]
    problems = _closed(found, name)
    if not stat.S_ISREG(found.st_mode):
        return [*problems, "%s is no regular file" % name]
    try:
        size, sha256 = digest(path)
    except OSError as error:
        return [*problems, "%s cannot be read (%s)" % (name, error.strerror)]
    if size != recorded["size"]:
        problems.append("%s has %d bytes and was written with %d" % (name, size, recorded["size"]))
    elif sha256 != recorded["sha256"]:
        problems.append("%s is damaged: its SHA-256 is another" % name)
    return problems


def _closed(found: os.stat_result, name: str) -> List[str]:
    """The problems of something others could read or change."""
    if stat.S_ISLNK(found.st_mode):
        return ["%s is a symbolic link" % name]
    if _trusted_path.is_foreign(found):
        return ["%s belongs to %s" % (name, _trusted_path.name_of(found.st_uid))]
    mode = stat.S_IMODE(found.st_mode)
    return ["%s is open to other users (mode %04o)" % (name, mode)] if mode & 0o077 else []


def _written(document: Dict[str, Any]) -> bytes:
    """A document as it stands on disk: for people too, and only one way of writing it."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _listed(broken: List[Tuple[str, str]]) -> str:
    more = "" if len(broken) <= _SHOWN else ", and %d more" % (len(broken) - _SHOWN)
    return ", ".join("%s (%s)" % each for each in broken[:_SHOWN]) + more


def _not_written(error: OSError) -> NodeopsError:
    return NodeopsError("The backup was not written: %s. Nothing is left of it." % _files.why(error))
