"""Generated definitions: odd combinations of odd values, some valid and some not. None is purely random."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Dict, List

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import Context

Json = Dict[str, Any]

SEED = 20260731

_FLAGS = [True, False, None, True, False, 1, "true"]
_NUMBERS = [0, 1, 2, 100, 3000, 1.5, "0", "5", "3000", "1.5", "1e3", "", None, -1, True, "abc", 2**31]
_POOL: Dict[str, List[Any]] = {
    "script": [
        "idle.sh",
        "./idle.sh",
        "report.js",
        "extensionless",
        "mapped.js",
        "idle",
        "folder",
        "sleep",
        "/bin/sleep",
    ],
    "exec": ["idle.sh", "report.js"],
    "cmd": ["idle.sh", "sleep 10"],
    "command": ["report.js"],
    "name": ["app", "a b", "grün", "x_y", "n.1", "", None, "all", 5],
    "cwd": ["sub", "./folder", "current", ".", "{base}", "", None, "missing"],
    "args": ["", "a b", "--x='1 2' y", ["a", "", "b c"], [], None, "'", '"a b', [1, True, 2.5], 'a"b" c="d e"', {}],
    "interpreter": ["node", "bash", "none", "/bin/bash", "python3", "{node}", "", None, "missing"],
    "exec_interpreter": ["node", "sh"],
    "node_args": ["--no-warnings", ["--x"], [], "", None],
    "interpreterArgs": ["--a --b"],
    "interpreter_args": [["--c"]],
    "nodeArgs": ["--d"],
    "exec_mode": ["fork", "cluster", "fork_mode", "cluster_mode", None, "", "Cluster"],
    "execMode": ["fork", "cluster"],
    "instances": [1, 2, 0, -1, "max", "1", "2", "0", "-1", None, "foo", 1.5, True],
    "execute_command": [True, False],
    "executeCommand": [True],
    "out_file": ["logs/o.log", "NULL", "/dev/null", "~/o.log", "", None, "logs/o-1.log"],
    "out": ["logs/out.log"],
    "output": ["logs/output.log"],
    "out_log": ["logs/out_log.log"],
    "outFile": ["logs/outFile.log"],
    "error_file": ["logs/e.log", None, "/dev/null"],
    "error": ["logs/error.log"],
    "err_file": ["logs/err_file.log"],
    "log_file": [True, False, "logs/all.log", "NULL", "", None],
    "log": ["logs/log.log", True],
    "pid_file": ["pids/a.pid", "pids/odd", "", None],
    "pid": ["pids/b.pid"],
    "merge_logs": _FLAGS,
    "combine_logs": _FLAGS,
    "mergeLogs": _FLAGS,
    "log_date_format": ["HH:mm", "", None],
    "log_type": ["json", "raw", ""],
    "max_memory_restart": ["300M", "1G", "5K", "300MB", "1.5G", 0, 1000, "1000", None, "", -1],
    "maxMemoryRestart": ["200M"],
    "min_uptime": ["10s", "1h", "2m", 1000, "1000", 50, 0, None, "5x"],
    "max_restarts": [0, 3, "4", "0", None, -1],
    "cron_restart": ["0 3 * * *", "* * * * * *", 0, "0", "", None, "bad", "0 0 31 2 *"],
    "cron": ["*/5 * * * *"],
    "stop_exit_codes": [[0], [1, 2], [], 5, "5", ["1", 2], [5.5], None, ["a"]],
    "watch": [True, False, "bin", ["bin"], [], "", None, 1],
    "ignore_watch": ["a b", ["a"], [], "", None, "'x y'"],
    "watch_options": [{"usePolling": True}, {}, None, {"bad": 1}],
    "post_update": [["a"], [], None, "a"],
    "pmx": [True, False, "false", None, ""],
    "port": [8080, "8080", 0, None, "x", 99999],
    "increment_var": ["COUNT", "", None, "name"],
    "instance_var": ["NUMBER", "", None],
    "io": [{"conf": {"a": 1}}, None],
    "env": [
        {},
        {"A": 1},
        {"A": None, "B": {"x": [1, "y"]}, "PORT": 1},
        {"F": 1e21, "G": -0.5, "H": True},
        None,
        "x",
        [],
    ],
    "env_production": [{"A": 2, "PORT": 3}, {"NODE_ENV": "production", "PYTHONUNBUFFERED": "0"}, {}],
    "env_test": [{"A": 9}],
    "append_env_to_name": [True, False],
    "filter_env": [True, False, "NONE", ["NONE"], None],
    "namespace": ["default", None],
    "unknown": ["x"],
}
_POOL.update((key, _FLAGS) for key in ("disable_logs", "time", "source_map_support", "disable_source_map_support"))
_POOL.update((key, _FLAGS) for key in ("wait_ready", "waitReady", "shutdown_with_message", "vizion", "autostart"))
_POOL.update((key, _FLAGS) for key in ("autorestart", "treekill", "windowsHide", "automation", "v8", "force", "write"))
_POOL.update((key, _FLAGS) for key in ("event_loop_inspector", "disable_trace", "disableTrace"))
_POOL.update((key, _NUMBERS) for key in ("restart_delay", "exp_backoff_restart_delay", "kill_timeout", "killTimeout"))
_POOL.update((key, _NUMBERS) for key in ("listen_timeout", "watch_delay", "kill_retry_time"))


def generated(count: int, base: Path, context: Context) -> List[Json]:
    """Definitions with a script, and one to eight other keys."""
    choice = random.Random(SEED)
    keys = sorted(_POOL)
    found = []
    for number in range(count):
        chosen = choice.sample(keys, choice.randint(1, 8))
        definition: Json = {"name": "app-%d" % number}
        if choice.random() < 0.9:
            definition["script"] = choice.choice(_POOL["script"])
        definition.update((key, choice.choice(_POOL[key])) for key in chosen)
        words = json.dumps(definition).replace("{base}", str(base)).replace("{node}", context.node)
        found.append(json.loads(words))
    return found
