# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The source of a release: find its revision, read single files of it, fetch it into a directory."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _directory, _git
from ansible_collections.nodeops.pm2.plugins.module_utils.source._git_command import Access, Git, GitFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import (
    MAX_TEXT,
    Workspace,
    explained,
    workspace,
)

DIRECTORY, ARCHIVE, GIT = "directory", "archive", "git"
CONTROLLER, HOST = "controller", "host"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DEFAULT_TIMEOUT = 300.0  # seconds


class Source(NamedTuple):
    """Where the content of a release comes from. Made by ``source_of``."""

    type: str
    """directory, archive or git."""
    location: str
    """controller or host; host for git and for a URL, which the host itself fetches."""
    address: str
    """A path, a URL or a repository. It may hold a password, so messages use ``_address.shown(address)``."""
    version: str = "HEAD"
    """git: a branch, a tag or a commit."""
    sha256: Optional[str] = None
    """archive: the SHA-256 that it must have."""
    strip: int = 0
    """archive: how many leading directories of its names are left off."""
    exclude: Sequence[str] = ()
    """directory: patterns of what is left out, see ``_directory.excluded``."""
    key_file: Optional[str] = None
    """git over ssh: a file on the host."""
    key: Optional[str] = None
    """git over ssh: the key itself."""
    known_hosts: Optional[str] = None
    """git over ssh: text of a known_hosts file. None: the key of a new host is accepted and kept, a changed one
    refused.
    """
    submodules: bool = True
    timeout: float = _DEFAULT_TIMEOUT
    """Seconds for one exchange with a repository, or without a byte in a download."""
    revision: Optional[str] = None
    """directory of the controller: the revision that the controller has computed."""
    archive: Optional[str] = None
    """controller: the uploaded file on the host; None if it was not uploaded (yet)."""

    def __repr__(self) -> str:
        secret = {"address": _address.shown(self.address), "key": self.key and MASK}
        return "Source(%s)" % ", ".join("%s=%r" % item for item in {**self._asdict(), **secret}.items())


class Inspection(NamedTuple):
    """What a source holds now."""

    revision: str
    """git: the commit; archive: its SHA-256; directory: the hash of its content."""
    known: bool
    """Whether ``read_file`` works. False: the content is not on this host yet."""


def source_of(options: Dict[str, Any]) -> Source:
    """The module's option ``source``, checked. Raises NodeopsError. Nothing is changed."""
    given = {name: value for name, value in options.items() if value not in (None, "", [])}
    kind, location, address = given.get("type"), given.get("location", CONTROLLER), given.get("address")
    if kind not in (DIRECTORY, ARCHIVE, GIT):
        raise _refused("has the unknown type %r (directory, archive, git)" % kind)
    if location not in (CONTROLLER, HOST):
        raise _refused("has the unknown location %r (controller, host)" % location)
    if not isinstance(address, str):
        raise _refused("has no address")
    if kind == GIT or (kind == ARCHIVE and _address.is_url(address)):
        location = HOST
    source = Source(
        type=kind,
        location=location,
        address=address,
        version=str(given.get("version", "HEAD")),
        sha256=str(given["sha256"]).lower() if "sha256" in given else None,
        strip=int(given.get("strip", 0)),
        exclude=tuple(given.get("exclude", ())),
        key_file=given.get("key_file"),
        key=given.get("key"),
        known_hosts=given.get("known_hosts"),
        submodules=given.get("submodules", True),
        timeout=float(given.get("timeout", _DEFAULT_TIMEOUT)),
        revision=given.get("revision"),
        archive=given.get("archive"),
    )
    if source.timeout <= 0:
        raise _refused("has the timeout %g; it has to be more than 0 seconds" % source.timeout)
    if source.sha256 is not None and kind != ARCHIVE:
        raise _refused("is a %s; sha256 is for archives" % kind)
    if source.strip and kind != ARCHIVE:
        raise _refused("is a %s; strip is for archives" % kind)
    {GIT: _check_git, ARCHIVE: _check_archive, DIRECTORY: _check_directory}[kind](source)
    return source


def _refused(why: str) -> NodeopsError:
    return NodeopsError("The source %s. Nothing was changed." % why)


def _check_git(source: Source) -> None:
    _address.check_repository(source.address)
    _git.check_version(source.version)
    if source.key and source.key_file:
        raise _refused("has both key and key_file")
    if source.key and "PRIVATE KEY-----" not in source.key:
        raise _refused("has a key that is not a private key (it should begin with -----BEGIN ... PRIVATE KEY-----)")
    if source.key_file:
        _address.check_path(source.key_file, "The key file")


