# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encryption, with the real age."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import List, NamedTuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _encryption
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup
from support import debian

AGE = debian.program("age", "age")
pytestmark = pytest.mark.skipif(not AGE, reason=debian.why_not("age", "age"))
DATA = bytes(range(256)) * 2000


class Pair(NamedTuple):
    identity: str
    recipient: str


def pair(directory: Path, name: str) -> Pair:
    path = directory / name
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    public = subprocess.run(["age-keygen", "-y", str(path)], check=True, capture_output=True, text=True)
    return Pair(str(path), public.stdout.strip())


@pytest.fixture(name="keys")
def _keys(tmp_path: Path) -> Pair:
    return pair(tmp_path, "identity")


@pytest.fixture(name="sealed")
def _sealed(tmp_path: Path, keys: Pair) -> Path:
    (tmp_path / "plain").write_bytes(DATA)
    _encryption.encrypt(str(tmp_path / "plain"), str(tmp_path / "sealed"), [keys.recipient])
    return tmp_path / "sealed"


def left(directory: Path) -> List[str]:
    return sorted(set(os.listdir(directory)) - {"identity", "plain", "sealed"})


def test_there_and_back(tmp_path: Path, sealed: Path, keys: Pair) -> None:
    assert DATA[:1000] not in sealed.read_bytes()
    assert sealed.stat().st_mode & 0o7777 == 0o600
    _encryption.decrypt(str(sealed), str(tmp_path / "back"), keys.identity)
    assert (tmp_path / "back").read_bytes() == DATA
    assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o600
    assert left(tmp_path) == ["back"]


def test_any_of_several_can_read_it(tmp_path: Path, sealed: Path, keys: Pair) -> None:
    other = pair(tmp_path, "other")
    ssh = tmp_path / "ssh"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh)], check=True)
    recipients = [keys.recipient, other.recipient, Path(f"{ssh}.pub").read_text().strip()]
    _encryption.check_recipients(recipients)
    _encryption.encrypt(str(tmp_path / "plain"), str(tmp_path / "several"), recipients)
    for identity in (keys.identity, other.identity, str(ssh)):
        _encryption.decrypt(str(tmp_path / "several"), str(tmp_path / "back"), identity)
        assert (tmp_path / "back").read_bytes() == DATA
        (tmp_path / "back").unlink()
    with pytest.raises(NodeopsError, match="no identity matched"):
        _encryption.decrypt(str(sealed), str(tmp_path / "back"), other.identity)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "cut at a chunk", "more", "empty", "header"])
def test_what_is_damaged_gives_nothing(tmp_path: Path, sealed: Path, keys: Pair, damage: str) -> None:
    """age itself writes what it could read before it fails."""
    data = bytearray(sealed.read_bytes())
    if damage == "flipped":
        data[-100] ^= 1
    elif damage == "header":
        data[40] ^= 1
    else:
        size = {"cut": -1, "cut at a chunk": len(data) - len(DATA) % 65536 - 16, "empty": 0}.get(damage, len(data))
        data = data[:size] + (b"x" if damage == "more" else b"")
    sealed.write_bytes(data)
    with pytest.raises(NodeopsError, match="cannot be decrypted with"):
        _encryption.decrypt(str(sealed), str(tmp_path / "back"), keys.identity)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "age1",
        "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",  # its checksum is wrong
        "-o",
        "--output=/tmp/x",
        "/etc/passwd",
        "ssh-ed25519",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAD00000000000000000000000000",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP0000000000000000000000000000000",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\nage1",
    ],
)
def test_what_is_no_public_key(recipient: str) -> None:
    with pytest.raises(NodeopsError, match="Nothing was changed"):
        _encryption.check_recipients([recipient])


def test_a_private_key_is_not_shown(keys: Pair) -> None:
    secret = Path(keys.identity).read_text().strip().splitlines()[-1]
    with pytest.raises(NodeopsError, match="is a private key") as caught:
        _encryption.check_recipients([keys.recipient, secret])
    assert secret not in str(caught.value)
    assert secret[20:40] not in str(caught.value)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, sealed: Path, keys: Pair) -> None:
    Path(keys.identity).chmod(0o644)
    with pytest.raises(NodeopsError, match="mode 0600"):
        _encryption.decrypt(str(sealed), str(tmp_path / "back"), keys.identity)
    for path, words in (("/nowhere/key", "No such file"), ("key", "absolute path")):
        with pytest.raises(NodeopsError, match=words):
            _encryption.decrypt(str(sealed), str(tmp_path / "back"), path)
    assert left(tmp_path) == []


