# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode predicts exactly what the real run does, and changes nothing. The diff shows no secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import pytest
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home
from support.sites import Json, Site, assert_same, daemon_of, fresh_directory, snapshot

PREDICTED = ("changed", "actions", "saved", "recovered", "rolled_back", "diff")


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    """A running daemon of each version for all tests of this file."""
    yield from daemon_of(request.param, fresh_directory(tmp_path_factory))


@pytest.fixture
def site(home: Pm2Home, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """An empty namespace, emptied afterwards."""
    site = Site(home, request.node.name.partition("[")[0].removeprefix("test_"), tmp_path / "site")
    for name in ("one", "two"):
        (site.directory / name).mkdir()
    yield site
    site.run(state="absent")


def predicted(site: Site, apps: Optional[Sequence[Json]], **options: Any) -> Json:
    """Run in check mode, then really. The first changes nothing, and both report the same. Returns the real result."""
    before = snapshot(site.home)
    foretold = site.run(apps, check=True, **options)
    assert_same(before, snapshot(site.home))
    real = site.run(apps, **options)
    assert {key: foretold.get(key) for key in PREDICTED} == {key: real.get(key) for key in PREDICTED}
    return real


def _sleeper(name: str, **more: Any) -> Json:
    return {"name": name, "script": "/bin/sleep", "args": ["1000"], "cwd": "/", **more}


def _verbs(result: Json) -> list[tuple[str, str]]:
    return sorted((action["name"], action["action"]) for action in result["actions"])


@pytest.mark.parametrize("state", ["started", "restarted", "stopped", "absent"])
@pytest.mark.parametrize("there", [False, True], ids=["no home", "empty home"])
def test_first_run(pm2: Pm2Home, tmp_path: Path, state: str, there: bool) -> None:
    """On a PM2_HOME without a daemon, none is started and no file is made, with or without the directory."""
    site = Site(pm2, "first", tmp_path / "site")
    if not there:
        os.rmdir(pm2.home)
    apps = [site.app("web", exec_mode="cluster", instances=2, env={"A": "1"}), _sleeper("job")]
    foretold = site.run(apps, check=True, state=state)
    assert (os.listdir(pm2.home) if os.path.exists(pm2.home) else None) == ([] if there else None)
    assert pm2.daemon_pids() == []
    real = site.run(apps, state=state)
    assert {key: foretold.get(key) for key in PREDICTED} == {key: real.get(key) for key in PREDICTED}
    starts = state in ("started", "restarted")
    assert _verbs(real) == ([("job", "start"), ("web", "start"), ("web", "start")] if starts else [])
    assert len(pm2.daemon_pids()) == int(starts)
    if not starts:
        assert (os.listdir(pm2.home) if os.path.exists(pm2.home) else None) == ([] if there else None)


def test_changes(site: Site) -> None:
    """One change after another, each of them predicted."""
    web = site.app("web", exec_mode="cluster", instances=2, env={"A": "1"})
    job = _sleeper("job")
    steps: list[tuple[str, list[Json], Json, list[tuple[str, str]]]] = [
        ("first run", [web, job], {}, [("job", "start"), ("web", "start"), ("web", "start")]),
        ("nothing to do", [web, job], {}, []),
        ("env", [{**web, "env": {"B": "2"}}, job], {}, [("web", "replace"), ("web", "replace")]),
        ("more instances", [{**web, "instances": 3}, job], {}, [("web", "replace")] * 2 + [("web", "start")]),
        ("fewer instances", [{**web, "instances": 1}], {}, [("web", "delete")] * 2),
        ("cwd", [{**web, "cwd": str(site.directory / "one")}], {}, [("web", "replace"), ("web", "start")]),
        ("cluster to fork", [{**web, "exec_mode": "fork"}], {}, [("web", "restart")] * 2),
        ("fork to cluster", [web], {}, [("web", "restart")] * 2),
        ("by restart", [{**web, "env": {}}], {"strategy": "restart"}, [("web", "restart")] * 2),
        ("one name", [web, {**job, "args": ["999"]}], {"names": ["job"]}, [("job", "restart")]),
        ("restarted", [web, {**job, "args": ["999"]}], {"state": "restarted", "names": ["job"]}, [("job", "restart")]),
        ("not defined", [web], {}, [("web", "replace")] * 2),
        ("prune", [web], {"prune": True}, [("job", "delete")]),
        ("unsaved", [web, job], {"save": False}, [("job", "start")]),
        ("only to be saved", [web, job], {}, []),
        ("reloaded", [web, job], {"state": "reloaded"}, [("job", "restart"), ("web", "replace"), ("web", "replace")]),
        ("stopped, one", [], {"state": "stopped", "names": ["job"]}, [("job", "stop")]),
        ("stopped, again", [], {"state": "stopped", "names": ["job"]}, []),
        ("started again", [web, job], {}, [("job", "start")]),
        ("stopped, all", [], {"state": "stopped"}, [("job", "stop"), ("web", "stop"), ("web", "stop")]),
        ("absent, one", [], {"state": "absent", "names": ["job"]}, [("job", "delete")]),
        ("absent, all", [], {"state": "absent"}, [("web", "delete")] * 2),
        ("absent, again", [], {"state": "absent"}, []),
    ]
    for title, apps, options, verbs in steps:
        real = predicted(site, apps or None, **options)
        assert _verbs(real) == verbs, title
        assert real["changed"] is (bool(verbs) or real["saved"]), title
        as_it_was = not verbs or title in ("restarted", "reloaded")
        assert (real["diff"]["before"] == real["diff"]["after"]) is as_it_was, title
        assert real["saved"] is (title == "only to be saved" or not (as_it_was or title == "unsaved")), title


def test_renewed_as_they_are(site: Site) -> None:
    """`restarted` and `reloaded` for apps that the call does not define."""
    site.run([site.app("web", exec_mode="cluster", instances=2), _sleeper("job")])
    for state, verb in (("restarted", "restart"), ("reloaded", "replace")):
        real = predicted(site, None, state=state)
        assert _verbs(real) == [("job", "restart"), ("web", verb), ("web", verb)]
        assert not real["saved"], "the dump has the same content as before"


def test_watched(site: Site) -> None:
    """A watched app is stopped, which ends the watching, and started again. Each state then stays."""
    apps = [_sleeper("job", watch=True, cwd=str(site.directory / "one"))]
    site.run(apps)
    for state, verbs in (("stopped", [("job", "stop")]), ("started", [("job", "start")])):
        assert _verbs(predicted(site, apps, state=state)) == verbs
        assert predicted(site, apps, state=state)["changed"] is False, state


def test_changes_by_plain_pm2(site: Site) -> None:
    """After a stop, a deletion, a restart with other variables and a scale by plain pm2. The dump has none of them."""
    apps = [site.app("web", exec_mode="cluster", instances=2), _sleeper("job")]
    site.run(apps)
    for command in (
        ["stop", "job"],
        ["delete", "job"],
        ["restart", "web", "--update-env"],
        ["scale", "web", "3"],
        ["scale", "web", "1"],
        ["delete", "web"],
    ):
        site.home.cli(*command, env={"LEAK": "x"})
        real = predicted(site, apps)
        assert real["changed"], command
        assert not real["saved"], "the dump has the same content as before"
        assert predicted(site, apps)["changed"] is False


def test_saves_by_plain_pm2(site: Site) -> None:
    """`pm2 save` has saved a stopped app and a leaked variable. The dump is corrected too."""
    apps = [site.app("web", exec_mode="cluster", instances=2), _sleeper("job")]
    site.run(apps)
    for command in (["stop", "job"], ["restart", "web", "--update-env"], ["delete", "job"]):
        site.home.cli(*command, env={"LEAK": "x"})
        site.home.cli("save", "--force")
        assert predicted(site, apps)["saved"], command
        assert predicted(site, apps)["changed"] is False


def test_unreadable_dump(site: Site) -> None:
    """Check mode predicts that a dump is written if other users can read it, or if it is empty or missing."""
    apps = [_sleeper("job")]
    site.run(apps)
    site.run([_sleeper("job", env={"A": "1"})])  # so that there is a backup
    for disturb in (lambda: site.home.dump.chmod(0o644), lambda: site.home.dump.write_text(""), site.home.dump.unlink):
        disturb()
        assert predicted(site, [_sleeper("job", env={"A": "1"})])["saved"]


POINTS = ["journal_written", "candidate_sent", "beside_up", "old_stopped", "gate_passed", "committed", "saved"]


@pytest.mark.parametrize(
    ("home", "point"),
    [(version, point) for version in VERSIONS for point in (POINTS if version == "7.0" else POINTS[1::2])],
    indirect=["home"],
    scope="module",
)
def test_killed_run(site: Site, point: str) -> None:
    """After a killed run, check mode predicts whether it is finished or undone, and what remains to be done."""
    old = [site.app("web", exec_mode="cluster", instances=2), _sleeper("job")]
    new = [site.app("web", exec_mode="cluster", instances=2, env={"NEW": "1"}), _sleeper("job", args=["999"])]
    site.run(old)
    site.run_killed_at(point, new)
    real = predicted(site, new)
    assert real["recovered"] == ("finished" if point in ("committed", "saved") else "undone")
    assert len(real["actions"]) == (0 if real["recovered"] == "finished" else 3)
    assert predicted(site, new)["changed"] is False


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_killed_stop(site: Site, state: str) -> None:
    """The same for a killed stop, also if the next run wants another state."""
    apps = [_sleeper("job"), _sleeper("other")]
    for point in ("journal_written", "committed"):
        site.run(apps)
        site.run_killed_at(point, None, state=state)
        predicted(site, apps)
        assert predicted(site, apps)["changed"] is False


def test_refusals(site: Site) -> None:
    """Check mode refuses what the real run refuses, with the same message."""
    site.run([_sleeper("a"), _sleeper("b")])
    refused: list[tuple[list[Json], Json]] = [
        ([_sleeper("a", args=["1"]), _sleeper("b", args=["1"])], {"max_affected": 1}),
        ([_sleeper("a", cron_restart="no pattern")], {}),
        ([_sleeper("a")], {"names": ["b"]}),
        ([], {"state": "restarted", "names": ["c"]}),
    ]
    for apps, options in refused:
        before = snapshot(site.home)
        foretold = site.run(apps or None, check=True, expect_failure=True, **options)
        assert_same(before, snapshot(site.home))
        real = site.run(apps or None, expect_failure=True, **options)
        assert (foretold["msg"], foretold.get("actions")) == (real["msg"], real.get("actions"))
        lock = f"nodeops/namespace-{site.namespace}.lock"  # names its last holder
        assert_same({**before, lock: None}, {**snapshot(site.home), lock: None})


def test_save(site: Site) -> None:
    """The same for pm2_save: something to save, nothing to save, and a namespace that is empty now."""
    site.run([_sleeper("a"), _sleeper("b")])

    def saved() -> bool:
        params = {"namespace": site.namespace, "pm2_home": site.home.home}
        before = snapshot(site.home)
        foretold = call("pm2_save", params, check=True, diff=True)
        assert_same(before, snapshot(site.home))
        real = call("pm2_save", params, diff=True)
        assert foretold == real
        assert (real["diff"]["before"] != real["diff"]["after"]) is real["changed"]
        return bool(real["changed"])

    assert not saved()
    site.home.cli("stop", "a")
    assert saved()
    assert not saved()
    site.home.cli("delete", "a", "b")
    assert saved()
    assert not saved()


def test_diff_shows_no_value(site: Site) -> None:
    """The diff names a changed variable, argument and option of PM2's monitoring, and does not show their values."""
    names = ("env", "args", "node", "io", "removed", "shell")

    def apps(number: int) -> list[Json]:
        values = {name: f"canary-{name}-{number}-5Zq8" for name in names}
        web = site.app("web", args=["--token", values["args"]], node_args=[f"--title={values['node']}"])
        web.update(env={"SECRET": values["env"], **({"GONE": values["removed"]} if number == 1 else {})})
        web.update(io={"conf": {"key": values["io"]}})
        return [web, {"name": "shell", "script": f"sleep 1000; echo {values['shell']}", "cwd": "/"}]

    for number in (1, 2):
        for check in (True, False):
            result = site.run(apps(number), check=check)
            assert result["changed"]
            assert "canary" not in str({key: value for key, value in result.items() if key != "invocation"})
            assert "canary" not in str(result["invocation"])
    for name in ("env.SECRET", "env.GONE", "args", "node_args", "io"):
        assert name in result["diff"]["after"] + result["diff"]["before"]
