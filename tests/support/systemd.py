"""systemd as it runs on a host: booted in a container from this machine's own files, of which it changes none."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, Sequence

from support import debian

_NSPAWN = debian.program("systemd-nspawn", "systemd-container")
# In mounts of its own: systemd-nspawn does not take / itself, and what it takes is gone with it.
_BOOT = 'mount --bind / "$0" && exec "$@"'


def why_not() -> str:
    """Why it cannot be booted here; empty where it can."""
    if os.geteuid() != 0:
        return "only root can boot systemd in a container"
    if not (_NSPAWN and Path("/lib/systemd/systemd").exists() and shutil.which("unshare")):
        return debian.why_not("systemd-nspawn", "systemd systemd-container")
    return ""


@contextlib.contextmanager
def booted(units: Path, shared: Sequence[Path], root: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Within, a systemd runs that knows `units` besides those of the machine's packages.

    It sees the machine's network, and writes into `shared` only; whatever else it writes is lost. `root` is an empty
    directory; what the console shows comes into `log`.
    """
    assert _NSPAWN
    binds = [f"--bind={path}" for path in shared]
    container = [
        _NSPAWN,
        f"--directory={root}",
        f"--machine=nodeops-{os.getpid()}",
        "--volatile=overlay",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        f"--bind-ro={units}:/etc/systemd/system",
        *binds,
    ]
    command = ["unshare", "--mount", "sh", "-c", _BOOT, str(root), *container]
    with log.open("wb") as console:
        process = subprocess.Popen(
            command,
            env={**os.environ, "SYSTEMD_NSPAWN_TMPFS_TMP": "0"},  # /tmp is the machine's too
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()  # it shuts down
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