def test_a_passphrase_is_not_waited_for(tmp_path: Path, sealed: Path) -> None:
    """An SSH key that has one: nobody can be asked."""
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    _encryption.encrypt(str(tmp_path / "plain"), str(tmp_path / "for"), [Path(f"{locked}.pub").read_text().strip()])
    with pytest.raises(NodeopsError, match="cannot be decrypted"):
        _encryption.decrypt(str(tmp_path / "for"), str(tmp_path / "back"), str(locked))
    assert not (tmp_path / "back").exists()
    assert sealed.exists()


def test_without_age(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: Pair) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_encryption, "STANDARD_PATH", str(tmp_path))
    with pytest.raises(NodeopsError, match="apt install age"):
        _encryption.check_recipients([keys.recipient])
    _encryption.check_recipients([])


def test_a_full_disk(tmp_path: Path, keys: Pair, sealed: Path) -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        failures = 0
        for call in (
            lambda: _encryption.encrypt(str(tmp_path / "plain"), str(tmp_path / "new"), [keys.recipient]),
            lambda: _encryption.decrypt(str(sealed), str(tmp_path / "back"), keys.identity),
        ):
            try:
                call()
            except NodeopsError:
                failures += 1
        os._exit(failures)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert left(tmp_path) == []


def ages() -> bytes:
    """The numbers of the age processes that this one has started."""
    return subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", "age"], check=False, capture_output=True).stdout


def test_a_signal_ends_age_too(tmp_path: Path, keys: Pair) -> None:
    """While age waits for more from a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)

    def end_it() -> None:
        while not ages():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        with _signals.raised():
            threading.Thread(target=end_it, daemon=True).start()
            with pytest.raises(_signals.Interrupted):
                _encryption.encrypt(str(tmp_path / "pipe"), str(tmp_path / "new"), [keys.recipient])
    finally:
        os.close(writer)
    assert left(tmp_path) == ["pipe"]
    assert not ages()


# -- in a store ------------------------------------------------------------------------------------------------------


def backed_up(store: Store, recipients: List[str]) -> Backup:
    with store.lock("Nothing", 1), store.draft("pm2") as draft:
        Path(draft.path("dump")).write_bytes(DATA)
        _encryption.add(draft, "dump", recipients, of="shop")
        return draft.commit(None, None, {}, {})


def test_an_encrypted_backup(tmp_path: Path, keys: Pair) -> None:
    store = Store(str(tmp_path / "store"), create=True)
    made = backed_up(store, [keys.recipient])
    (recorded,) = made.manifest["files"]
    assert recorded["name"] == "dump.age"
    assert (recorded["plain_size"], recorded["of"]) == (len(DATA), "shop")
    assert _encryption.is_encrypted(recorded)
    assert sorted(os.listdir(made.path)) == ["dump.age", "manifest.json"]
    assert store.check_files(made) == []
    (tmp_path / "out").mkdir()
    path = _encryption.readable(made, recorded, keys.identity, str(tmp_path / "out"))
    assert path == str(tmp_path / "out" / "dump")
    assert Path(path).read_bytes() == DATA
    with pytest.raises(NodeopsError, match="age_identity_file"):
        _encryption.readable(made, recorded, "", str(tmp_path / "out"))


def test_one_that_is_not(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), create=True)
    made = backed_up(store, [])
    (recorded,) = made.manifest["files"]
    assert not _encryption.is_encrypted(recorded)
    assert _encryption.readable(made, recorded, "", "/nowhere") == os.path.join(made.path, "dump")


def test_anybody_may_encrypt_but_that_is_not_taken(tmp_path: Path, keys: Pair) -> None:
    """Somebody replaces a file by one of his own, encrypted to the same public key."""
    store = Store(str(tmp_path / "store"), create=True)
    made = backed_up(store, [keys.recipient])
    (recorded,) = made.manifest["files"]
    (tmp_path / "evil").write_bytes(b"evil")
    Path(made.path, "dump.age").unlink()
    _encryption.encrypt(str(tmp_path / "evil"), os.path.join(made.path, "dump.age"), [keys.recipient])
    assert store.check_files(made)
    (tmp_path / "out").mkdir()
    with pytest.raises(NodeopsError, match="does not decrypt to what was backed up"):
        _encryption.readable(made, recorded, keys.identity, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []
