"""Tests of tests/support: the load misses no failure, and no process escapes its end."""

from __future__ import annotations

import http.server
import subprocess
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest
from support import apps, load, modules, processes


class _EveryThirdFails(http.server.BaseHTTPRequestHandler):
    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        self.send_response(500 if self.count % 3 == 0 else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"o" if self.path == "/cut" else b"ok")

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    _EveryThirdFails.count = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", apps.free_port()), _EveryThirdFails) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_load_counts_every_failure(port: int) -> None:
    with load.Load(port, clients=1) as running:
        while running.ok < 10:
            time.sleep(0.01)
    total = running.ok + running.failed
    assert running.failed == total // 3 > 3
    assert set(running.errors) == {"ValueError: status 500"}


def test_load_counts_a_cut_answer_and_a_refused_connection(port: int) -> None:
    with pytest.raises(ValueError, match="cut body"):
        load.get(port, "/cut")
    with pytest.raises(ConnectionRefusedError):
        load.get(apps.free_port())


def test_load_knows_the_longest_gap(port: int) -> None:
    running = load.Load(port, clients=1).start()
    running.port = apps.free_port()
    time.sleep(0.5)
    running.port = port
    time.sleep(0.2)
    assert 0.4 < running.stop().gap < 60


def test_load_without_any_answer_is_an_error() -> None:
    with pytest.raises(AssertionError, match="ConnectionRefusedError"):
        load.Load(apps.free_port(), timeout=1).start()


@pytest.mark.parametrize(
    ("env", "cwd"),
    [({"PM2_HOME": "{dir}/home"}, None), ({}, "{dir}"), ({"PATH": "/usr/bin:/bin"}, None)],
    ids=["by its PM2_HOME", "by its working directory", "by its command line"],
)
def test_processes_of_a_directory_are_found_and_ended_with_their_children(tmp_path: Path, env, cwd) -> None:
    script = tmp_path / "script.sh"
    script.write_text("sleep 100 & setsid sleep 100 & echo ready; wait\n", encoding="utf-8")
    argument = str(script) if not (env.get("PM2_HOME") or cwd) else script.read_text(encoding="utf-8")
    started = subprocess.Popen(
        ["/bin/sh", *([] if argument == str(script) else ["-c"]), argument],
        env={key: value.format(dir=tmp_path) for key, value in env.items()} or None,
        cwd=cwd and cwd.format(dir=tmp_path),
        stdout=subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        started.stdout.readline()
        children = processes.descendants(started.pid)
        assert len(children) == 2
        assert started.pid in {found.pid for found in processes.belonging_to(tmp_path)}
        assert processes.end_all_of(tmp_path) == []
    finally:
        processes.end([started.pid])
        started.communicate()
    deadline = time.monotonic() + 60
    while any(processes.alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in children if processes.alive(pid)]


def test_another_directory_with_the_same_beginning_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"], env={"PM2_HOME": f"{tmp_path}-other"}) as started:
        assert processes.belonging_to(tmp_path) == []
        assert processes.end_all_of(tmp_path) == []
        assert started.poll() is None
        started.kill()


def test_a_second_call_at_the_same_time_is_refused() -> None:
    with modules._one_at_a_time, pytest.raises(RuntimeError, match="call_process"):
        modules.call("pm2_info", {})