def _check_archive(source: Source) -> None:
    if source.sha256 is None:
        raise _refused("is an archive without sha256: give the SHA-256 of the file (sha256sum <file>)")
    if not _SHA256.match(source.sha256):
        raise _refused("has the sha256 %r, which is not 64 hexadecimal digits" % source.sha256)
    if source.strip < 0:
        raise _refused("has strip %d, less than 0" % source.strip)
    if _address.is_url(source.address):
        _address.check_url(source.address)
    elif _address.scheme_of(source.address):
        raise _refused("is an archive at %s: it can be a path or an http or https URL" % _address.shown(source.address))
    else:
        _address.check_path(source.address, "The archive")


def _check_directory(source: Source) -> None:
    _address.check_path(source.address, "The source directory")
    if source.location == CONTROLLER and not (source.revision and _SHA256.match(source.revision)):
        raise _refused("is a directory of the controller without the revision that the controller computes")


def inspect(source: Source, private: str, check_mode: bool, redactor: Redactor) -> Inspection:
    """Find the revision of the source. For git, fetch it into the mirror in ``private``.

    In check mode nothing is written, and ``private`` need not exist. A commit that cannot be resolved without fetching
    (an abbreviated one that is not a tip) is then returned as it was given. What killed runs have left in ``private``
    is removed. Raises NodeopsError. The release is not changed.
    """
    _address.hide(source.address, redactor)
    with _explaining("The source %s cannot be read" % _address.shown(source.address), private):
        if source.type == GIT:
            with workspace(private, check_mode) as place:
                return _inspect_git(source, place, check_mode, redactor)
        if not check_mode:
            with workspace(private, check_mode):
                pass  # this removes what killed runs have left
        if source.type == ARCHIVE:
            return _inspect_archive(source)
        return _inspect_directory(source, private)


def _inspect_git(source: Source, place: Workspace, check_mode: bool, redactor: Redactor) -> Inspection:
    git = _git_of(source, place, redactor)
    if check_mode:
        return Inspection(*_git.resolve_remotely(git, source.version))
    return Inspection(_git.ensure(git, source.version), True)


def _inspect_archive(source: Source) -> Inspection:
    path = _archive_path(source)
    if path is None:
        return Inspection(_required(source.sha256), False)
    from ansible_collections.nodeops.pm2.plugins.module_utils.source import _archive

    with _archive.opened(path, source.sha256, _address.shown(source.address)):
        return Inspection(_required(source.sha256), True)


def _inspect_directory(source: Source, private: str) -> Inspection:
    if source.location == CONTROLLER:
        return Inspection(_required(source.revision), source.archive is not None)
    if not os.path.isdir(source.address):
        raise _refused("directory %s does not exist on this host or is not a directory" % source.address)
    _check_not_inside(source, private)
    return Inspection(_directory.read(source.address, source.exclude).revision, True)


def _check_not_inside(source: Source, private: str) -> None:
    """Raises NodeopsError for a directory that holds the releases: it would be copied into itself."""
    root, inner = os.path.realpath(source.address), os.path.realpath(os.path.dirname(private))
    if inner != root and not inner.startswith(root.rstrip("/") + "/"):
        return
    parts = [] if inner == root else os.path.relpath(inner, root).split("/")
    if not any(_directory.excluded("/".join(parts[: length + 1]), source.exclude) for length in range(len(parts))):
        raise _refused(
            "directory %s holds the directory of the releases (%s). Exclude or move that" % (source.address, inner)
        )


