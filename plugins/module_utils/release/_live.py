# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Which release is live. Only this file decides it, after it has finished or undone what a killed run has left."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _journal, _lock
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _link_journal, _manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall


class Live(NamedTuple):
    """``link``: the text of ``current``, or None. ``release``: the id that it leads to, or ""."""

    link: Optional[str]
    release: str
    manifest: Optional[Manifest]


def find(call: ModuleCall) -> Live:
    """What is live. The application's lock is held, except in check mode, which tells what would be live.

    Raises NodeopsError also if the live release belongs to another application or namespace.
    """
    if not call.check_mode:
        _recover(call)
    link = _link_after_recovery(call)
    release = call.layout.release_named_by(link) if link is not None else ""
    call.former = release
    manifest = _manifest.read(call.layout.release(release)) if release else None
    if manifest is not None:
        call.check_is_ours(manifest)
        if manifest.unfinished:  # the run that made it live was killed before it could write that
            manifest = manifest._replace(status=_manifest.GOOD, published=manifest.published or manifest.created)
            if not call.check_mode:
                with contextlib.suppress(NodeopsError):
                    _manifest.write(call.layout.release(release), manifest)
    return Live(link, release, manifest)


def find_recovered(call: ModuleCall) -> Live:
    """As ``find``, but raises NodeopsError if a killed run cannot be finished or undone because no daemon runs."""
    live = find(call)
    if _journal.read(call.options.pm2_home, call.options.namespace) is not None:
        raise NodeopsError(
            "A run in namespace %s was killed half-way, and no PM2 daemon runs in %s to finish or undo it. Perhaps "
            "nothing serves now. Run again: the next deploy or rollback starts PM2, and does that first."
            % (call.options.namespace, call.options.pm2_home)
        )
    return live


def _recover(call: ModuleCall) -> None:
    """Finish or undo what a killed run has left in the namespace. Without a daemon a later call does it."""
    home, namespace = call.options.pm2_home, call.options.namespace
    if _journal.read(home, namespace) is None:
        return
    daemon = _daemon.find_listening(home)
    if daemon is None:
        return
    from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _recovery
    from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace

    with _lock.held(home, namespace, "was not changed"):
        ports = _checks.parse(call.options.ready).ports()
        outcome = _recovery.recover(Namespace(daemon, namespace, ports), home).outcome
    call.recovered = outcome or call.recovered


def _link_after_recovery(call: ModuleCall) -> Optional[str]:
    link = _symlink.target(call.layout.current)
    unproven = _link_journal.pending(call.layout)
    if unproven is not None:
        return unproven.before
    journal = _journal.read(call.options.pm2_home, call.options.namespace)
    if journal is not None and journal.phase == _journal.COMMITTED and journal.switch:
        switch = _symlink.Switch(**journal.switch)
        if os.path.abspath(switch.path) == call.layout.current and link == switch.before:
            return switch.after
    return link
