# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The checks of ``ready``: one attempt of each, against the process that holds our connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Sequence, Set, Tuple, Union
from urllib.parse import urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils import _sockets
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error

BODY_LIMIT = 1 << 20
HANDOVER = 0.25  # seconds a connection may take to be accepted, and a daemon to hand it to a worker


class HttpCheck(NamedTuple):
    """``timeout`` in seconds for one request; ``expect`` is a compiled JMESPath expression."""

    url: str
    status: Tuple[int, ...]
    expect: Optional[Any]
    headers: Dict[str, str]
    timeout: float
    validate_certs: bool

    def label(self) -> str:
        parts = urlsplit(self.url)
        return "http check %s://%s:%s%s" % (parts.scheme, parts.hostname, parts.port or "", parts.path or "/")


class TcpCheck(NamedTuple):
    host: str
    port: int
    timeout: float = 5.0

    def label(self) -> str:
        return "tcp check %s:%d" % (self.host, self.port)


Check = Union[HttpCheck, TcpCheck]


class Ready(NamedTuple):
    """What has to hold before a change is committed. Times in seconds."""

    timeout: float
    min_uptime: float
    connections: List[Check]
    log: List[Pattern[str]]


def parse(ready: Dict[str, Any]) -> Ready:
    """The module's ``ready`` option, validated. Raises Pm2Error naming the value that is wrong."""
    for name in ("timeout", "min_uptime"):
        if ready[name] < 0 or ready[name] != ready[name]:
            raise Pm2Error(
                "ready.%s must be a number of seconds >= 0, not %r. Nothing was changed." % (name, ready[name])
            )
    if ready["min_uptime"] > ready["timeout"]:
        raise Pm2Error(
            "ready.min_uptime (%g s) is longer than ready.timeout (%g s): no process could pass. Nothing was changed."
            % (ready["min_uptime"], ready["timeout"])
        )
    connections: List[Check] = [_http_check(item) for item in ready.get("http") or []]
    connections += [_tcp_check(item) for item in ready.get("tcp") or []]
    patterns = []
    for text in ready.get("log") or []:
        try:
            patterns.append(re.compile(text))
        except re.error as error:
            raise Pm2Error("ready.log %r is no regular expression: %s. Nothing was changed." % (text, error)) from error
    return Ready(ready["timeout"], ready["min_uptime"], connections, patterns)


def _http_check(item: Dict[str, Any]) -> HttpCheck:
    url = item["url"]
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or 0 < parts.port < 65536)
    except ValueError:
        valid = False
    if not valid or any(ord(char) <= 32 for char in url):
        raise Pm2Error("ready.http url %r is no http(s) URL. Nothing was changed." % url)
    status = tuple(item.get("status") or (200,))
    if not all(100 <= code <= 599 for code in status):
        raise Pm2Error("ready.http status %r: a status is 100 to 599. Nothing was changed." % (list(status),))
    return HttpCheck(
        url,
        status,
        _compile_expectation(item.get("expect")),
        {str(key): str(value) for key, value in (item.get("headers") or {}).items()},
        item.get("timeout") or 5.0,
        item.get("validate_certs", True),
    )


def _compile_expectation(expression: Optional[str]) -> Any:
    if not expression:
        return None
    try:
        import jmespath
    except ImportError:
        raise Pm2Error(
            "ready.http expect %r needs the Python package jmespath on the target (Debian: python3-jmespath). Nothing "
            "was changed." % expression
        ) from None
    try:
        return jmespath.compile(expression)
    except Exception as error:
        raise Pm2Error(
            "ready.http expect %r is no JMESPath expression: %s. Nothing was changed." % (expression, error)
        ) from error


def _tcp_check(item: Any) -> TcpCheck:
    host, _colon, port = str(item).rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Pm2Error("ready.tcp %r is neither a port nor host:port. Nothing was changed." % (item,))
    return TcpCheck(host.strip("[]") or "127.0.0.1", int(port))


class Pids(NamedTuple):
    """Root pids of the processes a connection may land on."""

    candidates: Set[int]
    retiring: Set[int]
    kept: Set[int]

    def known(self) -> Set[int]:
        return self.candidates | self.retiring | self.kept


class Answer(NamedTuple):
    """One attempt: ``problem`` is None when it was good; ``owner`` is the root pid asked, None when not known."""

    problem: Optional[str]
    owner: Optional[int]