def read_file(source: Source, inspection: Inspection, private: str, path: str) -> Optional[str]:
    """The text of one file of the source, before it is fetched; at most 1 MiB.

    ``path`` is relative to the release. None if the source has no such file, or is not on this host
    (``inspection.known`` is False). Raises NodeopsError.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise NodeopsError(
            "%r is not a path in the source, so it was not read. Give a relative path without '..'." % path
        )
    path = os.path.normpath(path)
    shown = _address.shown(source.address)
    with _explaining("%s in the source %s cannot be read" % (path, shown), private):
        if source.type == GIT:
            return _text_in_git(source, inspection, private, path)
        archive = _archive_path(source)
        if archive is not None:
            from ansible_collections.nodeops.pm2.plugins.module_utils.source import _archive

            with _archive.opened(archive, None, shown) as stream:
                return _archive.text(stream, path, shown, source.strip)
        return _text_in_directory(source, path) if (source.type, source.location) == (DIRECTORY, HOST) else None


def _text_in_git(source: Source, inspection: Inspection, private: str, path: str) -> Optional[str]:
    with workspace(private, True) as place:
        git = _git_of(source._replace(key=None, key_file=None), place, Redactor())
        try:
            content = _git.read_file(git, inspection.revision, path)
        except GitFailed as error:
            raise NodeopsError(
                "%s cannot be read from %s, which may be damaged (git said: %s). Nothing was deployed. Remove it and "
                "run again." % (path, os.path.join(private, _git.MIRROR), error.stderr)
            ) from error
    return None if content is None else content.decode("utf-8", "replace")


def _text_in_directory(source: Source, path: str) -> Optional[str]:
    parts = path.split("/")
    if any(_directory.excluded("/".join(parts[: length + 1]), source.exclude) for length in range(len(parts))):
        return None
    full = os.path.join(source.address, path)
    if not os.path.isfile(full):
        return None
    if os.path.getsize(full) > MAX_TEXT:
        raise NodeopsError("%s is larger than %d bytes, so it was not read. Nothing was deployed." % (full, MAX_TEXT))
    with open(full, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def fetch(source: Source, inspection: Inspection, private: str, dest: str, redactor: Redactor) -> None:
    """Fill the empty directory ``dest`` with the source, which must still have the revision of ``inspection``.

    Files are 0755 or 0644, owned by the user of this process. Raises NodeopsError. Then the caller has to remove what
    is in ``dest``; nothing outside of it was changed.
    """
    _address.hide(source.address, redactor)
    shown = _address.shown(source.address)
    with _explaining("The source %s cannot be fetched" % shown, dest):
        if os.listdir(dest):
            raise NodeopsError("The directory %s for the source is not empty. Nothing was fetched." % dest)
        if source.type == GIT:
            with workspace(private, False) as place:
                _git.export(_git_of(source, place, redactor), inspection.revision, dest, source.submodules)
        elif source.type == ARCHIVE:
            _fetch_archive(source, private, dest, shown)
        elif source.location == HOST:
            _check_not_inside(source, private)
            _directory.copy(source.address, source.exclude, dest, inspection.revision)
        else:
            _fetch_packed(source, inspection, dest, shown)


def _fetch_archive(source: Source, private: str, dest: str, shown: str) -> None:
    from ansible_collections.nodeops.pm2.plugins.module_utils.source import _archive

    sha256 = _required(source.sha256)
    if _address.is_url(source.address):
        from ansible_collections.nodeops.pm2.plugins.module_utils.source._download import download

        with workspace(private, False) as place:
            path = os.path.join(place.directory, "archive")
            _archive.expect(sha256, download(source.address, path, source.timeout), shown)
            with _archive.opened(path, None, shown) as stream:
                _archive.unpack(stream, dest, shown, source.strip)
        return
    with _archive.opened(_uploaded(source), sha256, shown) as stream:
        _archive.unpack(stream, dest, shown, source.strip)


def _fetch_packed(source: Source, inspection: Inspection, dest: str, shown: str) -> None:
    """Unpack a directory of the controller, which ``_directory.pack`` packed there."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.source import _archive

    with _archive.opened(_uploaded(source), None, shown) as stream:
        found = _directory.revision_of(_archive.unpack(stream, dest, shown, own=True))
    if found != inspection.revision:
        raise NodeopsError(
            "What was uploaded from %s is revision %s, not %s. Nothing was deployed. Run again when nothing writes to "
            "the source." % (shown, found[:12], inspection.revision[:12])
        )


def _uploaded(source: Source) -> str:
    path = _archive_path(source)
    if path is None:
        raise NodeopsError(
            "The source %s was not uploaded to this host. Nothing was deployed." % _address.shown(source.address)
        )
    return path


def _archive_path(source: Source) -> Optional[str]:
    """The file on this host to unpack; None if there is none (yet)."""
    if source.location == CONTROLLER:
        return source.archive
    return None if source.type != ARCHIVE or _address.is_url(source.address) else source.address


def _required(value: Optional[str]) -> str:
    if value is None:
        raise ValueError("checked by source_of")
    return value


def _git_of(source: Source, place: Workspace, redactor: Redactor) -> Git:
    access = Access(source.address, source.key_file, source.key, source.known_hosts, source.timeout)
    return Git(place, access, redactor)


@contextlib.contextmanager
def _explaining(what: str, path: str) -> Iterator[None]:
    """Turn errors of the system and of git into errors for users. ``what`` failed; ``path`` is on the disk that may be
    full.
    """
    try:
        yield
    except OSError as error:
        raise explained(error, what, path) from error
    except GitFailed as error:
        raise NodeopsError("%s: git failed: %s. Nothing was deployed." % (what, error.stderr)) from error


__all__ = ["Inspection", "Source", "fetch", "inspect", "read_file", "source_of"]
