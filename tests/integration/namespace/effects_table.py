# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of PM2's ecosystem schema, each with two values and their effect on an app."""

from __future__ import annotations

import os
import signal
from typing import Any, Dict, List, NamedTuple, Tuple

from integration.namespace import effects
from integration.namespace.effects import Probe

Json = Dict[str, Any]


class Case(NamedTuple):
    """A key that gets one value, then another, then none.

    "{dir}" in a value is the app's own directory, "{shared}" that of the programs. `expected` has what the probe sees
    each time. `named` are the reasons that an action has to give, if they are not only the key; `also` are reasons that
    it may give too. `base` is the rest of the definition.
    """

    key: str
    first: Json
    changed: Json
    observe: Probe
    expected: Tuple[Any, Any, Any]
    base: Json = {}  # noqa: RUF012
    named: Tuple[str, ...] = ()
    also: Tuple[str, ...] = ()
    title: str = ""

    @property
    def name(self) -> str:
        """The app's name."""
        return (self.title or self.key).replace("_", "-")

    def explains(self, reasons: List[str]) -> bool:
        """Whether an action may have these reasons: all required ones, and no others than allowed."""
        must = set(self.named or (self.key,))
        return must <= set(reasons) <= must | set(self.also)


def _one(key: str, first: Any, changed: Any, observe: Probe, expected: Tuple[Any, Any, Any], **more: Any) -> Case:
    """A case; if `first` is None, the key is not given at first."""
    return Case(key, {} if first is None else {key: first}, {key: changed}, observe, expected, **more)


SLEEP: Json = {"script": "/bin/sleep", "args": ["1000"]}
SHELL: Json = {"script": "{shared}/idle.sh"}


def command(_version: str) -> List[Case]:
    """What is run, and in which directory."""
    idle, other = ["bash", "idle.sh"], ["bash", "other.sh"]
    return [
        Case(
            "script",
            {"script": "{shared}/idle.sh"},
            {"script": "{shared}/other.sh"},
            effects.command_line,
            (idle, other, idle),
            base=SHELL,
        ),
        _one(
            "cwd",
            "{dir}/one",
            "{dir}/two",
            effects.directory,
            ("cwd/one", "cwd/two", "shared"),
            base={**SHELL, "cwd": None},
        ),
        _one(
            "args",
            ["--one"],
            "--two 'three words'",
            effects.command_line,
            ([*idle, "--one"], [*idle, "--two", "three words"], idle),
            base=SHELL,
        ),
        _one(
            "exec_interpreter",
            "/bin/dash",
            "python3",
            effects.executable,
            ("dash", "python", "bash"),
            base={"script": "{shared}/polyglot.sh"},
            named=("env", "exec_interpreter"),
        ),
        _one(
            "node_args",
            ["--norc"],
            ["--norc", "--noprofile"],
            effects.command_line,
            (["bash", "--norc", "idle.sh"], ["bash", "--norc", "--noprofile", "idle.sh"], idle),
            base=SHELL,
        ),
        _one(
            "node_args",
            ["--no-warnings"],
            ["--no-deprecation"],
            effects.node_arguments,
            (["--no-warnings"], ["--no-deprecation"], []),
            base={"exec_mode": "cluster"},
            title="node-args-cluster",
        ),
        _one(
            "exec_mode",
            "fork",
            "cluster",
            effects.is_cluster_worker,
            (False, True, False),
            also=("merge_logs",),
        ),
        _one(
            "execute_command",
            None,
            True,
            effects.is_cluster_worker,
            (True, False, True),
            base={"exec_mode": "cluster"},
            named=("exec_mode",),
            also=("merge_logs",),
        ),
        _one(
            "instances",
            2,
            3,
            effects.instances,
            (["0", "1"], ["0", "1", "2"], ["0"]),
            base={"exec_mode": "fork", "merge_logs": True},
        ),
        _one("autostart", None, False, effects.runs, (True, False, True), base=SHELL),
    ]


