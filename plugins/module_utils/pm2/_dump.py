# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""``dump.pm2``, from which ``pm2 resurrect`` starts processes: read it, merge one namespace, write it.

PM2's own save truncates and rewrites the file and its backup without a lock. Here a lock serialises our writers, the
file is replaced by rename, and the entries of every other namespace stay as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

Entry = Dict[str, Any]

LOCK_TIMEOUT = 30.0

# Not in an entry, as in PM2's own save (Startup.js, dump).
_NOT_SAVED = ("instances", "pm_id", "prev_restart_delay")
# Not part of an entry's meaning: they change although the app is the same.
_VOLATILE = frozenset(
    """axm_actions axm_dynamic axm_monitor axm_options created_at exit_code km_link node_version nodeops pm_uptime
    restart_time unique_id unstable_restarts updateEnv version versioning vizion_running _pm2_version _tree_pids
    _km_monitored command""".split()
)
_STOPPED = ("stopped", "stopping")
_ID_SUFFIX = re.compile(r"-[0-9]+(\.(?:log|pid))$")


class Dump(NamedTuple):
    """The entries that a resurrect would use; ``source`` is their file, None if there is none."""

    entries: List[Entry]
    source: Optional[str]
    problem: Optional[str]


def path_of(pm2_home: str) -> str:
    return os.path.join(pm2_home, "dump.pm2")


def read(pm2_home: str) -> Dump:
    """What ``pm2 resurrect`` would read: the dump, or its backup if the dump is missing or broken (Startup.js:573).

    ``problem`` says what is wrong with the dump. Never raises for a bad file.
    """
    path = path_of(pm2_home)
    entries, problem = _parse(path)
    if entries is not None:
        return Dump(entries, path, None)
    backup, backup_problem = _parse(path + ".bak")
    if backup is not None:
        return Dump(backup, path + ".bak", problem or "%s is missing" % path)
    if problem or backup_problem:
        return Dump([], None, "; ".join(filter(None, [problem, backup_problem])))
    return Dump([], None, None)


