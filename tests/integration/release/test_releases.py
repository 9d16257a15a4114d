"""pm2_release with a real PM2: deploys, repeated and bad deploys, rollbacks, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _processes
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from support import modules
from support.load import Load
from support.pm2 import Pm2Home
from support.releases import Application

CANARY = "canary-5d1c77"


@pytest.fixture(name="app")
def _app(pm2_7: Pm2Home, tmp_path: Path) -> Application:
    return Application(pm2_7, tmp_path)


def test_the_life_of_an_application(pm2: Pm2Home, tmp_path: Path) -> None:
    """On every PM2, under constant requests."""
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
        assert app.pids() == pids  # not even the worker was replaced
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


def test_a_running_release_that_answers_badly_is_renewed(app: Application) -> None:
    """Its processes are as defined, but they are not healthy."""
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


def test_check_mode_changes_nothing_and_predicts_the_change(app: Application, tmp_path: Path) -> None:
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


def test_a_changed_environment_file_is_a_new_release_and_a_rollback_restores_the_old_one(app: Application) -> None:
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
    assert not app.call("pm2_release", app.prepared_options(second))["failed"]  # the lock is free again


def test_the_lock_says_which_version_as_soon_as_it_is_known(app: Application) -> None:
    def locked() -> Dict[str, Any]:
        found: Dict[str, Any] = json.loads((app.root / ".nodeops" / "deploy.lock").read_text())
        return found

    first = app.deployed()["release"]
    app.release("2")
    run = app.run()
    second = app.call("pm2_release", app.prepared_options(run))
    assert second["version"] != app.manifest(first)["version"]
    refused = app.roll_back()
    assert f"is locked: a deploy of {second['version']} by mary" in refused["msg"]
    seen = modules.call("pm2_release", app.prepared_options(app.run()), check=True)
    assert f"shop is locked: a deploy of {second['version']} by mary (laptop" in str(seen["warnings"])
    assert locked()["goal"] == f"from {app.source}"
    assert not app.call("pm2_release", app.published_options(run, second["release"]))["failed"]
    app.roll_back()
    assert (locked()["action"], locked()["version"]) == ("rollback", app.manifest(first)["version"])
    assert locked()["goal"] == "to the release before"


def test_a_rollback_waits_for_a_running_deploy(app: Application) -> None:
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


def test_an_unpublished_release_is_abandoned(app: Application) -> None:
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


def test_pruning_keeps_releases_that_are_referred_to(app: Application) -> None:
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
    assert app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"] == []  # the dump names it
    assert not modules.call("pm2_process", {**foreign, "state": "absent"})["failed"]
    assert app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"] == [releases[0]]
    app.check_agreement(releases[-1], "5")
    assert sorted(os.listdir(app.root / ".nodeops" / "definitions")) == sorted(f"{name}.json" for name in releases[3:])


def test_pruning_keeps_a_release_that_a_link_of_the_user_leads_to(app: Application, tmp_path: Path) -> None:
    """The link is absolute, uses the root's other name, or leads over another link."""
    app.root = tmp_path / "other-name"
    (tmp_path / "disk").mkdir()
    app.root.symlink_to(tmp_path / "disk")
    releases = [app.deploy_files(content)["release"] for content in "1234"]
    current = app.root / "current"
    for text in (str(tmp_path / "disk" / "releases" / releases[0]), "releases/latest"):
        (app.root / "releases" / "latest").unlink(missing_ok=True)
        (app.root / "releases" / "latest").symlink_to(releases[0])
        current.unlink()
        current.symlink_to(text)
        foreseen = modules.call("pm2_release", app.options("pruned", app.run(), keep=1), check=True)
        assert foreseen["removed"] == releases[2:0:-1]
    assert app.call("pm2_release", app.options("pruned", app.run(), keep=1))["removed"] == releases[2:0:-1]
    assert (current / "index.html").read_text() == "1"


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
def test_a_current_that_is_not_a_link(app: Application, kind: str) -> None:
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


def other_version(app: Application, **more: Any) -> Dict[str, Any]:
    """The result of a deploy of version 2 with other options of `published`."""
    app.release("2")
    return published(app, **more)


