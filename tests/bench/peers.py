"""ansistrano.deploy, the role that our deploys are compared with. Galaxy has it; PyPI and npm do not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Optional

from support import places

NAME, VERSION = "ansistrano.deploy", "4.4.0"
ROLES = places.CACHE / "bench" / f"{NAME}-{VERSION}"


def install() -> Optional[str]:
    """Install the role in ROLES, and rsync, which its git strategy needs. Returns what is missing, or None."""
    if not shutil.which("rsync"):
        return "rsync, which it copies with, is not installed (apt-get install rsync)"
    if (ROLES / NAME / "tasks" / "main.yml").exists():
        return None
    command = ["ansible-galaxy", "role", "install", "--roles-path", str(ROLES), f"{NAME},{VERSION}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0 and (ROLES / NAME / "tasks" / "main.yml").exists():
        return None
    why = " ".join((done.stderr or done.stdout).split())[-300:]
    return f"it cannot be had from Galaxy ({why}); put it at {Path(ROLES.relative_to(places.ROOT), NAME)} by hand"
