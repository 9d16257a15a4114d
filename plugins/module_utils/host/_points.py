# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Named points of a run, at which the crash tests kill it."""

from __future__ import annotations


def reached(point: str) -> None:
    """Does nothing: the crash tests replace it. Call it as ``_points.reached(…)``."""