def variables(_version: str) -> List[Case]:
    """The environment of an app."""
    mixed, empty = {"KEPT": "1", "CHANGED": "before"}, {"KEPT": "1", "CHANGED": "after", "ADDED": "ünï"}
    names = ("KEPT", "CHANGED", "ADDED")
    seen = (("1", "before", None), ("1", "after", "ünï"), (None, None, None))
    return [
        _one("env", mixed, empty, effects.variables(*names), seen, base=SHELL),
        _one("env", mixed, empty, effects.variables(*names), seen, base={"exec_mode": "cluster"}, title="env-cluster"),
        _one(
            "port",
            3001,
            3002,
            effects.variables("PORT"),
            (("3001",), ("3002",), (None,)),
            base=SHELL,
            named=("env", "port"),
        ),
        _one(
            "increment_var",
            None,
            "FIRST",
            effects.variables("FIRST"),
            ([("10",), ("10",)], [("10",), ("11",)], [("10",), ("10",)]),
            base={**SHELL, "exec_mode": "fork", "instances": 2, "env": {"FIRST": 10}},
            also=("env",),
        ),
        _one(
            "instance_var",
            None,
            "NUMBER",
            effects.variables("NODE_APP_INSTANCE", "NUMBER"),
            (("0", None), (None, "0"), ("0", None)),
            base=SHELL,
        ),
        _one(
            "io",
            {"conf": {"a": 1}},
            {"conf": {"a": 2}},
            effects.variables("io"),
            (('{"conf":{"a":1}}',), ('{"conf":{"a":2}}',), (None,)),
        ),
        _one("pmx", None, False, effects.modules_of_pmx, (True, False, True), base={"io": {"conf": {}}}),
        _one(
            "automation",
            None,
            False,
            effects.modules_of_pmx,
            (True, False, True),
            base={"io": {"conf": {}}},
            named=("pmx",),
        ),
        _one("trace", None, True, effects.variables("trace"), ((None,), ("true",), (None,))),
        _one(
            "disable_trace",
            None,
            True,
            effects.variables("trace"),
            (("true",), ("false",), ("true",)),
            base={"trace": True},
            named=("trace",),
        ),
        _one("v8", None, True, effects.variables("v8"), ((None,), ("true",), (None,)), base=SHELL),
        _one(
            "event_loop_inspector",
            None,
            True,
            effects.variables("event_loop_inspector"),
            ((None,), ("true",), (None,)),
            base=SHELL,
        ),
        _one(
            "deep_monitoring",
            None,
            True,
            effects.variables("deep_monitoring"),
            ((None,), ("true",), (None,)),
            base=SHELL,
        ),
    ]


def logs(version: str) -> List[Case]:
    """The files of the app's output, and its form in them."""
    out, err, both = effects.logged_to("out PID"), effects.logged_to("err PID"), effects.logged_to("(?:out|err) PID")
    default = "%s@logs-{kind}.log"
    mapped = version == "7.0"
    return [
        _one(
            "out_file", "{dir}/a.log", "b.log", out, (["a.log"], ["b.log"], [default.format(kind="out") % "out-file"])
        ),
        _one(
            "error_file",
            "{dir}/c.log",
            "d.log",
            err,
            (["c.log"], ["d.log"], [default.format(kind="error") % "error-file"]),
        ),
        _one(
            "log_file",
            "{dir}/e.log",
            "f.log",
            both,
            (
                ["all-err.log", "all-out.log", "e.log"],
                ["all-err.log", "all-out.log", "f.log"],
                ["all-err.log", "all-out.log"],
            ),
            base={"out_file": "all-out.log", "error_file": "all-err.log"},
        ),
        _one(
            "pid_file", "{dir}/one.pid", "two.pid", effects.pid_file, (["one-N.pid"], ["two-N.pid"], ["pid-file-N.pid"])
        ),
        _one("disable_logs", None, True, out, (["kept.log"], [], ["kept.log"]), base={"out_file": "kept.log"}),
        _one("log_type", None, "json", effects.log_line, ("out 9", JSON_LINE, "out 9")),
        _one("log_date_format", "YYYY", "DD.MM.YYYY", effects.log_line, ("9: out 9", "9.9.9: out 9", "out 9")),
        _one(
            "time", None, True, effects.log_line, ("out 9", "9-9-9T9:9:9: out 9", "out 9"), named=("log_date_format",)
        ),
        _one(
            "merge_logs",
            None,
            True,
            out,
            (["m-N.log", "m-N.log"], ["m.log"], ["m-N.log", "m-N.log"]),
            base={"exec_mode": "fork", "instances": 2, "out_file": "m.log"},
        ),
        _one(
            "source_map_support",
            False,
            True,
            effects.stack_names_source,
            (mapped, True, mapped),
            base={"script": "{shared}/inline.js"},
        ),
        _one(
            "disable_source_map_support",
            None,
            True,
            effects.stack_names_source,
            (True, False, True),
            base={"script": "{shared}/beside.js"},
            also=() if mapped else ("source_map_support",),
        ),
    ]


JSON_LINE = r'{"message":"out 9\n","timestamp":"9-9-9T9:9:9.9Z","type":"out","process_id":9,"app_name":"log-type"}'


def exits(_version: str) -> List[Case]:
    """What PM2 does when the app ends or grows."""
    exits = effects.restarts_after(signal.SIGUSR2)
    counted: Json = {**SLEEP, "min_uptime": "1h"}
    return [
        _one("autorestart", None, False, effects.restarts_after(signal.SIGKILL), (True, False, True), base=SLEEP),
        _one("stop_exit_codes", [8], [7, 9], exits, (True, False, True), base={"env": {"EXIT_CODE": 7}}),
        _one("max_restarts", 1, 2, effects.crashes_until_errored, (1, 2, 4), base=counted),
        _one(
            "min_uptime",
            "200",
            "1h",
            effects.crash_after_a_while,
            ("online", "errored", "online"),
            base={**SLEEP, "max_restarts": 1},
        ),
        _one("restart_delay", 2000, 4000, effects.restart_gap(0, 2, 4), (2, 4, 0), base=SLEEP),
        # Measured once, because it gets longer by half after the next crash.
        _one("exp_backoff_restart_delay", 4000, 10000, effects.restart_gap(0, 4, 10), (4, 10, 0), base=SLEEP),
        _one(
            "max_memory_restart",
            "2G",
            "100M",
            effects.outgrows,
            (False, True, False),
            base={"env": {"PROBE": "hoarding"}},
        ),
    ]


