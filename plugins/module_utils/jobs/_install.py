# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The jobs' code and configuration, put on this host so that they need no controller and no Ansible.

``<path>/current`` is a link to ``lib/<hash>``: the code of this collection that the jobs need, the configuration, and
``run.py``, which cron and systemd start. The link is switched by rename, so a job runs either the old code or the new.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _config, _metrics, _run
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._config import Config

PACKAGE = "ansible_collections.nodeops.pm2.plugins.module_utils"
SYSTEM_PYTHON = "/usr/bin/python3"
OLDEST = (3, 8)
_RUN = '''\
"""Run a job of this directory: run.py <job> [--quiet]. Written by nodeops.pm2; changes are lost."""

import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _run

sys.exit(_run.main([os.path.join(HERE, "config.json")] + sys.argv[1:]))
'''
_PLAIN = re.compile(r"[A-Za-z0-9/._+@:-]+\Z")  # without a special meaning for cron, systemd or a shell


class Installed(NamedTuple):
    changed: bool
    version: str
    commands: Dict[str, List[str]]


def install(document: Dict[str, Any], check_mode: bool) -> Installed:
    """Install what ``document`` (see _config) says. Raises NodeopsError, with nothing changed."""
    config = _config.parse(document)
    path = config.directory
    _check(config)
    files = {"config.json": (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), "run.py": _RUN.encode()}
    for module, source in sources().items():
        parts = module.split(".")
        files["/".join(parts) + ".py"] = source
        for depth in range(1, len(parts)):  # otherwise a package of this name on the host would be imported
            files["/".join([*parts[:depth], "__init__.py"])] = b""
    version = _hash(files)
    run = [_python(), "-I", os.path.join(path, "current", "run.py")]
    commands = {job: [*run, job, "--quiet"] for job in config.jobs}
    changed = _current(path) != version
    if changed and not check_mode:
        try:
            with _private(), _files.lock_file(os.path.join(path, "lock"), "The job was not installed", 60.0):
                former = _named(path)
                _write_version(path, version, files)
                _forget_metrics(path, config)
                _switch(path, version)
                _clean(path, version, former)
        except OSError as error:
            raise NodeopsError(
                "The job in %s cannot be installed: %s: %s. What was installed before is as it was."
                % (path, error.filename or path, _files.why(error))
            ) from error
    return Installed(changed, version, commands)


def remove(document: Dict[str, Any], check_mode: bool) -> bool:
    """Remove code, configuration and metrics. The log stays. Returns whether anything was there."""
    config = _config.parse(document)
    _trusted_path.check_parents(os.path.join(config.directory, "current"), "The directory of the job")
    link, versions = os.path.join(config.directory, "current"), os.path.join(config.directory, "lib")
    there = os.path.lexists(link) or os.path.lexists(versions)
    if there and not check_mode:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(versions)
            for job in _config.JOBS:
                if config.metrics_dir:
                    _metrics.remove(config.metrics_dir, config.name, job)
        except OSError as error:
            raise NodeopsError(
                "The job in %s cannot be removed: %s." % (config.directory, _files.why(error))
            ) from error
    return there


def sources() -> Dict[str, bytes]:
    """The source of each module that the jobs need, by its full name: _run and its imports from this collection."""
    found: Dict[str, bytes] = {}
    waiting = [_run.__name__]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _source(name).encode()
            waiting.extend(_imported(found[name].decode()))
    return found


def _source(name: str) -> str:
    """The source of a module, also if it was imported from the archive that Ansible makes of a module."""
    spec = importlib.util.find_spec(name)
    loader: Any = spec.loader if spec else None
    source = loader.get_source(name) if loader is not None else None
    if source is None:
        raise NodeopsError("The code of %s is missing. Nothing was changed. Install the collection again." % name)
    return str(source)


def _imported(source: str) -> Set[str]:
    """The modules below PACKAGE that a source imports, anywhere in it.

    The name of a module begins with ``_``. Other names in an import are names in a module.
    """
    names: Set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and ("%s." % node.module).startswith(PACKAGE + "."):
            if str(node.module).rpartition(".")[2].startswith("_"):
                names.add(str(node.module))
            else:
                names.update("%s.%s" % (node.module, alias.name) for alias in node.names)
    return names


