# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every key of PM2's schema is defined, run again, changed and removed. Changes by others to a process are undone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._schema import BY_NAME
from integration.namespace import effects, effects_table
from integration.namespace.effects_table import Case
from support import processes
from support.pm2 import VERSIONS, Pm2Home
from support.sites import Json, Site, daemon_of, eventually, fresh_directory, reasons_of

# The daemon then checks memory often, and 7.0 reads repositories.
DAEMON = {"PM2_WORKER_INTERVAL": "400", "PM2_ENABLE_GIT_PARSING": "true"}

Group = Callable[[str], List[Case]]


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    """A running daemon of each version for all tests of this file."""
    yield from daemon_of(request.param, fresh_directory(tmp_path_factory), **DAEMON)


@pytest.fixture
def site(home: Pm2Home, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """An empty namespace, emptied afterwards."""
    name = request.node.name.partition("[")[0].removeprefix("test_")
    site = Site(home, name, tmp_path / "shared")
    yield site
    site.run(state="absent")


def test_table_covers_schema() -> None:
    """Each key of the schema has a case, a test of its own, or a reason why it cannot change a process."""
    groups: List[Group] = [*effects_table.GROUPS, effects_table.accounts]
    tested = {case.key for group in groups for case in group("7.0")}
    covered = [*tested, *effects_table.ELSEWHERE, *effects_table.WITHOUT_EFFECT]
    assert sorted(covered) == sorted(BY_NAME)


@pytest.mark.parametrize("group", effects_table.GROUPS, ids=lambda group: group.__name__)
def test_keys(home: Pm2Home, tmp_path: Path, group: Group) -> None:
    """Two values of each key, then none: each change is detected, named and in effect. A second run changes nothing."""
    _through_all_values(home, group.__name__, tmp_path, group(home.version))


def test_accounts(home: Pm2Home, tmp_path: Path) -> None:
    """uid and gid for root. Other users are refused."""
    cases = effects_table.accounts(home.version)
    if os.geteuid() == 0:
        _through_all_values(home, "accounts", tmp_path, cases)
        return
    site = Site(home, "accounts", tmp_path / "shared")
    refused = site.run([_definition(site, case, case.first) for case in cases], expect_failure=True)
    assert "only when PM2 runs as root" in refused["msg"]
    assert site.processes() == []


def _through_all_values(home: Pm2Home, namespace: str, directory: Path, cases: List[Case]) -> None:
    site = Site(home, namespace, directory / "shared")
    _write_programs(site.directory)
    for case in cases:
        for part in ("one", "two", "sub"):
            (directory / case.name / part).mkdir(parents=True)
    values = [("first", 0), ("changed", 1), ("removed", 2)]
    for value, number in values:
        given = [{"first": case.first, "changed": case.changed, "removed": {}}[value] for case in cases]
        apps = [_definition(site, case, more) for case, more in zip(cases, given, strict=True)]
        result = site.run(apps)
        if number:
            told = {case.name: reasons_of(result, case.name) for case in cases}
            unexplained = {
                case.name: told[case.name]
                for case in cases
                if not told[case.name] or not all(case.explains(reasons) for reasons in told[case.name])
            }
            assert unexplained == {}, value
        site.settled(apps)
        with ThreadPoolExecutor(len(cases)) as threads:
            wanted = [case.expected[number] for case in cases]
            seen = list(threads.map(lambda case, expected: case.observe(site, case.name, expected), cases, wanted))
        found = {case.name: (saw, expected) for case, saw, expected in zip(cases, seen, wanted, strict=True)}
        assert {name: both for name, both in found.items() if both[0] != both[1]} == {}, value
    site.run(state="absent")


def _definition(site: Site, case: Case, value: Json) -> Json:
    directory = site.directory.parent / case.name
    raw = {"name": case.name, "script": str(site.probe), "cwd": str(directory), **case.base, **value}
    text = json.dumps({key: item for key, item in raw.items() if item is not None})
    definition: Json = json.loads(text.replace("{dir}", str(directory)).replace("{shared}", str(site.directory)))
    return definition


def _write_programs(directory: Path) -> None:
    """The programs that cases start, beside the probe."""
    for name in ("idle.sh", "other.sh"):
        (directory / name).write_text("while :; do sleep 1000; done\n")
    (directory / "polyglot.sh").write_text('"sleep" "1000"\nimport time\ntime.sleep(1000)\n')
    print_stack = (
        "const of = 'stack of ' + process.pid; console.log(of, 'begins', new Error('here').stack, of, 'ends');"
        "setInterval(() => {}, 1 << 30);\n"
    )
    source_map = {"version": 3, "sources": ["original.ts"], "names": [], "mappings": "AAUA"}
    inline = base64.b64encode(json.dumps(source_map).encode()).decode()
    comment = "//# sourceMappingURL="
    (directory / "inline.js").write_text(f"{print_stack}{comment}data:application/json;base64,{inline}\n")
    (directory / "beside.js").write_text(f"{print_stack}{comment}beside.js.map\n")
    (directory / "beside.js.map").write_text(json.dumps(source_map))
    repository = directory / "repository"
    author = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "first"]):
        repository.mkdir(exist_ok=True)
        subprocess.run(["git", *command], cwd=repository, env={**os.environ, **author}, check=True)


