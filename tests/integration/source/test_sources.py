# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Git as a source: real repositories, a real server with a password, a stand-in for ssh; what is damaged, missing,
moved, killed; and that no secret is seen.

Core: each damage of a mirror once. Full: at each moment, for a branch and for a commit.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _fetch, _git_command
from ansible_collections.nodeops.pm2.plugins.module_utils.source._fetch import Inspection, Source
from support import places, processes
from support.git_server import IDENTITY, Repository, Watcher, serving
from support.tiers import full_but

CANARY = "canary-e8d20c"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----"


class Host:
    """A directory of an app on a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / ".nodeops"
        self.private.mkdir(parents=True, mode=0o700)
        self.redactor = Redactor()
        self._count = 0

    def look(self, source: Source, check_mode: bool = False) -> Inspection:
        return _fetch.inspect(source, str(self.private), check_mode, self.redactor)

    def read(self, source: Source, look: Inspection, path: str) -> Optional[str]:
        return _fetch.read_file(source, look, str(self.private), path)

    def fetch(self, source: Source, look: Inspection) -> Path:
        self._count += 1
        dest = self.root / "releases" / str(self._count)
        dest.mkdir(parents=True)
        try:
            _fetch.fetch(source, look, str(self.private), str(dest), self.redactor)
        finally:
            assert not [name for name in os.listdir(self.private) if name.startswith("tmp-")]
        return dest

    def deploy(self, source: Source) -> Dict[str, str]:
        """Look and fetch; the files and what is in them."""
        return content_of(self.fetch(source, self.look(source)))

    def snapshot(self) -> Set[Tuple[str, int, int]]:
        """Everything in the private directory."""
        return {(str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in [self.private, *self.private.rglob("*")]}


def content_of(directory: Path) -> Dict[str, str]:
    found = {}
    for path in directory.rglob("*"):
        if ".git" in path.relative_to(directory).parts:
            found[".git"] = "is there"
        elif path.is_symlink():
            found[str(path.relative_to(directory))] = "-> " + os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(directory))] = path.read_text()
    return found


def git(address: Any, **more: Any) -> Source:
    return _fetch.source_of({"type": "git", "address": str(address), **more})


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "origin" / "shop")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "srv" / "shop")


# What a version means


def test_every_way_to_name_a_commit(origin: Repository, host: Host) -> None:
    first = origin.commit(f="1")
    origin.git("tag", "v1")
    origin.git("tag", "-a", "-m", "x", "v1-annotated")
    origin.git("tag", "-a", "-m", "x", "v1-twice", "v1-annotated")
    tag_object = origin.git("rev-parse", "v1-annotated")
    second = origin.commit(f="2")
    origin.git("branch", "feature/x", first)
    origin.git("update-ref", "refs/pull/7/head", first)
    wanted = {
        "HEAD": second,
        "main": second,
        "refs/heads/main": second,
        **dict.fromkeys(["v1", "v1-annotated", "v1-twice", "refs/tags/v1-twice", "feature/x"], first),
        **dict.fromkeys([first, first[:7], first[:7].upper(), tag_object, "refs/pull/7/head"], first),
    }
    for version, commit in wanted.items():
        source = git(origin.path, version=version)
        assert host.look(source) == Inspection(commit, True), version
        assert host.look(source, check_mode=True) == Inspection(commit, True), version
        assert host.deploy(source) == {"f": "1" if commit == first else "2"}


def test_a_branch_and_a_tag_of_one_name(origin: Repository, host: Host) -> None:
    first = origin.commit(f="1")
    origin.git("tag", "release")
    second = origin.commit(f="2")
    origin.git("branch", "release")
    for check_mode in (True, False):
        with pytest.raises(
            NodeopsError, match=f"is a branch .{second[:12]}. and a tag .{first[:12]}. .*refs/tags/release"
        ):
            host.look(git(origin.path, version="release"), check_mode)
        assert host.look(git(origin.path, version="refs/tags/release"), check_mode).revision == first


def test_a_version_that_is_not_there_names_near_ones(origin: Repository, host: Host) -> None:
    origin.commit(f="1")
    for name in ("v1.0.0", "v1.0.1", "other", "another", "more"):
        origin.git("tag", name)
    for version in ("v1.0.2", "refs/heads/v1.0.0", "refs/pull/1/head", "f" * 40, "f" * 9):
        with pytest.raises(NodeopsError, match=f"'{version}' is not a branch, tag or commit of {origin.path}.*It has"):
            host.look(git(origin.path, version=version))
    with pytest.raises(NodeopsError, match=r"It has (v1\.0\.1, v1\.0\.0|v1\.0\.0, v1\.0\.1) and 4 more"):
        host.look(git(origin.path, version="v1.0.2"), check_mode=True)


def test_an_empty_repository_and_a_head_without_branch(origin: Repository, host: Host) -> None:
    for check_mode in (True, False):
        for version in ("HEAD", "main"):
            with pytest.raises(NodeopsError, match="is empty: nothing was pushed"):
                host.look(git(origin.path, version=version), check_mode)
    origin.commit(f="1")
    origin.git("symbolic-ref", "HEAD", "refs/heads/gone")
    for check_mode in (True, False):
        with pytest.raises(NodeopsError, match=r"HEAD of .* names a branch that does not exist there.*: main"):
            host.look(git(origin.path), check_mode)
    assert host.deploy(git(origin.path, version="main")) == {"f": "1"}


def test_a_commit_that_no_name_leads_to(origin: Repository, host: Host) -> None:
    lost = origin.commit(f="lost")
    origin.commit(f="2")
    origin.git("checkout", "--quiet", "--orphan", "new")
    origin.commit(f="new")
    origin.git("branch", "-D", "main")
    source = git(origin.path, version=lost)
    assert host.look(source, check_mode=True) == Inspection(lost, False)
    assert host.deploy(source) == {"f": "lost"}
    assert host.look(source, check_mode=True) == Inspection(lost, True)


def test_an_abbreviated_commit_that_is_no_tip_is_unknown_to_a_check_on_an_empty_host(
    origin: Repository, host: Host
) -> None:
    first = origin.commit(f="1")
    second = origin.commit(f="2")
    assert host.look(git(origin.path, version=second[:8]), check_mode=True) == Inspection(second, False)
    assert host.look(git(origin.path, version=first[:8]), check_mode=True) == Inspection(first[:8], False)


# What changes at the origin, and what happens to the mirror


def test_branches_that_are_pushed_moved_deleted_and_renamed(origin: Repository, host: Host) -> None:
    first = origin.commit(f="1")
    source = git(origin.path, version="main")
    assert host.look(source).revision == first
    assert host.look(source).revision == first
    assert host.look(source).revision != origin.commit(f="2") != first
    origin.git("reset", "--quiet", "--hard", first)
    forced = origin.commit(f="forced")
    assert host.look(source).revision == forced
    assert host.deploy(source) == {"f": "forced"}
    origin.git("tag", "moved")
    assert host.look(git(origin.path, version="moved")).revision == forced
    origin.git("tag", "--force", "moved", first)
    assert host.look(git(origin.path, version="moved")).revision == first
    origin.git("branch", "--move", "main", "main/next")  # what was a file in the mirror becomes a directory
    assert host.look(git(origin.path, version="main/next")).revision == forced
    with pytest.raises(NodeopsError, match="'main' is not a branch"):
        host.look(source)


def test_a_commit_that_is_here_needs_no_network(origin: Repository, host: Host) -> None:
    first = origin.commit(f="1")
    source = git(origin.path, version=first)
    host.look(source)
    origin.path.rename(origin.path.with_name("away"))
    assert host.deploy(source) == {"f": "1"}
    with pytest.raises(NodeopsError, match="it was not found, or cannot be read"):
        host.look(git(origin.path))


def test_another_repository(tmp_path: Path, origin: Repository, host: Host) -> None:
    old = origin.commit(f="1")
    host.look(git(origin.path))
    other = Repository(tmp_path / "origin" / "other")
    with pytest.raises(NodeopsError, match="is empty"):
        host.look(git(other.path))
    new = other.commit(f="other")
    assert host.look(git(other.path)).revision == new
    assert host.deploy(git(other.path)) == {"f": "other"}
    for version in (old, old[:10]):  # it is of the former repository, of which nothing is left
        with pytest.raises(NodeopsError, match="is not a branch, tag or commit"):
            host.look(git(other.path, version=version))


def truncate_packs(mirror: Path) -> None:
    for pack in (mirror / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        os.truncate(pack, pack.stat().st_size // 2)


def write_over(mirror: Path) -> None:
    """One byte in the middle of a pack: its trees may be readable, a file not."""
    for pack in (mirror / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        with open(pack, "r+b") as stream:
            stream.seek(pack.stat().st_size // 2)
            stream.write(b"\xff" * 40)


def leave_locks(mirror: Path) -> None:
    for name in ("HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "config.lock", "objects/pack/tmp_pack_x"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).touch()


def garble_refs(mirror: Path) -> None:
    for ref in (mirror / "refs").rglob("*"):
        if ref.is_file():
            ref.write_text("garbage\n")


def empty(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def replace_by_file(mirror: Path) -> None:
    shutil.rmtree(mirror)
    mirror.write_text("x")


def replace_by_link(mirror: Path) -> None:
    shutil.rmtree(mirror)
    mirror.symlink_to("nowhere")


DAMAGE: Dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "emptied": empty,
    "no HEAD": lambda mirror: (mirror / "HEAD").unlink(),
    "no objects": lambda mirror: shutil.rmtree(mirror / "objects"),
    "empty objects": lambda mirror: empty(mirror / "objects"),
    "bad config": lambda mirror: (mirror / "config").write_text("[[["),
    "a file": replace_by_file,
    "a link to nowhere": replace_by_link,
    "cut packs": truncate_packs,
    "bytes written over": write_over,
    "garbage in refs": garble_refs,
    "locks of a killed git": leave_locks,
    "half made": lambda mirror: (mirror / "nodeops-address").unlink(),
}


MOMENTS = [(when, version) for when in ("before look", "between look and fetch") for version in ("main", "commit")]
DAMAGED = [(damage, *moment) for damage in DAMAGE for moment in MOMENTS]
"""In core each damage at one of the moments, the next one at the next."""


@pytest.mark.parametrize(
    ("damage", "when", "version"),
    full_but(
        core=[(damage, *MOMENTS[number % len(MOMENTS)]) for number, damage in enumerate(DAMAGE)],
        values=DAMAGED,
        ids=" - ".join,
    ),
)
def test_a_damaged_mirror_is_mended(origin: Repository, host: Host, damage: str, when: str, version: str) -> None:
    commit = origin.commit(f="1" * 2000, g=os.urandom(4000).hex(), h="h")
    wanted = {name: content for name, content in content_of(origin.path).items() if name != ".git"}
    source = git(origin.path, version=commit if version == "commit" else version)
    look = host.look(source)
    DAMAGE[damage](host.private / "mirror.git")
    if when == "before look":
        look = host.look(source)
    assert look == Inspection(commit, True)
    assert content_of(host.fetch(source, look)) == wanted


def test_locks_of_a_killed_git_cost_no_new_mirror(origin: Repository, host: Host) -> None:
    origin.commit(f="1")
    host.look(git(origin.path))
    before = (host.private / "mirror.git").stat().st_ino
    leave_locks(host.private / "mirror.git")
    assert host.look(git(origin.path)).revision == origin.git("rev-parse", "HEAD")
    assert host.look(git(origin.path)).revision != origin.commit(f="2") == host.look(git(origin.path)).revision
    assert (host.private / "mirror.git").stat().st_ino == before
    assert not list((host.private / "mirror.git").rglob("*.lock"))


def test_a_damaged_mirror_is_kept_when_the_origin_is_away_and_the_error_says_why(
    origin: Repository, host: Host
) -> None:
    origin.commit(f="1")
    source = git(origin.path)
    look = host.look(source)
    shutil.rmtree(host.private / "mirror.git" / "objects")
    origin.path.rename(origin.path.with_name("away"))
    with pytest.raises(NodeopsError, match="it was not found"):
        host.fetch(source, look)
    assert (host.private / "mirror.git").exists()


# What a release holds


def test_the_content_is_that_of_the_commit_whatever_attributes_and_settings_say(
    origin: Repository, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = host.root / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[core]\n\tautocrlf = true\n\thooksPath = /nonexistent\n[filter "lfs"]\n\tsmudge = false\n\trequired = true\n'
    )
    environment = _git_command._environment
    monkeypatch.setattr(_git_command, "_environment", lambda path: {**environment(path), "HOME": str(home)})
    names = ['it\'s "quoted"', "two\nlines", "naïve", "-dash", "sp ace"]
    (origin.path / "d").mkdir()
    for name in names:
        (origin.path / "d" / name).write_text(name)
    (origin.path / "run").write_text("#!/bin/sh\n")
    (origin.path / "run").chmod(0o755)
    (origin.path / "link").symlink_to("d/naïve")
    (origin.path / "out").symlink_to("/etc/hostname")
    attributes = "hidden export-ignore\n*.subst export-subst\n*.bin filter=lfs\n"
    origin.commit(hidden="kept", a__subst="$Format:%H$", unix="a\nb\n", big__bin="pointer", __gitattributes=attributes)
    old = os.umask(0o077)
    try:
        dest = host.fetch(git(origin.path), host.look(git(origin.path)))
    finally:
        os.umask(old)
    assert content_of(dest) == {
        **{f"d/{name}": name for name in names},
        "run": "#!/bin/sh\n",
        "link": "-> d/naïve",
        "out": "-> /etc/hostname",
        "hidden": "kept",
        "a.subst": "$Format:%H$",
        "unix": "a\nb\n",
        "big.bin": "pointer",
        ".gitattributes": attributes,
    }
    assert {path.name: stat.S_IMODE(path.lstat().st_mode) for path in dest.iterdir() if not path.is_symlink()} == {
        **dict.fromkeys(["hidden", "a.subst", "unix", "big.bin", ".gitattributes"], 0o644),
        **dict.fromkeys(["run", "d"], 0o755),
    }


def test_single_files_before_the_fetch(origin: Repository, host: Host) -> None:
    (origin.path / "config").mkdir()
    (origin.path / "config" / "env").write_text("PORT=\n")
    (origin.path / ".env.example").symlink_to("config/env")
    (origin.path / "out").symlink_to("/etc/hostname")
    (origin.path / "up").symlink_to("../x")
    origin.commit(package__json='{"version": "1"}')
    source = git(origin.path)
    assert host.read(source, host.look(source, check_mode=True), "package.json") is None
    look = host.look(source)
    origin.commit(package__json='{"version": "2"}')
    for check_mode in (False, True):
        assert host.read(source, look, "package.json") == '{"version": "1"}'
        assert host.read(source, look, ".env.example") == "PORT=\n"
        for missing in ("missing", "config", "out", "up", "config/env/x", "*.json"):
            assert host.read(source, look, missing) is None
        shown = host.look(source, check_mode)
        assert host.read(source, shown, "package.json") == (
            None if check_mode and not shown.known else '{"version": "2"}'
        )


def test_a_check_writes_nothing(origin: Repository, host: Host) -> None:
    first = origin.commit(f="1")
    source = git(origin.path, key=KEY)
    shutil.rmtree(host.private)
    assert host.look(source, check_mode=True) == Inspection(first, False)
    assert not host.private.exists()
    host.private.mkdir(mode=0o700)
    host.look(source)
    second = origin.commit(f="2")
    before = host.snapshot()
    assert host.look(source, check_mode=True) == Inspection(second, False)
    assert host.look(git(origin.path, version=first), check_mode=True) == Inspection(first, True)
    assert host.read(source, Inspection(first, True), "f") == "1"
    assert host.snapshot() == before


# Submodules


@pytest.fixture
def library(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "origin" / "library")
    repository.commit(lib="1")
    return repository


def test_submodules_of_submodules(tmp_path: Path, origin: Repository, library: Repository, host: Host) -> None:
    deepest = Repository(tmp_path / "origin" / "deepest")
    deepest.commit(deep="1")
    library.git("submodule", "--quiet", "add", "../deepest", "inner/deep")
    library.commit()
    origin.git("submodule", "--quiet", "add", "../library", "vendor/sp ace")
    origin.git("submodule", "--quiet", "add", "--name", "odd.name", str(library.path), "absolute")
    first = origin.commit(f="1")
    (origin.path / "vendor" / "sp ace" / "lib").write_text("2")
    nested = origin.path / "vendor" / "sp ace"
    subprocess.run(["git", "commit", "--quiet", "-am", "x"], cwd=nested, env=IDENTITY, check=True)
    subprocess.run(["git", "push", "--quiet", "origin", "HEAD:refs/heads/next"], cwd=nested, env=IDENTITY, check=True)
    origin.commit(f="2")

    files = host.deploy(git(origin.path))
    assert {name: content for name, content in files.items() if not name.endswith(".gitmodules")} == {
        "f": "2",
        "vendor/sp ace/lib": "2",
        "vendor/sp ace/inner/deep/deep": "1",
        "absolute/lib": "1",
        "absolute/inner/deep/deep": "1",
    }
    assert len(os.listdir(host.private / "submodules")) == 2

    library.path.rename(library.path.with_name("away"))  # they are here, and a commit does not change
    assert host.deploy(git(origin.path, version=first))["vendor/sp ace/lib"] == "1"
    without = host.fetch(git(origin.path, submodules=False), host.look(git(origin.path)))
    assert os.listdir(without / "absolute") == []


def test_submodules_that_are_left_out_missing_or_unknown(origin: Repository, library: Repository, host: Host) -> None:
    origin.git("submodule", "--quiet", "add", "../library", "vendor")
    origin.commit(f="1")
    host.deploy(git(origin.path))
    (damaged,) = (host.private / "submodules").iterdir()
    shutil.rmtree(damaged / "objects")
    assert host.deploy(git(origin.path))["vendor/lib"] == "1"
    origin.git("config", "--file", ".gitmodules", "submodule.vendor.update", "none")
    origin.commit()
    assert "vendor/lib" not in host.deploy(git(origin.path))
    assert os.listdir(host.private / "submodules") == []
    origin.git("config", "--file", ".gitmodules", "--remove-section", "submodule.vendor")
    origin.commit()
    with pytest.raises(NodeopsError, match="has the submodule vendor without an address"):
        host.deploy(git(origin.path))
    for url, message in {
        "ext::sh -c 'touch /tmp/x'": "transport that is not allowed",
        "--upload-pack=x": "starts with a dash",
        "../none": "Submodule vendor: The repository .*/none cannot be read: it was not found",
    }.items():
        (origin.path / ".gitmodules").write_text(f'[submodule "v"]\n\tpath = vendor\n\turl = "{url}"\n')
        origin.commit()
        with pytest.raises(NodeopsError, match=message):
            host.deploy(git(origin.path))


# Over http, with a password


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command line that git starts, written by git itself, and a HOME where a helper would store a password."""
    path, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    environment = _git_command._environment
    more = {"GIT_TRACE": str(path), "HOME": str(home)}
    monkeypatch.setattr(_git_command, "_environment", lambda search: {**environment(search), **more})
    return path


