# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pm2_release: its options, and what all states need: the lock, the manifest, the history."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from typing import Any, Dict, Iterator, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _files, _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.release import (
    _history,
    _layout,
    _lease,
    _link_journal,
    _manifest,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._options import ReleaseOptions


def _given(variables: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in variables.items() if value is not None}


class ModuleCall:
    """The options of one call, and what its state has found and reports."""

    def __init__(self, options: ReleaseOptions, check_mode: bool) -> None:
        # A variable without a value counts as not given: for files, processes and the contract.
        options = options._replace(
            environment=_given(options.environment), build_environment=_given(options.build_environment)
        )
        self.options = options
        self.check_mode = check_mode
        self.layout = Layout(os.path.abspath(options.root))
        self.warnings: List[str] = []
        self.redactor = Redactor()
        self.redactor.add_environment(options.environment)
        self.redactor.add_environment(options.build_environment)
        owner = options.owner
        action = "rollback" if options.state == "rolled_back" else "deploy"
        self.by = "%s@%s" % (owner.get("user") or "unknown", owner.get("host") or "unknown")
        self._subject: Optional[Manifest] = None
        self.former: Optional[str] = None
        """The id that was live before this call changed anything; None until the call has looked for it."""
        self.recovered: Optional[str] = None
        """``finished`` or ``undone`` if an earlier run had been killed."""
        self.lease = _lease.Lease(
            self.layout.private,
            _lease.Owner(
                run=options.run,
                user=str(owner.get("user") or ""),
                host=str(owner.get("host") or ""),
                link=str(owner.get("link") or ""),
                since=_history.now(),
                app=options.app,
                namespace=options.namespace,
                action=action,
                version=self._version_asked_for(),
                pid=int(owner.get("pid") or 0),
                start=int(owner.get("start") or 0),
                place=str(owner.get("place") or ""),
                goal=self._goal(),
            ),
        )
        self._action = action

    def _version_asked_for(self) -> str:
        source = self.options.source or {}
        of_git = str(source.get("version") or "") if source.get("type") == "git" else ""
        return self.options.version or self.options.release or of_git

    def _goal(self) -> str:
        """What the lock says instead of a version until the source, or the releases, have been read."""
        if self.options.state == "rolled_back":
            return "to the release before"
        address = (self.options.source or {}).get("address")
        return "from %s" % _address.shown(str(address)) if address else ""

    def note_version(self, manifest: Manifest) -> None:
        """Write the version into the lock, for other runs that ask for it."""
        if not self.check_mode:
            self.lease.note_version(manifest.version)

    # -- the lock --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, stage: str, first: bool, may_be_ended: bool = True) -> Iterator[None]:
        """Hold the application's lock while a state works. A failure ends the run: it is recorded, the lock is freed.

        ``first``: this state begins a run. Later states of the run continue with its lock. ``may_be_ended``: as for
        ``Lease.working``.
        """
        if self.check_mode:
            holder = self.lease.holder()
            if holder and holder.run != self.options.run:
                self.warnings.append("%s is locked: %s." % (self.options.app, holder.text()))
            yield
            return
        if first:
            self.layout.make()
            self.lease.acquire(self.options.lock_timeout, str(self.options.owner.get("ended") or ""))
        else:
            self.lease.ensure()
        try:
            with self.lease.working(may_be_ended):
                try:
                    if _link_journal.undo(self.layout):
                        self.recovered = "undone"
                    yield
                except NodeopsError as error:
                    error.details.setdefault("stage", stage)
                    self.record("failed", stage=stage, reason=self.redactor.text(str(error)))
                    raise
        except BaseException:
            self.lease.release()
            raise

    # -- what is there ---------------------------------------------------------------------------------------------

    def current(self) -> str:
        """The id of the release that ``current`` names now, "" if there is none. Raises NodeopsError.

        After a killed run that is not always the live release: see _live.
        """
        text = _symlink.target(self.layout.current)
        return self.layout.release_named_by(text) if text is not None else ""

    def is_ours(self, manifest: Manifest) -> bool:
        """Whether the release belongs to this application and namespace."""
        return (manifest.app, manifest.namespace) == (self.options.app, self.options.namespace)

    def check_is_ours(self, manifest: Manifest) -> None:
        """Raises NodeopsError if the release belongs to another application or namespace."""
        options = self.options
        if not self.is_ours(manifest):
            raise NodeopsError(
                "%s is a release of %s in namespace %s, not of %s in namespace %s. Nothing was changed. Each "
                "environment needs a root of its own: correct root, app or namespace. If you have renamed them, remove "
                "the link %s, and the processes of namespace %s if that has changed (nodeops.pm2.pm2_process, state "
                "absent), then deploy."
                % (
                    self.layout.release(manifest.release),
                    manifest.app,
                    manifest.namespace,
                    options.app,
                    options.namespace,
                    self.layout.current,
                    manifest.namespace,
                )
            )

    def prepared(self) -> Manifest:
        """The manifest of the release that the call names. Raises NodeopsError if there is no such release."""
        release = _layout.check_id(self.options.release or "")
        manifest = _manifest.read(self.layout.release(release))
        if manifest is None:
            raise NodeopsError(
                "There is no release %s in %s. Nothing was changed. Prepare it first." % (release, self.layout.releases)
            )
        self._subject = manifest
        self.check_is_ours(manifest)
        self.note_version(manifest)
        return manifest

    def fingerprint(self, facts: Any) -> str:
        """A keyed hash of what a release is made of: values of variables are part of it, and could be guessed."""
        data = json.dumps(facts, sort_keys=True, default=str).encode("utf-8", "surrogateescape")
        return hmac.new(self._key(), data, hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        path = os.path.join(self.layout.private, "key")
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            key = os.urandom(32)
            if not self.check_mode:
                try:
                    _files.write_atomically(path, key)
                except OSError as error:
                    raise NodeopsError(
                        "%s could not be written: %s. Nothing was changed." % (path, _files.why(error))
                    ) from error
            return key

    # -- what is recorded ------------------------------------------------------------------------------------------

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the state of a release. If that fails there is a warning: the outcome stands."""
        try:
            _manifest.write(self.layout.release(manifest.release), manifest)
        except NodeopsError as error:
            self.warnings.append(str(error))

    def record(self, result: str, manifest: Optional[Manifest] = None, **more: Any) -> None:
        """Add an outcome to the history. If that fails there is a warning: the outcome stands."""
        release = manifest.release if manifest else self.options.release
        if manifest is None and release:
            manifest = _manifest.read(self.layout.release(release)) or self._subject  # it may be removed by now
        entry = {
            "action": self._action,
            "result": result,
            "app": self.options.app,
            "namespace": self.options.namespace,
            "release": release,
            "version": manifest.version if manifest else self.options.version,
            "revision": manifest.revision if manifest else None,
            "run": self.options.run,
            "by": self.by,
            "link": self.options.owner.get("link") or None,
        }
        entry.update(more)
        try:
            _history.append(self.layout, entry)
        except OSError as error:
            self.warnings.append("The history %s could not be written: %s." % (self.layout.history, error.strerror))
