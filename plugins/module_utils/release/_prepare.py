# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""State prepared: make a release. Fetch it, link its shared paths, write its environment file."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _dotenv
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks
from ansible_collections.nodeops.pm2.plugins.module_utils.release import (
    _build,
    _history,
    _layout,
    _live,
    _manifest,
    _placement,
    _retention,
    _shared,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _fetch


def prepare(call: ModuleCall) -> Dict[str, Any]:
    """State prepared. Raises NodeopsError, and then nothing is left of the new release."""
    preparation = _Preparation(call)
    preparation.check()
    with call.locked("prepare", first=True):
        return preparation.run()


class _Preparation:
    def __init__(self, call: ModuleCall) -> None:
        self._call = call
        self._options = call.options
        self._layout = call.layout
        self._source = _fetch.source_of(call.options.source or {})
        self._texts: Optional[Dict[str, str]] = (call.options.source or {}).get("texts")

    def check(self) -> None:
        """Refuse what can be refused before the source is read. Raises NodeopsError."""
        options = self._options
        check_namespace(options.namespace)
        if options.apps and options.ecosystem:
            raise NodeopsError("Give either apps or ecosystem, not both. Nothing was changed.")
        _placement.check_definitions(self._layout, options.apps)
        if options.ecosystem:
            _placement.check_ecosystem(options.ecosystem)
        if options.keep < 1:
            raise NodeopsError(
                "keep is %d. Nothing was changed. Give at least 1: the live release is always kept." % options.keep
            )
        if options.apps or options.ecosystem:
            _checks.parse(options.ready)
        else:
            _checks.parse_of_files(options.ready)
        self._call.current()  # refuses one that is not a link
        if options.release:
            _layout.check_id(options.release)
        _shared.check(options.shared)
        if options.environment_file:
            self._check_environment_file(_inside(options.environment_file))
        _build.check_commands(options)
        self._check_contract(lambda _path: None, is_here=False)
        _build.check_forbidden(self._call, None)

    def _check_environment_file(self, path: str) -> None:
        if path.split(os.sep)[0].startswith(".nodeops"):
            raise NodeopsError(
                "environment_file %r: names that begin with .nodeops are the collection's own. Nothing was changed. "
                "Choose another name." % path
            )
        for item in _shared.check(self._options.shared):
            if (path + "/").startswith(item.path + "/") or (item.path + "/").startswith(path + "/"):
                raise NodeopsError(
                    "environment_file %r and the shared path %r: one lies in the other, so the file would be written "
                    "for all releases. Nothing was changed. Choose another path for one of them." % (path, item.path)
                )

    def run(self) -> Dict[str, Any]:
        call, options = self._call, self._options
        environment_text = self._render_environment()
        if not call.check_mode:
            _retention.remove_leftovers(self._layout)
        inspection = _fetch.inspect(self._source, self._layout.private, call.check_mode, call.redactor)
        fingerprint = call.fingerprint(self._facts(inspection.revision, environment_text))
        found = _live.find(call)
        former, live = found.release, found.manifest
        if live and live.good and live.fingerprint == fingerprint and not options.force:
            call.note_version(live)
            self._check_contract(_build.file_reader(self._layout.release(former)), is_here=True)
            result = self._result(live, former, needed=False, changed=call.recovered is not None)
            return dict(result, in_order=self._is_in_order(found, live))

        def read(path: str) -> Optional[str]:
            if self._texts is not None:
                return self._texts.get(path)
            return _fetch.read_file(self._source, inspection, self._layout.private, path) if inspection.known else None

        self._check_contract(read, is_here=inspection.known or self._texts is not None)
        _build.check_forbidden(call, read, self._packages)
        release = options.release or "%s-%s" % (options.run.partition("-")[0], inspection.revision[:8])
        _layout.check_id(release)
        if os.path.lexists(self._layout.release(release)):
            raise NodeopsError(
                "%s exists already. Nothing was changed. Choose another id (release)." % self._layout.release(release)
            )
        manifest = self._manifest(release, inspection.revision, fingerprint, read("package.json"), former)
        call.note_version(manifest)
        if call.check_mode:
            return self._result(manifest, former, needed=True, changed=True)
        if self._source.location == "controller" and self._source.archive is None:
            return dict(self._result(manifest, former, needed=True, changed=False), upload=True)
        self._make(inspection, manifest, environment_text)
        manifest = _manifest.read(self._layout.release(release)) or manifest
        return self._result(manifest, former, needed=True, changed=True)

    def _is_in_order(self, found: _live.Live, live: Manifest) -> bool:
        """Whether the live release runs as defined and answers well. If so, this run is over, and the lock is freed."""
        from ansible_collections.nodeops.pm2.plugins.module_utils.release import _publish

        if not _publish.is_in_order(self._call, found, live):
            return False
        if not self._call.check_mode:
            self._call.lease.release()
        return True

    def _render_environment(self) -> str:
        options = self._options
        if not options.environment_file:
            return ""
        for name, readers in _dotenv.disagreements(options.environment).items():
            self._call.warnings.append(
                "%s: %s has characters that dotenv readers read differently, however they are written; %s would read "
                "another value." % (options.environment_file, name, " and ".join(readers))
            )
        return _dotenv.render(options.environment)

    def _facts(self, revision: str, environment_text: str) -> Dict[str, Any]:
        options, source = self._options, self._source
        return {
            "revision": revision,
            "source": [source.type, source.strip, source.submodules, list(source.exclude)],
            "environment_file": [options.environment_file, environment_text],
            "shared": options.shared,
            "dependencies": options.dependencies,
            "build": [options.build, options.build_environment, options.path],
        }

    def _make(self, inspection: _fetch.Inspection, manifest: Manifest, environment_text: str) -> None:
        """Make all of it in another directory, then rename that: a release is complete or does not exist."""
        unfinished = self._layout.release(_layout.PREPARING + manifest.release)
        try:
            with _files.readable_by_all():
                self._fill(unfinished, inspection, manifest, environment_text)
            os.rename(unfinished, self._layout.release(manifest.release))
            _files.sync_directory(self._layout.releases)
        except OSError as error:
            raise NodeopsError(
                "Release %s could not be made in %s: %s.%s"
                % (manifest.release, self._layout.releases, error.strerror or error, _advice(error))
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _fill(self, unfinished: str, inspection: _fetch.Inspection, manifest: Manifest, environment_text: str) -> None:
        os.mkdir(unfinished)
        _fetch.fetch(self._source, inspection, self._layout.private, unfinished, self._call.redactor)
        read = _build.file_reader(unfinished)
        self._check_contract(read, is_here=True)
        _build.check_forbidden_in(self._call, unfinished)
        manifest = manifest._replace(version=self._version(manifest.revision, read("package.json")))
        self._call.note_version(manifest)
        _shared.link(self._layout.shared, unfinished, self._options.shared)
        if self._options.environment_file:
            self._write_environment_file(unfinished, environment_text)
        _manifest.write(unfinished, manifest)

    def _write_environment_file(self, directory: str, text: str) -> None:
        path = os.path.join(directory, _inside(self._options.environment_file or ""))
        top, real = os.path.realpath(directory), os.path.realpath(os.path.dirname(path))
        if not (real + os.sep).startswith(top + os.sep):
            raise NodeopsError(
                "environment_file %r: a link of the source in its path leads out of the release, to %s. Nothing was "
                "written there, and the new release is removed. Choose another path."
                % (self._options.environment_file, real)
            )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _files.write_atomically(path, text.encode("utf-8", "surrogateescape"))

    def _check_contract(self, read: Callable[[str], Optional[str]], is_here: bool) -> None:
        """Messages name variables, never values. ``is_here``: a file that ``read`` does not find does not exist."""
        contract = self._options.contract
        if not contract:
            return
        from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _contract

        name = contract.get("example")
        example = read(str(name)) if name else None
        if name and example is None and is_here:
            raise NodeopsError(
                "The contract's example %s is not in the source of %s. Nothing was changed. Correct the path, or leave "
                "example out and give rules." % (name, self._options.app)
            )
        known = contract if example is not None else {key: contract[key] for key in contract if key != "example"}
        problems, warnings = _contract.check(known, example, self._options.environment)
        self._call.warnings.extend(warning for warning in warnings if warning not in self._call.warnings)
        if problems:
            raise NodeopsError(
                "The environment of %s does not fulfil its contract: %s. Nothing was changed. Set the variables in "
                "the inventory (vaulted) and run again." % (self._options.app, "; ".join(problems)),
                {"contract": problems},
            )

    def _packages(self) -> List[str]:
        """The directories with a package.json that the controller has named; the source itself is not here yet."""
        return [os.path.dirname(path) for path in self._texts or () if os.path.basename(path) == "package.json"]

    def _version(self, revision: str, package_json: Optional[str]) -> str:
        if self._options.version:
            return self._options.version
        try:
            version = json.loads(package_json or "{}").get("version")
        except (ValueError, AttributeError):
            version = None
        return version if isinstance(version, str) and version else revision[:12]

    def _manifest(
        self, release: str, revision: str, fingerprint: str, package_json: Optional[str], former: str
    ) -> Manifest:
        source = self._source
        return Manifest(
            release=release,
            app=self._options.app,
            namespace=self._options.namespace,
            version=self._version(revision, package_json),
            revision=revision,
            fingerprint=fingerprint,
            run=self._options.run,
            status=_manifest.PREPARED,
            created=_history.now(),
            created_by=self._call.by,
            source={"type": source.type, "location": source.location, "address": _address.shown(source.address)},
            dependencies=[],
            former=former or None,
        )

    def _result(self, manifest: Manifest, former: str, needed: bool, changed: bool) -> Dict[str, Any]:
        return {
            "changed": changed,
            "needed": needed,
            "release": manifest.release,
            "directory": self._layout.release(manifest.release),
            "former": former or None,
            "version": manifest.version,
            "revision": manifest.revision,
        }


def _inside(path: str) -> str:
    """The path, normalised. Raises NodeopsError if it leads out of the release."""
    normal = os.path.normpath(path)
    if os.path.isabs(normal) or normal.split(os.sep)[0] in ("..", "."):
        raise NodeopsError(
            "environment_file %r is outside of the release. Nothing was changed. Give a relative path." % path
        )
    return normal


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return " The new release is removed. Free some space, or lower keep, and run again."
    return " The new release is removed."
