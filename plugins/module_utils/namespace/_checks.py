# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The checks of ``ready``: one attempt of each, and which process has taken its connection."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Sequence, Set
from urllib.parse import unquote, urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _sockets
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import (
    Check,
    HttpCheck,
    Probe,
    Ready,
    TcpCheck,
)

HANDOVER = 0.25  # seconds a connection may take to be accepted, and a daemon to hand it to a worker


def parse(ready: Dict[str, Any]) -> Ready:
    """The module's ``ready`` option, validated. Raises NodeopsError naming the value that is wrong."""
    for name in ("timeout", "min_uptime"):
        if not 0 <= ready[name] < float("inf"):
            raise NodeopsError(
                "ready.%s must be a number of seconds >= 0, not %r. Nothing was changed." % (name, ready[name])
            )
    if ready["min_uptime"] > ready["timeout"]:
        raise NodeopsError(
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
            raise NodeopsError(
                "ready.log %r is not a regular expression: %s. Nothing was changed." % (text, error)
            ) from error
    return Ready(ready["timeout"], ready["min_uptime"], connections, patterns)


def parse_of_files(ready: Dict[str, Any]) -> Ready:
    """The same, for a release without processes. Raises NodeopsError also for ``log``: only a process can pass that."""
    parsed = parse(ready)
    if parsed.log:
        raise NodeopsError(
            "ready.log is given, but a release without processes writes no log. Nothing was changed. Use http or tcp."
        )
    return parsed


def hide(ready: Dict[str, Any], redactor: Redactor) -> None:
    """Tell ``redactor`` the secrets of the option ``ready``: an answer may repeat the request."""
    for item in ready.get("http") or []:
        redactor.add_environment(item.get("headers") or {})
        redactor.add_arguments([item["url"]])
        if _is_url(item["url"]):
            _address.hide(item["url"], redactor)
        userinfo = str(item["url"]).partition("://")[2].partition("/")[0].rpartition("@")[0]
        redactor.add_environment({"authorization": base64.b64encode(unquote(userinfo).encode("utf-8")).decode("ascii")})


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or 0 < parts.port < 65536)
    except ValueError:
        return False
    return bool(valid) and not parts.netloc.endswith(":") and all(32 < ord(char) < 127 for char in url)


def _http_check(item: Dict[str, Any]) -> HttpCheck:
    url = item["url"]
    if not _is_url(url):
        raise NodeopsError(
            "ready.http url %r is not an http or https URL. Nothing was changed. Write it in ASCII, with / and @ of a "
            "password as %%2F and %%40." % _address.shown(url)
        )
    status = tuple(item.get("status") or (200,))
    if not all(100 <= code <= 599 for code in status):
        raise NodeopsError(
            "ready.http status %r: a status is a number from 100 to 599. Nothing was changed." % (list(status),)
        )
    timeout = item.get("timeout", 5.0)
    if not 0 < timeout < float("inf"):
        raise NodeopsError("ready.http timeout must be a number of seconds > 0, not %r. Nothing was changed." % timeout)
    return HttpCheck(
        url,
        status,
        _compile_expectation(item.get("expect")),
        _headers(item.get("headers") or {}),
        timeout,
        item.get("validate_certs", True),
    )


def _headers(given: Dict[str, Any]) -> Dict[str, str]:
    """Raises NodeopsError for what cannot be sent. The message names the header, and never shows its value."""
    headers = {str(key): str(value) for key, value in given.items()}
    for name, value in headers.items():
        if not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", name):
            raise NodeopsError("ready.http headers: %r is not a name of a header. Nothing was changed." % name)
        if not all(char == "\t" or (32 <= ord(char) < 256 and ord(char) != 127) for char in value):
            raise NodeopsError(
                "ready.http headers: the value of %s has a character that headers may not have. Nothing was "
                "changed." % name
            )
    return headers


def _compile_expectation(expression: Optional[str]) -> Any:
    if not expression:
        return None
    try:
        import jmespath
    except ImportError:
        raise NodeopsError(
            "ready.http expect %r needs the Python package jmespath on the target (Debian: python3-jmespath). Nothing "
            "was changed." % expression
        ) from None
    try:
        return jmespath.compile(expression)
    except Exception as error:
        raise NodeopsError(
            "ready.http expect %r is not a JMESPath expression: %s. Nothing was changed." % (expression, error)
        ) from error


