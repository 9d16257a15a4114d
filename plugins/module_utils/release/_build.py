# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What runs in a release before it is live: dependencies, build, database migration."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _dotenv
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _commands, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _history, _manifest, _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall
from ansible_collections.nodeops.pm2.plugins.module_utils.release._options import ReleaseOptions


def file_reader(directory: str) -> Callable[[str], Optional[str]]:
    """A function that reads a file of the release: path in the release to text, or to None if there is no such file."""

    def read(path: str) -> Optional[str]:
        try:
            with open(os.path.join(directory, path), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (OSError, ValueError):  # ValueError: no file can have this name
            return None

    return read


def check_commands(options: ReleaseOptions) -> None:
    """Raises NodeopsError for a command that cannot be split into arguments."""
    for commands, what in _commands_of(options):
        for command in commands:
            try:
                _commands.arguments(command)
            except NodeopsError as error:
                raise NodeopsError("%s: %s Nothing was changed." % (what, error)) from None


def _commands_of(options: ReleaseOptions) -> Iterator[Tuple[Sequence[_commands.Command], str]]:
    """All commands that run in a release before it is live, each list with the option that holds it."""
    for item in options.dependencies:
        yield ([item["runtime"]] if item.get("runtime") else []), "dependencies"
        yield item["commands"], "dependencies"
    yield options.build, "build"
    yield options.migrate, "migrate"


def check_forbidden(
    call: ModuleCall,
    read: Optional[Callable[[str], Optional[str]]],
    packages: Optional[Callable[[], Iterable[str]]] = None,
) -> None:
    """Raises NodeopsError if the inventory forbids a command of the options. ``read``, ``packages``: see _forbidden."""
    options = call.options
    if not options.forbidden:
        return
    from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _forbidden

    package_json = read("package.json") if read else None
    for commands, what in _commands_of(options):
        _forbidden.check(commands, options.forbidden, package_json, what, read, packages)


def check_forbidden_in(call: ModuleCall, directory: str) -> None:
    """As ``check_forbidden``, for a release that exists. Called right before commands run, because earlier ones may
    have written scripts.
    """

    @functools.lru_cache(maxsize=None)
    def packages() -> Iterable[str]:
        from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _forbidden

        return _forbidden.packages_below(directory)

    check_forbidden(call, functools.lru_cache(maxsize=None)(file_reader(directory)), packages)


def build(call: ModuleCall) -> Dict[str, Any]:
    """State built: copy or install the dependencies, then run the build commands. A failure removes the release."""
    options = call.options
    if call.check_mode:
        return {"changed": True, "release": options.release}
    with call.locked("build", first=False):
        manifest = call.prepared()
        if manifest.status != _manifest.PREPARED:
            return _built(manifest, [], changed=False)
        with _removed_on_failure(call, manifest):
            return _build(call, manifest)


def _build(call: ModuleCall, manifest: Manifest) -> Dict[str, Any]:
    from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _dependencies

    options, directory = call.options, call.layout.release(manifest.release)
    check_forbidden_in(call, directory)
    environment = command_environment(call, options.build_environment)
    # Such as PUPPETEER_SKIP_DOWNLOAD. As a keyed hash: the key of the dependencies is written to the manifest.
    deciding = {n: v for n, v in options.build_environment.items() if not _dependencies.SECRET.search(n)}
    more = call.fingerprint(deciding) if deciding else ""
    taken: List[Dict[str, Any]] = []
    for item in options.dependencies:
        earlier = _earlier(call, item["path"])
        taken.append(_dependencies.ensure(item, directory, earlier, environment, options.timeout, call.redactor, more))
    if options.dependencies:
        check_forbidden_in(call, directory)
    commands = _commands.run(options.build, directory, environment, options.timeout, call.redactor, "build")
    manifest = manifest._replace(status=_manifest.BUILT, dependencies=taken)
    _manifest.write(directory, manifest)
    return dict(_built(manifest, taken, changed=True), commands=commands)


def _built(manifest: Manifest, taken: List[Dict[str, Any]], changed: bool) -> Dict[str, Any]:
    return {"changed": changed, "release": manifest.release, "dependencies": taken}


def _earlier(call: ModuleCall, path: str) -> Sequence[Tuple[str, Dict[str, Any]]]:
    """Good releases, the last published first, each with what its manifest says about this path."""
    found = []
    for manifest in _manifest.read_all(call.layout):
        if manifest.good:
            for item in manifest.dependencies:
                if item.get("path") == path:
                    found.append((call.layout.release(manifest.release), item))
    return found


def command_environment(call: ModuleCall, extra: Dict[str, Any]) -> Dict[str, str]:
    """What build and migration commands get. In PATH the daemon's node comes first, because a native module has to fit
    it, then the directory of pm2.
    """
    path = list(call.options.path)
    daemon = _daemon.find(call.options.pm2_home) if os.path.isdir(call.options.pm2_home) else None
    node = _daemon.node_of(daemon.pid) if daemon else None
    if node:
        path.append(os.path.dirname(node))
    if call.options.pm2_executable and os.path.isabs(call.options.pm2_executable):  # PATH decides about a bare name
        path.append(os.path.dirname(call.options.pm2_executable))
    return _commands.base_environment(path, {name: _dotenv.text_of(value) for name, value in extra.items()})


def migrate(call: ModuleCall) -> Dict[str, Any]:
    """State migrated: run the commands in the release. A cancelled run does not end them: half a migration is worse."""
    options = call.options
    if call.check_mode:
        return {"changed": bool(options.migrate), "release": options.release}
    with call.locked("migrate", first=False, may_be_ended=False):
        _signals.hold()  # ansible-playbook passes on the signals that it gets
        manifest = call.prepared()
        with _removed_on_failure(call, manifest):
            directory = call.layout.release(manifest.release)
            check_forbidden_in(call, directory)
            environment = command_environment(call, dict(options.build_environment, **options.environment))
            commands = _commands.run(
                options.migrate, directory, environment, options.timeout, call.redactor, "migrate", ends_with_us=False
            )
            _manifest.write(directory, manifest._replace(migrated=_history.now()))
    return {"changed": True, "release": manifest.release, "commands": commands}


@contextlib.contextmanager
def _removed_on_failure(call: ModuleCall, manifest: Manifest) -> Iterator[None]:
    """Remove a release that could not be made, unless it is live."""
    try:
        yield
    except BaseException:
        try:
            _retention.discard(call.layout, manifest, call.options.pm2_home)
        except NodeopsError as second:
            call.warnings.append(str(second))
        raise
