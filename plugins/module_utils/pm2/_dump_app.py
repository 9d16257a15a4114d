# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""An app made from entries of a dump: to bring back an app that the call does not define."""

from __future__ import annotations

import os
import uuid
from typing import Any, Dict, Iterable, Iterator, List

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _schema
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump, _process, _resurrectable
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import OF_ONE_RUN
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Difference, Process

_NAMES = {
    "pm_exec_path": "script",
    "pm_cwd": "cwd",
    "pm_out_log_path": "out_file",
    "pm_err_log_path": "error_file",
    "pm_log_path": "log_file",
    "pm_pid_path": "pid_file",
}
"""The names of these keys in an ecosystem file."""


class DumpApp:
    """Has the interface of _app.App; each instance is one entry, with the number it had."""

    def __init__(self, name: str, entries: Iterable[_dump.Entry]) -> None:
        self._entries = dict(_numbered(entries))
        first = next(iter(self._entries.values()))
        self.name = name
        self.namespace = _dump.namespace_of(first)
        self.exec_mode: str = first["exec_mode"]
        self.instances = len(self._entries)
        self.numbers = sorted(self._entries)
        self.config: Dict[str, Any] = first
        self.autostart = any(map(self.starts, self.numbers))
        paths = [entry.get(key) for entry in self._entries.values() for key in ("pm_out_log_path", "pm_err_log_path")]
        self.log_dirs = sorted({os.path.dirname(path) for path in paths if path and path != "/dev/null"})

    def starts(self, slot: int) -> bool:
        """Whether this instance runs after it is brought back."""
        entry = self._entries.get(slot, self.config)
        return _dump.meaning(entry)["status"] == "online" and entry.get("autostart") is not False

    def payload(self, slot: int, marker: Dict[str, object]) -> Dict[str, object]:
        """What ``pm2 resurrect`` would send for the entry, without the keys of the run that it was saved from."""
        entry = self._entries[slot]
        payload = {key: value for key, value in entry.items() if key not in OF_ONE_RUN}
        payload["nodeops"] = marker
        if not self.starts(slot):
            # PM2 puts such a process into its list unchanged (God.prepare), without any default.
            payload.update(status="stopped", unique_id=str(uuid.uuid4()), restart_time=0, unstable_restarts=0)
            payload.update(axm_actions=[], axm_monitor={}, axm_options={}, axm_dynamic={})
            payload["created_at"] = entry.get("created_at") or 0
        return payload

    def differences(self, process: Process) -> List[Difference]:
        """What is different in a live process from its entry. A process that should be stopped must not run."""
        wanted = self._entries.get(-1 if process.instance is None else process.instance)
        if wanted is None:
            return []  # no entry has its number: that is the difference, and the plan sees it
        found = list(_differences(_compared(wanted), _compared(process.pm2_env), process))
        if process.status != "stopped" and not self.starts(process.instance or 0):
            found.append(Difference("status", process.status, "stopped"))
        return found


def build(entries: Iterable[_dump.Entry], namespace: str, redactor: Redactor) -> List[DumpApp]:
    """The apps of ``entries``, in their order; ``redactor`` learns their secrets.

    Raises NodeopsError, naming every entry that could not be brought back on this host. Nothing is sent to the daemon.
    """
    groups: Dict[str, List[_dump.Entry]] = {}
    for entry in entries:
        if _dump.namespace_of(entry) != namespace:
            raise ValueError("an entry of another namespace")
        groups.setdefault(str(entry.get("name")), []).append(entry)
    found = _resurrectable.problems(entry for group in groups.values() for entry in group)
    if found:
        raise NodeopsError(
            "Namespace %s cannot be brought back here: %s. Nothing of it was changed."
            % (namespace, "; ".join(_resurrectable.text(found))),
            {"problems": _resurrectable.text(found)},
        )
    apps = [DumpApp(name, group) for name, group in groups.items()]
    for group in groups.values():
        for entry in group:
            redactor.add_environment(variables(entry))
            arguments = entry.get("args") or []
            redactor.add_arguments(arguments if isinstance(arguments, list) else [arguments])
    return apps


def variables(entry: _dump.Entry) -> Dict[str, Any]:
    """The variables that an entry gives its process: its top level, overridden by its ``env`` (God.js:178)."""
    return {key: value for key, value in _effective(entry).items() if key not in _schema.PM2_KEYS}


def _effective(entry: _dump.Entry) -> _dump.Entry:
    environment = entry.get("env")
    return {**entry, **(environment if isinstance(environment, dict) else {})}


def _numbered(entries: Iterable[_dump.Entry]) -> Iterator[Any]:
    """Each entry, ready to be sent, with its number. If that is missing or taken, it gets the lowest free number."""
    waiting = []
    taken = set()
    for entry in entries:
        number = Process({"pm2_env": entry}).instance
        if number is None or number < 0 or number in taken:
            waiting.append(entry)
        else:
            taken.add(number)
            yield number, _with_number(entry, number)
    number = 0
    for entry in waiting:
        while number in taken:
            number += 1
        taken.add(number)
        yield number, _with_number(entry, number)


def _with_number(entry: _dump.Entry, number: int) -> _dump.Entry:
    variable = Process({"pm2_env": entry}).instance_var
    environment = {key: value for key, value in entry["env"].items() if key not in ("unique_id", variable)}
    return {**_dump.entry_of(entry), "env": environment, variable: number}


# -- comparison ------------------------------------------------------------------------------------------------------


def _compared(entry: _dump.Entry) -> _dump.Entry:
    """What a process of this entry has when it runs: its ``env`` is at the top level then."""
    compared = _dump.meaning(_effective(entry))
    for key in ("env", "status"):
        compared.pop(key, None)
    return compared


def _differences(wanted: _dump.Entry, live: _dump.Entry, process: Process) -> Iterator[Difference]:
    for key in sorted(wanted.keys() | live.keys()):
        before, after = live.get(key), wanted.get(key)
        if before == after or (key == "watch" and process.status in ("stopped", "errored") and not before):
            continue
        if key not in _schema.PM2_KEYS:
            yield _told("env." + key, key in live, key in wanted)
        elif key in _NAMES:
            yield Difference(_NAMES[key], before, after)
        elif key in _schema.BY_NAME and not _schema.BY_NAME[key].is_secret and key != "node_args":
            yield Difference(key, before, after)
        else:
            yield _told(key, bool(before), bool(after))


def _told(key: str, before: bool, after: bool) -> Difference:
    """That something changes which may be secret, without its value."""
    changed = _process.CHANGED if before else _process.SET
    return Difference(key, _process.SET if before else None, changed if after else None)
