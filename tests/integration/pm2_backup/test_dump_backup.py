"""pm2_dump_backup: what is backed up and when, what counts as good, what is refused, what a killed run leaves.

Core: kills at some points. Full: kills at each point, and thirty nights of the module.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from support import debian, modules, processes
from support.killer import Runner
from support.namespaces import home_in
from support.pm2 import Pm2Home
from support.readers import Readers, flip
from support.tiers import full_but
from unit.store.test_retention import Days, thirty_days

Result = Dict[str, Any]

SLEEPER = {"script": "/bin/sleep", "args": ["1000"], "cwd": "/"}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Calls in processes of their own."""
    with Runner() as made:
        yield made


class Place:
    """A store beside a PM2_HOME, and calls of the module on it."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self.pm2 = pm2
        self.directory = directory
        self.store = directory / "store"

    def params(self, **more: Any) -> Dict[str, Any]:
        usual = {"dest": str(self.store), "environment": "production", "ready": {"min_uptime": 0.2, "timeout": 40}}
        return {"pm2_home": self.pm2.home, "pm2_executable": self.pm2.executable, **usual, **more}

    def call(self, check: bool = False, **more: Any) -> Result:
        """What the module answers, failed or not."""
        return modules.call("pm2_dump_backup", self.params(**more), check=check)

    def done(self, check: bool = False, **more: Any) -> Result:
        """A call that has to succeed."""
        result = self.call(check, **more)
        assert not result["failed"], result["msg"]
        return result

    def refused(self, *words: str, check: bool = False, **more: Any) -> Result:
        """A call that has to fail, with these words in its message."""
        result = self.call(check, **more)
        assert result["failed"], result
        for word in words:
            assert word in result["msg"], f"{word!r} is not in: {result['msg']}"
        return result

    def ids(self) -> List[str]:
        """All that is in the store, but what belongs to the store itself."""
        return sorted(p.name for p in self.store.iterdir() if p.name != ".nodeops") if self.store.exists() else []

    def path(self, result: Result) -> Path:
        return Path(result["backup"]["path"])


@pytest.fixture
def place(pm2_7, tmp_path):
    """PM2 7 and a store."""
    return Place(pm2_7, tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with a PM2_HOME that has one application in its dump. Nothing of it runs any more."""
    directory = tmp_path_factory.mktemp("saved")
    with home_in(directory, "7.0") as home:
        readers(Place(home, directory))
    return directory


@pytest.fixture
def resting(saved, tmp_path):
    """The same in a place of its own, for what does not look at what runs: a store, and the application."""
    place = Place(Pm2Home("7.0", tmp_path / "pm2"), tmp_path)
    place.pm2.dump.write_text((saved / "pm2" / "dump.pm2").read_text().replace(str(saved), str(tmp_path)))
    shutil.copytree(saved / "left", tmp_path / "left")
    yield place, Readers(place.pm2, "left", tmp_path / "left")
    place.pm2.kill()


def readers(place: Place, name: str = "left", *apps: str) -> Readers:
    made = Readers(place.pm2, name, place.directory / name)
    made.write("blue")
    made.bring(*(apps or ("a",)))
    return made


def damage(pm2: Pm2Home, content: bytes = b"") -> None:
    """What a machine that went down in a save leaves."""
    pm2.dump.write_bytes(content)
    Path(f"{pm2.dump}.bak").write_bytes(content)