def attempt(check: Check, pids: Pids) -> Answer:
    """Connect, see which process took the connection, and ask it, unless it is one that is being retired."""
    connect, ask = _http(check) if isinstance(check, HttpCheck) else _tcp(check)
    try:
        connection = connect()
    except OSError as error:
        return Answer("cannot be reached (%s)" % _why(error), None)
    with contextlib.closing(connection):
        owner = _owner(connection, pids)
        if owner in pids.retiring:
            return Answer("is answered only by the processes that are to be replaced", owner)
        try:
            return Answer(ask(), owner)
        except socket.timeout:
            return Answer("did not answer within %g s" % check.timeout, owner)
        except (OSError, http.client.HTTPException) as error:
            return Answer("broke off (%s)" % _why(error), owner)


def _owner(connection: socket.socket, pids: Pids) -> Optional[int]:
    deadline = time.monotonic() + HANDOVER
    tree: Dict[int, int] = {}
    while True:
        inode = _sockets.accepted_inode(connection)
        if inode is None:
            return None
        if inode:
            holder = _sockets.holder(inode, pids.known())
            if holder is None:
                tree = tree or _sockets.trees(pids.known())
                holder = _sockets.holder(inode, tree)
            if holder is not None:
                return tree.get(holder, holder)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def _http(check: HttpCheck) -> Tuple[Callable[[], socket.socket], Callable[[], Optional[str]]]:
    parts = urlsplit(check.url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not check.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        client: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=check.timeout, context=context
        )
    else:
        client = http.client.HTTPConnection(host, parts.port, timeout=check.timeout)

    def connect() -> socket.socket:
        client.connect()
        return client.sock

    def ask() -> Optional[str]:
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        client.request("GET", target, headers=dict({"Connection": "close"}, **check.headers))
        response = client.getresponse()
        body = response.read(BODY_LIMIT)
        if response.status not in check.status:
            return "answered %d, expected %s: %s" % (
                response.status,
                " or ".join(map(str, check.status)),
                body[:300].decode("utf-8", "replace"),
            )
        return _unmet(check.expect, body) if check.expect is not None else None

    return connect, ask


def _unmet(expectation: Any, body: bytes) -> Optional[str]:
    try:
        document = json.loads(body.decode("utf-8"))
    except ValueError:
        return "answered no JSON: %s" % body[:300].decode("utf-8", "replace")
    if expectation.search(document):
        return None
    return "does not hold %r in its answer: %s" % (expectation.expression, body[:300].decode("utf-8", "replace"))


def _tcp(check: TcpCheck) -> Tuple[Callable[[], socket.socket], Callable[[], Optional[str]]]:
    return (lambda: socket.create_connection((check.host, check.port), check.timeout)), (lambda: None)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Progress:
    """How far one check has got: which candidates have answered well, and how often somebody unknown did."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.problem: Optional[str] = "was not tried"
        self._proven: Set[int] = set()
        self._strangers = 0

    def round(self, pids: Pids, peers: Callable[[int], Set[int]]) -> bool:
        """Try until every peer of an answering candidate has answered well, or this round's tries are used up.

        ``peers`` gives the candidate pids of the same app. An answer of a process that is neither a candidate nor
        being retired (a proxy, another host) counts when it comes often enough in a row to have met every worker.
        """
        self._proven &= pids.candidates
        for _try in range(4 * max(4, len(pids.known()))):
            answer = attempt(self.check, pids)
            if answer.owner in pids.retiring:
                self.problem = self.problem or answer.problem
                if self.problem == "was not tried":
                    self.problem = answer.problem
                continue
            self.problem = answer.problem
            if answer.problem:
                self._proven.clear()
                self._strangers = 0
                return False
            if answer.owner in pids.candidates:
                self._proven.add(answer.owner)
                missing = peers(answer.owner) - self._proven
                if not missing:
                    return True
                self.problem = "was answered by %d of %d new processes" % (
                    len(self._proven),
                    len(self._proven) + len(missing),
                )
            else:
                self._strangers += 1
                if self._strangers >= (4 * len(pids.known()) if pids.retiring else 1):
                    return True
        return False


def matches(patterns: Sequence[Pattern[str]], texts: Sequence[str]) -> List[str]:
    """The patterns found in none of the texts."""
    return [pattern.pattern for pattern in patterns if not any(pattern.search(text) for text in texts)]