def all_text(directory: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("userinfo", "in_url"),
    [
        (f"deploy:{CANARY}", f"deploy:{CANARY}@"),
        (f"{CANARY}:", f"{CANARY}@"),
        (f"a@b:{CANARY}/ %'$x", f"a%40b:{CANARY}%2F%20%25'$x@"),
    ],
    ids=["name and password", "token as a name", "unusual characters"],
)
def test_a_password_in_the_url_is_used_and_nowhere_to_be_seen(
    tmp_path: Path, origin: Repository, library: Repository, host: Host, trace: Path, userinfo: str, in_url: str
) -> None:
    origin.git("submodule", "--quiet", "add", "../library", "vendor")
    origin.commit(f="1")
    with serving(tmp_path / "origin", userinfo) as server:
        server.pause = 0.05
        source = git(server.url("shop/.git", in_url))
        with Watcher() as watcher:
            assert host.look(source, check_mode=True).known is False
            look = host.look(source)
        commands = [line for line in watcher.seen if "remote-http" in line]
        assert commands
        assert not [line for line in watcher.seen if CANARY in line]
        # ../library of shop/.git is shop/library: an address of its own, of the same origin
        (origin.path / "library").symlink_to(library.path / ".git")
        assert host.fetch(source, look).joinpath("vendor", "lib").read_text() == "1"
    assert CANARY not in trace.read_text()
    assert "credentials" in trace.read_text()
    assert CANARY not in all_text(host.root)
    assert not (tmp_path / "home" / ".git-credentials").exists()
    secret = userinfo.rstrip(":").split(":")[-1]
    assert secret not in host.redactor.text(f"x {secret} y")


