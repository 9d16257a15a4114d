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
import os
import shutil
import stat
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _directory, _signing, _stored_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store._directory import NOTHING_CHANGED, STATE
from ansible_collections.nodeops.pm2.plugins.module_utils.store._documents import (
    TYPES,
    access_problems,
    check_file,
    lstat,
    open_regular,
    read_document,
    written,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._draft import PARTIAL, Draft, not_written
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import (
    FORMAT,
    ID,
    LATEST,
    MANIFEST,
    TIME,
    VERIFIED,
    Backup,
    Scope,
    described,
)

_REMOVED = ".removed-"
_UNFINISHED = ".%s.new" % VERIFIED
_OF_THE_DISK = "lost+found"
_SHOWN = 5
_REMEMBERED = 10000
"""Ids of backups that were removed."""


class Store:
    """The backups below ``dest``, an absolute path. ``key_file``: its key, by default ``<dest>.key``.

    ``create`` makes the directory and the key if they are missing; in check mode it only finds out whether it could.
    Without it a store may be missing: then ``exists`` is false, and there are no backups. Raises NodeopsError if
    another user could replace the directory or the key.
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
                "The backup store %s cannot have its key at %s. %s Keep the key outside of the store: otherwise a "
                "user who can change a copy of the store can sign it too." % (dest, self.key_file, NOTHING_CHANGED)
            )
        self.exists = _directory.exists(self.dest)
        if create:
            self._check_creation()
        if create and not check_mode:
            _directory.create(self.dest)
            self._key = _signing.ensure(self.key_file)
            self.exists = _directory.exists(self.dest)

    def _check_creation(self) -> None:
        """Raises NodeopsError if there is something that is not a store and cannot become one."""
        if os.path.lexists(self.key_file):
            self._key = _signing.load(self.key_file)
        elif any(map(ID.match, self._names())):
            raise NodeopsError(
                "The backup store %s has backups, but its key %s is missing. Nothing was backed up. Put the key "
                "back: with a new one, the backups of this store could not be told from forged ones. If the key is "
                "lost, move the store away and begin a new one." % (self.dest, self.key_file)
            )
        self._must_be_ours("Nothing was backed up", may_be_damaged=False)

    def _must_be_ours(self, what: str, may_be_damaged: bool) -> None:
        """Raises NodeopsError for a directory that has something in it and is not a store.

        A copy of a store may lack the hidden directory: then it has backups and nothing else. ``may_be_damaged``: some
        of them may be, because the others can be restored.
        """
        if not self.exists or STATE in os.listdir(self.dest):
            return
        names = sorted(set(os.listdir(self.dest)) - {_OF_THE_DISK})
        others = [name for name in names if not ID.match(name)]
        if others:
            raise NodeopsError(
                "The directory %s is not a backup store and not empty (%s). %s. Give the store a directory of its own."
                % (self.dest, ", ".join(others[:_SHOWN]), what)
            )
        broken = self.broken()
        if broken and not (may_be_damaged and len(broken) < len(names)):
            raise NodeopsError(
                "The directory %s has no %s, like a copy of a store that was fetched back, and some of its backups "
                "cannot be trusted: %s. %s. Fetch these again, or move them away."
                % (self.dest, STATE, _listed(broken), what)
            )

    @property
    def key(self) -> _signing.Key:
        """Raises NodeopsError if there is none that can be trusted."""
        if self._key is None:
            self._key = _signing.load(self.key_file)
        return self._key

    def _state(self, name: str) -> str:
        return os.path.join(self.dest, STATE, name)

    def state_path(self, name: str) -> str:
        """The path for something that belongs to the store and is not a backup, such as the journal of a restore."""
        return self._state(name)

    @contextlib.contextmanager
    def lock(self, what: str, timeout: float) -> Iterator[None]:
        """Hold the store, waiting up to ``timeout`` seconds. A caller that holds it may lock it again.

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
        """The authentic backups in the order in which they were made, whatever the clock said."""
        found = []
        for name in self._names():
            backup, _why = self._read(name)
            if backup and kind in (None, backup.kind) and scope in (None, backup.scope):
                found.append(backup)
        return sorted(found, key=lambda backup: (backup.sequence, backup.id))

    def broken(self) -> List[Tuple[str, str]]:
        """(name, why) of everything in the store that is not an authentic backup."""
        return [(name, why) for name in self._names() for backup, why in [self._read(name)] if backup is None]

    def _names(self) -> List[str]:
        if not self.exists:
            return []
        names = os.listdir(self.dest)
        ours = [name for name in names if name == STATE or name.startswith((PARTIAL, _REMOVED))]
        return sorted(set(names) - set(ours) - {_OF_THE_DISK})

    def _read(self, name: str) -> Tuple[Optional[Backup], str]:
        path = os.path.join(self.dest, name)
        if not ID.match(name):
            return None, "its name is not that of a backup"
        found = lstat(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return None, "it is not a directory"
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
        return read_document(directory, name, self.key, self.key_file)

    def find(self, wanted: str, kind: str, scope: Optional[Scope] = None) -> Backup:
        """The backup with this id; for "latest" the newest that is verified as good. Raises NodeopsError."""
        if wanted == LATEST:
            return self.newest_good(self.backups(kind, scope), described(scope) if scope else "kind %s" % kind)
        self._must_be_there()
        if not ID.match(wanted):
            raise NodeopsError(
                "%r is not the id of a backup. %s Give one, such as 20261124T105400Z-%s-0a1b2c, or %s. %s"
                % (wanted, NOTHING_CHANGED, kind, LATEST, self._there_are(kind, scope))
            )
        if lstat(os.path.join(self.dest, wanted)) is None:
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
        """The newest good one of ``backups``, which are in the order in which they were made.

        An imported one is never the newest: its data may be years old. ``of`` says in the error what they are of.
        Raises NodeopsError, which also names the imported ones.
        """
        self._must_be_there()
        own = [backup for backup in backups if not backup.is_imported]
        good = [backup for backup in own if backup.good]
        if good:
            return good[-1]
        imported = [backup.id for backup in backups if backup.is_imported and backup.good][-_SHOWN:]
        ids = ", ".join(reversed(imported))
        advice = " An imported backup is never latest. Name it by its id: %s." % ids if imported else ""
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
        """Every problem of its files: missing or unexpected ones, size, content, mode, type. All bytes are read."""
        try:
            problems = access_problems(os.lstat(backup.path), "the directory")
            present = set(os.listdir(backup.path))
        except OSError as error:
            return ["the directory cannot be read (%s)" % error.strerror]
        again, why = self._read(backup.id)
        if again is None or again.manifest != backup.manifest:
            problems.append(why or "its manifest has changed since it was read")
        if VERIFIED in present and self._document(backup.path, VERIFIED)[0] is None:
            problems.append(self._document(backup.path, VERIFIED)[1])
        known = {each["name"] for each in backup.manifest["files"]} | {MANIFEST, VERIFIED}
        problems += ["%s does not belong to it" % name for name in sorted(present - known)]
        for name in sorted({MANIFEST, VERIFIED} & present):
            problems += access_problems(os.lstat(os.path.join(backup.path, name)), name)
        for each in backup.manifest["files"]:
            problems += check_file(os.path.join(backup.path, each["name"]), each)
        return problems

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def draft(self, kind: str) -> Iterator[Draft]:
        """A backup to be written. Nothing is left of it unless it is committed. Raises NodeopsError."""
        self._must_be_held()
        draft = Draft(self.dest, self.key, self.next_sequence, kind, _stored_backup.now())
        try:
            os.mkdir(draft.directory, 0o700)
        except OSError as error:
            raise not_written(error) from error
        try:
            _points.reached("store draft made")
            yield draft
        finally:
            shutil.rmtree(draft.directory, ignore_errors=True)

    def next_sequence(self) -> int:
        """A number greater than that of every backup there is or was. It is written down."""
        self._must_be_held()
        try:
            with open(open_regular(self._state("sequence")), "rb") as stream:
                last = int(stream.read(40))
        except (OSError, ValueError):
            last = 0
        number = 1 + max([last, *(backup.sequence for backup in self.backups())])
        _files.write_atomically(self._state("sequence"), b"%d\n" % number)
        return number

    def note_verified(self, backup: Backup, how: str, problems: List[str]) -> Backup:
        """Write down a verification. ``how``: bytes, resurrectable or restored. Raises NodeopsError."""
        self._must_be_held()
        document: Dict[str, Any] = {
            "type": TYPES[VERIFIED],
            "id": backup.id,
            "at": _stored_backup.now().strftime(TIME),
            "how": how,
            "problems": list(problems),
        }
        document[_signing.SIGNATURE] = self.key.sign(document)
        try:
            _files.write_atomically(os.path.join(backup.path, VERIFIED), written(document))
        except OSError as error:
            raise NodeopsError(
                "The verification of backup %s cannot be noted: %s." % (backup.id, _files.why(error))
            ) from error
        _points.reached("store verification noted")
        return backup._replace(verification=document)

    def remove(self, backup: Backup) -> None:
        """Remove it. While it is removed it already counts as gone. Raises NodeopsError."""
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
        with contextlib.suppress(OSError):  # the disk is full: then only its copies elsewhere stay
            noted = [*self._removed(), identifier][-_REMEMBERED:]
            _files.write_atomically(self._state("removed"), "".join("%s\n" % name for name in noted).encode())

    def removed(self) -> Set[str]:
        """The ids of the backups that ``remove`` has removed. Their copies elsewhere may be removed too."""
        return set(self._removed())

    def _removed(self) -> List[str]:
        try:
            with open(open_regular(self._state("removed")), encoding="ascii") as stream:
                return [name for name in stream.read().split("\n") if ID.match(name)]
        except (OSError, ValueError):
            return []

    def sweep(self) -> List[str]:
        """Remove what killed runs have left. Returns what was removed. Call it with the lock held."""
        self._must_be_held()
        swept = []
        for name in sorted(os.listdir(self.dest)):
            path = os.path.join(self.dest, name)
            if name.startswith((PARTIAL, _REMOVED)):
                shutil.rmtree(path, ignore_errors=True)  # if a process still writes into it, the next run removes it
                swept.append(name)
                if name.startswith(_REMOVED):
                    self._note_removed(name[len(_REMOVED) :])
            elif ID.match(name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(path, _UNFINISHED))
        return swept


def _listed(broken: List[Tuple[str, str]]) -> str:
    more = "" if len(broken) <= _SHOWN else ", and %d more" % (len(broken) - _SHOWN)
    return ", ".join("%s (%s)" % each for each in broken[:_SHOWN]) + more
