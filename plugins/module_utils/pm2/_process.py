# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A live process as the daemon lists it, and its differences from an App."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _paths, _schema
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import (
    json_text,
    number_of,
    text,
    truthy,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._log_paths import LOG_KEYS, has_form

DEFAULT_NAMESPACE = "default"
DEFAULT_INSTANCE_VAR = "NODE_APP_INSTANCE"

SET = "(set)"
CHANGED = "(changed)"

_PM2_OWN_VARIABLES = frozenset(
    (
        "PM2_USAGE",
        "PM2_JSON_PROCESSING",
        "PM2_PROGRAMMATIC",
        "PM2_INTERACTOR_PROCESSING",
        "PM2_DISCRETE_MODE",
        "PM2_SILENT",
        "PM2_NO_INTERACTION",
        "PM2_STATUS",
        "PM2_AGENT_ONLINE",
        "windowsHide",
    )
)
"""Variables that PM2's command line sets for itself and that leak into apps (grep `process.env.PM2_* =`)."""
_NO_MODULE_CONFIGURATION = "{}"
"""`pm2 start <file>` gives each app a variable of its own name, with its `pm2 set` values (API.js:1143)."""
_RESTING = ("stopped", "errored")
_MANY = 6


class Process:
    """One item of `getMonitorData`."""

    def __init__(self, item: Dict[str, Any]) -> None:
        env: Dict[str, Any] = item.get("pm2_env") or {}
        self.pm2_env = env
        self.pm_id = int(item.get("pm_id", env.get("pm_id", -1)))
        self.name = str(item.get("name", env.get("name", "")))
        self.namespace = str(env.get("namespace") or DEFAULT_NAMESPACE)
        self.unique_id = str(env.get("unique_id", ""))
        self.pid = int(item.get("pid") or 0)
        """0 when there is none."""
        self.status = str(env.get("status", ""))
        self.restart_time = int(env.get("restart_time") or 0)
        self.pm_uptime = int(env.get("pm_uptime") or 0)
        """The time of its last start, in milliseconds since 1970."""
        self.exit_code: Optional[int] = env.get("exit_code")
        self.exec_mode = str(env.get("exec_mode", ""))
        self.instance_var = str(env.get("instance_var") or DEFAULT_INSTANCE_VAR)
        self.instance = _slot(env.get(self.instance_var))
        self.is_module = bool(env.get("pmx_module"))
        marker = env.get("nodeops")
        self.marker: Optional[Dict[str, Any]] = marker if isinstance(marker, dict) else None
        self.out_log: Optional[str] = env.get("pm_out_log_path")
        self.err_log: Optional[str] = env.get("pm_err_log_path")
        self.cwd = str(env.get("pm_cwd", ""))
        self.script = str(env.get("pm_exec_path", ""))

    @property
    def identity(self) -> str:
        """Unique among the processes of this daemon. `pm2 scale` gives its copies the unique_id of the first."""
        return "%d:%s" % (self.pm_id, self.unique_id)

    @property
    def env(self) -> Dict[str, str]:
        """The variables of the app, without the instance number.

        The daemon runs an app with the top-level scalars of pm2_env; its `env` is only what came last (God.js:178).
        """
        return {
            name: text(value)
            for name, value in self.pm2_env.items()
            if name not in _schema.PM2_KEYS
            and name != self.instance_var
            and isinstance(value, (str, int, float))
            and not self._is_put_there_by_pm2(name, value)
        }

    def _is_put_there_by_pm2(self, name: str, value: object) -> bool:
        return name in _PM2_OWN_VARIABLES or (name == self.name and value == _NO_MODULE_CONFIGURATION)

    @property
    def running(self) -> bool:
        """Whether its status is online, and a process with its pid exists."""
        if self.status != "online" or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def _slot(value: object) -> Optional[int]:
    if isinstance(value, bool) or value is None:
        return None
    number = number_of(value) if isinstance(value, str) and value else value
    if isinstance(number, (int, float)) and math.isfinite(number) and number == int(number):
        return int(number)
    return None


class Difference(NamedTuple):
    """One key that is not as defined. Variables and arguments only say that they change, never a value."""

    key: str
    before: object
    after: object


Normal = Callable[[Any], Any]
"""Makes two values equal if they have the same effect."""


def _flag(value: object) -> bool:
    return truthy(value) and value != "false"


def _optional(value: object) -> object:
    """Values that are false to JavaScript are the same as none; a number and its text are the same."""
    if not truthy(value):
        return None
    return _number(value) if isinstance(value, str) else value


def _number(value: object) -> object:
    number = number_of(value) if isinstance(value, str) and value else value
    return value if isinstance(number, float) and math.isnan(number) else number


def _or_default(default: object) -> Normal:
    def normal(value: object) -> object:
        return default if value is None else _number(value)

    return normal


def _plain(value: object) -> object:
    return value if truthy(value) else None


def _list(value: object) -> List[str]:
    if not truthy(value):
        return []
    items = value if isinstance(value, list) else [value]
    return [text(item) for item in items]


def _json(value: object) -> object:
    """An object, also one that became a string on its way through env (Common.js:626)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return None if value is None else json_text(_sorted(value))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _watch(value: object) -> object:
    return value if isinstance(value, (str, list)) and value != "" else _flag(value)


def _pmx(value: object) -> object:
    return value not in (False, "false")


_NORMAL: Dict[str, Normal] = {
    "exec_mode": _plain,
    "args": _list,
    "node_args": _list,
    "disable_logs": _flag,
    "log_type": _plain,
    "log_date_format": _plain,
    "max_memory_restart": _optional,
    "restart_delay": _optional,
    "exp_backoff_restart_delay": _optional,
    "source_map_support": _flag,
    "disable_source_map_support": _flag,
    "wait_ready": _flag,
    "kill_timeout": _optional,
    "shutdown_with_message": _flag,
    "listen_timeout": _optional,
    "cron_restart": _optional,
    "vizion": _or_default(True),
    "autostart": _or_default(True),
    "autorestart": _or_default(True),
    "stop_exit_codes": _list,
    "watch_delay": _optional,
    "watch": _watch,
    "ignore_watch": _list,
    "watch_options": _json,
    "min_uptime": _or_default(1000),
    "max_restarts": _or_default(16),
    "post_update": _list,
    "trace": _flag,
    "v8": _flag,
    "event_loop_inspector": _flag,
    "deep_monitoring": _flag,
    "increment_var": _plain,
    "instance_var": _or_default(DEFAULT_INSTANCE_VAR),
    "pmx": _pmx,
    "treekill": _or_default(True),
    "port": _optional,
    "uid": _optional,
    "gid": _optional,
    "kill_retry_time": _or_default(100),
    "io": _json,
}
"""The keys that change a process and have one name in schema and pm2_env, each with what makes two values equal.

Not here: name and namespace (a process of another name is another process); script, cwd, interpreter, the paths with
merge_logs, and env (see below); keys that work only through another key, or not at all: time, automation,
disable_trace, execute_command, force, write, install_url, name_prefix, append_env_to_name, filter_env, username,
windowsHide.
"""

_PATHS = {
    "out_file": "pm_out_log_path",
    "error_file": "pm_err_log_path",
    "log_file": "pm_log_path",
    "pid_file": "pm_pid_path",
}


def differences(app: App, process: Process) -> List[Difference]:
    """What is different in the live process from its definition; [] if it is as defined.

    Any instance number of the app is right. A stopped process does not watch (God.js stopWatch sets watch to false).
    """
    live, wanted = process.pm2_env, app.config
    found: List[Difference] = []
    for key, path_key in (("script", "pm_exec_path"), ("cwd", "pm_cwd")):
        if live.get(path_key) != wanted[path_key]:
            found.append(Difference(key, live.get(path_key), wanted[path_key]))
    if not _same_interpreter(app, live.get("exec_interpreter")):
        found.append(Difference("exec_interpreter", live.get("exec_interpreter"), wanted["exec_interpreter"]))
    for key, normal in _NORMAL.items():
        before, after = live.get(key), wanted.get(key)
        if before == after or (key == "watch" and process.status in _RESTING and not before):
            continue
        before, after = normal(before), normal(after)
        if before != after:
            found.append(_told(key, before, after))
    found.extend(_path_differences(app, process))
    if process.instance is None or not 0 <= process.instance < app.instances:
        found.append(Difference("instance", process.instance, "0 to %d" % (app.instances - 1)))
    found.extend(_variable_differences(app, process))
    return found


def _same_interpreter(app: App, live: object) -> bool:
    """Whether both names are of the same file: PM2 5 says "node", later versions give its path."""
    if live == app.config["exec_interpreter"]:
        return True
    if not isinstance(live, str) or app.interpreter_path is None:
        return False
    found = _paths.which(live, app.env.get("PATH", ""), app.config["pm_cwd"])
    return found is not None and os.path.realpath(found) == os.path.realpath(app.interpreter_path)


def _path_differences(app: App, process: Process) -> Iterable[Difference]:
    """The log and pid files, and with them merge_logs.

    The only effect of merge_logs is that the names of the logs of a new process have no pm_id (God.js:208). A restart
    with the pm2 command sets it to true, so only the names are reliable.
    """
    merge = _flag(app.config.get("merge_logs"))
    other_merge: List[bool] = []
    for key, path_key in _PATHS.items():
        before, after = process.pm2_env.get(path_key), app.config.get(path_key)
        if before == after and (merge or path_key not in LOG_KEYS or after is None):
            continue
        if isinstance(before, str) and isinstance(after, str):
            if has_form(before, after, path_key, merge):
                continue
            if path_key in LOG_KEYS and has_form(before, after, path_key, not merge):
                other_merge.append(not merge)
                continue
        yield Difference(key, before, after)
    if other_merge:
        yield Difference("merge_logs", other_merge[0], merge)


def _variable_differences(app: App, process: Process) -> Iterable[Difference]:
    wanted = app.environment(process.instance or 0)
    live = process.env
    for name in sorted(wanted.keys() | live.keys()):
        if name in _schema.PM2_KEYS or wanted.get(name) == live.get(name):
            continue
        before = SET if name in live else None
        after = None if name not in wanted else CHANGED if name in live else SET
        yield Difference("env.%s" % name, before, after)


def _told(key: str, before: object, after: object) -> Difference:
    """Arguments and io can hold secrets: their difference only says that they change."""
    if key == "node_args" or _schema.BY_NAME[key].is_secret:
        return Difference(key, SET if before else None, (CHANGED if before else SET) if after else None)
    return Difference(key, before, after)


def reasons(found: Iterable[Difference]) -> List[str]:
    """The differences as sentences, without any value of a variable or an argument."""
    sentences: List[str] = []
    added: List[str] = []
    changed: List[str] = []
    removed: List[str] = []
    for difference in found:
        if difference.key.startswith("env."):
            names = removed if difference.after is None else added if difference.before is None else changed
            names.append(difference.key[len("env.") :])
        else:
            sentences.append(_sentence(difference))
    for verb, names in (("added", added), ("changed", changed), ("removed", removed)):
        if names:
            more = "" if len(names) <= _MANY else " and %d more" % (len(names) - _MANY)
            sentences.append("env: %s %s%s" % (verb, ", ".join(names[:_MANY]), more))
    return sentences


def _sentence(difference: Difference) -> str:
    key, before, after = difference
    if key == "instance":
        return "instance: its number is %s, the app has %s" % ("not known" if before is None else before, after)
    if SET in (before, after):
        return "%s: %s" % (key, "added" if before is None else "removed" if after is None else "changed")
    return "%s: %s -> %s" % (key, _short(before), _short(after))


def _short(value: object) -> str:
    if value is None:
        return "not set"
    rendered = value if isinstance(value, str) else json_text(value)
    return rendered if len(rendered) <= 200 else rendered[:197] + "..."
