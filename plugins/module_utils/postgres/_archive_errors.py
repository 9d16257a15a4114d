# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Errors of a failed load that prove that the archive is bad, and not the server that it was loaded into.

An error is a proof if no other server could load the archive either. Roles, extensions, rights, disk space, time, and
everything that runs code (checks, generated columns, indexes of expressions) may differ on another server. If the
server does not speak English, only what pg_restore itself says is a proof.
"""

from __future__ import annotations

import re
from typing import Optional

_TYPES = "smallint|integer|bigint|numeric|real|double precision|boolean|date|uuid|bytea"
_SAID = "^pg_restore: error: "
_COPY = _SAID + '(COPY failed for table ".*": ERROR:  '
_QUERY = _SAID + "(could not execute query: ERROR:  "
_LINE = r"\nCONTEXT:  COPY .+, line \d+"

# The group is what is written down: it has none of the data.
_PROOFS = (
    # It cannot be read.
    _SAID + "(could not read from input file: end of file)$",
    _SAID + "(could not uncompress data: (?:incorrect|invalid|unknown) .+)$",
    _SAID + "(unexpected end of file.*|did not find magic string in file header|input file is too short .*)$",
    _SAID + r"(found unexpected block ID .+|unrecognized data block type .+|entry ID -?\d+ out of range .+)$",
    _SAID + r"(could not find block ID \d+ in archive -- possibly corrupt archive)$",
    # A row does not fit its table: the type of a column, or the format, refuses it.
    _COPY + r'invalid input syntax for type (?:%s)): ".*"(?:\nDETAIL:  .*)?%s, column ' % (_TYPES, _LINE),
    _COPY + r'value) ".*" is out of range for type (?:%s)%s, column ' % (_TYPES, _LINE),
    _COPY + r'invalid byte sequence for encoding "[^"\n]+"): .*' + _LINE,
    _COPY + r'(?:missing data for column ".*"|extra data after last expected column))' + _LINE,
    # Its rows contradict each other. Columns only: an expression may yield something else on another server.
    _QUERY + r'could not create unique index ".*")\nDETAIL:  Key \([^()\n]+\)=\(.*\) is duplicated\.$',
    _QUERY + r'insert or update on table ".*" violates foreign key constraint ".*")'
    r"\nDETAIL:  Key \([^()\n]+\)=\(.*\) is not present in table ",
)


def of_a_bad_archive(said: str) -> Optional[str]:
    """The part of pg_restore's standard error that proves that no server can load the archive, if there is one."""
    for pattern in _PROOFS:
        found = re.search(pattern, said, re.MULTILINE)
        if found:
            return found.group(1)
    return None
