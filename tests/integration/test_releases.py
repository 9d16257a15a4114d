"""pm2_release against a real PM2: deploy, the same again, bad ones, back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from support import modules
from support.load import Load
from support.pm2 import Pm2Home
from support.releases import Application

CANARY = "canary-5d1c77"


@pytest.fixture(name="app")
def _app(pm2_7: Pm2Home, tmp_path: Path) -> Application:
    return Application(pm2_7, tmp_path)


def test_the_life_of_an_application(pm2: Pm2Home, tmp_path: Path) -> None:
    """On every PM2, with requests all the time."""
    app = Application(pm2, tmp_path)
    first = app.deployed()["release"]
    app.check_agreement(first, "1")
    with Load(app.port) as load:
        pids = app.pids()
        again = app.deployed()
        assert (again["changed"], again["release"], again["actions"]) == (False, first, [])
        assert app.pids() == pids

        app.release("2")
        second = app.deployed()["release"]
        app.check_agreement(second, "2")

        pids = app.pids()
        app.release("3", health=500)
        bad = app.deploy()
        assert bad["failed"]
        assert "answered 500" in bad["msg"]
        assert bad["stage"] == "publish"
        assert bad["rolled_back"] is True
        app.check_agreement(second, "2")
        assert app.pids() == pids  # not even the worker had to make room
        assert app.manifest(bad["release"])["status"] == "bad"
        assert "answered 500" in app.manifest(bad["release"])["reason"]

        back = app.roll_back()
        assert (back["changed"], back["release"], back["former"]) == (True, first, second)
        app.check_agreement(first, "1")
        assert app.manifest(second)["status"] == "rolled back"
        pids = app.pids()
        further = app.roll_back()
        assert further["failed"]
        assert "no earlier good release" in further["msg"]
        assert app.pids() == pids

        forward = app.roll_back(release=second)
        assert not forward["failed"], forward
        assert forward["release"] == second
        app.check_agreement(second, "2")
        assert app.manifest(second)["status"] == "good"
        assert app.manifest(first)["status"] == "good"
    assert load.failed == 0, load.errors
    told = [(line["action"], line["result"], line["release"]) for line in app.history()]
    assert told == [
        ("deploy", "deployed", first),
        ("deploy", "deployed", second),
        ("deploy", "failed", bad["release"]),
        ("rollback", "rolled back", first),
        ("rollback", "failed", None),
        ("rollback", "rolled back", second),
    ]
    assert {line["by"] for line in app.history()} == {"mary@laptop"}


def test_a_release_that_runs_and_answers_badly_is_renewed(app: Application) -> None:
    """Its processes are as defined, yet that is not "runs healthily"."""
    app.release("1", health=200)
    release = app.deployed()["release"]
    script = app.root / "releases" / release / "app.js"
    pids = app.pids()
    text = script.read_text()
    script.write_text(text.replace('"health": 200', '"health": 503'))
    run = app.run()
    failing = {"http": [{"url": f"http://127.0.0.1:{app.port}/health", "status": [503]}]}
    assert not modules.call("pm2_process", {**_engine(app), "state": "restarted", "ready": failing})["failed"]
    script.write_text(text)
    prepared = app.call("pm2_release", app.prepared_options(run))
    assert prepared["needed"] is False
    result = app.call("pm2_release", app.published_options(run, release))
    assert result["changed"] is True
    assert "answered 503" in str(result["warnings"])
    app.check_agreement(release, "1")
    assert not set(app.pids().values()) & set(pids.values())


def _engine(app: Application) -> Dict[str, Any]:
    return {"namespace": app.namespace, "pm2_home": app.pm2.home, "ready": {"min_uptime": 0.1}}


def test_check_mode_changes_nothing_and_says_what_would_be(app: Application, tmp_path: Path) -> None:
    run = app.run()
    prepared = modules.call("pm2_release", app.prepared_options(run), check=True)
    assert (prepared["changed"], prepared["needed"], prepared["former"]) == (True, True, None)
    published = modules.call("pm2_release", app.published_options(run, prepared["release"]), check=True)
    assert [(action["action"], action["name"]) for action in published["actions"]] == [
        ("start", "api"),
        ("start", "worker"),
    ]
    assert not app.root.exists()
    assert app.pm2.daemon_pids() == []

    first = app.deployed()["release"]
    app.release("2")
    second = app.deployed()["release"]
    before = sorted(map(str, tmp_path.rglob("*")))
    back = modules.call("pm2_release", app.options("rolled_back", app.run()), check=True)
    assert (back["changed"], back["release"]) == (True, first)
    assert {action["action"] for action in back["actions"]} == {"replace", "restart"}
    app.release("3")
    prepared = modules.call("pm2_release", app.prepared_options(run := app.run()), check=True)
    assert prepared["needed"] is True
    published = modules.call("pm2_release", app.published_options(run, prepared["release"]), check=True)
    assert {action["action"] for action in published["actions"]} == {"replace"}
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    app.check_agreement(second, "2")


def test_a_changed_environment_file_is_a_new_release_and_comes_back_with_the_old_one(app: Application) -> None:
    def deploy(value: str) -> str:
        run = app.run()
        environment = {"FLAG": value, "SECRET": CANARY}
        more = {"environment": environment, "environment_file": ".env"}
        prepared = app.call("pm2_release", app.prepared_options(run, **more))
        assert not prepared["failed"], prepared
        result = app.call("pm2_release", app.published_options(run, prepared["release"], environment=environment))
        assert not result["failed"], result
        assert CANARY not in json.dumps([prepared, result])
        return str(result["release"])

    def flag() -> str:
        path = app.root / "current" / ".env"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return path.read_text()

    first = deploy("old")
    second = deploy("new")
    assert first != second
    assert "FLAG=new" in flag()
    assert deploy("new") == second
    app.roll_back()
    assert "FLAG=old" in flag()
    environ = {item["pm2_env"]["FLAG"] for item in app.pm2.processes(app.namespace)}
    assert environ == {"old"}
    for path in app.root.rglob("*"):
        if path.is_file() and CANARY in path.read_text(errors="replace"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_two_runs_at_once(app: Application) -> None:
    first, second = app.run(), app.run()
    assert not app.call("pm2_release", app.prepared_options(first, version="v7"))["failed"]
    refused = app.call("pm2_release", app.prepared_options(second))
    assert refused["failed"]
    for part in ("shop", "prod", "is locked", "deploy of v7", "mary", "laptop", first, "Nothing was changed"):
        assert part in refused["msg"]
    assert refused["locked_by"]["run"] == first
    assert app.roll_back()["failed"]
    published = app.call("pm2_release", app.published_options(first, app.releases()[0]))
    assert not published["failed"]
    assert not app.call("pm2_release", app.prepared_options(second))["failed"]  # free again


def test_a_rollback_waits_for_a_deploy_that_runs(app: Application) -> None:
    first = app.deployed()["release"]
    app.release("2")
    run = app.run()
    second = app.call("pm2_release", app.prepared_options(run))["release"]
    waiting = modules.spawn("pm2_release", app.options("rolled_back", app.run(), lock_timeout=60))
    time.sleep(2)
    assert waiting.poll() is None
    assert not app.call("pm2_release", app.published_options(run, second))["failed"]
    back = modules.finish(waiting)
    assert (back["failed"], back.get("release"), back.get("former")) == (False, first, second), back
    app.check_agreement(first, "1")


def test_what_a_run_left_unpublished_is_abandoned(app: Application) -> None:
    run = app.run()
    prepared = app.call("pm2_release", app.prepared_options(run))
    result = app.call(
        "pm2_release",
        app.options("abandoned", run, release=prepared["release"], stage="hook after_build", reason="it said no"),
    )
    assert result["removed"] == [prepared["release"]]
    assert app.releases() == []
    told = app.history()[-1]
    assert (told["result"], told["stage"], told["reason"]) == ("failed", "hook after_build", "it said no")
    app.deployed()


def test_pruning_keeps_what_is_referred_to(app: Application) -> None:
    releases = []
    for version in "12345":
        app.release(version)
        releases.append(app.deployed()["release"])
    assert app.releases() == releases
    foreign = {"namespace": "other", "pm2_home": app.pm2.home, "ready": {"min_uptime": 0.1}}
    held = str(app.root / "releases" / releases[0])
    sleeper = {"name": "sleeper", "script": "worker.js", "cwd": held}
    assert not modules.call("pm2_process", {**foreign, "apps": [sleeper]})["failed"]

    foreseen = modules.call("pm2_release", app.options("pruned", app.run(), keep=1), check=True)
    assert sorted(foreseen["removed"]) == releases[1:3]
    assert app.releases() == releases
    removed = app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"]
    assert sorted(removed) == releases[1:3]
    assert app.releases() == [releases[0], *releases[3:]]
    assert not modules.call("pm2_process", {**foreign, "state": "stopped"})["failed"]
    assert app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"] == []  # the dump still names it
    assert not modules.call("pm2_process", {**foreign, "state": "absent"})["failed"]
    assert app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"] == [releases[0]]
    app.check_agreement(releases[-1], "5")
    assert sorted(os.listdir(app.root / ".nodeops" / "definitions")) == sorted(f"{name}.json" for name in releases[3:])


def test_a_release_that_was_removed_by_hand(app: Application) -> None:
    first = app.deployed()["release"]
    app.release("2")
    second = app.deployed()["release"]
    shutil.rmtree(app.root / "releases" / first)
    refused = app.roll_back()
    assert refused["failed"]
    assert "no earlier good release" in refused["msg"]
    assert app.served() == {"2"}

    shutil.rmtree(app.root / "releases" / second)
    assert app.served() == {"2"}
    third = app.deployed()["release"]
    assert third != second
    app.check_agreement(third, "2")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_current_that_is_no_link(app: Application, kind: str) -> None:
    release = app.deployed()["release"]
    current = app.root / "current"
    current.unlink()
    if kind == "directory":
        shutil.copytree(app.root / "releases" / release, current)
    else:
        current.write_text("")
    pids = app.pids()
    app.release("2")
    for result in (app.deploy(), app.roll_back()):
        assert result["failed"]
        assert "is not a symbolic link" in result["msg"]
        assert "Nothing was changed" in result["msg"]
    assert app.releases() == [release]
    assert app.pids() == pids


def test_a_static_site_needs_no_daemon(app: Application) -> None:
    def publish(version: str, status: int = 200) -> Dict[str, Any]:
        app.source.joinpath("index.html").write_text(version)
        run = app.run()
        prepared = app.call("pm2_release", app.prepared_options(run))
        assert not prepared["failed"], prepared
        ready = {"timeout": 1, "min_uptime": 0, "http": [{"url": f"http://127.0.0.1:{port}/index.html"}]}
        ready["http"][0]["status"] = [status]  # type: ignore[index]
        return app.call("pm2_release", app.published_options(run, prepared["release"], apps=[], ready=ready))

    port = app.port
    server = _serve(app.root / "current", port)
    try:
        first = publish("one")
        assert not first["failed"], first
        assert (app.root / "current" / "index.html").read_text() == "one"
        bad = publish("two", status=418)
        assert bad["failed"]
        assert "answered 200, expected 418" in bad["msg"]
        assert app.current() == first["release"]
        assert app.manifest(bad["release"])["status"] == "bad"
        good = publish("three")
        assert not good["failed"], good
        assert not app.roll_back()["failed"]
        assert app.current() == first["release"]
    finally:
        server.shutdown()
    assert app.pm2.daemon_pids() == []


def _serve(directory: Path, port: int) -> Any:
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


REFUSED: List[Tuple[Dict[str, Any], str]] = [
    ({"release": "../up"}, "is no id"),
    ({"source": {"type": "directory", "location": "host", "address": "relative"}}, "absolute"),
    ({"source": {"type": "directory", "location": "host", "address": "/does/not/exist"}}, "/does/not/exist"),
    ({"source": {"type": "archive", "location": "host", "address": "/x.tgz"}}, "sha256"),
    ({"environment": {"no-name": "1"}, "environment_file": ".env"}, "no-name"),
    ({"environment": {"A": "1"}, "environment_file": "../.env"}, "environment_file"),
    ({"shared": ["../x"]}, "../x"),
    ({"contract": {"example": "missing.env"}}, "missing.env"),
    ({"contract": {"rules": {"A": {"no_such_rule": 1}}}}, "no_such_rule"),
    ({"forbidden": ["["], "build": [["true"]]}, "forbidden"),
    ({"forbidden": ["drizzle-kit push.*--force"], "migrate": ["npx drizzle-kit push --force"]}, "drizzle-kit"),
    ({"namespace": "all"}, "all"),
]


def test_what_is_refused_before_anything_changes(app: Application) -> None:
    release = app.deployed()["release"]
    pids = app.pids()
    app.release("2")
    for options, message in REFUSED:
        for check in (False, True):
            result = modules.call("pm2_release", app.prepared_options(app.run(), **options), check=check)
            assert result["failed"], (options, result)
            assert message in result["msg"]
        assert app.releases() == [release], options
        assert app.pids() == pids, options
    app.check_agreement(release, "1")
    app.deployed()


def test_one_call_goes_on_to_publish_where_nothing_lies_between(app: Application) -> None:
    def deploy(check: bool = False, **more: Any) -> Dict[str, Any]:
        options = {"go_on": True, "apps": app.apps(), "ready": app.ready(), **more}
        return modules.call("pm2_release", app.prepared_options(app.run(), **options), check=check)

    foreseen = deploy(check=True)
    assert (foreseen["changed"], foreseen["needed"], foreseen["went_on"]) == (True, True, True)
    assert {action["name"] for action in foreseen["actions"]} == {"api", "worker"}
    assert not app.root.exists()

    first = deploy()
    assert (first["changed"], first["needed"], first["went_on"]) == (True, True, True)
    app.check_agreement(first["release"], "1")
    again = deploy()
    assert (again["changed"], again["needed"], again["in_order"]) == (False, False, True)

    app.release("2", health=500)
    bad = deploy()
    assert bad["failed"]
    assert (bad["stage"], bad["rolled_back"], bad["former"]) == ("publish", True, first["release"])
    assert app.manifest(bad["release"])["status"] == "bad"
    app.check_agreement(first["release"], "1")

    app.release("3")
    run = app.run()
    options = {"go_on": True, "apps": app.apps(), "ready": app.ready(), "build": [["true"]]}
    prepared = app.call("pm2_release", app.prepared_options(run, **options))
    assert "went_on" not in prepared  # it has to be built first
    built = app.call("pm2_release", app.options("built", run, release=prepared["release"], build=[["true"]]))
    assert not built["failed"]
    assert not app.call("pm2_release", app.published_options(run, prepared["release"]))["failed"]
    app.check_agreement(prepared["release"], "3")
    assert app.deploy()["failed"] is False  # the lock was freed every time


def test_what_has_restarted_is_in_order_once_it_has_settled(app: Application) -> None:
    def prepared(min_uptime: float) -> Dict[str, Any]:
        ready = {**app.ready(), "timeout": 900, "min_uptime": min_uptime}
        run = app.run()
        result = app.call("pm2_release", app.prepared_options(run, apps=app.apps(), ready=ready))
        app.call("pm2_release", app.options("abandoned", run))
        return result

    app.deployed()
    pids = app.pids()
    os.kill(pids["worker-0"], signal.SIGKILL)  # PM2 starts it again
    deadline = time.monotonic() + 60
    while app.pids()["worker-0"] in (pids["worker-0"], 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert prepared(600)["in_order"] is False
    time.sleep(0.5)
    assert prepared(0.2)["in_order"] is True
