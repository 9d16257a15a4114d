# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""The dependencies of a release: copied from an earlier good release if they would be the same, else installed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _packages, _tree
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _commands
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor

_VERSION = 1
_RUNTIME_TIMEOUT = 60.0
_CACHES = frozenset((".cache", ".vite", ".vite-temp"))
"""Directories directly below node_modules that tools write to when they build or run. They can be left out."""
_OPTIONS = re.compile("NODE_ENV|NODE_OPTIONS|CC|CXX|CFLAGS|CXXFLAGS|LDFLAGS|(?:npm_config|pip|uv|pnpm|yarn)_.*", re.I)
SECRET = re.compile("token|auth|password|passwd|secret|key|cert", re.I)

Earlier = Sequence[Tuple[str, Mapping[str, Any]]]
"""Directories of earlier good releases, the best one first, each with what ``ensure`` returned for it."""


class Item(NamedTuple):
    """One entry of ``dependencies``, checked."""

    path: str
    files: List[str]
    runtime: Optional[_commands.Command]
    commands: List[_commands.Command]
    copy: bool


def check(item: Mapping[str, Any]) -> Item:
    """An entry of ``dependencies``, typed. Raises NodeopsError that says what is wrong.

    With ``copy: false`` they are always installed. Unless ``copy`` is ``true``, they are also installed if they depend
    on more than lock files (install scripts of the app).
    """
    path = _inside(item.get("path"), "path")
    files = [_inside(name, "files") for name in item.get("files") or ()]
    commands = list(item.get("commands") or ())
    if not files or not commands:
        raise NodeopsError(
            "dependencies: the entry for %s has no %s. Nothing was installed. Give %s."
            % (path, "files" if not files else "commands", "the lock file" if not files else "what installs them")
        )
    for command in commands:
        _commands.arguments(command)
    return Item(path, files, item.get("runtime") or None, commands, item.get("copy") is not False)


def _inside(path: object, what: str) -> str:
    plain = os.path.normpath(path) if isinstance(path, str) and path else "."
    if plain in (".", "..") or plain.startswith(("/", "../")) or "\0" in plain:
        raise NodeopsError(
            "dependencies: %s has %r, which is not a path inside the release. Nothing was installed. Give a path "
            "relative to the release, without '..'." % (what, path)
        )
    return plain