def published(app: Application, **more: Any) -> Dict[str, Any]:
    """The result of a deploy with other options of `published`."""
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    return app.call("pm2_release", app.published_options(run, release, **more))


def test_an_app_that_runs_through_current_is_refused(app: Application) -> None:
    """The old code would be tried instead of the new one."""
    first = app.deployed()["release"]
    (app.root.parent / "alias").symlink_to(app.root)
    worker = {"name": "worker", "script": "worker.js"}
    old = app.root / "releases" / first
    for wrong in (
        {**worker, "cwd": str(app.root / "current")},
        {**worker, "cwd": "../../current"},
        {**worker, "script": str(app.root.parent / "alias" / "current" / "worker.js")},
        {**worker, "cwd": str(old)},
    ):
        result = other_version(app, apps=[wrong])
        assert result["failed"], wrong
        assert "App worker: its" in result["msg"]
        assert "Leave cwd out" in result["msg"]
        assert app.releases() == [first]
    config = {"apps": [{**worker, "cwd": str(app.root / "current")}]}
    app.release("2")
    (app.source / "ecosystem.config.json").write_text(json.dumps(config))
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    result = app.call("pm2_release", app.published_options(run, release, apps=[], ecosystem="ecosystem.config.json"))
    assert "Leave cwd out" in result["msg"]
    app.check_agreement(first, "1")
    for check in (False, True):
        by_current = {"apps": [{**worker, "cwd": str(app.root / "current")}]}
        refused = modules.call("pm2_release", app.prepared_options(app.run(), **by_current), check=check)
        assert "Leave cwd out" in refused["msg"]


def test_processes_are_removed_by_a_release_of_files_alone(app: Application) -> None:
    app.deployed()
    ready = {"min_uptime": 0}
    refused = other_version(app, apps=[], ready=ready)
    assert refused["failed"]
    assert "some that run in releases" in refused["msg"]
    assert "api, worker" in refused["msg"]
    assert app.served() == {"1"}
    few = other_version(app, apps=[], ready=ready, prune=True, max_affected=2)
    assert "max_affected is 2" in few["msg"]
    assert app.served() == {"1"}
    done = other_version(app, apps=[], ready=ready, prune=True)
    assert not done["failed"], done
    assert [action["action"] for action in done["actions"]] == ["delete"] * 3
    assert app.pids() == {}
    assert app.saved_directories() == set()
    assert app.current() == done["release"]
    assert not app.roll_back()["failed"]
    assert app.served() == {"1"}


def test_a_rollback_to_files_removes_the_processes_of_the_release(app: Application) -> None:
    """Even without `prune`, as the files were published. Other processes of the namespace stay."""
    files = app.deploy_files("0")["release"]
    app.release("1")
    app.deployed()
    script = app.root.parent / "other.js"
    script.write_text("setInterval(() => {}, 1000);")
    connection = {"pm2_home": app.pm2.home, "pm2_executable": app.pm2.executable}
    other = {"name": "other", "script": str(script)}
    assert not app.call("pm2_process", {**connection, "namespace": app.namespace, "apps": [other]})["failed"]
    before = app.pids()
    foreseen = modules.call("pm2_release", app.options("rolled_back", app.run()), check=True)
    assert sorted(action["name"] for action in foreseen["actions"]) == ["api", "api", "worker"]
    assert app.pids() == before
    back = app.roll_back()
    assert (back["release"], app.current()) == (files, files), back
    assert back["actions"] == foreseen["actions"]
    assert app.pids() == {name: pid for name, pid in before.items() if name.startswith("other")}
    assert app.saved_directories() == {app.root.parent.name}


