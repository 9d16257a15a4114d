"""No test pulls the plug: what ends are processes, and what they have written is not lost with them."""

from __future__ import annotations

import os


def sync_nothing() -> None:
    """Let `os.fsync` of this process return at once. It takes most of the time of whatever writes many small files."""
    os.fsync = lambda fd: None
