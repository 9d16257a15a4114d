# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""What installed packages depend on besides the listed files, and why another release may not be able to use them.

npm, pip and the like also run scripts of the release and install packages that lie in it. Lock files do not tell the
result of that. So it is either made part of the key, or not copied from another release.
"""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set
from urllib.parse import unquote, urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _tree

NPM_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
_OTHER_LOCKS = ("yarn.lock", "pnpm-lock.yaml", "bun.lock")
_INSTALL_SCRIPTS = "preinstall install postinstall prepublish preprepare prepare postprepare".split()
_INCLUDED = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)(?:\s+|=)(\S+)", re.MULTILINE)
_LOCAL = re.compile(r"(?:file|link|portal|workspace):")
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def normalised(name: str, data: bytes) -> bytes:
    """The content of a listed file without the version of the app itself, which does not change what is installed."""
    base = os.path.basename(name)
    if base != "package.json" and base not in NPM_LOCKS:
        return data
    try:
        document = json.loads(data.decode("utf-8"))
        document.pop("version", None)
        if base in NPM_LOCKS:
            document.get("packages", {}).get("", {}).pop("version", None)
    except (ValueError, AttributeError):
        return data
    return json.dumps(document, sort_keys=True).encode()


def referred(release: str, files: Sequence[str]) -> Dict[str, str]:
    """Hashes of what the listed files refer to in the release: local packages, more requirements files."""
    found: Dict[str, str] = {}
    for name in files:
        directory, base = os.path.split(name)
        if base in NPM_LOCKS:
            for path in [*_npm_copied(_document(release, name)), *_prisma_schemas(release, name)]:
                _add(found, release, os.path.normpath(os.path.join(directory, path)))
        elif base.endswith((".txt", ".in")):
            _add_requirements(found, release, name, set())
    return found


def _add(found: Dict[str, str], release: str, path: str) -> None:
    try:
        found[path] = _tree.content(os.path.join(release, path))
    except OSError as error:
        found[path] = "not read: %s" % error.strerror


def _add_requirements(found: Dict[str, str], release: str, name: str, seen: Set[str]) -> None:
    if name in seen:
        return
    seen.add(name)
    for included in _INCLUDED.findall(_text(release, name)):
        if "://" not in included:
            path = os.path.normpath(os.path.join(os.path.dirname(name), included))
            _add(found, release, path)
            _add_requirements(found, release, path, seen)


def why_not_copied(release: str, files: Sequence[str], commands: Sequence[str]) -> Optional[str]:
    """Why the packages for these files have to be installed. None: they may be copied from another release."""
    for name in files:
        directory, base = os.path.split(name)
        if base != "package.json" and base not in NPM_LOCKS and base not in _OTHER_LOCKS:
            continue
        reason = _runs_scripts(release, os.path.join(directory, "package.json"), commands)
        if base in NPM_LOCKS:
            reason = reason or _npm_spreads(release, name, directory, commands)
        elif base in _OTHER_LOCKS and _LOCAL.search(_text(release, name)):
            reason = reason or "%s names packages that lie in the release" % name
        if reason:
            return reason
    return None


def _runs_scripts(release: str, name: str, commands: Sequence[str]) -> Optional[str]:
    """The reason is an install script of the app: it may read and write anything."""
    scripts = _document(release, name).get("scripts")
    own = [script for script in _INSTALL_SCRIPTS if isinstance(scripts, dict) and scripts.get(script)]
    if not own or all("--ignore-scripts" in command for command in commands):
        return None
    npmrc = _text(release, os.path.join(os.path.dirname(name), ".npmrc"))
    if re.search(r"^\s*ignore-scripts\s*=\s*true\s*$", npmrc, re.MULTILINE):
        return None
    return "%s has the install script %s, and no lock file tells what that does" % (name, own[0])


def _npm_spreads(release: str, name: str, directory: str, commands: Sequence[str]) -> Optional[str]:
    lock = _document(release, name)
    packages = lock.get("packages")
    if not isinstance(packages, dict):
        has_local = '"file:' in json.dumps(lock)
        return "%s has an old format and names packages that lie in the release" % name if has_local else None
    for path, entry in packages.items():
        if "node_modules/" in path and not path.startswith("node_modules/"):
            return "%s also installs %s" % (name, path)
        if isinstance(entry, dict) and entry.get("link"):
            manifest = os.path.join(directory, str(entry.get("resolved") or path), "package.json")
            reason = _runs_scripts(release, os.path.normpath(manifest), commands)
            if reason:
                return reason
    return None


def _npm_copied(lock: Dict[str, Any]) -> Iterator[str]:
    """Directories and archives of the release that npm copies into node_modules and does not link."""
    packages = lock.get("packages")
    for entry in packages.values() if isinstance(packages, dict) else ():
        if isinstance(entry, dict) and not entry.get("link") and str(entry.get("resolved")).startswith("file:"):
            yield entry["resolved"][len("file:") :]


def _prisma_schemas(release: str, name: str) -> List[str]:
    """The schemas of the app: @prisma/client generates code from them when it is installed."""
    packages = _document(release, name).get("packages")
    if not isinstance(packages, dict) or "node_modules/@prisma/client" not in packages:
        return []
    settings = _document(release, os.path.join(os.path.dirname(name), "package.json")).get("prisma")
    given = settings.get("schema") if isinstance(settings, dict) else None
    return ["prisma", "schema.prisma", *([given] if isinstance(given, str) else [])]


def check_python(environment: str, old_release: str, new_release: str) -> None:
    """Raises _tree.NotReusable if a virtual environment holds a package of its release that differs in the new one."""
    pattern = os.path.join(
        glob.escape(environment), "lib*", "python*", "site-packages", "*.dist-info", "direct_url.json"
    )
    for path in sorted(glob.glob(pattern)):
        package = os.path.basename(os.path.dirname(path))
        try:
            with open(path, encoding="utf-8") as stream:
                document = json.load(stream)
            url = urlsplit(document["url"])
            is_editable = bool((document.get("dir_info") or {}).get("editable"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise _tree.NotReusable("the origin of %s cannot be read" % package) from None
        if url.scheme == "file":
            _check_python_source(package, unquote(url.path), is_editable, old_release, new_release)


def _check_python_source(package: str, source: str, is_editable: bool, old_release: str, new_release: str) -> None:
    inside = os.path.relpath(os.path.realpath(source), os.path.realpath(old_release))
    if inside == ".." or inside.startswith("../"):
        raise _tree.NotReusable("%s was installed from %s, which may have changed" % (package, source))
    old, new = os.path.join(old_release, inside), os.path.join(new_release, inside)
    if is_editable:
        are_same = all(_content(old, name) == _content(new, name) for name in _PROJECT_FILES)
    else:
        are_same = inside != "." and _content(old) is not None and _content(old) == _content(new)
    if not are_same:
        raise _tree.NotReusable("%s was installed from the release itself, and may differ in this one" % package)


def _content(*path: str) -> Optional[str]:
    try:
        return _tree.content(os.path.join(*path))
    except OSError:
        return None


def _text(release: str, name: str) -> str:
    try:
        with open(os.path.join(release, name), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _document(release: str, name: str) -> Dict[str, Any]:
    try:
        found = json.loads(_text(release, name))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
