# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A process that was stopped for a while, as journals keep it."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional


class Stopped(NamedTuple):
    """A process that is to run again: what it was, and how to make it anew if it is lost.

    ``identity`` is that of _process.Process, ``entry`` that of a dump.
    """

    identity: str
    name: str
    instance: Optional[int]
    entry: Dict[str, Any]
