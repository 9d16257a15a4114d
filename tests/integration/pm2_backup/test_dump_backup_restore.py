"""pm2_dump_backup, state restored: one namespace or all, files, live processes; and everything back where it fails.

Core: kills at some points. Full: kills at each point, and a backup of an older PM2.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _processes
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _env_files, _pm2_recover
from integration.pm2_backup.test_dump_backup import SLEEPER, Place, damage
from support import modules, observe, processes
from support.killer import Runner
from support.namespaces import home_in
from support.pm2 import Pm2Home
from support.readers import Readers
from support.tiers import full_but

HANDMADE = {"COLOUR": "grey", "TOKEN": "by hand"}
READY = {"min_uptime": 0.2, "timeout": 40}
_READY_DEFAULTS: Dict[str, Any] = {"http": [], "tcp": [], "log": []}
UNTIL_IT_HAS_READ = {**READY, "log": ["a reads"]}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Calls in processes of their own."""
    with Runner() as made:
        yield made


@pytest.fixture
def place(pm2_7, tmp_path):
    """PM2 7 and a store."""
    return Place(pm2_7, tmp_path)


def readers(place: Place, name: str, *apps: str) -> Readers:
    made = Readers(place.pm2, name, place.directory / name)
    made.write("blue")
    made.bring(*apps)
    return made


def lose_everything(place: Place) -> None:
    """The dump and its backup are gone, the daemon is dead and all that it ran."""
    place.pm2.kill()
    for path in (place.pm2.dump, Path(f"{place.pm2.dump}.bak")):
        path.unlink(missing_ok=True)


def kept(place: Place, *names: str) -> Dict[str, Any]:
    """What of these namespaces may not move."""
    for name in names:
        Readers(place.pm2, name, place.directory / name).settle()
    return {
        name: (
            observe.look(place.pm2.processes(name)),
            [entry for entry in observe.dump_entries(place.pm2.dump) if entry["namespace"] == name],
        )
        for name in names
    }


def assert_kept(place: Place, before: Dict[str, Any]) -> None:
    for name, (seen, entries) in kept(place, *before).items():
        assert not list(observe.changes(before[name][0], seen))
        assert entries == before[name][1]


def notes(place: Place) -> List[str]:
    """What restores that are not over have left."""
    return sorted(path.name for path in Path(place.pm2.home, "nodeops").glob("restore-of-*"))


# -- one namespace, or all ---------------------------------------------------------------------------------------------


def test_one_namespace_of_three_comes_back_and_the_other_two_do_not_move(pm2, tmp_path):
    """On each version, live and on disk, with the same names everywhere; foreseen, and the second time nothing."""
    place = Place(pm2, tmp_path)
    three = [readers(place, name, "a", "b") for name in ("left", "middle", "right")]
    backup = place.done()["backup"]["id"]
    was = three[1].meant()
    for each in three:
        each.bring("a", "new", env={"COLOUR": "red", "TOKEN": "new-t0ken-of-all"})
    others = kept(place, "left", "right")
    options: Dict[str, Any] = {"state": "restored", "namespace": "middle", "apply": True}
    foreseen = place.done(check=True, **options)
    assert_kept(place, {**others, **kept(place, "middle")})
    result = place.done(**options)
    assert result["actions"] == foreseen["actions"]
    assert {action["name"]: action["action"] for action in result["actions"]} == {
        "a": "restart",
        "b": "start",
        "new": "delete",
    }
    assert "t0ken" not in json.dumps([foreseen, result])
    assert three[1].meant() == was
    assert sorted(entry["name"] for entry in three[1].saved()) == ["a", "b"]
    assert_kept(place, others)
    for check in (True, False):
        again = place.done(check=check, **options)
        assert (again["changed"], again["actions"], again["saved"]) == (False, [], False)
    assert (result["backup"]["id"], result["restored_namespaces"]) == (backup, ["middle"])


