"""Paths of the checkout and of what `scripts/setup` puts below its .cache."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
COLLECTIONS = CACHE / "collections"
HOME = CACHE / "home"


def use_own_places() -> None:
    """Make this process and all it starts use the tools below .cache, and a HOME that is not the user's."""
    HOME.mkdir(parents=True, exist_ok=True)
    bins = [path for path in (CACHE / "venv" / "bin", CACHE / "node" / "bin") if path.is_dir()]
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([str(b) for b in bins if str(b) not in path] + path)
    os.environ["HOME"] = str(HOME)
    os.environ["ANSIBLE_HOME"] = str(CACHE / "ansible")
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(CACHE / "hypothesis")
    os.environ.pop("PM2_HOME", None)
