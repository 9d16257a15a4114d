# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A backup as it lies in the store, and what it is of."""

from __future__ import annotations

import datetime
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple, cast

Scope = Tuple[str, Optional[str], Optional[str], Tuple[str, ...]]
"""What a series of backups is of: kind, environment, namespace, databases."""

FORMAT = 1
PM2, POSTGRESQL = "pm2", "postgresql"
IMPORTED = "imported"
"""In ``content``: what a backup was imported from. How old its data is, is not known."""
LATEST = "latest"
MANIFEST, VERIFIED = "manifest.json", "verified.json"
ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z0-9]+-[0-9a-f]{6}\Z")
TIME = "%Y-%m-%dT%H:%M:%SZ"


def now() -> datetime.datetime:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


class Backup(NamedTuple):
    """A backup whose manifest is authentic. ``Store.check_files`` checks its files."""

    id: str
    path: str
    manifest: Dict[str, Any]
    verification: Optional[Dict[str, Any]]

    @property
    def sequence(self) -> int:
        return cast(int, self.manifest["sequence"])

    @property
    def kind(self) -> str:
        return cast(str, self.manifest["kind"])

    @property
    def is_imported(self) -> bool:
        return IMPORTED in self.manifest["content"]

    @property
    def created(self) -> datetime.datetime:
        """UTC, by the clock of the host."""
        return datetime.datetime.strptime(self.manifest["created"], TIME).replace(tzinfo=datetime.timezone.utc)

    @property
    def scope(self) -> Scope:
        databases = self.manifest["content"].get("databases") or ()
        own = self.kind, self.manifest["environment"], self.manifest["namespace"], tuple(sorted(databases))
        return of_imports(own) if self.is_imported else own

    @property
    def size(self) -> int:
        """Bytes of its files on disk, without the manifest."""
        return sum(each["size"] for each in self.manifest["files"])

    @property
    def good(self) -> bool:
        """Whether it was verified, and the last verification found no problem."""
        return self.verification is not None and not self.verification["problems"]


def of_imports(scope: Scope) -> Scope:
    """The scope of the imported backups of the same databases, which are kept apart from those made by schedule."""
    kind, environment, namespace, databases = scope
    return "%s %s" % (IMPORTED, kind), environment, namespace, databases


def described(scope: Scope) -> str:
    """A scope in words: "postgresql shop, orders in production"."""
    kind, environment, namespace, databases = scope
    words = [kind, ", ".join(databases)] if databases else [kind]
    if namespace is not None:
        words.append("namespace %s" % namespace)
    if environment is not None:
        words.append("in %s" % environment)
    return " ".join(words)