def test_everything_comes_back_where_all_is_lost(pm2, tmp_path):
    """On each version: no dump, no .bak, no daemon. One call, and each process has the environment it had."""
    place = Place(pm2, tmp_path)
    left, right = readers(place, "left", "a", "b"), readers(place, "right", "a")
    left.namespace.bring([left.app("paused")])
    left.namespace.bring(names=["paused"], state="stopped")
    right.namespace.bring([right.app("w", exec_mode="cluster", instances=2, env={"TOKEN": "w0rker t0ken's\nown"})])
    files = [str(left.env_file)]
    place.done(files=files)
    was = left.meant(), right.meant()
    environments = environment(place)
    lose_everything(place)
    left.env_file.unlink()
    result = place.done(state="restored", apply=True)
    assert (left.meant(), right.meant()) == was
    assert environment(place) == environments
    assert left.env_file.read_text() == "COLOUR=blue\nTOKEN=t0ken-of-the-first\n"
    assert left.env_file.stat().st_mode & 0o777 == 0o640
    assert result["restored_namespaces"] == ["left", "right"]
    assert len(observe.dump_entries(place.pm2.dump)) == 6
    assert not place.done(state="restored", apply=True)["changed"]
    assert not place.done(files=files)["changed"]


@pytest.mark.full
def test_a_backup_of_an_old_pm2_comes_back_under_a_new_one(tmp_path):
    """A new server has the newest: what 5.4 had saved runs under 7.0, and the second time nothing is left to do."""
    with home_in(tmp_path, "5.4") as old:
        place = Place(old, tmp_path)
        left = readers(place, "left", "a")
        left.namespace.bring([left.app("w", exec_mode="cluster", instances=2)])
        (tmp_path / "by-hand.sh").write_text("sleep 1000\n")
        old.cli("start", "by-hand.sh", "--namespace", "left", env=HANDMADE, cwd=str(tmp_path))
        old.cli("save")
        place.done()
        was, had = left.meant(), environment(place)
        lose_everything(place)
    new = Place(Pm2Home("7.0", tmp_path / "pm2"), tmp_path)
    try:
        new.done(state="restored", apply=True)
        left = Readers(new.pm2, "left", left.directory)
        assert left.meant() == was
        assert environment(new) == had
        again = new.done(state="restored", apply=True)
        assert (again["changed"], again["actions"]) == (False, [])
        assert not new.done()["changed"]
    finally:
        new.pm2.kill()


def environment(place: Place) -> Dict[str, Dict[str, str]]:
    """Of each process that runs what it really has and does not get anew in each run."""
    own = ("COLOUR", "TOKEN", "TELL", "ENV_FILE", "NODE_APP_INSTANCE", "PATH", "HOME", "LANG", "name", "namespace")
    found = {}
    for item in place.pm2.jlist():
        has = processes.environ(item.get("pid") or 0)
        has.update(
            {k: str(v) for k, v in json.loads(has.pop("pm2_env", "{}")).items() if not isinstance(v, (dict, list))}
        )
        env = item["pm2_env"]
        found[f"{env['namespace']}/{env['name']}/{env['NODE_APP_INSTANCE']}"] = {k: has.get(k, "") for k in own}
    return found


