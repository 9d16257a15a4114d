# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks that are full or cannot be written, at each stage. Run by test_faults.py in mounts of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import pytest
from support import faults
from support.faults import Before, Expected, Faulty, World, small_disk

pytestmark = pytest.mark.timeout(900)  # seconds; a run of ansible-playbook for each, and other tests beside them

ROOT_SIZE, HOME_SIZE = 3000, 3000  # KiB
LARGE = 4 << 20  # bytes
PADDING = 32 << 10  # bytes

FILL = """\
const fs = require('fs');
const fill = (path, leave) => {
  const file = fs.openSync(path, 'w');
  let size = 0;
  try {
    for (;;) size += fs.writeSync(file, Buffer.alloc(4096));
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error;
  }
  fs.ftruncateSync(file, Math.max(0, size - leave));
};
"""


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """deploy_root and PM2_HOME each on a small disk. At the end, with room again, a deploy works."""
    directory = tmp_path_factory.mktemp("disks")
    small_disk(directory / "pm2", HOME_SIZE)
    small_disk(directory / "production", ROOT_SIZE)
    yield from faults.world(directory)
    faults.unmount_below(directory)


@pytest.fixture(name="site")
def _site(world: World) -> Iterator[Faulty]:
    """The site with a new version; afterwards there is room again."""
    site = world[0]
    shutil.rmtree(site.source)
    site.renew()
    yield site
    for path in (site.root() / "filled", Path(site.pm2.home, "filled")):
        path.unlink(missing_ok=True)


@pytest.fixture(name="before")
def _before(world: World, site: Faulty) -> Before:
    return Before(*world)


def node(text: str, *arguments: object) -> List[str]:
    """A command that can fill a disk."""
    return ["node", "-e", FILL + text, *map(str, arguments)]


def hook(site: Faulty, command: Sequence[str]) -> Dict[str, Any]:
    """What is done after the build, before anything is published."""
    path = site.directory / "hook.yml"
    path.write_text(json.dumps([{"name": "Fill", "ansible.builtin.command": {"argv": list(command)}}]))
    return {"deploy_hooks": {"before_publish": str(path), "before_rollback": str(path)}}


def no_room_to_fetch(site: Faulty) -> Expected:
    """What is said wherever the source comes from."""
    words = [
        f"The disk that holds {site.root()}/releases/.preparing-",
        "is full",
        "Free some space (keep fewer releases: keep)",
    ]
    return Expected("prepare", words)


def test_fetch(site: Faulty, before: Before) -> None:
    (site.source / "large").write_bytes(bytes(LARGE))
    before.check(site.deploy(), no_room_to_fetch(site))


def test_fetch_of_a_repository(site: Faulty, before: Before) -> None:
    (site.source / "large").write_bytes(bytes(range(256)) * (LARGE // 256))
    for command in ("init --quiet", "add --all", "-c user.name=a -c user.email=a@b commit --quiet -m x"):
        subprocess.run(["git", "-C", str(site.source), *command.split()], check=True)
    site.write_inventory(deploy_source_type="git")
    before.check(site.deploy(), no_room_to_fetch(site))


def test_build(site: Faulty, before: Before) -> None:
    site.write_inventory(deploy_build=[["node", "-e", f"fs.writeFileSync('bundle.js', Buffer.alloc({LARGE}))"]])
    words = ["Build failed: node -e", "ENOSPC", "The disk is full: make room, then run again."]
    before.check(site.deploy(), Expected("build", words))


def test_build_that_leaves_no_byte(site: Faulty, before: Before) -> None:
    site.write_inventory(deploy_build=[node("fill('bundle.js', 0)")])
    words = [f"{faults.MANIFEST} could not be written: No space left on device", "Make room on its disk"]
    before.check(site.deploy(), Expected("build", words))


def test_publish_with_a_full_deploy_root(site: Faulty, before: Before) -> None:
    site.write_inventory(**hook(site, node("fill(process.argv[1], 0)", site.root() / "filled")))
    words = [
        f"{site.root()}/.nodeops/definitions/",
        "could not be written: No space left on device",
        "Make room on its disk",
    ]
    before.check(site.deploy(), Expected("publish", words))


def test_publish_with_a_full_pm2_home(site: Faulty, before: Before) -> None:
    site.write_inventory(**hook(site, node("fill(process.argv[1], 0)", Path(site.pm2.home, "filled"))))
    words = [
        f"The journal {site.pm2.home}/nodeops/production.journal could not be written",
        "No space left",
        "Make room on its disk",
    ]
    before.check(site.deploy(), Expected("publish", words))


@pytest.mark.parametrize(("leave", "what"), [(0, "The journal"), (PADDING // 2, "dump.pm2")])
def test_pm2_home_is_filled_by_the_new_version(site: Faulty, before: Before, leave: int, what: str) -> None:
    """At the last moment: all have proven themselves, and it cannot be written down."""
    path = site.source / "app.js"
    once = f"if (process.env.NODE_APP_INSTANCE === '0') fill({str(Path(site.pm2.home, 'filled'))!r}, {leave});\n"
    path.write_text(FILL + once + path.read_text())
    site.write_inventory(deploy_environment={"PADDING": "x" * PADDING})
    words = [
        what,
        "could not be written",
        "No space left on device",
        "Everything is as before",
        "Make room on its disk",
    ]
    before.check(site.deploy(), Expected("publish", words, makes_room=["worker"]))


@pytest.mark.parametrize("app", [0, 1], ids=["cluster", "fork"])
def test_log_directory_that_cannot_be_written(site: Faulty, before: Before, app: int) -> None:
    logs = site.directory / f"logs-{app}"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=16k", "none", str(logs)], check=True)
    processes = site.describe("production")["deploy_processes"]
    processes[app]["error_file"] = str(logs / "error.log")
    site.write_inventory(deploy_processes=processes)
    words = [["api", "worker"][app], f"{logs}/error", "Everything is as before"]
    before.check(site.deploy(), Expected("publish", words, is_bad=True, makes_room=["worker"][:app]))


def test_rollback_with_a_full_pm2_home(site: Faulty, world: World) -> None:
    site.deployed()
    before = Before(*world)
    site.write_inventory(**hook(site, node("fill(process.argv[1], 0)", Path(site.pm2.home, "filled"))))
    words = [
        f"The journal {site.pm2.home}/nodeops/production.journal could not be written",
        "No space left",
        "Make room on its disk",
    ]
    before.check(site.play("rollback"), Expected("rollback", words), "rollback")
