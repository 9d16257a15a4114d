"""The steps of the demo. Every proof is computed from what PM2, its dump file and the applications say then."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, Dict

import database
import restoring
import show
import world
from acting import PROOFS, play, under_load
from support.load import Load, get

SHOP = world.ROOT / "examples" / "shop"


def release(version: str, *edits: tuple[str, str, str]) -> Path:
    """A copy of the shop with another version; `edits` are (file, text, new text)."""
    directory = world.DEMO / "source" / version
    shutil.copytree(SHOP, directory, ignore=shutil.ignore_patterns("node_modules", "spool", "logs"))
    for name, old, new in (("package.json", '"version": "1.0.0"', f'"version": "{version}"'), *edits):
        text = (directory / name).read_text()
        if old not in text:
            raise SystemExit(f"{name} of examples/shop does not hold {old!r} any more: mend scripts/demo_parts/main.py")
        (directory / name).write_text(text.replace(old, new))
    return directory


def answers(environment: str, path: str = "/") -> Dict[str, Any]:
    """The answer of an environment's API."""
    answer: Dict[str, Any] = json.loads(get(world.port(environment), path))
    return answer


def deploy(label: str, environment: str, source: Path, **variables: str) -> world.Run:
    """Deploy with the shipped playbook, and show it."""
    return play(label, world.command("deploy", environment, {"deploy_source": str(source), **variables}))


def first_deploys() -> None:
    show.step(
        1,
        "Deploy 1.0.0 as production, then as test",
        """Both have apps of the same names on one PM2 daemon: shop-api (cluster mode, two workers) and shop-worker
        (fork mode). Plain PM2 would take the second deploy for a change of the first.""",
    )
    source = release("1.0.0")
    run = deploy("production-1.0.0", "production", source)
    PROOFS.that("production was deployed", run.ok, f"release {world.live_release('production')}", run)
    before = world.look()
    run = deploy("test-1.0.0", "test", source)
    PROOFS.that("test was deployed", run.ok, f"release {world.live_release('test')}", run)
    after = world.look()
    show.processes(before, after)
    PROOFS.untouched("production", before, after)
    for environment in world.ENVIRONMENTS:
        seen = [answers(environment) for _request in range(20)]
        kinds = Counter(f"{a['environment']} {a['version']} instance {a['instance']}" for a in seen)
        expected = {f"{environment} 1.0.0 instance {instance}" for instance in (0, 1)}
        PROOFS.that(f"{environment}'s two workers answer", set(kinds) == expected, ", ".join(sorted(kinds)))
    PROOFS.that("an order went from production's API to its worker", *order("production"))

    run = deploy("production-again", "production", source)
    again = world.look()
    PROOFS.that("the same deploy again changes nothing", run.ok and run.changed == 0, f"changed={run.changed}", run)
    PROOFS.that("and moves no process", again == after, f"{len(again.processes)} processes as before")