@pytest.mark.parametrize("in_url", ["", f"deploy:{CANARY}@", f"{CANARY}@"], ids=["none", "wrong", "token"])
def test_a_refused_password_is_said_without_it(
    tmp_path: Path, origin: Repository, host: Host, trace: Path, in_url: str
) -> None:
    origin.commit(f="1")
    with serving(tmp_path / "origin", "deploy:right") as server:
        for check_mode in (True, False):
            with pytest.raises(NodeopsError, match="access was refused") as raised:
                host.look(git(server.url("shop/.git", in_url)), check_mode)
            assert CANARY not in str(raised.value)
    assert CANARY not in trace.read_text()


def test_a_password_is_given_to_no_other_server(
    tmp_path: Path, origin: Repository, library: Repository, host: Host
) -> None:
    with serving(tmp_path / "origin", "deploy:right") as other, serving(tmp_path / "origin", f"u:{CANARY}") as server:
        (origin.path / ".gitmodules").write_text(
            '[submodule "v"]\n\tpath = vendor\n\turl = %s\n' % other.url("library/.git")
        )
        origin.git("update-index", "--add", "--cacheinfo", f"160000,{library.git('rev-parse', 'HEAD')},vendor")
        origin.git("add", ".gitmodules")
        origin.git("commit", "--quiet", "-m", "x")
        with pytest.raises(NodeopsError, match=r"Submodule vendor: .*access was refused"):
            host.deploy(git(server.url("shop/.git", f"u:{CANARY}@")))
        assert other.given
        assert set(other.given) == {None}


