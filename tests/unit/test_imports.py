"""Imports in module_utils go one way: a room imports only the rooms below it in the map.

`MAY_IMPORT` is the map of docs/architecture.md. Core; costs a second.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest
from support import places

PLUGINS = places.ROOT / "plugins"
PACKAGE = "ansible_collections.nodeops.pm2.plugins"
TOP = ""
"""Files beside the rooms, with what every module needs."""

MAY_IMPORT: Dict[str, Set[str]] = {
    "host": set(),
    "definition": {"host"},
    "pm2": {"definition"},
    "namespace": {"pm2"},
    "source": {"host"},
    "builder": {"host"},
    "release": {"namespace", "source", "builder"},
    "store": {"host"},
    "pm2_backup": {"namespace", "store"},
    "postgres": {"namespace", "store"},
    "jobs": {"pm2_backup", "postgres"},
    TOP: {"host"},
}
"""For each room, the rooms that it may import, and so all that those may import."""
TOP_FILES = {"_module.py", "_pg_module.py"}


def allowed(room: str) -> Set[str]:
    """The rooms that a file of this room may import, its own included."""
    return {room}.union(*(allowed(below) for below in MAY_IMPORT[room]))


def imported(source: str) -> Iterator[str]:
    """The modules that a source imports from the collection, by their names below `plugins`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        yield from (name[len(PACKAGE) + 1 :] for name in found if name.startswith(PACKAGE + "."))


def room_of(module: str) -> str:
    """The room of `module_utils.<room>.<file>…` or `module_utils.<file>…`."""
    kind, first = module.split(".")[:2]
    assert kind == "module_utils", f"{module} is not code that others may import"
    return TOP if first.startswith("_") else first


def not_allowed(room: str, source: str) -> List[str]:
    """The imports of a file in `room` that the map does not allow."""
    return [module for module in imported(source) if room_of(module) not in allowed(room)]


def files() -> List[Tuple[str, Path]]:
    """Each file of module_utils and its room."""
    base = PLUGINS / "module_utils"
    return [("" if path.parent == base else str(path.parent.relative_to(base)), path) for path in base.rglob("*.py")]


def test_each_file_is_in_a_room() -> None:
    assert {room for room, _path in files()} == set(MAY_IMPORT)
    assert {path.name for room, path in files() if room == TOP} == TOP_FILES


@pytest.mark.parametrize("room", MAY_IMPORT, ids=lambda room: room or "top")
def test_a_room_imports_only_what_the_map_allows(room: str) -> None:
    sources = {path: path.read_text() for its_room, path in files() if its_room == room}
    assert sources
    wrong = {path.name: found for path, source in sources.items() if (found := not_allowed(room, source))}
    assert wrong == {}


def test_no_file_of_a_room_imports_ansible() -> None:
    """A job on a host runs without Ansible."""
    for room, path in files():
        if room != TOP:
            assert "from ansible." not in path.read_text(), path


@pytest.mark.parametrize(
    ("room", "line", "wrong"),
    [
        ("host", "from {}.module_utils.pm2 import _daemon", ["module_utils.pm2._daemon"]),
        ("host", "from {}.module_utils.pm2._daemon import find", ["module_utils.pm2._daemon.find"]),
        ("host", "def late():\n    import {}.module_utils.pm2._daemon", ["module_utils.pm2._daemon"]),
        ("store", "from {}.module_utils.postgres import _psql", ["module_utils.postgres._psql"]),
        ("postgres", "from {}.module_utils.pm2_backup import _dump_backup", ["module_utils.pm2_backup._dump_backup"]),
        ("namespace", "from {}.module_utils import _module", ["module_utils._module"]),
        ("namespace", "from {}.module_utils.host import _files", []),
        ("jobs", "from {}.module_utils.pm2._daemon import find", []),
        ("jobs", "from {}.module_utils.release import _live", ["module_utils.release._live"]),
        (TOP, "from {}.module_utils.store import _store", ["module_utils.store._store"]),
    ],
)
def test_an_upward_import_is_found(room: str, line: str, wrong: List[str]) -> None:
    assert not_allowed(room, line.format(PACKAGE)) == wrong