class Nights(Days):
    """Those of the module, on the dump of an application that ran once."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch, **params: Any) -> None:
        readers(place)
        place.pm2.kill()
        super().__init__(place.directory, monkeypatch, **params)
        self.place = place
        self.entries = json.loads(place.pm2.dump.read_text())

    def run(self, content: str, fails: bool = False, bad: bool = False) -> None:
        (entry,) = self.entries
        entry["CONTENT"] = entry["env"]["CONTENT"] = f"{content} at {self.clock}" if bad else content
        script = "/nowhere/app.js" if bad else entry["pm_exec_path"]
        self.place.pm2.dump.write_text(json.dumps([{**entry, "pm_exec_path": script}]))
        if fails:
            damage(self.place.pm2, b"[{")
            self.place.refused("Nothing was backed up", **self.params)
            return
        result = self.place.done(**self.params)
        if result["changed"]:
            self.expected.append(self.store.find(result["backup"]["id"], "pm2"))
        assert result["backup"]["verified"] is not bad
        if not bad:
            self.expected = self._left()
        assert result["kept"] == [each.id for each in self.expected]


@pytest.mark.full
def test_thirty_nights(place, monkeypatch):
    thirty_days(Nights(place, monkeypatch, keep_daily=4, keep_weekly=3, keep_monthly=2))


# -- when a backup is made ---------------------------------------------------------------------------------------------


def test_a_backup_is_made_when_the_meaning_has_changed(pm2, tmp_path):
    """On each version: not for counters; for a variable, for one byte and for the mode of a file. All is foreseen."""
    place = Place(pm2, tmp_path)
    left = readers(place)
    options: Dict[str, Any] = {"files": [str(left.env_file)]}

    def outcome(changed: bool) -> Result:
        foreseen, result = place.done(check=True, **options), place.done(**options)
        assert (foreseen["changed"], result["changed"]) == (changed, changed)
        assert foreseen["diff"] == result["diff"]
        assert (result["diff"]["before"] != result["diff"]["after"]) == changed
        assert result["backup"]["verified"] is True
        return result

    first = outcome(True)["backup"]
    assert (first["namespaces"], first["processes"], first["files"]) == (["left"], 1, [str(left.env_file)])
    assert outcome(False)["backup"] == first
    pm2.rpc("restartProcessId", {"id": pm2.jlist()[0]["pm_id"]})
    pm2.cli("save", "--force")
    assert outcome(False)["backup"] == first
    left.bring("a", env={"TOKEN": "another-t0ken"})
    second = outcome(True)["backup"]
    left.write("blu3")
    outcome(True)
    left.env_file.chmod(0o600)
    outcome(True)
    assert len(place.ids()) == 4
    assert modules.call("pm2_save", {"pm2_home": pm2.home, "namespace": "left"})["failed"] is False
    assert outcome(False)["changed"] is False
    for directory, _names, names in os.walk(place.store):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        assert {stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) for name in names} <= {0o600}
    manifest = Path(second["path"], "manifest.json").read_text()
    assert "t0ken" not in manifest
    assert json.loads(manifest)["tools"]["pm2"].startswith(pm2.version)


def test_check_mode_makes_neither_store_nor_key(place):
    """Nothing at all is written."""
    readers(place)
    before = sorted(place.directory.iterdir())
    assert place.done(check=True)["changed"] is True
    assert sorted(place.directory.iterdir()) == before
    place.store.mkdir()
    (place.store / "letter").touch()
    for check in (True, False):
        place.refused("is not a backup store and not empty (letter)", check=check)


def test_one_namespace_has_a_row_of_backups_of_its_own(place):
    """Changes of another namespace make no new one of it."""
    left, right = readers(place), readers(place, "right")
    assert place.done(namespace="left")["backup"]["namespaces"] == ["left"]
    right.bring("a", "b")
    assert not place.done(namespace="left")["changed"]
    assert place.done()["backup"]["processes"] == 3
    left.bring("b")
    assert place.done(namespace="left")["changed"]
    assert len(place.ids()) == 3


def test_the_dump_is_read_as_resurrect_reads_it(place):
    """From its .bak, where that is as the newest good backup; nothing is made of nothing, and the way back is named."""
    left = readers(place)
    left.bring("a", "b")
    good, before = place.done()["backup"]["id"], place.pm2.dump.read_bytes()
    place.pm2.dump.write_bytes(before[:100])
    Path(f"{place.pm2.dump}.bak").write_bytes(before)
    result = place.done()
    assert not result["changed"]
    assert f"{place.pm2.dump}.bak, which a resurrect would take" in result["warnings"][0]
    place.pm2.dump.unlink()
    assert not place.done()["changed"]
    for content in (b"", before[:-1], b"{}", b"[1]"):
        damage(place.pm2, content)
        for check in (True, False):
            place.refused("Nothing was backed up", good, "state: restored brings it back", check=check)
    for path in (place.pm2.dump, Path(f"{place.pm2.dump}.bak")):
        path.unlink()
    place.refused("is missing, and so is its .bak", good)
    assert place.ids() == [good]


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_no_backup_of_an_older_bak_replaces_a_good_one(place, how):
    """`latest` would be older than it. Where there is none yet, it is better than nothing."""
    left = readers(place)
    left.bring("a", "b")
    bak = Path(f"{place.pm2.dump}.bak")
    assert len(json.loads(bak.read_text())) == 1

    def lose() -> None:
        place.pm2.dump.unlink()
        if how == "broken":
            place.pm2.dump.write_bytes(b"[{")

    dump = place.pm2.dump.read_bytes()
    lose()
    first = place.done()
    assert (first["backup"]["processes"], first["backup"]["verified"], len(first["warnings"])) == (1, True, 1)
    place.pm2.dump.write_bytes(dump)
    good = place.done()["backup"]["id"]
    lose()
    for check in (True, False):
        words = "is missing or broken", f"A resurrect would take {bak} instead", good, "pm2_save"
        place.refused("Nothing was backed up", "with 2 processes", *words, check=check)
    assert place.ids() == sorted([first["backup"]["id"], good])
    bak.rename(place.pm2.dump)
    assert place.done()["backup"]["processes"] == 1


def test_an_empty_dump_is_taken_for_a_loss(place):
    """`latest` would be empty for ever after. Where it is meant, one says so."""
    left = readers(place)
    good = place.done()["backup"]["id"]
    left.namespace.remove()
    place.refused("holds no process", good, "holds 1", "set allow_empty")
    place.refused("holds no process", check=True)
    assert place.ids() == [good]
    result = place.done(allow_empty=True)
    assert (result["changed"], result["backup"]["processes"]) == (True, 0)
    assert not place.done(allow_empty=True)["changed"]


@pytest.mark.parametrize("runs", full_but([5], [5, 25]))
def test_while_pm2_writes_its_dump_no_backup_is_empty_or_broken(place, runs):
    """PM2's own save empties the file first, and holds no lock."""
    left = readers(place)
    left.bring("a", *(f"app-{number}" for number in range(4)))
    content = place.pm2.dump.read_bytes()
    is_over = threading.Event()

    def save() -> None:
        while not is_over.wait(0.01):  # as Startup.js does it, and much more often than anybody would
            for path in (Path(f"{place.pm2.dump}.bak"), place.pm2.dump):
                with open(path, "wb") as stream:
                    is_over.wait(0.002)
                    stream.write(content)

    thread = threading.Thread(target=save)
    thread.start()
    try:
        results = [place.done() for _run in range(runs)]
    finally:
        is_over.set()
        thread.join()
    assert [result["changed"] for result in results] == [True] + [False] * (runs - 1)
    assert results[0]["backup"]["processes"] == 5