def order(environment: str) -> tuple[bool, str]:
    """Place an order. Returns whether the worker packed it, and what was found."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{world.port(environment)}/orders",
        json.dumps({"item": "tea", "quantity": 2}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        number = json.load(response)["id"]
    deadline = time.monotonic() + 5
    while (found := answers(environment, f"/orders/{number}"))["state"] != "done" and time.monotonic() < deadline:
        time.sleep(0.05)
    if found["state"] != "done":
        return False, f"still {found['state']}"
    worker = next(p for p in world.look().of(environment) if p.name == "shop-worker")
    by = found["order"]["packed_by"]["pid"]
    return by == worker.pid, f"packed by pid {by}"


def versions(load: Load) -> dict[str, int]:
    """The number of answers from each version."""
    seen: Counter[str] = Counter()
    for body, count in load.bodies.items():
        seen[json.loads(body)["version"]] += count
    return dict(sorted(seen.items()))


def no_failure(load: Load) -> None:
    """Prove that no request of the load failed."""
    text = f"{load.ok} answered, {load.failed} failed{f' ({dict(load.errors)})' if load.failed else ''}"
    PROOFS.that("no request to production failed meanwhile", load.failed == 0 and load.ok > 100, text)


def new_version() -> None:
    show.step(
        2,
        "A new version of production, under load",
        """1.1.0 is deployed while four clients keep asking. New workers start beside the old ones. The old
        ones stop only after the new ones have passed their checks. (The fork app is stopped and started.)""",
    )
    former = world.live_release("production")
    source = release("1.1.0")
    run, load, before, after = under_load(lambda: deploy("production-1.1.0", "production", source))
    PROOFS.that("the deploy went well", run.ok, f"{former} → {world.live_release('production')}", run)
    show.processes(before, after)
    no_failure(load)
    seen = versions(load)
    PROOFS.that("the answers went from one version to the other", set(seen) == {"1.0.0", "1.1.0"}, seen)
    serves("production is 1.1.0", "1.1.0")
    (dependencies,) = world.manifests("production")["1.1.0"]["dependencies"]
    PROOFS.that(
        "node_modules was not installed again",
        Path(dependencies["taken_from"] or "").name == former,
        f"same lock file and Node: copied from {former} in {dependencies['seconds']:.1f} s",
    )
    PROOFS.untouched("test", before, after)


def serves(claim: str, version: str) -> None:
    """Prove that production answers with this version and no other."""
    seen = {answers("production")["version"] for _try in range(20)}
    PROOFS.that(claim, seen == {version}, "20 of 20" if seen == {version} else seen)


def refused(number: int, title: str, text: str, version: str, edit: tuple[str, str, str]) -> None:
    """Deploy a version that must not go live."""
    show.step(number, title, text)
    former = world.live_release("production")
    source = release(version, edit)
    run, load, before, after = under_load(lambda: deploy(f"production-{version}", "production", source))
    PROOFS.that("the deploy was refused", not run.ok and bool(run.message), "ansible-playbook failed, saying", run)
    show.reason(run)
    show.processes(before, after)
    no_failure(load)
    print(f"    (answers while it was tried: {versions(load)})")
    serves("production is 1.1.0 as before", "1.1.0")
    api = [[p for p in view.of("production") if p.name == "shop-api"] for view in (before, after)]
    PROOFS.that("production's API was not touched", api[0] == api[1], "same pids, same restart counts")
    states = {process.status for process in after.of("production")}
    PROOFS.that("all of production runs", states == {"online"} and len(after.of("production")) == 3, states)
    PROOFS.that("production's release is the one before", world.live_release("production") == former, former)
    manifest = world.manifests("production")[version]
    marked = manifest["status"] == "bad" and manifest["reason"] and manifest["reason"] in run.message
    PROOFS.that(f"{version} is marked bad, with the reason", marked, f"{manifest['release']}/.nodeops-release.json")
    PROOFS.untouched("test", before, after)


def one_variable() -> None:
    greeting = "Hello from the changed variable"
    show.step(
        5,
        "One environment variable of test changes",
        f"""SHOP_GREETING becomes "{greeting}". No new release is needed; only the app that has the variable is
        replaced, and production is under load meanwhile.""",
    )
    former = world.live_release("test")
    source = world.DEMO / "source" / "1.0.0"
    run, load, before, after = under_load(lambda: deploy("test-greeting", "test", source, shop_greeting=greeting))
    PROOFS.that("the deploy went well", run.ok, "done", run)
    show.processes(before, after)
    PROOFS.that(
        "test greets with it", {answers("test")["greeting"] for _try in range(20)} == {greeting}, "20 of 20 answers"
    )
    PROOFS.that("test's release is the same", world.live_release("test") == former, former)
    worker = [[p for p in view.of("test") if p.name == "shop-worker"] for view in (before, after)]
    PROOFS.that("test's worker, which has no such variable, was not touched", worker[0] == worker[1], "same pid")
    no_failure(load)
    PROOFS.untouched("production", before, after)


def rollback() -> None:
    show.step(
        6,
        "Production is rolled back by hand, under load",
        """1.1.0 runs well, but 1.0.0 is wanted back. The playbook goes to the last good release before the live one,
        with the same checks. It does not choose 1.2.0 and 1.3.0, which are marked bad.""",
    )
    left, target = world.live_release("production"), world.manifests("production")["1.0.0"]["release"]
    command = world.command("rollback", "production", {})
    run, load, before, after = under_load(lambda: play("production-rollback", command))
    PROOFS.that("the rollback went well", run.ok, f"{left} → {world.live_release('production')}", run)
    PROOFS.that("it went to the release of 1.0.0 itself", world.live_release("production") == target, target)
    show.processes(before, after)
    no_failure(load)
    serves("production is 1.0.0", "1.0.0")
    status = world.manifests("production")["1.1.0"]["status"]
    PROOFS.that("1.1.0 is marked, so that no later rollback goes there unasked", status == "rolled back", status)
    PROOFS.untouched("test", before, after)

    entries = world.history("production")
    print(f"\n  What {world.relative(world.DEMO)}/production/deploys.jsonl says of production:", end="")
    show.history(entries)
    outcomes = [(entry["result"], entry["version"]) for entry in entries]
    expected = [("deployed", "1.0.0"), ("deployed", "1.1.0"), ("failed", "1.2.0"), ("failed", "1.3.0")]
    PROOFS.that(
        "the history has every outcome, and no line for the deploy that changed nothing",
        outcomes == [*expected, ("rolled back", "1.0.0")],
        f"{len(entries)} lines",
    )


def how_to_look() -> None:
    pm2 = f"PM2_HOME={world.PM2_HOME} {world.relative(world.PM2)}"
    print(f"""
