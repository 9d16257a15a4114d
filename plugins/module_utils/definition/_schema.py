# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The keys of a definition: PM2's API/schema.json, the same in 5.4, 6.0 and 7.0.

Line numbers are those of PM2 7.0.4 below node_modules/pm2/lib.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _values as values
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError


class Problem(NamedTuple):
    """One thing wrong with a definition."""

    app: str
    key: str
    text: str

    def __str__(self) -> str:
        return "%s: %s: %s" % (self.app, self.key, self.text) if self.key else "%s: %s" % (self.app, self.text)


class DefinitionError(NodeopsError):
    """Definitions that cannot be used. Nothing was started; the message names every problem found."""

    def __init__(self, problems: List[Problem]) -> None:
        lines = "\n".join("  " + str(problem) for problem in problems)
        count = "1 problem" if len(problems) == 1 else "%d problems" % len(problems)
        super().__init__(
            "The definition of the apps has %s, nothing was changed:\n%s" % (count, lines),
            {"problems": [problem._asdict() for problem in problems]},
        )


Check = Callable[[object, int], Any]


class Key(NamedTuple):
    """One key of schema.json. ``note`` says how it is handled here, if that is different from PM2."""

    name: str
    check: Check
    aliases: Tuple[str, ...] = ()
    note: str = ""
    is_secret: bool = False


def _key(name: str, check: Check, *aliases: str, note: str = "", is_secret: bool = False) -> Key:
    """Aliases in the order PM2 tries them: the last of schema.json first, then camelCase (Config.js:34)."""
    return Key(name, check, (*reversed(aliases), _camel_case(name)), note, is_secret)


def _camel_case(name: str) -> str:
    """Config.js:35: each part but the first gets a capital, if it is longer than one character."""
    first, *rest = name.split("_")
    return first + "".join(part[0].upper() + part[1:] if len(part) > 1 else part for part in rest)


_NO_EFFECT = "Accepted, no effect: PM2 reads it from the command line only."

KEYS: Tuple[Key, ...] = (
    _key(
        "script",
        values.script,
        "exec",
        note="Also `cmd` and `command`. If it has a space, PM2 runs it with `bash -c`; refused if a file of that name "
        "exists, or with args, which PM2 would drop.",
        is_secret=True,
    ),
    _key("name", values.name, note="Default: the script's file name without its last extension."),
    _key("name_prefix", values.string, note=_NO_EFFECT),
    _key("filter_env", values.filter_env, note="Accepted, no effect: nothing is inherited that could be filtered."),
    _key("namespace", values.namespace, note="Must be the namespace of the call."),
    _key("install_url", values.string, note=_NO_EFFECT),
    _key(
        "cwd",
        values.string,
        note="Must exist. Sent as an absolute path; PM2 keeps it as written and reads it for git only.",
    ),
    _key("args", values.words, note="A string is split as the daemon's version of PM2 splits it.", is_secret=True),
    _key(
        "exec_interpreter",
        values.string,
        "interpreter",
        note="Must be found; `node@18` (nvm) is refused: give its path.",
    ),
    _key("node_args", values.words, "interpreterArgs", "interpreter_args"),
    _key("out_file", values.string, "out", "output", "out_log"),
    _key("error_file", values.string, "error", "err", "err_file", "err_log"),
    _key("log_file", values.path_or_boolean, "log"),
    _key("disable_logs", values.boolean),
    _key("log_type", values.string),
    _key("log_date_format", values.string),
    _key("time", values.boolean, note="Sets log_date_format."),
    _key(
        "env",
        values.variables,
        note="Values become text as PM2 makes it; names of PM2's own keys are refused.",
        is_secret=True,
    ),
    _key("max_memory_restart", values.size),
    _key(
        "pid_file",
        values.string,
        "pid",
        note="PM2 deletes it at the end: a file that holds no pid, or /dev/null, is refused.",
    ),
    _key("restart_delay", values.milliseconds),
    _key("exp_backoff_restart_delay", values.milliseconds),
    _key("source_map_support", values.boolean),
    _key("disable_source_map_support", values.boolean),
    _key("wait_ready", values.boolean),
    _key(
        "instances", values.instances, note="Sent as that many calls of `prepare`, not as a key (docs/architecture.md)."
    ),
    _key("kill_timeout", values.milliseconds),
    _key("shutdown_with_message", values.boolean),
    _key("listen_timeout", values.milliseconds),
    _key("cron_restart", values.cron_pattern, "cron", note="Only patterns that cannot kill the daemon (_cron.py)."),
    _key("merge_logs", values.boolean, "combine_logs"),
    _key("vizion", values.boolean),
    _key("autostart", values.boolean),
    _key("autorestart", values.boolean),
    _key("stop_exit_codes", values.exit_codes),
    _key("watch_delay", values.milliseconds),
    _key("watch", values.watch),
    _key("ignore_watch", values.globs),
    _key("watch_options", values.watch_options),
    _key("min_uptime", values.duration),
    _key(
        "max_restarts",
        values.number_between(0, 2**31, "a whole number from 0", whole=True),
        note="PM2 takes 0 as not given, which is 16.",
    ),
    _key("execute_command", values.boolean, note="Forces fork mode."),
    _key("exec_mode", values.exec_mode, note="cluster is refused if the interpreter is not the daemon's node."),
    _key("force", values.boolean, note=_NO_EFFECT),
    _key("append_env_to_name", values.boolean, note="With env_name: `-<env_name>` is appended to the name."),
    _key("post_update", values.strings),
    _key(
        "trace", values.boolean, note="Sent as given; the OpenTelemetry packages PM2 7 would install are not installed."
    ),
    _key("disable_trace", values.boolean),
    _key("v8", values.boolean),
    _key("event_loop_inspector", values.boolean),
    _key("deep_monitoring", values.boolean, note="As trace."),
    _key("increment_var", values.string),
    _key("instance_var", values.string),
    _key("pmx", values.boolean_or_string),
    _key("automation", values.boolean, note="false sets pmx to false."),
    _key("treekill", values.boolean),
    _key("port", values.number_between(0, 65535, "a port from 0 to 65535", whole=True), note="Sets PORT, unless 0."),
    _key("username", values.string, note="Accepted, no effect: PM2 puts in the user it runs as."),
    _key("uid", values.account, "user", note="Only for root. Sets HOME, and gid if it is not given."),
    _key("gid", values.account, note="Only with uid."),
    _key("windowsHide", values.boolean),
    _key("kill_retry_time", values.milliseconds),
    _key("write", values.boolean, note=_NO_EFFECT),
    _key("io", values.mapping, is_secret=True),
)