def test_a_password_is_not_given_to_where_a_server_redirects(tmp_path: Path, origin: Repository, host: Host) -> None:
    origin.commit(f="1")
    with serving(tmp_path / "origin", "deploy:right") as other, serving(tmp_path / "origin", f"u:{CANARY}") as server:
        server.redirect = other.url("")[:-1]
        with pytest.raises(NodeopsError, match="access was refused"):
            host.look(git(server.url("shop/.git", f"u:{CANARY}@")))
        assert server.wanted in server.given
        server.wanted = None
        with pytest.raises(NodeopsError, match="access was refused"):
            host.look(git(server.url("shop/.git", f"u:{CANARY}@")))
        assert other.given
        assert set(other.given) == {None}


def test_a_repository_from_elsewhere_may_not_name_one_on_the_host(
    tmp_path: Path, origin: Repository, library: Repository, host: Host
) -> None:
    origin.git("submodule", "--quiet", "add", str(library.path), "vendor")
    origin.commit()
    with serving(tmp_path / "origin", None) as server:
        with pytest.raises(NodeopsError, match="A repository from elsewhere may not refer to"):
            host.deploy(git(server.url("shop/.git")))


# Over ssh: there need not be a server, so a stand-in shows what ssh would get, and does what it would do


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes its arguments and the key it got."""
    log = tmp_path / "ssh.log"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"""#!{sys.executable}
