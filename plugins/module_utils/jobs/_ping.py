# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Tell a monitoring service like healthchecks.io that a job begins, and how it has ended."""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from typing import Optional
from urllib.parse import urlsplit, urlunsplit

TIMEOUT = 10.0
"""Seconds for one attempt."""
ATTEMPTS = 3
_PAUSE = 1.0
_LONGEST_BODY = 10000


def ping(url: str, what: str, body: str) -> Optional[str]:
    """POST ``body`` to ``url`` with ``/<what>`` after its path. Returns None, or why it did not arrive.

    The path of the URL is not shown: with some services it is a secret. Raises nothing: monitoring must not end a job.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        problem = _post(_with(url, what), body.encode("utf-8", "replace")[-_LONGEST_BODY:])
        if not problem:
            return None
    return "the ping of %s failed: %s" % (urlsplit(url).hostname, problem)


def _with(url: str, what: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="%s/%s" % (parts.path.rstrip("/"), what)))


def _post(url: str, body: bytes) -> str:
    request = urllib.request.Request(url, data=body, method="POST")
    request.add_header("Content-Type", "text/plain; charset=utf-8")
    request.add_header("User-Agent", "nodeops.pm2")
    try:
        with contextlib.closing(urllib.request.build_opener().open(request, timeout=TIMEOUT)) as answer:
            answer.read(1)
        return ""
    except urllib.error.HTTPError as error:
        error.close()
        return "it answered %d" % error.code
    except urllib.error.URLError as error:
        reason = error.reason
        return str(getattr(reason, "strerror", None) or reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return getattr(error, "strerror", None) or type(error).__name__
