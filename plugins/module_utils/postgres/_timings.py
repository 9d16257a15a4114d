# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How long each step of a run took."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, List


class Timings:
    """The seconds of each step, for the result of the module."""

    def __init__(self) -> None:
        self.measured: List[Dict[str, Any]] = []
        """``name``, ``database`` if it is about one, and ``seconds`` of each step, in their order."""

    @contextlib.contextmanager
    def measure(self, name: str, database: str = "") -> Iterator[None]:
        """Measure the block, also if it fails."""
        start = time.monotonic()
        try:
            yield
        finally:
            about = {"database": database} if database else {}
            self.measured.append({"name": name, **about, "seconds": round(time.monotonic() - start, 3)})
