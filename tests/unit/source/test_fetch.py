# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources without a network: options, addresses, directories, archives, and the meaning of a version."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _directory, _fetch, _git, _workspace
from ansible_collections.nodeops.pm2.plugins.module_utils.source._fetch import Source

CANARY = "canary-7f3a91"
SHA = "a" * 64
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----"


def options(**given: Any) -> Dict[str, Any]:
    return given


GOOD: Dict[str, Dict[str, Any]] = {
    "git https": options(type="git", address="https://git.example.org/shop.git"),
    "git with credentials": options(type="git", address=f"https://deploy:{CANARY}@git.example.org:8443/shop.git"),
    "git scp-like": options(type="git", address="git@git.example.org:team/shop.git", key=KEY),
    "git ssh": options(type="git", address="ssh://git@git.example.org:2222/shop.git", key_file="/etc/deploy/key"),
    "git path": options(type="git", address="/srv/git/shop.git", version="v1.0"),
    "git file": options(type="git", address="file:///srv/git/shop.git"),
    "git anonymous": options(type="git", address="git://git.example.org/shop.git", version="refs/tags/v1"),
    "archive on the host": options(type="archive", location="host", address="/srv/shop.tgz", sha256=SHA, strip=1),
    "archive on the controller": options(type="archive", location="controller", address="/ci/shop.tgz", sha256=SHA),
    "archive at a URL": options(
        type="archive", address=f"https://u:{CANARY}@example.org/a.tgz?sig={CANARY}", sha256=SHA
    ),
    "directory on the host": options(type="directory", location="host", address="/srv/shop", exclude=[".git"]),
    "directory on the controller": options(type="directory", address="/ci/shop", revision=SHA),
}


@pytest.mark.parametrize("given", GOOD.values(), ids=GOOD)
def test_valid_options(given: Dict[str, Any]) -> None:
    names = set(Source._fields)
    source = _fetch.source_of({**dict.fromkeys(names), **given})  # Ansible gives None for an option that is not set
    assert source.address == given["address"]
    for name in set(given) - {"exclude", "location"}:
        assert getattr(source, name) == given[name]
    assert CANARY not in repr(source)
    assert "bm90" not in repr(source)
    assert source == _fetch.source_of(given)


def test_defaults_and_the_part_that_the_host_decides() -> None:
    git = _fetch.source_of(options(type="git", location="controller", address="https://e.org/x", version=""))
    assert (git.version, git.location, git.submodules, git.timeout) == ("HEAD", "host", True, 300)
    url = _fetch.source_of(options(type="archive", location="controller", address="http://e.org/x", sha256=SHA.upper()))
    assert (url.location, url.sha256) == ("host", SHA)


