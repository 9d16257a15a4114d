"""Disks that get full while databases are backed up and restored. Run by test_faults.py in mounts of its own.

Core: the disk of the data, of the store and of PM2. Full: at each moment, and the disk of the WAL.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Iterator, NamedTuple

import pytest
from support import faults
from support.database_world import World
from support.killer import Outcome, Runner
from support.pm2 import Pm2Home
from support.postgres import Server
from support.tiers import full_but

SIZES = {"data": 200_000, "wal": 100_000, "store": 30_000, "pm2": 20_000}  # KiB
SETTINGS = {"min_wal_size": "2MB", "max_wal_size": "2MB", "fsync": "on", "full_page_writes": "on"}
PHOTOS = """\
CREATE TABLE photos (id int PRIMARY KEY, content text);
ALTER TABLE photos ALTER content SET STORAGE EXTERNAL;
INSERT INTO photos
SELECT i, (SELECT string_agg(md5(concat(random(), i, part)), '') FROM generate_series(1, 300) part)
FROM generate_series(1, 700) i;
"""
"""7 MB, of which a compressed dump is more than half."""


class Stage(NamedTuple):
    """A world with a disk for each thing that can get full, and a backup of it."""

    world: World
    backup: str
    disks: Dict[str, Path]

    def fill(self, name: str, leave: int = 0) -> None:
        """Leave so many bytes."""
        found = os.statvfs(self.disks[name])
        with (self.disks[name] / "filled").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, found.f_bfree * found.f_frsize - leave)

    def filling(self, name: str, leave: int = 0) -> str:
        """The same as a command line, for a shell."""
        path = shlex.quote(str(self.disks[name]))
        return f"fallocate -l $(( $(df -B1 --output=avail {path} | tail -1) - {leave} )) {path}/filled"

    def make_room(self) -> None:
        """Remove what was filled in."""
        for path in self.disks.values():
            (path / "filled").unlink(missing_ok=True)


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("disks")
    place = Path(tempfile.mkdtemp(prefix="pg-disks-", dir="/var/tmp"))
    try:
        yield from _on_disks(directory, place)
    finally:
        faults.unmount_below(directory)
        faults.unmount_below(place)
        shutil.rmtree(place)


def _on_disks(directory: Path, place: Path) -> Iterator[Stage]:
    disks = {name: (place if name in ("data", "wal") else directory) / name for name in SIZES}
    for name, path in disks.items():
        faults.small_disk(path, SIZES[name])
    initdb = ["--encoding=UTF8", "--locale=C", f"--waldir={disks['wal']}", "--wal-segsize=1"]
    server = Server(place, settings=SETTINGS, data=disks["data"], initdb=initdb)
    server.give(disks["wal"])
    with server, Runner() as runner:
        home = Pm2Home("7.0", disks["pm2"] / "home")
        with World(server, home, runner, directory, disks["store"] / "backups") as world:
            world.sql(world.shop, PHOTOS, user=world.owner)
            world.sql("postgres", f"ALTER ROLE {world.owner} CREATEDB")
            yield Stage(world, world.backup(), disks)


@pytest.fixture(name="stage")
def _stage(made: Stage) -> Iterator[Stage]:
    """Everything is in order, and nothing full."""
    made.world.check_left()
    made.world.write("live")
    yield made
    made.make_room()
    try:
        made.world.sql("postgres", "SELECT 1")
    except AssertionError:  # a test has failed half-way
        made.world.server.restart()


def failure(outcome: Outcome, *words: str) -> None:
    """The call has failed, with a message that holds the words."""
    assert outcome.result, f"killed: {outcome.points}"
    assert outcome.result["failed"], outcome.result
    for word in words:
        assert word in outcome.result["msg"], f"{word!r} is not in: {outcome.result['msg']}"


def test_no_room_for_the_data(stage: Stage) -> None:
    """Seen before anything is begun."""
    before = stage.world.look()
    stage.fill("data", 5_000_000)
    outcome = stage.world.runner.run("pg_restore", stage.world.options(backup=stage.backup))
    failure(outcome, str(stage.disks["data"]), "MiB", "Nothing was changed")
    stage.make_room()
    stage.world.check(before)


@pytest.mark.full
def test_no_room_for_the_wal(stage: Stage) -> None:
    """Seen before anything is begun: this would shut the whole server down."""
    before = stage.world.look()
    stage.fill("wal", 3_000_000)
    outcome = stage.world.runner.run("pg_restore", stage.world.options(backup=stage.backup))
    failure(outcome, str(stage.disks["wal"]), "MiB", "Nothing was changed")
    stage.make_room()
    stage.world.check(before)


@pytest.mark.parametrize("disk", full_but(["data"], ["data", "wal"]))
def test_a_disk_of_the_server_gets_full_while_it_loads(stage: Stage, disk: str) -> None:
    """Somebody else fills it. The restore is given up before the server notices."""
    before = stage.world.look()
    options = stage.world.options(backup=stage.backup)
    outcome = stage.world.runner.run("pg_restore", options, at=SCRATCH, shell=stage.filling(disk, 2_000_000))
    failure(outcome, "given up", str(stage.disks[disk]), "Free some space")
    stage.make_room()
    stage.world.check(before)


@pytest.mark.full
@pytest.mark.parametrize("disk", ["data", "wal"])
def test_a_disk_of_the_server_gets_full_unseen(stage: Stage, disk: str) -> None:
    """The login may not know where the server has its files. The server goes down, sooner or later.

    When there is room again, and it is started, everything is as it was.
    """
    world = stage.world
    before = world.look()
    options = world.options(backup=stage.backup, login_user=world.owner)
    outcome = world.runner.run("pg_restore", options, at=SCRATCH, shell=stage.filling(disk, 1_000_000))
    failure(outcome)
    assert "No space left on device" in world.server.log_text()
    stage.make_room()
    world.server.restart()
    world.server_was_restarted()
    world.recovered()
    world.check(before)


@pytest.mark.full
def test_the_store_is_full(stage: Stage) -> None:
    before = stage.world.look()
    stage.fill("store")
    failure(stage.world.runner.run("pg_backup", stage.world.backup_options()), "No space left on device")
    stage.make_room()
    assert stage.world.stored() == before.backups
    stage.world.check(before)


def test_the_store_gets_full_while_it_dumps(stage: Stage) -> None:
    before = stage.world.look()
    stage.fill("store", 1_000_000)
    failure(stage.world.runner.run("pg_backup", stage.world.backup_options()), "No space left on device")
    stage.make_room()
    assert stage.world.stored() == before.backups
    stage.world.check(before)


@pytest.mark.full
def test_a_restore_from_a_full_store(stage: Stage) -> None:
    """Its journal cannot be written, so it does not begin."""
    before = stage.world.look()
    stage.fill("store")
    failure(stage.world.runner.run("pg_restore", stage.world.options(backup=stage.backup)), "No space left on device")
    stage.world.check(before)


@pytest.mark.full
def test_the_store_gets_full_before_the_swap(stage: Stage) -> None:
    before = stage.world.look()
    options = stage.world.options(backup=stage.backup)
    outcome = stage.world.runner.run("pg_restore", options, at=SCRATCH, shell=stage.filling("store"))
    failure(outcome, "No space left on device")
    stage.world.check(before)


@pytest.mark.full
def test_the_store_gets_full_after_the_swap(stage: Stage) -> None:
    """Whatever it can still note: the old or the new, and in order."""
    before = stage.world.look()
    options = stage.world.options(backup=stage.backup)
    outcome = stage.world.runner.run("pg_restore", options, at=SWAPPED, shell=stage.filling("store"))
    assert outcome.result
    stage.make_room()
    if outcome.result["failed"]:
        stage.world.recovered()
    stage.world.check_either(before, stage.backup)


def test_the_home_of_pm2_is_full(stage: Stage) -> None:
    """Its daemon would die, and every namespace with it, if it had to start anything now: so nothing is stopped."""
    before = stage.world.look()
    stage.fill("pm2")
    failure(stage.world.runner.run("pg_restore", stage.world.options(backup=stage.backup)), "No space left on device")
    stage.make_room()
    stage.world.check(before)


@pytest.mark.full
def test_the_home_of_pm2_gets_full(stage: Stage) -> None:
    """Its daemon may die of that. The last of the tests: what else ran there has gone with it then."""
    world = stage.world
    before, daemon = world.look(), world.pm2.daemon_pids()
    options = world.options(backup=stage.backup)
    outcome = world.runner.run("pg_restore", options, at=STOPPED, shell=stage.filling("pm2"))
    assert outcome.result
    stage.make_room()
    if outcome.result["failed"]:
        world.recovered()
    if world.pm2.daemon_pids() == daemon:
        world.check_either(before, stage.backup)
    else:
        world.check_without_neighbour(before, stage.backup)


STOPPED, SCRATCH, SWAPPED = "restore stopped", "restore scratch created", "restore swapped"
