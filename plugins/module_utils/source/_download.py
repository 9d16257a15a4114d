# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Download a file: https certificates are checked, credentials neither shown nor sent elsewhere, waiting has an end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from typing import IO, Any, Iterator, Optional
from urllib.parse import urljoin

from ansible_collections.nodeops.pm2.plugins.module_utils.host._address import (
    Credentials,
    is_url,
    origin,
    shown,
    split_credentials,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source._directory import CHUNK
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import disk_full, free

_AGENT = "nodeops.pm2"


def download(url: str, dest: str, timeout: float) -> str:
    """Download ``url`` to the new file ``dest`` (0600) and return its SHA-256.

    ``timeout``: give up after so many seconds without a byte. Raises NodeopsError, and OSError for ``dest``.
    """
    plain, credentials = split_credentials(url)
    content = hashlib.sha256()
    opener = _opener(credentials)
    request = _authorized(urllib.request.Request(plain, headers={"User-Agent": _AGENT}), credentials)
    with _asking(url, timeout):
        response = opener.open(request, timeout=timeout)
    with response, open(os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
        size = _length(response)
        if size is not None and size > free(os.path.dirname(dest)):
            raise disk_full(os.path.dirname(dest))
        written = 0
        while True:
            with _asking(url, timeout):
                data = response.read(CHUNK)
            if not data:
                break
            stream.write(data)
            content.update(data)
            written += len(data)
        if size is not None and written != size:
            raise _failed(url, "broke off after %d of %d bytes" % (written, size))
    return content.hexdigest()


def _length(response: IO[bytes]) -> Optional[int]:
    value = getattr(response, "headers", {}).get("Content-Length")
    return int(value) if value and value.isdigit() else None


def _failed(url: str, why: str) -> NodeopsError:
    return NodeopsError("%s could not be downloaded: it %s. Nothing was deployed." % (shown(url), why))


@contextlib.contextmanager
def _asking(url: str, timeout: float) -> Iterator[None]:
    """Turn network errors into errors for users. Texts of urllib are not used, because they hold addresses."""
    try:
        yield
    except NodeopsError:
        raise
    except urllib.error.HTTPError as error:
        with error:
            reason = http.client.responses.get(error.code, "")
        hint = {
            401: " The name or password in the URL is wrong or missing.",
            403: " Access is not allowed, or a signed URL has expired.",
            404: " The file does not exist, or cannot be read without credentials.",
        }.get(error.code, "")
        raise NodeopsError(
            "%s could not be downloaded: it answered %d %s. Nothing was deployed.%s"
            % (shown(url), error.code, reason, hint)
        ) from None
    except urllib.error.URLError as error:
        raise _failed(url, _why(error.reason, timeout)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, _why(error, timeout)) from None


def _why(reason: Any, timeout: float) -> str:
    if isinstance(reason, socket.timeout):
        return "sent nothing for %g s" % timeout
    if isinstance(reason, socket.gaierror):
        return "names a host that cannot be found (%s)" % reason.strerror
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "has a certificate that is not trusted (%s)" % reason.verify_message
    if isinstance(reason, ssl.SSLError):
        return "cannot be reached over TLS (%s)" % reason.reason
    if isinstance(reason, http.client.IncompleteRead):
        return "broke off after %d bytes" % len(reason.partial)
    if isinstance(reason, http.client.HTTPException):
        return "answered something that is not HTTP (%s)" % type(reason).__name__
    if isinstance(reason, OSError):
        return "could not be reached (%s)" % (reason.strerror or type(reason).__name__)
    return "could not be reached"


def _authorized(request: urllib.request.Request, credentials: Optional[Credentials]) -> urllib.request.Request:
    """Add the credentials, only for their own origin, and in a way that redirects do not pass them on."""
    if credentials is not None and origin(request.full_url) == credentials.origin:
        pair = ("%s:%s" % (credentials.username, credentials.password)).encode("utf-8")
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair).decode("ascii"))
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, credentials: Optional[Credentials]) -> None:
        self._credentials = credentials

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        """The same request to another address."""
        plain = split_credentials(newurl).plain
        request = urllib.request.Request(plain, headers={"User-Agent": _AGENT}, unverifiable=True)
        return _authorized(request, self._credentials)

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow only to http and https: urllib itself would also follow to ftp."""
        target = urljoin(req.full_url, headers.get("location") or headers.get("uri") or "")
        if not is_url(target):
            raise _failed(req.full_url, "redirects to %s, which is not followed" % shown(target))
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener(credentials: Optional[Credentials]) -> urllib.request.OpenerDirector:
    """Only http and https: urllib's own list also opens files and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(credentials),
    ):
        opener.add_handler(handler)
    return opener