# -- what is good ------------------------------------------------------------------------------------------------------


def test_what_could_not_be_brought_back_here_is_no_good_backup(place):
    """It is told per process, `latest` passes it over, and it is good again when what was missing is there."""
    left = readers(place)
    good = place.done()["backup"]["id"]
    left.bring("a", "b")
    moved = left.directory.rename(place.directory / "moved")
    result = place.done(keep_last=1)
    assert result["backup"]["verified"] is False
    assert len(result["problems"]) == 4
    assert f"b of namespace left: its working directory {left.directory} does not exist" in result["problems"]
    assert result["problems"][0] in result["warnings"][0]
    assert (result["removed"], place.ids()) == ([], sorted([good, result["backup"]["id"]]))
    place.done(state="pruned", keep_last=1)
    place.done(state="restored", backup=good, check=True)
    failed = place.refused("is not good", f"its script {left.directory}/reader.js does not exist", state="verified")
    assert len(failed["problems"]) == 4
    moved.rename(left.directory)
    assert place.done(state="verified")["backup"] == {**result["backup"], "verified": True}
    assert not place.done()["changed"]
    left.namespace.bring([{"name": "c", **SLEEPER, "script": str(own_program(left.directory))}], prune=True)
    own_program(left.directory).chmod(0o600)
    assert "is not executable" in place.done()["problems"][0]


