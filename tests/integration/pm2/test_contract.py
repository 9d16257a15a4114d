"""The behaviour of PM2 that the collection relies on, on every version: its daemon, RPC, bus, answers and files.

The other tests of the core tier run on the newest PM2 only; these are in core on each version. They cost about 8
seconds a version on a quiet machine, because they share one daemon, except the two tests that end theirs. A failure
names the file of plugins/module_utils that relies on the behaviour.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._log_paths import has_form
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _sockets
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _handover, _info
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _axon, _daemon, _dump, _dump_app, _orphans
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import LiveApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process, differences
from model.context import build_one, context_of, package_of
from support import observe, places, processes
from support.apps import QUICK, free_port, http_app
from support.namespaces import home_in
from support.pm2 import VERSIONS, Pm2Home
from support.rpc import RemoteError

pytestmark = pytest.mark.every_version

Item = Dict[str, Any]

METHODS = {
    "deleteProcessId",
    "getMonitorData",
    "getVersion",
    "prepare",
    "restartProcessId",
    "stopProcessId",
    "stopWatch",
}
"""The methods that the collection calls."""
MODES = ("fork", "cluster")
MARKER: Dict[str, Any] = {"transaction": "contract"}
FOREIGN = "CONTRACT_FOREIGN"
"""A variable of the shell that starts the shared daemons."""
UNKNOWN_ID = 999999
RESTS: Dict[str, Any] = {"script": "/bin/sleep", "args": ["1000"], "cwd": "/"}

FILES = {
    "says.js": """\
        console.log('said');
        console.error('complained');
        process.on('SIGINT', () => process.exit(7));
        process.on('SIGUSR2', () => process.send('ready'));
        setInterval(() => {}, 1000);
    """,
    "throws.js": "throw new Error('thrown by ' + process.env.name);\n",
    "exits.sh": 'exit "$1"\n',
    "deaf.sh": "trap '' INT\nexec sleep 1000\n",
}


class World:
    """A PM2_HOME of one version, and the programs that it runs."""

    def __init__(self, home: Pm2Home, directory: Path) -> None:
        self.home = home
        self.directory = directory
        for name, text in FILES.items():
            (directory / name).write_text(text, encoding="utf-8")

    def app(self, namespace: str, name: str, script: str = "says.js", **keys: Any) -> App:
        """An app, built as the modules build it."""
        definition = {"name": name, "script": script, "cwd": str(self.directory), **QUICK, **keys}
        app = build_one(self.home, definition, self.directory, namespace)
        for directory in app.log_dirs:
            os.makedirs(directory, exist_ok=True)
        return app

    def start(self, app: App, slot: int = 0) -> Item:
        """Start an instance, and return its item of the daemon's list."""
        before = {item["pm_id"] for item in self.home.jlist()}
        self.home.rpc("prepare", app.payload(slot, MARKER))
        (item,) = [item for item in self.home.processes(app.namespace) if item["pm_id"] not in before]
        return item

    def now(self, item: Item) -> Item:
        """The present item with the same pm_id."""
        (found,) = [each for each in self.home.jlist() if each["pm_id"] == item["pm_id"]]
        return found

    def status(self, item: Item) -> str:
        """The present status of the process."""
        return str(self.now(item)["pm2_env"]["status"])

    def await_status(self, item: Item, status: str, message: str) -> None:
        """Wait until the process has this status."""
        until(lambda: self.status(item) == status, message)

    def is_listed(self, item: Item) -> bool:
        """Whether the daemon still lists the process."""
        return item["pm_id"] in {each["pm_id"] for each in self.home.jlist()}


