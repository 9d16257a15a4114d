# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The paths of an app's log files and of its pid file (Common.js:203, line numbers of PM2 7.0.4)."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._paths import expand_home, resolve

NOWHERE = "/dev/null"
LOG_KEYS = ("pm_log_path", "pm_out_log_path", "pm_err_log_path")
PATH_KEYS = (*LOG_KEYS, "pm_pid_path")

_FILES = (
    ("log_file", "pm_log_path", ".log"),
    ("out_file", "pm_out_log_path", "-out.log"),
    ("error_file", "pm_err_log_path", "-error.log"),
    ("pid_file", "pm_pid_path", ".pid"),
)
_NOT_IN_A_FILE_NAME = re.compile("[^a-zA-Z0-9\\\\.-]")
_PLAIN_PLANE = 0xFFFF
_LOG_SUFFIX = re.compile("(?:-[0-9]+)?[.]log\\Z")
_PID_SUFFIX = re.compile("(?:-[0-9]+)?[.]pid\\Z")
_PID = re.compile(b"\\s*[0-9]{0,10}\\s*")
_MAX_FILE_NAME = 255
_PM_ID_RESERVE = len("-1000000")

ProblemText = Tuple[str, str]
"""A key, and what is wrong with it."""


def formatted_name(name: str) -> str:
    """An app's name in a file name (Common.js:201): "-" for each UTF-16 unit except letters, digits, . and \\."""
    return _NOT_IN_A_FILE_NAME.sub(lambda match: "-" * (2 if ord(match.group()) > _PLAIN_PLANE else 1), name)


def default_log_stem(name: str, namespace: str) -> str:
    """The file name of an app's default logs, without "-out.log".

    PM2's own name has no namespace in it, so apps of one name in two namespaces write into one file. The separator is
    "@" because neither part can have it: with ".", the app b.c of namespace a and the app c of namespace a.b would
    still share a file.
    """
    stem = formatted_name(name)
    return stem if namespace == "default" else "%s@%s" % (stem, namespace)


def put(config: Dict[str, Any], cwd: str, pm2_home: str, home: str) -> Iterator[ProblemText]:
    """Replace out_file, error_file, log_file and pid_file by the keys that the daemon reads. Yields problems."""
    for key, path_key, ending in _FILES:
        written = config.pop(key, None)
        if written is None or isinstance(written, bool):
            if key == "log_file" and not written:
                continue
            stem = formatted_name(config["name"])
            if key != "pid_file":
                stem = default_log_stem(config["name"], config["namespace"])
            path = resolve(pm2_home, "pids" if key == "pid_file" else "logs", stem + ending)
            if len(os.path.basename(path).encode("utf-8")) + _PM_ID_RESERVE > _MAX_FILE_NAME:
                yield "name", "and the namespace are too long for the name of a log file: give %s" % key
        elif written in ("NULL", NOWHERE):
            path = NOWHERE
        else:
            path = resolve(cwd, expand_home(written, home))
        config[path_key] = path
        for text in _pid_problem(path) if key == "pid_file" else _log_problem(path):
            yield key, text


def _log_problem(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        yield "is a directory: %s" % path
    parent = os.path.dirname(path)
    if os.path.lexists(parent) and not os.path.isdir(parent):
        yield "is not in a directory: %s" % path
    if "NULL" in path:
        yield 'has "NULL" in its path, which PM2 takes as "no log": %s' % path


def _pid_problem(path: str) -> Iterator[str]:
    """The daemon overwrites this file and unlinks it when the app ends (God.js:459): as root even /dev/null."""
    parent = os.path.dirname(path)
    if path.startswith("/dev/"):
        yield "must not be in /dev: PM2 deletes it when the app ends"
    elif os.path.lexists(parent) and not os.path.isdir(parent):
        yield "is not in a directory: %s" % path
    elif os.path.lexists(path) and not _holds_a_pid(path):
        yield "is a file that does not hold a pid, PM2 would overwrite and delete it: %s" % path


def _holds_a_pid(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return os.path.isfile(path) and bool(_PID.fullmatch(file.read(32)))
    except OSError:
        return False


def directories(config: Dict[str, Any]) -> List[str]:
    """The directories of its log and pid files."""
    paths = [config[key] for key in PATH_KEYS if config.get(key, NOWHERE) != NOWHERE]
    return sorted({os.path.dirname(path) for path in paths})


def has_form(live: str, path: str, key: str, merge_logs: bool) -> bool:
    """Whether the daemon made ``live`` from ``path``: with a pm_id in it, or unchanged (God.js:205)."""
    if key == "pm_pid_path":
        suffix = _PID_SUFFIX
    elif merge_logs or not _LOG_SUFFIX.search(path):
        return live == path
    else:
        suffix = _LOG_SUFFIX
    match = suffix.search(live)
    return match is not None and "-" in match.group() and suffix.sub("", live) == suffix.sub("", path)
