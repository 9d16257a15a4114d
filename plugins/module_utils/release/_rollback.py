# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""State rolled_back: choose an earlier release, and activate it with the same transaction and gate as a new one."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import COMMITTED, NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release import (
    _activation,
    _definitions,
    _history,
    _live,
    _manifest,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.release._live import Live
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


def choose(manifests: List[Manifest], live: Optional[Manifest], current: str, wanted: Optional[str]) -> Manifest:
    """The release to go back to; ``manifests`` with the last published first.

    ``wanted`` is the id of a release of any status, or the version of a good one. Without ``wanted`` it is the last
    good release that was live before the live one, so a second rollback goes further back and never forward again.
    Raises NodeopsError if there is none.
    """
    if wanted is not None:
        by_id = [manifest for manifest in manifests if manifest.release == wanted]
        good = [manifest for manifest in manifests if manifest.version == wanted and manifest.good]
        found = by_id or [manifest for manifest in good if manifest.release != current] or good
        if not found:
            raise NodeopsError(
                "There is no release %r to go back to: no release has this id, and no good one has this version. "
                "Nothing was changed. There are: %s. For one that is not good, give its id."
                % (wanted, _listed(manifests, current))
            )
        return found[0]
    for manifest in manifests if live is None else _manifest.predecessors(manifests, live.release):
        if manifest.good and manifest.release != current:
            return manifest
    raise NodeopsError(
        "There is no earlier good release to go back to. Nothing was changed. There are: %s. To go to one of them, "
        "give its id." % _listed(manifests, current)
    )


def _listed(manifests: List[Manifest], current: str) -> str:
    return (
        ", ".join(
            "%s (version %s, %s)" % (m.release, m.version, "live" if m.release == current else m.status)
            for m in manifests
        )
        or "none"
    )


def roll_back(call: ModuleCall) -> Dict[str, Any]:
    """State rolled_back. Raises NodeopsError, with everything as it was unless the outcome says COMMITTED."""
    with call.locked("rollback", first=True):
        live = _live.find(call)
        _check_left(call, live)
        ours = [manifest for manifest in _manifest.read_all(call.layout) if call.is_ours(manifest)]
        chosen = choose(ours, live.manifest, live.release, call.options.release)
        call.note_version(chosen)
        directory = call.layout.release(chosen.release)
        if not os.path.isdir(directory):
            raise NodeopsError("%s does not exist any more. Nothing was changed." % directory)
        is_forward = live.release in [manifest.release for manifest in _manifest.predecessors(ours, chosen.release)]
        left = None if is_forward else live.manifest
        try:
            result = _activation.activate(
                call, live, chosen, _definitions.read(call.layout, chosen.release), is_rollback=True
            )
        except NodeopsError as error:
            if error.outcome.kind == COMMITTED:
                _mark(call, chosen, left)
            raise
        if not call.check_mode:
            _mark(call, chosen, left)
            if result["changed"]:
                call.record("rolled back", chosen, former=live.release or None, actions=len(result["actions"]))
    if not call.check_mode:
        call.lease.release()
    return result


def _check_left(call: ModuleCall, live: Live) -> None:
    """Raises NodeopsError if the live release is not the one that is to be left."""
    left = call.options.from_release
    if left is not None and live.release != left:
        raise NodeopsError(
            "%s is live, not %s, which was to be left: another run has changed that meanwhile. Nothing was changed."
            % (live.release or "No release", left)
        )


def _mark(call: ModuleCall, chosen: Manifest, left: Optional[Manifest]) -> None:
    """``left``: the release that the rollback leaves; None if ``chosen`` came after it."""
    if left is not None and left.release != chosen.release:
        reason = "rolled back by %s at %s" % (call.by, _history.now())
        call.write_manifest(left._replace(status=_manifest.ROLLED_BACK, reason=reason))
    if not chosen.good:
        published = chosen.published or chosen.created
        call.write_manifest(chosen._replace(status=_manifest.GOOD, published=published, reason=None))
