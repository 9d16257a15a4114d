# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An archive at a URL, from a real server with good and bad answers."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import os
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _download, _fetch, _workspace

CANARY = "canary-51ce0b"
QUERY = "X-Signature=" + CANARY
BASIC = "Basic " + base64.b64encode(f"us@er:{CANARY}".encode()).decode()


def content() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("a")
        data = os.urandom(300_000)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


CONTENT = content()
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((path, self.headers.get("Authorization")))
        if path == "/private" and self.headers.get("Authorization") != BASIC:
            self.answer(401, b"no")
        elif path.startswith("/to/"):
            code, _slash, target = path[4:].partition("/")
            self.send_response(int(code))
            self.send_header("Location", self.server.targets[target])
            self.end_headers()
        elif path == "/cut":
            self.answer(200, CONTENT[:1000], len(CONTENT))
        elif path == "/huge":
            self.answer(200, b"", 1 << 60)
        elif path == "/stall":
            self.answer(200, CONTENT[:1000], len(CONTENT))
            self.wfile.flush()
            self.server.released.wait(20)
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))
        elif path in ("/a.tgz", "/private"):
            self.answer(200, CONTENT)
        else:
            self.answer(int(path[1:]) if path[1:].isdigit() else 404, b"")

    def answer(self, code: int, body: bytes, length: Optional[int] = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: Optional[ssl.SSLContext] = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: List[Tuple[str, Optional[str]]] = []
        self.targets: Dict[str, str] = {}
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str, userinfo: str = "", scheme: str = "http") -> str:
        return f"{scheme}://{userinfo}127.0.0.1:{self.server_address[1]}{path}"

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "app" / ".nodeops"
    path.mkdir(parents=True, mode=0o700)
    return path


def fetch(private: Path, url: str, sha256: str = SHA, timeout: float = 5) -> List[str]:
    """The content of the release. Nothing may be left in the private directory."""
    source = _fetch.source_of({"type": "archive", "address": url, "sha256": sha256, "timeout": timeout})
    look = _fetch.inspect(source, str(private), False, Redactor())
    assert look == _fetch.Inspection(sha256, False)  # the server is not asked for a known SHA-256
    assert _fetch.read_file(source, look, str(private), "a") is None
    dest = private.parent / "release"
    dest.mkdir()
    try:
        _fetch.fetch(source, look, str(private), str(dest), Redactor())
    finally:
        assert os.listdir(private) == ["source.lock"]
        left = os.listdir(dest)
    return left


def test_a_download(server: Server, private: Path) -> None:
    assert fetch(private, server.url("/a.tgz")) == ["a"]
    assert server.asked == [("/a.tgz", None)]


def test_chunks(server: Server, private: Path) -> None:
    assert fetch(private, server.url("/chunked")) == ["a"]


def test_credentials_of_the_url_are_used(server: Server, private: Path) -> None:
    assert fetch(private, server.url("/private", f"us%40er:{CANARY}@")) == ["a"]
    assert server.asked == [("/private", BASIC)]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_credentials_stay_with_their_origin(
    server: Server, private: Path, code: int
) -> None:
    other = Server()
    try:
        server.targets = {"same": "/to/%d/other" % code, "other": other.url("/a.tgz", "x:y@") + "?" + QUERY}
        assert fetch(private, server.url("/to/%d/same" % code, f"us%40er:{CANARY}@")) == ["a"]
        assert [authorization for _path, authorization in server.asked] == [BASIC, BASIC]
        assert other.asked == [("/a.tgz", None)]
    finally:
        other.stop()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", f"data:text/plain,{CANARY}"])
def test_only_redirects_to_http_and_https_are_followed(server: Server, private: Path, target: str) -> None:
    server.targets = {"x": target}
    with pytest.raises(NodeopsError, match="which is not followed"):
        fetch(private, server.url("/to/302/x"))


def test_redirects_in_a_circle_end(server: Server, private: Path) -> None:
    server.targets = {"x": "/to/302/x?" + QUERY}
    with pytest.raises(NodeopsError, match="it answered 302") as raised:
        fetch(private, server.url("/to/302/x"))
    assert CANARY not in str(raised.value)


ANSWERS = {
    "/404": "answered 404 Not Found",
    "/403": "answered 403 Forbidden",
    "/private": "name or password in the URL is wrong",
    "/500": "answered 500",
    "/cut": r"broke off after \d+ of \d+ bytes",
    "/huge": "is full",
}


@pytest.mark.parametrize(("path", "message"), ANSWERS.items(), ids=ANSWERS)
def test_bad_answers(server: Server, private: Path, path: str, message: str) -> None:
    with pytest.raises(NodeopsError, match=message) as raised:
        fetch(private, server.url(path, f"wrong:{CANARY}@") + "?" + QUERY)
    assert CANARY not in str(raised.value)
    assert os.listdir(private.parent / "release") == []


def test_a_server_that_stops_sending_is_given_up(server: Server, private: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(NodeopsError, match=r"sent nothing for 0\.3 s"):
        fetch(private, server.url("/stall"), timeout=0.3)
    assert time.monotonic() - begun < 60


def test_content_with_another_sha256_is_refused(server: Server, private: Path) -> None:
    with pytest.raises(NodeopsError, match=f"has the SHA-256 {SHA}, not 0000"):
        fetch(private, server.url("/a.tgz"), "0" * 64)
    assert os.listdir(private.parent / "release") == []


def test_a_server_that_is_down(private: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = "http://u:%s@127.0.0.1:%d/x?%s" % (CANARY, unused.getsockname()[1], QUERY)
        with pytest.raises(NodeopsError, match=r"could not be reached \(Connection refused\)") as raised:
            fetch(private, url)
    assert CANARY not in str(raised.value)


def test_a_host_that_does_not_exist(private: Path) -> None:
    with pytest.raises(NodeopsError, match="names a host that cannot be found"):
        fetch(private, "http://nodeops.invalid/x")


def test_a_certificate_that_is_not_trusted_is_refused(private: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(context)
    try:
        with pytest.raises(NodeopsError, match=r"certificate that is not trusted \(self-signed"):
            fetch(private, server.url("/a.tgz", scheme="https"))
    finally:
        server.stop()


def test_a_full_disk_while_it_is_written(server: Server, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is always full takes the place of the file."""
    real = os.open

    def full(path: Any, flags: int, *mode: int, **more: Any) -> int:
        writes = str(path).endswith("/archive") and flags & os.O_WRONLY
        return real("/dev/full", os.O_WRONLY) if writes else real(path, flags, *mode, **more)

    monkeypatch.setattr(_download.os, "open", full)  # type: ignore[attr-defined]
    with pytest.raises(NodeopsError, match=r"is full\. The source was not fetched"):
        fetch(private, server.url("/a.tgz"))


def test_a_stalled_download_leaves_no_credentials_behind(server: Server, private: Path) -> None:
    with _workspace.workspace(str(private), False) as place:
        with pytest.raises(NodeopsError):
            _download.download(server.url("/cut", f"u:{CANARY}@"), os.path.join(place.directory, "x"), 5)
        assert CANARY.encode() not in b"".join(path.read_bytes() for path in Path(place.directory).iterdir())
