"""Namespaces of an application that reads its environment from a file when it starts, as dotenv does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping

from support import observe
from support.apps import QUICK
from support.namespaces import Namespace
from support.pm2 import Pm2Home

READER = """\
const fs = require('fs');
const text = fs.readFileSync(process.env.ENV_FILE, 'utf8');
const read = Object.fromEntries(text.split('\\n').filter(Boolean).map((line) => line.split('=')));
if (read.COLOUR === 'broken') throw new Error('cannot use token ' + read.TOKEN);
console.log(process.env.name + ' reads ' + read.COLOUR);
fs.writeFileSync(`${process.env.TELL}.${process.env.NODE_APP_INSTANCE || 0}`, read.COLOUR);
setInterval(() => {}, 1000);
"""


class Readers:
    """A namespace of fork apps that read one `.env`. `told` is what each has read last."""

    def __init__(self, pm2: Pm2Home, name: str, directory: Path) -> None:
        self.pm2 = pm2
        self.name = name
        self.directory = directory
        self.env_file = directory / ".env"
        self.namespace = Namespace(pm2, name)
        directory.mkdir(parents=True, exist_ok=True)
        if not Path(directory, "reader.js").exists():
            Path(directory, "reader.js").write_text(READER)

    def write(self, colour: str, token: str = "t0ken-of-the-first") -> None:
        """Write the file that the apps read."""
        self.env_file.write_text(f"COLOUR={colour}\nTOKEN={token}\n")
        self.env_file.chmod(0o640)

    def app(self, name: str, **more: Any) -> Dict[str, Any]:
        """A definition."""
        env = {"ENV_FILE": str(self.env_file), "TELL": str(self.directory / name), **more.pop("env", {})}
        return {"name": name, "script": "reader.js", "cwd": str(self.directory), "env": env, **QUICK, **more}

    def bring(self, *names: str, **more: Any) -> None:
        """Make exactly these apps run."""
        self.namespace.bring([self.app(name, **more) for name in names], prune=True)

    def told(self, *names: str) -> List[str]:
        """What the running processes have read. Waits until each has."""
        started = {item["name"]: item["pm2_env"]["pm_uptime"] for item in self.namespace.processes()}
        return [self._told(Path(self.directory, f"{name}.0"), started[name]) for name in names]

    def _told(self, path: Path, since: int) -> str:
        deadline = time.monotonic() + 40
        while not (path.exists() and path.stat().st_mtime_ns // 1000000 >= since and path.read_text()):
            assert time.monotonic() < deadline, path
            time.sleep(0.02)
        return path.read_text()

    def settle(self) -> None:
        """Wait until PM2 has completed its list. Some keys of a process come a moment after its start."""
        deadline = time.monotonic() + 40
        while not all(item["pm2_env"].get("node_version") for item in self.namespace.processes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def live(self) -> Dict[str, Any]:
        """What a namespace that is left alone keeps, per process."""
        return {
            item["name"]: (item["pid"], item["pm2_env"]["status"], item["pm2_env"]["restart_time"])
            for item in self.namespace.processes()
        }

    def meant(self) -> Dict[str, Any]:
        """What is defined, per process: the same after a restart."""
        keys = ("status", "pm_exec_path", "pm_cwd", "COLOUR", "TOKEN", "ENV_FILE", "exec_mode", "args")
        return {
            f"{item['name']}/{item['pm2_env'].get('NODE_APP_INSTANCE')}": {k: item["pm2_env"].get(k) for k in keys}
            for item in self.namespace.processes()
        }

    def saved(self) -> List[Mapping[str, Any]]:
        """The namespace's entries in the dump."""
        return [entry for entry in observe.dump_entries(self.pm2.dump) if entry["namespace"] == self.name]


def flip(path: Path, at: int = -1) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 0x10
    mode = path.stat().st_mode & 0o777
    os.unlink(path)
    path.write_bytes(data)
    path.chmod(mode)
