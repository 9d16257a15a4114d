"""The Context of a test's PM2_HOME, and the start of an app as the modules do it: its payloads go to `prepare`."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App, Context, build_apps
from support import places
from support.pm2 import Pm2Home

MARKER = {"hash": "test"}


def package_of(version: str) -> Path:
    """The directory of the pm2 package of a version."""
    return places.CACHE / "pm2" / version / "node_modules" / "pm2"


def context_of(home: Pm2Home) -> Context:
    """The Context as the modules compute it. It has only PATH of this process's environment."""
    user = getpass.getuser()
    node = os.path.realpath(str(shutil.which("node")))
    version = json.loads((package_of(home.version) / "package.json").read_text())["version"]
    major, minor, patch = (int(part) for part in version.split("."))
    base_env = {
        "PATH": os.environ["PATH"],
        "HOME": str(places.HOME),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "PM2_HOME": home.home,
    }
    return Context(
        pm2_home=home.home,
        pm2_version=(major, minor, patch),
        node=node,
        user=pwd.getpwuid(os.getuid()).pw_name,
        uid=os.getuid(),
        home=str(places.HOME),
        cpus=os.cpu_count() or 1,
        base_env=base_env,
        pm2_dir=str(package_of(home.version)),
    )


def plain_context(directory: Path, **changes: Any) -> Context:
    """A context for tests that start no process: PM2 7, not root, two CPUs, with ``changes``."""
    node = str(shutil.which("node"))
    base_env = {"PATH": os.environ["PATH"], "HOME": str(directory), "USER": "ann", "PM2_HOME": str(directory / "pm2")}
    context = Context(
        pm2_home=str(directory / "pm2"),
        pm2_version=(7, 0, 4),
        node=node,
        user="ann",
        uid=1000,
        home=str(directory),
        cpus=2,
        base_env=base_env,
    )
    return context._replace(**changes)


def start_daemon(home: Pm2Home) -> None:
    """Start a daemon with the clean environment that the modules give it."""
    home.cli("ping", env=context_of(home).base_env)


def prepare(home: Pm2Home, app: App, marker: Optional[Dict[str, Any]] = None) -> None:
    """Start every instance of an app as the modules do."""
    for directory in app.log_dirs:
        os.makedirs(directory, exist_ok=True)
    for slot in range(app.instances):
        home.rpc("prepare", app.payload(slot, marker or MARKER))


def build_one(home: Pm2Home, definition: Mapping[str, Any], base_dir: Path, namespace: str = "default") -> App:
    """The app of one definition."""
    return build(home, [definition], base_dir, namespace)[0]


def build(
    home: Pm2Home, definitions: Sequence[Mapping[str, Any]], base_dir: Path, namespace: str = "default"
) -> List[App]:
    """The apps of definitions. Relative paths start at ``base_dir``."""
    return build_apps(definitions, context_of(home), namespace, str(base_dir))
