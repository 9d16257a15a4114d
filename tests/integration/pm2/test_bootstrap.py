"""Finding, starting and checking the daemon: many calls at once, the rest of a dead daemon, and what must stay."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _processes
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _axon, _daemon
from support import modules, processes
from support.apps import worker_app
from support.killer import Runner
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home

READY = {"min_uptime": 0.05, "timeout": 30}
NOTHING = "Nothing was changed"
OTHER_USER = 65534


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Runs each call in its own process."""
    with Runner() as made:
        yield made


def options(pm2: Pm2Home, namespace: str = "left", **more: Any) -> Dict[str, Any]:
    """Options of pm2_process for one app that sleeps."""
    app = {"name": "app", "script": "/bin/sleep", "args": ["1000"], "cwd": "/"}
    base = {"pm2_home": pm2.home, "pm2_executable": pm2.executable, "namespace": namespace}
    return {**base, "apps": [app], "ready": READY, **more}


def bring(params: Dict[str, Any], check: bool = False) -> Dict[str, Any]:
    """A call that must succeed."""
    result = call("pm2_process", params, check)
    assert not result["failed"], result
    return result


def refused(params: Dict[str, Any], *words: str) -> None:
    """A call is refused in a real run and in check mode. The message has these words, and that nothing was changed."""
    for check in (True, False):
        result = call("pm2_process", params, check)
        assert result["failed"], (check, result)
        for word in (*words, NOTHING):
            assert word in result["msg"], (check, result["msg"])


def tree(directory: str) -> Dict[str, Tuple[Any, ...]]:
    """All below a directory that changes if it is touched."""
    found = {}
    for path in [Path(directory), *Path(directory).rglob("*")]:
        state = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (state.st_ino, state.st_mode, state.st_uid, state.st_mtime_ns, content)
    return found