def own_program(directory: Path) -> Path:
    """A program that is run without an interpreter."""
    path = directory / "program"
    if not path.exists():
        shutil.copy("/bin/sleep", path)
    return path


@pytest.mark.parametrize("name", ["dump.pm2", "file-001", "manifest.json", "verified.json"])
def test_a_flipped_bit_in_any_file_is_found(resting, name):
    """It is not restored, not taken for latest, and what is there now is backed up anew."""
    place, left = resting
    options: Dict[str, Any] = {"files": [str(left.env_file)]}
    first = place.done(**options)
    left.write(f"blue-{name}")
    result = place.done(**options)
    flip(place.path(result) / name)
    identifier = result["backup"]["id"]
    if name == "verified.json":  # then it only is not known to be good
        failed = place.refused("verified.json", state="verified", backup=identifier)
    else:
        if name != "manifest.json":
            before = place.done(state="restored", check=True)
            assert before["backup"]["id"] != identifier
            assert f"{identifier} is damaged" in before["warnings"][0]
        failed = place.refused(identifier, state="verified", backup=identifier)
        place.refused(identifier, state="restored", backup=identifier)
    assert "damaged" in failed["msg"] or "not signed" in failed["msg"]
    again = place.done(**options)
    assert again["changed"] is (name != "verified.json"), name
    assert place.done(state="verified")["backup"]["id"] == again["backup"]["id"]
    assert first["backup"]["id"] in place.ids()


def test_encrypted_backups(resting):
    """Made and compared without the private key; verified and restored with it; nothing readable is on the disk."""
    place, left = resting
    keygen = debian.program("age-keygen", "age")
    if keygen is None:
        pytest.skip(debian.why_not("age-keygen", "age"))
    identity = place.directory / "identity"
    made = subprocess.run([keygen, "-o", str(identity)], capture_output=True, text=True, check=True)
    recipient = made.stderr.split()[-1]
    options = {"age_recipients": [recipient], "files": [str(left.env_file)]}
    result = place.done(**options)
    assert result["backup"]["encrypted"] is True
    assert not place.done(**options)["changed"]
    for path in place.path(result).iterdir():
        assert b"t0ken" not in path.read_bytes()
        assert b"reader.js" not in path.read_bytes()
    only_bytes = place.done(state="verified")
    assert (only_bytes["how"], "only its bytes" in only_bytes["warnings"][0]) == ("bytes", True)
    assert place.done(state="verified", age_identity_file=str(identity))["how"] == "resurrectable"
    left.write("red")
    place.refused("age_identity_file", state="restored")
    place.done(state="restored", age_identity_file=str(identity))
    assert "COLOUR=blue" in left.env_file.read_text()
    assert place.ids() == [result["backup"]["id"]]
    assert place.done(files=options["files"])["changed"], "no longer encrypted"
    other = subprocess.run([keygen], capture_output=True, text=True, check=True).stderr.split()[-1]
    assert place.done(**{**options, "age_recipients": [other]})["changed"], "for somebody else"