BAD: Dict[str, Any] = {
    "type": (options(type="svn", address="/x"), "unknown type 'svn'"),
    "location": (options(type="git", location="moon", address="/x"), "unknown location 'moon'"),
    "no address": (options(type="git", address=""), "has no address"),
    "archive without sha256": (options(type="archive", address="/x"), "archive without sha256"),
    "short sha256": (options(type="archive", address="/x", sha256="abc"), "'abc', which is not 64"),
    "no hexadecimal": (options(type="archive", address="/x", sha256="g" * 64), "which is not 64"),
    "relative archive": (options(type="archive", address="x.tgz", sha256=SHA), "'x.tgz' is not an absolute path"),
    "ftp archive": (options(type="archive", address="ftp://h/x", sha256=SHA), "a path or an http or https URL"),
    "file archive": (options(type="archive", address="file:///x", sha256=SHA), "a path or an http or https URL"),
    "URL without host": (options(type="archive", address="https:///x", sha256=SHA), "is not a usable URL"),
    "URL with a bad port": (options(type="archive", address="https://h:99999/x", sha256=SHA), "is not a usable URL"),
    "negative strip": (options(type="archive", address="/x", sha256=SHA, strip=-1), "strip -1"),
    "strip of git": (options(type="git", address="/x", strip=1), "strip is for archives"),
    "sha256 of a directory": (options(type="directory", address="/x", sha256=SHA), "sha256 is for archives"),
    "relative directory": (options(type="directory", location="host", address="x"), "'x' is not an absolute path"),
    "unnamed directory": (options(type="directory", address="/x"), "without the revision"),
    "relative repository": (options(type="git", address="./x"), "'./x' is not an absolute path"),
    "dash": (options(type="git", address="--upload-pack=x"), "starts with a dash"),
    "dash as a host": (options(type="git", address="ssh://-oProxyCommand=x/y"), "not a usable URL"),
    "ext": (options(type="git", address="ext::sh -c x"), "transport that is not allowed"),
    "fd": (options(type="git", address="fd::17"), "transport that is not allowed"),
    "ftp repository": (options(type="git", address="ftp://h/x"), "transport that is not allowed"),
    "newline": (options(type="git", address="https://h/x\ny"), "control character"),
    "query": (options(type="git", address=f"https://h/x?token={CANARY}"), "has a query"),
    "password for ssh": (
        options(type="git", address=f"ssh://git:{CANARY}@h/x"),
        "has a password, which ssh cannot use",
    ),
    "two keys": (options(type="git", address="git@h:x", key=KEY, key_file="/k"), "both key and key_file"),
    "public key": (options(type="git", address="git@h:x", key="ssh-ed25519 AAAA"), "not a private key"),
    "relative key": (options(type="git", address="git@h:x", key_file="k"), "not an absolute path"),
    "no time": (options(type="git", address="/x", timeout=0), "timeout 0"),
    **{
        f"version {version!r}": (
            options(type="git", address="/x", version=version),
            "cannot be a branch, tag or commit",
        )
        for version in ["--exec=x", "main~1", "v1^{}", "a b", "a..b", "main@{1}", "a:b", "x\n", "/x", "x/", "a.lock"]
    },
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_options_that_are_refused(given: Dict[str, Any], message: str) -> None:
    with pytest.raises(NodeopsError, match=message) as raised:
        _fetch.source_of(given)
    assert CANARY not in str(raised.value)
    assert "Nothing was changed" in str(raised.value)


UNREADABLE = [f"12/{CANARY}", f"p/{CANARY}", f"p#{CANARY}", f"p?{CANARY}", f"p@/{CANARY}", f"[{CANARY}"]
"""Passwords with characters that break the URL they stand in."""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://u:{CANARY}@h:8443/a/b.git", "https://h:8443/a/b.git"),
        (f"https://{CANARY}@h/a", "https://h/a"),
        (f"https://h/a.tgz?X-Signature={CANARY}#{CANARY}", "https://h/a.tgz?..."),
        (f"https://u:p{CANARY}@@h/a", "https://h/a"),
        (f"https://[{CANARY}", "https://..."),
        *((f"https://u:{password}@h/a", "https://...") for password in UNREADABLE),
        (f"https://u:1/{CANARY}@h:x/a", "https://..."),
        (f"https://u:{CANARY}@h:99999/a", "https://..."),
        (f"https://u:{CANARY}/x@h", "https://..."),
        (f"https://u:p@{CANARY} x@h/a", "https://h/a"),
        (f"u:{CANARY}@h:a/b.git", "...@h:a/b.git"),
        (f"u:p@/{CANARY}@h:a/b.git", "...@h:a/b.git"),
        (f"https:/u:{CANARY}@h/a", "...@h/a"),
        ("https://h:8443/@scope/a.tgz", "https://..."),
        ("https://npm.example.org/@scope/a/-/a-1.tgz", "https://npm.example.org/@scope/a/-/a-1.tgz"),
        ("file:///srv/git/@scope/a.git", "file:///srv/git/@scope/a.git"),
        (f"https://a.b/{CANARY}@h/a", "https://..."),
        (f"https://a.b/@{CANARY}@h/a", "https://..."),
        ("/srv/a:b@c", "/srv/a:b@c"),
        ("git@h:a/b.git", "git@h:a/b.git"),
        ("/srv/a b", "/srv/a b"),
    ],
)
def test_the_address_that_is_shown(address: str, shown: str) -> None:
    assert _address.shown(address) == shown


@pytest.mark.parametrize("password", UNREADABLE)
def test_an_unreadable_url_is_hidden_in_the_output_of_git_or_a_build(password: str) -> None:
    address = f"https://u:{password}@h/a"
    redactor = Redactor()
    redactor.add_arguments([address])
    if not password.startswith("["):
        _address.hide(address, redactor)
    assert CANARY not in redactor.text(f"cannot access {address}: {password}")


