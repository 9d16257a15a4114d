"""A git repository with a work tree, a git server with a password, and a look at the command lines of all processes."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List, Optional, Set

from support import processes

IDENTITY = {
    **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "PATH": os.environ["PATH"],
}


class Repository:
    """A repository to deploy from, with a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        done = subprocess.run(command, cwd=self.path, env=IDENTITY, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit files (a name's __ stands for a dot) and return the commit."""
        for name, content in files.items():
            (self.path / name.replace("__", ".")).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")


class GitServer(http.server.ThreadingHTTPServer):
    """`git http-backend` behind a password."""

    daemon_threads = True

    def __init__(self, root: Path, userinfo: Optional[str]) -> None:
        super().__init__(("127.0.0.1", 0), GitHandler)
        self.root = root
        self.wanted = userinfo and "Basic " + base64.b64encode(userinfo.encode()).decode()
        self.given: List[Optional[str]] = []
        self.pause = 0.0
        self.redirect: Optional[str] = None
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name: str, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_address[1]}/{name}"


class GitHandler(http.server.BaseHTTPRequestHandler):
    server: GitServer

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.server.given.append(given)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.pause)
        if self.server.wanted and given != self.server.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _mark, query = self.path.partition("?")
        environment = {
            **IDENTITY,
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _gap, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serving(root: Path, userinfo: Optional[str]) -> Iterator[GitServer]:
    server = GitServer(root, userinfo)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Watcher:
    """Reads the command lines of all processes, over and over."""

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause

    def __enter__(self) -> Watcher:
        self.seen: Set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(self._pause):
            self.seen.update(processes.cmdline(pid) for pid in processes.all_pids())

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()