@pytest.fixture(scope="module", params=VERSIONS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon of each version, for tests that leave it running. Each test has its own namespace."""
    directory = tmp_path_factory.mktemp("contract")
    with home_in(directory, request.param) as home:
        home.cli("ping", env={**context_of(home).base_env, FOREIGN: "1"})
        yield World(home, directory)


@pytest.fixture(params=VERSIONS)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A PM2_HOME without a daemon, for a test that ends its daemon."""
    with home_in(tmp_path, request.param) as home:
        yield World(home, tmp_path)


def until(what: Callable[[], Any], message: str, timeout: float = 30.0) -> Any:
    """The first true value of `look`."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, message
        time.sleep(0.02)
    return found


def text_of(path: str) -> str:
    """The text of a file; empty if there is no file."""
    return Path(path).read_text() if os.path.exists(path) else ""


def await_text(path: str, message: str) -> None:
    """Wait until the file has text, and return it."""
    until(lambda: text_of(path), message)


def refusal(home: Pm2Home, method: str, argument: Any, message: str) -> str:
    """The error that the daemon answers. Fails with `message` if the daemon does what it is asked for."""
    try:
        home.rpc(method, argument)
    except RemoteError as error:
        return str(error)
    pytest.fail(message)


def meaning(item: Item) -> List[str]:
    """What would be saved of the process, in the form that _dump compares."""
    return _dump.canonical([_dump.entry_of(item["pm2_env"])])


def test_the_files_that_the_messages_name() -> None:
    named = re.findall(r"\b((?:definition|pm2|namespace)/_\w+\.py)(?: \((\w+)\))?", Path(__file__).read_text())
    modules = places.ROOT / "plugins" / "module_utils"
    missing = [each for each in named if not re.search(rf"\b{each[1]}\b", (modules / each[0]).read_text())]
    assert named
    assert not missing, "messages of this file name functions that do not exist"


# -- the daemon --------------------------------------------------------------------------------------------------------


def test_the_daemon_can_be_identified(world: World) -> None:
    home = world.home
    daemon = observe.peer(home.rpc_socket)
    title = processes.cmdline(daemon)
    assert re.match(r"PM2 v\S+: God Daemon \(", title), "pm2/_daemon.py: the title of the listener starts so"
    assert home.daemon_pids() == [daemon], "pm2/_daemon.py: the daemon itself listens on rpc.sock"
    assert _daemon.running_without_socket(home.home) == daemon, "pm2/_daemon.py: title and PM2_HOME tell a daemon"
    assert _daemon.node_of(daemon) == os.path.realpath(str(shutil.which("node"))), "pm2/_daemon.py: it is a node"
    found = _info._foreign_variables(daemon, home.home)
    assert found == [FOREIGN], "namespace/_info.py: what PM2 adds to its daemon's environment is in _DAEMON_OWN"


def test_versions_of_the_daemon_and_of_the_program(world: World) -> None:
    home = world.home
    version = json.loads((package_of(home.version) / "package.json").read_text())["version"]
    answer = home.rpc("getVersion", {})
    assert answer == version, "pm2/_daemon.py: getVersion answers the version of the package, a string"
    program = _daemon.find_executable(home.executable)
    assert program.version == _daemon.parse_version(answer), "pm2/_daemon.py: package.json lies above the program"
    assert program.version[0] in _daemon.KNOWN_MAJORS, "pm2/_daemon.py: KNOWN_MAJORS has the tested versions"


def test_files_of_the_home(world: World) -> None:
    home = Path(world.home.home)
    for name in ("rpc.sock", "pub.sock"):
        mode = (home / name).stat().st_mode
        assert stat.S_ISSOCK(mode), f"pm2/_daemon.py and pm2/_bus.py: {name} is a socket in PM2_HOME"
    assert (home / "pm2.log").is_file(), "pm2/_daemon.py: errors say that the daemon's log is pm2.log"


# -- RPC ---------------------------------------------------------------------------------------------------------------


def answers(path: str, *requests: bytes) -> Dict[str, Any]:
    """Send all requests in one write, numbered from 1. Returns the answers by number."""
    found: Dict[str, Any] = {}
    buffer = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        numbered = enumerate(requests, 1)
        connection.sendall(b"".join(_axon.encode([b"j:" + text, b"s:%d" % number]) for number, text in numbered))
        while len(found) < len(requests):
            data = connection.recv(1 << 18)
            assert data, "pm2/_axon.py: a connection stays open for more calls"
            buffer += data
            while frame := _axon.decode(buffer):
                arguments, taken = frame
                del buffer[:taken]
                kinds = [argument[:2] for argument in arguments]
                assert kinds == [b"j:", b"s:"], "pm2/_axon.py: an answer is a frame of JSON and the id of the call"
                found[arguments[1][2:].decode()] = json.loads(arguments[0][2:])
    return found


def test_frames_and_methods(world: World) -> None:
    path = world.home.rpc_socket
    unknown = {"type": "call", "method": "stopProcessId", "args": [UNKNOWN_ID]}
    found = answers(
        path,
        b'{"type":"call","method":"getVersion","args":[{}]}',
        b'{"type":"methods"}',
        json.dumps(unknown).encode(),
    )
    assert set(found) == {"1", "2", "3"}, "pm2/_axon.py: each answer has the id of its call"
    assert isinstance(found["1"]["args"][0], str), "pm2/_axon.py: args[0] is what was asked for"
    assert not found["1"].get("error"), "pm2/_axon.py: no error in a good answer"
    missing = METHODS - set(found["2"]["methods"])
    assert not missing, "pm2/_axon.py: the methods that the collection calls"
    assert isinstance(found["3"]["error"], str), "pm2/_axon.py: an error is a text"


def test_an_unknown_id_is_an_error_that_says_so(world: World) -> None:
    """Such as when another call has deleted the process meanwhile. The daemon survives."""
    home = world.home
    before = home.daemon_pids()
    for method, argument in (
        ("stopProcessId", UNKNOWN_ID),
        ("deleteProcessId", UNKNOWN_ID),
        ("restartProcessId", {"id": UNKNOWN_ID}),
    ):
        said = refusal(home, method, argument, f"namespace/_processes.py: {method} of an unknown id is an error")
        assert "id unknown" in said, f"namespace/_processes.py (_already_gone): {method} says this"
    home.rpc("stopWatch", "stopProcessId", UNKNOWN_ID)
    assert home.daemon_pids() == before, "namespace/_processes.py: an unknown id does not hurt the daemon"


# -- the process that prepare makes of an app ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_process_is_listed_as_it_was_sent(world: World, mode: str) -> None:
    """With PM2's own defaults: it loads @pm2/io, and looks for a repository."""
    keys: Dict[str, Any] = {"exec_mode": mode, "instances": 4, "pmx": True, "vizion": True}
    app = world.app(f"listed-{mode}", "app", **keys, env={"SOME": "text", "NUMBER": 8})
    before = int(time.time() * 1000)
    item = world.start(app, slot=3)
    after = int(time.time() * 1000)
    env = item["pm2_env"]
    assert item["name"] == "app", "pm2/_process.py: the name of an item of getMonitorData"
    assert item["pm_id"] == env["pm_id"], "pm2/_process.py: pm_id, of the item and of its pm2_env"
    assert isinstance(item["pm_id"], int), "pm2/_process.py: a pm_id is a number"
    assert processes.alive(item["pid"]), "pm2/_process.py: pid is that of the process"
    expected = {
        "name": "app",
        "namespace": f"listed-{mode}",
        "status": "online",
        "exec_mode": f"{mode}_mode",
        "restart_time": 0,
        "unstable_restarts": 0,
        "exit_code": None,
        "instance_var": "NODE_APP_INSTANCE",
        "NODE_APP_INSTANCE": 3,
        "nodeops": MARKER,
        "pm_cwd": str(world.directory),
        "pm_exec_path": str(world.directory / "says.js"),
        "autostart": True,
        "watch": None,
        "pmx_module": None,
        "instances": None,
    }
    found = {key: env.get(key) for key in expected}
    assert found == expected, "pm2/_process.py, definition/_app.py (payload): these keys of pm2_env have these values"
    assert before <= env["pm_uptime"] <= after, "namespace/_gate.py: pm_uptime is the start in ms since 1970"
    assert before <= env["created_at"] <= after, "pm2/_dump_app.py: created_at is in ms since 1970"
    variables = {key: (env.get(key), env["env"].get(key)) for key in ("SOME", "NUMBER")}
    assert variables == {"SOME": ("text", "text"), "NUMBER": ("8", "8")}, (
        "pm2/_process.py (env): variables are at the top of pm2_env, and in its env"
    )
    assert env["unique_id"], "pm2/_process.py (identity): PM2 gives each process a unique_id"
    assert env["env"]["unique_id"] == env["unique_id"], "pm2/_dump.py (meaning): unique_id is in env too"
    assert differences(app, Process(item)) == [], "pm2/_process.py: a new process is as its app says"
    assert _dump.canonical([_dump.entry_of_payload(app.payload(3, MARKER))]) == meaning(item), (
        "pm2/_dump.py (entry_of_payload): the entry that check mode predicts"
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_of_a_live_process_is_the_same(world: World, mode: str) -> None:
    app = world.app(f"copy-{mode}", "app", exec_mode=mode, instances=2, merge_logs=False, env={"SOME": "text"})
    old = world.start(app, slot=1)
    world.home.rpc("prepare", LiveApp("app", [Process(old)]).payload(0, MARKER))
    (new,) = [item for item in world.home.processes(app.namespace) if item["pm_id"] != old["pm_id"]]
    assert new["pm2_env"]["unique_id"] != old["pm2_env"]["unique_id"], "pm2/_live_app.py: a copy gets its own unique_id"
    assert Process(new).instance == 0, "pm2/_live_app.py: a copy has the number it is given"
    assert differences(app, Process(new)) == [], "pm2/_live_app.py: prepare of what is live makes the same process"


def test_prepare_injects_no_number(world: World) -> None:
    """If PM2 gets `instances`, it numbers by name over all namespaces. So it does not get that."""
    numbered: List[Tuple[str, int]] = [("number-left", 5), ("number-left", 2), ("number-right", 2)]
    found = []
    for namespace, slot in numbered:
        app = world.app(namespace, "same-name", **RESTS, increment_var="COUNT", env={"COUNT": 10})
        item = world.start(app, slot)
        env = item["pm2_env"]
        environ = processes.environ(item["pid"])
        found.append((namespace, env["NODE_APP_INSTANCE"], env["COUNT"], environ["NODE_APP_INSTANCE"]))
    expected = [(namespace, slot, str(10 + slot), str(slot)) for namespace, slot in numbered]
    assert found == expected, "definition/_app.py (payload): without `instances` PM2 keeps the numbers it is given"


@pytest.mark.parametrize("mode", MODES)
def test_environment_of_a_process(world: World, mode: str) -> None:
    app = world.app(f"environ-{mode}", "app", exec_mode=mode, env={"SOME": "text"})
    item = world.start(app)
    pid, env = item["pid"], item["pm2_env"]
    found = _orphans._environment(pid)
    expected = {
        "PM2_HOME": world.home.home,
        "namespace": app.namespace,
        "name": "app",
        **{key: env[key] for key in ("unique_id", "pm_pid_path", "pm_exec_path", "SOME")},
    }
    assert {key: found.get(key) for key in expected} == expected, (
        "pm2/_orphans.py: a process of a killed daemon is known by these variables"
    )
    assert env["unique_id"] in processes.read(pid, "environ").decode(), (
        "namespace/_processes.py (_end_survivor): the environment tells whose process a pid is"
    )
    is_foreign = FOREIGN in processes.environ(pid)
    assert is_foreign == (mode == "cluster"), (
        "pm2/_daemon.py (base_environment), namespace/_info.py: cluster workers inherit the daemon's environment, "
        "fork processes do not"
    )


@pytest.mark.parametrize("mode", MODES)
def test_logs_and_pid_file(world: World, mode: str) -> None:
    app = world.app(f"files-{mode}", "app", exec_mode=mode, merge_logs=False, out_file="o.log", error_file="e.log")
    item = world.start(app)
    env = item["pm2_env"]
    for key, said in (("pm_out_log_path", "said\n"), ("pm_err_log_path", "complained\n")):
        path = env[key]
        assert has_form(path, app.config[key], key, False), f"definition/_log_paths.py (has_form): {key} got its pm_id"
        assert f"-{item['pm_id']}.log" in path, f"definition/_log_paths.py: {key} got its pm_id"
        await_text(path, f"namespace/_gate.py (log): {key} gets what the app says")
        assert text_of(path) == said, f"namespace/_gate.py (log): {key} has the app's lines as they are"
    pid_file = env["pm_pid_path"]
    assert pid_file.endswith(f"-{item['pm_id']}.pid"), "definition/_log_paths.py: the pid file got its pm_id"
    await_text(pid_file, "pm2/_orphans.py: each process has a pid file")
    assert text_of(pid_file).strip() == str(item["pid"]), "pm2/_orphans.py (_is_the_app_itself): it holds the pid"

    merged = world.start(world.app(app.namespace, "merged", **RESTS, merge_logs=True, out_file="m.log"))
    assert merged["pm2_env"]["pm_out_log_path"].endswith("/m.log"), (
        "definition/_log_paths.py (has_form): with merge_logs a path stays as it is"
    )


def test_an_app_that_does_not_start_by_itself_is_listed(world: World) -> None:
    app = world.app("resting", "app", **RESTS, autostart=False)
    item = world.start(app)
    assert (item["pm2_env"]["status"], item.get("pid") or 0) == ("stopped", 0), (
        "namespace/_gate.py: autostart false gives a stopped process without a pid"
    )


def test_a_stopped_process_comes_back_as_such(world: World) -> None:
    item = world.start(world.app("stopped", "app", **RESTS))
    world.home.rpc("stopProcessId", item["pm_id"])
    (saved,) = _dump_app.build([_dump.entry_of(world.now(item)["pm2_env"])], "stopped", Redactor())
    world.home.rpc("deleteProcessId", item["pm_id"])
    world.home.rpc("prepare", saved.payload(0, MARKER))
    (again,) = world.home.processes("stopped")
    assert (again["pm2_env"]["status"], again.get("pid") or 0) == ("stopped", 0), (
        "pm2/_dump_app.py (payload): status stopped puts a process into the list and starts nothing"
    )
    assert saved.differences(Process(again)) == [], "pm2/_dump_app.py: a stopped entry comes back as it is"
    world.home.rpc("restartProcessId", {"id": again["pm_id"]})
    assert world.status(again) == "online", "namespace/_pause.py: what came back stopped can be started"


def test_what_cannot_start(world: World) -> None:
    """One start is refused, the other one says online. The daemon survives both."""
    unwritable = world.app("failing", "log", **RESTS)
    unwritable.config["pm_out_log_path"] = str(world.directory / "says.js" / "out.log")
    message = "namespace/_transaction.py (_refused): a start without a log that can be written is an error"
    refusal(world.home, "prepare", unwritable.payload(0, MARKER), message)
    assert world.home.processes("failing") == [], (
        "namespace/_transaction.py (_refused): a start that PM2 refuses is not in its list"
    )
    gone = world.directory / "gone"
    gone.mkdir()
    app = world.app("failing", "cwd", **{**RESTS, "cwd": str(gone)})
    gone.rmdir()
    item = world.start(app)
    assert (item["pm2_env"]["status"], Process(item).running) == ("online", False), (
        "namespace/_gate.py (PID_GRACE): PM2 says online without a process if there is no working directory"
    )
    world.home.rpc("deleteProcessId", item["pm_id"])
    assert not world.is_listed(item), "namespace/_processes.py (delete): also what has no process can be deleted"


@pytest.mark.parametrize("mode", MODES)
def test_wait_ready(world: World, mode: str) -> None:
    app = world.app(f"ready-{mode}", "app", exec_mode=mode, wait_ready=True, listen_timeout=120_000)
    with _axon.Client(world.home.rpc_socket) as client:
        request = client.send("prepare", app.payload(0, MARKER))
        (item,) = until(lambda: world.home.processes(app.namespace), "namespace/_gate.py: what starts is listed")
        await_text(item["pm2_env"]["pm_out_log_path"], "the app has begun")
        client.collect()
        assert (world.status(item), client.arrived(request)) == ("launching", False), (
            "namespace/_gate.py (_check_ready_message): with wait_ready it is launching until it says ready"
        )
        os.kill(world.now(item)["pid"], signal.SIGUSR2)
        client.receive(request, "prepare", 60)
    assert world.status(item) == "online", "namespace/_gate.py: it is online as soon as it says ready"

    silent = world.start(world.app(app.namespace, "silent", exec_mode=mode, wait_ready=True, listen_timeout=100))
    assert silent["pm2_env"]["status"] == "online", (
        "namespace/_gate.py (_check_ready_message): PM2 says online after listen_timeout, whatever was said"
    )


# -- stop, start, delete -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_stop_restart_delete(world: World, mode: str) -> None:
    home = world.home
    app = world.app(f"stop-{mode}", "app", exec_mode=mode, instances=3)
    item = world.start(app, slot=2)
    pm_id, identity = item["pm_id"], Process(item).identity
    await_text(item["pm2_env"]["pm_out_log_path"], "the app has begun")

    home.rpc("stopProcessId", pm_id)
    assert not processes.alive(item["pid"]), "namespace/_processes.py (stop): the answer comes when it has ended"
    stopped = world.now(item)
    assert (stopped["pm2_env"]["status"], stopped.get("pid") or 0) == ("stopped", 0), (
        "namespace/_plan.py (is_active): a stopped process is listed as such, without a pid"
    )
    assert Process(stopped).identity == identity, "pm2/_process.py (identity): a stop leaves pm_id and unique_id"
    assert stopped["pm2_env"]["exit_code"] == 7, "pm2/_orphans.py (end): PM2 ends by SIGINT, and keeps the exit code"
    home.rpc("stopProcessId", pm_id)
    assert world.status(item) == "stopped", "namespace/_processes.py (_again): a second stop does nothing"

    for restarts in (0, 1):  # first stopped, then running
        last = world.now(item)
        home.rpc("restartProcessId", {"id": pm_id})
        again = world.now(item)
        assert Process(again).running, "namespace/_processes.py (restart): restartProcessId starts what is stopped"
        assert again["pid"] != last.get("pid"), "namespace/_processes.py (restart): with a new process"
        assert Process(again).identity == identity, "pm2/_process.py (identity): a restart leaves pm_id and unique_id"
        assert again["pm2_env"]["restart_time"] == restarts, (
            "namespace/_gate.py: restart_time counts restarts of what ran, not a start after a stop"
        )
        assert again["pm2_env"].get("nodeops") == MARKER, "namespace/_processes.py: our key survives a restart"
        assert differences(app, Process(again)) == [], "pm2/_process.py: a restarted process is as its app says"
        assert meaning(again) == meaning(item), "pm2/_dump.py (_VOLATILE): a restart changes nothing that is saved"

    home.rpc("deleteProcessId", pm_id)
    assert not world.is_listed(item), "namespace/_processes.py (delete): a deleted process is not listed"
    assert not processes.alive(again["pid"]), "namespace/_processes.py (delete): the answer comes when it has ended"


def test_a_process_that_does_not_end(world: World) -> None:
    app = world.app("deaf", "patient", "deaf.sh", kill_timeout=300_000)
    item = world.start(app)
    until(lambda: "sleep" in processes.cmdline(item["pid"]), "the app has begun")
    with _axon.Client(world.home.rpc_socket) as client:
        request = client.send("stopProcessId", item["pm_id"])
        world.await_status(item, "stopping", "namespace/_processes.py (restart): stopping until it ends")
        message = "namespace/_processes.py (restart): what is just being stopped is not started"
        refusal(world.home, "restartProcessId", {"id": item["pm_id"]}, message)
        os.kill(item["pid"], signal.SIGKILL)
        client.receive(request, "stopProcessId", 60)
    assert world.status(item) == "stopped", "namespace/_processes.py: it stays stopped, and does not come back"

    short = world.start(world.app("deaf", "short", "deaf.sh", kill_timeout=300))
    until(lambda: "sleep" in processes.cmdline(short["pid"]), "the app has begun")
    world.home.rpc("deleteProcessId", short["pm_id"])
    assert not processes.alive(short["pid"]), "namespace/_processes.py (_patience): SIGKILL after kill_timeout"


def test_a_process_that_ends_by_itself(world: World) -> None:
    def start(name: str, code: int, **keys: Any) -> Item:
        return world.start(world.app("ends", name, "exits.sh", args=[str(code)], **keys))

    for name, code in (("well", 0), ("badly", 3)):
        item = start(name, code, autorestart=False)
        world.await_status(item, "stopped", "namespace/_gate.py (_finished_well): what is not restarted is stopped")
        ended = world.now(item)
        assert (ended["pm2_env"]["exit_code"], ended["pm2_env"]["restart_time"], ended.get("pid") or 0) == (
            code,
            0,
            0,
        ), "namespace/_gate.py (_finished_well): exit code, no restart, no pid of what has ended"

    loop = start("loop", 3, max_restarts=2)
    world.await_status(loop, "errored", "namespace/_gate.py: a crash loop ends as errored")
    env = world.now(loop)["pm2_env"]
    assert env["restart_time"] > 0, "namespace/_gate.py (_is_up): a restart after a crash is counted"
    assert env["exit_code"] == 3, "namespace/_gate.py (_how_it_died): the exit code of a crash is kept"

    later = start("later", 3, restart_delay=600_000)
    world.await_status(later, "waiting restart", "namespace/_gate.py: with a delay, what crashed is waiting restart")
    world.home.rpc("stopProcessId", later["pm_id"])
    assert world.status(later) == "stopped", "namespace/_processes.py (stop): a stop ends the wait"
    for item in (loop, later):
        world.home.rpc("deleteProcessId", item["pm_id"])
        assert not world.is_listed(item), "namespace/_processes.py (delete): what has no process can be deleted"


def test_watching(world: World) -> None:
    watched = world.directory / "watched"
    watched.mkdir()
    apps = [world.app("watch", name, **RESTS, watch=[str(watched)]) for name in ("ended", "still")]
    ended, still = (world.start(app) for app in apps)
    assert world.now(still)["pm2_env"]["watch"], "pm2/_process.py: watch is true for what is watched"
    world.home.rpc("stopWatch", "stopProcessId", ended["pm_id"])
    assert world.now(ended)["pm2_env"]["watch"] is False, "namespace/_processes.py (_unwatch): watch is false then"

    def restarts() -> int:
        (watched / f"{time.monotonic_ns()}").touch()
        return int(world.now(still)["pm2_env"]["restart_time"])

    until(restarts, "PM2 restarts what is watched if a file changes")
    world.home.rpc("stopWatch", "stopProcessId", still["pm_id"])
    found = world.now(ended)
    assert (found["pm2_env"]["restart_time"], found["pid"]) == (0, ended["pid"]), (
        "namespace/_processes.py (_unwatch): what is not watched any more is left alone"
    )


# -- the bus -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_bus_has_what_a_process_says_at_its_end(world: World, mode: str) -> None:
    """A cluster worker that throws at its start leaves nothing in its log, so only the bus has its output."""
    app = world.app(f"bus-{mode}", "crashes", "throws.js", exec_mode=mode, autorestart=False)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.connect(os.path.join(world.home.home, "pub.sock"))
        bus.setblocking(False)
        world.home.rpc("getVersion", {})  # the daemon has accepted the connection by now
        item = world.start(app)
        buffer = bytearray()
        said = ""

        def has_said() -> bool:
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                buffer.extend(bus.recv(1 << 18))
            for event in errors_in(buffer):
                if {key: event["process"].get(key) for key in expected} == expected:
                    said += event["data"]
            return "Error: thrown by crashes" in said

        expected = {"namespace": app.namespace, "name": "crashes", "pm_id": item["pm_id"]}
        message = "pm2/_bus.py: log:err events say of which process they are, and what it wrote before it ended"
        until(has_said, message)


def errors_in(buffer: bytearray) -> Iterator[Item]:
    """The log:err events, removed from the list."""
    while frame := _axon.decode(buffer):
        (kind, body), taken = frame
        del buffer[:taken]
        assert (kind[:2], body[:2]) == (b"s:", b"j:"), "pm2/_bus.py: a frame is the name of an event and JSON"
        if kind == b"s:log:err":
            yield json.loads(body[2:])


# -- cluster workers behind one port -----------------------------------------------------------------------------------


def test_cluster_workers_of_two_apps_hand_over_a_port(world: World) -> None:
    home = world.home
    script = http_app(world.directory)
    port = free_port()
    endpoint = _handover.Endpoint("127.0.0.1", port)
    old, new = (
        world.start(world.app("port", name, script, exec_mode="cluster", env={"PORT": port}, kill_timeout=120_000))
        for name in ("old", "new")
    )
    pids = {old["pid"], new["pid"]}
    (daemon,) = home.daemon_pids()
    until(
        lambda: port in {found for _host, found in _sockets.listening(daemon)},
        "namespace/_handover.py (endpoints): the daemon listens for its cluster workers",
    )
    until(
        lambda: _handover.takers(endpoint, pids) == pids,
        "namespace/_handover.py (takers): old and new workers take the connections of one port in turn",
    )
    assert not [pid for pid in pids if _sockets.listening(pid)], (
        "namespace/_handover.py: the workers do not listen, the daemon gives them the connections"
    )

    def held_by_old() -> Optional[socket.socket]:
        connection = socket.create_connection(endpoint)
        if _handover._taker(connection, pids) == old["pid"]:
            return connection
        connection.close()
        return None

    with _axon.Client(home.rpc_socket) as client, until(held_by_old, "the old worker takes a connection") as held:
        request = client.send("deleteProcessId", old["pm_id"])
        until(
            lambda: _handover.takers(endpoint, pids) == {new["pid"]},
            "namespace/_handover.py (release): a worker that was told to end gets no new connection",
        )
        assert processes.alive(old["pid"]), "namespace/_handover.py (hold): it lives as long as it has a connection"
        held.close()
        client.receive(request, "deleteProcessId", 60)
    assert not processes.alive(old["pid"]), "namespace/_handover.py (release): it ends without its last connection"
    until(
        lambda: _handover.takers(endpoint, pids) == {new["pid"]},
        "namespace/_handover.py (Drain): the other one goes on serving",
    )


# -- the dump ----------------------------------------------------------------------------------------------------------


def test_the_dump_that_pm2_saves(world: World) -> None:
    home = world.home
    items = [
        world.start(world.app("saved", "worker", exec_mode="cluster"), slot=4),
        world.start(world.app("saved", "resting", **RESTS, autostart=False)),
    ]
    module = world.app("saved", "module", **RESTS)
    module.config["pmx_module"] = True
    world.start(module)
    home.dump.write_text("[]")
    home.cli("save")
    entries = _dump.of_namespace(json.loads(home.dump.read_text()), "saved")
    assert {entry["name"] for entry in entries} == {"worker", "resting"}, (
        "pm2/_dump.py (entries_of): the dump is a JSON list, in which there are no modules"
    )
    left = {key for entry in entries for key in ("instances", "pm_id", "prev_restart_delay") if key in entry}
    assert not left, "pm2/_dump.py (_NOT_SAVED): pm2 save leaves these keys out"
    live = [_dump.entry_of(world.now(item)["pm2_env"]) for item in items]
    assert _dump.canonical(entries) == _dump.canonical(live), "pm2/_dump.py (entry_of): an entry is pm2_env"
    assert sorted(map(sorted, entries)) == sorted(map(sorted, live)), "pm2/_dump.py (entry_of): with the same keys"
    assert text_of(f"{home.dump}.bak") == "[]", "pm2/_dump.py (read): the former dump is dump.pm2.bak"


def listed(home: Pm2Home) -> List[Tuple[Any, ...]]:
    """The properties of its processes that have to survive a resurrect."""
    found = [Process(item) for item in home.jlist()]
    return sorted((p.namespace, p.name, p.instance, p.status, p.running, str(p.marker)) for p in found)


def test_resurrect_and_the_end_by_sigterm(own: World) -> None:
    """Our dump is the backup of a broken one. Then PM2 writes its own dump when its daemon gets SIGTERM."""
    home = own.home
    cluster = own.app("left", "api", exec_mode="cluster")
    payloads = [
        cluster.payload(3, MARKER),
        cluster.payload(1, MARKER),
        own.app("right", "api", **RESTS).payload(0, MARKER),
        own.app("right", "resting", **RESTS, autostart=False).payload(0, MARKER),
    ]
    wanted = [_dump.entry_of_payload(payload) for payload in payloads]
    assert _dump.replace(home.home, ["left", "right"], wanted)
    home.dump.rename(f"{home.dump}.bak")
    home.dump.write_text("[{")
    assert _dump.canonical(_dump.read(home.home).entries) == _dump.canonical(wanted)
    environment = context_of(home).base_env
    home.cli("resurrect", env=environment)
    marker = str(MARKER)
    expected = [
        ("left", "api", 1, "online", True, marker),
        ("left", "api", 3, "online", True, marker),
        ("right", "api", 0, "online", True, marker),
        ("right", "resting", 0, "stopped", False, marker),
    ]
    assert listed(home) == expected, (
        "pm2/_dump.py (read): resurrect takes dump.pm2.bak if dump.pm2 is broken, and brings back the namespaces, "
        "numbers, states and our key of the entries we write"
    )
    live = home.jlist()
    assert _dump.canonical(_dump.entry_of(item["pm2_env"]) for item in live) == _dump.canonical(wanted), (
        "pm2/_dump.py: a process that came back is as it was saved"
    )

    (gone,) = [item for item in live if Process(item).instance == 3]
    home.rpc("deleteProcessId", gone["pm_id"])
    home.dump.write_text(json.dumps(wanted))
    home.cli("resurrect", env=environment)
    assert listed(home) == [each for each in expected if each[2] != 3], (
        "namespace/_pause.py (await_resurrect): resurrect leaves out what is called as something that runs"
    )

    live = home.jlist()
    (daemon,) = home.daemon_pids()
    os.kill(daemon, signal.SIGTERM)
    until(lambda: not home.daemon_pids(), "pm2/_daemon.py (find_listening): SIGTERM saves and stops the apps")
    assert not any(processes.alive(item["pid"]) for item in live if item.get("pid")), (
        "pm2/_daemon.py (find_listening): SIGTERM stops the apps"
    )
    saved = json.loads(home.dump.read_text())
    assert _dump.canonical(saved) == _dump.canonical(_dump.entry_of(item["pm2_env"]) for item in live), (
        "pm2/_dump.py, pm2/_daemon.py: on SIGTERM the daemon writes its processes to dump.pm2, in the form of a save"
    )
    assert _daemon.find(home.home) is None, "pm2/_daemon.py (find): nothing listens without a daemon"


def test_a_daemon_from_its_start_to_its_death(own: World) -> None:
    """It is started as the modules start it, and killed. The processes that outlive it have to be found."""
    home = own.home
    daemon, is_started = _daemon.ensure(home.home, home.executable)
    daemon.client.close()
    assert is_started, "pm2/_daemon.py: nothing listens in a new PM2_HOME"
    assert home.daemon_pids() == [daemon.pid], "pm2/_daemon.py (_start): `pm2 ping` leaves a daemon, and one only"
    assert daemon.processes == [], "pm2/_daemon.py (_start): a new daemon runs nothing"
    found = _info._foreign_variables(daemon.pid, home.home)
    assert found == [], "pm2/_daemon.py (_start): a daemon has the environment of who started it, and no other"

    (own.directory / "loop.py").write_text("import time\nwhile True: time.sleep(0.1)\n")
    apps = {
        "worker": own.app("left", "worker", exec_mode="cluster"),
        "python": own.app("left", "python", "loop.py", interpreter=sys.executable),
        "sleep": own.app("left", "sleep", **RESTS),
    }
    pids = {name: own.start(app)["pid"] for name, app in apps.items()}
    os.kill(pids["worker"], signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not home.daemon_pids(), "the daemon has ended")
    assert os.path.exists(home.rpc_socket), "pm2/_daemon.py (find): a socket file may be left of a killed daemon"
    assert _daemon.find(home.home) is None, "pm2/_daemon.py (find): a dead socket is not a daemon"
    orphans = _orphans.find(home.home, "left", set(apps), [], 0)
    assert {orphan.name: orphan.pid for orphan in orphans} == pids, (
        "pm2/_orphans.py (find): processes that outlive their daemon are known by environment, pid file and title"
    )