def test_an_encrypted_backup_does_not_get_good_by_looking_at_its_bytes(resting):
    place, left = resting
    keygen = debian.program("age-keygen", "age")
    if keygen is None:
        pytest.skip(debian.why_not("age-keygen", "age"))
    recipient = subprocess.run([keygen], capture_output=True, text=True, check=True).stderr.split()[-1]
    left.directory.rename(place.directory / "moved")
    assert place.done(age_recipients=[recipient])["problems"]
    for _time in range(3):
        assert place.refused("does not exist", state="verified")["how"] == "bytes"


def test_where_nothing_can_be_decrypted_nothing_is_restored(resting, monkeypatch):
    """The disk of the store is full. What is not encrypted needs no room there."""
    place, left = resting
    identity = place.directory / "identity"
    keygen = debian.program("age-keygen", "age")
    if keygen is None:
        pytest.skip(debian.why_not("age-keygen", "age"))
    made = subprocess.run([keygen, "-o", str(identity)], capture_output=True, text=True, check=True)

    def full(**_options):
        raise OSError(28, "No space left on device")

    options = {"files": [str(left.env_file)]}
    place.done(**options)
    left.write("red")
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert place.done(state="restored")["changed"]
    place.done(**options, age_recipients=[made.stderr.split()[-1]])
    left.write("red")
    place.refused("No space left", "Nothing was changed", state="restored", age_identity_file=str(identity))
    assert "red" in left.env_file.read_text()


def test_old_ones_go_after_a_good_one_was_made(resting):
    """The rules are those of the store; here only that they are asked at the right moment."""
    place, left = resting
    made = []
    for number in range(4):
        left.write(f"blue{number}")
        made.append(place.done(files=[str(left.env_file)])["backup"]["id"])
    foreseen = place.done(check=True, state="pruned", keep_last=3)
    assert (foreseen["changed"], foreseen["removed"], place.ids()) == (True, made[:1], sorted(made))
    left.write("red")
    foreseen = place.done(check=True, files=[str(left.env_file)], keep_last=2)
    result = place.done(files=[str(left.env_file)], keep_last=2)
    assert result["removed"] == foreseen["removed"] == made[:3]
    assert result["kept"] == [made[3], result["backup"]["id"]]
    damage(place.pm2)
    place.refused("Nothing was backed up", keep_last=1)
    assert place.ids() == sorted(result["kept"])
    place.refused("needs at least one keep option", state="pruned")
    assert place.done(state="pruned", keep_last=1)["removed"] == [made[3]]
    assert not place.done(state="pruned", keep_last=1)["changed"]


# -- killed and refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_a_point_a_backup_is_there_or_not(resting, runner, step):
    """The next run makes what is missing, and nothing is left of the killed one."""
    place, left = resting
    options = {"files": [str(left.env_file)], "keep_last": 2}
    points: List[str] = []
    for number in range(3):
        left.write(f"blue{number}")
        points = runner.run("pm2_dump_backup", place.params(**options)).points
    ours = [point for point in dict.fromkeys(points) if point.startswith(("store ", "dump backup ", "prune "))]
    assert len(ours) >= 9, ours
    points = [*ours, "before rename manifest.json", "after rename verified.json"]
    for number, point in enumerate(points[::step]):
        left.write(f"red{number}")
        killed = runner.run("pm2_dump_backup", place.params(**options), at=point)
        assert killed.killed, point
        assert place.done(state="verified")["backup"]["verified"] is True
        result = runner.call("pm2_dump_backup", place.params(**options))
        assert not result["failed"], (point, result)
        assert place.ids() == sorted(result["kept"]), point
        assert len(place.ids()) == 2
        stored = (Path(result["backup"]["path"]) / "file-001").read_text()
        assert stored == left.env_file.read_text(), point


