# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Name the content of a source directory, and pack it into a tar file.

The name (the revision) says what a deploy would bring: paths, content, executable bits and link targets. Owners,
times and other permission bits are not part of it, so two checkouts of one commit have one revision.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import stat
import tarfile
from typing import BinaryIO, Iterator, List, NamedTuple, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error

CHUNK = 1 << 20  # bytes


class Summary(NamedTuple):
    """What was read."""

    revision: str  # sha256, hexadecimal
    files: int
    size: int  # bytes


class _HashingReader(io.RawIOBase):
    """Hashes a file while it is copied: what is packed and what is named cannot differ."""

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

    A pattern without a slash is compared with the last part of the path, at any depth; one with a slash with the whole
    path (a leading slash only anchors it). ``*`` also matches slashes.
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
    """Name the content of ``root``. With ``revision`` raises Pm2Error where the content is another one."""
    return _expect(root, _scan(root, patterns, None), revision)


def _expect(root: str, found: Summary, revision: Optional[str]) -> Summary:
    if revision and found.revision != revision:
        raise Pm2Error(
            "%s holds revision %s, not %s: it changed meanwhile. Run again when nothing writes to it."
            % (root, found.revision[:12], revision[:12])
        )
    return found


def _scan(root: str, patterns: Sequence[str], archive: Optional[tarfile.TarFile]) -> Summary:
    """Name the content, and with ``archive`` pack it, in one pass.

    Raises Pm2Error for a socket, device or pipe (a release holds only files, directories and links), for an empty
    source, and for a file that changed its length while it was packed.
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
            _add(archive, info)
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            _add(archive, info)
        elif stat.S_ISREG(status.st_mode):
            info.size = status.st_size
            digest = _add_file(archive, info, full)
            files, size = files + 1, size + info.size
        else:
            raise Pm2Error(
                "%s is neither a file, a directory nor a link, and cannot be part of a release. Leave it out with "
                "exclude." % full
            )
        line: List[object] = [path, info.type.decode(), bool(info.mode & 0o100), digest or info.linkname]
        content.update(json.dumps(line).encode() + b"\n")
    if not files:
        raise Pm2Error("%s holds no files to deploy (after exclude)." % root)
    return Summary(content.hexdigest(), files, size)


def _header(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode = 0o755 if status.st_mode & 0o100 or stat.S_ISDIR(status.st_mode) else 0o644
    info.mtime = int(status.st_mtime)
    return info


def _add(archive: Optional[tarfile.TarFile], info: tarfile.TarInfo) -> None:
    if archive:
        archive.addfile(info)


def _add_file(archive: Optional[tarfile.TarFile], info: tarfile.TarInfo, full: str) -> str:
    with open(full, "rb") as stream:
        reader = _HashingReader(stream)
        if archive:
            try:
                archive.addfile(info, reader)
            except OSError as error:
                if error.errno is None:  # tarfile's own "unexpected end of data"
                    raise _changed(full) from error
                raise
            if reader.read(1):
                raise _changed(full)
        else:
            while reader.read(CHUNK):
                pass
    return reader.sha256.hexdigest()


def _changed(full: str) -> Pm2Error:
    return Pm2Error("%s changed while it was packed. Run again when nothing writes to the source." % full)


def pack(root: str, patterns: Sequence[str], dest: str, revision: Optional[str] = None) -> Summary:
    """Pack ``root`` into the gzipped tar file ``dest`` (mode 0600, written beside and renamed).

    Raises what ``read`` raises, and then leaves ``dest`` as it was.
    """
    partial = dest + ".partial"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
                summary = _expect(root, _scan(root, patterns, archive), revision)
        os.rename(partial, dest)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
    return summary