def key(item: Item, release: str, environment: Mapping[str, str], redactor: Redactor, more: str = "") -> str:
    """A hash of everything that decides what is installed.

    It covers the listed files (without the app's own version), what these refer to in the release, the output of
    ``runtime``, the commands, options of npm and pip in the environment, the machine and its C library, and ``more``
    (anything else that the caller knows). Raises NodeopsError if no listed file exists or the runtime does not run.
    """
    facts = {
        "version": _VERSION,
        "path": item.path,
        "files": _hashes(item, release),
        "further": _packages.referred(release, item.files),
        "runtime": _runtime(item, release, environment, redactor),
        "commands": [_commands.arguments(command) for command in item.commands],
        "options": {
            name: value
            for name, value in sorted(environment.items())
            if _OPTIONS.fullmatch(name) and not SECRET.search(name)
        },
        "machine": [platform.system(), platform.machine(), _libc()],
        "more": more,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


def _hashes(item: Item, release: str) -> Dict[str, Optional[str]]:
    found: Dict[str, Optional[str]] = {}
    for name in item.files:
        try:
            with open(os.path.join(release, name), "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            found[name] = None
            continue
        except OSError as error:
            raise NodeopsError(
                "%s of the release cannot be read: %s. %s was not installed." % (name, error.strerror, item.path)
            ) from error
        found[name] = hashlib.sha256(_packages.normalised(name, data)).hexdigest()
    if not any(found.values()):
        raise NodeopsError(
            "The release has none of %s, so it is not known what to install in %s. Nothing was installed. Correct the "
            "entry of deploy_dependencies, or set that to [] if nothing is to be installed."
            % (", ".join(item.files), item.path)
        )
    return found


def _runtime(item: Item, release: str, environment: Mapping[str, str], redactor: Redactor) -> str:
    if item.runtime is None:
        return ""
    what = "asking for the runtime of %s" % item.path
    return _commands.output(item.runtime, release, dict(environment), _RUNTIME_TIMEOUT, redactor, what).strip()


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        return "not glibc"


def ensure(
    item: Mapping[str, Any],
    release: str,
    earlier: Earlier,
    environment: Dict[str, str],
    timeout: float,
    redactor: Redactor,
    more: str = "",
) -> Dict[str, Any]:
    """Make ``path`` exist in ``release``. ``timeout``: seconds for each command. ``more``: as for ``key``.

    It is copied from the first of ``earlier`` that has the same key and was not changed since it was made. If there is
    none, or copying fails, the commands run. Returns path, key, taken_from (the directory of a release, or None), note
    (why an earlier one was not copied, or None), seconds, and state (a later call finds changes by it). Raises
    NodeopsError.
    """
    started = time.monotonic()
    checked = check(item)
    target = os.path.join(release, checked.path)
    _check_place(checked.path, target)
    found = key(checked, release, environment, redactor, more)
    notes: List[str] = []
    taken = _copy_from_earlier(checked, release, found, earlier, item.get("copy") is True, notes)
    if taken is None:
        _commands.run(checked.commands, release, environment, timeout, redactor, "installing " + checked.path)
        _check_made(checked, target, redactor)
    source, state = taken or (None, _state(checked, target))
    return {
        "path": checked.path,
        "key": found,
        "taken_from": source,
        "note": redactor.text(notes[0]) if notes and source is None else None,
        "seconds": round(time.monotonic() - started, 3),
        "state": state.as_dict() if state else None,
    }


def _check_place(path: str, target: str) -> None:
    if os.path.islink(target):
        raise NodeopsError(
            "%s of the release is a link to %s: installing there would change what other releases use. Nothing was "
            "installed. Remove %s from deploy_shared, or from the source." % (path, os.readlink(target), path)
        )


def _check_made(item: Item, target: str, redactor: Redactor) -> None:
    if os.path.exists(target):
        return
    commands = "; ".join(_commands.shown(_commands.arguments(command), redactor) for command in item.commands)
    raise NodeopsError(
        "%s does not exist after %s. The release cannot be used. Correct path or commands of that entry of "
        "deploy_dependencies (an app without dependencies needs no entry)." % (item.path, commands)
    )


def _state(item: Item, target: str) -> Optional[_tree.State]:
    """None if it cannot be read: then later releases do not copy from this one."""
    try:
        return _tree.state(target, _rules(item.path))
    except OSError:
        return None


def _rules(path: str) -> _tree.Rules:
    """Caches belong to no release. What tools write later from what the key covers is volatile: see ``Rules``."""
    caches = _CACHES if os.path.basename(path) == "node_modules" else ()

    def is_volatile(name: str) -> bool:
        is_compiled = name.endswith((".pyc", "__pycache__")) or "__pycache__/" in name
        return is_compiled or name == ".prisma" or name.startswith(".prisma/")

    return _tree.Rules(is_skipped=lambda name: name in caches, is_volatile=is_volatile)


def _copy_from_earlier(
    item: Item, release: str, wanted: str, earlier: Earlier, is_trusted: bool, notes: List[str]
) -> Optional[Tuple[str, Optional[_tree.State]]]:
    """Copy from the first fit release. Returns it and the state of the copy; None if nothing was copied."""
    if not item.copy:
        return None
    fit = [(path, known) for path, known in earlier if known.get("key") == wanted]
    commands = [" ".join(_commands.arguments(command)) for command in item.commands]
    reason = None if is_trusted or not fit else _packages.why_not_copied(release, item.files, commands)
    if reason:
        notes.append(reason)
        return None
    for path, known in fit:
        try:
            return path, _copy(item, path, known, release)
        except _tree.NotReusable as unusable:
            notes.append("that of %s was not copied: %s" % (path, unusable))
        except OSError as error:
            place = " (%s)" % os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
            notes.append("that of %s was not copied: %s%s" % (path, error.strerror, place))
    return None


def _copy(item: Item, earlier: str, known: Mapping[str, Any], release: str) -> _tree.State:
    source, target = os.path.join(earlier, item.path), os.path.join(release, item.path)
    if os.path.islink(source) or not os.path.isdir(source):
        raise _tree.NotReusable("it is not a directory any more")
    _packages.check_python(source, earlier, release)

    def accept(state: _tree.State) -> None:
        if state.as_dict() != known.get("state"):
            raise _tree.NotReusable("it was changed since it was made")

    os.makedirs(os.path.dirname(target), exist_ok=True)
    return _tree.copy(source, target, _rules(item.path), _tree.PathRewrite(earlier, release), accept)
