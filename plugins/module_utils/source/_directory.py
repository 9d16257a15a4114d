# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Compute the revision of a source directory, pack the directory into a tar file, or copy it.

The revision is a hash of what a deploy would use: paths, content, executable bits and link targets. Owners, times and
other permission bits are not part of it, so two checkouts of one commit have the same revision.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import stat
import tarfile
from typing import BinaryIO, Iterator, NamedTuple, Optional, Protocol, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

CHUNK = 1 << 20  # bytes


class Summary(NamedTuple):
    """What was read."""

    revision: str  # sha256, hexadecimal
    files: int
    size: int  # bytes


class Line(NamedTuple):
    """What goes into the revision for one path."""

    path: str  # relative, without a slash at its ends
    kind: str  # as in a tar header: "0" file, "2" link, "5" directory
    executable: bool
    content: str  # sha256 of a file, target of a link, empty for a directory

    def encoded(self) -> bytes:
        """The bytes that are hashed."""
        return json.dumps(list(self)).encode() + b"\n"


def revision_of(lines: Sequence[Line]) -> str:
    """The revision of a directory that holds ``lines``, which may be in any order."""
    content = hashlib.sha256()
    for line in sorted(lines, key=lambda line: line.path.split("/")):
        content.update(line.encoded())
    return content.hexdigest()


class _Sink(Protocol):
    """Gets what is read: ignores it, packs it into a tar file, or copies it to another directory."""

    def add(self, info: tarfile.TarInfo) -> None:
        """Take a directory or a link."""

    def add_file(self, info: tarfile.TarInfo, reader: _HashingReader) -> None:
        """Take a file. Raises _Changed if ``reader`` has less than ``info`` says. The caller checks if it has more."""


class _Changed(Exception):
    """A file ended before its length."""