def test_without_apply_files_and_dump_are_put_back_and_nothing_else(place):
    """A resurrect brings what the dump then says. What runs goes on; a namespace the backup does not know stays."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    place.done(files=[str(left.env_file)])
    new = readers(place, "new", "a")
    left.write("red")
    left.bring("a", "b", env={"TOKEN": "other"})
    before = kept(place, "right", "new")
    live = left.live()
    shown = modules.call("pm2_dump_backup", place.params(state="restored"), check=True, diff=True)["diff"][-1]
    assert (shown["before"], shown["after"]) == ("left a\nleft b\nright a\n", "left a\nright a\n")
    foreseen, result = place.done(check=True, state="restored"), place.done(state="restored")
    assert (foreseen["changed"], foreseen["files"], foreseen["saved"]) == (True, result["files"], True)
    assert result["files"] == [{"path": str(left.env_file), "changed": True}]
    assert left.live() == live
    assert_kept(place, before)
    assert [entry["name"] for entry in left.saved()] == ["a"]
    assert not place.done(state="restored")["changed"]
    place.pm2.kill()
    place.pm2.cli("resurrect")
    assert (list(left.live()), list(right.live()), list(new.live())) == (["a"], ["a"], ["a"])
    assert left.meant()["a/0"]["TOKEN"] is None
    assert left.told("a") == ["blue"]


def test_a_broken_dump_and_a_broken_bak_are_kept_aside(place):
    """Nothing could be read of them; what they held of others is told to be missing."""
    left = readers(place, "left", "a")
    place.done(namespace="left")
    for options in ({}, {"apply": True}):
        damage(place.pm2, b'[{"name": "left')
        result = place.done(state="restored", namespace="left", **options)
        assert result["changed"]
        assert "kept as .broken" in result["warnings"][0]
        assert [entry["name"] for entry in left.saved()] == ["a"]
        assert Path(f"{place.pm2.dump}.broken").read_bytes() == b'[{"name": "left'
        assert not place.done(state="restored", namespace="left", **options)["changed"]


def test_a_namespace_that_cannot_come_back_keeps_no_other_from_it(place):
    """Where nothing ran before there is nothing to go back to: what comes back stays, and the task fails."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    place.done(files=[str(left.env_file)])
    lose_everything(place)
    Path(left.directory, "reader.js").unlink()
    left.write("red")
    result = place.refused(
        "Namespace left was not brought back",
        "reader.js does not exist",
        "Brought back: right",
        state="restored",
        apply=True,
    )
    assert result["restored_namespaces"] == ["right"]
    assert list(right.live()) == ["a"]
    assert left.live() == {}
    assert [entry["namespace"] for entry in observe.dump_entries(place.pm2.dump)] == ["right"]
    Path(left.directory, "reader.js").write_text(Path(right.directory, "reader.js").read_text())
    place.done(state="restored", apply=True)
    assert left.told("a") == ["blue"]


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_put_back_and_its_processes_are_renewed(place):
    """ai-admin's way back: the .env of before, all of the namespace renewed, nobody else; the dump stays."""
    left, right = readers(place, "left", "a", "b"), readers(place, "right", "a")
    files = [str(left.env_file)]
    place.done(files=files, namespace="left")
    left.write("red", "another-t0ken")
    left.namespace.bring(state="restarted")
    assert left.told("a", "b") == ["red", "red"]
    others, live = kept(place, "right"), left.live()
    options = {"state": "restored", "namespace": "left", "parts": ["files"], "apply": True}
    foreseen = place.done(check=True, **options)
    assert left.live() == live
    result = place.done(ready={**READY, "log": ["a reads blue", "b reads blue"]}, **options)
    assert result["actions"] == foreseen["actions"]
    assert [action["action"] for action in result["actions"]] == ["restart", "restart"]
    assert left.told("a", "b") == ["blue", "blue"]
    assert left.env_file.stat().st_mode & 0o777 == 0o640
    assert_kept(place, others)
    assert right.told("a") == ["blue"]
    live = left.live()
    assert not place.done(**options)["changed"]
    assert left.live() == live


def test_where_the_gate_fails_files_dump_and_processes_are_as_before(place):
    """The processes that were stopped start with the file of before, not with the one that was tried."""
    left, right = readers(place, "left", "a", "b"), readers(place, "right", "a")
    left.write("broken", "the-br0ken-t0ken")
    files = [str(left.env_file)]
    place.done(files=files)
    left.write("green")
    left.bring("a", "b", env={"TOKEN": "of the green"})
    right.bring("a", "c")
    was, dump, text = left.meant(), observe.dump_entries(place.pm2.dump), left.env_file.read_bytes()
    others = kept(place, "right")
    left.env_file.chmod(0o600)
    options = {"state": "restored", "namespace": "left", "apply": True, "files": files, "ready": UNTIL_IT_HAS_READ}
    result = place.refused("exited", "Everything is as before", **options)
    assert result["rolled_back"] is True
    assert "cannot use token" in "".join(result["error_log"])
    assert "br0ken" not in json.dumps(result)
    assert (left.meant(), observe.dump_entries(place.pm2.dump)) == (was, dump)
    assert (left.env_file.read_bytes(), left.env_file.stat().st_mode & 0o777) == (text, 0o600)
    assert left.told("a", "b") == ["green", "green"]
    assert {status for _pid, status, _restarts in left.live().values()} == {"online"}
    assert_kept(place, others)
    assert notes(place) == []
    left.env_file.unlink()
    place.refused("exited", **options)
    assert not left.env_file.exists()


