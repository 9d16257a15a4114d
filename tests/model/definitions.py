"""Definitions of every kind, and the small programs that they start. PM2 5.4, 6.0 and 7.0 accept all of them.

No app has the name of a key of PM2: `pm2 start <file>` gives each app a variable with its own name and the value "{}",
which would replace that key (API.js:1143, God.js:178).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

Json = Dict[str, Any]

_REPORT = """\
const fs = require('fs');
const path = require('path');
const directory = path.join(process.env.PM2_HOME, 'reports');
fs.mkdirSync(directory, { recursive: true });
const file = path.join(directory, process.env.pm_id);
const { argv, execArgv, env } = process;
fs.writeFileSync(file + '.tmp', JSON.stringify({ argv, execArgv, env, cwd: process.cwd() }));
fs.renameSync(file + '.tmp', file + '.json');
if (process.send) process.send('ready');
setInterval(() => {}, 1 << 30);
"""
_SLEEP = "#!/bin/bash\nexec sleep 1000\n"
_PYTHON = "#!/usr/bin/env python3\nimport time\ntime.sleep(1000)\n"


def write_programs(directory: Path) -> None:
    """Write the programs of the definitions below."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("report.js", "extensionless", "with.dots.js", "mapped.js", "sub/report.js", "folder/index.js"):
        _write(directory / name, _REPORT)
    for name in ("idle.sh", "idle", "exec.sh", "command.sh", "sub/only-here.sh", "bin/tool.sh"):
        _write(directory / name, _SLEEP, 0o755)
    _write(directory / "idle.py", _PYTHON)
    _write(directory / "mapped.js.map", "{}")
    os.symlink("sub", directory / "current")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _named(cases: Dict[str, Json], **defaults: Any) -> List[Json]:
    """Each definition, named by its key unless it has a name. "name": None stands for no name."""
    named = []
    for name, definition in cases.items():
        complete = {"name": name, **defaults, **definition}
        named.append({key: value for key, value in complete.items() if not (key == "name" and value is None)})
    return named


_IDLE = {"script": "./idle.sh"}

NODE: List[Json] = _named(
    {
        "plain": {},
        "unnamed": {"name": None, "script": "with.dots.js"},
        "args-string": {"args": '--a=1 --b \'two words\' "three words" --c="x y" last'},
        "args-odd-string": {"args": "a\"b c\" --x='y z' --empty \"\" k='v'w  'unended \u00a0 end"},
        "args-list": {"args": ["--flag", "with space", "", "quo'te\"", "new\nline", "ünï", "$HOME", "*"]},
        "args-empty-string": {"args": ""},
        "node-args": {"node_args": "--max-old-space-size=200 --no-warnings"},
        "interpreter-args": {"interpreterArgs": ["--no-warnings"], "interpreter": "node"},
        "extensionless": {"script": "extensionless"},
        "one-instance": {"instances": 1},
        "two-instances": {"instances": 2, "env": {"A": "1"}},
        "text-instances": {"instances": "2", "exec_mode": "fork"},
        "max": {"instances": "max"},
        "all-but-one": {"instances": -1, "exec_mode": "cluster"},
        "zero-fork": {"instances": 0, "exec_mode": "fork_mode"},
        "cluster": {"exec_mode": "cluster"},
        "cluster-args": {"exec_mode": "cluster_mode", "args": "one 'two three'", "node_args": ["--no-warnings"]},
        "cluster-merged": {"instances": 2, "merge_logs": True, "log_file": True},
        "values": {
            "env": {
                "TEXT": "plain",
                "EMPTY": "",
                "NUMBER": 8080,
                "FRACTION": 0.1,
                "WHOLE": 1.0,
                "LARGE": 1e21,
                "SMALL": 1e-7,
                "NEGATIVE": -5,
                "YES": True,
                "NO": False,
                "NOTHING": None,
                "OBJECT": {"b": 1, "a": [1, "two", None], "10": 1, "9": 2},
                "LIST": [1, "two", {"three": 3}],
                "UNICODE": "grün ☃ 🎈",
                "LINES": "one\ntwo\ttab",
                "QUOTES": "\"double\" 'single' `back` \\ $HOME",
                "lower.case-name": "odd name",
                "NODE_ENV": "production",
            }
        },
        "values-cluster": {"instances": 1, "env": {"N": 1e-7, "O": {"a": [True]}, "L": [1], "NOTHING": None, "E": ""}},
        "port-key": {"port": 8099},
        "port-over-env": {"port": "8099", "env": {"PORT": 1}},
        "instance-var": {"instances": 2, "instance_var": "WORKER_NUMBER"},
        "increment": {"instances": 2, "increment_var": "COUNTER", "env": {"COUNTER": "5"}},
        "increment-new": {"instances": 2, "exec_mode": "fork", "increment_var": "COUNTER"},
        "wait-ready": {"wait_ready": True, "listen_timeout": 5000},
        "wait-ready-cluster": {"wait_ready": True, "instances": 1},
        "source-maps": {"script": "mapped.js"},
        "no-source-maps": {"script": "mapped.js", "disable_source_map_support": True},
        "folder": {"script": "folder"},
        "cwd-key": {"cwd": "sub"},
        "cwd-link": {"cwd": "current"},
        "io-key": {"io": {"conf": {"metrics": {"eventLoop": False}}}, "pmx": True},
        "pmx-off": {"pmx": False},
        "automation-off": {"automation": False},
        "aliases": {
            "script": None,
            "exec": "report.js",
            "execMode": "cluster",
            "killTimeout": 3000,
            "maxMemoryRestart": "400M",
            "nodeArgs": "--no-warnings",
        },
    },
    script="report.js",
)
NODE = [{key: value for key, value in item.items() if not (key == "script" and value is None)} for item in NODE]