class _HashingReader(io.RawIOBase):
    """Hashes a file while it is copied, so that revision and copy cannot differ."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size``."""
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path relative to the source directory is left out.

    A pattern without a slash is compared with the last part of the path, at any depth. A pattern with a slash is
    compared with the whole path; a leading slash only anchors it. ``*`` also matches slashes.
    """
    for pattern in patterns:
        subject = path if "/" in pattern else os.path.basename(path)
        if fnmatch.fnmatchcase(subject, pattern.strip("/")):
            return True
    return False


def paths(root: str, patterns: Sequence[str]) -> Iterator[str]:
    """Every path below ``root`` that is not excluded, relative to it, parents first, in one fixed order."""

    def walk(directory: str) -> Iterator[str]:
        for name in sorted(os.listdir(os.path.join(root, directory))):
            path = os.path.join(directory, name)
            if excluded(path, patterns):
                continue
            yield path
            full = os.path.join(root, path)
            if os.path.isdir(full) and not os.path.islink(full):
                yield from walk(path)

    return walk("")


def read(root: str, patterns: Sequence[str], revision: Optional[str] = None) -> Summary:
    """The revision of ``root``. Raises NodeopsError if ``revision`` is given and differs."""
    return _expect(root, _scan(root, patterns, _Nowhere()), revision)


def _expect(root: str, found: Summary, revision: Optional[str]) -> Summary:
    if revision and found.revision != revision:
        raise NodeopsError(
            "%s holds revision %s, not %s: it changed meanwhile. Nothing was deployed. Run again when nothing writes "
            "to it." % (root, found.revision[:12], revision[:12])
        )
    return found


def _scan(root: str, patterns: Sequence[str], sink: _Sink) -> Summary:
    """Compute the revision, and give the content to ``sink``, in one pass.

    Raises NodeopsError for a socket, device or pipe (a release holds only files, directories and links), for an empty
    source, and for a file whose length changed while it was read.
    """
    content = hashlib.sha256()
    files = size = 0
    for path in paths(root, patterns):
        full = os.path.join(root, path)
        status = os.lstat(full)
        info = _header(path, status)
        digest: Optional[str] = None
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(full)
            sink.add(info)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            sink.add(info)
        elif stat.S_ISREG(status.st_mode):
            info.size = status.st_size
            digest = _read_file(sink, info, full)
            files, size = files + 1, size + info.size
        else:
            raise NodeopsError(
                "%s is not a file, directory or link, so it cannot be part of a release. Nothing was deployed. Leave "
                "it out with exclude." % full
            )
        content.update(Line(path, info.type.decode(), bool(info.mode & 0o100), digest or info.linkname).encoded())
    if not files:
        raise NodeopsError(
            "%s holds no files to deploy (after exclude). Nothing was deployed. Correct address or exclude." % root
        )
    return Summary(content.hexdigest(), files, size)


def _header(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode = 0o755 if status.st_mode & 0o100 or stat.S_ISDIR(status.st_mode) else 0o644
    info.mtime = int(status.st_mtime)
    return info


def _read_file(sink: _Sink, info: tarfile.TarInfo, full: str) -> str:
    with open(full, "rb") as stream:
        reader = _HashingReader(stream)
        try:
            sink.add_file(info, reader)
        except _Changed as error:
            raise _changed(full) from error
        if reader.read(1):
            raise _changed(full)
    return reader.sha256.hexdigest()


def _changed(full: str) -> NodeopsError:
    return NodeopsError(
        "%s changed while it was read. Nothing was deployed. Run again when nothing writes to the source." % full
    )


class _Nowhere:
    """Ignores what it gets: only the revision is computed."""

    def add(self, info: tarfile.TarInfo) -> None:
        """Nothing to do."""

    def add_file(self, info: tarfile.TarInfo, reader: _HashingReader) -> None:
        """Read the file to its end."""
        while reader.read(CHUNK):
            pass


class _Archive:
    """Packs into a tar file."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, info: tarfile.TarInfo) -> None:
        """Write the header."""
        self._archive.addfile(info)

    def add_file(self, info: tarfile.TarInfo, reader: _HashingReader) -> None:
        """Write header and content."""
        try:
            self._archive.addfile(info, reader)
        except OSError as error:
            if error.errno is None:  # tarfile's own "unexpected end of data"
                raise _Changed from error
            raise


class _Copy:
    """Copies into a directory, with plain modes and the times of the source."""

    def __init__(self, dest: str) -> None:
        self._dest = dest

    def add(self, info: tarfile.TarInfo) -> None:
        """Make the directory or the link."""
        full = os.path.join(self._dest, info.name)
        if info.issym():
            os.symlink(info.linkname, full)
        else:
            os.mkdir(full)
            os.chmod(full, info.mode)

    def add_file(self, info: tarfile.TarInfo, reader: _HashingReader) -> None:
        """Write as many bytes as the header says."""
        full = os.path.join(self._dest, info.name)
        left = info.size
        with open(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            while left:
                data = reader.read(min(left, CHUNK))
                if not data:
                    raise _Changed
                stream.write(data)
                left -= len(data)
            stream.flush()
            os.fchmod(stream.fileno(), info.mode)
            os.utime(stream.fileno(), (info.mtime, info.mtime))


def pack(root: str, patterns: Sequence[str], dest: str, revision: Optional[str] = None) -> Summary:
    """Pack ``root`` into the gzipped tar file ``dest`` (mode 0600, written under another name and renamed).

    Raises what ``read`` raises, and then leaves ``dest`` as it was.
    """
    partial = dest + ".partial"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
                summary = _expect(root, _scan(root, patterns, _Archive(archive)), revision)
        os.rename(partial, dest)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
    return summary


def copy(root: str, patterns: Sequence[str], dest: str, revision: Optional[str] = None) -> Summary:
    """Copy ``root`` into the empty directory ``dest``. Links stay links, modes become 0755 or 0644.

    Raises what ``read`` raises, and then leaves in ``dest`` what was copied so far.
    """
    return _expect(root, _scan(root, patterns, _Copy(dest)), revision)