def test_with_a_changed_file_all_namespaces_are_put_back_when_one_fails(place):
    """The one that had already been brought runs again with what it had. What was not saved is not saved now."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    right.write("broken")
    place.done(files=[str(left.env_file), str(right.env_file)])
    left.write("green")
    right.write("green")
    left.bring("a", "more", env={"TOKEN": "of the green"})
    left.namespace.bring([left.app("unsaved")], save=False)
    right.bring("a")
    was, dump = (left.meant(), right.meant()), observe.dump_entries(place.pm2.dump)
    result = place.refused("exited", state="restored", apply=True, ready=UNTIL_IT_HAS_READ)
    assert (result["rolled_back"], result["restored_namespaces"]) == (True, [])
    assert (left.meant(), right.meant()) == was
    assert left.told("a", "more", "unsaved") + right.told("a") == ["green"] * 4
    assert "green" in left.env_file.read_text()
    keys = ("name", "namespace", "TOKEN", "ENV_FILE")
    assert [[e.get(k) for k in keys] for e in observe.dump_entries(place.pm2.dump)] == [
        [e.get(k) for k in keys] for e in dump
    ]


def test_links_stay_links_and_owners_stay_owners(place):
    """A .env that is a link is read and put back where it leads; as root a file gets back whom it belonged to."""
    left = readers(place, "left", "a")
    real = left.directory / "shared.env"
    left.env_file.rename(real)
    left.env_file.symlink_to("shared.env")
    if os.geteuid() == 0:
        os.chown(real, 12345, 12346)
    files = [str(left.env_file)]
    place.done(files=files)
    os.unlink(real)
    left.write("red")
    assert (real.read_text()[:10], left.env_file.is_symlink()) == ("COLOUR=red", True)
    place.done(state="restored")
    assert (real.read_text()[:11], left.env_file.is_symlink()) == ("COLOUR=blue", True)
    if os.geteuid() == 0:
        assert (real.stat().st_uid, real.stat().st_gid) == (12345, 12346)
        os.chown(left.directory, 12345, -1)
        place.refused("is not safe", "belongs to uid 12345", state="restored")
        os.chown(left.directory, 0, -1)
    real.unlink()
    left.directory.rename(place.directory / "elsewhere")
    place.refused("cannot be put back", "does not exist", state="restored")


def test_where_nothing_ran_what_comes_back_stays_though_another_fails(place):
    """And what is said of it is true: nothing was changed only where nothing came back."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    left.write("broken")
    files = [str(left.env_file), str(right.env_file)]
    place.done(files=files)
    lose_everything(place)
    left.write("green")
    options = {"state": "restored", "apply": True, "ready": UNTIL_IT_HAS_READ}
    result = place.refused("Namespace left was", "Brought back: right", **options)
    assert (result["rolled_back"], result["changed"], result["restored_namespaces"]) == (False, True, ["right"])
    assert [each["changed"] for each in result["files"]] == [True, False]
    lose_everything(place)
    left.write("green")
    result = place.refused("Namespace left was", namespace="left", files=files[:1], **options)
    assert (result["rolled_back"], result["changed"], result["restored_namespaces"]) == (True, False, [])
    assert [each["changed"] for each in result["files"]] == [False]
    assert "green" in left.env_file.read_text()


def test_lost_processes_come_back_though_those_of_another_namespace_do_not(place):
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    place.pm2.kill()
    left.write("broken")
    given = {name: spec.get("default") for name, spec in _pm2_recover.ARGUMENTS.items()}
    params = {**given, **place.params(), "ready": {**_READY_DEFAULTS, **UNTIL_IT_HAS_READ}}
    with _signals.raised(), pytest.raises(NodeopsError, match="Namespace left was not brought back") as failed:
        _pm2_recover.run(params, False, print)
    assert failed.value.details["changed"] is True
    assert {action["namespace"] for action in failed.value.details["actions"]} == {"right"}
    assert right.told("a") == ["blue"]
    assert not left.live()


