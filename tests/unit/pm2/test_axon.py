"""Frames of PM2's RPC, and the client with every kind of peer."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _axon
from hypothesis import given
from hypothesis import strategies as st

ARGUMENTS = st.lists(st.binary(max_size=300), max_size=15)


@given(ARGUMENTS, st.binary(max_size=20))
def test_a_frame_is_read_as_written_and_takes_no_byte_of_the_next(arguments: List[bytes], rest: bytes) -> None:
    frame = _axon.encode(arguments)
    assert _axon.decode(frame + rest) == (arguments, len(frame))


@given(ARGUMENTS, st.data())
def test_a_part_of_a_frame_is_not_a_frame(arguments: List[bytes], data: st.DataObject) -> None:
    frame = _axon.encode(arguments)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert _axon.decode(frame[:cut]) is None


def test_a_frame_as_pm2_writes_it() -> None:
    """The first byte has version 1 and two arguments. Each argument follows its length in four bytes, big-endian."""
    assert _axon.encode([b"j:{}", b"s:1"]) == b"\x12\x00\x00\x00\x04j:{}\x00\x00\x00\x03s:1"


@pytest.mark.parametrize("first", [b"\x00", b"\x22", b"H", b"\xff"])
def test_another_protocol_is_detected_at_its_first_byte(first: bytes) -> None:
    with pytest.raises(_axon.AxonError, match=f"0x{first.hex()}"):
        _axon.decode(first + b"TTP/1.1 200 OK")


Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(path: Path, answer: Answer) -> Iterator[_axon.Client]:
    """A client of a listener that runs `answer` on its first connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with _axon.Client(str(path), timeout=5) as client:
            yield client
        thread.join(5)


def reply(identifier: str, body: object) -> bytes:
    return _axon.encode([b"j:" + json.dumps(body).encode(), b"s:" + identifier.encode()])


def say(data: bytes) -> Answer:
    """Make an `answer` that takes a request and sends these bytes."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return answer


def test_a_call_and_its_answer(tmp_path: Path) -> None:
    asked: List[bytes] = []

    def answer(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(reply("1", {"args": ["7.0.4"]}))

    with peer(tmp_path / "s", answer) as client:
        assert client.call("getVersion", {}) == "7.0.4"
        assert client.peer.pid == os.getpid()
    arguments, _size = _axon.decode(asked[0]) or ([], 0)
    assert json.loads(arguments[0][2:]) == {"type": "call", "method": "getVersion", "args": [{}]}
    assert arguments[1] == b"s:1"


def test_answers_may_come_in_another_order_and_in_pieces(tmp_path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        asked = b""
        while b"s:2" not in asked:
            asked += connection.recv(65536)
        for byte in reply("2", {"args": ["second"]}) + reply("1", {"args": ["first"]}):
            connection.send(bytes([byte]))

    with peer(tmp_path / "s", answer) as client:
        first, second = client.send("a"), client.send("b")
        assert client.receive(first, "a") == "first"
        assert client.arrived(second)
        assert client.receive(second, "b") == "second"
        assert not client.arrived(second), "an answer is taken once"


def test_an_answer_of_many_megabytes(tmp_path: Path) -> None:
    text = "ä" * (4 << 20)
    with peer(tmp_path / "s", say(reply("1", {"args": [text]}))) as client:
        assert client.call("getMonitorData") == text


def test_an_error_of_the_daemon(tmp_path: Path) -> None:
    body = {"error": "id unknown", "stack": "at God"}
    with (
        peer(tmp_path / "s", say(reply("1", body))) as client,
        pytest.raises(_axon.RemoteError, match=r"refused 'stopProcessId': id unknown") as caught,
    ):
        client.call("stopProcessId", 9)
    assert caught.value.details == {"rpc_error": "id unknown"}


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with (
        peer(tmp_path / "s", lambda connection: time.sleep(3)) as client,
        pytest.raises(_axon.RpcTimeout, match=rf"pid {os.getpid()}\) did not answer 'ping' within 0\.1 s"),
    ):
        client.call("ping", timeout=0.1)


@pytest.mark.timeout(60)
def test_the_timeout_may_have_started_before(tmp_path: Path) -> None:
    """With a timeout that is over, answers that have arrived are still taken, and the client waits for no other."""

    def answer_the_first(connection: socket.socket) -> None:
        connection.sendall(reply("1", {"args": ["first"]}))
        while connection.recv(65536):
            pass

    with peer(tmp_path / "s", answer_the_first) as client:
        first, second = client.send("a"), client.send("b")
        while not client.arrived(first):
            client.collect()
        since = time.monotonic() - 3600
        assert client.receive(first, "a", 3600, since) == "first"
        with pytest.raises(_axon.RpcTimeout, match="did not answer 'b' within 3600 s"):
            client.receive(second, "b", 3600, since)


def test_a_daemon_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    with (
        peer(tmp_path / "s", say(reply("1", {"args": [1]})[:9])) as client,
        pytest.raises(_axon.AxonError, match="closed the connection before it answered"),
    ):
        client.call("ping")


def test_collecting_answers_does_not_wait(tmp_path: Path) -> None:
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        release.wait(5)
        connection.sendall(reply("1", {"args": [1]}))
        time.sleep(0.2)

    with peer(tmp_path / "s", answer) as client:
        request = client.send("prepare", {})
        client.collect()
        assert not client.arrived(request)
        release.set()
        assert client.receive(request, "prepare") == 1


def test_a_value_without_json_is_never_sent(tmp_path: Path) -> None:
    """NaN would be written as a word that the daemon's JSON parser refuses."""
    with peer(tmp_path / "s", lambda connection: None) as client, pytest.raises(ValueError, match="JSON"):
        client.send("prepare", {"instances": float("nan")})
