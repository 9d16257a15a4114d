"""The modules refuse bad input with a clear message before any change, and the daemon is not affected.

Unit tests check what a definition may have. These tests check what a user of the modules sees.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple

import pytest
from support import modules, processes
from support.apps import free_port, http_app
from support.load import get
from support.namespaces import Namespace, home_in, snapshot
from support.pm2 import VERSIONS, Pm2Home

NOTHING = "nothing was changed"
NEWEST = VERSIONS[-1]


class Stage(NamedTuple):
    """A daemon with two namespaces that serve, and the files that the cases refer to."""

    home: Pm2Home
    base: Path
    ours: Namespace


@pytest.fixture(scope="module", params=VERSIONS)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("bad")
    http_app(base / "app")
    write_files(base)
    with home_in(base, request.param) as home:
        for name in ("ours", "other"):
            port = free_port()
            Namespace(home, name).bring([app(base, env={"PORT": port})], ready={"tcp": [str(port)]})
        yield Stage(home, base, Namespace(home, "ours"))


def app(base: Path, **changes: Any) -> Dict[str, Any]:
    return {"name": "api", "script": "app.js", "cwd": str(base / "app"), **changes}


FILES = {
    "throws.js": "throw new Error('no such setting');\n",
    "exits.js": "process.exit(3);\n",
    "syntax.js": "module.exports = {apps: [\n",
    "broken.json": '{"apps": [',
    "broken.yml": "apps: [unclosed\n",
    "promise.js": "module.exports = new Promise(() => {});\n",
    "number.js": "module.exports = 5;\n",
    "empty.js": "module.exports = {apps: []};\n",
    "text.json": '"apps"',
    "null.json": '{"apps": null}',
    "app_is_text.json": '{"apps": ["api"]}',
    "unknown_key.json": '{"apps": [{"name": "api", "script": "/bin/sleep", "instnaces": 2}]}',
    "bad_cron.js": "module.exports = {apps: [{name: 'api', script: '/bin/sleep', cron_restart: '99 * * * *'}]};\n",
    "plain.txt": "apps\n",
    "good.json": '{"apps": [{"name": "api", "script": "/bin/sleep", "env_production": {"A": "1"}}]}',
}


def write_files(base: Path) -> None:
    for name, text in FILES.items():
        (base / name).write_text(text, encoding="utf-8")
    (base / "folder.js").mkdir()


class Case(NamedTuple):
    """Changes of a good call's options or app, and the words that the message must have.

    `{base}` is the directory of the cases. Ansible's own argument check does not say what was not done.
    """

    says: List[str]
    options: Mapping[str, Any] = {}
    definition: Mapping[str, Any] = {}
    by_ansible: bool = False


def of_app(*says: str, **definition: Any) -> Case:
    return Case(["api", *says], definition=definition)


def of_call(*says: str, **options: Any) -> Case:
    return Case(list(says), options=options)


def of_type(*says: str, **options: Any) -> Case:
    return Case(list(says), options=options, by_ansible=True)


def of_file(name: str, *says: str, **options: Any) -> Case:
    return Case([name, *says], options={"ecosystem": "{base}/" + name, "apps": None, **options})


CASES: Dict[str, Case] = {
    # the app
    "an unknown key": of_app("instnaces", "instances", instnaces=2),
    "a script that is missing": of_app("script", "missing.js", script="missing.js"),
    "a script that is a directory": of_app("script", script="{base}"),
    "no script": of_app("script", script=None),
    "an empty script": of_app("script", script=""),
    "a script that is a list": of_app("script", script=["app.js"]),
    "a cwd that is missing": of_app("cwd", "/nowhere", cwd="/nowhere"),
    "a cwd that is a file": of_app("cwd", cwd="{base}/app/app.js"),
    "a cwd that is a number": of_app("cwd", cwd=5),
    "a relative cwd": of_app("cwd", "app", cwd="app"),
    "a cron pattern with a minute 99": of_app("cron_restart", "99 * * * *", cron_restart="99 * * * *"),
    "a cron pattern of words": of_app("cron_restart", "every day", cron_restart="every day"),
    "a cron pattern that is a list": of_app("cron_restart", cron_restart=["* * * * *"]),
    "instances foo": of_app("instances", "foo", instances="foo"),
    "half an instance": of_app("instances", "1.5", instances=1.5),
    "a million instances": of_app("instances", "1000000", instances=1000000),
    "instances that are a list": of_app("instances", instances=[2]),
    "instances null": of_app("instances", instances={"count": 2}),
    "exec_mode thread": of_app("exec_mode", "thread", exec_mode="thread"),
    "cluster mode for a program that is not node's": of_app(
        "cluster", script="/bin/sleep", exec_mode="cluster", interpreter="none"
    ),
    "an interpreter that is missing": of_app("interpreter", "no-such", interpreter="no-such"),
    "a size with MB": of_app("max_memory_restart", "300MB", max_memory_restart="300MB"),
    "a negative size": of_app("max_memory_restart", max_memory_restart=-1),
    "a kill_timeout of words": of_app("kill_timeout", "soon", kill_timeout="soon"),
    "a negative kill_timeout": of_app("kill_timeout", "-1", kill_timeout=-1),
    "a kill_timeout that is null as text": of_app("kill_timeout", "null", kill_timeout="null"),
    "autorestart yes": of_app("autorestart", "yes", autorestart="yes"),
    "watch 7": of_app("watch", watch=7),
    "watch options that would throw": of_app("watch_options", watch_options={"ignored": 5}),
    "an exit code of 300": of_app("stop_exit_codes", stop_exit_codes=[300]),
    "args that are a mapping": of_app("args", args={"a": 1}),
    "args with a mapping in them": of_app("args", args=["a", {"b": 1}]),
    "args with a NUL": of_app("args", args=["a\0b"]),
    "env that is text": of_app("env", env="A=1"),
    "env that is a list": of_app("env", env=["A=1"]),
    "a variable named like a key of PM2": of_app("env.namespace", "key of PM2", env={"namespace": "x"}),
    "a variable named like an inner key of PM2": of_app("env.pm_id", "key of PM2", env={"pm_id": "0"}),
    "a variable with an equals sign": of_app("A=B", env={"A=B": "1"}),
    "a variable without a name": of_app("env", env={"": "1"}),
    "a variable with a line break in its name": of_app("env", env={"A\nB": "1"}),
    "a variable that JavaScript has": of_app("__proto__", env={"__proto__": "1"}),
    "a variable with a NUL": of_app("env.A", "NUL", env={"A": "a\0b"}),
    "a variable of 1 MB": of_app("env.A", "bytes", env={"A": "x" * (1 << 20)}),
    "many variables of 1.5 MB together": of_app("env", "bytes", env={f"A{n}": "x" * 100000 for n in range(15)}),
    "a name of all": Case(["name", "all"], definition={"name": "all"}),
    "a name of digits": Case(["name", "17"], definition={"name": "17"}),
    "a number as a name": Case(["name", "17"], definition={"name": 17}),
    "a name with a line break": Case(["name"], definition={"name": "a\nb"}),
    "a name that is an option": Case(["name", "--force"], definition={"name": "--force"}),
    "a name that is a pattern": Case(["name", "/a/"], definition={"name": "/a/"}),
    "a name that JavaScript has": Case(["name", "constructor"], definition={"name": "constructor"}),
    "a name of 300 characters": Case(["name", "200"], definition={"name": "x" * 300}),
    "a namespace in the app that is another": of_app("namespace", "elsewhere", namespace="elsewhere"),
    "a uid of no user": of_app("uid", "no-such-user", uid="no-such-user"),
    "a log file in a directory that is a file": of_app("out_file", out_file="{base}/app/app.js/out.log"),
    # the call
    "two apps of one name": of_call("api", "definitions 1 and 2", apps=["{app}", "{app}"]),
    "no apps at all": of_call("No app is defined", apps=[]),
    "neither apps nor a file": of_call("apps or ecosystem", apps=None),
    "apps and a file": of_type("mutually exclusive", "apps", "ecosystem", ecosystem="{base}/good.json"),
    "apps that are text": of_type("apps", apps="api"),
    "an app that is text": of_type("apps", apps=["api"]),
    "an unknown option": of_type("colour", colour="green"),
    "an unknown state": of_type("state", "running", state="running"),
    "an unknown strategy": of_type("strategy", "careful", strategy="careful"),
    "prune maybe": of_type("prune", prune="maybe"),
    "no namespace": of_type("namespace", namespace=None),
    "the namespace all": of_call("namespace", "all", namespace="all"),
    "a namespace of digits": of_call("namespace", "12", namespace="12"),
    "a namespace with a slash": of_call("namespace", "a/b", namespace="a/b"),
    "a namespace that leads elsewhere": of_call("namespace", "../x", namespace="../x"),
    "a namespace with a space": of_call("namespace", "my shop", namespace="my shop"),
    "a namespace with a line break": of_call("namespace", namespace="a\nb"),
    "a namespace with an umlaut": of_call("namespace", "käse", namespace="käse"),
    "an empty namespace": of_call("namespace", namespace=""),
    "a namespace of 101 characters": of_call("namespace", namespace="x" * 101),
    "a namespace that JavaScript has": of_call("namespace", "__proto__", namespace="__proto__"),
    "names that do not exist": of_call("names", "ghost", names=["ghost"]),
    "names to restart that do not exist": of_call("names", "ghost", names=["ghost"], apps=None, state="restarted"),
    "prune with names": of_call("prune", "names", names=["api"], prune=True),
    "prune with absent": of_call("prune", "absent", prune=True, state="absent"),
    "prune with stopped": of_call("prune", "stopped", prune=True, state="stopped"),
    "a restart with prune of no definition": of_call("prune", apps=None, prune=True, state="restarted"),
    "a file with absent": of_call("ecosystem", "absent", apps=None, state="absent", ecosystem="{base}/good.json"),
    "an env_name that no app has": of_call("env_name", "production", env_name="production"),
    "a pm2_home that is a file": of_call("pm2_home", "app.js", pm2_home="{base}/app/app.js"),
    "a pm2_home that is too long": of_call("pm2_home", "too long", pm2_home="/tmp/" + "x" * 120),
    "a negative max_affected": of_call("max_affected", "-1", max_affected=-1),
    "a max_affected of nothing": Case(["max_affected", "0"], {"max_affected": 0}, {"env": {"NEW": "1"}}),
    "a max_affected of words": of_type("max_affected", max_affected="few"),
    # ready
    "an unknown check": of_type("ready", "htpp", ready={"htpp": []}),
    "ready as text": of_type("dictionary", ready="soon"),
    "a negative timeout": of_call("ready.timeout", "-1", ready={"timeout": -1}),
    "a timeout of words": of_type("timeout", ready={"timeout": "soon"}),
    "a timeout that is not a number": of_call("ready.timeout", "nan", ready={"timeout": "nan"}),
    "a timeout without end": of_call("ready.timeout", "inf", ready={"timeout": "inf"}),
    "a negative min_uptime": of_call("ready.min_uptime", "-1", ready={"min_uptime": -1}),
    "a min_uptime longer than the timeout": of_call(
        "ready.min_uptime", "5", "ready.timeout", "2", ready={"timeout": 2, "min_uptime": 5}
    ),
    "a check without a url": of_type("url", ready={"http": [{"status": [200]}]}),
    "a url without a scheme": of_call("ready.http", "localhost:80", ready={"http": [{"url": "localhost:80"}]}),
    "a url of a file": of_call("ready.http", "file:///etc", ready={"http": [{"url": "file:///etc/passwd"}]}),
    "a url with a space": of_call("ready.http", ready={"http": [{"url": "http://localhost/a b"}]}),
    "a url with an umlaut": of_call("ready.http", ready={"http": [{"url": "http://localhost/käse"}]}),
    "a url with a port of letters": of_call("ready.http", "http", ready={"http": [{"url": "http://localhost:http/"}]}),
    "a url with a large port": of_call("ready.http", "70000", ready={"http": [{"url": "http://localhost:70000/"}]}),
    "a status of 42": of_call("status", "42", ready={"http": [{"url": "http://localhost/", "status": [42]}]}),
    "a status of words": of_type("status", ready={"http": [{"url": "http://localhost/", "status": ["ok"]}]}),
    "an invalid expectation": of_call("expect", "a ==", ready={"http": [{"url": "http://h/", "expect": "a =="}]}),
    "a request without time": of_call("timeout", "0", ready={"http": [{"url": "http://h/", "timeout": 0}]}),
    "a header with a line break": of_call(
        "headers", "X", ready={"http": [{"url": "http://h/", "headers": {"X": "a\nb"}}]}
    ),
    "a header with a colon": of_call("headers", "X:", ready={"http": [{"url": "http://h/", "headers": {"X:": "a"}}]}),
    "a port of letters": of_call("ready.tcp", "http", ready={"tcp": ["http"]}),
    "port 0": of_call("ready.tcp", "0", ready={"tcp": ["0"]}),
    "port 65536": of_call("ready.tcp", "65536", ready={"tcp": ["65536"]}),
    "an invalid pattern": of_call("ready.log", "(", ready={"log": ["("]}),
    # ecosystem files
    "a file that throws": of_file("throws.js", "no such setting"),
    "a file that exits": of_file("exits.js"),
    "a file with a syntax error": of_file("syntax.js", "SyntaxError"),
    "a file of broken JSON": of_file("broken.json"),
    "a file of broken YAML": of_file("broken.yml"),
    "a file that exports a promise": of_file("promise.js"),
    "a file that exports a number": of_file("number.js"),
    "a file without apps": Case(["No app is defined"], {"ecosystem": "{base}/empty.js", "apps": None}),
    "a file that is text": of_file("text.json"),
    "a file whose apps are null": Case([], {"ecosystem": "{base}/null.json", "apps": None}),
    "a file whose app is text": Case(["app"], {"ecosystem": "{base}/app_is_text.json", "apps": None}),
    "a file with an unknown key": Case(["instnaces"], {"ecosystem": "{base}/unknown_key.json", "apps": None}),
    "a file with a bad cron": Case(["cron_restart", "99"], {"ecosystem": "{base}/bad_cron.js", "apps": None}),
    "a file of another kind": of_file("plain.txt", ".json"),
    "a file that is missing": of_file("missing.js", "does not exist"),
    "a file that is a directory": of_file("folder.js", "is not a file"),
    "a file without that env_name": of_file("good.json", "env_staging", "env_production", env_name="staging"),
}


def filled(value: Any, base: Path) -> Any:
    """The value with its placeholders replaced, at every depth."""
    if isinstance(value, Mapping):
        return {key: filled(item, base) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, base) for item in value]
    if value == "{app}":
        return app(base)
    return value.replace("{base}", str(base)) if isinstance(value, str) else value


def parameters(stage: Stage, case: Case) -> Dict[str, Any]:
    definition = {key: value for key, value in {**app(stage.base), **case.definition}.items() if value is not None}
    params = stage.ours.params([filled(definition, stage.base)])
    params.update(filled(case.options, stage.base))
    return {key: value for key, value in params.items() if value is not None}


def state_of(home: Pm2Home) -> Any:
    """The state that no refused call may change."""
    dump = home.dump.read_bytes() if home.dump.exists() else b""
    journals = sorted(path.name for path in Path(home.home, "nodeops").glob("*.journal"))
    return home.daemon_pids(), snapshot(home), dump, journals


def serves(home: Pm2Home) -> bool:
    ports = [item["pm2_env"]["PORT"] for item in home.jlist()]
    return len(ports) == 2 and all(json.loads(get(int(port)))["version"] == "1" for port in ports)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100


SOME = [
    "an unknown key",
    "a cron pattern with a minute 99",
    "a million instances",
    "exec_mode thread",
    "args with a NUL",
    "a variable named like a key of PM2",
    "a variable of 1 MB",
    "a name of all",
    "two apps of one name",
    "a namespace that leads elsewhere",
    "names that do not exist",
    "a max_affected of nothing",
    "an unknown check",
    "a file that throws",
    "a file of broken YAML",
]
"""Cases for older versions of PM2. Refusals do not depend on the version, except for the reading of a file."""


@pytest.mark.parametrize(
    ("stage", "name"),
    [(version, name) for version in VERSIONS for name in (CASES if version == NEWEST else SOME)],
    indirect=["stage"],
    scope="module",
)
def test_a_bad_call_is_refused_before_any_change(stage: Stage, name: str) -> None:
    """In check mode, and in a real run."""
    case = CASES[name]
    before = state_of(stage.home)
    for check in (True, False):
        result = modules.call("pm2_process", parameters(stage, case), check=check)
        assert result["failed"], f"not refused: {result}"
        message = result["msg"]
        for word in case.says:
            assert word in message
        assert "Traceback" not in message
        assert len(message) < 2000, "too long to be read"
        if not case.by_ansible:
            assert NOTHING in message.lower()
        assert "rolled_back" not in result, "a process had been started"
        assert state_of(stage.home) == before
    assert serves(stage.home)


ODD_TEXTS = [
    'it\'s "quoted" `twice`',
    "line one\nline two\ttabbed\r\n",
    "käse 🧀 \u202e \u0301",
    "$(touch pwned); ${HOME} $PATH; rm -rf *",
    "back\\slash \\n %s {{ 7 }}",
    "  spaces around  ",
    "",
    "null",
    '[1, {"a": 2}]',
]
ODD_NAMES = ["käse 🧀", 'it\'s "quoted"', "$(touch pwned)", "a;b & c", "a/b\\c", "ALL", "v1.0"]
REPORT = """\
require('fs').writeFileSync(process.env.REPORT, JSON.stringify({args: process.argv.slice(2), env: process.env}));
setInterval(() => {}, 1000);
"""


@pytest.mark.parametrize("mode", ["fork", "cluster"])
def test_accepted_odd_texts_arrive_exactly(stage: Stage, tmp_path: Path, mode: str) -> None:
    """Names, arguments and variables reach the process as written, and no shell runs any of them."""
    before = snapshot(stage.home)
    namespace = Namespace(stage.home, "odd")
    (tmp_path / "show.js").write_text(REPORT, encoding="utf-8")
    variables = {f"ODD_{number}": text for number, text in enumerate(ODD_TEXTS)}
    usual = {"script": "show.js", "cwd": str(tmp_path), "exec_mode": mode, "instances": 1, "args": ODD_TEXTS}
    reports = {name: tmp_path / f"report{number}.json" for number, name in enumerate(ODD_NAMES)}
    apps = [{**usual, "name": name, "env": {**variables, "REPORT": str(reports[name])}} for name in ODD_NAMES]
    try:
        namespace.bring(apps, ready={"min_uptime": 0.3})
        assert sorted(item["name"] for item in namespace.processes()) == sorted(ODD_NAMES)
        for path in reports.values():
            report = json.loads(wait_for(path))
            assert report["args"] == ODD_TEXTS
            assert {key: report["env"].get(key) for key in variables} == variables
        assert namespace.bring(apps)["actions"] == [], "the running process differs from the definition"
        entries = [entry for entry in json.loads(stage.home.dump.read_bytes()) if entry["namespace"] == "odd"]
        assert {entry["name"] for entry in entries} == set(ODD_NAMES)
        assert all(entry["args"] == ODD_TEXTS for entry in entries)
    finally:
        namespace.remove()
    assert not (tmp_path / "pwned").exists()
    assert snapshot(stage.home) == before


def wait_for(path: Path) -> str:
    """The text of a file that is about to be written."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text(encoding="utf-8")