def test_a_full_disk_leaves_the_store_as_it_was(place, runner):
    """No file may get larger than 1,000 bytes."""
    left = readers(place)
    place.done()
    before = place.ids()
    left.bring("a", "b", "c")
    result = runner.run("pm2_dump_backup", place.params(), file_limit=1000).result
    assert result
    assert result["failed"]
    assert "File too large" in result["msg"]
    assert place.ids() == before


def test_bad_options_are_refused_before_anything_is_done(place):
    """With the value, what was not done, and what to do."""
    left = readers(place)
    env_file = str(left.env_file)
    place.done(files=[env_file])
    os.mkfifo(place.directory / "pipe")
    (place.directory / "large").write_bytes(b"=" * ((16 << 20) + 1))
    inside = place.store / "x"
    before = place.ids()
    bad: List[Tuple[Tuple[str, ...], Dict[str, Any]]] = [
        (("not an absolute path", "'.env'"), {"files": [".env"]}),
        (("not an absolute path",), {"files": ["/etc/../etc/passwd"]}),
        (("is given twice",), {"files": [env_file, env_file]}),
        (("is in the backup store",), {"files": [str(inside)]}),
        (("does not exist", "/nowhere/.env"), {"files": ["/nowhere/.env"]}),
        (("not a regular file",), {"files": [str(place.directory / "pipe")]}),
        (("not a regular file",), {"files": [str(place.directory)]}),
        (("more than 16777216 bytes",), {"files": [str(place.directory / "large")]}),
        (("apply goes with state restored",), {"apply": True}),
        (("parts goes with state restored",), {"parts": ["files"], "state": "verified"}),
        (("allow_empty goes with state present",), {"allow_empty": True, "state": "restored"}),
        (("namespace",), {"namespace": "a/b"}),
        (("is not the id of a backup",), {"state": "restored", "backup": "../../etc"}),
        (("is not in",), {"state": "restored", "backup": "20200101T000000Z-pm2-0a1b2c"}),
        (("There is no backup of pm2 in test",), {"state": "restored", "environment": "test"}),
        (("is of pm2 in production", "pm2 in test"), {"state": "restored", "environment": "test", "backup": before[0]}),
        (
            ("does not hold namespace other", "It holds: left"),
            {"state": "restored", "namespace": "other", "backup": before[0]},
        ),
        (("does not hold /etc/x", env_file), {"state": "restored", "files": ["/etc/x"]}),
        (("may belong to any", env_file), {"state": "restored", "namespace": "left", "parts": ["files"]}),
        (("keep nothing",), {"keep_last": 0}),
        (("minimum",), {"keep_last": 1, "minimum": 0}),
        (("ready",), {"state": "restored", "apply": True, "ready": {"http": [{"url": "no-url"}]}}),
    ]
    for words, options in bad:
        for check in (True, False):
            place.refused(*words, check=check, **options)
    assert place.ids() == before
    place.refused("no backup store", state="restored", dest=str(place.directory / "other"))
    place.refused("no backup store", state="pruned", keep_last=1, dest=str(place.directory / "other"))
    assert not (place.directory / "other").exists()
    assert all(map(processes.alive, left.namespace.pids()))


def test_a_forged_or_foreign_backup_is_not_restored(place):
    """Neither one whose manifest was changed, nor one of another store, nor with the key gone."""
    left = readers(place)
    result = place.done(files=[str(left.env_file)])
    identifier, path = result["backup"]["id"], place.path(result)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["environment"] = "test"
    written = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    place.refused(identifier, "not signed", state="restored", backup=identifier, environment="test")
    place.refused("cannot be trusted", state="restored", environment="test")
    (path / "manifest.json").write_bytes(written)
    key = Path(f"{place.store}.key")
    secret = key.read_text()
    key.write_text("00" * 32)
    place.refused("not signed", state="restored", backup=identifier)
    key.unlink()
    for state in ("restored", "verified", "present"):
        place.refused("key", state=state)
    key.write_text(secret)
    key.chmod(0o600)
    assert not place.done(state="restored")["changed"]
