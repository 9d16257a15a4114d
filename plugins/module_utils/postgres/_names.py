# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Names of databases: those that may be backed up, and those that a restore gives."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Iterable, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor

LONGEST = 42
"""Bytes: PostgreSQL cuts names after 63, silently, and ``__prev_`` with an id takes 21."""
RESERVED = ("postgres", "template0", "template1")
_OURS = re.compile(r"(?s)(?P<name>.+)__(?P<kind>new|prev)_(?P<id>\d{14})\Z")
_FORMAT = "%Y%m%d%H%M%S"


class Name(NamedTuple):
    """The parts of a name that a restore gave."""

    name: str
    kind: str  # new, prev
    id: str


def check_database(name: str) -> str:
    """The name itself. Raises NodeopsError for one that cannot be backed up and restored."""
    why = _wrong(name)
    if why:
        shown = Redactor().text(repr(_address.shown(name)))
        raise NodeopsError("The database name %s %s. Nothing was changed." % (shown, why))
    return name


def check_databases(names: Sequence[str]) -> Tuple[str, ...]:
    """The names themselves. Raises NodeopsError as above, and if there is none or one is given twice."""
    if not names:
        raise NodeopsError("databases is empty. Nothing was changed. Name at least one database.")
    for name in names:
        check_database(name)
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise NodeopsError("databases names %s twice. Nothing was changed." % ", ".join(map(repr, twice)))
    return tuple(names)


def _wrong(name: str) -> str:
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not name:
        return "is empty"
    if size > LONGEST:
        return "has %d bytes: at most %d, because a restore adds to it and PostgreSQL cuts names at 63" % (
            size,
            LONGEST,
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "has a line break, a NUL or another control character"
    if "/" in name:
        return "has a slash"
    if name in RESERVED:
        return "is reserved: it is PostgreSQL's own"
    if parse(name):
        return "is one that a restore gives. Give the name of the database that it was made from"
    return ""


def new_id(existing: Iterable[str], now: Optional[float] = None) -> str:
    """``YYYYMMDDhhmmss`` (UTC) of ``now``; one more than the greatest that exists if the clock went back."""
    wanted = time.strftime(_FORMAT, time.gmtime(now))
    greatest = max(existing, default="")
    return wanted if wanted > greatest else "%014d" % (int(greatest) + 1)


def scratch(name: str, identity: str) -> str:
    """The name of the database that is restored into."""
    return "%s__new_%s" % (name, identity)


def previous(name: str, identity: str) -> str:
    """The name for the database that was live before."""
    return "%s__prev_%s" % (name, identity)


def parse(database: str) -> Optional[Name]:
    """The parts of the name of a database that a restore made; None for any other."""
    found = _OURS.match(database)
    return Name(found.group("name"), found.group("kind"), found.group("id")) if found else None


def lock_key(name: str) -> int:
    """The key, a bigint, of the advisory lock that a restore or an import of the database holds."""
    digest = hashlib.sha256(b"nodeops.pm2 database " + name.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
