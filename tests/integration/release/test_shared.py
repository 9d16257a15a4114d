"""Shared paths are linked into each release and never lost, and nothing outside is touched."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, List, Sequence

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _shared


class Site:
    """A deploy root with one release."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shared = root / "shared"
        self.shared.mkdir(parents=True)
        self.release = self.new_release("r1")

    def new_release(self, name: str) -> Path:
        self.release = self.root / "releases" / name
        self.release.mkdir(parents=True)
        return self.release

    def link(self, *items: Any) -> List[str]:
        return _shared.link(str(self.shared), str(self.release), items)

    def everything(self) -> List[str]:
        """All paths with their type and content."""
        found = []
        for directory, names, files in os.walk(self.root):
            for name in sorted([*names, *files]):
                path = Path(directory, name)
                what = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
                found.append(f"{path}: {what}")
        return sorted(found)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "app")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_missing_directory_is_made_and_linked(site: Site) -> None:
    assert site.link("uploads", "var/cache/") == ["uploads", "var/cache"]
    assert os.readlink(site.release / "uploads") == "../../shared/uploads"
    assert os.readlink(site.release / "var/cache") == "../../../shared/var/cache"
    write(site.release / "uploads" / "a.txt", "kept")
    second = site.new_release("r2")
    site.link("uploads")
    assert (second / "uploads" / "a.txt").read_text() == "kept"


def test_files_of_the_first_release_are_the_first_content_and_later_ones_change_nothing(site: Site) -> None:
    write(site.release / "uploads" / "deep" / "logo.txt", "first")
    write(site.release / "config" / "local.json", "{}")
    site.link("uploads", {"path": "config/local.json", "type": "file"})
    assert (site.shared / "uploads/deep/logo.txt").read_text() == "first"
    assert (site.shared / "config/local.json").read_text() == "{}"
    assert (site.release / "uploads/deep/logo.txt").read_text() == "first"
    second = site.new_release("r2")
    write(second / "uploads" / "deep" / "logo.txt", "second")
    write(second / "config" / "local.json", "second")
    site.link("uploads", "config/local.json")
    assert (second / "uploads/deep/logo.txt").read_text() == "first"
    assert (second / "config/local.json").read_text() == "{}"
    assert os.readlink(second / "config/local.json") == "../../../shared/config/local.json"


def test_again_changes_nothing(site: Site) -> None:
    site.link("uploads", "a/b")
    before = site.everything()
    inode = os.lstat(site.release / "uploads").st_ino
    site.link("uploads", "a/b")
    assert site.everything() == before
    assert os.lstat(site.release / "uploads").st_ino == inode


def test_a_link_of_another_deploy_tool_is_replaced(site: Site, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "file", "untouched").parent
    (site.release / "uploads").symlink_to(outside)
    site.link("uploads")
    assert os.readlink(site.release / "uploads") == "../../shared/uploads"
    assert os.listdir(site.shared / "uploads") == []
    assert (outside / "file").read_text() == "untouched"


def test_a_shared_directory_on_another_disk_may_be_a_link(site: Site, tmp_path: Path) -> None:
    disk = write(tmp_path / "disk" / "uploads" / "a", "big").parent
    (site.shared / "uploads").symlink_to(disk)
    site.link("uploads")
    assert (site.release / "uploads" / "a").read_text() == "big"


