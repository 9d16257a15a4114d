# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The history ``deploys.jsonl``: one line for each outcome of a deploy or a rollback. It holds no secrets."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%03dZ" % (seconds % 1 * 1000)


def append(layout: Layout, entry: Dict[str, Any]) -> None:
    """Add one line, durably, in one write: a reader never sees half a line. Raises OSError."""
    line = json.dumps(dict({"time": now()}, **entry), ensure_ascii=False) + "\n"
    handle = os.open(layout.history, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # an earlier write was cut by a full disk
            line = "\n" + line
        os.write(handle, line.encode("utf-8", "replace"))
        os.fsync(handle)
    finally:
        os.close(handle)