import json, os, re, subprocess, sys
options = [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "-o"]
key = next((o.split("=", 1)[1].strip('"') for o in options if o.startswith("IdentityFile=")), None)
hosts = next(o.split("=", 1)[1] for o in options if o.startswith("UserKnownHostsFile="))
first = re.match(r'"(.*?)"', hosts).group(1)
with open({str(log)!r}, "a") as stream:
    print(json.dumps(dict(options=options, argv=sys.argv[1:], environment=sorted(os.environ), hosts=first,
        key=key and open(key).read(), mode=key and os.stat(key).st_mode & 0o777,
        known=os.path.exists(first) and open(first).read())), file=stream)
if "unreachable" in sys.argv[-2]:
    sys.exit("ssh: connect to host unreachable port 22: No route to host")
if "refused" in sys.argv[-2]:
    sys.exit("git@refused: Permission denied (publickey).")
if "changed" in sys.argv[-2]:
    sys.exit("Host key verification failed.")
sys.exit(subprocess.call(["sh", "-c", sys.argv[-1]]))
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    return log


def calls(log: Path) -> List[Dict[str, Any]]:
    import json

    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("form", ["text", "file"])
def test_a_deploy_key(origin: Repository, host: Host, ssh: Path, form: str) -> None:
    origin.commit(f="1")
    key_file = host.root / "a key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    key = {"key": KEY.replace("\n", "\r\n")} if form == "text" else {"key_file": str(key_file)}
    source = git(f"deploy@example.org:{origin.path}", known_hosts="example.org ssh-ed25519 AAAA", **key)
    with Watcher() as watcher:
        assert host.deploy(source) == {"f": "1"}
    (call,) = calls(ssh)
    assert call["key"] == KEY + ("\n" if form == "text" else "")
    assert call["mode"] == 0o600
    assert {"BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"} <= set(call["options"])
    assert any(option.startswith("ConnectTimeout=") for option in call["options"])
    assert call["known"] == "example.org ssh-ed25519 AAAA\n"
    assert "SSH_AUTH_SOCK" not in call["environment"]
    assert not [line for line in watcher.seen if CANARY in line]
    if form == "text":
        assert CANARY not in all_text(host.private)