def test_links_are_right_if_the_releases_are_reached_through_a_link(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "very" / "deep" / "disk"
    elsewhere.parent.mkdir(parents=True)
    shutil.move(str(site.root / "releases"), elsewhere)
    (site.root / "releases").symlink_to(elsewhere)
    site.link("uploads")
    write(site.release / "uploads" / "x", "y")
    assert (site.shared / "uploads" / "x").read_text() == "y"


def test_shipped_files_are_moved_to_another_file_system(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = os.rename, []

    def rename(source: str, target: str) -> None:
        if os.path.dirname(source) == str(site.release):
            refused.append(source)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    write(site.release / "uploads" / "a", "1").chmod(0o640)
    write(site.release / "settings.ini", "2")
    site.link("uploads", "settings.ini")
    assert len(refused) == 2
    assert (site.shared / "uploads/a").read_text() == (site.release / "uploads/a").read_text() == "1"
    assert (site.shared / "uploads/a").stat().st_mode & 0o777 == 0o640
    assert (site.release / "settings.ini").is_symlink()
    assert (site.shared / "settings.ini").read_text() == "2"


@pytest.fixture
def refused(site: Site) -> Any:
    """The message of items that are refused. Nothing may change."""

    def refuse(*items: Any) -> str:
        before = site.everything()
        with pytest.raises(NodeopsError) as raised:
            site.link("fine", *items)
        assert site.everything() == before
        assert str(raised.value).startswith("shared: ")
        assert "Nothing was changed" in str(raised.value)
        return str(raised.value)

    return refuse


@pytest.mark.parametrize(
    "items",
    [
        ["../x"],
        ["a/../../x"],
        ["a/../b"],
        ["/etc"],
        [""],
        ["."],
        ["./"],
        ["a\nb"],
        ["a\0b"],
        [7],
        [{"path": "a", "type": "socket"}],
        [{"path": "a", "kind": "file"}],
        [{"type": "file"}],
        ["a", "./a/"],
        ["a/b", "a"],
        ["a", "a/b/c"],
        [".nodeops-release.json"],
    ],
)
def test_an_invalid_item_is_refused(items: Sequence[Any], refused: Any) -> None:
    refused(*[item if isinstance(item, (str, dict)) else {"path": item} for item in items])


def test_a_missing_file_is_refused(refused: Any) -> None:
    assert "Put it there once" in refused({"path": "config/secret.pem", "type": "file"})


def test_a_path_of_another_type_is_refused(site: Site, refused: Any) -> None:
    write(site.shared / "a")
    (site.shared / "b").mkdir()
    write(site.release / "b")
    write(site.release / "c")
    os.mkfifo(site.release / "d")
    assert "not a directory" in refused({"path": "a", "type": "directory"})
    assert "not a file" in refused({"path": "b", "type": "file"})
    assert "ships a file" in refused("b")
    assert "not a directory" in refused("c/")
    assert "neither a file nor a directory" in refused("d")


def test_a_link_in_the_path_that_leaves_the_release_is_refused(site: Site, refused: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (site.release / "public").symlink_to(outside)
    assert "leads out of the release" in refused("public/uploads")
    (site.shared / "var").symlink_to(outside)
    assert "leads out of the shared directory" in refused("var/log")
    (site.shared / "dead").symlink_to(tmp_path / "nowhere")
    assert "does not exist" in refused("dead")
    write(site.release / "file")
    assert "is not a directory" in refused("file/inner")
    assert list(outside.iterdir()) == []


def test_a_link_in_the_path_to_a_directory_beside_with_a_longer_name_is_refused(site: Site, refused: Any) -> None:
    for place in (site.release, site.shared):
        beside = place.with_name(place.name + "-old")
        beside.mkdir()
        (place / "public").symlink_to(beside)
        assert "leads out of" in refused("public/uploads")
        (place / "public").unlink()
        assert list(beside.iterdir()) == []


def test_a_link_in_the_path_that_stays_in_the_release_is_followed(site: Site) -> None:
    (site.release / "dist").mkdir()
    (site.release / "public").symlink_to("dist")
    site.link("public/uploads")
    assert os.readlink(site.release / "dist" / "uploads") == "../../../shared/public/uploads"
    write(site.release / "public/uploads/x", "y")
    assert (site.shared / "public/uploads/x").read_text() == "y"


def test_a_run_that_was_killed_between_moving_and_linking_is_finished(site: Site, monkeypatch: Any) -> None:
    write(site.release / "uploads" / "a", "1")

    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", killed)
        with pytest.raises(KeyboardInterrupt):
            site.link("uploads")
    site.link("uploads")
    assert (site.release / "uploads/a").read_text() == (site.shared / "uploads/a").read_text() == "1"


def test_a_full_disk_is_reported(site: Site, monkeypatch: Any) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(site.shared))

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(NodeopsError, match="No space left on device"):
        site.link("uploads")
