# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Offsite copies, with the real restic and rsync: there and back, damage there, what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _offsite
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup
from support import debian
from support.apps import free_port

RESTIC, RSYNC = debian.program("restic", "restic"), debian.program("rsync", "rsync")
pytestmark = pytest.mark.skipif(not (RESTIC and RSYNC), reason=debian.why_not("restic or rsync", "restic rsync"))
USER = "shop"
SECRET = "kanarienvogel"


class Site:
    """A store, and options that say where its copy goes."""

    def __init__(self, place: Path, tool: str, **options: Any) -> None:
        self.place = place
        self.dest = place / "store"
        self.store = Store(str(self.dest), create=True)
        self.options = {"dest": str(self.dest), "tool": tool, **options}
        self.warnings: List[str] = []

    def backup(self, good: bool = True, size: int = 3000) -> Backup:
        with self.store.lock("Nothing", 1):
            with self.store.draft("pm2") as draft:
                draft.write("dump", os.urandom(size))
                made = draft.commit("production", None, {}, {})
            return self.store.note_verified(made, "bytes", [] if good else ["damaged"])

    def copy(self, check_mode: bool = False, **options: Any) -> Dict[str, Any]:
        params = {name: spec.get("default") for name, spec in _offsite.ARGUMENTS.items()}
        return _offsite.run({**params, **self.options, **options}, check_mode, self.warnings.append)

    def refused(self, words: str, **options: Any) -> None:
        with pytest.raises(NodeopsError) as caught:
            self.copy(**options)
        assert words in str(caught.value)
        assert SECRET not in f"{caught.value} {caught.value.details}"

    def lose(self) -> None:
        """The host is gone but for the key."""
        shutil.rmtree(self.dest)
        self.dest.mkdir(mode=0o700)


def secret(path: Path, text: str = SECRET) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture(name="restic")
def _restic(tmp_path: Path) -> Site:
    password = secret(tmp_path / "password")
    return Site(tmp_path, "restic", repository=str(tmp_path / "repository"), password_file=password, init=True)


@pytest.fixture(name="rsync")
def _rsync(tmp_path: Path) -> Site:
    (tmp_path / "there").mkdir(exist_ok=True)
    return Site(tmp_path, "rsync", target=str(tmp_path / "there"))


DAEMON = """\
use chroot = no
port = {port}
address = 127.0.0.1
[backups]
  path = {path}
  read only = no
  auth users = {user}
  secrets file = {secrets}
"""


