"""pm2_process refuses bad definitions and files with a clear error before any change, and the daemon survives.

PM2 itself accepts each of these, dies of it, or gives no message. Our message must name the key and what is expected,
and must not have a value that could be a secret.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import pytest
from model.context import start_daemon
from model.definitions import write_programs
from support import processes
from support.modules import call
from support.pm2 import VERSIONS, Pm2Home

Json = Dict[str, Any]

SECRET = "do-not-show-me"


class Case(NamedTuple):
    """A definition, to which script and name are added, and words that the message must have."""

    name: str
    definition: Json
    expected: List[str]


def case(name: str, definition: Json, *expected: str) -> Case:
    return Case(name, definition, list(expected))


BIG = "x" * (1024 * 1024)

CASES: List[Case] = [
    # Wrong types
    case("instances word", {"instances": "foo"}, "instances", '"max"', '"foo"'),
    case("instances boolean", {"instances": True}, "instances", "whole number"),
    case("instances fraction", {"instances": 1.5}, "instances", "whole number"),
    case("instances list", {"instances": [2]}, "instances"),
    case("instances huge", {"instances": 100000}, "instances", "1000"),
    case("instances fewer than none", {"instances": -999}, "instances", "CPU"),
    case("number as boolean", {"kill_timeout": True}, "kill_timeout", "milliseconds"),
    case("boolean as number", {"autorestart": 1}, "autorestart", "true or false"),
    case("boolean as text", {"autorestart": "false"}, "autorestart", "true or false"),
    case("negative time", {"restart_delay": -1}, "restart_delay", "milliseconds"),
    case("endless time", {"kill_timeout": 2**31}, "kill_timeout", "2147483647"),
    case("hexadecimal text", {"kill_timeout": "0x10"}, "kill_timeout"),
    case("not finite", {"listen_timeout": float("inf")}, "listen_timeout"),
    case("not a number", {"restart_delay": float("nan")}, "restart_delay"),
    case("memory with MB", {"max_memory_restart": "300MB"}, "max_memory_restart", '"300M"'),
    case("memory with fraction", {"max_memory_restart": "1.5G"}, "max_memory_restart"),
    case("memory below none", {"max_memory_restart": -5}, "max_memory_restart"),
    case("short uptime", {"min_uptime": 50}, "min_uptime", "100"),
    case("uptime in days", {"min_uptime": "1d"}, "min_uptime", '"10s"'),
    case("exit code", {"stop_exit_codes": [256]}, "stop_exit_codes", "255"),
    case("port", {"port": 70000}, "port", "65535"),
    case("exec mode", {"exec_mode": "threads"}, "exec_mode", '"cluster"'),
    case("log as number", {"log_file": 1}, "log_file"),
    case("args as mapping", {"args": {"secret": SECRET}}, "args", "list of strings"),
    case("args with a mapping", {"args": ["a", {"secret": SECRET}]}, "args", "mapping"),
    case("args with null", {"args": ["a", None]}, "args", "null"),
    case("env as text", {"env": f"A={SECRET}"}, "env", "mapping"),
    case("env as list", {"env": [SECRET]}, "env", "mapping"),
    case("env_x as text", {"env_production": SECRET}, "env_production", "mapping"),
    case("post_update as text", {"post_update": "npm i"}, "post_update", "list"),
    case("watch as number", {"watch": 1}, "watch"),
    case("watch with number", {"watch": ["a", 1]}, "watch"),
    case("ignore_watch with mapping", {"ignore_watch": [{}]}, "ignore_watch"),
    case("watch option unknown", {"watch_options": {"ignored_": 1}}, "watch_options", "ignored_"),
    case("watch option type", {"watch_options": {"ignored": 5}}, "watch_options", "ignored"),
    case("io as text", {"io": SECRET}, "io", "mapping"),
    case("definition too deep", {"io": json.loads('{"a":' * 30 + "1" + "}" * 30)}, "io", "levels"),
    # Keys
    case("unknown key", {"intances": 2}, "intances", "did you mean instances"),
    case("unknown key in camel case", {"killTimeOut": 2}, "killTimeOut", "did you mean killTimeout"),
    case("internal key", {"pm_exec_path": "/x"}, "pm_exec_path", "not a key"),
    case("two names of one key", {"out_file": "a.log", "output": "b.log"}, "out_file", "more than once"),
    case("prototype key", {"__proto__": {"a": 1}}, "__proto__", "not a key"),
    case("prototype key inside", {"watch_options": {"toString": True}}, "watch_options", "toString"),
    # Names
    case("name all", {"name": "all"}, "name", "pm2 stop all"),
    case("name number", {"name": "12"}, "name"),
    case("name as number", {"name": 12}, "name", "quote it"),
    case("name like a number", {"name": "1e3"}, "name"),
    case("name empty", {"name": ""}, "name"),
    case("name of a space", {"name": " "}, "name"),
    case("name with newline", {"name": "a\nb"}, "name", "control character"),
    case("name with escape", {"name": "a\x1b[31m"}, "name", "control character"),
    case("name with NUL", {"name": "a\0b"}, "name", "NUL"),
    case("name with surrogate", {"name": "a\ud800"}, "name", "Unicode"),
    case("name too long", {"name": "ü" * 101}, "name", "200 bytes"),
    case("name as option", {"name": "--force"}, "name", "option"),
    case("name as pattern", {"name": "/.*/"}, "name", "pattern"),
    case("name of an object member", {"name": "constructor"}, "name", "JavaScript"),
    case("own namespace", {"namespace": "elsewhere"}, "namespace", "elsewhere", "bad"),
    # Cron
    case("cron word", {"cron_restart": "daily"}, "cron_restart", "five fields"),
    case("cron alias", {"cron": "99 * * * *"}, "cron", "minute"),
    case("cron too many", {"cron_restart": "* * * * * * *"}, "cron_restart"),
    case("cron as number", {"cron_restart": 5}, "cron_restart"),
    case("cron never", {"cron_restart": "0 0 31 4,6,9,11 *"}, "cron_restart", "never"),
    case("cron date", {"cron_restart": "2030-01-01T00:00:00"}, "cron_restart"),
    case("cron mixed list", {"cron_restart": "1-5,30 * * * *"}, "cron_restart", "minute"),
    # What it starts
    case("no script", {"script": None}, "script", "required"),
    case("empty script", {"script": ""}, "script", "empty"),
    case("script missing", {"script": "{apps}/nothing.js"}, "script", "not found", "nothing.js"),
    case("script is a list", {"script": ["a", "b"]}, "script", "path"),
    case("script is a directory", {"script": "{apps}/bin"}, "script", "directory"),
    case("script with a space", {"script": "{apps}/with space.js"}, "script", "space"),
    case("script not executable", {"interpreter": "none"}, "script", "not executable"),
    case("command line with args", {"script": "sleep 1", "args": [SECRET]}, "args", "dropped"),
    case("command line with interpreter", {"script": "sleep 1", "interpreter": "node"}, "interpreter"),
    case("tilde", {"script": "~/app.js"}, "script", "~"),
    case("cwd missing", {"cwd": "/no/such/place"}, "cwd", "existing directory"),
    case("cwd is a file", {"cwd": "{apps}/report.js"}, "cwd", "directory"),
    case("cwd relative", {"cwd": "apps"}, "cwd", "absolute"),
    case("interpreter missing", {"interpreter": "no-such-thing"}, "interpreter", "not found"),
    case("interpreter of nvm", {"interpreter": "node@18"}, "interpreter", "nvm"),
    case("cluster of python", {"script": "{apps}/idle.py", "exec_mode": "cluster"}, "exec_mode", "fork"),
    case("cluster of a binary", {"script": "/bin/sleep", "exec_mode": "cluster"}, "exec_mode", "fork"),
    case("cluster of a command line", {"script": "node a.js", "exec_mode": "cluster", "cwd": "/"}, "exec_mode", "fork"),
    case("log is a directory", {"out_file": "{apps}"}, "out_file", "directory"),
    case("log below a file", {"error_file": "{apps}/report.js/x.log"}, "error_file", "directory"),
    case("log of NULL", {"out_file": "{apps}/NULLABLE.log"}, "out_file", "NULL"),
    case("pid file of dev", {"pid_file": "/dev/null"}, "pid_file", "/dev"),
    case("pid file NULL", {"pid_file": "NULL"}, "pid_file", "/dev"),
    case("pid file of something", {"pid_file": "{apps}/report.js"}, "pid_file", "does not hold a pid"),
    case("user missing", {"uid": "no-such-user"}, "uid"),
    case("group without user", {"gid": 0 if os.getuid() else "root"}, "gid"),
    # Variables
    case("variable like a key", {"env": {"name": SECRET}}, "env.name", "key of PM2"),
    case("variable like an internal", {"env": {"pm_id": SECRET}}, "env.pm_id", "key of PM2"),
    case("variable of the mark", {"env": {"nodeops": SECRET}}, "env.nodeops", "key of PM2"),
    case("variable of the instance", {"env": {"NODE_APP_INSTANCE": SECRET}}, "NODE_APP_INSTANCE", "instance_var"),
    case("variable of node", {"env": {"NODE_CHANNEL_FD": "3"}}, "NODE_CHANNEL_FD", "Node"),
    case("variable of the home", {"env": {"PM2_HOME": "/elsewhere"}}, "PM2_HOME"),
    case("variable of an object", {"env": {"toString": SECRET}}, "toString", "JavaScript"),
    case("variable with equals", {"env": {"A=B": SECRET}}, "A=B", "name"),
    case("variable without name", {"env": {"": SECRET}}, "env"),
    case("variable with newline", {"env": {"A\nB": SECRET}}, "env", "control"),
    case("value with NUL", {"env": {"A": SECRET + "\0"}}, "env.A", "NUL"),
    case("value not Unicode", {"env": {"A": SECRET + "\udcff"}}, "env.A", "Unicode"),
    case("value not exact", {"env": {"A": 12345678901234567891}}, "env.A", "quote"),
    case("value not finite", {"env": {"A": float("inf")}}, "env.A"),
    case("value of 1 MB", {"env": {"A": BIG}}, "env.A", "131072"),
    case("values of 2 MB", {"env": {f"A{n}": "x" * 100000 for n in range(20)}}, "env", "1048576"),
    case("cluster with 60 kB", {"instances": 1, "env": {"A": "x" * 60000}}, "env", "cluster"),
    case("argument of 1 MB", {"args": [BIG]}, "args", "128 KiB"),
    case("argument with NUL", {"args": ["a\0" + SECRET]}, "args", "NUL"),
    case("instance_var of PM2", {"instance_var": "pm_id"}, "instance_var", "key of PM2"),
    case("increment_var of PM2", {"increment_var": "status"}, "increment_var", "key of PM2"),
    case("increment_var twice", {"increment_var": "NODE_APP_INSTANCE"}, "increment_var", "same"),
]


class World(NamedTuple):
    home: Pm2Home
    apps: Path
    daemon: int


@pytest.fixture(scope="module", params=VERSIONS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon with an app of another namespace, which has to be untouched after each case."""
    directory = tmp_path_factory.mktemp("bad")
    write_programs(directory / "apps")
    (directory / "apps" / "with space.js").write_text("")
    home = Pm2Home(request.param, directory / "pm2")
    try:
        start_daemon(home)
        app = {"name": "bystander", "script": str(directory / "apps" / "idle.sh")}
        result = pm2_process(home, "bystanders", apps=[app], ready={"timeout": 20, "min_uptime": 0.1})
        assert not result["failed"], result
        yield World(home, directory / "apps", home.daemon_pids()[0])
    finally:
        home.kill()
        survivors = processes.end_all_of(directory)
        assert not survivors


