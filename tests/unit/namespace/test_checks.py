"""The checks of `ready`: which are valid, what an attempt reports, and when enough processes have answered."""

from __future__ import annotations

import http.server
import os
import re
import socket
import threading
import time
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Sequence, Set, Tuple
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _sock_diag, _sockets
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _handover
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import HttpCheck, Ready, TcpCheck

READY: Dict[str, Any] = {"timeout": 30.0, "min_uptime": 2.0}
NO_PIDS = _checks.Pids(set(), set(), set())


def parse(**ready: Any) -> Ready:
    return _checks.parse({**READY, **ready})


def test_defaults() -> None:
    assert parse(http=None, tcp=None, log=None) == Ready(30.0, 2.0, [], [])
    (check,) = parse(http=[{"url": "http://h/", "headers": None, "status": None, "expect": None}]).connections
    assert check == HttpCheck("http://h/", (200,), None, {}, 5.0, True)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("3000", "127.0.0.1", 3000),
        (3000, "127.0.0.1", 3000),
        ("db:5432", "db", 5432),
        ("[::1]:80", "::1", 80),
        ("10.0.0.1:1", "10.0.0.1", 1),
    ],
)
def test_ports(text: object, host: str, port: int) -> None:
    assert parse(tcp=[text]).connections == [TcpCheck(host, port)]


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "http", "db:", "db:http", "80.5", None])
def test_invalid_ports(text: object) -> None:
    with pytest.raises(NodeopsError, match=r"ready\.tcp .* Nothing was changed"):
        parse(tcp=[text])


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("http://h:3000/a/b?key=secret#part", "http check http://h:3000/a/b"),
        ("https://me:secret@h", "http check https://h/"),
        ("http://[::1]:80/", "http check http://[::1]:80/"),
        ("http://me:pass@word@h/x", "http check http://h/x"),
    ],
)
def test_the_name_of_a_check_has_no_secret(url: str, label: str) -> None:
    (check,) = parse(http=[{"url": url}]).connections
    assert check.label() == label


CANARY = "canary-5d1c77"


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://u:{password}@h/" for password in (f"p/{CANARY}", f"{CANARY} x", f"p#{CANARY}", f"[{CANARY}")),
        f"http://u:{CANARY}@h:99999/",
        f"http://u:{CANARY}@h:x/",
        f"http://u:p@{CANARY}@h:0/",
        f"postgres://u:{CANARY}@h/",
        f"u:{CANARY}@h/",
        f" http://u:{CANARY}@h/",
    ],
)
def test_a_refused_url_shows_no_password(url: str) -> None:
    with pytest.raises(NodeopsError, match=r"ready\.http url .* Nothing was changed") as raised:
        parse(http=[{"url": url}])
    assert CANARY not in str(raised.value)
    redactor = Redactor()
    _checks.hide({"http": [{"url": url}]}, redactor)
    assert CANARY not in redactor.text(f"asked {url}") or "://" not in url


@pytest.mark.parametrize("place", [f"u:{CANARY}@h:5432", f"postgres://u:{CANARY}/x@h:5432", f"redis://:{CANARY}@h/0"])
def test_a_refused_host_shows_no_password(place: str) -> None:
    with pytest.raises(NodeopsError, match=r"ready\.tcp .* Nothing was changed") as raised:
        parse(tcp=[place])
    assert CANARY not in str(raised.value)


def test_a_url_that_may_have_a_password_in_its_path_is_not_shown() -> None:
    (check,) = parse(http=[{"url": f"http://u:12/{CANARY}@h/"}]).connections
    assert check.label() == "http check http://..."


def test_the_ports_of_all_checks() -> None:
    ready = parse(http=[{"url": "http://h/"}, {"url": "https://h/"}, {"url": "http://h:3000/"}], tcp=["4000"])
    assert ready.ports() == {80, 443, 3000, 4000}


