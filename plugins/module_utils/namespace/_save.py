# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pm2_save."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _journal, _lock, _recovery
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace, ours
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process


def save(given_home: Optional[str], namespace: str, check_mode: bool) -> Dict[str, Any]:
    """The module's result. Raises NodeopsError without a daemon: its empty list would be saved."""
    pm2_home = given_home or _daemon.default_home()
    check_namespace(namespace)
    _daemon.check_home(pm2_home)
    daemon = _daemon.find_listening(pm2_home)
    if daemon is None:
        raise NodeopsError(
            "No PM2 daemon runs in %s. Nothing was saved: what a resurrect would bring back stays as it is." % pm2_home
        )
    before = _dump.of_namespace(_dump.read(pm2_home).entries, namespace)
    if check_mode:
        journal = _journal.read(pm2_home, namespace)
        outcome = _recovery.OUTCOME[journal.phase] if journal else None
        wanted = _entries(_recovery.after_recovery(ours(daemon.processes, namespace), journal))
        written = _dump.differs(pm2_home, namespace, wanted)
    else:
        # In the middle of a change it would save processes that have not proven themselves yet.
        with _lock.held(pm2_home, namespace, "was not saved"):
            outcome, saved = _recovery.recover(Namespace(daemon, namespace), pm2_home)
            wanted = _entries(ours(daemon.read(), namespace))
            written = _dump.save(pm2_home, namespace, wanted) or saved
    return {
        "changed": written or outcome is not None,
        "entries": len(wanted),
        "dump": _dump.path_of(pm2_home),
        "recovered": outcome,
        "diff": {"before": _text(before), "after": _text(wanted) if written else _text(before)},
    }


def _entries(processes: Iterable[Process]) -> List[_dump.Entry]:
    return _dump.entries_of(process.pm2_env for process in processes)


def _text(entries: Iterable[_dump.Entry]) -> str:
    lines = sorted("%s %s" % (entry.get("name"), _dump.meaning(entry)["status"]) for entry in entries)
    return json.dumps(lines, indent=2) + "\n"