def pm2_process(home: Pm2Home, namespace: Any, check: bool = False, **options: Any) -> Json:
    params = {"pm2_home": home.home, "pm2_executable": home.executable, "namespace": namespace, **options}
    return call("pm2_process", params, check=check)


def state(home: Pm2Home) -> List[Any]:
    keys = ("pm_id", "unique_id", "restart_time", "status", "namespace")
    return [(item["pid"], *(item["pm2_env"].get(key) for key in keys)) for item in home.jlist()]


def refused(world: World, namespace: Any = "bad", **options: Any) -> str:
    """The message of a call that has to fail in check mode and in a real run, and to change nothing."""
    before = state(world.home)
    dump = world.home.dump.read_bytes()
    predicted = pm2_process(world.home, namespace, check=True, **options)
    result = pm2_process(world.home, namespace, **options)
    assert result["failed"], "accepted"
    assert predicted["msg"] == result["msg"]
    assert state(world.home) == before
    assert world.home.dump.read_bytes() == dump
    assert world.home.daemon_pids() == [world.daemon]
    assert SECRET not in json.dumps(result)
    return str(result["msg"])


def completed(world: World, definition: Json) -> Json:
    """The definition with a script and a name, and {apps} filled in."""
    complete: Json = {"name": "app", "script": "{apps}/report.js", **definition}
    return {
        key: value.replace("{apps}", str(world.apps)) if isinstance(value, str) else value
        for key, value in complete.items()
        if value is not None or key != "script"
    }


