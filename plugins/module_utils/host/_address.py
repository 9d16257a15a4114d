# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Addresses of sources: a path, a URL, a repository; and which part of one may be shown."""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional
from urllib.parse import parse_qsl, unquote, urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor

GIT_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9+.-]+::")
_SCP_LIKE = re.compile(r"[^/:]+:")  # host:path, as git tells it from a path
_PASSWORD_WITHOUT_SCHEME = re.compile(r"[^/:@]+:(?!//).+@[^/@:]+[:/]")  # name:password@host:path
# A password with a slash in it may reach up to the last @, unless all before is a host's name: https://h.org/@scope/x
_LATE_AT = re.compile(r"://(?!(?:(?:[\w-]+\.)+[\w-]+)?/(?:[^@]*/)?@[^@]*\Z)[^/?#]*[/?#].*@", re.DOTALL)
_WITH_PORT = re.compile(r"[^/]+://[\w.-]+:\d+(?:[/?#]|\Z)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONG = 16  # characters: a value of a query that is at least so long may be a secret


class Credentials(NamedTuple):
    """The name and the password of a URL, decoded, and the only origin (``scheme://host:port``) that may get them."""

    origin: str
    username: str
    password: str


class Address(NamedTuple):
    """An address in two parts: one that all users may see, and the credentials."""

    plain: str
    credentials: Optional[Credentials]


def scheme_of(address: str) -> str:
    """``https`` and the like, in lower case; empty for a path and for ``host:path``."""
    match = _SCHEME.match(address)
    return match.group(1).lower() if match else ""


def is_url(address: str) -> bool:
    """Whether a file at this address is to be downloaded."""
    return scheme_of(address) in ("http", "https")


def is_local(address: str) -> bool:
    """Whether a repository at this address is on the host itself."""
    return address.startswith("/") or scheme_of(address) == "file"


def split_credentials(address: str) -> Address:
    """Separate an address from its credentials (http and https only): it may then be shown, and be an argument."""
    if not is_url(address):
        return Address(address, None)
    parts = urlsplit(address)
    userinfo, _at, place = parts.netloc.rpartition("@")
    if not _at:
        return Address(address, None)
    plain = parts._replace(netloc=place).geturl()
    username, _colon, password = userinfo.partition(":")
    origin = "%s://%s" % (parts.scheme.lower(), place)
    return Address(plain, Credentials(origin, unquote(username), unquote(password)))


def origin(address: str) -> str:
    """``scheme://host:port`` of a URL: credentials given for one are given to no other."""
    parts = urlsplit(address)
    return "%s://%s" % (parts.scheme.lower(), parts.netloc.rpartition("@")[2])


def shown(address: str) -> str:
    """An address for a message: without credentials, query (it may be a signed URL) and fragment."""
    if not scheme_of(address):
        before, at, behind = address.rpartition("@")
        return "..." + at + behind if ":" in before and not address.startswith("/") else address
    try:
        parts = urlsplit(address)
        if parts.port == 0 or _LATE_AT.search(address):  # reading port raises ValueError if it is bad
            return _unreadable(address)
        query = "?..." if parts.query else ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl() + query
    except ValueError:
        return _unreadable(address)


def _unreadable(address: str) -> str:
    """Of an address that cannot be parsed only the scheme, as the rest may be a password; unless the port is wrong."""
    has_bad_port = "@" not in address and _WITH_PORT.match(address)
    return re.split("[?#]", address)[0] if has_bad_port else scheme_of(address) + "://..."


def hide(address: str, redactor: Redactor) -> None:
    """Tell ``redactor`` the secrets of an address."""
    if not is_url(address):
        return
    if _LATE_AT.search(address):
        userinfo = address.partition("://")[2].rpartition("@")[0]
        redactor.add_environment({"address": [userinfo, userinfo.partition(":")[2]]})
    credentials = split_credentials(address).credentials
    # A name with a password is often a plain word ("deploy"), which must not be masked in every message.
    secrets: List[str] = [credentials.password or credentials.username] if credentials else []
    query = urlsplit(address).query
    secrets += [query, *(value for _name, value in parse_qsl(query) if len(value) >= _LONG)]
    redactor.add_environment({"address": [secret for secret in secrets if secret]})


def check_path(address: str, what: str) -> None:
    """Raises NodeopsError unless ``address`` is an absolute path."""
    if not os.path.isabs(address):
        raise NodeopsError("%s %r is not an absolute path. Nothing was changed." % (what, shown(address)))


def check_url(address: str) -> None:
    """Raises NodeopsError for a URL that has no host, a bad port or unusual characters."""
    if not _readable_url(address):
        raise NodeopsError("The address %s is not a usable URL. Nothing was changed." % shown(address))


def check_repository(address: str) -> None:
    """Raises NodeopsError unless git may use ``address``: https, http, ssh, git, file or a path."""
    if address.startswith("-"):
        raise NodeopsError("The repository %r starts with a dash. Nothing was changed." % shown(address))
    if _CONTROL.search(address):
        raise NodeopsError("The address of the repository has a control character in it. Nothing was changed.")
    scheme = scheme_of(address)
    if _HELPER.match(address) or (scheme and scheme not in GIT_SCHEMES):
        raise NodeopsError(
            "The repository %s has a transport that is not allowed: use https, http, ssh, git, file or an absolute "
            "path. Nothing was changed." % (shown(address) if scheme else address.partition("::")[0] + "::...")
        )
    if _PASSWORD_WITHOUT_SCHEME.match(address):
        raise NodeopsError(
            "The repository %s has a name and a password, but no https:// before them: all users of the host could "
            "see the password. Nothing was changed." % shown(address)
        )
    if not scheme:
        if not _SCP_LIKE.match(address):
            check_path(address, "The repository")
    elif scheme != "file":
        # A path after a port may be a password, and git gets the address as an argument.
        if not _readable_url(address) or (re.match(r"[^/]*://[^@/]*:\d+/", address) and _LATE_AT.search(address)):
            raise NodeopsError(
                "The repository %s is not a usable URL. Nothing was changed. Write characters such as / and @ of a "
                "password, and an @ in the path, as %%2F and %%40." % shown(address)
            )
        if urlsplit(address).query:
            raise NodeopsError(
                "The repository %s has a query, which git does not use. Nothing was changed." % shown(address)
            )
        if scheme != "https" and scheme != "http" and urlsplit(address).password:
            raise NodeopsError(
                "The repository %s has a password, which %s cannot use and all users of the host could see. Nothing "
                "was changed. Give a key." % (shown(address), scheme)
            )


def _readable_url(address: str) -> bool:
    if _CONTROL.search(address) or " " in address:
        return False
    try:
        parts = urlsplit(address)
        if not parts.hostname or parts.hostname.startswith("-") or parts.netloc.startswith("-"):
            return False
        if parts.netloc.endswith(":"):  # a password that begins with a slash follows
            return False
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def join(parent: str, relative: str) -> str:
    """The address of a submodule that is relative (``./x``, ``../x``) to its parent's, as git resolves it."""
    base, separator = parent.rstrip("/"), "/"
    while relative.startswith(("./", "../")):
        if relative.startswith("./"):
            relative = relative[2:]
            continue
        relative = relative[3:]
        root = _SCHEME.match(base)
        if "/" in (base[root.end() :] if root else base):
            base = base.rpartition("/")[0]
        elif not root and ":" in base:
            base, separator = base.rpartition(":")[0], ":"
        else:
            raise NodeopsError("The submodule's address goes above the root of %s." % shown(parent))
    return base + separator + relative