def test_without_key_and_known_hosts_the_agent_is_used_and_a_new_host_is_remembered(
    origin: Repository, host: Host, ssh: Path
) -> None:
    origin.commit(f="1")
    source = git(f"ssh://git@example.org:2222{origin.path}")
    assert host.deploy(source) == {"f": "1"}
    (host.private / "known_hosts").write_text("known")
    before = host.snapshot()
    host.look(source, check_mode=True)
    assert host.snapshot() == before
    first, check = calls(ssh)
    assert "StrictHostKeyChecking=accept-new" in first["options"]
    assert first["hosts"] == str(host.private / "known_hosts")
    assert not any(option.startswith("Identit") for option in first["options"])
    assert "SSH_AUTH_SOCK" in first["environment"]
    assert check["hosts"] != first["hosts"]
    assert check["known"] == "known"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unreachable", "its host cannot be reached"),
        ("refused", "access was refused"),
        ("changed", "the key of its host is not the known key"),
    ],
)
def test_what_ssh_says(origin: Repository, host: Host, ssh: Path, name: str, message: str) -> None:
    origin.commit(f="1")
    with pytest.raises(NodeopsError, match=message) as raised:
        host.look(git(f"git@{name}:{origin.path}", key=KEY))
    assert CANARY not in str(raised.value)
    assert os.listdir(host.private) == ["source.lock"]