def _hash(files: Dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(b"%s\0%d\0" % (name.encode(), len(files[name])))
        digest.update(files[name])
    return digest.hexdigest()[:16]


def _python() -> str:
    """The system's Python: the one that runs this may belong to a virtual environment, which may be removed."""
    fits = "import sys; sys.exit(sys.version_info < %r)" % (OLDEST,)
    with contextlib.suppress(OSError):
        if subprocess.run([SYSTEM_PYTHON, "-I", "-c", fits], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return SYSTEM_PYTHON
    return sys.executable


def _check(config: Config) -> None:
    """Raises NodeopsError for what would only fail when the job runs, or would let another user decide what it runs."""
    path = config.directory
    for what, value in (("path", path), ("The Python interpreter", sys.executable)):
        if not _PLAIN.match(value):
            raise NodeopsError(
                "%s must consist of letters, digits and /._+@:- for the line that a scheduler runs, not %r. "
                "Nothing was changed." % (what, value)
            )
    _trusted_path.check_parents(os.path.join(path, "current"), "The directory of the job")
    _trusted_path.check_parents(config.log, "The log of the job")
    for what, place in (("directory of the job", path), ("log of the job", config.log)):
        for dest in {str(step.params.get("dest") or "") for job in config.jobs.values() for step in job.steps} - {""}:
            if os.path.commonpath([os.path.realpath(place), os.path.realpath(dest)]) == os.path.realpath(dest):
                raise NodeopsError(
                    "The %s, %s, is in the backup store %s. Nothing was changed. A store holds only backups: give the "
                    "job a place beside it." % (what, place, dest)
                )
    directory = config.metrics_dir
    if directory and not (os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)):
        raise NodeopsError(
            "metrics_dir %s is not a directory that %s may write to. Nothing was changed. Make it, or leave it out."
            % (directory, _trusted_path.name_of(os.geteuid()))
        )
    if os.path.dirname(config.log) != path and not os.path.isdir(os.path.dirname(config.log)):
        raise NodeopsError(
            "The directory of the log %s does not exist. Nothing was changed. Make it first." % config.log
        )


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Within, new files are closed to other users, whatever the umask is."""
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


def _named(path: str) -> str:
    """The version that ``current`` points to, "" if there is none."""
    try:
        return os.path.basename(os.readlink(os.path.join(path, "current")))
    except OSError:
        return ""


def _current(path: str) -> str:
    """The version that is completely installed, "" if there is none."""
    version = _named(path)
    return version if version and _is_whole(os.path.join(path, "lib", version), version) else ""


def _is_whole(directory: str, version: str) -> bool:
    """Whether the version's name is the hash of its files."""
    files: Dict[str, bytes] = {}
    try:
        for name in _files_below(directory):
            with open(os.path.join(directory, name), "rb") as stream:
                files[name] = stream.read()
    except OSError:
        return False
    return _hash(files) == version


def _files_below(directory: str) -> Iterator[str]:
    for here, _directories, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(here, name), directory)


def _write_version(path: str, version: str, files: Dict[str, bytes]) -> None:
    directory = os.path.join(path, "lib", version)
    if _is_whole(directory, version):
        return
    new = os.path.join(path, "lib", ".new")
    for left in (new, directory):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(left)
    for name, content in files.items():
        target = os.path.join(new, name)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    for here, _directories, _names in os.walk(new):
        _files.sync_directory(here)
    os.rename(new, directory)
    _files.sync_directory(os.path.dirname(directory))


def _switch(path: str, version: str) -> None:
    link, new = os.path.join(path, "current"), os.path.join(path, ".current.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(os.path.join("lib", version), new)
    os.rename(new, link)
    _files.sync_directory(path)


def _forget_metrics(path: str, config: Config) -> None:
    """Remove metrics of the installed job that have another place or name now: they would look as if it still ran."""
    try:
        former = _config.read(os.path.join(path, "current", "config.json"))
    except NodeopsError:  # there is none
        return
    if former.metrics_dir and (former.metrics_dir, former.name) != (config.metrics_dir, config.name):
        for job in _config.JOBS:
            with contextlib.suppress(OSError):
                _metrics.remove(former.metrics_dir, former.name, job)


def _clean(path: str, version: str, former: str) -> None:
    """Keep only the previous version, without its secrets: a job that runs from it has read them already."""
    versions = os.path.join(path, "lib")
    for name in os.listdir(versions):
        if name not in (version, former):
            shutil.rmtree(os.path.join(versions, name))
    if former != version:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(versions, former, "config.json"))
