# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Whether an entry of a dump could be brought back on this host.

``pm2 resurrect`` checks nothing and returns 0: a process whose directory is missing is "online" for ever and does not
run, and an entry of the wrong shape ends the daemon with all its processes.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _cron, _paths, _values
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _dump

_MODES = ("fork_mode", "cluster_mode")
_PATHS = ("pm_pid_path", "pm_out_log_path", "pm_err_log_path")
_NOWHERE = "/dev/null"


class Problem(NamedTuple):
    """What is wrong with one entry, without any value of a variable."""

    namespace: str
    name: str
    text: str


def problems(entries: Iterable[_dump.Entry]) -> List[Problem]:
    """Why entries could not be brought back; [] if all could be, here and now."""
    found = []
    for entry in entries:
        namespace, name = (_label(part) for part in (_dump.namespace_of(entry), entry.get("name")))
        texts = list(_malformed(entry)) or list(_missing(entry))
        found += [Problem(namespace, name, text) for text in texts]
    return list(dict.fromkeys(found))


def _label(part: Any) -> str:
    return part if isinstance(part, str) and part.isprintable() and part else _values.shown(part)


def text(found: Iterable[Problem]) -> List[str]:
    """As sentences."""
    return ["%s of namespace %s: %s" % (problem.name, problem.namespace, problem.text) for problem in found]


# -- what would hurt the daemon --------------------------------------------------------------------------------------


def _malformed(entry: _dump.Entry) -> Iterable[str]:
    try:
        for key, part in (("name", entry.get("name")), ("namespace", _dump.namespace_of(entry))):
            if not _values.check_line(part):
                yield "its %s is empty" % key
    except _values.BadValue as error:
        yield str(error)
    for key in ("pm_exec_path", "pm_cwd", *_PATHS):
        if not _is_path(entry.get(key)):
            yield "%s is not an absolute path" % key
    if not (entry.get("pm_log_path") is None or _is_path(entry["pm_log_path"])):
        yield "pm_log_path is not an absolute path"
    if entry.get("exec_mode") not in _MODES:
        yield "exec_mode is neither fork_mode nor cluster_mode"
    if not isinstance(entry.get("env"), dict):
        yield "it has no env"
    for key, is_good in _SHAPES.items():
        if entry.get(key) is not None and not is_good(entry[key]):
            yield "%s has a value that PM2 cannot take" % key


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _is_words(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(w, (str, int, float)) for w in value))


def _is_cron(value: Any) -> bool:
    return not value or (isinstance(value, str) and _cron.problem(value) is None)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_SHAPES: Dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        """kill_timeout listen_timeout min_uptime max_restarts restart_delay exp_backoff_restart_delay watch_delay
        max_memory_restart kill_retry_time""".split(),
        _is_scalar,
    ),
    **dict.fromkeys(("args", "node_args"), _is_words),
    **dict.fromkeys(("exec_interpreter", "instance_var"), _is_name),
    "cron_restart": _is_cron,
}


# -- what is not there -----------------------------------------------------------------------------------------------


def _missing(entry: _dump.Entry) -> Iterable[str]:
    cwd, script = entry["pm_cwd"], entry["pm_exec_path"]
    if not os.path.isdir(cwd):
        yield "its working directory %s does not exist" % cwd
    if not os.path.isfile(script):
        yield "its script %s does not exist" % script
    elif not os.access(script, os.R_OK):
        yield "its script %s cannot be read" % script
    if entry["exec_mode"] == "fork_mode":
        yield from _missing_interpreter(entry)
    for path in sorted({entry[key] for key in _PATHS} - {_NOWHERE}):
        directory = os.path.dirname(path)
        if os.path.isdir(directory) and not os.access(directory, os.W_OK):
            yield "it could not write into %s" % directory


def _missing_interpreter(entry: _dump.Entry) -> Iterable[str]:
    """Only for fork mode: a cluster worker runs on the daemon's own node."""
    interpreter = entry.get("exec_interpreter") or "none"
    if interpreter == "none":
        if os.path.isfile(entry["pm_exec_path"]) and not os.access(entry["pm_exec_path"], os.X_OK):
            yield "%s is not executable, and it has no interpreter" % entry["pm_exec_path"]
        return
    variables = {**entry, **entry["env"]}
    search = variables.get("PATH")
    search = search if isinstance(search, str) and search else STANDARD_PATH
    if _paths.which(interpreter, search, entry["pm_cwd"]) is None:
        searched = "" if "/" in interpreter else " on its PATH"
        yield "its interpreter %s was not found%s" % (interpreter, searched)
