"""Under steady load, no request is lost during a change of a cluster app or during a bad release.

Core: the bad releases that differ for PM2. Full: all of them.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

import pytest
from support import tiers
from support.apps import free_port, http_app
from support.load import Load
from support.namespaces import Namespace, home_in
from support.pm2 import VERSIONS, Pm2Home, newest

Definition = Dict[str, Any]

TIMES = int(os.environ.get("ZERO_DOWNTIME_TIMES", "1"))
"""How often each case is repeated: a rare loss shows only in many runs."""
PAUSE = 0.01
"""Seconds between two requests of each client: short enough to see a brief loss."""
AFTER = 0.15
"""The least seconds of load after the call."""


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    with home_in(tmp_path_factory.mktemp("load"), request.param) as found:
        yield found


@pytest.fixture
def namespace(home: Pm2Home) -> Iterator[Namespace]:
    found = Namespace(home, "load")
    yield found
    found.remove()


@pytest.fixture(params=range(TIMES))
def port(request: pytest.FixtureRequest) -> int:
    return free_port()


def cluster(directory: Path, port: int, **changes: Any) -> Definition:
    """Two workers of the app in `directory`."""
    usual = {"name": "api", "script": "app.js", "cwd": str(directory), "exec_mode": "cluster", "instances": 2}
    # PM2 must not kill a worker in the middle of a request because the machine is busy.
    return {**usual, "kill_timeout": 20000, "env": {"PORT": port}, **changes}


def fork(directory: Path, port: int, **changes: Any) -> Definition:
    return {"name": "api", "script": "app.js", "cwd": str(directory), "env": {"PORT": port}, **changes}


def begin(namespace: Namespace, definition: Definition) -> List[int]:
    """Start the first version, and wait until each worker answers. Returns their pids."""
    namespace.bring([definition], ready={"tcp": [str(definition["env"]["PORT"])]})
    return namespace.pids()


def served(load: Load) -> List[Tuple[str, int]]:
    """The version and pid of each answer."""
    answers = [json.loads(body) for body in list(load.bodies)]
    return [(answer["version"], answer["pid"]) for answer in answers]


def go_on(load: Load) -> None:
    """Some load after the call, because a loss may show after it has returned, and each worker has to get a request."""
    answered, deadline = load.ok, time.monotonic() + 60
    time.sleep(AFTER)
    while load.ok < answered + 40 and time.monotonic() < deadline:
        time.sleep(0.005)


def versions(load: Load) -> List[str]:
    return sorted({version for version, _pid in served(load)})


def measure(record: Callable[[str, object], None], what: str, load: Load) -> None:
    """Write a measurement into the report, and on the screen with `pytest -rP`."""
    record("failed", load.failed)
    record("gap_ms", round(load.gap * 1000))
    kinds = f" {dict(load.errors)}" if load.failed else ""
    print(
        f"{what}: {load.failed} of {load.ok + load.failed} requests failed, longest gap {load.gap * 1000:.0f} ms{kinds}"
    )


class Change(NamedTuple):
    """How the definition differs after the change, or before it, and whether the code is the second version."""

    after: Mapping[str, Any] = MappingProxyType({})
    before: Mapping[str, Any] = MappingProxyType({})
    new_code: bool = False
    state: str = "started"
    check: bool = True


CHANGES = {
    "cwd": Change(new_code=True),
    "script": Change({"script": "other.js"}, check=False),
    "env": Change({"env": {"PORT": 0, "COLOUR": "green"}}),
    "up": Change({"instances": 4}),
    "down": Change({"instances": 1}, before={"instances": 3}),
    "all at once, up": Change(
        {"script": "other.js", "instances": 3, "env": {"PORT": 0, "COLOUR": "green"}}, new_code=True
    ),
    "all at once, down": Change(
        {"script": "other.js", "instances": 1, "env": {"PORT": 0, "COLOUR": "green"}}, new_code=True
    ),
    "reloaded": Change(state="reloaded", check=False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_no_request_is_lost_during_a_change(
    namespace: Namespace, port: int, tmp_path: Path, what: str, record_property: Callable[[str, object], None]
) -> None:
    change = CHANGES[what]
    for version in ("1", "2"):
        os.link(http_app(tmp_path / version, version, handback=True), tmp_path / version / "other.js")
    before = cluster(tmp_path / "1", port, **change.before)
    after = {**before, **change.after, "cwd": str(tmp_path / ("2" if change.new_code else "1"))}
    after["env"] = {**after["env"], "PORT": port}
    old = begin(namespace, before)

    with Load(port, pause=PAUSE) as load:
        result = namespace.bring([after], state=change.state, ready={"tcp": [str(port)]} if change.check else None)
        go_on(load)

    measure(record_property, what, load)
    assert load.failed == 0, dict(load.errors)
    assert result["changed"]
    new = namespace.pids()
    assert len(new) == after["instances"]
    if what not in ("up", "down"):
        assert not set(old) & set(new)
    asked = {pid for _version, pid in served(load)}
    assert asked >= set(old) | set(new), "the load did not reach every worker"
    assert versions(load) == (["1", "2"] if change.new_code else ["1"])
    live = [item["pm2_env"] for item in namespace.processes()]
    assert {env["pm_exec_path"] for env in live} == {str(Path(after["cwd"], after["script"]))}
    assert {env.get("COLOUR") for env in live} == {after["env"].get("COLOUR")}


HEALTHY = {"http": [{"url": "http://127.0.0.1:{port}/health"}]}
BAD: Dict[str, Tuple[Dict[str, Any], Dict[str, Any], str]] = {
    "crashes at boot": ({"crash": "boot"}, {"min_uptime": 15, "timeout": 60}, "exited"),
    "crashes after half a second": ({"crash": 0.5, "listen": False}, {"min_uptime": 15, "timeout": 60}, "exited"),
    "never listens, no check": ({"listen": False}, {"timeout": 5}, "is served by"),
    "never listens, http": ({"listen": False}, {"timeout": 5, **HEALTHY}, "is answered only by processes"),
    "never listens, tcp": ({"listen": False}, {"timeout": 5, "tcp": ["{port}"]}, "is answered only by processes"),
    "answers 500": ({"health": 500}, {"timeout": 10, **HEALTHY}, "answered 500"),
}


ON_ALL = ("crashes at boot", "never listens, http", "answers 500")
"""The releases that are bad for PM2 in different ways, and not only for our gate."""


@pytest.mark.parametrize(
    ("home", "what", "instances"),
    [
        *((version, what, 2) for version in VERSIONS for what in ON_ALL),
        *(pytest.param(VERSIONS[-1], what, 2, marks=pytest.mark.full) for what in BAD if what not in ON_ALL),
        (VERSIONS[-1], "crashes at boot", 1),
    ],
    ids=str,
    indirect=["home"],
    scope="module",
)
def test_no_request_is_lost_during_a_bad_release(
    namespace: Namespace,
    port: int,
    tmp_path: Path,
    what: str,
    instances: int,
    record_property: Callable[[str, object], None],
) -> None:
    broken, ready, message = BAD[what]
    http_app(tmp_path / "1", handback=True)
    http_app(tmp_path / "2", "2", handback=True, **broken)
    before = cluster(tmp_path / "1", port, instances=instances)
    begin(namespace, before)
    old = namespace.processes()

    with Load(port, pause=PAUSE) as load:
        result = namespace.refuse([{**before, "cwd": str(tmp_path / "2")}], ready=with_port(ready, port))
        go_on(load)

    measure(record_property, what, load)
    assert load.failed == 0, dict(load.errors)
    assert message in result["msg"] or (message == "exited" and "there is no process" in result["msg"])
    assert result["rolled_back"] is True
    now = namespace.processes()
    for key in ("pm_id", "pid"):
        assert [item[key] for item in now] == [item[key] for item in old]
    assert [item["pm2_env"]["restart_time"] for item in now] == [0] * instances
    # A release that listens and fails its check shares the port while it is tried: PM2 has no port for it alone.
    assert versions(load) == (["1", "2"] if what == "answers 500" else ["1"])


def with_port(value: Any, port: int) -> Any:
    """The value with `{port}` filled in, at every depth."""
    return json.loads(json.dumps(value).replace("{port}", str(port)))


@newest("home")
def test_old_workers_wait_for_new_ones_that_start_slowly(namespace: Namespace, port: int, tmp_path: Path) -> None:
    """Without a check, the new workers have to serve the port of the old ones before these end."""
    http_app(tmp_path / "1", handback=True)
    http_app(tmp_path / "2", "2", handback=True)
    (tmp_path / "2" / "slow.js").write_text("setTimeout(() => require('./app.js'), 1000);\n", encoding="utf-8")
    begin(namespace, cluster(tmp_path / "1", port))
    with Load(port, pause=PAUSE) as load:
        namespace.bring([cluster(tmp_path / "2", port, script="slow.js")], ready={"min_uptime": 0.1})
        go_on(load)
    assert load.failed == 0, dict(load.errors)
    assert versions(load) == ["1", "2"]


@newest("home")
def test_a_release_that_crashes_while_it_serves_loses_only_its_open_requests(
    namespace: Namespace, port: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A measurement: a new worker shares the port while it is tried. No more than its open requests are lost."""
    http_app(tmp_path / "1")
    http_app(tmp_path / "2", "2", crash=0.5)
    old = begin(namespace, cluster(tmp_path / "1", port))
    with Load(port, pause=PAUSE) as load:
        result = namespace.refuse([cluster(tmp_path / "2", port)], ready={"min_uptime": 15, "timeout": 60})
        go_on(load)
    measure(record_property, "crashes while it serves", load)
    assert load.failed <= 10 * 4, "more than the open requests of the clients when each of the new workers crashes"
    assert load.ok > load.failed
    assert "exited" in result["msg"]
    assert namespace.pids() == old