def test_the_real_ssh_takes_the_options(host: Host, tmp_path: Path) -> None:
    """It says no before it reaches for the network: the host does not exist."""
    with pytest.raises(NodeopsError, match=r"its host cannot be reached.*resolve hostname nodeops\.invalid"):
        host.look(git("git@nodeops.invalid:x", key=KEY, known_hosts="x ssh-ed25519 AAAA"))
    with pytest.raises(NodeopsError, match=r"its host cannot be reached.*resolve hostname nodeops\.invalid"):
        host.look(git("git@nodeops.invalid:x"), check_mode=True)


def test_a_key_file_that_is_missing(host: Host) -> None:
    with pytest.raises(NodeopsError, match="The key /nonexistent/key does not exist on this host"):
        host.look(git("git@example.org:x", key_file="/nonexistent/key"))


# What goes wrong


def test_hosts_that_cannot_be_reached(host: Host) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for address in (
            f"http://u:{CANARY}@127.0.0.1:{port}/x",
            f"https://u:{CANARY}@127.0.0.1:{port}/x",
            f"git://127.0.0.1:{port}/x",
            f"http://u:{CANARY}@nodeops.invalid/x",
        ):
            for check_mode in (True, False):
                with pytest.raises(NodeopsError, match="its host cannot be reached") as raised:
                    host.look(git(address), check_mode)
                assert CANARY not in str(raised.value)


def test_what_is_no_repository(tmp_path: Path, host: Host) -> None:
    for address in (tmp_path / "none", tmp_path):
        with pytest.raises(NodeopsError, match="it was not found, or cannot be read"):
            host.look(git(address))