OTHER: List[Json] = _named(
    {
        "shell": {},
        "cmd": {"cmd": "command.sh", "script": None},
        "command": {"command": "command.sh", "script": None},
        "executable": {"script": "./idle", "interpreter": "none"},
        "explicit-shell": {"script": "idle", "interpreter": "/bin/bash", "interpreter_args": "--norc"},
        "python": {"script": "idle.py"},
        "python3": {"script": "idle.py", "interpreter": "python3", "interpreter_args": "-u"},
        "python-two": {"script": "idle.py", "instances": 2},
        "binary": {"script": "/bin/sleep", "args": "1000"},
        "in-path": {"script": "sleep", "args": ["1000"]},
        "command-line": {"script": "sleep 1000"},
        "command-line-odd": {"script": 'X=\'grün "☃"\'; exec -a "my $X" sleep 1000'},
        "execute-command": {"execute_command": True, "instances": 2},
        "relative-to-cwd": {"cwd": "sub", "script": "only-here.sh"},
        "relative-to-base": {"cwd": "sub", "script": "bin/tool.sh"},
        "absolute": {"script": "{base}/idle.sh", "cwd": "{base}/folder"},
        "merged": {"merge_logs": True},
        "not-merged": {"merge_logs": False, "instances": 1},
        "not-merged-fork": {"merge_logs": False},
        "combined": {"combine_logs": True, "instances": 2, "exec_mode": "fork"},
        "combined-false": {"combine_logs": False},
        "logs": {"out_file": "logs/out.log", "error_file": "./logs/err.log", "log_file": "logs/all.log"},
        "logs-aliases": {"output": "logs/o.txt", "err": "logs/e.log", "log": "logs/a-1.log", "instances": 1},
        "logs-more-aliases": {"out_log": "logs/ol.log", "err_log": "logs/el.log"},
        "logs-camel": {"outFile": "logs/of.log", "errFile": None, "errorFile": "logs/ef.log"},
        "logs-nowhere": {"out_file": "NULL", "error_file": "/dev/null"},
        "logs-home": {"out_file": "~/parity-out.log"},
        "log-default": {"log_file": True},
        "log-off": {"log_file": False},
        "pid": {"pid_file": "pids/my.pid"},
        "pid-odd": {"pid": "pids/odd"},
        "no-logs": {"disable_logs": True},
        "json-logs": {"log_type": "json"},
        "dates": {"log_date_format": "YYYY-MM-DD HH:mm Z"},
        "time-key": {"time": True},
        "memory": {"max_memory_restart": "300M"},
        "memory-number": {"max_memory_restart": 1073741824},
        "memory-text": {"max_memory_restart": "524288000"},
        "memory-k": {"max_memory_restart": "512000K"},
        "uptime": {"min_uptime": "10s", "max_restarts": 3},
        "uptime-number": {"min_uptime": "5000", "max_restarts": "4"},
        "uptime-hour": {"min_uptime": "1h"},
        "delays": {"restart_delay": 100, "exp_backoff_restart_delay": "200", "watch_delay": 300},
        "timeouts": {"kill_timeout": "3000", "listen_timeout": 4000.5, "kill_retry_time": 50},
        "zeros": {
            "kill_timeout": 0,
            "restart_delay": 0,
            "max_restarts": 0,
            "kill_retry_time": 0,
            "min_uptime": 0,
            "port": 0,
            "max_memory_restart": 0,
            "listen_timeout": 0,
        },
        "nulls": {"args": None, "env": None, "autorestart": None, "kill_timeout": None, "watch": None, "uid": None},
        "empty-texts": {"out_file": "", "log_type": "", "cron_restart": "", "watch": "", "exec_mode": ""},
        "falses": {
            "wait_ready": False,
            "disable_logs": False,
            "time": False,
            "source_map_support": False,
            "force": False,
            "trace": False,
            "v8": False,
            "disable_trace": False,
        },
        "cron": {"cron_restart": "0 3 * * *"},
        "cron-alias": {"cron": "*/15 1-5 * JAN MON-FRI"},
        "cron-off": {"cron_restart": 0},
        "cron-off-text": {"cron_restart": "0"},
        "no-restart": {"autorestart": False},
        "exit-codes": {"stop_exit_codes": [0, 3]},
        "exit-code-list": {"stop_exit_codes": [3]},
        "exit-code": {"stop_exit_codes": "5"},
        "exit-codes-none": {"stop_exit_codes": []},
        "watch-key": {"watch": ["bin"], "ignore_watch": "node_modules '*.log'", "watch_options": {"usePolling": False}},
        "watch-cwd": {"watch": True, "cwd": "folder", "ignore_watch": ["x"], "watch_delay": "1000"},
        "watch-path": {"watch": "bin"},
        "watch-off": {"watch": False},
        "switches": {"vizion": False, "treekill": False, "windowsHide": False, "v8": True},
        "more-switches": {"event_loop_inspector": True, "disable_trace": True, "source_map_support": True},
        "shutdown": {"shutdown_with_message": True, "instances": 1, "exec_mode": "fork"},
        "filter-env": {"filter_env": True},
        "filter-env-text": {"filter_env": "NOTHERE"},
        "filter-env-list": {"filter_env": ["NOTHERE"]},
        "without-effect": {
            "force": True,
            "write": True,
            "install_url": "x",
            "name_prefix": "p",
            "username": "somebody",
        },
        "post-update": {"post_update": ["npm install", "echo done"]},
        "env-of-others": {"env_production": {"A": 1}, "env_test": {"B": 2}, "env": {"A": 0}},
        "grün 'ñame\" ☃/🎈": {},
        "under_score and space": {"instances": 1},
        "same-namespace": {"namespace": "default"},
    },
    **_IDLE,
)
OTHER = [{key: value for key, value in item.items() if key not in ("script", "errFile") or value} for item in OTHER]