@newest("home")
def test_without_a_sigint_handler_few_requests_are_lost(
    namespace: Namespace, port: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A measurement, not a promise: the open requests of such a worker are lost when it ends."""
    http_app(tmp_path / "1", sigint=False)
    http_app(tmp_path / "2", "2", sigint=False)
    begin(namespace, cluster(tmp_path / "1", port))
    with Load(port, pause=PAUSE) as load:
        namespace.bring([cluster(tmp_path / "2", port)])
        go_on(load)
    measure(record_property, "no SIGINT handler", load)
    assert load.failed <= 10 * 4, "more than the open requests of the clients when one worker after the other ends"
    assert load.ok > load.failed
    assert versions(load) == ["1", "2"]


def test_the_gap_of_a_fork_app_ends(
    namespace: Namespace, port: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    http_app(tmp_path / "1")
    http_app(tmp_path / "2", "2")
    begin(namespace, fork(tmp_path / "1", port))
    with Load(port, pause=PAUSE) as load:
        namespace.bring([fork(tmp_path / "2", port)], ready=with_port(HEALTHY, port))
        answered = load.ok
        go_on(load)
    measure(record_property, "fork app", load)
    assert load.ok > answered, "no answer after the call had returned"
    assert versions(load) == ["1", "2"]


SLOW_TO_END = """\
const { NOTES, NAME, SECONDS, VERSION } = process.env;
const note = (what) => require('fs').appendFileSync(NOTES, NAME + ' ' + VERSION + ' ' + what + '\\n');
const end = () => { note('ends'); process.exit(0); };
process.on('SIGINT', () => setTimeout(end, SECONDS * 1000));
setInterval(() => {}, 1000);
note('starts');
"""


def test_a_fork_app_does_not_wait_for_another_that_is_slow_to_end(namespace: Namespace, tmp_path: Path) -> None:
    """All old processes end at the same time, and each new process starts when its old one has ended."""
    (tmp_path / "app.js").write_text(SLOW_TO_END, encoding="utf-8")
    notes = tmp_path / "notes"
    notes.touch()

    def apps(version: str) -> List[Definition]:
        env = {"NOTES": str(notes), "VERSION": version}
        usual = {"script": "app.js", "cwd": str(tmp_path), "kill_timeout": 20000}
        return [{**usual, "name": n, "env": {**env, "NAME": n, "SECONDS": s}} for n, s in (("slow", 2), ("quick", 0))]

    def told(count: int) -> List[str]:
        deadline = time.monotonic() + 60
        while len(lines := notes.read_text().splitlines()) < count:
            assert time.monotonic() < deadline, lines
            time.sleep(0.01)
        return lines

    namespace.bring(apps("1"))
    told(2)
    namespace.bring(apps("2"))
    order = told(6)
    assert order.index("quick 2 starts") < order.index("slow 1 ends") < order.index("slow 2 starts"), order


@newest("home")
@pytest.mark.parametrize(
    "what",
    tiers.full_but(["crashes at boot", "answers 500"], [what for what in BAD if what != "never listens, no check"]),
)
def test_after_a_bad_release_of_a_fork_app_the_old_one_is_back(
    namespace: Namespace, port: int, tmp_path: Path, what: str, record_property: Callable[[str, object], None]
) -> None:
    broken, ready, _message = BAD[what]
    http_app(tmp_path / "1")
    http_app(tmp_path / "2", "2", **broken)
    before = fork(tmp_path / "1", port, env={"PORT": port, "COLOUR": "green"})
    begin(namespace, before)
    (old,) = namespace.processes()
    changed = fork(tmp_path / "2", port, env={"PORT": port, "COLOUR": "red"})

    with Load(port, pause=PAUSE) as load:
        result = namespace.refuse([changed], ready=with_port(ready, port))
        go_on(load)

    measure(record_property, f"fork app, {what}", load)
    assert result["rolled_back"] is True
    (now,) = namespace.processes()
    assert (now["pm_id"], now["pm2_env"]["unique_id"]) == (old["pm_id"], old["pm2_env"]["unique_id"])
    for key in ("pm_exec_path", "pm_cwd", "COLOUR", "status"):
        assert now["pm2_env"][key] == old["pm2_env"][key]
    assert namespace.bring([before])["actions"] == [], "the old definition is not what runs"