To look at it (from {world.ROOT}):
  curl http://127.0.0.1:{world.port("production")}/            production, version 1.0.0
  curl http://127.0.0.1:{world.port("test")}/            test, version 1.0.0
  {pm2} list
  {pm2} logs --lines 20
  ls -l {world.relative(world.DEMO)}/production/current {world.relative(world.DEMO)}/production/releases
  cat {world.relative(world.DEMO)}/production/deploys.jsonl
  curl http://127.0.0.1:{world.port("production")}/products    what production sells
  {database.psql_command("production")}
  ls {world.relative(world.DEMO)}/backups/production
  less inventories/local/group_vars/all.yml      how both environments are described
To stop it:
  make demo-stop""")


def demo() -> None:
    """Run all steps."""
    started = time.monotonic()
    show.paragraph(
        """This demo runs the collection's playbooks (deploy, rollback, backup, db_restore, db_undo) on this machine, as
        you, without root. It has a PM2 daemon and a PostgreSQL of its own (below .cache/demo; ~/.pm2 is not used).
        Lines with ✔ are proven: computed from `pm2 jlist`, dump.pm2, the releases' manifests, deploys.jsonl, psql and
        the applications' answers."""
    )
    database.stop()
    world.stop()
    world.prepare()
    world.note({"shop_pg_bindir": str(database.start())})
    first_deploys()
    new_version()
    refused(
        3,
        "A version that crashes at its start is undone, under load",
        "1.2.0 throws an exception before it listens. PM2 would report success.",
        "1.2.0",
        (
            "server.js",
            "const app = express();",
            "throw new Error('no connection to the price list');\nconst app = express();",
        ),
    )
    refused(
        4,
        "A version that starts and is not healthy is undone too, under load",
        """1.3.0 listens, but its /health answers 500. The inventory says what healthy means (deploy_ready). While a new
        version is tried, it shares the port with the old one, so some answers come from it.""",
        "1.3.0",
        ("server.js", "const states = {};", "return response.status(500).json({ status: 'failing' });"),
    )
    one_variable()
    rollback()
    restoring.back_up()
    restoring.a_mistake()
    restoring.undo()
    print(f"\n{PROOFS.count} proofs hold, in {time.monotonic() - started:.0f} s. Production and test are left running.")
    how_to_look()


def stop() -> None:
    """End the processes that the demo left."""
    count = world.stop() + database.stop()
    what = "The demo's daemon, applications and PostgreSQL"
    print(f"{what} are ended ({count} processes)." if count else "No demo is running.")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["stop"]):
        raise SystemExit("usage: scripts/demo [stop]")
    (stop if sys.argv[1:] else demo)()
