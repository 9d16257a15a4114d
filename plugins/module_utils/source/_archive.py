# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Read archives: tar (plain, gzip, bzip2, xz) and zip, recognised by their content. Only _unpack writes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import stat
import tarfile
import time
import zipfile
from typing import IO, Any, Callable, Iterator, List, NamedTuple, Optional, cast

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source._directory import CHUNK, Line
from ansible_collections.nodeops.pm2.plugins.module_utils.source._unpack import (
    DIRECTORY,
    FILE,
    HARD_LINK,
    LINK,
    Entry,
    Tree,
    parts_of,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import MAX_TEXT, disk_full, free

_MAX_TARGET = 4096  # bytes of a link's target, Linux' PATH_MAX
_MAX_PADDING = 64 << 20  # bytes after the end of a tar file
_BLOCK = 512
_MAX_HOPS = 5
_ENCRYPTED, _UTF8 = 0x1 | 0x40, 0x800  # flags of a zip entry
_UNIX = 3

_KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE,
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: LINK,
    tarfile.LNKTYPE: HARD_LINK,
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "named pipe",
}


class Format(NamedTuple):
    """How to read a file that begins with ``magic``."""

    magic: bytes
    module: str
    """The Python module that reads it. A reduced Python may lack it."""
    opener: str


_COMPRESSIONS = (
    Format(b"\x1f\x8b", "gzip", "GzipFile"),
    Format(b"BZh", "bz2", "BZ2File"),
    Format(b"\xfd7zXZ\x00", "lzma", "LZMAFile"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


@contextlib.contextmanager
def opened(path: str, sha256: Optional[str], shown: str) -> Iterator[IO[bytes]]:
    """Open an archive that has this SHA-256 (None: any). ``shown`` is its name in messages. Raises NodeopsError."""
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise NodeopsError(
            "The archive %s cannot be read: %s. Nothing was deployed." % (shown, error.strerror)
        ) from error
    with stream:
        before = os.fstat(stream.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise NodeopsError("The archive %s is not a file. Nothing was deployed." % shown)
        if sha256 is not None:
            expect(sha256, digest(stream), shown)
        yield stream
        after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise NodeopsError("The archive %s changed while it was read. Nothing was deployed. Run again." % shown)


def digest(stream: IO[bytes]) -> str:
    """The SHA-256 of a file. Its position is then the start again."""
    content = hashlib.sha256()
    while True:
        data = stream.read(CHUNK)
        if not data:
            break
        content.update(data)
    stream.seek(0)
    return content.hexdigest()


def expect(wanted: str, found: str, shown: str) -> None:
    """Raises NodeopsError if an archive does not have the SHA-256 that it should have."""
    if wanted != found:
        raise NodeopsError(
            "The archive %s has the SHA-256 %s, not %s: it is another file, or was cut or changed. Nothing was "
            "deployed." % (shown, found, wanted)
        )


def unpack(stream: IO[bytes], dest: str, shown: str, strip: int = 0, own: bool = False) -> List[Line]:
    """Unpack an archive into the empty directory ``dest``, without its first ``strip`` directories.

    Raises NodeopsError for names that are absolute or go up, links that lead outside, entries behind a link, anything
    but files, directories and links, and for an archive that is cut, damaged or encrypted. Owners and modes are
    dropped, except the executable bit. ``own``: ``_directory.pack`` made the archive; its links are left as they are.
    """
    tree = Tree(dest, shown, strip, own)
    with _understood(shown):
        for entry in _entries(stream, shown, dest):
            with _writing():
                tree.add(entry)
        with _writing():
            return tree.finish()


def text(stream: IO[bytes], path: str, shown: str, strip: int = 0) -> Optional[str]:
    """The text of the file that would be unpacked to ``path``; None if there is none.

    Links in the archive are followed. Raises NodeopsError for a damaged archive, and for a file that is too large.
    """
    for _hop in range(_MAX_HOPS):
        found, target = None, None
        with _understood(shown):
            stream.seek(0)
            for entry in _entries(stream, shown, None):
                if "/".join(parts_of(entry.name, shown)[strip:]) != path:
                    continue
                if entry.kind == FILE:
                    found, target = _content(entry, shown), None
                elif entry.kind == LINK:
                    found, target = None, os.path.normpath(os.path.join(os.path.dirname(path), entry.target))
                elif entry.kind == HARD_LINK:
                    found, target = None, "/".join(parts_of(entry.target, shown)[strip:])
        if target is None:
            return None if found is None else found.decode("utf-8", "replace")
        path = target
    return None


def _content(entry: Entry, shown: str) -> bytes:
    if entry.size > MAX_TEXT:
        raise NodeopsError(
            "%s in the archive %s is larger than %d bytes, so it was not read. Nothing was deployed."
            % (entry.name, shown, MAX_TEXT)
        )
    content = b""
    while len(content) <= MAX_TEXT:
        data = entry.read(CHUNK)
        if not data:
            break
        content += data
    return content


class _WriteError(Exception):
    """An OSError of writing, to tell it from those of reading."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _WriteError(error) from error


@contextlib.contextmanager
def _understood(shown: str) -> Iterator[None]:
    """Turn any error of Python's libraries about the content of an archive into one clear error."""
    try:
        yield
    except (NodeopsError, MemoryError):
        raise
    except _WriteError as error:
        raise error.error from None
    except Exception as error:  # zlib.error, LZMAError, BadZipFile, TarError, EOFError, UnicodeError, struct.error ...
        raise _damaged(shown, "%s: %s" % (type(error).__name__, error)) from error


def _damaged(shown: str, why: str) -> NodeopsError:
    return NodeopsError("The archive %s is cut or damaged (%s). Nothing was deployed." % (shown, why))


def _guarded(read: Callable[[int], bytes], shown: str) -> Callable[[int], bytes]:
    """``read`` for use while writing: its errors are told as errors of the archive, not of the disk."""

    def guarded(size: int) -> bytes:
        with _understood(shown):
            return read(size)

    return guarded


def _entries(stream: IO[bytes], shown: str, dest: Optional[str]) -> Iterator[Entry]:
    """The entries in their order. ``dest``: the directory that they will be written to, which needs room for them."""
    head = stream.read(_BLOCK)
    stream.seek(0)
    if head.startswith(_ZIP):
        return _zip_entries(stream, shown, dest)
    for compression in _COMPRESSIONS:
        if head.startswith(compression.magic):
            try:
                opener = getattr(importlib.import_module(compression.module), compression.opener)
            except ImportError:
                raise NodeopsError(
                    "The archive %s needs Python's module %s, which the Python of this host lacks. Nothing was "
                    "deployed. Use gzip." % (shown, compression.module)
                ) from None
            plain = opener(fileobj=stream) if compression.module == "gzip" else opener(stream)
            return _tar_entries(plain, shown)
    if _is_tar(head):
        return _tar_entries(stream, shown)
    raise NodeopsError(
        "%s cannot be unpacked: it is neither a tar file (plain or compressed by gzip, bzip2 or xz) nor a zip file. "
        "Nothing was deployed." % shown
    )


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _tar_entries(stream: IO[bytes], shown: str) -> Iterator[Entry]:
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        position = -1
        while True:
            info = archive.next()
            if info is None:
                break
            if info.size < 0 or archive.offset <= position:  # tarfile would never end
                raise _damaged(shown, "a header that makes no sense")
            position = archive.offset
            yield _tar_entry(archive, info, shown)
        _check_end(stream, archive.offset, shown)


def _tar_entry(archive: tarfile.TarFile, info: tarfile.TarInfo, shown: str) -> Entry:
    kind = _KINDS.get(info.type, "entry of the unknown type %r" % info.type)
    content = cast("IO[bytes]", archive.extractfile(info)) if kind == FILE else None
    return Entry(
        name=info.name,
        kind=kind,
        executable=bool(info.mode & 0o100),
        size=info.size,
        target=info.linkname,
        mtime=float(info.mtime),
        read=_guarded(content.read if content else _nothing, shown),
    )


def _nothing(_size: int) -> bytes:
    return b""


def _check_end(stream: IO[bytes], offset: int, shown: str) -> None:
    """Raises NodeopsError for an archive that is cut between two entries, which tarfile does not notice.

    The mark of the end has to be there. The rest is read for the checksum of the compression.
    """
    stream.seek(offset)
    if stream.read(_BLOCK) != b"\0" * _BLOCK:
        raise _damaged(shown, "it has no end")
    rest = 0
    while rest <= _MAX_PADDING:
        size = len(stream.read(CHUNK))
        if not size:
            return
        rest += size
    raise _damaged(shown, "it continues after its end")


def _zip_entries(stream: IO[bytes], shown: str, dest: Optional[str]) -> Iterator[Entry]:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        if dest is not None and sum(info.file_size for info in infos) > free(dest):
            raise disk_full(dest)
        for info in infos:
            yield _zip_entry(archive, info, shown)


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> Entry:
    if info.flag_bits & _ENCRYPTED:
        raise NodeopsError("The archive %s is encrypted. Nothing was deployed. Make it without a password." % shown)
    if "\\" in info.filename:
        raise NodeopsError(
            "The archive %s has backslashes in its names (%r): the program that made it does not follow the zip "
            "format. Nothing was deployed." % (shown, info.filename)
        )
    mode = info.external_attr >> 16
    kind = _zip_kind(info, mode)
    read = _lazy(lambda: archive.open(info)) if kind in (FILE, LINK) else _nothing
    target = ""
    if kind == LINK:
        if info.file_size > _MAX_TARGET:
            raise _damaged(shown, "a link with a target of %d bytes" % info.file_size)
        target = os.fsdecode(read(_MAX_TARGET))
    return Entry(
        name=_zip_name(info),
        kind=kind,
        executable=bool(mode & 0o100),
        size=info.file_size,
        target=target,
        mtime=_zip_time(info),
        read=_guarded(read, shown),
    )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as it is in the archive: zip on Unix writes UTF-8 without saying so."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8 and info.create_system == _UNIX:
        with contextlib.suppress(UnicodeError):
            return name.encode("cp437").decode("utf-8")
    return name


def _zip_kind(info: zipfile.ZipInfo, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return LINK
    if info.is_dir() or stat.S_ISDIR(mode):
        return DIRECTORY
    if stat.S_IFMT(mode) in (0, stat.S_IFREG):
        return FILE
    return "special file"


def _lazy(opener: Callable[[], IO[bytes]]) -> Callable[[int], bytes]:
    """Open a file at its first read, so that an archive with many files is not opened as many times."""
    streams: List[Any] = []

    def read(size: int) -> bytes:
        if not streams:
            streams.append(opener())
        data: bytes = streams[0].read(size)
        if not data:
            streams[0].close()
        return data

    return read


def _zip_time(info: zipfile.ZipInfo) -> Optional[float]:
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (OverflowError, ValueError):
        return None