# -- keys with a test of their own


def test_another_name(site: Site) -> None:
    """An app of another name is another process. The old one stays, unless `prune` removes it."""
    site.run([_sleeper("old")])
    result = site.run([_sleeper("new")])
    assert [(action["action"], action["name"]) for action in result["actions"]] == [("start", "new")]
    assert [item["name"] for item in site.processes()] == ["new", "old"]
    result = site.run([_sleeper("new")], prune=True)
    assert [(action["action"], action["name"]) for action in result["actions"]] == [("delete", "old")]
    assert [item["name"] for item in site.processes()] == ["new"]
    site.settled([_sleeper("new")], prune=True)


def test_cron_restart(site: Site) -> None:
    """A pattern restarts the app at its time, and not after it is removed."""
    for seconds in (6, 12, 20):  # between the steps, which take longer on a busy machine
        site.run([_sleeper("job", cron_restart="0 0 1 1 *")])
        first, second = int(time.time()) + seconds, int(time.time()) + 2 * seconds + 2
        app = _sleeper("job", cron_restart=f"{first % 60},{second % 60} * * * * *")
        assert reasons_of(site.run([app]), "job") == [["cron_restart"]]
        try:
            site.settled([app])
        except AssertionError:
            assert time.time() > first - 1
        is_late = time.time() > first - 1
        if not is_late:
            time.sleep(first + 1 - time.time())
            assert eventually(lambda: site.only("job")["pm2_env"]["restart_time"] == 1, 5.0)
        assert reasons_of(site.run([_sleeper("job")]), "job") == [["cron_restart"]]
        before = site.seen()
        if is_late or time.time() > second - 1:
            continue
        site.settled([_sleeper("job")])
        time.sleep(max(0.0, second + 1 - time.time()))
        assert site.seen() == before
        return
    raise AssertionError("too slow for the test to see anything")


def test_without_effect(site: Site) -> None:
    """Keys that cannot change a process are accepted and change none. Only another namespace is refused."""
    site.run([_sleeper("app")])
    for key, value in effects_table.WITHOUT_EFFECT.items():
        assert key in value
        text = json.dumps(value).replace("NAMESPACE", site.namespace)
        site.settled([_sleeper("app", **json.loads(text))])
    refused = site.run([_sleeper("app", namespace="another")], expect_failure=True)
    assert "is for the namespace" in refused["msg"]


# -- what others did


def test_restart_with_a_leaked_variable(site: Site) -> None:
    """`pm2 restart --update-env` puts the shell's variables into the app, and the next run removes them."""
    apps = [_sleeper("app", env={"MINE": "1"})]
    site.run(apps)
    site.home.cli("restart", "app", "--update-env", env={"LEAK": "x", "MINE": "other"})
    leaked = processes.environ(site.pid("app"))
    assert (leaked["LEAK"], leaked["MINE"]) == ("x", "other")
    (action,) = site.run(apps)["actions"]
    told = " ".join(action["reasons"])
    assert "LEAK" in told
    assert "MINE" in told
    repaired = processes.environ(site.pid("app"))
    assert "LEAK" not in repaired
    assert repaired["MINE"] == "1"
    site.settled(apps)