def test_what_could_not_be_put_back_is_kept_for_the_next_restore(place, monkeypatch):
    """Where the file of before cannot be written, its only copy is what the restore has noted."""
    left = readers(place, "left", "a")
    left.write("broken")
    place.done(files=[str(left.env_file)])
    left.write("green")
    left.bring("a")
    options = {"state": "restored", "apply": True, "namespace": "left", "files": [str(left.env_file)]}

    def full(path: str, _former: Any) -> None:
        raise NodeopsError(f"{path} could not be put back: No space left on device.")

    monkeypatch.setattr(_env_files, "put_former", full)
    result = place.refused("No space left", "restore again", ready=UNTIL_IT_HAS_READ, **options)
    assert (result["rolled_back"], result["changed"]) == (False, True)
    assert "No space left" in result["rollback_error"]
    assert notes(place) == ["restore-of-namespace-left.note"]
    monkeypatch.undo()
    result = place.refused("exited", ready=UNTIL_IT_HAS_READ, **options)
    assert result["rolled_back"] is True
    assert "green" in left.env_file.read_text()
    assert left.told("a") == ["green"]
    assert notes(place) == []


def test_what_failed_after_the_processes_were_brought_takes_nothing_back(place, monkeypatch):
    left = readers(place, "left", "a")
    place.done(files=[str(left.env_file)])
    left.write("green")
    left.bring("a")
    options = {"state": "restored", "apply": True, "namespace": "left", "files": [str(left.env_file)]}

    def fail(*_arguments: Any) -> None:
        raise NodeopsError("The daemon went away")

    with monkeypatch.context() as context:
        context.setattr(_processes.Namespace, "unwatch", fail)
        result = place.refused("The daemon went away. The change was made", **options)
    assert (result["committed"], result["changed"]) == (True, True)
    assert "blue" in left.env_file.read_text()
    assert notes(place) == ["restore-of-namespace-left.note"]
    place.done(**options)
    assert left.told("a") == ["blue"]
    assert notes(place) == []