NOT_STARTED: List[Json] = _named(
    {
        "autostart-off": {"env": {"A": 1}},
        "serve": {"script": "serve", "env": {"PM2_SERVE_PATH": ".", "PM2_SERVE_PORT": 8080}},
        "shell-over-js": {"script": "report.js", "interpreter": "/bin/sh", "instances": 2, "exec_mode": "fork"},
        "every-timer": {"restart_delay": 2147483647, "kill_timeout": 1.5, "exp_backoff_restart_delay": 1e3},
    },
    script="report.js",
    autostart=False,
)

AS_ROOT: List[Json] = _named(
    {
        "uid-name": {"uid": "nobody", "env": {"HOME": "/given"}},
        "uid-number": {"uid": 65534, "gid": 0},
        "user": {"user": "nobody", "gid": "root"},
        "uid-zero": {"uid": 0},
        "uid-zero-text": {"uid": "0"},
    },
    script="report.js",
    autostart=False,
)
"""Only root may use these. They are not started, because another user cannot read the test's directory."""


class File(NamedTuple):
    """An ecosystem file: its name, its text, and the options of `pm2 start` for it."""

    name: str
    text: str
    env_name: Optional[str] = None
    namespace: str = "default"


FILES: List[File] = [
    File(
        "first.config.js",
        """
const base = {script: 'idle.sh', env: {BASE: 1}};
const join = (...words) => words.join(require('path').sep);
module.exports = {
  apps: [
    {...base, name: 'js-file', args: [join('a', 'b')], env: {...base.env, DIR: require('path').basename(__dirname)}},
    {...base, name: 'js-undefined', args: undefined, env: {A: undefined, B: 'b'}, cron_restart: undefined},
    {...base, name: 'js-big', env: {BIG: 12345678901234567890, HEX: 0xff, EXP: 5e-324, NEG: -0}},
  ],
  deploy: {production: {user: 'node', 'post-deploy': 'true', env: {DEPLOYED: 'not without --env'}}},
};
""",
    ),
    File("second.config.cjs", "module.exports = [{script: 'idle.sh', name: 'cjs-array'}];\n"),
    File("single.json", json.dumps({"name": "single-object", "script": "idle.sh", "env": {"A": "x"}})),
    File("pm2-key.json", json.dumps({"pm2": {"name": "pm2-key", "script": "idle.sh"}})),
    File(
        "loose.json",
        """// comments, no quotes, trailing commas
{
  apps: [{
    name: 'loose-json', /* here too */ script: "idle.sh",
    env: {HEX: 0x1F, FRACTION: .5, 'QUOTED': 'it\\'s', SUM: 1 + 1,},
  },],
}
""",
    ),
    File(
        "apps.yml",
        """
apps:
  - name: yaml-file
    script: idle.sh
    instances: 2
    exec_mode: fork
    args: >-
      --folded "with quotes"
      --second
    env: &shared
      TEXT: plain
      YES: yes
      TRUE: true
      OCTAL: 0o17
      OLD_OCTAL: 017
      FLOAT: 1.50
      EXP: 1e3
      NOTHING: ~
      TIME: 12:30
      LIST: [1, two]
  - name: yaml-anchor
    script: ./idle.sh
    max_memory_restart: 200M
    env:
      <<: *shared
      TEXT: other
""",
    ),
    File(
        "environments.json",
        json.dumps(
            {
                "apps": [
                    {
                        "name": "with-environment",
                        "script": "idle.sh",
                        "port": 8000,
                        "env": {"A": "env", "B": "env", "C": {"x": 1}, "D": "env"},
                        "env_production": {"B": "production", "NODE_ENV": "production", "PORT": 9000, "T": True},
                        "env_test": {"B": "test"},
                    },
                    {"name": "no-environment", "script": "idle.sh", "env": {"A": "env"}},
                    {
                        "name": "named-by-env",
                        "script": "idle.sh",
                        "append_env_to_name": True,
                        "env_production": {"A": 1},
                    },
                    {"script": "idle", "interpreter": "bash", "appendEnvToName": True, "env_production": {}},
                ],
                "deploy": {"production": {"env": {"D": "deploy", "B": "deploy", "E": "deploy"}}},
            }
        ),
        env_name="production",
    ),
    File(
        "namespaced.json",
        json.dumps(
            {
                "apps": [
                    {"name": "other-shell", "script": "idle.sh", "log_file": True},
                    {"name": "other-one", "script": "report.js", "instances": 2},
                    {"name": "other-logs", "script": "idle.sh", "out_file": "logs/other.log", "namespace": "other"},
                ]
            }
        ),
        namespace="other",
    ),
]

TABLE = "inline.json"
"""The file with all inline definitions."""


def inline(base: Path) -> List[Json]:
    """Every inline definition, for programs in ``base``."""
    everything = NODE + OTHER + NOT_STARTED + (AS_ROOT if os.getuid() == 0 else [])
    return [json.loads(json.dumps(item).replace("{base}", str(base))) for item in everything]


def write_files(base: Path) -> List[File]:
    """All ecosystem files, that of the inline definitions first."""
    files = [File(TABLE, json.dumps({"apps": inline(base)})), *FILES]
    for file in files:
        (base / file.name).write_text(file.text)
    return files