DEFAULTS: Dict[str, Any] = {
    "vizion": True,
    "autostart": True,
    "autorestart": True,
    "instance_var": "NODE_APP_INSTANCE",
    "pmx": True,
    "automation": True,
    "treekill": True,
    "windowsHide": True,
    "kill_retry_time": 100,
}
"""Defaults in schema.json. Every other default is the daemon's own."""

SCRIPT_ALIASES = ("cmd", "command")
"""Names of `script` that verifyConfs knows besides those of the schema (Common.js:716)."""

WITHOUT_EFFECT = ("force", "write", "install_url", "name_prefix", "username")

BY_NAME: Dict[str, Key] = {key.name: key for key in KEYS}
ACCEPTED: Dict[str, Key] = {alias: key for key in KEYS for alias in (*key.aliases, key.name)}
ACCEPTED.update((alias, BY_NAME["script"]) for alias in SCRIPT_ALIASES)

_INTERNALS = frozenset(
    (
        "pm_id",
        "status",
        "pm_uptime",
        "created_at",
        "restart_time",
        "unstable_restarts",
        "prev_restart_delay",
        "restart_task",
        "exit_code",
        "axm_actions",
        "axm_monitor",
        "axm_options",
        "axm_dynamic",
        "vizion_running",
        "versioning",
        "version",
        "node_version",
        "km_link",
        "_km_monitored",
        "_pm2_version",
        "_tree_pids",
        "unique_id",
        "pmx_module",
        "pm_exec_path",
        "pm_cwd",
        "pm_out_log_path",
        "pm_err_log_path",
        "pm_log_path",
        "pm_pid_path",
        "pm2_env",
        "current_conf",
        "updateEnv",
        "monit",
        "command",
        "MODULE_DEBUG",
        "nodeops",
    )
)
_NODE_OWN = frozenset(("NODE_UNIQUE_ID", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE"))
"""Variables by which Node recognises its own children. From a definition they break cluster and IPC."""

PM2_KEYS: FrozenSet[str] = frozenset(BY_NAME) | _INTERNALS
"""Top-level keys of pm2_env that are PM2's (or ours), not variables of the app."""


def variable_problem(name: object) -> Optional[str]:
    """Why this cannot be the name of an environment variable, or None.

    PM2 copies every variable over its configuration (God.js:178 `Utility.extend(env_copy, env_copy.env)`): a variable
    with the name of a key of PM2 changes how the app is run.
    """
    if not isinstance(name, str):
        return "is not a string: quote it"
    if not name or "=" in name or values.CONTROL.search(name):
        return 'is not a name of a variable: it is empty or has "=" or a control character'
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    if name in PM2_KEYS:
        return "is a key of PM2 and would override its configuration: use another name"
    if name in _NODE_OWN:
        return "is set by Node for its own children and would break the app"
    if name in values.OBJECT_MEMBERS:
        return "is a member of every JavaScript object and would break PM2"
    return None


def is_env_key(key: str) -> bool:
    """`env_production` and the like (schema.json `^env_\\S*$`)."""
    return key.startswith("env_") and key == "".join(key.split())


def nearest(key: str) -> Optional[str]:
    """The accepted key that is most similar to an unknown one."""
    import difflib

    names = list(ACCEPTED)
    close = difflib.get_close_matches(key, names, 1, 0.6) or difflib.get_close_matches(key.lower(), names, 1, 0.6)
    return close[0] if close else None
