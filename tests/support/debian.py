"""Finds programs of Debian that tests need, or installs them if the tests run as root on Debian."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from typing import Iterable, Optional

from support import places

_MORE = ("/usr/sbin", "/usr/local/sbin", "/sbin")
# A package starts no service when it is installed: none runs in this runlevel, and systemctl does nothing "offline".
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "SYSTEMD_OFFLINE": "1"}


def program(name: str, package: str, directories: Iterable[str] = ()) -> Optional[str]:
    """The path of a program in `directories`, PATH or an sbin. If it is missing, its package is installed, which needs
    root and Debian. None if that fails."""
    found = find(name, directories)
    if found or os.geteuid() != 0 or not shutil.which("apt-get"):
        return found
    places.CACHE.mkdir(exist_ok=True)
    with (places.CACHE / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in other processes
        if not find(name, directories) and not _install(package):
            _apt_get("update")
            _install(package)
    return find(name, directories)


def find(name: str, directories: Iterable[str] = ()) -> Optional[str]:
    """The path of a program that is installed."""
    path = os.pathsep.join([*directories, os.environ.get("PATH", os.defpath), *_MORE])
    return shutil.which(name, path=path)


def why_not(name: str, package: str) -> str:
    """Why a test that needs the program is skipped."""
    return f"{name} is not installed, and cannot be: apt-get install {package}"


def _install(package: str) -> bool:
    return _apt_get("install", "--yes", "--no-install-recommends", package)


def _apt_get(*arguments: str) -> bool:
    environment = {**os.environ, **_ENVIRONMENT}
    for _try in range(3):  # the mirror may say nothing for minutes
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = ["apt-get", *arguments]
            done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=240)
            return done.returncode == 0
    return False
