"""What new processes have to prove (`ready`), and the message if they do not."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import modules
from support.apps import QUICK, free_port, free_ports
from support.load import get
from support.namespaces import Namespace, home_in, snapshot
from support.pm2 import VERSIONS, Pm2Home

TIMEOUT = 6.0
"""Seconds that a refused app has to start and to answer badly, on a busy machine."""
PATIENCE = 20.0
"""Seconds that a call may take beyond its ready.timeout, because it has to undo the change, on a busy machine."""

APP = """\
const fs = require('fs');
const { env } = process;
const health = () => ({ status: 'ok', workers: 2, version: env.VERSION, instance: env.NODE_APP_INSTANCE });
const answers = {
  '/health': () => [env.BAD_INSTANCE === env.NODE_APP_INSTANCE ? 500 : 200, health()],
  '/teapot': () => [418, {}],
  '/text': () => [200, 'no json'],
  '/moved': () => [302, {}],
};
const server = require(env.KEY ? 'https' : 'http').createServer(
  env.KEY ? { key: fs.readFileSync(env.KEY), cert: fs.readFileSync(env.CERT) } : {},
  (request, response) => {
    if (request.url === '/hangs') return;
    const { authorization } = request.headers;
    const [status, body] = request.url === '/token'
      ? [request.headers['x-token'] === env.TOKEN ? 200 : 401, {}]
      : request.url === '/basic'
        ? [authorization === 'Basic ' + Buffer.from('me:se:cret').toString('base64') ? 200 : 401, {}]
        : answers[request.url]();
    response.writeHead(status, { Connection: 'close' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  },
);
console.log(env.SAYS || 'started');
if (env.CRASH_AFTER) setTimeout(() => { throw new Error('crash of version ' + env.VERSION); }, env.CRASH_AFTER * 1000);
if (env.READY_AFTER) setTimeout(() => process.send('ready'), env.READY_AFTER * 1000);
process.on('SIGINT', () => process.exit(0));
if (env.PORT) setTimeout(() => server.listen(env.PORT, env.HOST || '127.0.0.1'), (env.LISTEN_AFTER || 0) * 1000);
setInterval(() => {}, 1000);
"""


class World:
    """A daemon, a namespace on it, an app with a port."""

    def __init__(self, home: Pm2Home, directory: Path, name: str = "ready") -> None:
        self.home = home
        self.namespace = Namespace(home, name)
        self.directory = directory
        self.port = free_port()
        directory.mkdir(exist_ok=True)
        (directory / "app.js").write_text(APP, encoding="utf-8")

    def url(self, path: str = "/health", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def app(self, env: Dict[str, Any] | None = None, **changes: Any) -> Dict[str, Any]:
        variables = {"PORT": self.port, "VERSION": "1", **(env or {})}
        usual = {"name": "api", "script": "app.js", "cwd": str(self.directory), **QUICK}
        return {**usual, **changes, "env": {key: value for key, value in variables.items() if value is not None}}

    def bring(self, app: Dict[str, Any], **ready: Any) -> Dict[str, Any]:
        return self.namespace.bring([app], ready=ready)

    def refuse(self, app: Dict[str, Any], **ready: Any) -> str:
        """The message of a refusal, after which everything has to be as before."""
        before = snapshot(self.home)
        result = self.namespace.refuse([app], ready={"timeout": TIMEOUT, **ready})
        assert result["rolled_back"] is True
        assert result["failed_process"]["name"] == "api"
        after = snapshot(self.home)
        if app.get("exec_mode") == "cluster":
            assert after == before, "a process was touched"
        else:
            assert [item["unique_id"] for item in after] == [item["unique_id"] for item in before]
            assert [item["status"] for item in after] == [item["status"] for item in before]
        message = str(result["msg"])
        assert "Everything is as before" in message
        return message


@pytest.fixture(scope="module", params=VERSIONS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    with home_in(tmp_path_factory.mktemp("ready"), request.param) as found:
        yield found


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Home]:
    with home_in(tmp_path_factory.mktemp("ready7"), VERSIONS[-1]) as found:
        yield found


@pytest.fixture
def world(home: Pm2Home, tmp_path: Path) -> Iterator[World]:
    """On each version of PM2, for checks that depend on how PM2 runs a process."""
    found = World(home, tmp_path / "app")
    yield found
    found.namespace.remove()


@pytest.fixture
def world_7(newest: Pm2Home, tmp_path: Path) -> Iterator[World]:
    """On the newest only, for checks over a connection."""
    found = World(newest, tmp_path / "app")
    yield found
    found.namespace.remove()


CLUSTER: Dict[str, Any] = {"exec_mode": "cluster", "instances": 2}


@pytest.mark.parametrize("more", [{}, CLUSTER], ids=["fork", "cluster"])
def test_min_uptime(world: World, more: Dict[str, Any]) -> None:
    """A process that lives shorter is refused, with its last output. The same process passes a smaller min_uptime."""
    short_lived = world.app({"CRASH_AFTER": 0.5}, **more)
    message = world.refuse(short_lived, min_uptime=15, timeout=60)
    assert "api (instance" in message
    assert "exited" in message
    result = world.namespace.refuse([short_lived], ready={"min_uptime": 15, "timeout": 60})
    assert "crash of version 1" in "\n".join(result["error_log"])
    world.bring(world.app({"CRASH_AFTER": 60}, **more), min_uptime=0.05)


def test_each_new_worker_has_to_answer(world: World) -> None:
    """One of three new workers answers 500. The old workers and the other two answer 200."""
    three: Dict[str, Any] = {"exec_mode": "cluster", "instances": 3}
    check = {"http": [{"url": world.url()}]}
    world.bring(world.app(**three), **check)
    message = world.refuse(world.app({"VERSION": "2", "BAD_INSTANCE": "2"}, **three), **check)
    assert "answered 500, expected 200" in message
    world.bring(world.app({"VERSION": "2"}, **three), **check)


def test_old_workers_do_not_answer_for_a_new_one_that_does_not_listen(world: World) -> None:
    check = {"http": [{"url": world.url()}], "tcp": [str(world.port)]}
    world.bring(world.app(**CLUSTER), **check)
    silent = world.app({"VERSION": "2", "LISTEN_AFTER": 60}, **CLUSTER)
    for only in ("http", "tcp"):
        message = world.refuse(silent, timeout=5, **{only: check[only]})
        assert f"{only} check" in message
        assert "is answered only by processes that were there before" in message
        assert "within 5 s" in message


def test_workers_that_stay_do_not_answer_for_added_ones(world: World) -> None:
    check = {"http": [{"url": world.url()}]}
    world.bring(world.app(**CLUSTER), **check)
    more = {**CLUSTER, "instances": 4}
    assert "answered 500" in world.refuse(world.app({"BAD_INSTANCE": "3"}, **more), **check)
    # The variable of the bad instance is new in all of them; here only workers are added.
    world.bring(world.app(**CLUSTER), **check)
    before = world.namespace.pids()
    world.bring(world.app(**more), **check)
    assert world.namespace.pids()[:2] == before
    answered = {json.loads(get(world.port, "/health"))["instance"] for _try in range(12)}
    assert answered == {"0", "1", "2", "3"}, "the check passed before all of them listened"


def test_each_fork_process_has_its_own_port(world: World) -> None:
    """A process that stays answers for itself, and so does one that is added (increment_var)."""
    several: Dict[str, Any] = {"exec_mode": "fork", "increment_var": "PORT"}
    world.port = free_ports(2)
    first = {"http": [{"url": world.url()}]}
    world.bring(world.app(**several, instances=1), **first)
    second = {"url": world.url().replace(str(world.port), str(world.port + 1))}
    world.bring(world.app(**several, instances=2), http=[*first["http"], second])
    world.bring(world.app({"VERSION": "2"}, **several, instances=2), http=[*first["http"], second])


def test_an_app_that_serves_from_a_grandchild(world: World) -> None:
    """As with `npm start`, PM2's process is a shell, and node is its child."""
    shell: Dict[str, Any] = {"script": "bash", "args": ["-c", "node app.js; true"]}
    world.bring(world.app(**shell), http=[{"url": world.url()}])
    bad = world.app({"VERSION": "2", "BAD_INSTANCE": "0"}, **shell)
    assert "answered 500" in world.refuse(bad, http=[{"url": world.url()}])


@pytest.mark.parametrize("mode", ["fork", "cluster"])
def test_wait_ready(world: World, mode: str) -> None:
    """PM2 itself says that a process is online after listen_timeout, ready or not."""
    told = {"exec_mode": mode, "wait_ready": True, "listen_timeout": 1500}
    world.bring(world.app({"READY_AFTER": 0.2}, **{**told, "listen_timeout": 15000}))
    before = world.namespace.pids() if mode == "cluster" else []
    result = world.namespace.refuse([world.app({"VERSION": "2"}, **told)])
    assert "did not send 'ready' within its listen_timeout of 1500 ms" in result["msg"]
    assert result["rolled_back"] is True
    assert mode == "fork" or world.namespace.pids() == before


def test_the_log_of_the_new_process(world: World) -> None:
    """Text that old processes wrote to the same file does not count."""
    file = str(world.directory / "out.log")
    logged = {"out_file": file, "merge_logs": True, **CLUSTER}
    pattern = "connected to (queue|stack)"
    world.bring(world.app({"SAYS": "connected to queue"}, **logged), log=[pattern], tcp=[str(world.port)])
    message = world.refuse(world.app({"VERSION": "2", "SAYS": "no queue"}, **logged), log=[pattern])
    assert f"no new process logged '{pattern}' within 6 s" in message
    assert "connected to queue" in Path(file).read_text(encoding="utf-8")
    world.bring(world.app({"VERSION": "3", "SAYS": "connected to stack"}, **logged), log=[pattern])


def test_statuses(world_7: World) -> None:
    url = world_7.url("/teapot")
    assert "answered 418, expected 200" in world_7.refuse(world_7.app(), http=[{"url": url}])
    assert "expected 201 or 204" in world_7.refuse(world_7.app(), http=[{"url": url, "status": [201, 204]}])
    moved = world_7.refuse(world_7.app(), http=[{"url": world_7.url("/moved")}])
    assert "answered 302" in moved, "a redirect is not an answer of the app"
    world_7.bring(world_7.app(), http=[{"url": url, "status": [200, 418]}])


def test_expectations(world_7: World) -> None:
    def check(expression: str, path: str = "/health") -> List[Dict[str, Any]]:
        return [{"url": world_7.url(path), "expect": expression}]

    message = world_7.refuse(world_7.app(), http=check("status == 'ok' && workers > `7`"))
    assert "workers > `7`" in message
    assert '"workers":2' in message, "the answer is not shown"
    assert "did not answer JSON: no json" in world_7.refuse(world_7.app(), http=check("status", "/text"))
    assert "cannot be evaluated on" in world_7.refuse(world_7.app(), http=check("length(workers)"))
    assert "is not true of the answer" in world_7.refuse(world_7.app(), http=check("missing"))
    world_7.bring(world_7.app(), http=check("status == 'ok' && workers > `1`"))


def test_without_jmespath_an_expectation_is_refused_at_once(pm2_7: Pm2Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jmespath", None)
    app = {"name": "api", "script": "/bin/sleep", "args": ["1000"]}
    for check in (False, True):
        checks = {"http": [{"url": "http://127.0.0.1/", "expect": "status == 'ok'"}]}
        result = Namespace(pm2_7, "ready").call([app], ready=checks, check=check)
        assert result["failed"]
        assert "python3-jmespath" in result["msg"]
        assert "Nothing was changed" in result["msg"]
        assert pm2_7.daemon_pids() == []


def test_headers_and_credentials(world_7: World) -> None:
    """They are sent, and no message has them."""
    app = world_7.app({"TOKEN": "tok-5f2c91"})
    check = {"url": world_7.url("/token"), "headers": {"X-Token": "wrong-77aa12"}}
    message = world_7.refuse(app, http=[check])
    assert f"http check http://127.0.0.1:{world_7.port}/token answered 401" in message
    assert "wrong-77aa12" not in message
    world_7.bring(app, http=[{**check, "headers": {"X-Token": "tok-5f2c91"}}])

    basic = world_7.url("/basic", host="me:se%3Acret@127.0.0.1")
    world_7.bring(world_7.app({"VERSION": "2"}), http=[{"url": basic}])
    wrong = world_7.url("/basic?key=q-33b1", host="me:guess-41d0@127.0.0.1")
    message = world_7.refuse(
        world_7.app({"VERSION": "3"}), http=[{"url": wrong.replace("/basic?", "/teapot?")}, {"url": wrong}]
    )
    assert "guess-41d0" not in message
    assert "q-33b1" not in message


def test_time_of_one_request(world_7: World) -> None:
    url = world_7.url("/hangs")
    message = world_7.refuse(world_7.app(), http=[{"url": url, "timeout": 0.3}])
    assert "did not answer within 0.3 s" in message


def test_several_checks_have_to_hold_together(world_7: World) -> None:
    good = {"url": world_7.url()}
    assert "/teapot" in world_7.refuse(world_7.app(), http=[good, {"url": world_7.url("/teapot")}])
    assert "tcp check" in world_7.refuse(world_7.app(), http=[good], tcp=[str(free_port())])
    assert "logged" in world_7.refuse(world_7.app(), http=[good], log=["never said"])


@pytest.mark.parametrize(
    ("ready", "env"),
    [
        pytest.param({"http": [{"url": "http://127.0.0.1:{port}/hangs", "timeout": 60}]}, {}, id="hangs"),
        pytest.param({"http": [{"url": "http://127.0.0.1:{port}/health"}]}, {"LISTEN_AFTER": 60}, id="does not listen"),
        pytest.param({"tcp": ["{port}"]}, {"LISTEN_AFTER": 60}, id="tcp"),
        pytest.param({"log": ["never"]}, {}, id="log"),
        pytest.param({"http": [{"url": "http://127.0.0.1:{port}/teapot"}]}, {}, id="answers badly"),
    ],
)
@pytest.mark.parametrize("more", [{}, CLUSTER], ids=["fork", "cluster"])
def test_the_timeout_is_kept(world_7: World, ready: Dict[str, Any], env: Dict[str, Any], more: Dict[str, Any]) -> None:
    """Also if a request hangs, and if old workers answer well."""
    world_7.bring(world_7.app(**more), tcp=[str(world_7.port)])
    filled = json.loads(json.dumps(ready).replace("{port}", str(world_7.port)))
    started = time.monotonic()
    world_7.refuse(world_7.app({"VERSION": "2", **env}, **more), timeout=1.0, **filled)
    assert 1.0 <= time.monotonic() - started < 1.0 + PATIENCE


def test_a_self_signed_certificate(world_7: World) -> None:
    key, certificate = self_signed(world_7.directory)
    app = world_7.app({"KEY": str(key), "CERT": str(certificate)}, **CLUSTER)
    check = {"url": world_7.url(scheme="https")}
    message = world_7.refuse(app, http=[check])
    assert "certificate verify failed" in message.lower().replace("_", " ")
    assert f"https://127.0.0.1:{world_7.port}/health" in message
    world_7.bring(app, http=[{**check, "validate_certs": False}])


def self_signed(directory: Path) -> List[Path]:
    """The files of a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).add_extension(address, critical=False)
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    files = [directory / "key.pem", directory / "cert.pem"]
    files[0].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[1].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return files


@pytest.mark.parametrize("more", [{}, CLUSTER], ids=["fork", "cluster"])
def test_ipv6(world_7: World, more: Dict[str, Any]) -> None:
    checks = {"tcp": [f"[::1]:{world_7.port}"], "http": [{"url": world_7.url(host="[::1]")}]}
    world_7.bring(world_7.app({"HOST": "::1"}, **more), **checks)
    bad = world_7.app({"HOST": "::1", "VERSION": "2", "BAD_INSTANCE": "0"}, **more)
    message = world_7.refuse(bad, **checks)
    assert f"http check http://[::1]:{world_7.port}/health answered 500" in message


def test_tcp_with_a_host(world_7: World) -> None:
    message = world_7.refuse(world_7.app(), tcp=[f"127.0.0.2:{world_7.port}"])
    assert f"tcp check 127.0.0.2:{world_7.port} cannot be reached (Connection refused)" in message
    world_7.bring(world_7.app(), tcp=[f"localhost:{world_7.port}"])


class Proxy:
    """Forwards connections to a port, as a load balancer in front of the app does."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as upstream:
            threading.Thread(target=self._copy, args=(client, upstream), daemon=True).start()
            self._copy(upstream, client)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_through_a_proxy(world_7: World) -> None:
    """It hides which process answers, so enough good answers in a row are needed to have met each worker."""
    with Proxy(world_7.port) as proxy:
        check = {"http": [{"url": f"http://127.0.0.1:{proxy.port}/health"}]}
        world_7.bring(world_7.app(**CLUSTER), **check)
        world_7.bring(world_7.app({"VERSION": "2"}, **CLUSTER), **check)
        bad = world_7.app({"VERSION": "3", "BAD_INSTANCE": "1"}, **CLUSTER)
        assert "answered 500" in world_7.refuse(bad, **check)


def test_a_message_has_the_check_its_answer_and_the_limit(world_7: World) -> None:
    message = world_7.refuse(world_7.app(), http=[{"url": world_7.url("/teapot")}], timeout=3.5)
    for part in ("http check", world_7.url("/teapot"), "answered 418", "expected 200", "within 3.5 s"):
        assert part in message


def test_max_affected(world_7: World) -> None:
    """It counts processes, a replaced one once. One more than allowed is refused, and the planned actions are named."""
    world_7.bring(world_7.app(**CLUSTER))
    before = snapshot(world_7.home)
    changed = world_7.app({"VERSION": "2"}, **{**CLUSTER, "instances": 3})
    for check in (False, True):
        result = world_7.namespace.call([changed], max_affected=2, check=check)
        assert result["failed"]
        assert "3 processes" in result["msg"]
        assert "max_affected is 2" in result["msg"]
        assert "Nothing was changed" in result["msg"]
        assert [action["action"] for action in result["actions"]] == ["replace", "replace", "start"]
        assert snapshot(world_7.home) == before
    assert world_7.namespace.bring([changed], max_affected=3)["changed"]
    assert not world_7.namespace.bring([changed], max_affected=0)["changed"], "in order: nothing is affected"
    assert world_7.namespace.call(state="absent", max_affected=2)["failed"]


def test_two_calls_on_one_namespace_come_one_after_the_other(world_7: World) -> None:
    ready = {"min_uptime": 1.0, "timeout": 60}
    params = [
        world_7.namespace.params([world_7.app({"VERSION": version}, **CLUSTER)], ready=ready) for version in ("1", "2")
    ]
    world_7.namespace.bring([world_7.app({"VERSION": "0"}, **CLUSTER)])
    started = time.monotonic()
    running = [modules.spawn("pm2_process", each) for each in params]
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, len(world_7.namespace.processes()))
        time.sleep(0.05)
    results = [modules.finish(process) for process in running]
    assert [result["failed"] for result in results] == [False, False]
    assert time.monotonic() - started >= 2 * ready["min_uptime"]
    assert most <= 4, "three generations ran at the same time"
    live = [item["pm2_env"]["VERSION"] for item in world_7.namespace.processes()]
    assert live in (["1", "1"], ["2", "2"])


def test_calls_on_two_namespaces_run_at_the_same_time(world_7: World, tmp_path: Path) -> None:
    other = World(world_7.home, tmp_path / "other", "second")
    try:
        ready = {"min_uptime": 6.0, "timeout": 60}
        running = [
            modules.spawn("pm2_process", each.namespace.params([each.app()], ready=ready)) for each in (world_7, other)
        ]
        journals = Path(world_7.home.home, "nodeops")
        both = False
        while any(process.poll() is None for process in running):
            both = both or len(list(journals.glob("*.journal"))) == 2
            time.sleep(0.02)
        assert [modules.finish(process)["failed"] for process in running] == [False, False]
        assert both, "one call waited for the other"
    finally:
        other.namespace.remove()