def test_patterns_are_looked_for_in_all_texts() -> None:
    patterns = [re.compile("listening on \\d+"), re.compile("queue")]
    assert _checks.matches(patterns, ["a\nlistening on 3000\n", "b"]) == ["queue"]
    assert _checks.matches(patterns, []) == ["listening on \\d+", "queue"]
    assert _checks.matches([], []) == []


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/broken":
            self.wfile.write(b"no http at all\r\n\r\n")
            return
        body = b'{"status": "ok"}'
        self.send_response(500 if self.path == "/500" else 200)
        self.send_header("Content-Length", "999" if self.path == "/cut" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server in this process."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/", None),
        ("/500", 'answered 500, expected 200: {"status": "ok"}'),
        ("/broken", "broke off"),
        ("/cut", "broke off"),
    ],
)
def test_an_attempt(port: int, path: str, problem: Optional[str]) -> None:
    """Also which process answers: this one holds the connection."""
    (check,) = parse(http=[{"url": f"http://127.0.0.1:{port}{path}"}]).connections
    answer = _checks.attempt(check, _checks.Pids({os.getpid()}, set(), set()))
    assert answer.owner == os.getpid()
    assert answer.problem == problem or (problem and str(answer.problem).startswith(problem))


def test_a_process_that_is_to_be_replaced_is_not_asked(port: int) -> None:
    (check,) = parse(http=[{"url": f"http://127.0.0.1:{port}/500"}]).connections
    answer = _checks.attempt(check, _checks.Pids(set(), {os.getpid()}, set()))
    assert answer == ("is answered only by processes that were there before", os.getpid())


def test_no_process_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        check = TcpCheck("127.0.0.1", unused.getsockname()[1])
        assert _checks.attempt(check, NO_PIDS) == ("cannot be reached (Connection refused)", None)