def until(what: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- the start ---------------------------------------------------------------------------------------------------------


def test_12_concurrent_calls_on_an_empty_home_leave_one_daemon_and_all_apps(pm2, runner):
    """Twelve processes at once, for seven namespaces: there is no second daemon, and no app or entry is lost."""
    wanted = sorted((f"space-{number % 7}", f"app-{number}") for number in range(12))
    app = {"script": "/bin/sleep", "args": ["1000"], "cwd": "/"}
    calls = [("pm2_process", options(pm2, namespace, apps=[{**app, "name": name}])) for namespace, name in wanted]
    shutil.rmtree(pm2.home)
    results = runner.together(calls)
    assert [result.get("msg") for result in results if result["failed"]] == []
    assert len(pm2.daemon_pids()) == 1
    assert Path(pm2.home, "pm2.log").read_text().count("New PM2 Daemon started") == 1
    live = pm2.jlist()
    assert sorted((item["pm2_env"]["namespace"], item["name"]) for item in live) == wanted
    assert all(processes.alive(item["pid"]) for item in live)
    assert sorted((entry["namespace"], entry["name"]) for entry in json.loads(pm2.dump.read_text())) == wanted


def test_files_of_a_dead_daemon_do_not_matter(pm2):
    """Dead sockets, and a pid file with the pid of another program's process, which stays untouched."""
    bring(options(pm2))
    (daemon,) = pm2.daemon_pids()
    stranger = subprocess.Popen(["/bin/sleep", "1000"], cwd=pm2.home)
    try:
        os.kill(daemon, signal.SIGKILL)
        until(lambda: not pm2.daemon_pids())
        assert os.path.exists(pm2.rpc_socket)
        Path(pm2.home, "pm2.pid").write_text(str(stranger.pid))
        bring(options(pm2))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert len(pm2.daemon_pids()) == 1
    assert pm2.daemon_pids() != [daemon]
    assert len(pm2.processes("left")) == 1


def test_a_pid_file_of_a_dead_process_does_not_matter(pm2):
    """The home has only a stale pid file, and a file that is not a socket in the socket's place."""
    Path(pm2.home, "pm2.pid").write_text("4194303")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(pm2.rpc_socket)
    dead.close()
    bring(options(pm2))
    assert len(pm2.daemon_pids()) == 1


# -- what a killed daemon leaves ---------------------------------------------------------------------------------------

FROZEN = ("cluster", "fork")  # a node process ends with its daemon, unless it is busy
SURVIVORS = ["cluster", "fork", "python", "shell", "sleep"]


def orphan_apps(directory: Path) -> List[Dict[str, Any]]:
    worker_app(directory)
    (directory / "loop.py").write_text("import time\nwhile True: time.sleep(0.1)\n")
    return [
        {"name": "cluster", "script": "worker.js", "cwd": str(directory), "exec_mode": "cluster", "instances": 1},
        {"name": "fork", "script": "worker.js", "cwd": str(directory)},
        {"name": "python", "script": "loop.py", "cwd": str(directory), "interpreter": sys.executable},
        {"name": "sleep", "script": "/bin/sleep", "args": ["1000"], "cwd": "/"},
        {"name": "shell", "script": "sleep 1001", "cwd": "/"},
    ]


def test_orphans_of_a_killed_daemon_are_ended_before_their_app_starts_again(pm2, tmp_path):
    """Only orphans of this namespace and of the apps that are started. Check mode names them. No app runs twice."""
    apps = orphan_apps(tmp_path)
    pids: Dict[str, Dict[str, int]] = {}
    for namespace in ("left", "right"):
        bring(options(pm2, namespace, apps=apps))
        pids[namespace] = {item["name"]: item["pid"] for item in pm2.processes(namespace)}
    for namespace in pids:
        for name in FROZEN:
            os.kill(pids[namespace][name], signal.SIGSTOP)
    os.kill(pm2.daemon_pids()[0], signal.SIGKILL)
    until(lambda: not pm2.daemon_pids())
    assert all(processes.alive(pid) for namespace in pids.values() for pid in namespace.values())

    # a call for one app of the namespace
    only_python = options(pm2, "left", apps=apps, names=["python"])
    predicted = bring(only_python, check=True)
    assert not pm2.daemon_pids()
    assert processes.alive(pids["left"]["python"])
    done = bring(only_python)
    assert done["actions"] == predicted["actions"]
    assert ended(done) == {"python": pids["left"]["python"]}
    assert alive(pids) == [("left", name) for name in SURVIVORS if name != "python"] + [
        ("right", name) for name in SURVIVORS
    ]

    # a call for the whole namespace
    predicted = bring(options(pm2, "left", apps=apps), check=True)
    done = bring(options(pm2, "left", apps=apps))
    assert done["actions"] == predicted["actions"]
    assert ended(done) == {name: pids["left"][name] for name in SURVIVORS if name != "python"}
    assert done["changed"]
    assert alive(pids) == [("right", name) for name in SURVIVORS]
    assert len(pm2.daemon_pids()) == 1
    assert bring(options(pm2, "left", apps=apps))["changed"] is False

    # a call for the other namespace
    assert ended(bring(options(pm2, "right", apps=apps))) == pids["right"]
    assert alive(pids) == []
    running = sorted((item["pm2_env"]["namespace"], item["name"]) for item in pm2.jlist())
    assert running == [(namespace, name) for namespace in ("left", "right") for name in SURVIVORS]


def test_an_orphan_that_had_just_started_is_found(pm2, tmp_path):
    """A cluster worker is online before it has its title and pid file. Frozen then, it outlives the daemon."""
    worker_app(tmp_path)
    (tmp_path / "freeze.js").write_text("process.kill(process.pid, 'SIGSTOP');\n")
    app = {"name": "app", "script": "worker.js", "cwd": str(tmp_path), "exec_mode": "cluster", "instances": 1}
    bring(options(pm2, apps=[{**app, "node_args": ["--require", str(tmp_path / "freeze.js")]}]))
    (process,) = pm2.processes("left")
    assert not Path(process["pm2_env"]["pm_pid_path"]).exists()
    os.kill(pm2.daemon_pids()[0], signal.SIGKILL)
    until(lambda: not pm2.daemon_pids())
    assert processes.alive(process["pid"])
    assert ended(bring(options(pm2, apps=[app]))) == {"app": process["pid"]}
    assert not processes.alive(process["pid"])


def ended(result: Dict[str, Any]) -> Dict[str, int]:
    """The names and pids of the end_orphan actions."""
    actions = [action for action in result["actions"] if action["action"] == "end_orphan"]
    return {action["name"]: int(action["reasons"][0].rpartition(" ")[2]) for action in actions}


def alive(pids: Dict[str, Dict[str, int]]) -> List[Tuple[str, str]]:
    return sorted((space, name) for space, its in pids.items() for name, pid in its.items() if processes.alive(pid))


def test_node_orphans_end_by_themselves(pm2, tmp_path):
    """The node children of a killed daemon are gone when the next run looks, unless they are kept busy."""
    apps = orphan_apps(tmp_path)[:2]
    bring(options(pm2, apps=apps))
    pids = [item["pid"] for item in pm2.processes("left")]
    os.kill(pm2.daemon_pids()[0], signal.SIGKILL)
    until(lambda: not any(map(processes.alive, pids)))
    assert [action["action"] for action in bring(options(pm2, apps=apps))["actions"]] == ["start", "start"]


# -- a daemon that cannot be used --------------------------------------------------------------------------------------


def test_a_deaf_daemon_is_refused(pm2, monkeypatch):
    """It lives without its socket, so a second daemon would run every app twice. Also for absent and a save."""
    monkeypatch.setattr(_daemon, "SOCKET_GRACE", 0.3)
    bring(options(pm2))
    (daemon,) = pm2.daemon_pids()
    (item,) = pm2.jlist()
    os.rename(pm2.rpc_socket, pm2.rpc_socket + ".away")
    before = tree(pm2.home)
    refused(options(pm2), "nothing listens", str(daemon), "run every app twice")
    no_apps = {key: value for key, value in options(pm2).items() if key not in ("apps", "ready")}
    refused({**no_apps, "state": "absent"}, "nothing listens")
    saved = call("pm2_save", {"pm2_home": pm2.home, "namespace": "left"})
    assert saved["failed"]
    assert "nothing listens" in saved["msg"]
    assert tree(pm2.home) == before
    assert pm2.daemon_pids() == [daemon]
    os.rename(pm2.rpc_socket + ".away", pm2.rpc_socket)
    assert pm2.jlist()[0]["pid"] == item["pid"]
    assert bring(options(pm2))["changed"] is False


def test_a_daemon_that_hangs_is_a_clear_error_in_bounded_time(pm2, monkeypatch):
    """After SIGSTOP it accepts the connection and never answers. The timeout is 15 s; here it is 1 s."""
    bring(options(pm2))
    (daemon,) = pm2.daemon_pids()
    assert _daemon.find.__defaults__ == (15.0,)
    monkeypatch.setattr(_daemon.find, "__defaults__", (1.0,))
    before = tree(pm2.home)
    os.kill(daemon, signal.SIGSTOP)
    try:
        start = time.monotonic()
        refused(options(pm2), "did not answer", str(daemon), "pm2.log")
        assert time.monotonic() - start < 60
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert {path: state for path, state in tree(pm2.home).items() if not path.endswith(".log")} == {
        path: state for path, state in before.items() if not path.endswith(".log")
    }
    assert pm2.daemon_pids() == [daemon]
    assert bring(options(pm2))["changed"] is False


def test_a_daemon_that_hangs_in_the_middle_of_a_change_ends_the_run_in_bounded_time(pm2_7, runner, tmp_path):
    """The run says that it could not undo the change. When the daemon answers again, the next run finishes the undo."""
    worker_app(tmp_path)
    app = {"name": "api", "script": "worker.js", "cwd": str(tmp_path), "exec_mode": "cluster", "instances": 1}
    bring(options(pm2_7, apps=[app]))
    (daemon,) = pm2_7.daemon_pids()
    changed = options(pm2_7, apps=[{**app, "env": {"A": "b"}}])
    start = time.monotonic()
    outcome = runner.run("pm2_process", changed, at="beside_started", shell=f"kill -STOP {daemon}")
    os.kill(daemon, signal.SIGCONT)
    assert time.monotonic() - start < 180
    assert outcome.result
    assert outcome.result["failed"]
    assert outcome.result["rolled_back"] is False
    assert "did not answer" in outcome.result["msg"]
    assert "Run again" in outcome.result["msg"]
    assert bring(changed)["recovered"] == "undone"
    (item,) = pm2_7.jlist()
    assert item["pm2_env"]["A"] == "b"


# -- peers that are not daemons----------------------------------------------------------------------------------------


class Peer:
    """Listens like a daemon. `answer` makes the reply to each call, and `sent` has the called methods."""

    def __init__(self, path: str, answer: Callable[[str, bytes], bytes]) -> None:
        self.sent: List[str] = []
        self._answer = answer
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        self._path = path
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._server.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                buffer += data
                while frame := _axon.decode(buffer):
                    arguments, taken = frame
                    del buffer[:taken]
                    method = json.loads(arguments[0][2:])["method"]
                    self.sent.append(method)
                    connection.sendall(self._answer(method, arguments[1]))

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        os.unlink(self._path)


def reply(identifier: bytes, *args: Any, **keys: Any) -> bytes:
    return _axon.encode([b"j:" + json.dumps(keys or {"args": args}).encode(), identifier])


def _says(version: str) -> Callable[[str, bytes], bytes]:
    answers: Dict[str, Any] = {"getVersion": version, "getMonitorData": []}
    return lambda method, identifier: reply(identifier, answers[method])


def test_a_daemon_of_an_unknown_version_is_sent_nothing_more(pm2_7):
    """PM2 4 may understand a call differently, and do anything."""
    for version in ("4.2.1", "8.0.0", "", "latest"):
        with Peer(pm2_7.rpc_socket, _says(version)) as peer:
            refused(options(pm2_7), "says it is version", version, "knows PM2 5, 6, 7")
        assert set(peer.sent) <= {"getVersion", "getMonitorData"}
    assert not pm2_7.daemon_pids()


def test_a_peer_with_invalid_answers_is_a_clear_error(pm2_7, monkeypatch):
    """Other protocols, broken frames, broken JSON, wrong types, silence: no traceback, and no daemon is started."""
    monkeypatch.setattr(_daemon.find, "__defaults__", (0.5,))
    rubbish: List[Callable[[str, bytes], bytes]] = [
        lambda _method, _i: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda _method, _i: b"\x00" * 100,
        lambda _method, i: _axon.encode([b"j:{not json", i]),
        lambda _method, i: _axon.encode([b"j:[1]", i]),
        lambda _method, i: _axon.encode([b"j:\xff\xfe", i]),
        lambda _method, i: _axon.encode([b"j:" + b"[" * 100000, i]),
        lambda _method, i: _axon.encode([b"only one"]),
        lambda _method, i: b"\x12\xff\xff\xff\xff" + i,
        lambda method, i: reply(i, "7.0.4" if method == "getVersion" else {"not": "a list"}),
        lambda method, i: reply(i, "7.0.4" if method == "getVersion" else None),
        lambda method, i: reply(i, "7.0.4") if method == "getVersion" else reply(i, error="boom", stack="at x"),
        lambda _method, i: reply(i, args="7.0.4"),
    ]
    for answer in rubbish:
        with Peer(pm2_7.rpc_socket, answer):
            refused(options(pm2_7))
    assert not pm2_7.daemon_pids()


def test_frames_of_20_megabytes_and_pieces_of_them(pm2_7):
    """A list of many processes with large environments, in pieces of any size."""
    large = [{"name": "ü", "pm2_env": {"A": "x" * 1_000_000}}] * 20
    frames = {identifier: reply(identifier, large) for identifier in (b"s:1", b"s:2")}
    assert len(frames[b"s:1"]) > 20_000_000
    with Peer(pm2_7.rpc_socket, lambda _method, identifier: frames[identifier]) as peer:
        with _axon.Client(pm2_7.rpc_socket, timeout=60) as client:
            first, second = client.send("one"), client.send("two")
            assert client.receive(second, "two") == large
            assert client.receive(first, "one") == large
    assert peer.sent == ["one", "two"]


def test_an_error_of_the_daemon_is_an_exception(pm2):
    """It has the daemon's message, and the daemon survives. Also for a method that the daemon does not know."""
    bring(options(pm2))
    (daemon,) = pm2.daemon_pids()
    with _axon.Client(pm2.rpc_socket) as client:
        assert "getMonitorData" in client.methods()
        for method, args, words in (
            ("deleteProcessId", (4711,), "id unknown"),
            ("restartProcessId", ({"id": 4711},), "id unknown"),
            ("noSuchMethod", (), 'method "noSuchMethod" does not exist'),
        ):
            with pytest.raises(_axon.RemoteError) as caught:
                client.call(method, *args)
            assert words in caught.value.details["rpc_error"]
            assert method in str(caught.value)
        assert client.call("getMonitorData", {})[0]["name"] == "app"
    assert pm2.daemon_pids() == [daemon]


# -- homes and users ---------------------------------------------------------------------------------------------------

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")


@root_only
def test_a_home_of_another_user_is_refused(pm2):
    """Also for root, whose sockets would lock the user out."""
    os.chown(pm2.home, OTHER_USER, OTHER_USER)
    before = tree(pm2.home)
    name = pwd.getpwuid(OTHER_USER).pw_name
    refused(options(pm2), "belongs to " + name, "become_user: " + name)
    saved = call("pm2_save", {"pm2_home": pm2.home, "namespace": "left"})
    assert saved["failed"]
    assert "belongs to " + name in saved["msg"]
    assert tree(pm2.home) == before
    assert not pm2.daemon_pids()


@root_only
def test_a_daemon_of_another_user_is_refused_and_sent_nothing(pm2):
    """It runs in a home of ours that the other user could write to."""
    os.chmod(pm2.home, 0o777)
    script = f"""
import os, socket
os.chdir({pm2.home!r})
os.setgid({OTHER_USER}); os.setuid({OTHER_USER})
server = socket.socket(socket.AF_UNIX)
server.bind("rpc.sock")
server.listen()
print("listens", flush=True)
while True:
    connection, _address = server.accept()
    print("got", len(connection.recv(1000)), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout
            assert daemon.stdout.readline() == "listens\n"
            os.chmod(pm2.home, 0o777)
            before = tree(pm2.home)
            refused(options(pm2), f"(pid {daemon.pid}) belongs to " + pwd.getpwuid(OTHER_USER).pw_name)
            assert tree(pm2.home) == before
            assert [daemon.stdout.readline() for _call in range(2)] == ["got 0\n"] * 2
            assert daemon.poll() is None
        finally:
            daemon.kill()
    assert not pm2.daemon_pids()


def test_a_link_to_a_home_is_that_home(pm2, tmp_path, monkeypatch):
    """Both paths give one daemon and one namespace, and the second call has nothing to do. Both find a deaf daemon."""
    monkeypatch.setattr(_daemon, "SOCKET_GRACE", 0.3)
    link = tmp_path / "link"
    link.symlink_to(pm2.home)
    bring(options(pm2))
    assert bring(options(pm2, pm2_home=str(link)))["changed"] is False
    assert len(pm2.daemon_pids()) == 1
    os.rename(pm2.rpc_socket, pm2.rpc_socket + ".away")
    refused(options(pm2, pm2_home=str(link)), "nothing listens", str(pm2.daemon_pids()[0]))


def test_invalid_homes_are_refused(pm2_7, tmp_path):
    """Too long for a socket, relative, a file, a link to nowhere, a directory that cannot be made."""
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = tree(str(tmp_path))
    for home, words in (
        (str(tmp_path / ("x" * 110)), "too long"),
        (str(tmp_path / "file"), "not a directory"),
        (str(tmp_path / "file" / "below"), "cannot be"),
        (str(tmp_path / "nowhere"), "cannot be made"),
        ("/proc/none/of/these", "cannot be made"),
    ):
        result = call("pm2_process", options(pm2_7, pm2_home=home))
        assert result["failed"], home
        assert words in result["msg"], result["msg"]
        assert NOTHING in result["msg"]
        assert home in result["msg"]
    assert tree(str(tmp_path)) == before


def test_a_program_that_is_not_a_known_pm2_is_refused(pm2_7, tmp_path):
    """Missing, not executable, another program, an old PM2: it is not run, and no home is made."""
    ran = tmp_path / "ran"
    other = tmp_path / "other" / "bin" / "pm2"
    other.parent.mkdir(parents=True)
    other.write_text(f"#!/bin/sh\ntouch {ran}\n")
    other.chmod(0o755)
    old = tmp_path / "old" / "bin" / "pm2"
    shutil.copytree(other.parent, old.parent)
    (tmp_path / "old" / "package.json").write_text('{"name": "pm2", "version": "4.5.6"}')
    plain = tmp_path / "plain"
    plain.write_text("")
    home = tmp_path / "home"
    for executable, words in (
        (str(tmp_path / "missing"), "was not found"),
        (str(plain), "was not found"),
        (str(tmp_path), "was not found"),
        (str(other), "is not a pm2 program"),
        (str(old), "is PM2 4.5.6"),
    ):
        refused(options(pm2_7, pm2_home=str(home), pm2_executable=executable), words, executable)
    assert not ran.exists()
    assert not home.exists()


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pm2", "number"),
    [*((version, signal.SIGTERM) for version in VERSIONS), ("7.0", signal.SIGHUP), ("7.0", signal.SIGINT)],
    indirect=["pm2"],
)
def test_a_signal_undoes_the_change_and_the_message_says_so(pm2, tmp_path, number):
    """The signal comes in the gate of a change of a cluster app and a fork app."""
    worker_app(tmp_path / "1")
    worker_app(tmp_path / "2")

    def apps(release: str) -> List[Dict[str, Any]]:
        app = {"script": "worker.js", "cwd": str(tmp_path / release)}
        return [{**app, "name": "api", "exec_mode": "cluster", "instances": 1}, {**app, "name": "worker"}]

    bring(options(pm2, apps=apps("1")))
    dump, before = pm2.dump.read_bytes(), {item["name"]: item["pid"] for item in pm2.jlist()}
    process = modules.spawn("pm2_process", options(pm2, apps=apps("2"), ready={"min_uptime": 0.1, "log": ["never"]}))
    until(lambda: len([i for i in pm2.jlist() if i["pm2_env"]["pm_cwd"].endswith("/2") and i["pid"]]) == 2, 30)
    process.send_signal(number)
    result = modules.finish(process)
    assert result["failed"]
    assert result["rolled_back"] is True
    assert f"The run was ended by {signal.Signals(number).name}. Everything is as before" in result["msg"]
    items = {item["name"]: item for item in pm2.jlist()}
    assert {name: item["pm2_env"]["pm_cwd"] for name, item in items.items()} == dict.fromkeys(
        ("api", "worker"), str(tmp_path / "1")
    )
    assert items["api"]["pid"] == before["api"]
    assert len(pm2.jlist()) == 2
    assert processes.alive(items["worker"]["pid"])
    assert pm2.dump.read_bytes() == dump
    assert not list(Path(pm2.home, "nodeops").glob("*.journal"))
    assert bring(options(pm2, apps=apps("1")))["changed"] is False


@pytest.mark.parametrize("point", ["before send deleteProcessId", "before send restartProcessId"])
def test_a_signal_during_an_undo_does_not_interrupt_it(pm2_7, runner, tmp_path, point):
    """The old process was stopped for one that crashes. If the undo were interrupted, no process would run."""
    worker_app(tmp_path)
    (tmp_path / "crash.js").write_text("process.exit(3);\n")
    app = {"name": "worker", "script": "worker.js", "cwd": str(tmp_path)}
    bring(options(pm2_7, apps=[app]))
    crashes = options(pm2_7, apps=[{**app, "script": "crash.js"}], ready={"min_uptime": 1})
    result = runner.run("pm2_process", crashes, at=point, shell="kill -TERM $PPID").result
    assert result
    assert result["failed"]
    assert "exited" in result["msg"]
    assert result["rolled_back"] is True
    (item,) = pm2_7.jlist()
    assert item["pm2_env"]["pm_exec_path"].endswith("/worker.js")
    assert processes.alive(item["pid"])
    assert not list(Path(pm2_7.home, "nodeops").glob("*.journal"))
    assert bring(options(pm2_7, apps=[app]))["changed"] is False


def test_a_process_that_stops_slowly_is_waited_for_before_it_starts_again(pm2_7, monkeypatch, tmp_path):
    """PM2 does not start a process that is stopping. Its kill_timeout may be longer than the timeout of a start."""
    (tmp_path / "slow.js").write_text("setInterval(() => {}, 1000);\nprocess.on('SIGINT', () => {});\n")
    app = {"name": "slow", "script": "slow.js", "cwd": str(tmp_path), "kill_timeout": 4000}
    bring(options(pm2_7, apps=[app], ready={"min_uptime": 1}))
    monkeypatch.setattr(_processes, "RESTART_TIMEOUT", 1.0)
    daemon = _daemon.find(pm2_7.home)
    assert daemon
    namespace = _processes.Namespace(daemon, "left")
    (process,) = namespace.read()
    daemon.client.send("stopProcessId", process.pm_id)
    until(lambda: namespace.read()[0].status == "stopping")
    namespace.restart([process])
    (now,) = namespace.read()
    assert (now.running, now.pid == process.pid) == (True, False)


def test_a_signal_after_the_commit_lets_the_run_finish(pm2, runner, tmp_path):
    """The rest takes only a moment and cannot be undone, so the result is that of a run without a signal."""
    worker_app(tmp_path)
    app = {"name": "api", "script": "worker.js", "cwd": str(tmp_path), "exec_mode": "cluster", "instances": 2}
    bring(options(pm2, apps=[app]))
    for value, point in enumerate(("committed", "saved", "retired", "journal_removed")):
        changed = options(pm2, apps=[{**app, "env": {"VALUE": value}}])
        result = runner.run("pm2_process", changed, at=point, shell="kill -TERM $PPID").result
        assert result
        assert not result["failed"], (point, result)
        assert result["changed"]
        assert [item["pm2_env"]["VALUE"] for item in pm2.jlist()] == [str(value)] * 2
        assert bring(changed)["changed"] is False