def test_the_output_of_a_file_does_not_change_what_it_exports(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "prints.js"
    definition = json.dumps({"apps": [app(stage.base, name="printed", env={"PORT": free_port()})]})
    noise = """console.log('{"apps": []}'); console.error('noise'); process.stdout.write('red');"""
    file.write_text(f"{noise}\nmodule.exports = {definition};\n", encoding="utf-8")
    namespace = Namespace(stage.home, "printing")
    try:
        namespace.bring(ecosystem=str(file))
        assert [item["name"] for item in namespace.processes()] == ["printed"]
    finally:
        namespace.remove()


def test_a_file_that_never_ends_is_killed(pm2_7: Pm2Home, tmp_path: Path) -> None:
    """It is killed after the documented ten seconds, with all processes it started."""
    file = tmp_path / "ever.js"
    child = "require('child_process').spawn('sleep', ['7777'], {stdio: 'ignore'});"
    file.write_text(f"{child}\nfor (;;) {{}}\n", encoding="utf-8")
    started = time.monotonic()
    result = Namespace(pm2_7, "ever").refuse(ecosystem=str(file))
    assert 9 < time.monotonic() - started < 60
    assert "ever.js" in result["msg"]
    assert "10 seconds" in result["msg"]
    assert NOTHING in result["msg"].lower()
    assert not [pid for pid in processes.all_pids() if processes.cmdline(pid) == "sleep 7777"]
    assert pm2_7.daemon_pids() == [], "a daemon was started without need"


def test_without_a_daemon_a_bad_call_starts_none(pm2_7: Pm2Home) -> None:
    Namespace(pm2_7, "first").refuse([{"name": "api", "script": "missing.js", "cwd": pm2_7.home}])
    assert pm2_7.daemon_pids() == []
    assert not pm2_7.dump.exists()


SAVE_CASES: Dict[str, Case] = {
    "the namespace all": of_call("namespace", "all", namespace="all"),
    "a namespace that leads elsewhere": of_call("namespace", "../x", namespace="../x"),
    "a namespace with a line break": of_call("namespace", namespace="a\nb"),
    "an empty namespace": of_call("namespace", namespace=""),
    "no namespace": of_type("namespace", namespace=None),
    "an unknown option": of_type("force", force=True),
    "a pm2_home that is a file": of_call("pm2_home", "app.js", pm2_home="{base}/app/app.js"),
    "a pm2_home that is too long": of_call("pm2_home", "too long", pm2_home="/tmp/" + "x" * 120),
    "a pm2_home without a daemon": Case(["{base}/empty", "Nothing was saved"], {"pm2_home": "{base}/empty"}),
}


@pytest.mark.parametrize("name", SAVE_CASES)
def test_a_bad_call_of_save_is_refused(stage: Stage, name: str) -> None:
    case = SAVE_CASES[name]
    before = state_of(stage.home)
    result = modules.call("pm2_save", call_of(stage, case))
    assert result["failed"], f"not refused: {result}"
    for word in case.says:
        assert word.replace("{base}", str(stage.base)) in result["msg"]
    assert state_of(stage.home) == before
    assert not (stage.base / "empty").exists()
    assert serves(stage.home)


@pytest.mark.parametrize("name", SAVE_CASES)
def test_info_never_changes_anything(stage: Stage, name: str) -> None:
    """A namespace that cannot exist is reported as empty: it also has to find namespaces that plain pm2 makes."""
    before = state_of(stage.home)
    result = modules.call("pm2_info", call_of(stage, SAVE_CASES[name]))
    assert result["failed"] == (
        name in ("an unknown option", "a pm2_home that is a file", "a pm2_home that is too long")
    )
    assert result["changed"] is False
    assert state_of(stage.home) == before
    assert not (stage.base / "empty").exists()
    assert serves(stage.home)


def call_of(stage: Stage, case: Case) -> Dict[str, Any]:
    good = {"namespace": "ours", "pm2_home": stage.home.home, "pm2_executable": stage.home.executable}
    params = {**good, **filled(case.options, stage.base)}
    return {key: value for key, value in params.items() if value is not None}


def test_a_relative_pm2_home_is_not_looked_for_in_the_working_directory(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible does not make an option of type path absolute."""
    monkeypatch.chdir(tmp_path)
    result = modules.call("pm2_process", {**stage.ours.params([app(stage.base)]), "pm2_home": "home"})
    assert result["failed"]
    assert "pm2_home must be an absolute path" in result["msg"]
    assert not (tmp_path / "home").exists()


def test_two_bad_apps_are_both_named(stage: Stage) -> None:
    """One run names all that has to be corrected."""
    bad = [app(stage.base, name="one", instances="foo"), app(stage.base, name="two", cron_restart="x", wath=True)]
    result = stage.ours.refuse(bad)
    for word in ("one", "instances", "two", "cron_restart", "wath", "3 problems"):
        assert word in result["msg"]


def test_a_message_does_not_show_a_secret(stage: Stage) -> None:
    """No message has the value of a variable, an argument or a header, even if that value is wrong."""
    secret = "hunter2-" + "x" * 20
    wrong: List[Dict[str, Any]] = [
        {"env": {"TOKEN": secret + "\0"}},
        {"env": {"TOKEN": {"a": {"b": secret}}}, "instances": "foo"},
        {"args": ["--token", secret, {"a": 1}]},
        {"env": {"namespace": secret}},
        {"env": secret},
    ]
    results = [stage.ours.refuse([app(stage.base, **definition)]) for definition in wrong]
    checks = {"http": [{"url": f"http://user:{secret}@localhost/a b", "headers": {"X": "a"}}]}
    results.append(stage.ours.refuse([app(stage.base)], ready=checks))
    headers = {"http": [{"url": "http://localhost/", "headers": {"X": secret + "\n"}}]}
    results.append(stage.ours.refuse([app(stage.base)], ready=headers))
    for result in results:
        assert secret not in json.dumps(result)
