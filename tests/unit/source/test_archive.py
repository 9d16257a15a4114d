# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives: what is unpacked, and what is refused. No file is written outside the target directory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _archive, _directory, _unpack

TAR_MODES = ["w", "w:gz", "w:bz2", "w:xz"]


class World:
    """A directory to unpack into, in a directory in which nothing else may appear."""

    def __init__(self, directory: Path) -> None:
        self.outer = directory / "outer"
        self.dest = self.outer / "dest"
        self.dest.mkdir(parents=True)
        self.archive = directory / "archive"

    def unpack(self, strip: int = 0, own: bool = False) -> Dict[str, str]:
        """What is in the directory afterwards. Fails if there is anything beside it."""
        try:
            with _archive.opened(str(self.archive), None, "the.archive") as stream:
                _archive.unpack(stream, str(self.dest), "the.archive", strip, own)
        finally:
            assert os.listdir(self.outer) == ["dest"]
        return self.found()

    def found(self) -> Dict[str, str]:
        """The paths, each with its content, `-> target`, or `/`."""
        found = {}
        for path in sorted(self.dest.rglob("*")):
            name = str(path.relative_to(self.dest))
            if path.is_symlink():
                found[name] = "-> " + os.readlink(path)
            else:
                found[name] = "/" if path.is_dir() else path.read_text()
        return found

    def tar(self, *entries: Info, mode: str = "w", cut: int = 0) -> World:
        """Write a tar file. A regular file's content is its comment."""
        with tarfile.open(self.archive, mode) as archive:  # type: ignore[call-overload]
            for entry in entries:
                archive.addfile(entry, io.BytesIO(entry.content))
        if cut:
            os.truncate(self.archive, self.archive.stat().st_size - cut)
        return self

    def zip(self, *entries: Any) -> World:
        """Write a zip file of (name or ZipInfo, content)."""
        with zipfile.ZipFile(self.archive, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries:
                archive.writestr(entry, content)
        return self


class Info(tarfile.TarInfo):
    """A header with what follows it."""

    content = b""


def file(name: str, content: str = "x", mode: int = 0o644) -> Info:
    info = Info(name)
    info.content, info.mode, info.mtime = content.encode(), mode, 1_700_000_000
    info.size = len(info.content)
    return info


def other(name: str, kind: bytes, target: str = "") -> Info:
    info = Info(name)
    info.type, info.linkname, info.mode = kind, target, 0o755
    return info


def directory(name: str) -> Info:
    return other(name, tarfile.DIRTYPE)


def link(name: str, target: str) -> Info:
    return other(name, tarfile.SYMTYPE, target)


def hard_link(name: str, target: str) -> Info:
    return other(name, tarfile.LNKTYPE, target)


def zip_entry(name: str, mode: int, encrypted: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


GOOD = [directory("lib"), file("lib/a.js", "a"), file("run", "r", 0o4755), link("lib/run", "../run"), link("me", ".")]
UNPACKED = {"lib": "/", "lib/a.js": "a", "lib/run": "-> ../run", "me": "-> .", "run": "r"}


@pytest.mark.parametrize("mode", TAR_MODES)
def test_every_compression_of_tar_is_detected_by_its_content(world: World, mode: str) -> None:
    assert world.tar(*GOOD, mode=mode).unpack() == UNPACKED
    assert stat.S_IMODE((world.dest / "run").stat().st_mode) == 0o755  # no setuid
    assert stat.S_IMODE((world.dest / "lib/a.js").stat().st_mode) == 0o644
    assert stat.S_IMODE((world.dest / "lib").stat().st_mode) == 0o755
    assert (world.dest / "run").stat().st_mtime == 1_700_000_000
    assert (world.dest / "run").stat().st_uid == os.geteuid()


def test_zip(world: World) -> None:
    world.zip(
        ("lib/", ""),
        ("lib/a.js", "a"),
        (zip_entry("run", stat.S_IFREG | 0o4755), "r"),
        (zip_entry("lib/run", stat.S_IFLNK | 0o777), "../run"),
        (zip_entry("me", stat.S_IFLNK | 0o777), "."),
    )
    assert world.unpack() == UNPACKED
    assert stat.S_IMODE((world.dest / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((world.dest / "lib/a.js").stat().st_mode) == 0o644


def test_archives_of_tar_and_zip_are_unpacked_as_these_do(world: World, tmp_path: Path) -> None:
    """Made by the real programs, with hard links, sparse files, long and unusual names."""
    root = tmp_path / "root"
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("naïve " + "f" * 90)).write_text("long")
    (root / "a").write_text("a")
    os.link(root / "a", root / "b")
    (root / "to-a").symlink_to("a")
    os.link(root / "to-a", root / "to-a-too", follow_symlinks=False)
    with open(root / "sparse", "wb") as stream:
        stream.truncate(1 << 20)
        stream.seek(1 << 19)
        stream.write(b"middle")
    for number, command in enumerate(
        [
            ["tar", "--sparse", "-cf"],
            ["tar", "--format=posix", "--sparse", "-czf"],
            ["tar", "--format=gnu", "-cJf"],
            ["zip", "-qry"],
        ]
    ):
        own = World(tmp_path / str(number))
        subprocess.run([*command, own.archive.with_suffix(".x"), "."], cwd=root, check=True)
        own.archive.with_suffix(".x").rename(own.archive)
        with _archive.opened(str(own.archive), None, "x") as stream_:
            _archive.unpack(stream_, str(own.dest), "x")
        subprocess.run(["diff", "-r", "--no-dereference", root, own.dest], check=True)


def test_strip(world: World) -> None:
    world.tar(
        directory("app-1.0"), file("README", "left out"), file("app-1.0/a", "a"), hard_link("app-1.0/b", "app-1.0/a")
    )
    assert world.unpack(strip=1) == {"a": "a", "b": "a"}


def test_a_link_that_leads_outside_after_strip_is_refused(world: World) -> None:
    world.tar(file("other/x"), link("app/x", "../other/x"), file("app/y"))
    assert world.unpack()["app/x"] == "-> ../other/x"
    with pytest.raises(NodeopsError, match="lies outside the archive"):
        World(world.outer.parent / "second").tar(link("app/x", "../other/x"), file("app/y")).unpack(strip=1)


def test_strip_that_leaves_nothing_is_refused(world: World) -> None:
    with pytest.raises(NodeopsError, match=r"holds no files below strip=3"):
        world.tar(file("a/b")).unpack(strip=3)


def test_a_later_file_of_the_same_name_wins(world: World) -> None:
    assert world.tar(
        file("a", "old"), hard_link("b", "a"), file("a", "new"), directory("d"), directory("d")
    ).unpack() == {
        "a": "new",
        "b": "old",
        "d": "/",
    }


REFUSED = {
    "absolute name": ([file("/etc/x")], "its name is absolute"),
    "up": ([file("../x")], '".." in it'),
    "up inside": ([file("a/../../x")], '".." in it'),
    "up that stays inside": ([file("a/../x")], '".." in it'),
    "up as a directory": ([directory("../x")], '".." in it'),
    "absolute link": ([file("f"), link("a", "/etc/passwd")], "an absolute path"),
    "absolute link to our own place": ([file("f"), link("a", "/")], "an absolute path"),
    "link up": ([file("f"), link("a", "../x")], "outside the archive"),
    "link up from below": ([file("f"), link("d/a", "../../x")], "outside the archive"),
    "link up and down again": ([file("f"), link("a", "../dest/f")], "outside the archive"),
    "chain": ([link("d/one", "../e"), link("d/two", "one/../.."), file("e/f")], "outside the archive"),
    "chain over dot": ([link("here", "."), link("a", "here/.."), file("f")], "outside the archive"),
    "chain made later": ([link("a", "b/.."), file("f"), link("b", ".")], "outside the archive"),
    "chain to an absolute one": ([link("a", "b/passwd"), link("b", "/etc"), file("f")], "absolute path"),
    "circle": ([link("a", "b"), link("b", "a"), file("f")], "leads in a circle"),
    "file through a link": ([directory("d"), link("a", "d"), file("a/x")], "is a link"),
    "file through a link outside": ([link("a", ".."), file("a/x")], "is a link"),
    "file over a link": ([link("a", "../x"), file("a")], "has a link of this name already"),
    "directory over a link": ([link("a", "d"), directory("a")], "has a link of this name already"),
    "link over a directory": ([directory("a"), link("a", "d"), file("a/x")], "has a directory of this name"),
    "link over a file": ([file("a"), link("a", "d")], "has a file of this name"),
    "file below a file": ([file("a"), file("a/b")], "is a file"),
    "hard link to the outside": ([file("f"), hard_link("a", "../x")], '".." in it'),
    "hard link to an absolute name": ([file("f"), hard_link("a", "/etc/passwd")], "its name is absolute"),
    "hard link to nothing": ([file("f"), hard_link("a", "b")], "not an earlier file of the archive"),
    "hard link through a link": (
        [link("d", "/etc"), hard_link("a", "d/passwd"), file("f")],
        "not an earlier file of the archive",
    ),
    "hard link to a link elsewhere": ([link("d/l", ".."), hard_link("a", "d/l"), file("f")], "hard link to the link"),
    "character device": ([other("a", tarfile.CHRTYPE)], "character device"),
    "block device": ([other("a", tarfile.BLKTYPE)], "block device"),
    "pipe": ([other("a", tarfile.FIFOTYPE)], "named pipe"),
    "unknown type": ([other("a", b"Z")], "unknown type"),
    "link to nowhere": ([link("a", "")], "without a usable target"),
    "no file": ([directory("a")], "holds no files"),
}


@pytest.mark.parametrize(("entries", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(world: World, entries: List[Info], message: str) -> None:
    with pytest.raises(NodeopsError, match=message):
        world.tar(*entries).unpack()
    assert not any(path.is_symlink() for path in world.dest.rglob("*"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("../x", "x")], '".." in it'),
        ([("/x", "x")], "its name is absolute"),
        ([("a\\..\\x", "x")], "backslashes"),
        ([(zip_entry("a", stat.S_IFLNK | 0o777), "/etc/passwd"), ("f", "")], "an absolute path"),
        ([(zip_entry("a", stat.S_IFLNK | 0o777), "../x"), ("f", "")], "outside the archive"),
        ([(zip_entry("a", stat.S_IFLNK | 0o777), ".."), ("a/x", "x")], "is a link"),
        ([(zip_entry("a", stat.S_IFLNK | 0o777), "x" * 5000)], "target of 5000 bytes"),
        ([(zip_entry("a", stat.S_IFIFO | 0o644), "")], "special file"),
    ],
    ids=["up", "absolute", "backslash", "absolute link", "link outside", "through a link", "long link", "pipe"],
)
def test_refused_zip(world: World, entries: List[Any], message: str) -> None:
    with pytest.raises(NodeopsError, match=message):
        world.zip(*entries).unpack()


def test_an_encrypted_zip_is_refused(world: World) -> None:
    source = world.archive.with_name("secret.txt")
    source.write_text("s")
    subprocess.run(["zip", "-qj", "-P", "password", world.archive.with_suffix(".zip"), source], check=True)
    world.archive.with_suffix(".zip").rename(world.archive)
    with pytest.raises(NodeopsError, match="is encrypted"):
        world.unpack()


@pytest.mark.parametrize("mode", TAR_MODES)
def test_an_archive_cut_at_any_place_is_refused(world: World, mode: str) -> None:
    """Also if it is cut exactly between two entries, which Python's tarfile takes for the end."""
    world.tar(*(file("f%d" % n, os.urandom(300).hex()) for n in range(4)), mode=mode)
    whole = world.archive.read_bytes()
    ends = sorted(
        {0, 1, 5, 511, 512, 1024, 1536, 2048, len(whole) // 2, len(whole) - 1} | set(range(0, len(whole), 1024))
    )
    if mode == "w":  # the rest is padding: one block of zeros is the end for tar
        ends = [end for end in ends if end < 4 * (512 + 1024) + 512]
    for number, end in enumerate(end for end in ends if end < len(whole)):
        part = World(world.outer.parent / str(number))
        part.archive.write_bytes(whole[:end])
        with pytest.raises(NodeopsError, match=r"cut or damaged|cannot be unpacked"):
            part.unpack()


def test_a_changed_byte_in_compressed_data_is_noticed(world: World) -> None:
    for number, (write, mode) in enumerate([(world.tar, "w:gz"), (world.tar, "w:xz"), (world.tar, "w:bz2")]):
        write(file("a", os.urandom(5000).hex()), mode=mode)
        content = bytearray(world.archive.read_bytes())
        content[len(content) // 2] ^= 0xFF
        part = World(world.outer.parent / str(number))
        part.archive.write_bytes(bytes(content))
        with pytest.raises(NodeopsError, match="cut or damaged"):
            part.unpack()
    world.zip(("a", os.urandom(5000).hex()))
    content = bytearray(world.archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    world.archive.write_bytes(bytes(content))
    with pytest.raises(NodeopsError, match="cut or damaged"):
        world.unpack()


def test_a_cut_zip_is_refused(world: World) -> None:
    world.zip(("a", "a" * 1000), ("b", os.urandom(1000).hex()))
    os.truncate(world.archive, world.archive.stat().st_size // 2)
    with pytest.raises(NodeopsError, match="cut or damaged"):
        world.unpack()


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_of_another_size_than_its_entry_says_is_refused(tmp_path: Path, size: int) -> None:
    entry = _unpack.Entry("a", _unpack.FILE, False, size, "", None, io.BytesIO(b"12345").read)
    with pytest.raises(NodeopsError, match=f"'a': it does not have the {size} bytes it should have"):
        _unpack.Tree(str(tmp_path), "the.archive", 0, False).add(entry)


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"\0" * 10240, b"\x28\xb5\x2f\xfd1234", b"<html>404</html>" * 100]
)
def test_a_file_that_is_not_an_archive_is_refused(world: World, content: bytes) -> None:
    world.archive.write_bytes(content)
    with pytest.raises(NodeopsError, match="cannot be unpacked: it is neither"):
        world.unpack()


def test_the_sha256_is_compared_before_anything_is_written(world: World) -> None:
    world.tar(file("a"))
    wanted = "0" * 64
    found = hashlib.sha256(world.archive.read_bytes()).hexdigest()
    with pytest.raises(NodeopsError, match=f"has the SHA-256 {found}, not {wanted}"):
        with _archive.opened(str(world.archive), wanted, "the.archive"):
            pytest.fail("it was opened")
    with _archive.opened(str(world.archive), found, "the.archive") as stream:
        assert _archive.unpack(stream, str(world.dest), "the.archive")


def test_an_archive_that_changes_while_it_is_read_is_refused(world: World) -> None:
    world.tar(file("a"))
    with pytest.raises(NodeopsError, match="changed while it was read"):
        with _archive.opened(str(world.archive), None, "the.archive"), open(world.archive, "ab") as stream:
            stream.write(b"more")


@pytest.mark.parametrize(
    ("make", "code"),
    [("tar", errno.ENOSPC), ("zip", errno.ENOSPC), ("tar", errno.EDQUOT)],
)
def test_a_full_disk_is_an_error_of_the_system_and_not_of_the_archive(
    world: World, monkeypatch: pytest.MonkeyPatch, make: str, code: int
) -> None:
    """_fetch words the message."""
    world.tar(file("a")) if make == "tar" else world.zip(("a", "x"))

    def full(_descriptor: int, _mode: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        world.unpack()
    assert raised.value.errno == code


@pytest.mark.parametrize("make", ["tar", "sparse", "zip"])
def test_an_archive_that_cannot_fit_is_not_unpacked(world: World, monkeypatch: pytest.MonkeyPatch, make: str) -> None:
    large = "x" * (3 << 20)
    if make == "zip":
        world.zip(("a", large))
    elif make == "tar":
        world.tar(file("a", large), mode="w:gz")
    else:
        (world.archive.parent / "hole").touch()
        os.truncate(world.archive.parent / "hole", 1 << 43)  # 8 TiB
        subprocess.run(["tar", "-C", world.archive.parent, "--sparse", "-cf", world.archive, "hole"], check=True)
    if make != "sparse":
        monkeypatch.setattr(_unpack, "free", lambda _path: 1 << 20)
        monkeypatch.setattr(_archive, "free", lambda _path: 1 << 20)
    with pytest.raises(NodeopsError, match=r"disk that holds .* is full"):
        world.unpack()
    assert world.found() == {}


def test_a_header_that_points_to_itself_ends(world: World) -> None:
    """A negative size makes Python's tarfile read the same header for ever (CVE-2025-8194)."""
    world.tar(file("a", "x" * 512), file("b"))
    content = bytearray(world.archive.read_bytes())
    content[124:136] = b"\xff" * 11 + b"\x00"  # base 256, negative
    header = content[:148] + b" " * 8 + content[156:512]
    content[148:156] = b"%06o\0 " % sum(header)
    world.archive.write_bytes(bytes(content))
    with pytest.raises(NodeopsError, match=r"cut or damaged|cannot be unpacked"):
        world.unpack()


@pytest.mark.parametrize(
    ("path", "strip", "expected"),
    [
        ("app/.env.example", 0, "PORT="),
        (".env.example", 1, "PORT="),
        (".env.example", 0, None),
        ("app/linked", 0, "PORT="),
        ("app/hard", 0, "PORT="),
        ("app", 0, None),
        ("app/out", 0, None),
        ("app/round", 0, None),
        ("app/twice", 0, "new"),
    ],
)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_text_of_one_file(world: World, path: str, strip: int, expected: Optional[str], mode: str) -> None:
    world.tar(
        directory("app"),
        file("app/.env.example", "PORT="),
        link("app/linked", ".env.example"),
        hard_link("app/hard", "app/.env.example"),
        link("app/out", "/etc/hostname"),
        link("app/round", "round"),
        file("app/twice", "old"),
        file("app/twice", "new"),
        mode=mode,
    )
    with _archive.opened(str(world.archive), None, "x") as stream:
        assert _archive.text(stream, path, "x", strip) == expected


def test_text_of_a_file_in_a_zip(world: World) -> None:
    world.zip(("a/package.json", '{"version": "1"}'))
    with _archive.opened(str(world.archive), None, "x") as stream:
        assert _archive.text(stream, "package.json", "x", 1) == '{"version": "1"}'
        assert _archive.text(stream, "other", "x", 1) is None


def test_a_directory_packed_by_the_collection_comes_out_as_it_was(world: World, tmp_path: Path) -> None:
    """Its links are the user's own, so they stay, wherever they lead."""
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d.txt").write_text("sorted between d and d/e by character, not by path")
    (root / "d" / "run").write_text("r")
    (root / "d" / "run").chmod(0o755)
    (root / "out").symlink_to("/etc/hostname")
    (root / "up").symlink_to("../..")
    packed = _directory.pack(str(root), [], str(world.archive))
    with _archive.opened(str(world.archive), None, "x") as stream:
        lines = _archive.unpack(stream, str(world.dest), "x", own=True)
    assert _directory.revision_of(lines) == packed.revision
    assert _directory.read(str(world.dest), []).revision == packed.revision
    assert os.readlink(world.dest / "out") == "/etc/hostname"


def _link_to(target: str, path: Path) -> Path:
    path.symlink_to(target)
    return path


CHANGES: Dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "f").write_text("other"),
    "mode": lambda root: (root / "f").chmod(0o755),
    "link": lambda root: os.replace(_link_to("g", root / "new"), root / "l"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_revision_of_unpacked_files_shows_a_difference(
    world: World, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("f")
    (root / "l").symlink_to("f")
    before = _directory.read(str(root), []).revision
    change(root)
    _directory.pack(str(root), [], str(world.archive))
    with _archive.opened(str(world.archive), None, "x") as stream:
        assert _directory.revision_of(_archive.unpack(stream, str(world.dest), "x", own=True)) != before
