# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup store: bits flipped, runs killed at each of their steps, full disks, two writers, odd places.

Core flips some bits and kills at some steps; full does so at each.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import (
    _documents,
    _retention,
    _signing,
    _stored_backup,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
SOMEBODY = 61234
CONTENT = {"app.env": b"SECRET=1\n", "dump": bytes(range(256)) * 3, "empty": b""}


@pytest.fixture(name="dest")
def _dest(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(name="store")
def _new_store(dest: Path) -> Store:
    return Store(str(dest), create=True)


def make(store: Store, kind: str = "pm2", problems: Optional[List[str]] = (), **given: Any) -> Backup:  # type: ignore[assignment]
    """A backup with this verification; None for none."""
    with store.lock("No backup was made", 5):
        with store.draft(kind) as draft:
            for name, data in CONTENT.items():
                draft.write(name, data, mode="0640")
            content = given.get("content", {"entries": 1})
            made = draft.commit(
                given.get("environment", "production"), given.get("namespace"), {"pm2": "7.0.4"}, content
            )
        return made if problems is None else store.note_verified(made, "bytes", list(problems))


def refused(words: str, call: Callable[..., Any], *given: Any, **named: Any) -> str:
    """What it says when it refuses, which contains `words`."""
    with pytest.raises(NodeopsError) as caught:
        call(*given, **named)
    assert words in str(caught.value)
    return str(caught.value)


def names(directory: Path) -> List[str]:
    return sorted(os.listdir(directory))


# -- what a backup is ------------------------------------------------------------------------------------------------


def test_a_backup(store: Store, dest: Path) -> None:
    made = make(store, namespace="shop", content={"databases": {"b": 1, "a": (1, "ü\udc80")}})
    assert names(dest) == [".nodeops", made.id]
    assert store.backups() == [made]
    assert store.check_files(made) == []
    assert store.broken() == []
    assert made.good
    assert made.scope == ("pm2", "production", "shop", ("a", "b"))
    assert made.size == sum(map(len, CONTENT.values()))
    assert made.manifest["host"] == socket.gethostname()
    assert abs((made.created - _stored_backup.now()).total_seconds()) < 60
    assert made.id.startswith(made.created.strftime("%Y%m%dT%H%M%SZ-pm2-"))
    for name, data in CONTENT.items():
        assert Path(made.path, name).read_bytes() == data
    assert [each["mode"] for each in made.manifest["files"]] == ["0640"] * 3
    assert made.verification
    assert made.verification["how"] == "bytes"


def test_all_of_it_is_closed_to_others(store: Store, dest: Path) -> None:
    former = os.umask(0)
    try:
        with store.lock("Nothing", 1), store.draft("pm2") as draft:
            Path(draft.path("wide")).write_text("open")
            draft.add("wide")
            draft.commit(None, None, {}, {})
        make(store)
    finally:
        os.umask(former)
    for place, directories, files in os.walk(dest):
        assert os.stat(place).st_mode & 0o7777 == 0o700
        for name in files:
            assert os.stat(os.path.join(place, name)).st_mode & 0o7777 == 0o600, name
        assert directories is not None
    assert Path(store.key_file).stat().st_mode & 0o7777 == 0o600


def test_a_draft_that_is_not_committed_leaves_nothing(store: Store, dest: Path) -> None:
    with store.lock("Nothing", 1):
        with contextlib.suppress(KeyError), store.draft("pm2") as draft:
            draft.write("a", b"1")
            raise KeyError
        assert names(dest) == [".nodeops"]
        with store.draft("pm2") as draft:
            draft.write("a", b"1")
    assert names(dest) == [".nodeops"]


def test_what_was_not_added_is_a_mistake(store: Store, dest: Path) -> None:
    with store.lock("Nothing", 1):
        with store.draft("pm2") as draft:
            Path(draft.path("a")).write_text("1")
            with pytest.raises(RuntimeError, match="not added"):
                draft.commit(None, None, {}, {})
        for name in ("../a", "a/b", ".hidden", "", "manifest.json", "verified.json", "a\n", "ü"):
            with pytest.raises(ValueError, match="cannot be the name"), store.draft("pm2") as draft:
                draft.write(name, b"")
    assert names(dest) == [".nodeops"]


def test_the_order_is_that_of_making_whatever_the_clock_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(store)
    monkeypatch.setattr(_stored_backup, "now", lambda: first.created.replace(year=2001))
    second = make(store)
    assert second.id < first.id
    assert [each.id for each in store.backups()] == [first.id, second.id]
    assert store.find("latest", "pm2").id == second.id


def test_a_number_is_never_given_twice(store: Store, dest: Path) -> None:
    for _number in range(3):
        last = make(store)
    with store.lock("Nothing", 1):
        for each in store.backups():
            store.remove(each)
    assert make(store).sequence == last.sequence + 1
    (dest / ".nodeops" / "sequence").write_text("rubbish")
    assert make(store).sequence == last.sequence + 2
    (dest / ".nodeops" / "sequence").unlink()
    assert make(store).sequence == last.sequence + 3


def test_what_was_removed_is_remembered_also_when_the_run_was_killed(store: Store, dest: Path) -> None:
    first, second = make(store), make(store)
    with store.lock("Nothing", 1):
        store.remove(first)
        os.rename(dest / second.id, dest / f".removed-{second.id}")  # as far as a killed one comes
        assert store.sweep() == [f".removed-{second.id}"]
    assert store.removed() == {first.id, second.id}


def test_without_the_lock_nothing_is_written(store: Store) -> None:
    made = make(store)
    for call in (lambda: store.remove(made), lambda: store.note_verified(made, "bytes", []), store.sweep):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(RuntimeError), store.draft("pm2"):
        pass


# -- a store ---------------------------------------------------------------------------------------------------------


def test_a_store_is_made_only_when_asked_for(dest: Path, tmp_path: Path) -> None:
    store = Store(str(dest))
    assert not store.exists
    assert (store.backups(), store.broken()) == ([], [])
    refused("no backup store at", store.find, "latest", "pm2")
    with (
        pytest.raises(NodeopsError, match="Nothing was restored: there is no backup store"),
        store.lock("Nothing was restored", 1),
    ):
        pass
    assert names(tmp_path) == []
    deep = tmp_path / "a" / "b" / "store"
    assert Store(str(deep) + "/", create=True).exists
    assert names(deep.parent) == ["store", "store.key"]


def test_an_empty_directory_becomes_one(dest: Path) -> None:
    dest.mkdir(mode=0o755)
    (dest / "lost+found").mkdir()
    store = Store(str(dest), create=True)
    make(store)
    assert store.broken() == []
    assert dest.stat().st_mode & 0o7777 == 0o700


def test_a_directory_with_something_else_does_not(dest: Path) -> None:
    dest.mkdir()
    (dest / "mail").write_text("x")
    refused("not empty (mail)", Store, str(dest), create=True)
    assert names(dest) == ["mail"]
    assert not os.path.exists(str(dest) + ".key")


def test_one_that_was_copied_without_what_is_hidden_in_it_is_one(store: Store, dest: Path) -> None:
    """Fetched back with `cp *`, as a store of its key: nothing but its backups is in it."""
    first, second = make(store), make(store)
    shutil.rmtree(dest / ".nodeops")
    for check_mode in (True, False):
        again = Store(str(dest), create=True, check_mode=check_mode)
        assert again.backups() == [first, second]
    assert make(again).sequence > second.sequence
    assert names(dest)[0] == ".nodeops"


def test_no_backup_of_others_makes_a_directory_a_store(store: Store, dest: Path, tmp_path: Path) -> None:
    """Neither with something else beside it, nor signed with another key; reading it does not make it one either."""
    make(store)
    made = Path(make(store).path)
    shutil.rmtree(dest / ".nodeops")

    def refuse(words: str) -> None:
        before = names(dest)
        refused(words, Store, str(dest), create=True, check_mode=True)
        refused(words, Store, str(dest), create=True)
        assert names(dest) == before

    (dest / "mail").write_text("x")
    refuse("not empty (mail)")
    refused("not empty (mail). Nothing was restored", Store(str(dest)).lock("Nothing was restored", 1).__enter__)
    (dest / "mail").unlink()
    (made / "manifest.json").write_text("{}")
    refuse("its manifest.json is damaged")
    os.rename(store.key_file, tmp_path / "away")
    refuse("its key")
    _signing.ensure(store.key_file)
    refuse("is not signed with the key")
    refused("is not signed with the key", Store(str(dest)).lock("Nothing was restored", 1).__enter__)
    assert ".nodeops" not in names(dest)
    os.rename(tmp_path / "away", store.key_file)
    with Store(str(dest)).lock("Nothing was restored", 1):  # of two backups one is good
        pass


def test_in_check_mode_what_could_not_be_made_is_refused_too(dest: Path, tmp_path: Path) -> None:
    def foreseen() -> Store:
        return Store(str(dest), create=True, check_mode=True)

    assert not foreseen().exists
    assert names(tmp_path) == []
    dest.mkdir()
    (dest / "mail").write_text("x")
    refused("not empty (mail)", foreseen)
    (dest / "mail").unlink()
    assert foreseen().exists
    assert names(dest) == []
    Path(f"{dest}.key").write_text("short")
    refused("mode 0644", foreseen)
    Path(f"{dest}.key").unlink()
    make(Store(str(dest), create=True))
    Path(f"{dest}.key").unlink()
    refused("its key", foreseen)


@pytest.mark.parametrize("given", ["store", "/a/../b", "", "/", "//"])
def test_odd_paths(given: str) -> None:
    refused("backup store", Store, given, create=True)


def test_a_link_is_refused(store: Store, dest: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dest)
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("link", "gone"):
        for create in (False, True):
            refused("is a symbolic link", Store, str(tmp_path / name), create=create)
    assert not (tmp_path / "nowhere").exists()
    assert store.exists


def test_a_file_is_refused(dest: Path) -> None:
    dest.write_text("x")
    refused("is not a directory", Store, str(dest), create=True)
    refused("cannot be used", Store, str(dest / "below"), create=True)


@pytest.mark.parametrize("mode", [0o702, 0o777, 0o1777])
def test_one_that_others_may_write_to_is_refused(store: Store, dest: Path, mode: int) -> None:
    make(store)
    dest.chmod(mode)
    for create in (False, True):
        refused("can be written to by other users", Store, str(dest), create=create)


def test_so_is_one_below_such_a_directory(dest: Path) -> None:
    dest.mkdir()
    dest.chmod(0o777)
    refused(f"{dest} can be written to by other users", Store, str(dest / "store"), create=True)
    assert names(dest) == []


@AS_ROOT
def test_somebody_elses_is_refused(store: Store, dest: Path) -> None:
    make(store)
    os.chown(dest, SOMEBODY, SOMEBODY)
    for create in (False, True):
        refused(f"belongs to uid {SOMEBODY}", Store, str(dest), create=create)


@AS_ROOT
def test_a_user_cannot_take_that_of_root(store: Store, dest: Path, tmp_path: Path) -> None:
    make(store)
    for place in [tmp_path, *tmp_path.parents][:-1]:
        if not place.stat().st_mode & 0o005 == 0o005:
            place.chmod(place.stat().st_mode | 0o055)

    def be_somebody() -> None:
        os.setgid(SOMEBODY)
        os.setuid(SOMEBODY)
        said = refused("run as its owner", Store, str(dest))
        assert "belongs to root and is closed to uid" in said

    assert in_a_child(be_somebody) == 0


def test_the_key_may_not_be_in_the_store(dest: Path) -> None:
    refused("Keep the key outside", Store, str(dest), key_file=str(dest / "key"), create=True)
    assert not dest.exists()


def test_a_key_elsewhere(dest: Path, tmp_path: Path) -> None:
    store = Store(str(dest), key_file=str(tmp_path / "mine"), create=True)
    make(store)
    assert names(tmp_path) == ["mine", "store"]


def test_a_lost_key_is_not_replaced(store: Store, dest: Path) -> None:
    made = make(store)
    os.rename(store.key_file, store.key_file + ".away")
    refused("Put the key back", Store, str(dest), create=True)
    refused("Put the key of this store back", Store(str(dest)).backups)
    os.rename(store.key_file + ".away", store.key_file)
    assert Store(str(dest), create=True).backups() == [made]


# -- finding ---------------------------------------------------------------------------------------------------------


def test_latest_is_the_newest_good_one_of_its_kind(store: Store) -> None:
    good = make(store)
    other = make(store, kind="postgresql")
    make(store, problems=["damaged"])
    make(store, problems=None)
    staging = make(store, environment="staging")
    assert store.find("latest", "pm2", good.scope) == good
    assert store.find("latest", "pm2") == staging
    assert store.find("latest", "postgresql") == other
    assert store.find(good.id, "pm2") == good


def test_what_is_imported_is_in_a_row_of_its_own_and_never_the_latest(store: Store) -> None:
    content: Dict[str, Any] = {"databases": {"shop": {}}}
    imported = make(store, kind="postgresql", content={**content, "imported": {}})
    assert imported.scope == ("imported postgresql", "production", None, ("shop",))
    words = f"An imported backup is never latest. Name it by its id: {imported.id}."
    refused(words, store.find, "latest", "postgresql")
    bad = make(store, kind="postgresql", content=content, problems=["damaged"])
    said = refused(words, store.find, "latest", "postgresql")
    assert f"None of the 1 backups of kind postgresql in {store.dest} is verified as good" in said
    assert f"({bad.id})" in said
    good = make(store, kind="postgresql", content=content)
    again = make(store, kind="postgresql", content={**content, "imported": {}})
    assert store.find("latest", "postgresql") == good
    assert store.find(again.id, "postgresql") == again
    assert store.backups(scope=good.scope) == [bad, good]


@pytest.mark.parametrize(
    "wanted", ["", ".", "..", "../store", "a/b", "/etc", "latest ", "20261124T105400Z-pm2-0a1b2c/../x", "x\0", "\n"]
)
def test_what_is_no_id(store: Store, wanted: str) -> None:
    make(store)
    said = refused("is not the id of a backup", store.find, wanted, "pm2")
    assert store.backups()[0].id in said


def test_finding_says_what_is_wrong(store: Store, dest: Path) -> None:
    refused("There is no backup of kind pm2", store.find, "latest", "pm2")
    good = make(store)
    refused(f"newest good ones are: {good.id}", store.find, "20010101T000000Z-pm2-000000", "pm2")
    refused("is one of kind pm2, and postgresql is needed", store.find, good.id, "postgresql")
    scope = ("pm2", "staging", "shop", ())
    refused("one of pm2 namespace shop in staging is needed", store.find, good.id, "pm2", scope)
    refused("no backup of pm2 namespace shop in staging", store.find, "latest", "pm2", scope)
    bad = make(store, kind="postgresql", problems=["damaged"])
    refused(f"Verify the newest ({bad.id})", store.find, "latest", "postgresql")
    Path(good.path, "manifest.json").unlink()
    refused("cannot be trusted: it has no manifest.json", store.find, good.id, "pm2")
    refused(f"cannot be trusted: {good.id} (it has no manifest.json)", store.find, "latest", "pm2")
    assert store.broken() == [(good.id, "it has no manifest.json")]
    assert names(dest / good.id) == ["app.env", "dump", "empty", "verified.json"]


def rewrite(path: Path, **changes: Any) -> Dict[str, Any]:
    """A signed document that somebody has changed, as carefully as can be."""
    document = {**json.loads(path.read_text()), **changes}
    path.write_bytes(_documents.written(document))
    return document


def test_a_manifest_is_no_verification(store: Store) -> None:
    """Though it is signed, and names the backup."""
    made = make(store, problems=["damaged"])
    shutil.copy(Path(made.path, "manifest.json"), Path(made.path, "verified.json"))
    (found,) = store.backups()
    assert (found.verification, found.good) == (None, False)
    assert store.check_files(found) == ["its verified.json is not a verification"]


def test_forged_manifests_are_not_believed(store: Store, dest: Path, tmp_path: Path) -> None:
    made, other = make(store), make(store)
    manifest = Path(made.path, "manifest.json")
    before = manifest.read_bytes()
    forger = _signing.ensure(str(tmp_path / "forger.key"))
    rewrite(manifest, environment="staging")
    refused("not signed with the key", store.find, made.id, "pm2")
    document = rewrite(manifest, environment="staging")
    rewrite(manifest, hmac=forger.sign(document))
    refused("not signed with the key", store.find, made.id, "pm2")
    manifest.write_bytes(Path(other.path, "manifest.json").read_bytes())
    refused(f"its manifest is that of {other.id}", store.find, made.id, "pm2")
    document = rewrite(manifest, **{**json.loads(before), "format": 2})
    rewrite(manifest, hmac=store.key.sign(document))
    refused("it has format 2", store.find, made.id, "pm2")
    manifest.write_bytes(Path(made.path, "verified.json").read_bytes())
    refused("its manifest.json is not a manifest", store.find, made.id, "pm2")
    manifest.write_bytes(json.dumps(json.loads(before)).encode())  # the same in other words
    refused("is damaged", store.find, made.id, "pm2")
    manifest.unlink()
    manifest.symlink_to(Path(other.path, "manifest.json"))
    refused("cannot be read", store.find, made.id, "pm2")
    manifest.unlink()
    os.mkfifo(manifest)
    refused("not a regular file", store.find, made.id, "pm2")
    manifest.unlink()
    manifest.write_bytes(b"[" * 200000)
    refused("is damaged", store.find, made.id, "pm2")
    manifest.write_bytes(before)
    assert store.find(made.id, "pm2") == made
    assert names(dest) == sorted([".nodeops", made.id, other.id])


def test_a_forged_verification_is_none(store: Store) -> None:
    bad, good = make(store, problems=["damaged"]), make(store)
    path = Path(bad.path, "verified.json")
    rewrite(path, problems=[])
    assert [each.good for each in store.backups()] == [False, True]
    assert store.backups()[0].verification is None
    path.write_bytes(Path(good.path, "verified.json").read_bytes())  # signed, and of another
    assert [each.good for each in store.backups()] == [False, True]


def test_other_things_in_a_store_are_named(store: Store, dest: Path) -> None:
    made = make(store)
    (dest / "notes.txt").write_text("x")
    (dest / "20010101T000000Z-pm2-000000").write_text("x")
    (dest / "20010101T000000Z-pm2-000001").symlink_to(made.path)
    assert dict(store.broken()) == {
        "notes.txt": "its name is not that of a backup",
        "20010101T000000Z-pm2-000000": "it is not a directory",
        "20010101T000000Z-pm2-000001": "it is not a directory",
    }
    assert store.backups() == [made]


# -- damage ----------------------------------------------------------------------------------------------------------


def is_noticed(store: Store, identity: str) -> bool:
    """By whoever looks for it."""
    found = [each for each in store.backups() if each.id == identity]
    return not found or bool(store.check_files(found[0]))


def every(core: int) -> pytest.MarkDecorator:
    """The test with `step`: each `core`-th of what is tried in core, each one in full."""
    steps = [pytest.param(core, id=f"1 of {core}"), pytest.param(1, id="all", marks=pytest.mark.full)]
    return pytest.mark.parametrize("step", steps)


@every(23)
@pytest.mark.parametrize("name", [*CONTENT, "manifest.json", "verified.json"])
def test_a_flipped_bit_is_found(store: Store, name: str, step: int) -> None:
    """Of what is signed any bit, of what has a checksum at least one of any byte."""
    made = make(store)
    path = Path(made.path, name)
    data = path.read_bytes()
    assert not is_noticed(store, made.id)
    for number in range(0, 8 * len(data), step * (1 if name.endswith(".json") else 7)):
        at, bit = divmod(number, 8)
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        assert is_noticed(store, made.id), (name, at, bit)
    for other in (data[:-1], data + b"\n", data + b"\0", data[1:], b""):
        path.write_bytes(other)
        assert is_noticed(store, made.id) == (other != data)
    path.write_bytes(data)
    assert not is_noticed(store, made.id)


def test_a_flipped_bit_in_a_large_file_is_found(store: Store) -> None:
    """In each of its regions of 64 KiB, at its first and at its last byte."""
    with store.lock("Nothing", 1), store.draft("pm2") as draft:
        draft.write("large", random.Random(4).randbytes(2_500_001))
        made = draft.commit(None, None, {}, {})
    with open(os.path.join(made.path, "large"), "r+b", buffering=0) as stream:
        for at in [*range(0, 2_500_001, 65536), 2_500_000]:
            byte = os.pread(stream.fileno(), 1, at)
            os.pwrite(stream.fileno(), bytes([byte[0] ^ 16]), at)
            assert store.check_files(made) == ["large is damaged: its SHA-256 is not the recorded one"]
            os.pwrite(stream.fileno(), byte, at)
    assert store.check_files(made) == []


def _link(path: Path) -> None:
    path.rename(path.parent.parent / "x")
    path.symlink_to("../x")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


DAMAGE: Dict[str, Callable[[Path], object]] = {
    "dump is missing": lambda path: (path / "dump").unlink(),
    "dump has 700 bytes and was written with 768": lambda path: os.truncate(path / "dump", 700),
    "dump is open to other users (mode 0604)": lambda path: (path / "dump").chmod(0o604),
    "dump is a symbolic link": lambda path: _link(path / "dump"),
    "dump is not a regular file": lambda path: _pipe(path / "dump"),
    "more does not belong to it": lambda path: (path / "more").write_text(""),
    ".hidden does not belong to it": lambda path: (path / ".hidden").mkdir(),
    "the directory is open to other users (mode 0750)": lambda path: path.chmod(0o750),
    "manifest.json is open to other users (mode 0644)": lambda path: (path / "manifest.json").chmod(0o644),
    "it has no manifest.json": lambda path: (path / "manifest.json").unlink(),
    "its verified.json is damaged": lambda path: os.truncate(path / "verified.json", 20),
    "the directory cannot be read (No such file or directory)": shutil.rmtree,
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_damage_is_named(store: Store, problem: str) -> None:
    made = make(store)
    DAMAGE[problem](Path(made.path))
    assert problem in store.check_files(made)


@AS_ROOT
def test_a_file_of_somebody_is_a_problem(store: Store) -> None:
    made = make(store)
    os.chown(os.path.join(made.path, "dump"), SOMEBODY, SOMEBODY)
    assert store.check_files(made) == [f"dump belongs to uid {SOMEBODY}"]


# -- two at once -----------------------------------------------------------------------------------------------------

WRITER = """\
import sys
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _store
store = _store.Store(sys.argv[1], create=True)
for number in range(8):
    with store.lock("No backup was made", 60):
        with store.draft("pm2") as draft:
            draft.write("who", sys.argv[2].encode() * 1000)
            draft.commit(None, None, {}, {})
"""


def test_two_writers(dest: Path) -> None:
    """From the first moment: who makes the store, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(dest), name], env=environment) for name in ("a", "b", "c")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    store = Store(str(dest))
    assert [each.sequence for each in store.backups()] == list(range(1, 25))
    assert store.broken() == []
    assert all(store.check_files(each) == [] for each in store.backups())
    assert len(names(dest)) == 25


def test_who_waits_in_vain_is_told_for_whom(store: Store, dest: Path) -> None:
    other = Store(str(dest))
    with store.lock("Nothing", 1), store.lock("Nothing", 1):  # again is free
        start = time.monotonic()
        with (
            pytest.raises(NodeopsError, match="Nothing was restored.*pid %d" % os.getpid()),
            other.lock("Nothing was restored", 0.2),
        ):
            pass
        assert 0.15 < time.monotonic() - start < 60
    with other.lock("Nothing was restored", 0):
        pass


def test_the_lock_of_a_killed_run_is_free(store: Store) -> None:
    def die() -> None:
        with store.lock("Nothing", 1):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(die) == -signal.SIGKILL
    with store.lock("Nothing", 0):
        pass


# -- killed, and full disks ------------------------------------------------------------------------------------------


def in_a_child(call: Callable[[], Any]) -> int:
    """The exit code of a fork of this process that does this: 0, 1 if it raised, negative if a signal ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


EVENTS = ("rename", "fsync", "mkdir", "unlink", "rmdir", "open", "chmod", "fchmod")


def kill_before(step: int) -> None:
    """In a child: before the so manieth call that changes a disk, or named point."""
    met = 0

    def hook() -> None:
        nonlocal met
        met += 1
        if met == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def hooked(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*given: Any, **named: Any) -> Any:
            hook()
            return call(*given, **named)

        return wrapper

    for name in EVENTS:
        setattr(os, name, hooked(getattr(os, name)))
    _points.reached = lambda _point: hook()  # type: ignore[assignment]


def a_run(dest: Path) -> None:
    """A backup, verified, after which the rules remove one."""
    store = Store(str(dest), create=True)
    with store.lock("No backup was made", 5):
        with store.draft("pm2") as draft:
            draft.write("dump", b"x" * 5000)
            Path(draft.path("more")).write_bytes(b"y" * 5000)
            draft.add("more")
            made = draft.commit("production", None, {}, {})
        made = store.note_verified(made, "bytes", store.check_files(made))
        rules = _retention.parse({"keep_last": 2})
        assert rules
        _retention.prune(store, made.scope, rules, _stored_backup.now(), False)


@every(7)
def test_killed_before_a_step(tmp_path: Path, step: int) -> None:
    template = tmp_path / "template"
    for _number in range(2):
        a_run(template / "store")
    before = [each.id for each in Store(str(template / "store")).backups()]
    place = tmp_path / "place"
    for steps in itertools.count(1, step):
        shutil.copytree(template, place)
        dest = place / "store"

        def run(step: int = steps, dest: Path = dest) -> None:
            kill_before(step)
            a_run(dest)

        status = in_a_child(run)
        store = Store(str(dest), create=True)
        with store.lock("Nothing", 0):
            there = store.backups()
            assert names(dest) == sorted([".nodeops", *(each.id for each in there)]), steps
        assert store.broken() == []
        assert [store.check_files(each) for each in there] == [[]] * len(there)
        assert {each.id for each in there} >= {before[1]}
        assert sum(each.good for each in there) >= 2
        a_run(dest)
        after = Store(str(dest)).backups()
        assert after[-1].sequence > max(each.sequence for each in there)
        assert after[-1].good
        assert [each.good for each in after].count(True) == 2
        if status == 0:
            break
        assert status == -signal.SIGKILL
        shutil.rmtree(place)
    assert steps > 40


def test_killed_while_a_store_is_made(tmp_path: Path) -> None:
    for step in range(1, 100):
        dest = tmp_path / str(step) / "store"

        def run(step: int = step, dest: Path = dest) -> None:
            kill_before(step)
            Store(str(dest), create=True)

        status = in_a_child(run)
        a_run(dest)
        assert names(dest.parent) == ["store", "store.key"]
        assert len(Store(str(dest)).backups()) == 1
        if status == 0:
            assert step > 8
            return
    raise AssertionError("it never came to its end")


def _limited(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write(2) fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("size", [0, 1, 10, 100, 400, 4999])
def test_a_full_disk(dest: Path, size: int) -> None:
    """No file may get larger than `size` bytes. Nothing is left, not even until the next run."""
    a_run(dest)
    before = names(dest)

    def run() -> None:
        _limited(size)
        said = refused("The backup was not written", a_run, dest)
        assert "Nothing is left of it" in said
        assert names(dest) == before

    assert in_a_child(run) == 0
    a_run(dest)
    assert len(Store(str(dest)).backups()) == 2


def test_one_that_may_not_last_is_none(store: Store, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its name already, and the disk fails when the name is made durable."""
    make(store)
    before = names(dest)
    sync = _files.sync_directory

    def failing(directory: str) -> None:
        if directory == str(dest):
            raise OSError(5, "Input/output error", directory)
        sync(directory)

    monkeypatch.setattr(_files, "sync_directory", failing)
    assert "Nothing is left of it" in refused("Input/output error", make, store)
    assert names(dest) == before


def test_a_full_disk_for_the_manifest_or_the_verification(dest: Path) -> None:
    a_run(dest)
    before = names(dest)

    def run() -> None:
        store = Store(str(dest))
        made = store.backups()[0]
        with store.lock("Nothing", 1):
            _limited(100)
            with store.draft("pm2") as draft:
                draft.write("small", b"x")
                refused("The backup was not written", draft.commit, None, None, {}, {})
            refused("cannot be noted", store.note_verified, made, "bytes", ["new"])
        assert names(dest) == before
        assert Store(str(dest)).backups() == [made]
        assert store.check_files(made) == []

    assert in_a_child(run) == 0


FULL_DISK = """\
import os, subprocess, sys
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _store
place = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", place], check=True)
store = _store.Store(place + "/store", create=True)
for size in (1000, 100000):
    with store.lock("Nothing", 1):
        try:
            with store.draft("pm2") as draft:
                draft.write("dump", bytes(size))
                draft.commit(None, None, {}, {})
        except _store.NodeopsError as error:
            print(error)
        print(len(store.backups()), len(os.listdir(store.dest)))
"""


def test_a_disk_that_is_really_full_says_what_to_do(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    argv = [*unshare, sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip("no mounts of its own can be had here")
    good, said, still_good = done.stdout.splitlines()
    assert good == still_good == "1 2"
    assert "not written: No space left on device. Make room on its disk, then run again. Nothing is left" in said