def _parse(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as stream:
            entries = json.load(stream)
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:
        return None, "%s cannot be read (%s)" % (path, error)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None, "%s is not a list of processes" % path
    return entries, None


def namespace_of(entry: Entry) -> str:
    """The namespace of an entry; ``default``, as in PM2, if it has none (Common.js, _startJson)."""
    return str(entry.get("namespace") or "default")


def entry_of(pm2_env: Dict[str, Any]) -> Entry:
    """What PM2's save would write for a live process."""
    return {key: value for key, value in pm2_env.items() if key not in _NOT_SAVED}


def entry_of_payload(payload: Dict[str, Any]) -> Entry:
    """The same for a process that ``prepare`` would start: variables override the configuration (God.js:178)."""
    status = "stopped" if payload.get("autostart") is False else "online"
    return entry_of({**payload, **payload["env"], "status": status})


def entries_of(pm2_envs: Iterable[Dict[str, Any]]) -> List[Entry]:
    """The entries of live processes; modules such as pm2-logrotate are never saved (Startup.js, saveProc)."""
    return [entry_of(pm2_env) for pm2_env in pm2_envs if not pm2_env.get("pmx_module")]


def meaning(entry: Entry) -> Entry:
    """What a resurrect of this entry would start: without counters, timestamps, ids and metrics."""
    result = {key: value for key, value in entry.items() if key not in _VOLATILE and key not in _NOT_SAVED}
    result["status"] = "stopped" if entry.get("status") in _STOPPED else "online"
    environment = entry.get("env")
    if isinstance(environment, dict):
        result["env"] = {key: value for key, value in environment.items() if key != "unique_id"}
    for key in ("pm_pid_path", "pm_log_path", "pm_out_log_path", "pm_err_log_path"):
        if isinstance(result.get(key), str) and (key == "pm_pid_path" or not entry.get("merge_logs")):
            result[key] = _ID_SUFFIX.sub(r"\1", result[key])
    return result


def same(left: Iterable[Entry], right: Iterable[Entry]) -> bool:
    """Whether a resurrect of both would start the same processes, in any order."""
    return canonical(left) == canonical(right)


def canonical(entries: Iterable[Entry]) -> List[str]:
    """What a resurrect of these entries would start, as texts that do not depend on their order."""
    return sorted(json.dumps(meaning(entry), sort_keys=True) for entry in entries)


def of_namespace(entries: Iterable[Entry], namespace: str) -> List[Entry]:
    return [entry for entry in entries if namespace_of(entry) == namespace]


def differs(pm2_home: str, namespace: str, wanted: List[Entry]) -> bool:
    """Whether ``save`` would write: the processes differ, the dump is broken, or other users can read it.

    Raises NodeopsError if ``save`` would.
    """
    dump = _readable(pm2_home, namespace)
    if not same(of_namespace(dump.entries, namespace), wanted):
        return True
    if dump.source is None:
        return False
    return dump.source != path_of(pm2_home) or bool(stat.S_IMODE(os.stat(dump.source).st_mode) & 0o077)


def save(pm2_home: str, namespace: str, wanted: List[Entry]) -> bool:
    """Make the dump hold exactly ``wanted`` for ``namespace``; every other entry stays. Returns whether it wrote.

    The former dump becomes ``dump.pm2.bak``; both are 0600. Raises NodeopsError, with the dump as it was, if neither
    file can be read (the other namespaces' entries would be lost) or if the new one cannot be written.
    """
    with _files.lock(pm2_home, "dump", "Namespace %s was not saved" % namespace, LOCK_TIMEOUT):
        dump = _readable(pm2_home, namespace)
        _files.discard_unfinished(path_of(pm2_home))
        if not differs(pm2_home, namespace, wanted):
            return False
        _write(pm2_home, dump, _merge(dump.entries, namespace, wanted))
        return True


def replace(pm2_home: str, namespaces: List[str], wanted: List[Entry]) -> bool:
    """Make the dump hold exactly ``wanted`` for these namespaces, in one write. Returns whether it wrote.

    As ``save``, but if neither file can be read, both are put aside (``.broken``) and a new dump is begun.
    """
    with _files.lock(pm2_home, "dump", "The dump was not changed", LOCK_TIMEOUT):
        _files.discard_unfinished(path_of(pm2_home))
        was_put_aside = _put_aside(pm2_home)
        dump = read(pm2_home)
        entries = dump.entries
        if not would_replace(pm2_home, namespaces, wanted):
            return was_put_aside
        for namespace in namespaces:
            entries = _merge(entries, namespace, of_namespace(wanted, namespace))
        is_all = len(entries) == len(wanted)
        _write(pm2_home, dump, wanted if is_all else entries)
        return True


def would_replace(pm2_home: str, namespaces: List[str], wanted: List[Entry]) -> bool:
    """Whether ``replace`` would write."""
    dump = read(pm2_home)
    if dump.source is None:
        return bool(wanted or dump.problem)
    return any(differs(pm2_home, each, of_namespace(wanted, each)) for each in namespaces)


def put_aside(pm2_home: str) -> bool:
    """If neither the dump nor its backup can be read, rename both to ``.broken``. Returns whether it did.

    A resurrect would remove them (Startup.js, parseDumpFile).
    """
    with _files.lock(pm2_home, "dump", "The dump was not changed", LOCK_TIMEOUT):
        return _put_aside(pm2_home)


def _put_aside(pm2_home: str) -> bool:
    dump = read(pm2_home)
    if not dump.problem or dump.source is not None:
        return False
    for path in (path_of(pm2_home), path_of(pm2_home) + ".bak"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, path + ".broken")
    _files.sync_directory(pm2_home)
    return True


def _readable(pm2_home: str, namespace: str) -> Dump:
    dump = read(pm2_home)
    if dump.problem and dump.source is None:
        raise NodeopsError(
            "%s. Namespace %s was not saved, because the entries of the other namespaces would be lost. Put back a "
            "backup of %s, or remove the broken files to start with an empty dump."
            % (dump.problem, namespace, path_of(pm2_home))
        )
    return dump


def _merge(entries: List[Entry], namespace: str, wanted: List[Entry]) -> List[Entry]:
    """``wanted`` takes the place of the namespace's first entry, so that the order of a start at boot stays."""
    first = next((i for i, entry in enumerate(entries) if namespace_of(entry) == namespace), len(entries))
    others_before = list(entries[:first])
    others_after = [entry for entry in entries[first:] if namespace_of(entry) != namespace]
    return others_before + wanted + others_after


def _write(pm2_home: str, former: Dump, entries: List[Entry]) -> None:
    path = path_of(pm2_home)
    try:
        _files.write_atomically(path, json.dumps(entries).encode(), lambda: _keep_former(path, former))
    except OSError as error:
        raise NodeopsError("%s could not be written, it is as it was: %s." % (path, _files.why(error))) from error


def _keep_former(path: str, former: Dump) -> None:
    """The file at ``path`` becomes the backup. A broken file is put aside instead, and the good backup stays."""
    if former.source == path:
        _keep_as_backup(path)
    elif former.problem and os.path.exists(path):
        os.rename(path, path + ".broken")


def _keep_as_backup(path: str) -> None:
    """The backup is the same file under a second name: it is not copied, so a reader never sees a part of it."""
    os.chmod(path, 0o600)
    temporary = path + ".bak.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.link(path, temporary)
    os.rename(temporary, path + ".bak")
    # rename(2) does nothing, and leaves the first name, if both names are of the same file already.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
