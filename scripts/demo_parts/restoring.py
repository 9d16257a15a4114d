"""The steps with the database: a backup, a mistake, a restore, its undo."""

from __future__ import annotations

import json
from collections import Counter
from typing import List

import database
import show
import world
from acting import PROOFS, play, under_load
from support.load import get


def products(environment: str) -> List[str]:
    """The products that an environment's API sells."""
    return [product["name"] for product in json.loads(get(world.port(environment), "/products"))]


def back_up() -> None:
    show.step(
        7,
        "Production is backed up",
        """Its processes (its part of dump.pm2) and its PostgreSQL database. A backup is signed, and counts only if
        it is complete and verified. The same playbook can have cron or systemd repeat it, but not in this demo.""",
    )
    run = play("production-backup", world.command("backup", "production", {}))
    PROOFS.that("the backup was made", run.ok, f"in {world.relative(world.DEMO)}/backups/production", run)
    for found in world.backups("production"):
        size = sum(file["size"] for file in found["files"])
        print(f"    {found['id']}  {size / 1000:.1f} kB")
    counted = database.rows_of(world.backups("production"), "production")
    PROOFS.that("it knows how many products there were", counted == 3, counted)


def a_mistake() -> None:
    name = database.name_of("production")
    show.step(
        8,
        "A product is deleted by mistake, and the database restored",
        """After the backup, mate is added (on purpose) and tea is deleted (by mistake). The backup is restored into a
        new database beside the live one and compared with what was backed up. Only then are production's processes
        stopped. The databases change their names in one transaction, and the processes are started and checked.""",
    )
    database.ask(name, "INSERT INTO products (name, cents) VALUES ('mate', 610)")
    database.ask(name, "DELETE FROM products WHERE name = 'tea'")
    PROOFS.that("tea is gone", products("production") == ["cocoa", "coffee", "mate"], products("production"))
    former = database.identity("production")
    wrong = world.command("db_restore", "production", {"db_restore_confirm": "shop_test@test"})
    run = play("production-restore-refused", wrong)
    PROOFS.that("a restore has to name its database and environment", not run.ok and bool(run.message), "refused", run)
    show.reason(run)
    PROOFS.that("nothing was changed", database.identity("production") == former, "the same database")

    swapped(
        "restore",
        world.command("db_restore", "production", {"db_restore_confirm": f"{name}@production"}),
        ["cocoa", "coffee", "tea"],
        "tea is back, and what was written after the backup (mate) is not in it",
    )
    PROOFS.that(
        "the database with mate is kept, closed, for an undo",
        database.previous("production") == [former],
        " ".join(kept for kept in database.names() if "__prev_" in kept),
    )


def undo() -> None:
    show.step(
        9,
        "The restore is undone",
        """Mate was worth more than tea. The databases change their names again, with the same checks. Now the restored
        one is kept.""",
    )
    former = database.identity("production")
    confirmed = {"db_restore_confirm": f"{database.name_of('production')}@production"}
    swapped(
        "undo",
        world.command("db_undo", "production", confirmed),
        ["cocoa", "coffee", "mate"],
        "mate is back, and tea is gone again",
    )
    PROOFS.that("the database with tea is kept", database.previous("production") == [former], "for another undo")


def swapped(label: str, command: List[str], sold: List[str], claim: str) -> None:
    """Run a playbook that swaps production's database, and prove the result."""
    neighbour = database.identity("test"), products("test")
    run, load, before, after = under_load(lambda: play(f"production-{label}", command), "/products")
    PROOFS.that(f"the {label} went well", run.ok, f"{run.seconds:.0f} s in all", run)
    show.processes(before, after)
    text = f"{load.gap:.1f} s (the playbook says {run.results['downtime']:.1f} s); a large database takes no longer"
    PROOFS.that("the longest time without an answer of production", 0 < load.gap < 30, text)
    PROOFS.that(claim, products("production") == sold, ", ".join(products("production")))
    states = Counter(process.status for process in after.of("production"))
    PROOFS.that("all of production runs again", states == {"online": 3}, dict(states))
    PROOFS.untouched("test", before, after)
    same = (database.identity("test"), products("test")) == neighbour
    PROOFS.that("test's database, on the same server, is the same", same, ", ".join(products("test")))
    PROOFS.that("no half restored database is left", not any("__new_" in name for name in database.names()), "none")