def _depends_on_version(given: Case) -> bool:
    return given.name.startswith(("arg", "cluster", "cron"))


@pytest.mark.parametrize(
    ("world", "given"),
    [
        (version, given)
        for version in VERSIONS
        for given in CASES
        if version == VERSIONS[-1] or _depends_on_version(given)
    ],
    indirect=["world"],
    scope="module",
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_bad_definition(world: World, given: Case) -> None:
    message = refused(world, apps=[completed(world, given.definition)])

    missing = [words for words in given.expected if words not in message]
    assert not missing, message
    assert len(message) < 1000


def test_there_are_at_least_sixty_cases() -> None:
    assert len(CASES) >= 60


def test_every_problem_is_named_at_once(world: World) -> None:
    good = {"name": "good", "script": f"{world.apps}/report.js"}
    first = {"name": "first", "script": "/nowhere.js", "instances": "foo", "env": {"name": SECRET}}
    second = {"name": "second", "scripts": "x"}

    message = refused(world, apps=[good, first, second, good])

    for words in ("8 problems", "/nowhere.js", '"foo"', "env.name", "scripts", "required", "definitions 1 and 4"):
        assert words.replace("8", str(message.count("\n"))) in message, message


@pytest.mark.parametrize("namespace", ["", "all", "12", "-x", ".hidden", "a b", "a/b", "ü", "a\n", "x" * 101, "0x1f"])
def test_bad_namespace(world: World, namespace: str) -> None:
    message = refused(world, namespace, apps=[completed(world, {})])

    assert "namespace" in message


@pytest.mark.parametrize("app", [None, "text", 5, ["a"]])
def test_an_app_that_is_not_a_mapping(world: World, app: object) -> None:
    assert refused(world, apps=[app])


class BadFile(NamedTuple):
    name: str
    text: Optional[str]
    expected: List[str]


def bad_file(name: str, text: Optional[str], *expected: str) -> BadFile:
    return BadFile(name, text, list(expected))


BAD_FILES = [
    bad_file("missing.config.js", None, "does not exist"),
    bad_file("odd.txt", "x", "must end with"),
    bad_file("empty.json", "", "SyntaxError"),
    bad_file("no-apps.json", "5", "number"),
    bad_file("nothing.json", "{}", "no apps"),
    bad_file("nothing.config.js", "", "no apps"),
    bad_file("not.json", '{"apps": [', "SyntaxError"),
    bad_file("throws.config.js", "throw new Error('no database')", "no database", "throws.config.js:1"),
    bad_file("throws-text.config.js", "throw 'just text'", "just text"),
    bad_file("syntax.config.js", "module.exports = {apps: [", "SyntaxError"),
    bad_file("requires.config.js", "require('not-there')", "not-there"),
    bad_file(
        "rejects.config.js",
        f"const a = '{SECRET}'; Promise.reject(new Error('late')); while (a.length > 99);",
        "no apps",
    ),
    bad_file(
        "later.config.mjs",
        f"setTimeout(() => {{ throw new Error('too late', '{SECRET}') }}); await new Promise(() => {{}});",
        "too late",
    ),
    bad_file("exits.config.js", "console.error('PORT is needed'); process.exit(3)", "exit code 3", "PORT is needed"),
    bad_file("function.config.js", "module.exports = () => ({apps: []})", "function"),
    bad_file("async.config.js", "module.exports = (async () => ({apps: []}))()", "Promise"),
    bad_file(
        "regexp.config.js", "module.exports = {apps: [{script: 'a', ignore_watch: [/x/]}]}", "ignore_watch[0]", "RegExp"
    ),
    bad_file("callback.config.js", "module.exports = {apps: [{script: 'a', env: {A: () => 1}}]}", "env.A", "function"),
    bad_file("nan.config.js", "module.exports = {apps: [{script: 'a', port: Number('x')}]}", "port", "NaN"),
    bad_file(
        "loop.config.js", "const a = {}; a.a = a; module.exports = {apps: [{script: 'a', io: a}]}", "refers to itself"
    ),
    bad_file("huge.config.js", "module.exports = {apps: Array(300000).fill({})}", "more than"),
    bad_file("static.json", '{"apps": [], "static": [{"path": "."}]}', "static", "serve"),
    bad_file("bad.yml", f"apps:\n  - env: {{A: {SECRET}}}\n    script: [", "flow collection", "line 4"),
    bad_file("date.yml", "apps:\n  - script: x\n    env: {RELEASED: 2024-01-01}\n", "RELEASED", "string"),
    bad_file("aliases.yml", "a: &a [x, x, x]\nb: &b [*a, *a]\napps: [*b, {script: y}]\n", "mapping"),
    bad_file("failing.config.mjs", "throw new Error('at import'); export default {}", "at import"),
    bad_file(
        "wrong.config.js",
        "module.exports = {apps: [{name: 'app', script: 'none.js', instance: 2}]}",
        "instance",
        "none.js",
    ),
]


@pytest.mark.parametrize("given", BAD_FILES, ids=lambda given: given.name)
def test_bad_ecosystem_file(world: World, tmp_path: Path, given: BadFile) -> None:
    path = tmp_path / given.name
    if given.text is not None:
        path.write_text(given.text)

    message = refused(world, ecosystem=str(path))

    missing = [words for words in given.expected if words not in message]
    assert not missing, message


def test_a_file_that_prints_is_read(world: World, tmp_path: Path) -> None:
    """Its output, even if it looks like a result, does not get into the result."""
    script = world.apps / "idle.sh"
    path = tmp_path / "prints.config.js"
    path.write_text(
        f"""
        console.log('{{"config": {SECRET}}}'); console.error('{SECRET}'); process.stdout.write('x'.repeat(1 << 20));
        setInterval(() => console.log('still here'), 10);
        require('child_process').spawn('sleep', ['1000'], {{stdio: 'inherit'}});
        module.exports = {{apps: [{{name: 'printing', script: {json.dumps(str(script))}}}]}};
        """
    )
    before = state(world.home)

    result = pm2_process(world.home, "bad", check=True, ecosystem=str(path))

    assert not result["failed"], result
    assert [action["name"] for action in result["actions"]] == ["printing"]
    assert SECRET not in json.dumps(result)
    assert state(world.home) == before
    assert [found for found in processes.belonging_to(tmp_path) if "sleep" in found.cmdline] == []


def test_an_environment_of_no_app(world: World, tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    path.write_text(json.dumps({"apps": [{"script": "x", "env_production": {}}, {"script": "y", "env_test": {}}]}))

    message = refused(world, ecosystem=str(path), env_name="staging")

    for words in ("env_staging", "env_production", "env_test"):
        assert words in message


def test_odd_but_valid(world: World) -> None:
    """Values that look wrong and are valid: the app has to run with exactly these."""
    name = 'it\'s "quoted" ünï ☃ $HOME `x` %s {{ y }}'
    env = {
        "A B": "spaces",
        "ü": "☃\nnewline\ttab",
        "QUOTES": "\"'`\\",
        "EMPTY": "",
        "PERCENT": "%s %d",
        "DOLLAR": "$(id)",
    }
    args = ["", "-", "--", "two words", "new\nline", "\"'`\\", "☃", "$(id)"]
    script = str(world.apps / "idle.sh")
    definition = {"name": name, "script": script, "args": args, "env": env}

    result = pm2_process(world.home, "odd", apps=[definition], ready={"timeout": 20, "min_uptime": 0.2}, save=False)

    assert not result["failed"], result
    (item,) = world.home.processes("odd")
    assert item["name"] == name
    assert item["pm2_env"]["args"] == args
    assert {key: processes.environ(item["pid"])[key] for key in env} == env
    again = pm2_process(world.home, "odd", apps=[definition], save=False)
    assert not again["changed"], again
    gone = pm2_process(world.home, "odd", state="absent", save=False)
    assert not gone["failed"], gone
    assert world.home.daemon_pids() == [world.daemon]