@pytest.fixture(name="remote")
def _remote(tmp_path: Path) -> Iterator[Site]:
    """By an rsync daemon that wants a password."""
    (tmp_path / "there").mkdir(exist_ok=True)
    port = free_port()
    secrets = secret(tmp_path / "secrets", f"{USER}:{SECRET}")
    configuration = tmp_path / "rsyncd.conf"
    uid = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
    configuration.write_text(uid + DAEMON.format(port=port, path=tmp_path / "there", user=USER, secrets=secrets))
    argv = ["rsync", "--daemon", "--no-detach", f"--config={configuration}"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as daemon:
        url = f"rsync://{USER}@127.0.0.1:{port}/backups"
        site = Site(tmp_path, "rsync", target=url, password_file=secret(tmp_path / "password"))
        deadline = time.monotonic() + 10
        while subprocess.run(["rsync", url.rpartition("/")[0]], check=False, capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield site
        daemon.kill()


def brought_back(site: Site) -> None:
    """As docs/backup.md says it."""
    site.lose()
    if site.options["tool"] == "restic":
        argv = ["restic", "-r", site.options["repository"], "--password-file", site.options["password_file"]]
        subprocess.run([*argv, "restore", "latest", "--target", str(site.dest)], check=True, capture_output=True)
    else:
        password = site.options.get("password_file")
        argv = ["rsync", "--recursive", "--times", "--chmod=D0700,F0600", "--perms"]
        argv += [f"--password-file={password}"] if password else []
        argv += [site.options["target"] + "/", f"{site.dest}/"]
        subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.parametrize("where", ["restic", "rsync", "remote"])
def test_there_and_back(where: str, request: pytest.FixtureRequest) -> None:
    """Good backups only; idempotent; check mode changes nothing; what comes back is believed, byte by byte."""
    site: Site = request.getfixturevalue(where)
    good = [site.backup(), site.backup()]
    bad = site.backup(good=False)
    assert site.copy(check_mode=True)["changed"]
    first = site.copy()
    assert first["changed"]
    assert first["files"] == 6
    assert first["bytes"] > 6000
    assert first["backups"] == [each.id for each in good]
    assert bad.id in site.warnings[0]
    assert not site.copy(check_mode=True)["changed"]
    again = site.copy(check="data")
    assert (again["changed"], again["checked"], again["files"]) == (False, "data", 0)
    good.append(site.backup())
    third = site.copy()
    assert third["changed"]
    assert 3 <= third["files"] <= 3 + (where == "restic")
    brought_back(site)
    store = Store(str(site.dest))
    assert store.backups() == good
    assert [store.check_files(each) for each in good] == [[], [], []]
    assert store.broken() == []
    leaked = [path for path in site.dest.parent.rglob("*.key") if path != Path(site.store.key_file)]
    assert leaked == []


def test_without_a_good_backup_nothing_is_copied(rsync: Site, restic: Site) -> None:
    for site in (rsync, restic):
        site.refused("There is no good backup")
    rsync.backup(good=False)
    rsync.refused("There is no good backup")
    assert os.listdir(rsync.options["target"]) == []
    assert not Path(restic.options["repository"]).exists()


def test_what_went_bad_here_stays_there(rsync: Site) -> None:
    """Also with delete: only what is gone here goes there."""
    gone, worse, fine = rsync.backup(), rsync.backup(), rsync.backup()
    rsync.copy()
    with rsync.store.lock("Nothing", 1):
        rsync.store.remove(gone)
    (Path(worse.path) / "manifest.json").write_text("{}")
    rsync.copy()
    there = Path(rsync.options["target"])
    assert sorted(os.listdir(there)) == sorted([gone.id, worse.id, fine.id])
    result = rsync.copy(delete=True)
    assert (result["changed"], result["removed"]) == (True, 4)  # three files and their directory
    assert sorted(os.listdir(there)) == sorted([worse.id, fine.id])
    assert (there / worse.id / "manifest.json").read_text() != "{}"


def test_what_this_store_never_removed_stays_there(rsync: Site) -> None:
    """Also with delete: files of others, and all that an earlier store of this host has sent there."""
    lost, kept = rsync.backup(), rsync.backup()
    rsync.copy(delete=True)
    there = Path(rsync.options["target"])
    (there / "of-another-host").mkdir()
    (there / "of-another-host" / "letter").write_text("x")
    shutil.rmtree(lost.path)
    assert rsync.copy(delete=True)["changed"] is False
    for key in (rsync.store.key_file, None):
        rsync.lose()
        if key is None:
            os.unlink(rsync.store.key_file)
        rsync.store = Store(str(rsync.dest), create=True)
        new = rsync.backup()
        assert rsync.copy(delete=True, check="data")["removed"] == 0
        assert {"of-another-host", lost.id, kept.id, new.id} <= set(os.listdir(there))


@pytest.mark.parametrize("check", ["structure", "data"])
def test_damage_there_is_found(rsync: Site, check: str) -> None:
    made = rsync.backup()
    rsync.copy()
    copied = Path(rsync.options["target"], made.id, "dump")
    when = copied.stat()
    data = bytearray(copied.read_bytes())
    data[7] ^= 1
    copied.write_bytes(data)
    os.utime(copied, ns=(when.st_atime_ns, when.st_mtime_ns))
    if check == "data":
        rsync.refused("1 files there differ from those here", check=check)
    else:
        assert rsync.copy(check=check)["checked"] == check  # size and time are the same


def test_damage_in_a_repository_is_found(restic: Site) -> None:
    restic.backup(size=200_000)
    restic.copy()
    packs = sorted(Path(restic.options["repository"], "data").rglob("*"), key=lambda path: path.stat().st_size)
    pack = packs[-1]
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.write_bytes(data)
    restic.refused("restic", check="data")


def test_a_backup_that_goes_meanwhile(restic: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed after the list was made: the rest is copied."""
    gone, stays = restic.backup(), restic.backup()
    backups = Store.backups

    def then_one_goes(store: Store, *given: Any, **named: Any) -> List[Backup]:
        found = backups(store, *given, **named)
        shutil.rmtree(gone.path, ignore_errors=True)
        return found

    monkeypatch.setattr(Store, "backups", then_one_goes)
    restic.copy()
    monkeypatch.undo()
    brought_back(restic)
    assert Store(str(restic.dest)).backups() == [stays]


def test_what_stands_beside_the_backups_stays_here(restic: Site) -> None:
    """And keeps nothing of a backup from being copied, whatever it is called."""
    strange = restic.place / "st[r]a*nge $HOME"
    strange.mkdir()
    options = {name: value for name, value in restic.options.items() if name not in ("dest", "tool")}
    site = Site(strange, "restic", **options)
    made = site.backup()
    for name in ("manifest.json", "dump", ".hidden", "# a", "$HOME"):
        (site.dest / name).write_text("x")
    site.copy()
    assert not site.copy()["changed"]
    brought_back(site)
    store = Store(str(site.dest))
    assert store.backups() == [made]
    assert store.check_files(made) == []
    assert os.listdir(site.dest) == [made.id]


def test_a_snapshot_that_is_not_complete_is_made_again(restic: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """restic makes one, with its tags, also where it could not read a file; its exit code is then 3."""
    made = restic.backup()
    dump = Path(made.path) / "dump"
    copy = _offsite._Job.copy

    def without_dump(job: Any, *given: Any) -> str:
        dump.rename(restic.place / "away")
        copy(job, *given)
        (restic.place / "away").rename(dump)
        raise NodeopsError("restic ended with exit code 3", {"rc": 3})

    monkeypatch.setattr(_offsite._Job, "copy", without_dump)
    restic.refused("exit code 3")
    monkeypatch.undo()
    assert restic.copy(check_mode=True)["changed"]
    assert restic.copy()["files"] == 1
    assert not restic.copy()["changed"]
    brought_back(restic)
    assert Store(str(restic.dest)).check_files(made) == []


def test_many_backups_are_one_snapshot(restic: Site) -> None:
    """What restic says of them is longer than what is kept of a command's output for a message."""
    backups = [restic.backup(size=10) for _backup in range(90)]
    assert restic.copy()["changed"]
    again = restic.copy()
    assert not again["changed"]
    assert again["backups"] == [backup.id for backup in backups]


def test_before_the_first_backup_a_check_finds_nothing_wrong(rsync: Site, restic: Site) -> None:
    for site in (rsync, restic):
        shutil.rmtree(site.dest, ignore_errors=True)
        assert site.copy(check_mode=True)["changed"]
        with pytest.raises(NodeopsError, match="does not take"):
            site.copy(check_mode=True, ssh_port=1, keep_last=1)
        assert not site.dest.exists()


def test_a_repository_that_is_not_there_is_not_made_unasked(restic: Site) -> None:
    restic.backup()
    restic.refused("make it with init: true", init=False)
    assert not Path(restic.options["repository"]).exists()
    assert restic.copy(check_mode=True)["changed"]
    assert not Path(restic.options["repository"]).exists()


def test_the_wrong_password(restic: Site, remote: Site, tmp_path: Path) -> None:
    wrong = secret(tmp_path / "wrong", "wrong")
    restic.backup()
    restic.copy()
    restic.refused("wrong password", password_file=wrong)
    remote.backup()
    remote.refused("auth failed", password_file=wrong)


def test_a_place_that_is_not_there(rsync: Site, tmp_path: Path) -> None:
    rsync.backup()
    rsync.refused("exit code", target=str(tmp_path / "no" / "such"))
    rsync.refused("exit code", target="rsync://127.0.0.1:1/backups")
    port, key = free_port(), secret(tmp_path / "key")
    by_ssh = {"target": "nobody@127.0.0.1:/x", "ssh_port": port, "ssh_key_file": key, "known_hosts_file": key}
    rsync.refused(f"connect to host 127.0.0.1 port {port}: Connection refused", **by_ssh)


WRONG: Dict[str, Callable[[Path], Dict[str, Any]]] = {
    "rsync does not take repository": lambda place: {"repository": "x"},
    "rsync does not take keep_monthly": lambda place: {"keep_monthly": 1},
    "rsync needs target": lambda place: {"target": None},
    "'--daemon' is not a place": lambda place: {"target": "--daemon"},
    "has a password in it": lambda place: {"target": f"rsync://u:{SECRET}@host/x"},
    "mode 0600": lambda place: {"password_file": str(open_file(place / "open"))},
    "No such file": lambda place: {"ssh_key_file": str(place / "missing")},
    "no spaces": lambda place: {"known_hosts_file": str(place / "a b")},
    "restic does not take target": lambda place: {"tool": "restic"},
    "either repository or": lambda place: {"tool": "restic", "target": None},
    "restic needs password_file": lambda place: {"tool": "restic", "target": None, "repository": "/x"},
    "Put the address into repository_file": lambda place: {
        "tool": "restic",
        "target": None,
        "repository": f"rest:https://u:{SECRET}@host/",
    },
    "keep_last cannot be -1": lambda place: {
        "tool": "restic",
        "target": None,
        "repository": "/x",
        "password_file": secret(place / "p"),
        "keep_last": -1,
    },
    "absolute path": lambda place: {"dest": "/tmp/../x"},
}


def open_file(path: Path) -> Path:
    path.write_text("x")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("words", WRONG)
def test_refused(rsync: Site, words: str) -> None:
    rsync.backup()
    rsync.refused(words, **WRONG[words](rsync.place))
    assert os.listdir(rsync.options["target"]) == []


def test_keep_rules_of_the_repository_and_no_secret_in_a_command_line(
    restic: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: List[str] = []
    popen = subprocess.Popen

    def noting(argv: Any, *given: Any, **named: Any) -> Any:
        seen.append(f"{argv} {named.get('env')}")
        return popen(argv, *given, **named)

    monkeypatch.setattr(subprocess, "Popen", noting)
    restic.backup()
    restic.copy()
    restic.backup()
    restic.copy(keep_last=1, check="structure")
    assert len(seen) >= 6
    assert SECRET not in " ".join(seen)
    argv = ["restic", "-r", restic.options["repository"], "--password-file", restic.options["password_file"]]
    told = subprocess.run([*argv, "snapshots", "--json"], check=True, capture_output=True, text=True).stdout
    assert told.count('"short_id"') == 1