def test_the_host_before_a_scope_is_not_hidden() -> None:
    redactor = Redactor()
    _address.hide("https://git.example.org/@scope/a.git", redactor)
    assert redactor.text("cannot access git.example.org/@scope") == "cannot access git.example.org/@scope"


def test_credentials_are_decoded_and_belong_to_one_origin() -> None:
    plain, credentials = _address.split_credentials("HTTPS://a%40b:p%3Aq%2F@h:1/x")
    assert plain.lower() == "https://h:1/x"
    assert credentials == _address.Credentials("https://h:1", "a@b", "p:q/")


def test_the_redactor_learns_secrets_and_no_plain_word() -> None:
    redactor = Redactor()
    _address.hide("https://deploy:pa%2Fss-word@h/x?sig=0123456789abcdef&v=1", redactor)
    _address.hide("https://ghp_tokentoken@h/x", redactor)
    said = redactor.text("deploy of v=1: pa/ss-word pa%2Fss-word 0123456789abcdef ghp_tokentoken")
    assert said.startswith("deploy of v=1: ")
    assert not any(secret in said for secret in ("ss-word", "0123456789abcdef", "ghp_token"))


@pytest.mark.parametrize(
    ("parent", "relative", "expected"),
    [
        ("https://h/team/shop.git", "../lib.git", "https://h/team/lib.git"),
        ("https://h/team/shop.git/", "./lib", "https://h/team/shop.git/lib"),
        ("https://h/team/shop.git", "../../other/lib.git", "https://h/other/lib.git"),
        ("git@h:team/shop.git", "../lib.git", "git@h:team/lib.git"),
        ("git@h:shop.git", "../lib.git", "git@h:lib.git"),
        ("/srv/git/shop", "../lib", "/srv/git/lib"),
        ("https://h/shop", "../../lib", None),
    ],
)
def test_the_address_of_a_relative_submodule(parent: str, relative: str, expected: Optional[str]) -> None:
    if expected is None:
        with pytest.raises(NodeopsError, match="above the root"):
            _address.join(parent, relative)
    else:
        assert _address.join(parent, relative) == expected


ONE, TWO, THREE = "1" * 40, "2" * 40, "3" + "1" * 39
OBJECTS = {
    "HEAD": ONE,
    "refs/heads/main": ONE,
    "refs/heads/both": ONE,
    "refs/tags/both": TWO,
    "refs/heads/agreed": TWO,
    "refs/tags/agreed": TWO,
    "refs/tags/v1": TWO,
    "refs/heads/3111": TWO,
    "refs/heads/feature/x": THREE,
}


def resolved(version: str) -> Optional[str]:
    def starting_with(digits: str) -> List[str]:
        return [commit for commit in (ONE, TWO, THREE, "22" + "0" * 38) if commit.startswith(digits)]

    return _git.resolve(version, _git.Names(OBJECTS, starting_with), "https://h/x")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("HEAD", ONE),
        ("main", ONE),
        ("feature/x", THREE),
        ("v1", TWO),
        ("refs/heads/both", ONE),
        ("refs/tags/both", TWO),
        ("agreed", TWO),
        ("3111", TWO),  # a name wins over an abbreviated commit, as in git
        ("31111", THREE),
        ("1111", ONE),
        ("111", None),
        ("x", None),
        ("Main", None),
    ],
)
def test_the_commit_that_a_version_means(version: str, expected: Optional[str]) -> None:
    assert resolved(version) == expected


def test_an_ambiguous_version_is_refused() -> None:
    with pytest.raises(
        NodeopsError, match=r"'both' is a branch \(1{12}\) and a tag \(2{12}\).*Give refs/heads/both or"
    ):
        resolved("both")
    with pytest.raises(NodeopsError, match=r"'2222' is the start of 1|\(2{16}"):
        _git.resolve("2222", _git.Names({}, lambda _digits: [TWO, "2" * 39 + "0"]), "https://h/x")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "app" / ".nodeops"
    path.mkdir(parents=True, mode=0o700)
    return path


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "app" / "releases" / "1"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "lib").mkdir(parents=True)
    (path / "node_modules" / "x").mkdir(parents=True)
    (path / "node_modules" / "x" / "i.js").write_text("i")
    (path / "lib" / "a.js").write_text("a")
    (path / "run").write_text("r")
    (path / "run").chmod(0o700)
    (path / "out").symlink_to("/etc/hostname")
    (path / ".env.example").write_text("PORT=\n")
    os.utime(path / "run", (1000, 1000))
    return path


