"""Runs a file of tests that cannot share a process with others, in its own pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Mapping, Optional, Sequence

from support import places


def run_tests(
    path: Path,
    basetemp: Path,
    within: Sequence[str] = (),
    environment: Optional[Mapping[str, str]] = None,
    tier: str = "",
) -> Optional[str]:
    """None if all tests of the file pass, else the output of pytest.

    `within` is the beginning of a command that runs another command. `environment` is added to this process's. `tier`
    chooses tests by their markers, like -m.
    """
    worker = "PYTEST_XDIST_WORKER"  # which ports are ours
    own = {
        name: value for name, value in os.environ.items() if name == worker or not name.startswith(("PYTEST_", "COV_"))
    }
    done = subprocess.run(
        [*within, sys.executable, "-m", "pytest", "-m", tier, f"--basetemp={basetemp}", str(path)],
        env={**own, **(environment or {})},
        cwd=places.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else done.stdout
