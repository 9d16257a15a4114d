"""A deploy that fails: what its message has to say, and what has to be as it was before it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from support import observe, own_process
from support.apps import free_port, http_app
from support.namespaces import Namespace, home_in
from support.playbooks import Run, Site
from support.pm2 import Pm2Home

MANIFEST = ".nodeops-release.json"
OWN_MOUNTS = "NODEOPS_TEST_OWN_MOUNTS"


class Faulty(Site):
    """A site whose source holds a version that was never deployed: `version`, of which `renew` makes a bad one."""

    version = "1"
    _numbers = itertools.count(2)

    def renew(self, **options: Any) -> None:
        """A new version in a new source; `options` as those of http_app."""
        self.version = f"v{next(self._numbers)}"
        self.release(self.version, **options)
        self.write_inventory()


class Neighbour:
    """A namespace of its own on the same daemon, with an app and its entry in the dump."""

    def __init__(self, pm2: Pm2Home, directory: Path) -> None:
        self._pm2 = pm2
        self._namespace = Namespace(pm2, "neighbour")
        path = http_app(directory, "neighbour")
        env = {"PORT": free_port()}
        self._namespace.bring([{"name": "api", "script": path, "cwd": str(directory), "env": env}])
        deadline = time.monotonic() + 60
        while not self._namespace.processes()[0]["pm2_env"].get("node_version"):  # PM2 fills it in when it knows it
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self._seen = observe.look(self._namespace.processes())
        self._saved = self._entries()
        assert len(self._seen) == len(self._saved) == 1

    def _entries(self) -> List[Dict[str, Any]]:
        return [entry for entry in observe.dump_entries(self._pm2.dump) if entry["namespace"] == "neighbour"]

    def assert_unmoved(self) -> None:
        """No pid, no count, no variable, no entry of the dump."""
        moved = list(observe.changes(self._seen, observe.look(self._namespace.processes())))
        assert not moved, moved
        assert self._entries() == self._saved


World = Tuple[Faulty, Neighbour]


def world(directory: Path) -> Iterator[World]:
    """A site and a neighbour on one daemon. At the end, after all that has failed, a deploy works."""
    with home_in(directory, "7.0") as pm2:
        site = Faulty(pm2, directory)
        site.deployed()
        yield site, Neighbour(pm2, directory / "neighbour")
        site.renew()
        site.deployed()
        assert site.served() == {site.version}


class Expected(NamedTuple):
    """How a run fails."""

    stage: str
    words: Sequence[str]
    """What the last message has to hold: what failed, with which value, what to do."""
    is_bad: bool = False
    """Whether the new release stays, marked bad: its gate refused it. Otherwise nothing is left of it."""
    is_recorded: bool = True
    """Whether the history tells: of what is refused before anything is begun it does not."""
    knows_current: bool = True
    """Whether the message tells what `current` names."""
    makes_room: Sequence[str] = ()
    """Apps that may have been stopped and started again."""


class Before:
    """A site that serves. Made before a run that fails, and compared with what is there after it."""

    def __init__(self, site: Site, neighbour: Neighbour) -> None:
        self._site = site
        self._neighbour = neighbour
        self._root = site.root()
        self._link = os.readlink(self._root / "current")
        self.release = Path(self._link).name
        self._live = site.live()
        self._saved = site.saved()
        self.releases = site.releases()
        self._history = history(self._root)
        self._definitions = definitions(self._root)
        self.version = served(site)

    def check(self, run: Run, expected: Expected, action: str = "deploy") -> None:
        """The whole of it, but for what the caller has broken by hand."""
        message, reason = run.message, self._result(run, expected)
        for word in expected.words:
            assert word in message, f"{word!r} is not in: {message}"
        assert f'failed at "{expected.stage}"' in message
        if expected.knows_current:
            assert f"current still names {self.release}." in message
        assert os.readlink(self._root / "current") == self._link
        self.check_processes(expected.makes_room)
        self._check_releases(expected, reason)
        self._check_history(expected, reason, action)
        self.check_left()

    def _result(self, run: Run, expected: Expected) -> str:
        assert run.code == 2, run.output
        assert "Traceback" not in run.output, run.output
        result = run.results["production"]
        assert (result["result"], result["stage"]) == ("failed", expected.stage), run.output
        if expected.knows_current:
            assert result["current"] == self.release
        return str(result["reason"]).strip()

    def check_processes(self, makes_room: Sequence[str] = ()) -> None:
        """The same processes serve the same version, and the dump holds them."""
        assert served(self._site) == self.version
        now = self._site.live()
        assert now.keys() == self._live.keys()
        for key, process in self._live.items():
            if key[0] in makes_room:
                assert now[key][2:] == process[2:]
            else:
                assert now[key] == process
        assert self._site.saved() == self._saved
        self._neighbour.assert_unmoved()

    def _check_releases(self, expected: Expected, reason: str) -> None:
        new = [name for name in self._site.releases() if name not in self.releases]
        assert set(self.releases) <= set(self._site.releases())
        assert len(new) == (1 if expected.is_bad else 0), new
        for name in new:
            manifest = json.loads((self._root / "releases" / name / MANIFEST).read_text())
            assert manifest["status"] == "bad"
            assert manifest["reason"] == reason
        for name in self.releases:
            path = self._root / "releases" / name / MANIFEST
            assert not path.exists() or json.loads(path.read_text())["status"] != "prepared"

    def _check_history(self, expected: Expected, reason: str, action: str) -> None:
        told = history(self._root)[len(self._history) :]
        assert len(told) == (1 if expected.is_recorded else 0), told
        for line in told:
            assert (line["action"], line["result"], line["stage"]) == (action, "failed", expected.stage)
            assert line["reason"] == reason

    def check_left(self) -> None:
        """Nothing unfinished, and no lock."""
        check_left(self._root, self._site.pm2)
        known = {f"{name}.json" for name in self._site.releases()}
        assert definitions(self._root) <= known | self._definitions


def definitions(root: Path) -> Set[str]:
    """The files that say what releases consist of."""
    return {path.name for path in (root / ".nodeops" / "definitions").iterdir()}


def check_left(root: Path, pm2: Pm2Home) -> None:
    """Nothing unfinished lies about, and the lock is free."""
    releases = sorted(path.name for path in (root / "releases").iterdir())
    assert [name for name in releases if name.startswith(".")] == []
    assert [path.name for path in (root / ".nodeops").iterdir() if path.name.startswith(("tmp", "."))] == []
    assert [path.name for path in root.iterdir() if path.name.endswith(".new")] == []
    state = Path(pm2.home, "nodeops")
    assert [path.name for path in state.iterdir() if path.name.endswith((".journal", ".new"))] == []
    assert not [path.name for path in Path(pm2.home).iterdir() if path.name.endswith(".new")]
    assert is_free(root)


def is_free(root: Path) -> bool:
    """Whether nobody has the lock of this deploy_root."""
    try:
        handle = os.open(root / ".nodeops" / "deploy.lock", os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def history(root: Path) -> List[Dict[str, Any]]:
    """The lines of deploys.jsonl."""
    path = root / "deploys.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def served(site: Site) -> str:
    """The one version that answers."""
    (version,) = site.served()
    return version


def run_in_own_mounts(path: Path, basetemp: Path, tier: str = "") -> Optional[str]:
    """Run a file of tests where it may mount what it likes: nobody else sees it, and it ends with them.

    `tier` chooses by markers, as -m does. None when they have passed, else what pytest has printed. Raises OSError
    where the machine has no such namespaces.
    """
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if probe.returncode != 0:
        raise OSError(probe.stderr.decode().strip())
    return own_process.run_tests(path, basetemp, unshare, {OWN_MOUNTS: "1"}, tier)


def small_disk(path: Path, kilobytes: int) -> None:
    """Mount a new, empty disk of that size. Only below `run_in_own_mounts`."""
    assert os.environ.get(OWN_MOUNTS), "this would be seen by the whole machine"
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={kilobytes}k,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)


def unmount_below(directory: Path) -> None:
    """Take away the disks that were mounted there."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