def test_a_rollback_removes_apps_that_only_the_later_release_had(app: Application) -> None:
    """Only apps of the application: others in the namespace stay. A bad rollback removes none."""
    first = app.deployed()["release"]
    script = app.root.parent / "other.js"
    script.write_text("setInterval(() => {}, 1000);")
    connection = {"pm2_home": app.pm2.home, "pm2_executable": app.pm2.executable}
    other = {"name": "other", "script": str(script)}
    assert not app.call("pm2_process", {**connection, "namespace": app.namespace, "apps": [other]})["failed"]
    names = set(app.pids())
    more = [*app.apps(), {**app.apps()[1], "name": "mailer"}]
    second = other_version(app, apps=more)["release"]
    pids = app.pids()
    assert set(pids) - names == {"mailer-0"}
    few = app.roll_back(max_affected=3)
    assert "4 processes" in few["msg"]
    assert app.pids() == pids
    foreseen = modules.call("pm2_release", app.options("rolled_back", app.run()), check=True)
    assert app.pids() == pids
    back = app.roll_back()
    assert back["actions"] == foreseen["actions"]
    assert (back["release"], app.manifest(second)["former"]) == (first, first)
    assert set(app.pids()) == names
    assert app.pids()["other-0"] == pids["other-0"]
    assert app.directories() == app.saved_directories() == {first, app.root.parent.name}
    assert (app.current(), app.served()) == (first, {"1"})


@pytest.mark.parametrize("mode", ["fork", "cluster"])
def test_an_app_that_is_renamed_keeps_its_port(app: Application, mode: str) -> None:
    """Also in the rollback: the app of one name ends before the app of the other name listens."""
    api = {**app.apps()[0], "exec_mode": mode, "instances": 1}
    renamed = {**api, "name": "web"}
    assert not published(app, apps=[api])["failed"]
    done = other_version(app, apps=[renamed], prune=True)
    assert not done["failed"], done
    assert [(a["action"], a["name"]) for a in done["actions"]] == [("start", "web"), ("delete", "api")]
    assert app.served() == {"2"}
    app.release("3", health=500)
    bad = published(app, apps=[api], prune=True)
    assert bad["rolled_back"] is True
    assert (app.directories(), set(app.pids())) == ({done["release"]}, {"web-0"})
    assert not app.roll_back()["failed"]
    assert (app.served(), set(app.pids())) == ({"1"}, {"api-0"})


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


def test_a_static_site_has_no_log_to_check(app: Application) -> None:
    refused = other_version(app, apps=[], ready={"log": ["listening"]})
    assert "a release without processes writes no log" in refused["msg"]
    assert app.current() is None