def test_git_is_missing(origin: Repository, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(NodeopsError, match="git is not installed on this host"):
        host.look(git(origin.path))


class Silent:
    """A server that takes a connection and a question, and says nothing."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.socket.settimeout(20)
        self.url = "http://127.0.0.1:%d/x" % self.socket.getsockname()[1]
        self._connection: Optional[socket.socket] = None

    def wait_until_asked(self) -> None:
        """Returns when somebody waits for an answer."""
        self._connection, _address = self.socket.accept()
        assert self._connection.recv(1000)

    def close(self) -> None:
        self.socket.close()
        if self._connection:
            self._connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


def ours(directory: Path) -> List[int]:
    """Processes of git with something of this directory in their environment."""
    return [pid for pid in processes.all_pids() if str(directory).encode() in processes.read(pid, "environ")]


def test_a_server_that_says_nothing_is_given_up_with_all_that_waits_for_it(host: Host, silent: Silent) -> None:
    begun = time.monotonic()
    with pytest.raises(NodeopsError, match=r"did not finish within 0\.5 s"):
        host.look(git(silent.url, timeout=0.5))
    assert time.monotonic() - begun < 60
    assert not [pid for pid in ours(host.private) if processes.alive(pid)]


def test_a_killed_run_leaves_nothing_that_stops_the_next(origin: Repository, host: Host, silent: Silent) -> None:
    """SIGKILL while git waits: git goes too, the key is removed by the next run, which begins at once."""
    program = (
        "from ansible_collections.nodeops.pm2.plugins.module_utils.host import _redact\n"
        "from ansible_collections.nodeops.pm2.plugins.module_utils.source import _fetch\n"
        f"source = _fetch.source_of(dict(type='git', address={silent.url!r}, key={KEY!r}))\n"
        f"_fetch.inspect(source, {str(host.private)!r}, False, _redact.Redactor())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(places.COLLECTIONS)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    silent.wait_until_asked()
    (leader,) = [pid for pid in ours(host.private) if processes.parent(pid) == process.pid]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while processes.alive(leader):
        assert time.monotonic() < deadline, "git does not end with who started it"
    assert CANARY in all_text(host.private)
    begun = time.monotonic()
    commit = origin.commit(f="1")
    assert host.look(git(origin.path)).revision == commit
    assert time.monotonic() - begun < 60
    assert not [pid for pid in ours(host.private) if processes.alive(pid)]
    assert CANARY not in all_text(host.private)
    assert not [name for name in os.listdir(host.private) if name.startswith("tmp-")]


@pytest.mark.parametrize("full", ["private", "release"])
def test_a_full_disk(tmp_path: Path, origin: Repository, host: Host, full: str) -> None:
    """A small disk of our own, in a mount namespace."""
    (origin.path / "large").write_bytes(os.urandom(4 << 20))
    origin.commit()
    source = git(origin.path)
    look = host.look(source) if full == "release" else None
    small = host.private if full == "private" else host.root / "release"
    small.mkdir(exist_ok=True)
    program = (
        "from ansible_collections.nodeops.pm2.plugins.module_utils.host import _errors, _redact\n"
        "from ansible_collections.nodeops.pm2.plugins.module_utils.source import _fetch\n"
        f"source = _fetch.source_of(dict(type='git', address={str(origin.path)!r}))\n"
        "try:\n"
        f"    look = _fetch.Inspection({look.revision if look else ''!r}, True)\n"
        "    if not look.revision:\n"
        f"        look = _fetch.inspect(source, {str(host.private)!r}, False, _redact.Redactor())\n"
        f"    _fetch.fetch(source, look, {str(host.private)!r}, {str(host.root / 'release')!r}, _redact.Redactor())\n"
        "except _errors.NodeopsError as error:\n"
        "    print(error)\n"
    )
    mount = f'mount -t tmpfs -o size=2m none {shlex.quote(str(small))} && exec {shlex.quote(sys.executable)} -c "$0"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, program],
        env={**os.environ, "PYTHONPATH": str(places.COLLECTIONS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"The disk that holds {small} is full" in done.stdout, done.stdout + done.stderr
