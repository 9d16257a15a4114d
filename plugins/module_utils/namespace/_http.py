# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One http check: the request, and what is wrong with the answer."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from typing import Any, Dict, Optional
from urllib.parse import unquote, urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import HttpCheck, Probe

BODY_LIMIT = 1 << 20


def probe(check: HttpCheck) -> Probe:
    """One attempt of a check: connect, then ask. Between the two the caller sees which process took the connection."""
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
        try:
            return _ask(client, check)
        except http.client.HTTPException as error:
            raise OSError(str(error) or type(error).__name__) from error

    return connect, ask


def _ask(client: http.client.HTTPConnection, check: HttpCheck) -> Optional[str]:
    parts = urlsplit(check.url)
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    client.request("GET", target, headers={"Connection": "close", **_authorization(check.url), **check.headers})
    response = client.getresponse()
    body = response.read(BODY_LIMIT)
    if response.length and len(body) < BODY_LIMIT:
        return "broke off after %d of %d bytes" % (len(body), len(body) + response.length)
    if response.status not in check.status:
        return "answered %d, expected %s: %s" % (
            response.status,
            " or ".join(map(str, check.status)),
            body[:300].decode("utf-8", "replace"),
        )
    return _unmet(check.expect, body) if check.expect is not None else None


def _authorization(url: str) -> Dict[str, str]:
    """The header that a name and a password in a URL stand for."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    text = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
    return {"Authorization": "Basic " + base64.b64encode(text.encode("utf-8")).decode("ascii")}


def _unmet(expectation: Any, body: bytes) -> Optional[str]:
    try:
        document = json.loads(body.decode("utf-8"))
    except ValueError:
        return "did not answer JSON: %s" % body[:300].decode("utf-8", "replace")
    try:
        if expectation.search(document):
            return None
    except Exception as error:  # a JMESPath function on a value that it does not accept
        return "gave an answer that %r cannot be evaluated on: %s" % (expectation.expression, error)
    return "answered, but %r is not true of the answer: %s" % (
        expectation.expression,
        body[:300].decode("utf-8", "replace"),
    )