def test_a_static_site_does_not_need_a_daemon_that_answers(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(app.pm2.home, exist_ok=True)
    monkeypatch.setattr(_daemon, "find_listening", _fail)
    result = other_version(app, apps=[], ready={"min_uptime": 0})
    assert not result["failed"], result
    assert "cannot be told: The daemon said no" in str(result["warnings"])
    refused = app.call("pm2_release", app.options("pruned", app.run()))
    assert not refused["failed"]


def test_a_full_disk_when_the_key_is_written_is_reported(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, *_arguments: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(_files, "write_atomically", full)
    refused = app.call("pm2_release", app.prepared_options(app.run()))
    assert "key could not be written: No space left on device" in refused["msg"]


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


ANY_DEPENDENCY = {"path": "node_modules", "files": ["package.json"], "commands": ["true"]}
REFUSED: List[Tuple[Dict[str, Any], str]] = [
    ({"release": "../up"}, "cannot be an id"),
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
    ({"forbidden": ["reset"], "dependencies": [{**ANY_DEPENDENCY, "runtime": ["prisma", "reset"]}]}, "reset"),
    ({"namespace": "all"}, "all"),
]


def test_invalid_options_are_refused_before_any_change(app: Application) -> None:
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


@pytest.mark.parametrize(
    "options",
    [
        {"ready": {"http": [{"url": f"http://u:p/{CANARY}@h/"}]}},
        {"ready": {"http": [{"url": f"http://u:p {CANARY}@h/"}]}},
        {"ready": {"http": [{"url": f"http://u:p#{CANARY}@h/"}, {"url": "http://h/", "no_such_option": True}]}},
        {"ready": {"http": [{"url": f"http://u:p@{CANARY}@h:99999/"}]}},
        {"ready": {"http": [{"url": f"http://u:[{CANARY}@h/"}]}},
        {"ready": {"tcp": [f"postgres://u:p/{CANARY}@h:5432"]}},
        {"source": {"type": "git", "address": f"https://u:p/{CANARY}@h/x.git"}},
        {"source": {"type": "git", "address": f"https://u:/{CANARY}@h/x.git"}},
        {"source": {"type": "git", "address": f"https://u:12/{CANARY}@h/x.git"}},
        {"source": {"type": "git", "address": f"u:p@{CANARY}@h:x.git"}},
        {"source": {"type": "archive", "address": f"https://u:[{CANARY}@h/x.tgz", "sha256": "0" * 64}},
        {"build": [["git", "clone", f"https://u:p/{CANARY}@h/x.git"]], "keep": 0},
    ],
)
def test_a_password_in_an_invalid_url_is_shown_nowhere(app: Application, options: Dict[str, Any]) -> None:
    result = app.call("pm2_release", app.prepared_options(app.run(), **{"apps": app.apps(), **options}))
    assert result["failed"]
    assert "invocation" in result
    assert CANARY not in str(result)


def test_a_forbidden_script_of_a_workspace_is_refused_before_anything_is_run(app: Application, tmp_path: Path) -> None:
    """It may first be seen in the source, in the files that an install has written, or just before a migration."""
    ran, packages = tmp_path / "ran", app.source / "packages"
    packages.joinpath("web").mkdir(parents=True)
    packages.joinpath("web", "package.json").write_text("{}")
    app.source.joinpath("later.json").write_text(json.dumps({"scripts": {"push": "drizzle-kit push --force"}}))
    forbidden = {"forbidden": ["drizzle-kit push.*--force"]}
    commands = [["touch", str(ran)], "npm run push --workspace=@shop/db"]

    def refused(state: str, run: str, **more: Any) -> None:
        options = {**forbidden, **more}
        wanted = app.prepared_options(run, **options) if state == "prepared" else app.options(state, run, **options)
        result = app.call("pm2_release", wanted)
        assert result["failed"]
        assert "by way of the script push of packages/db/package.json" in result["msg"]
        assert "Nothing was run" in result["msg"]
        assert app.releases() == []
        assert not ran.exists()

    write = "mkdir node_modules packages/db && cp later.json packages/db/package.json"
    install = {"path": "node_modules", "files": ["later.json"], "commands": [["sh", "-c", write]]}
    for state, name in (("built", "build"), ("migrated", "migrate")):
        run = app.run()
        release = app.call("pm2_release", app.prepared_options(run, **forbidden, **{name: commands}))["release"]
        more = {"release": release, "dependencies": [install]}
        if state == "migrated":
            built = app.call("pm2_release", app.options("built", run, **more))
            assert not built["failed"], built
        refused(state, run, **more, **{name: commands})
    packages.joinpath("db").mkdir()
    app.source.joinpath("later.json").rename(packages / "db" / "package.json")
    refused("prepared", app.run(), migrate=commands)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": [5]}, "shared: 5 is neither"),
        ({"shared": [None]}, "shared: None is neither"),
        ({"shared": [["a", "b"]]}, "shared: ['a', 'b'] is neither"),
        ({"build": [None]}, "build: A command is a NoneType"),
        ({"build": [{"cmd": "x"}]}, "build: A command is a dict"),
        ({"migrate": [5]}, "migrate: A command is a int"),
        ({"migrate": [["a", None]]}, "migrate: A command is a list with other things"),
        ({"dependencies": [{"path": "x", "files": ["y"], "commands": [None]}]}, "dependencies: A command"),
        ({"shared": ["config"], "environment_file": "config/.env"}, "'config': one lies in the other"),
        ({"shared": ["config/x"], "environment_file": "config"}, "'config/x': one lies in the other"),
        ({"environment_file": ".nodeops-release.json"}, "begin with .nodeops"),
        ({"ecosystem": "/etc/ecosystem.config.js"}, "is outside of the release"),
        ({"ecosystem": "../ecosystem.config.js"}, "is outside of the release"),
        ({"root": "relative"}, "root 'relative' is not an absolute path"),
    ],
    ids=str,
)
def test_options_that_cannot_be_prepared_are_refused_before_the_root_is_made(
    app: Application, options: Dict[str, Any], message: str
) -> None:
    for check in (False, True):
        result = modules.call("pm2_release", app.prepared_options(app.run(), **options), check=check)
        assert result["failed"], result
        assert message in result["msg"]
    assert not app.root.exists()


