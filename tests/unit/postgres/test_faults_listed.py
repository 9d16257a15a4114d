"""docs/faults.md names every test of a fault and of a bad input, and no other."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from typing import List, Tuple

from support import places

DIRECTORY = places.ROOT / "tests" / "integration" / "postgres"
FAULTS = ("test_faults.py", "faults_of_disks.py")
REFUSALS = ("test_refusals.py",)


def listed(title: str) -> List[str]:
    """The tests of the table below that title."""
    text = (places.ROOT / "docs" / "faults.md").read_text()
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.findall(r"^\|.*\| `([^`]+)` \|$", section, re.M)


def collected(*files: str) -> List[str]:
    """The tests of those files in all tiers, as pytest names them."""
    return [test for name, test in _all_collected() if name in files]


@functools.lru_cache
def _all_collected() -> List[Tuple[str, str]]:
    """(file, test)"""
    files = [str(DIRECTORY / name) for name in (*FAULTS, *REFUSALS)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *files],
        cwd=places.ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},  # it changes the list
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^tests/integration/postgres/(\S+?)::(.+)$", done.stdout, re.M)


def test_every_fault_is_listed() -> None:
    own = ("test_disks_that_are_full", "test_every_step_is_killed_at")
    tests = [name for name in collected(*FAULTS) if not name.startswith(own)]
    assert sorted(listed("Faults")) == sorted(tests)
    assert len(tests) >= 45


def test_every_bad_input_is_listed() -> None:
    tests = [name for name in collected(*REFUSALS) if name.startswith("test_refused")]
    names = [name[len("test_refused[") : -1] for name in tests]
    assert sorted(listed("Bad input")) == sorted(names)
    assert len(names) >= 45
