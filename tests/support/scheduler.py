"""Cron, the real one, with places of its own: no table of this machine is read or written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Iterator, Optional, Type

from support import debian, processes

_MOUNTS = """\
set -e
mount --bind "$1/tables" /var/spool/cron/crontabs
mount --bind "$1/cron.d" /etc/cron.d
mount --bind "$1/crontab" /etc/crontab
mount -t tmpfs tmpfs /run
echo ready
exec sleep infinity
"""


def why_not() -> str:
    """Why cron cannot be run here; empty when it can."""
    if os.geteuid() != 0:
        return "cron in mounts of its own needs root"
    return "" if crontab() and shutil.which("nsenter") else debian.why_not("cron", "cron")


def crontab() -> Optional[str]:
    """The program that writes tables; of the same package as cron itself."""
    return debian.program("crontab", "cron")


class Cron:
    """`tables` holds the users' crontabs, `system` what is /etc/cron.d for it. `programs` has a `crontab` for PATH."""

    def __init__(self, directory: Path) -> None:
        self.tables = directory / "tables"
        self.system = directory / "cron.d"
        self.programs = directory / "programs"
        for path in (self.tables, self.system, self.programs):
            path.mkdir(parents=True)
        (directory / "crontab").touch(mode=0o644)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNTS, "sh", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "ready\n"
        program = self.programs / "crontab"
        program.write_text(f'#!/bin/sh\nexec nsenter --target {self._holder.pid} --mount {crontab()} "$@"\n')
        program.chmod(0o755)

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Within, cron runs what is in the tables, as after a boot of the machine; its pid."""
        cron = debian.find("cron")
        assert cron
        started = subprocess.Popen(
            ["nsenter", "--target", str(self._holder.pid), "--mount", cron, "-f"],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield started.pid
        finally:
            started.kill()
            started.wait()

    def table(self, user: str = "root") -> str:
        """A user's crontab."""
        path = self.tables / user
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Cron:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._holder.kill()
        self._holder.communicate()
        assert not processes.alive(self._holder.pid)