def _tcp_check(item: Any) -> TcpCheck:
    host, _colon, port = str(item).rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536 or "/" in host or "@" in host:
        shown = _address.shown(item) if isinstance(item, str) else item
        raise NodeopsError("ready.tcp %r is neither a port nor host:port. Nothing was changed." % (shown,))
    return TcpCheck(host.strip("[]") or "127.0.0.1", int(port))


class Pids(NamedTuple):
    """Root pids of the processes that may take a connection.

    The answers of ``old`` prove nothing: these are replaced, or share the port of new ones.
    """

    candidates: Set[int]
    old: Set[int]
    others: Set[int]

    def known(self) -> Set[int]:
        return self.candidates | self.old | self.others


class Answer(NamedTuple):
    """One attempt. ``problem``: None if the answer was good. ``owner``: the root pid asked, None if unknown."""

    problem: Optional[str]
    owner: Optional[int]


def attempt(check: Check, pids: Pids) -> Answer:
    """Connect, see which process took the connection, and ask it, unless its answer proves nothing."""
    connect, ask = _probe(check)
    try:
        connection = connect()
    except OSError as error:
        return Answer("cannot be reached (%s)" % _why(error), None)
    with contextlib.closing(connection):
        owner = None
        try:
            owner = _owner(connection, pids)
            if owner in pids.old:
                return Answer("is answered only by processes that were there before", owner)
            return Answer(ask(), owner)
        except socket.timeout:
            return Answer("did not answer within %g s" % check.timeout, owner)
        except OSError as error:
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


def _probe(check: Check) -> Probe:
    if isinstance(check, HttpCheck):
        # Imported late for its cost: http.client brings email and ssl, a third of what a run without http checks costs.
        from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _http

        return _http.probe(check)
    return (lambda: socket.create_connection((check.host, check.port), check.timeout)), (lambda: None)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Progress:
    """How far one check has got: which candidates have answered well, and how often an unknown process did."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.problem: Optional[str] = None
        """What the last whole round has found. None if that was good, or if there was no round."""
        self._proven: Set[int] = set()
        self._unknown = 0

    def round(self, pids: Pids, peers: Callable[[int], Set[int]], deadline: float) -> bool:
        """Try until every peer of a candidate that answers has answered well, or the tries of this round are used.

        ``deadline`` (time.monotonic) ends the round, and any request that is still waiting.

        ``peers`` gives the candidate pids that share a port. An answer of a process that is neither a candidate nor
        old (a proxy, another host) counts if there are enough of them in a row to have met every worker.
        """
        self._proven &= pids.candidates
        problem: Optional[str] = None
        for _try in range(4 * max(4, len(pids.known()))):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.problem = self.problem or problem
                return False
            answer = attempt(self.check._replace(timeout=min(self.check.timeout, remaining)), pids)
            if answer.owner in pids.old:
                problem = problem or answer.problem
                continue
            if answer.problem:
                # One that was cut off at the deadline says less than what was found before.
                if not self.problem or time.monotonic() < deadline:
                    self.problem = answer.problem
                self._proven.clear()
                self._unknown = 0
                return False
            problem = self._count(answer.owner, pids, peers)
            if problem is None:
                self.problem = None
                return True
        self.problem = problem
        return False

    def _count(self, owner: Optional[int], pids: Pids, peers: Callable[[int], Set[int]]) -> Optional[str]:
        """Count a good answer. None if it was the last one missing."""
        if owner is not None and owner in pids.candidates:
            self._proven.add(owner)
            missing = peers(owner) - self._proven
            counts = len(self._proven), len(self._proven) + len(missing)
            return "was answered by %d of %d new processes" % counts if missing else None
        self._unknown += 1
        wanted = 4 * len(pids.known()) if pids.old else 1
        if self._unknown >= wanted:
            return None
        counts = self._unknown, wanted
        return "was answered well %d times of %d by an unknown process (a proxy, another host)" % counts


def matches(patterns: Sequence[Pattern[str]], texts: Sequence[str]) -> List[str]:
    """The patterns found in none of the texts."""
    return [pattern.pattern for pattern in patterns if not any(pattern.search(text) for text in texts)]
