"""How much a lead is worth."""

from __future__ import annotations

from typing import Any, Mapping


def score(lead: Mapping[str, Any]) -> float:
    """From 0 to 1: the larger the company the better."""
    return min(1.0, float(lead.get("employees", 0)) / 1000)