def test_a_rollback_from_a_release_that_is_not_live_any_more_changes_nothing(app: Application) -> None:
    """Such as a rollback after a failed hook, whose run had freed the lock, so that another run has deployed."""
    releases = [app.deploy_files(content)["release"] for content in "123"]
    refused = app.roll_back(release=releases[0], from_release=releases[1])
    assert refused["failed"]
    assert f"{releases[2]} is live, not {releases[1]}" in refused["msg"]
    assert refused["current"] == releases[2] == app.current()
    assert app.manifest(releases[2])["status"] == "good"
    assert app.roll_back(release=releases[0], from_release=releases[2])["release"] == releases[0]


def test_a_root_that_belongs_to_another_environment_is_refused(app: Application) -> None:
    releases = [app.deploy_files(content)["release"] for content in "12"]
    source = {"type": "directory", "location": "host", "address": str(app.source)}
    for other in ({"namespace": "test"}, {"app": "other"}):
        for options in (
            app.options("prepared", app.run(), source=source, **other),
            app.options("rolled_back", app.run(), **other),
            app.options("pruned", app.run(), **other),
        ):
            for check in (True, False):
                refused = modules.call("pm2_release", options, check=check)
                assert refused["failed"], options
                assert f"{releases[1]} is a release of shop in namespace prod" in refused["msg"]
    assert app.current() == releases[1]
    (app.root / "current").unlink()  # for a renamed environment, as the message says
    app.namespace = "renamed"
    third = app.deploy_files("3")["release"]
    for options in (app.options("rolled_back", app.run()), app.options("rolled_back", app.run(), release=releases[0])):
        back = modules.call("pm2_release", options)
        assert "Nothing was changed" in back["msg"]
        assert releases[0] not in back["msg"].partition("There are:")[2]
    assert app.current() == third


def test_a_failure_after_the_commit_is_reported_as_made(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    first = app.deployed()["release"]
    with monkeypatch.context() as context:
        context.setattr(_processes.Namespace, "unwatch", _fail)
        failed = other_version(app)
    second = failed["release"]
    assert failed["failed"]
    assert (failed["committed"], failed["current"], failed["former"]) == (True, second, first)
    assert "The change was made" in failed["msg"]
    assert app.manifest(second)["status"] == "good"
    again = app.roll_back(release=second)  # removes the old ones that were left
    assert (again["recovered"], again["changed"]) == ("finished", True)
    app.check_agreement(second, "2")
    with monkeypatch.context() as context:
        context.setattr(_processes.Namespace, "unwatch", _fail)
        failed = app.roll_back()
    assert (failed["committed"], failed["current"], failed["former"]) == (True, first, second)
    assert app.manifest(second)["status"] == "rolled back"


def _fail(*_arguments: Any) -> None:
    raise NodeopsError("The daemon said no.")


def test_check_mode_names_an_app_by_its_script(app: Application) -> None:
    apps = [{"script": "api.js"}]
    result = modules.call("pm2_release", app.prepared_options(app.run(), go_on=True, apps=apps), check=True)
    assert [action["name"] for action in result["actions"]] == ["api"]


def test_an_environment_file_is_not_written_through_a_link(app: Application, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    app.source.joinpath("conf").symlink_to(outside)
    options = {"environment": {"A": "1"}, "environment_file": "conf/.env"}
    refused = app.call("pm2_release", app.prepared_options(app.run(), **options))
    assert refused["failed"]
    assert f"leads out of the release, to {outside}" in refused["msg"]
    assert os.listdir(outside) == []
    assert app.releases() == []


def test_a_variable_without_a_value_is_left_out(app: Application) -> None:
    environment = {"NOTHING": None, "SOMETHING": True}
    more = {"environment": environment, "environment_file": ".env", "contract": {"optional": ["NOTHING"]}}
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run, **more))["release"]
    result = app.call("pm2_release", app.published_options(run, release, environment=environment))
    assert not result["failed"], result
    assert (app.root / "current" / ".env").read_text() == "SOMETHING=true\n"
    for process in app.pm2.processes(app.namespace):
        assert process["pm2_env"]["SOMETHING"] == "true"
        assert "NOTHING" not in process["pm2_env"]
    needed = {"environment": environment, "contract": {"rules": {"NOTHING": {"required": True}}}}
    refused = app.call("pm2_release", app.prepared_options(app.run(), **needed))
    assert "NOTHING is not defined" in refused["msg"]


