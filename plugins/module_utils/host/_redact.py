# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Mask secrets in text that is shown: log lines, messages of the daemon, answers of a health check."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, Iterable, List, Set
from urllib.parse import quote, unquote, urlsplit

MASK = "********"

# Variables whose values are not secret; the value of every other variable is.
_PUBLIC = frozenset(
    """PATH HOME USER LOGNAME SHELL SHLVL LANG LC_ALL TZ TERM PWD PM2_HOME NODE_ENV NODE_APP_INSTANCE PORT HOST HOSTNAME
    PGHOST PGPORT PGUSER PGDATABASE PGSSLMODE PYTHONUNBUFFERED LOG_LEVEL unique_id""".split()
)
_PLAIN_WORDS = frozenset(
    """true false null none undefined yes no on off debug info warn warning error trace silent production development
    staging test testing local localhost default enabled disabled""".split()
)
_SECRET_NAME = re.compile(r"pass|secret|token|api-?_?key|credential|private", re.IGNORECASE)
# A password reaches up to the last @, also with a slash in it, unless the slash is behind a port. The limit is there
# because a text of many URLs would be read to its end for each of them.
_URL_PASSWORD = re.compile(r"""(?<=://)([^/\s:@]*):(?:(?!\d{1,5}/)[^\s"'<>,]{1,2048}|[^/\s@]+)@""")
_ASSIGNMENT = re.compile(
    r"""((?:pass(?:word|wd)?|secret|token|api[-_]?key|private[-_]?key|authorization|bearer)["']?\s*[:=]\s*["']?)"""
    r"""(?:bearer\s+)?([^\s"',;&]+)""",
    re.IGNORECASE,
)


class Redactor:
    """Knows the values that must not be shown."""

    def __init__(self) -> None:
        self._secrets: Set[str] = set()
        self._ordered: List[str] = []

    def add_environment(self, environment: Dict[str, Any]) -> None:
        """Every value but those of well-known public variables, plain words, short numbers and existing paths."""
        for name, value in environment.items():
            if name not in _PUBLIC:
                self._add_value(value)

    def add_arguments(self, arguments: Iterable[Any]) -> None:
        """The values of options named like a secret: ``--token x``, ``--password=x``; passwords in URLs.

        Also inside an argument that is a command line.
        """
        previous = ""
        for argument in map(str, arguments):
            words = argument.split()
            if len(words) > 1:
                self.add_arguments(word.strip("\"';") for word in words)
            name, _equals, value = argument.partition("=")
            if value and _SECRET_NAME.search(name):
                self._add(value)
            elif previous.startswith("-") and "=" not in previous and _SECRET_NAME.search(previous):
                self._add(argument)
            self._add_url_password(argument)
            previous = argument

    def text(self, text: str) -> str:
        """``text`` with every known secret, URL password and ``password=…`` masked."""
        if len(self._ordered) != len(self._secrets):
            self._ordered = sorted(self._secrets, key=len, reverse=True)
        for secret in self._ordered:
            text = text.replace(secret, MASK)
        text = _URL_PASSWORD.sub(r"\1:" + MASK + "@", text)
        return _ASSIGNMENT.sub(r"\1" + MASK, text)

    def _add_value(self, value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                self._add_value(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                self._add_value(inner)
        elif isinstance(value, str):
            if value.startswith(("{", "[")):
                try:
                    self._add_value(json.loads(value))
                except ValueError:
                    pass
            self._add_url_password(value)
            if not (value.startswith("/") and os.path.exists(value)):
                self._add(value)
        elif value is not None and not isinstance(value, bool):
            self._add(str(value))

    def _add(self, value: str) -> None:
        value = value.strip()
        if len(value) < 4 or value.lower() in _PLAIN_WORDS or (value.isdigit() and len(value) < 6):
            return
        for form in (value, json.dumps(value)[1:-1], quote(value, safe="", errors="replace"), repr(value)[1:-1]):
            self._secrets.add(form)
        for line in value.splitlines():
            if len(line.strip()) >= 8:
                self._secrets.add(line.strip())

    def _add_url_password(self, value: str) -> None:
        if "://" in value:
            try:
                password = urlsplit(value).password
            except ValueError:
                password = None
            if password:
                self._secrets.update({password, unquote(password)} - {""})
            for found in _URL_PASSWORD.finditer(value):  # also in a broken URL, and in a text
                self._add(found.group(0).partition(":")[2][:-1])