def stops(_version: str) -> List[Case]:
    """How PM2 stops the app, and what it waits for at a start."""
    waits = {"env": {"READY_AFTER": 2000}, "listen_timeout": 20000}
    late = {"wait_ready": True, "env": {"SILENT": "1"}}
    return [
        _one(
            "kill_timeout",
            100,
            5000,
            effects.stop_time(0.1, 1.6, 5),
            (0.1, 5, 1.6),
            base={"env": {"PROBE": "stubborn"}},
        ),
        _one(
            "kill_retry_time",
            2500,
            5000,
            effects.stop_time(0.1, 2.5, 5),
            (2.5, 5, 0.1),
            base={**SLEEP, "kill_timeout": 20000},
        ),
        _one(
            "shutdown_with_message",
            None,
            True,
            effects.last_words,
            ("signal", "message", "signal"),
            base={"env": {"PROBE": "noting"}},
        ),
        _one("treekill", None, False, effects.child_survives, (False, True, False), base={"env": {"PROBE": "parent"}}),
        _one("wait_ready", None, True, effects.time_to_online(0, 2), (0, 2, 0), base=waits),
        _one("listen_timeout", 5000, 7000, effects.time_to_online(3, 5, 7), (5, 7, 3), base=late),
    ]


def watching(version: str) -> List[Case]:
    """What PM2 does when a file changes, and what it reads about the files."""
    reads = version != "6.0"  # 6.0 does not read repositories: that is switched off in the source (constants.js:61)
    files = effects.restarted_by("watched.txt", "other.txt")
    deep = effects.restarted_by("watched.txt", "sub/deep.txt")
    return [
        _one("watch", None, True, effects.restarted_by("watched.txt"), ([], ["watched.txt"], []), base=SLEEP),
        _one(
            "ignore_watch",
            ["other.txt"],
            ["watched.txt"],
            files,
            (["watched.txt"], ["other.txt"], ["watched.txt", "other.txt"]),
            base={**SLEEP, "watch": True},
        ),
        _one(
            "watch_options",
            {"depth": 3},
            {"depth": 0},
            deep,
            (["watched.txt", "sub/deep.txt"], ["watched.txt"], ["watched.txt", "sub/deep.txt"]),
            base={**SLEEP, "watch": True},
        ),
        _one("watch_delay", 2000, 4500, effects.watch_gap(0, 2, 4.5), (2, 4.5, 0), base={**SLEEP, "watch": True}),
        _one(
            "vizion",
            None,
            False,
            effects.knows_repository,
            (reads, False, reads),
            base={**SLEEP, "cwd": "{shared}/repository"},
        ),
        _one(
            "post_update", ["true"], ["false"], effects.listed("post_update"), (["true"], ["false"], None), base=SLEEP
        ),
    ]


def accounts(_version: str) -> List[Case]:
    """The user and group of the app; only for root."""
    base = {**SLEEP, "cwd": "/", "out_file": "/dev/null", "error_file": "/dev/null"}
    root = (0, 0, os.path.expanduser("~root"))
    return [
        _one(
            "uid",
            "nobody",
            "daemon",
            effects.owner,
            ((65534, 65534, "/nonexistent"), (1, 1, "/usr/sbin"), root),
            base=base,
            named=("env", "gid", "uid"),
        ),
        _one(
            "gid",
            "daemon",
            "bin",
            effects.owner,
            ((65534, 1, "/nonexistent"), (65534, 2, "/nonexistent"), (65534, 65534, "/nonexistent")),
            base={**base, "uid": "nobody"},
        ),
    ]


GROUPS = (command, variables, logs, exits, stops, watching)

ELSEWHERE: Dict[str, str] = {
    "name": "test_another_name: a process of another name is another process",
    "cron_restart": "test_cron_restart: it needs a pattern made of the time of day",
}
"""Keys with a test of their own."""

WITHOUT_EFFECT: Dict[str, Json] = {
    "name_prefix": {"name_prefix": "x"},  # PM2 reads it from its command line only
    "install_url": {"install_url": "x"},  # as name_prefix
    "force": {"force": True},  # as name_prefix
    "write": {"write": True},  # as name_prefix
    "username": {"username": "somebody"},  # PM2 overwrites it with the user that runs it
    "filter_env": {"filter_env": ["HOME"]},  # filters inherited variables, and none is inherited
    "windowsHide": {"windowsHide": False},  # only for windows of another system
    "append_env_to_name": {"append_env_to_name": True},  # only with env_name, and then it changes the name
    "namespace": {"namespace": "NAMESPACE"},  # that of the call; another one is refused
}
"""Keys that cannot change a process here, with a value that must make no difference."""
