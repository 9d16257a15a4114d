"""The value of a lead."""

from __future__ import annotations

from typing import Any, Mapping


def score(lead: Mapping[str, Any]) -> float:
    """From 0 to 1. A larger company is better."""
    return min(1.0, float(lead.get("employees", 0)) / 1000)