def test_a_strict_umask_does_not_hide_a_site_from_its_web_server(app: Application) -> None:
    former = os.umask(0o077)
    try:
        run = app.run()
        release = app.call("pm2_release", app.prepared_options(run, shared=["files"]))["release"]
        build = {"release": release, "build": [["sh", "-c", "mkdir dist; echo > dist/page"]], "pm2_executable": "pm2"}
        built = app.call("pm2_release", app.options("built", run, **build))
    finally:
        os.umask(former)
    assert not built["failed"], built
    directory = app.root / "releases" / release
    for path in (app.root, app.root / "releases", directory, directory / "dist", app.root / "shared" / "files"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path
    assert stat.S_IMODE((directory / "dist" / "page").stat().st_mode) == 0o644
    assert stat.S_IMODE((app.root / ".nodeops").stat().st_mode) == 0o700


def test_a_migration_gets_the_environment_of_the_application(app: Application) -> None:
    run = app.run()
    release = app.call("pm2_release", app.prepared_options(run))["release"]
    more = {"environment": {"A": "app"}, "build_environment": {"A": "build", "B": "build"}}
    command = [["sh", "-c", "echo $A $B > seen"]]
    result = app.call("pm2_release", app.options("migrated", run, release=release, migrate=command, **more))
    assert not result["failed"], result
    assert (app.root / "releases" / release / "seen").read_text() == "app build\n"


def test_a_variable_of_the_build_decides_whether_dependencies_are_copied(app: Application) -> None:
    """A secret does not, because it may change with every run."""
    item = {"path": "modules", "files": ["lock"], "commands": [["sh", "-c", "mkdir modules; echo $MODE > modules/is"]]}

    def taken_from(**environment: str) -> Any:
        shutil.rmtree(app.source)
        app.source.mkdir()
        app.source.joinpath("lock").write_text("")
        app.source.joinpath("page").write_text(app.run())
        run = app.run()
        more = {"dependencies": [item], "build_environment": environment}
        release = app.call("pm2_release", app.prepared_options(run, **more))["release"]
        built = app.call("pm2_release", app.options("built", run, release=release, **more))
        assert not built["failed"], built
        published = app.published_options(run, release, apps=[], ready={"min_uptime": 0})
        assert not app.call("pm2_release", published)["failed"]
        return built["dependencies"][0]["taken_from"]

    assert taken_from(MODE="full", TOKEN="1") is None
    assert taken_from(MODE="full", TOKEN="2")
    assert taken_from(MODE="none", TOKEN="2") is None


def test_one_call_prepares_and_publishes_if_nothing_comes_between(app: Application) -> None:
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
    assert "went_on" not in prepared  # the release has to be built first
    built = app.call("pm2_release", app.options("built", run, release=prepared["release"], build=[["true"]]))
    assert not built["failed"]
    assert not app.call("pm2_release", app.published_options(run, prepared["release"]))["failed"]
    app.check_agreement(prepared["release"], "3")
    assert app.deploy()["failed"] is False  # the lock was freed every time


def test_a_restarted_process_is_healthy_once_it_is_stable(app: Application) -> None:
    def prepared(min_uptime: float) -> Dict[str, Any]:
        ready = {**app.ready(), "timeout": 900, "min_uptime": min_uptime}
        run = app.run()
        result = app.call("pm2_release", app.prepared_options(run, apps=app.apps(), ready=ready))
        app.call("pm2_release", app.options("abandoned", run))
        return result

    app.deployed()
    pids = app.pids()
    os.kill(pids["worker-0"], signal.SIGKILL)  # PM2 restarts it
    deadline = time.monotonic() + 60
    while app.pids()["worker-0"] in (pids["worker-0"], 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert prepared(600)["in_order"] is False
    time.sleep(0.5)
    assert prepared(0.2)["in_order"] is True