@pytest.fixture(params=["asked by netlink", "read from /proc"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to look up sockets. If one fails, the other must not hide that."""

    def refused(*_args: object) -> NoReturn:
        raise PermissionError("not here")

    if request.param == "read from /proc":
        monkeypatch.setattr(_sock_diag, "_ask", refused)
    else:
        monkeypatch.setattr(_sockets, "_accepted_in_proc", refused)
        monkeypatch.setattr(_sockets, "_listening_in_proc", refused)
    return str(request.param)


@pytest.mark.parametrize(
    ("family", "at", "to"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_the_other_end_of_a_connection(kernel: str, family: socket.AddressFamily, at: str, to: str) -> None:
    """No process has it before it is accepted. Also for IPv4 on a socket for both versions."""
    with socket.create_server((at, 0), family=family, dualstack_ipv6=at == "::") as server:
        port = server.getsockname()[1]
        assert (_sockets._ANY.get(at or "0.0.0.0", at), port) in _sockets.listening(os.getpid())
        with socket.create_connection((to, port)) as client:
            assert _sockets.accepted_inode(client) == 0
            accepted, _address = server.accept()
            with accepted:
                assert _sockets.accepted_inode(client) == os.fstat(accepted.fileno()).st_ino
                assert _sockets.holder(os.fstat(accepted.fileno()).st_ino, [1, os.getpid()]) == os.getpid()


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_connection_that_is_reset_before_it_is_taken_is_a_failed_check(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process, or the daemon that listens for its workers, died at that moment."""
    really, servers = _sockets.accepted_inode, [socket.create_server(("127.0.0.1", 0)) for _number in range(2)]

    def reset(connection: socket.socket) -> Optional[int]:
        servers.pop().close()
        return really(connection)

    monkeypatch.setattr(_sockets, "accepted_inode", reset)
    port = servers[-1].getsockname()[1]
    (check,) = parse(**{kind: [{"url": f"http://127.0.0.1:{port}/"} if kind == "http" else port]}).connections
    assert str(_checks.attempt(check, NO_PIDS).problem).startswith("broke off (")
    assert _handover.takers(servers[-1].getsockname(), {1}) == {None}


def test_the_other_end_is_on_another_host() -> None:
    """A socket that claims another address stands in for it: no other host answers here."""
    far = mock.Mock(family=socket.AF_INET)
    far.getsockname.return_value, far.getpeername.return_value = ("192.0.2.1", 40000), ("198.51.100.1", 80)
    assert _sockets.accepted_inode(far) is None


def test_the_listener_is_not_taken_for_a_connection_that_is_not_there(port: int) -> None:
    """The listener is the first socket that the kernel finds for the address."""
    with pytest.raises(FileNotFoundError, match=f"no connection from 127.0.0.1:{port} to 127.0.0.1:1"):
        _sock_diag.connection(socket.AF_INET, ("127.0.0.1", port), ("127.0.0.1", 1))


def test_the_processes_that_listen_and_that_take_a_connection(port: int) -> None:
    assert ("127.0.0.1", port) in _sockets.listening(os.getpid())
    endpoint = _handover.Endpoint("127.0.0.1", port)
    assert _handover.takers(endpoint, {os.getpid()}) == {os.getpid()}
    assert _handover.takers(endpoint, {1}) == {None}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert ("::1", server.getsockname()[1]) in _sockets.listening(os.getpid())


NEW, OLD, OTHER = {1, 2, 3}, {11, 12}, {21}
PIDS = _checks.Pids(NEW, OLD, OTHER)
GOOD = None


def run(
    monkeypatch: pytest.MonkeyPatch, answers: Sequence[Tuple[Optional[str], Optional[int]]], pids: Any = PIDS
) -> Any:
    """One round with these answers, of which the last repeats. Returns the progress, and whether that was enough."""
    left = list(answers)

    def attempt(_check: object, _pids: object) -> _checks.Answer:
        return _checks.Answer(*(left.pop(0) if len(left) > 1 else left[0]))

    monkeypatch.setattr(_checks, "attempt", attempt)
    progress = _checks.Progress(TcpCheck("h", 1))
    return progress, progress.round(pids, lambda _pid: set(pids.candidates), time.monotonic() + 5)


def test_every_new_process_has_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [(GOOD, 1), (GOOD, 2), ("old", 11), (GOOD, 3)])[1] is True
    progress, done = run(monkeypatch, [(GOOD, 1), (GOOD, 2), (GOOD, 1)])
    assert done is False
    assert progress.problem == "was answered by 2 of 3 new processes"


def test_answers_of_old_processes_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, done = run(monkeypatch, [("only old ones", 11)])
    assert (done, progress.problem) == (False, "only old ones")


def test_a_bad_answer_starts_the_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, done = run(monkeypatch, [(GOOD, 1), (GOOD, 2), ("answered 500", 3)])
    assert (done, progress.problem) == (False, "answered 500")
    monkeypatch.setattr(_checks, "attempt", lambda _check, _pids: _checks.Answer(GOOD, 3))
    assert progress.round(PIDS, lambda _pid: set(NEW), time.monotonic() + 5) is False, "1 and 2 have to answer again"


def test_a_restarted_process_has_to_answer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, _done = run(monkeypatch, [(GOOD, 1), (GOOD, 2), (GOOD, 2)])
    later = _checks.Pids({1, 2, 4}, OLD, OTHER)
    monkeypatch.setattr(_checks, "attempt", lambda _check, _pids: _checks.Answer(GOOD, 4))
    assert progress.round(later, lambda _pid: {1, 2, 4}, time.monotonic() + 5) is True


def test_an_unknown_answerer_needs_enough_answers_to_have_met_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [(GOOD, None)])[1] is True
    bad_in_between = [*[(GOOD, None)] * 10, ("answered 500", None)]
    assert run(monkeypatch, bad_in_between)[1] is False
    alone: Set[int] = {1}
    assert run(monkeypatch, [(GOOD, None), ("not asked", None)], _checks.Pids(alone, set(), set()))[1] is True


def test_a_round_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: List[float] = []

    def attempt(check: TcpCheck, _pids: object) -> _checks.Answer:
        asked.append(check.timeout)
        time.sleep(0.05)
        return _checks.Answer(GOOD, 1)

    monkeypatch.setattr(_checks, "attempt", attempt)
    progress = _checks.Progress(TcpCheck("h", 1))
    assert progress.round(PIDS, lambda _pid: set(NEW), time.monotonic() + 0.12) is False
    assert 1 <= len(asked) <= 3
    assert max(asked) <= 0.12, "a request may take longer than what is left"