def on_host(root: Path, **more: Any) -> Source:
    return _fetch.source_of(options(type="directory", location="host", address=str(root), **more))


def test_a_directory_on_the_host(root: Path, private: Path, dest: Path) -> None:
    source = on_host(root, exclude=["node_modules"])
    look = _fetch.inspect(source, str(private), False, Redactor())
    assert look == _fetch.Inspection(_directory.read(str(root), ["node_modules"]).revision, True)
    assert _fetch.read_file(source, look, str(private), ".env.example") == "PORT=\n"
    assert _fetch.read_file(source, look, str(private), "missing") is None
    assert _fetch.read_file(source, look, str(private), "lib") is None
    assert _fetch.read_file(source, look, str(private), "node_modules/x/i.js") is None
    _fetch.fetch(source, look, str(private), str(dest), Redactor())
    assert _directory.read(str(dest), []).revision == look.revision
    assert not (dest / "node_modules").exists()
    assert os.readlink(dest / "out") == "/etc/hostname"
    assert stat.S_IMODE((dest / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((dest / "lib/a.js").stat().st_mode) == 0o644
    assert (dest / "run").stat().st_mtime == 1000


def test_a_directory_that_changes_between_look_and_fetch_is_refused(root: Path, private: Path, dest: Path) -> None:
    look = _fetch.inspect(on_host(root), str(private), False, Redactor())
    (root / "run").write_text("other")
    with pytest.raises(NodeopsError, match="it changed meanwhile"):
        _fetch.fetch(on_host(root), look, str(private), str(dest), Redactor())


def test_a_pipe_in_a_directory_is_refused(root: Path, private: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(NodeopsError, match="pipe is not a file"):
        _fetch.inspect(on_host(root), str(private), False, Redactor())


def test_a_missing_directory_is_refused(tmp_path: Path, private: Path) -> None:
    with pytest.raises(NodeopsError, match="does not exist on this host"):
        _fetch.inspect(on_host(tmp_path / "none"), str(private), True, Redactor())


def test_a_directory_that_holds_the_releases_is_refused(tmp_path: Path, root: Path) -> None:
    private = root / "deploy" / "shop" / ".nodeops"
    private.mkdir(parents=True)
    with pytest.raises(NodeopsError, match="holds the directory of the releases"):
        _fetch.inspect(on_host(root), str(private), False, Redactor())
    with pytest.raises(NodeopsError, match="holds the directory of the releases"):
        _fetch.inspect(on_host(root / "deploy" / "shop"), str(private), False, Redactor())
    assert _fetch.inspect(on_host(root, exclude=["/deploy"]), str(private), False, Redactor()).known


def test_a_target_that_is_not_empty_is_refused(root: Path, private: Path, dest: Path) -> None:
    (dest / "x").touch()
    with pytest.raises(NodeopsError, match="is not empty"):
        _fetch.fetch(on_host(root), _fetch.Inspection(SHA, True), str(private), str(dest), Redactor())
    assert os.listdir(dest) == ["x"]


def test_a_directory_of_the_controller(tmp_path: Path, root: Path, private: Path, dest: Path) -> None:
    upload = tmp_path / "upload"
    packed = _directory.pack(str(root), ["node_modules"], str(upload))
    given = options(type="directory", location="controller", address=str(root), revision=packed.revision)
    source = _fetch.source_of(given)
    look = _fetch.inspect(source, str(private), True, Redactor())
    assert look == _fetch.Inspection(packed.revision, False)
    assert _fetch.read_file(source, look, str(private), ".env.example") is None
    with pytest.raises(NodeopsError, match="was not uploaded"):
        _fetch.fetch(source, look, str(private), str(dest), Redactor())

    source = _fetch.source_of({**given, "archive": str(upload)})
    look = _fetch.inspect(source, str(private), False, Redactor())
    assert look == _fetch.Inspection(packed.revision, True)
    assert _fetch.read_file(source, look, str(private), ".env.example") == "PORT=\n"
    _fetch.fetch(source, look, str(private), str(dest), Redactor())
    assert _directory.read(str(dest), []) == packed
    assert os.readlink(dest / "out") == "/etc/hostname"


def test_an_upload_with_another_sha256_is_refused(tmp_path: Path, root: Path, private: Path, dest: Path) -> None:
    upload = tmp_path / "upload"
    revision = _directory.read(str(root), []).revision
    (root / "run").write_text("other")
    _directory.pack(str(root), [], str(upload))
    source = _fetch.source_of(options(type="directory", address=str(root), revision=revision, archive=str(upload)))
    with pytest.raises(NodeopsError, match=f"revision .*, not {revision[:12]}"):
        _fetch.fetch(source, _fetch.Inspection(revision, True), str(private), str(dest), Redactor())


def archive_of(root: Path, path: Path) -> str:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / "lib", "shop/lib")
        archive.add(root / ".env.example", "shop/.env.example")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("location", ["host", "controller"])
def test_an_archive(tmp_path: Path, root: Path, private: Path, dest: Path, location: str) -> None:
    path = tmp_path / "shop.tgz"
    sha256 = archive_of(root, path)
    given = options(type="archive", location=location, address=str(path), sha256=sha256, strip=1, archive=str(path))
    source = _fetch.source_of(given)
    look = _fetch.inspect(source, str(private), False, Redactor())
    assert look == _fetch.Inspection(sha256, True)
    assert _fetch.read_file(source, look, str(private), ".env.example") == "PORT=\n"
    _fetch.fetch(source, look, str(private), str(dest), Redactor())
    assert sorted(os.listdir(dest)) == [".env.example", "lib"]


def test_an_archive_with_another_sha256_is_refused_at_once_and_in_check_mode(
    tmp_path: Path, root: Path, private: Path, dest: Path
) -> None:
    path = tmp_path / "shop.tgz"
    archive_of(root, path)
    source = _fetch.source_of(options(type="archive", location="host", address=str(path), sha256=SHA))
    for check_mode in (True, False):
        with pytest.raises(NodeopsError, match="has the SHA-256"):
            _fetch.inspect(source, str(private), check_mode, Redactor())
    with pytest.raises(NodeopsError, match="has the SHA-256"):
        _fetch.fetch(source, _fetch.Inspection(SHA, True), str(private), str(dest), Redactor())
    assert os.listdir(dest) == []


def test_a_missing_archive_is_refused(tmp_path: Path, private: Path) -> None:
    source = _fetch.source_of(options(type="archive", location="host", address=str(tmp_path / "none"), sha256=SHA))
    with pytest.raises(NodeopsError, match="cannot be read: No such file"):
        _fetch.inspect(source, str(private), False, Redactor())


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_no_file_outside_the_source_is_read(root: Path, private: Path, path: str) -> None:
    with pytest.raises(NodeopsError, match="is not a path in the source"):
        _fetch.read_file(on_host(root), _fetch.Inspection(SHA, True), str(private), path)


def test_the_rest_of_a_killed_run_is_removed_by_the_next_run_and_not_in_check_mode(root: Path, private: Path) -> None:
    left = private / (_workspace.PREFIX + "killed")
    left.mkdir(mode=0o700)
    (left / "key").write_text(KEY)
    (private / "mirror.git").mkdir()
    before = private.stat().st_mtime_ns
    _fetch.inspect(on_host(root), str(private), True, Redactor())
    assert left.exists()
    assert private.stat().st_mtime_ns == before
    _fetch.inspect(on_host(root), str(private), False, Redactor())
    assert sorted(os.listdir(private)) == ["mirror.git", "source.lock"]


def test_a_process_that_survived_a_killed_run_is_waited_for(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workspace, "_SURVIVOR_WAIT", 0.2)
    with _workspace.workspace(str(private), False):
        with pytest.raises(NodeopsError, match="still works in"):
            with _workspace.workspace(str(private), False):
                pytest.fail("two work at the same time")
    with _workspace.workspace(str(private), False) as place:
        assert stat.S_IMODE(os.stat(place.directory).st_mode) == 0o700
    assert not os.path.exists(place.directory)