def test_reload_and_restart_without_a_change(site: Site) -> None:
    """`pm2 reload` and `pm2 restart` start the same app again, so the next run leaves the processes.

    The command adds keys without effect (filter_env, merge_logs), which the next run saves in the dump.
    """
    apps = [site.app("web", exec_mode="cluster", instances=2), _sleeper("job")]
    site.run(apps)
    for command in (["reload", "web"], ["restart", "job"], ["restart", "web"]):
        site.home.cli(*command)
        before = site.seen()
        assert site.run(apps)["actions"] == []
        assert site.seen() == before
        site.settled(apps)


@pytest.mark.parametrize("mode", ["fork", "cluster"])
def test_scale(site: Site, mode: str) -> None:
    """`pm2 scale` added or removed instances. The next run has as many as are defined, numbered from 0."""
    apps = [site.app("web", exec_mode=mode, instances=2)]
    site.run(apps)
    kept = [item.pid for item in site.seen()]
    site.home.cli("scale", "web", "4")
    result = site.run(apps)
    assert [action["action"] for action in result["actions"]] == ["delete", "delete"], result["actions"]
    assert [item.pid for item in site.seen()] == kept
    site.settled(apps)
    site.home.cli("scale", "web", "1")
    result = site.run(apps)
    assert [action["action"] for action in result["actions"]] == ["start"], result["actions"]
    assert effects.instances(site, "web") == ["0", "1"]
    site.settled(apps)


def test_stopped_deleted_and_killed(site: Site) -> None:
    """Processes that were stopped, deleted or killed run again, and the reason tells what was found."""
    apps = [_sleeper("stopped"), _sleeper("deleted"), _sleeper("untouched")]
    site.run(apps)
    untouched = site.only("untouched")
    site.home.cli("stop", "stopped")
    site.home.cli("delete", "deleted")
    result = site.run(apps)
    told = {action["name"]: (action["action"], action["reasons"]) for action in result["actions"]}
    assert told == {"stopped": ("start", ["status: stopped"]), "deleted": ("start", ["not running"])}
    assert site.only("untouched")["pid"] == untouched["pid"]
    site.settled(apps)


def test_second_instance_only(site: Site) -> None:
    """Only the second of two instances is changed, by a variable, a stop, a deletion. Only it is replaced."""
    apps = [site.app("web", exec_mode="cluster", instances=2)]
    site.run(apps)
    first = site.seen()[0]
    disturbances = {
        ("restart", "--update-env"): ("replace", "env: added"),
        ("stop",): ("start", "status: stopped"),
        ("delete",): ("start", "instances: 1 running, 2 defined"),
    }
    for command, (verb, reason) in disturbances.items():
        site.home.cli(command[0], str(site.processes()[1]["pm_id"]), *command[1:], env={"LEAK": "x"})
        result = site.run(apps)
        (action,) = result["actions"]
        assert (action["action"], action["instance"]) == (verb, 1)
        assert action["reasons"][-1].startswith(reason) or "LEAK" in " ".join(action["reasons"])
        assert site.seen()[0] == first
        assert effects.instances(site, "web") == ["0", "1"]
        assert all("LEAK" not in site.report(seen.pid)["env"] for seen in site.seen())
        site.settled(apps)


@pytest.mark.parametrize("version", VERSIONS)
def test_resurrected(version: str, tmp_path: Path) -> None:
    """If a killed daemon comes back with what was saved, there is nothing to do."""
    for home in daemon_of(version, tmp_path / "d"):
        site = Site(home, "prod", tmp_path / "prod")
        other = Site(home, "test", tmp_path / "test")
        for each in (site, other):
            apps = [each.app("web", exec_mode="cluster", instances=2, env={"A": "1"}), _sleeper("job")]
            apps.append(_sleeper("resting", autostart=False))
            each.run(apps)
        home.cli("kill")
        home.cli("resurrect")
        for each in (site, other):
            apps = [each.app("web", exec_mode="cluster", instances=2, env={"A": "1"}), _sleeper("job")]
            apps.append(_sleeper("resting", autostart=False))
            assert effects.instances(each, "web") == ["0", "1"]
            each.settled(apps)


def _sleeper(name: str, **more: Any) -> Json:
    return {"name": name, "script": "/bin/sleep", "args": ["1000"], "cwd": "/", **more}
