# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The name of a namespace, as a call gives it."""

from __future__ import annotations

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _values
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._schema import DefinitionError, Problem


def check_namespace(namespace: object) -> str:
    """The namespace of a call. Raises DefinitionError."""
    try:
        return _values.check_namespace(namespace)
    except _values.BadValue as error:
        raise DefinitionError([Problem("namespace", "", str(error))]) from None
