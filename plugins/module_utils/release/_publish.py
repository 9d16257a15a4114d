# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""State published: make a release live, or put everything back. Then remove releases beyond ``keep``."""

from __future__ import annotations

import os
from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import COMMITTED, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._failure import ChangeFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.release import (
    _activation,
    _definitions,
    _history,
    _live,
    _manifest,
    _prune,
    _retention,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.release._live import Live
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def publish(call: ModuleCall) -> Dict[str, Any]:
    """State published. Raises NodeopsError, with everything as it was unless the outcome says COMMITTED."""
    options = call.options
    if call.check_mode and not os.path.isdir(call.layout.release(options.release or "")):
        from ansible_collections.nodeops.pm2.plugins.module_utils.release import _prediction

        return _prediction.predict(call)
    with call.locked("publish", first=False):
        manifest = call.prepared()
        live = _live.find(call)
        is_live = live.release == manifest.release
        definition = _definitions.requested(options)
        try:
            if not is_live and not call.check_mode:
                _definitions.write(call.layout, manifest.release, definition)
            result = _activation.activate(call, live, manifest, definition, heal=is_live)
        except NodeopsError as error:
            if error.outcome.kind == COMMITTED:
                _keep_definition(call, manifest, definition)
                _mark_good(call, manifest)
            elif not is_live and not call.check_mode:
                _note_failure(call, manifest, error)
            raise
        if not call.check_mode:
            _keep_definition(call, manifest, definition)
            _settle(call, manifest, live, result)
    if not call.check_mode:
        call.lease.release()
    return result


def is_in_order(call: ModuleCall, live: Live, manifest: Manifest) -> bool:
    """Whether state published would find nothing to do for the live release. Raises NodeopsError as that would."""
    definition = _definitions.requested(call.options)
    if not _definitions.has_processes(definition):
        from ansible_collections.nodeops.pm2.plugins.module_utils.release import _static_site

        return _static_site.is_in_order(call, manifest, definition)
    if not _activation.is_in_order(call, live, manifest, definition):
        return False
    if not call.check_mode:
        _keep_definition(call, manifest, definition)
    return True


def _keep_definition(call: ModuleCall, manifest: Manifest, definition: Dict[str, Any]) -> None:
    """Write what the release consists of now. For one that was live already only after it has proven itself."""
    try:
        if _definitions.differs(call.layout, manifest.release, definition):
            _definitions.write(call.layout, manifest.release, definition)
    except NodeopsError as error:
        call.warnings.append(str(error))


def _settle(call: ModuleCall, manifest: Manifest, live: Live, result: Dict[str, Any]) -> None:
    """Record that the release is live, and remove old ones. What fails here is a warning: the release stays live."""
    was_live = live.release == manifest.release
    if not was_live or manifest.unfinished:
        _mark_good(call, manifest)
    if result["changed"]:
        call.record("deployed", manifest, former=live.release or None, actions=len(result["actions"]))
    if not was_live:
        result["removed"] = _prune.remove_old(call)


def _mark_good(call: ModuleCall, manifest: Manifest) -> None:
    published = manifest.published or _history.now()
    call.write_manifest(manifest._replace(status=_manifest.GOOD, published=published, reason=None))


def _note_failure(call: ModuleCall, manifest: Manifest, error: NodeopsError) -> None:
    """Mark a release bad if it has not proven itself. If it was not even tried, remove it: it is made anew."""
    if isinstance(error, GateFailure) or (isinstance(error, ChangeFailed) and error.is_unproven):
        call.write_manifest(manifest._replace(status=_manifest.BAD, reason=call.redactor.text(str(error))))
        return
    try:
        _retention.discard(call.layout, manifest, call.options.pm2_home)
    except NodeopsError as second:
        call.warnings.append(str(second))