# -- killed and cancelled ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_a_point_the_next_call_finishes_it(place, runner, step):
    """Also where the files are back already and the processes have not read them yet."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    place.done(files=[str(left.env_file)])
    others = kept(place, "right")
    options = place.params(state="restored", apply=True, namespace="left", files=[str(left.env_file)])

    def change() -> None:
        left.write("red")
        left.bring("a", "more", env={"TOKEN": "red"})
        left.namespace.bring(state="restarted")
        assert left.told("a", "more") == ["red", "red"]

    change()
    met = runner.run("pm2_dump_backup", options).points
    wanted = (
        "restore noted",
        "environment file put",
        "stop_first_started",
        "gate_passed",
        "committed",
        "saved",
        "retired",
    )
    settled = "before unlink restore-of-namespace-left.note"
    points = [*(point for point in wanted if point in met), "namespace restored", settled]
    assert len(points) == 9, met
    for point in points[::step]:
        change()
        assert runner.run("pm2_dump_backup", options, at=point).killed, point
        result = runner.call("pm2_dump_backup", options)
        assert not result["failed"], (point, result["msg"])
        assert left.told("a") == ["blue"], point
        assert list(left.live()) == ["a"], point
        assert [entry["name"] for entry in left.saved()] == ["a"], point
        assert left.meant()["a/0"]["TOKEN"] is None
        assert not runner.call("pm2_dump_backup", options)["changed"], point
        assert_kept(place, others)
        assert not [path for path in Path(place.pm2.home, "nodeops").iterdir() if not path.name.endswith(".lock")]
    assert right.told("a") == ["blue"]


def test_killed_and_then_refused_by_the_gate_it_goes_back_to_what_was_before_both(place, runner):
    """The file of before is remembered over the killed run."""
    left = readers(place, "left", "a")
    left.write("broken")
    place.done(files=[str(left.env_file)])
    left.write("green")
    left.bring("a")
    files = [str(left.env_file)]
    options = place.params(state="restored", apply=True, namespace="left", files=files, ready=UNTIL_IT_HAS_READ)
    assert runner.run("pm2_dump_backup", options, at="environment file put").killed
    assert "broken" in left.env_file.read_text()
    result = runner.call("pm2_dump_backup", options)
    assert (result["failed"], result["rolled_back"]) == (True, True)
    assert "green" in left.env_file.read_text()
    assert left.told("a") == ["green"]
    assert [status for _pid, status, _restarts in left.live().values()] == ["online"]


def killed_restore_of_two(place: Place, runner: Runner, at: str) -> List[Readers]:
    """Of a file that only the former processes of `right` can read; `left` comes first, and is well with both."""
    both = [readers(place, name, "a") for name in ("left", "right")]
    both[1].write("broken")
    place.done(files=[str(each.env_file) for each in both])
    for each in both:
        each.write("green")
        each.bring("a", env={"TOKEN": "green"})
    assert runner.run("pm2_dump_backup", place.params(state="restored", apply=True), at=at).killed
    return both


@pytest.mark.parametrize("at", full_but(["namespace restored"], ["environment file put", "namespace restored"]))
def test_killed_and_then_refused_each_namespace_goes_back_to_what_was_before_both(place, runner, at):
    """Also the one that the killed restore had brought already; and where a second was killed before it did a thing."""
    left, right = killed_restore_of_two(place, runner, at)
    assert runner.run("pm2_dump_backup", place.params(state="restored", apply=True), at="restore noted").killed
    result = place.refused("exited", state="restored", apply=True, ready=UNTIL_IT_HAS_READ)
    assert (result["rolled_back"], result.get("warnings", [])) == (True, [])
    for each in (left, right):
        assert "green" in each.env_file.read_text()
        assert each.told("a") == ["green"]
        assert each.meant()["a/0"]["TOKEN"] == "green"
        assert [entry["TOKEN"] for entry in each.saved()] == ["green"]
    assert notes(place) == []


def test_what_was_changed_since_a_restore_was_killed_is_what_a_failed_one_goes_back_to(place, runner):
    """A file by hand, a namespace by a deploy: what the killed one has noted of them is old. The others stay noted."""
    left, right = killed_restore_of_two(place, runner, "namespace restored")
    left.write("yellow", "t0ken-by-hand")
    left.bring("a", "more", env={"TOKEN": "yellow"})
    was = left.meant()
    result = place.refused("exited", state="restored", apply=True, ready=UNTIL_IT_HAS_READ)
    assert result["rolled_back"] is True
    assert left.env_file.read_text() == "COLOUR=yellow\nTOKEN=t0ken-by-hand\n"
    assert (left.meant(), left.told("a", "more")) == (was, ["yellow"] * 2)
    told = [warning.partition(" was changed after the restore of backup ")[0] for warning in result["warnings"]]
    assert told == ["Namespace left", str(left.env_file)]
    assert sorted(entry["name"] for entry in left.saved()) == ["a", "more"]
    assert ("green" in right.env_file.read_text(), right.told("a")) == (True, ["green"])
    assert notes(place) == []


def test_the_killed_restore_of_a_namespace_is_no_matter_of_another(place, runner):
    """Neither does that of another forget what was before it, nor put its files back."""
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    left.write("broken")
    files = {"left": [str(left.env_file)], "right": [str(right.env_file)]}
    for name in files:
        place.done(namespace=name, files=files[name])

    def options(name: str) -> Dict[str, Any]:
        return {"state": "restored", "apply": True, "namespace": name, "ready": UNTIL_IT_HAS_READ}

    left.write("green")
    left.bring("a")
    assert runner.run("pm2_dump_backup", place.params(**options("left")), at="environment file put").killed
    others = kept(place, "left")
    assert not place.done(**options("right"))["changed"]
    right.write("red")
    assert place.done(**options("right"))["changed"]
    right.write("red")
    place.refused(
        "nothing like it", **{**options("right"), "ready": {**READY, "timeout": 2, "log": ["nothing like it"]}}
    )
    assert "red" in right.env_file.read_text()
    assert "broken" in left.env_file.read_text()
    assert_kept(place, others)
    assert notes(place) == ["restore-of-namespace-left.note"]
    assert place.refused("exited", **options("left"))["rolled_back"] is True
    assert "green" in left.env_file.read_text()
    assert left.told("a") == ["green"]
    assert notes(place) == []


def test_of_a_killed_restore_of_all_each_namespace_can_be_finished_alone(place, runner):
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    for each in (left, right):
        each.write("broken")
    files = {"left": [str(left.env_file)], "right": [str(right.env_file)]}
    place.done(files=files["left"] + files["right"])
    for each in (left, right):
        each.write("green")
        each.bring("a")
    of_all = place.params(state="restored", apply=True)
    assert runner.run("pm2_dump_backup", of_all, at="stop_first_started").killed
    for each, note in ((left, ["restore-of-all.note"]), (right, [])):
        options = {"state": "restored", "apply": True, "namespace": each.name, "files": files[each.name]}
        assert place.refused("exited", **options, ready=UNTIL_IT_HAS_READ)["rolled_back"] is True
        assert "green" in each.env_file.read_text()
        assert each.told("a") == ["green"]
        assert notes(place) == note


def test_restores_of_two_stores_into_one_pm2_wait_for_each_other(place, runner):
    """What one finds noted is of a dead one, never of one that is under way."""
    other = Place(place.pm2, place.directory / "other")
    (place.directory / "other").mkdir()
    left, right = readers(place, "left", "a"), readers(place, "right", "a")
    place.done(files=[str(left.env_file)])
    other.done(files=[str(right.env_file)])
    for each in (left, right):
        each.write("red")
    options = {"state": "restored", "apply": True}
    calls = [("pm2_dump_backup", each.params(**options)) for each in (place, other)]
    assert [result.get("msg") for result in runner.together(calls) if result["failed"]] == []
    assert left.told("a") + right.told("a") == ["blue"] * 2
    assert notes(place) == []
    left.write("red")
    with open(Path(place.pm2.home, "nodeops", "restore.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place.refused("Nothing was restored", "another run holds", **options, lock_timeout=0.1)
    assert "red" in left.env_file.read_text()


def test_a_cancelled_restore_puts_everything_back(place, runner):
    """SIGTERM before the commit, with the file changed already."""
    left = readers(place, "left", "a")
    place.done(files=[str(left.env_file)])
    left.write("green")
    left.bring("a", env={"TOKEN": "green"})
    left.namespace.bring(state="restarted")
    was = left.meant()
    options = place.params(state="restored", apply=True)
    outcome = runner.run("pm2_dump_backup", options, at="stop_first_started", shell="kill -TERM $PPID")
    assert "stop_first_started" in outcome.points
    result = outcome.result
    assert result
    assert (result["failed"], result["rolled_back"]) == (True, True)
    assert "SIGTERM" in result["msg"]
    assert "green" in left.env_file.read_text()
    assert (left.meant(), left.told("a")) == (was, ["green"])


def test_two_restores_at_once_and_a_backup_between_them(place, runner):
    """They wait for each other; the outcome is that of one."""
    left = readers(place, "left", "a")
    files = [str(left.env_file)]
    place.done(files=files)
    left.write("red")
    left.bring("a", "b", env={"TOKEN": "of the red"})
    restore = ("pm2_dump_backup", place.params(state="restored", apply=True))
    results = runner.together([restore, ("pm2_dump_backup", place.params(files=files)), restore])
    assert [result.get("msg") for result in results if result["failed"]] == []
    assert left.told("a") == (["red"] if results[1]["changed"] else ["blue"])  # of the newest backup, whichever it is
    quick = place.params(state="restored", apply=True, lock_timeout=0.1)
    with open(place.store / ".nodeops" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = runner.call("pm2_dump_backup", quick)
    assert "another run holds" in refused["msg"]


def test_what_failed_in_the_backup_is_not_restored_over_what_works(place):
    """Entries that could not run here are refused before anything is stopped."""
    left = readers(place, "left", "a")
    (place.directory / "old").mkdir()
    left.namespace.bring([{"name": "old", **SLEEPER, "cwd": str(place.directory / "old")}])
    backup = place.done()["backup"]["id"]
    left.bring("a")
    (place.directory / "old").rmdir()
    live = left.live()
    place.refused("old of namespace left", "does not exist", "Nothing of it was changed", state="restored", apply=True)
    assert left.live() == live
    result = place.done(state="restored", backup=backup)
    assert "could not bring back all of it" in result["warnings"][0]
    assert len(left.saved()) == 2
