"""Build commands and dependencies in a release: real npm (offline), a real virtual environment, and what goes wrong.

What is about copies and not about npm has its first tree from `quick`, which copies one that npm made once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Optional, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _dependencies, _tree
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _commands, _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor
from support import places, processes
from support.tiers import full_but

NODE = shutil.which("node") or "node"
CANARY = "c4nary-5ecret-value"


def environment(directory: Path, **extra: str) -> Dict[str, str]:
    """As the module makes it, but with a HOME of the test's, and the node and python of the tests."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    path = [os.path.dirname(NODE), os.path.dirname(sys.executable)]
    return _commands.base_environment(path, {"HOME": str(home), **extra})


def run(directory: Path, *commands: _commands.Command, timeout: float = 60.0, **extra: str) -> List[Dict[str, Any]]:
    redactor = Redactor()
    redactor.add_environment(extra)
    return _commands.run(commands, str(directory), environment(directory, **extra), timeout, redactor, "build")


def failure(directory: Path, *commands: _commands.Command, **options: Any) -> NodeopsError:
    with pytest.raises(NodeopsError) as raised:
        run(directory, *commands, **options)
    return raised.value


@contextlib.contextmanager
def nothing_left_of(directory: Path) -> Iterator[None]:
    yield
    left = processes.belonging_to(directory)
    processes.end_all_of(directory)
    assert left == []


def script(directory: Path, name: str, text: str, mode: int = 0o755) -> str:
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


# Commands


def test_commands_run_in_order_in_the_release_without_a_shell(tmp_path: Path) -> None:
    show = script(tmp_path, "show", '#!/bin/sh\nprintf \'%s|\' "$PWD" "$@" >> out\n')
    done = run(tmp_path, "./show $HOME 'two words' *", [show, "a;b", ""])
    assert (tmp_path / "out").read_text() == f"{tmp_path}|$HOME|two words|*|{tmp_path}|a;b||"
    assert done[0]["command"] == "./show '$HOME' 'two words' *"
    assert all(0 <= item["seconds"] < 10 for item in done)


def test_the_environment_has_nothing_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED_FROM_THE_JOB", "x")
    monkeypatch.setenv("npm_config_registry", "http://job.example.org")
    run(tmp_path, ["sh", "-c", "env -0 > env; cat > stdin; readlink /proc/self/fd/0 > what"], ADDED="y")
    found = dict(item.split("=", 1) for item in (tmp_path / "env").read_text().split("\0") if item)
    assert set(found) - {"PWD", "SHLVL", "_", "OLDPWD"} == set("PATH HOME USER LOGNAME SHELL LANG ADDED".split())
    first = [os.path.dirname(NODE), os.path.dirname(sys.executable)]
    assert found["PATH"].split(":")[:2] == first
    assert set(found["PATH"].split(":")) - set(first) <= set(STANDARD_PATH.split(":"))
    assert (tmp_path / "what").read_text() == "/dev/null\n"


@pytest.mark.parametrize("directory", ["bin", "./node_modules/.bin", "", "/a:/b"])
def test_a_directory_of_path_that_is_not_absolute_is_refused(directory: str) -> None:
    with pytest.raises(NodeopsError, match="cannot be a directory of PATH"):
        _commands.base_environment([directory], {})


def test_the_first_failure_ends_the_build_and_shows_its_end(tmp_path: Path) -> None:
    error = failure(tmp_path, "true", ["sh", "-c", "seq 100; echo oops >&2; exit 3"], "touch never")
    assert str(error).startswith("Build failed: sh -c 'seq 100; echo oops >&2; exit 3': it ended with exit code 3.")
    assert "oops" in str(error)
    assert error.details["rc"] == 3
    assert error.details["output"] == [*map(str, range(72, 101)), "oops"]
    assert not (tmp_path / "never").exists()


def test_what_cannot_be_started_is_said(tmp_path: Path) -> None:
    script(tmp_path, "plain", "#!/bin/sh\n", mode=0o644)
    script(tmp_path, "dangling", "#!/no/such/interpreter\n")
    script(tmp_path, "garbage", "\x7fELF nonsense")
    path = environment(tmp_path)["PATH"]
    expected = {
        "npmx ci": f"npmx was not found on the PATH {path}. Install it there, or give its directory in deploy_path",
        "./absent": f"./absent was not found in {tmp_path}",
        "./plain": "may not be executed (chmod +x?)",
        "./dangling": "the interpreter that its first line names, does not exist",
        "./garbage": "Exec format error",
    }
    for command, text in expected.items():
        error = failure(tmp_path, command)
        assert text in str(error)
        assert error.details == {"command": command, "rc": None, "output": []}
    assert "cannot be split" in str(failure(tmp_path, "echo 'unfinished"))
    assert "is empty" in str(failure(tmp_path, []))


def test_a_killed_command_and_a_full_disk_are_explained(tmp_path: Path) -> None:
    killed = failure(tmp_path, ["sh", "-c", "kill -9 $$"])
    assert "SIGKILL (the kernel does that when memory runs out)" in str(killed)
    assert killed.details["rc"] == -9
    assert "The disk is full" in str(failure(tmp_path, ["sh", "-c", "head -c 9 /dev/zero > /dev/full"]))


def test_secrets_are_hidden_in_command_and_output(tmp_path: Path) -> None:
    loud = f"""
        echo plain $TOKEN; printf '\\033[31m%s\\033[0m\\n' "$TOKEN"; echo "$TOKEN" | sed 's/-/\\x1b[1m-/'
        echo url=http://u:{CANARY}@host/; exit 1"""
    error = failure(tmp_path, ["sh", "-c", loud, "--token", CANARY], TOKEN=CANARY)
    shown = json.dumps([str(error), error.details])
    assert CANARY not in shown
    assert error.details["output"][:3] == [f"plain {MASK}", MASK, MASK]


def test_a_secret_cut_in_half_by_the_limit_of_the_output_is_hidden(tmp_path: Path) -> None:
    for offset in range(0, len(CANARY), 3):
        for end in ("\\n", ""):
            fill = _commands.MAX_OUTPUT - len(CANARY) + offset
            program = f"import os; os.write(1, b'{CANARY}' + b'x' * {fill} + b'{end}'); os._exit(1)"
            error = failure(tmp_path, [sys.executable, "-c", program], TOKEN=CANARY)
            assert CANARY[-4:] not in json.dumps(error.details["output"])


def test_a_hundred_megabytes_of_output(tmp_path: Path) -> None:
    program = "import os\nfor i in range(1600): os.write(1, b'x' * 65535 + b'\\n')\nprint('the end'); exit(2)"
    error = failure(tmp_path, [sys.executable, "-c", program])
    assert error.details["output"][-1] == "the end"
    assert sum(map(len, error.details["output"])) < 2 * _commands.MAX_OUTPUT
    assert all(len(line) <= _commands.MAX_LINE + 3 for line in error.details["output"])


def test_output_that_is_no_text(tmp_path: Path) -> None:
    error = failure(tmp_path, ["sh", "-c", r"printf 'a\377\376b\0c\r\n'; printf '10%%\r20%%\rdone\n'; exit 1"])
    assert error.details["output"] == ["a\ufffd\ufffdbc", "10%", "20%", "done"]
    json.dumps(error.details)


def test_too_long_ends_the_whole_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commands, "TERM_GRACE", 0.5)
    with nothing_left_of(tmp_path):
        started = time.monotonic()
        stubborn = "trap '' TERM; sleep 60 & echo started; while :; do sleep 60; done"
        error = failure(tmp_path, ["sh", "-c", stubborn], timeout=0.5)
        assert 0.9 < time.monotonic() - started < 50
    assert "it took longer than 0.5 s and was ended" in str(error)
    assert error.details["output"] == ["started"]
    assert error.details["rc"] is None


def test_a_child_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    """One that stays in the group is ended with its command; a daemon in a session of its own lives on."""
    daemon = tmp_path / "daemon.pid"
    command = (
        f"sleep 61 & setsid sh -c 'echo $$ > {daemon}; exec sleep 62' & while [ ! -s {daemon} ]; do :; done; echo x"
    )
    started = time.monotonic()
    run(tmp_path, ["sh", "-c", command])
    assert time.monotonic() - started < 50
    left = [found.cmdline for found in processes.belonging_to(tmp_path)]
    assert left == ["sleep 62"]
    processes.end([int(daemon.read_text())])


SIGNALLED = """
import sys, time
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _commands
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
directory = sys.argv[1]
try:
    with _signals.raised():
        print("ready", flush=True)
        quick = [["sh", "-c", "sleep 300 & true"]] * 30
        commands = [*quick, ["sh", "-c", "sleep 300 & sleep 300"]]
        _commands.run(commands, directory, {"PATH": "/usr/bin:/bin"}, 300, Redactor(), "build")
except _signals.Interrupted as error:
    print("interrupted:", error)
"""


@pytest.mark.parametrize("number", full_but([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
def test_a_signal_ends_the_command_whenever_it_comes(tmp_path: Path, number: signal.Signals) -> None:
    path = os.pathsep.join([str(places.COLLECTIONS), str(places.ROOT / "tests")])
    with nothing_left_of(tmp_path):
        for round_ in range(12):
            process = subprocess.Popen(
                [sys.executable, "-c", SIGNALLED, str(tmp_path)],
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.013 * round_)
            process.send_signal(number)
            said, _errors = process.communicate(timeout=20)
            assert said == f"interrupted: The run was ended by {number.name}.\n"


def test_a_command_does_not_inherit_ignored_signals(tmp_path: Path) -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _signals.ENDING)
    try:
        error = failure(tmp_path, ["sh", "-c", "kill -TERM $$; sleep 5"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, former)
    assert error.details["rc"] == -signal.SIGTERM


# Dependencies: npm


ITEM: Dict[str, Any] = {
    "path": "node_modules",
    "files": ["package.json", "package-lock.json", ".npmrc"],
    "runtime": ["node", "--version"],
    "commands": [["npm", "ci", "--omit=dev"]],
}


class Releases:
    """Releases of one app below `root`, with what was recorded of their dependencies."""

    def __init__(self, root: Path, item: Dict[str, Any]) -> None:
        self.root = root
        self.item = item
        self.recorded: List[Tuple[str, Dict[str, Any]]] = []
        self.redactor = Redactor()
        self.extra: Dict[str, str] = {}
        root.mkdir()

    def make(self, name: str, fill: Callable[[Path], None]) -> Path:
        release = self.root / "releases" / name
        release.mkdir(parents=True)
        fill(release)
        return release

    def provide(self, release: Path, **changes: Any) -> Dict[str, Any]:
        found = _dependencies.ensure(
            {**self.item, **changes},
            str(release),
            self.recorded,
            environment(self.root, npm_config_update_notifier="false", **self.extra),
            120.0,
            self.redactor,
        )
        json.dumps(found)
        assert leftovers(release) == []
        self.recorded.insert(0, (str(release), json.loads(json.dumps(found))))
        return found


def leftovers(release: Path) -> List[str]:
    return [name for _directory, names, files in os.walk(release) for name in [*names, *files] if "nodeops" in name]


def pack(directory: Path, name: str, text: str) -> Path:
    """An npm package as an archive, made by npm."""
    source = directory / f"source-{name}"
    (source / "lib").mkdir(parents=True)
    manifest = {"name": name, "version": "1.0.0", "main": "lib/index.js", "bin": {name: "lib/cli.js"}}
    (source / "package.json").write_text(json.dumps(manifest))
    (source / "lib/index.js").write_text(f"module.exports = {json.dumps(text)}\n")
    (source / "lib/cli.js").write_text(f"#!/usr/bin/env node\nconsole.log({json.dumps(text)})\n")
    subprocess.run(["npm", "pack", "--silent"], cwd=source, env=environment(directory), check=True, capture_output=True)
    return source / f"{name}-1.0.0.tgz"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("pack"), "greet", "hello")


class NodeApp:
    """Fills a release with an app that depends on a package in an archive; npm makes its lock file."""

    locks: ClassVar[Dict[str, str]] = {}

    def __init__(self, archive: Path, directory: Path) -> None:
        self.archive = archive
        self.directory = directory

    def __call__(self, release: Path, version: str = "3.2.1", **manifest: Any) -> None:
        shutil.copy(self.archive, release / "greet.tgz")
        document = {"name": "app", "version": "3.2.1", "dependencies": {"greet": "file:greet.tgz"}, **manifest}
        text = json.dumps(document, indent=2)
        (release / "package.json").write_text(text)
        if text not in self.locks:
            command = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--silent"]
            subprocess.run(command, cwd=release, env=environment(self.directory), check=True, capture_output=True)
            self.locks[text] = (release / "package-lock.json").read_text()
        (release / "package.json").write_text(text.replace("3.2.1", version))
        (release / "package-lock.json").write_text(self.locks[text].replace("3.2.1", version))


@pytest.fixture
def app(archive: Path, tmp_path: Path) -> NodeApp:
    return NodeApp(archive, tmp_path)


@pytest.fixture
def npm(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "app", ITEM)


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node_modules that npm makes of the app."""
    directory = tmp_path_factory.mktemp("installed")
    NodeApp(archive, directory)(directory)
    subprocess.run(ITEM["commands"][0], cwd=directory, env=environment(directory), check=True, capture_output=True)
    return directory / "node_modules"


@pytest.fixture
def quick(tmp_path: Path, installed: Path) -> Releases:
    """As `npm`, but what is installed is copied from what npm made once."""
    return Releases(tmp_path / "app", {**ITEM, "commands": [["cp", "-a", str(installed), "node_modules"]]})


def greeting(release: Path) -> str:
    done = subprocess.run([NODE, "-p", "require('greet')"], cwd=release, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_same_lock_is_copied_and_nothing_is_shared(npm: Releases, app: NodeApp) -> None:
    first, second = npm.make("r1", app), npm.make("r2", lambda release: app(release, version="3.2.2"))
    installed = npm.provide(first)
    assert installed["taken_from"] is None
    (first / "node_modules/.cache/babel").mkdir(parents=True)
    (first / "node_modules/.cache/babel/x").write_text("cached")
    copied = npm.provide(second)
    assert copied["key"] == installed["key"]
    assert copied["taken_from"] == str(first)
    assert not (second / "node_modules/.cache").exists()
    assert greeting(second) == "hello"
    cli = second / "node_modules/.bin/greet"
    assert subprocess.run([str(cli)], capture_output=True, text=True, check=True).stdout == "hello\n"
    for path in (first / "node_modules").rglob("*"):
        if ".cache" in path.parts:
            continue
        copy = second / path.relative_to(first)
        old, new = path.lstat(), copy.lstat()
        assert (old.st_mode, old.st_mtime_ns) == (new.st_mode, new.st_mtime_ns)
        assert old.st_ino != new.st_ino
        if path.is_symlink():
            assert os.readlink(path) == os.readlink(copy)
    (second / "node_modules/greet/lib/index.js").write_text("module.exports = 'changed'")
    assert greeting(first) == "hello"
    third = npm.make("r3", app)
    assert npm.provide(third)["taken_from"] == str(first), "one that was changed later is passed over"
    assert greeting(third) == "hello"


def test_a_copy_of_a_copy(quick: Releases, app: NodeApp) -> None:
    for name in ("r1", "r2", "r3"):
        taken = quick.provide(quick.make(name, app))["taken_from"]
    assert taken == str(quick.root / "releases/r2")


@pytest.mark.parametrize("change", ["written", "touched", "added", "removed", "mode", "link"])
def test_one_that_was_changed_since_is_not_taken(quick: Releases, app: NodeApp, change: str) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)
    file = first / "node_modules/greet/lib/index.js"
    if change == "written":
        file.write_text("module.exports = 'world'\n")
    elif change == "touched":
        os.utime(file)
    elif change == "added":
        (first / "node_modules/new").mkdir()
    elif change == "removed":
        file.unlink()
    elif change == "mode":
        file.chmod(0o600)
    else:
        (first / "node_modules/.bin/greet").unlink()
        (first / "node_modules/.bin/greet").symlink_to("../greet/lib/index.js")
    found = quick.provide(second)
    assert found["taken_from"] is None
    assert found["note"] == f"that of {first} was not copied: it was changed since it was made"
    assert greeting(second) == "hello"


def test_what_changes_the_key(npm: Releases, app: NodeApp, archive: Path) -> None:
    release = npm.make("r1", app)
    base = environment(npm.root)

    def key(extra: Optional[Dict[str, str]] = None, more: str = "", **changes: Any) -> str:
        item = _dependencies.check({**ITEM, **changes})
        return _dependencies.key(item, str(release), {**base, **(extra or {})}, Redactor(), more)

    first = key()
    assert key({"UNRELATED": "1", "npm_config__authToken": "x"}) == first
    others = [
        key({"NODE_ENV": "development"}),
        key({"npm_config_omit": "optional"}),
        key(more="what the caller knows"),
        key(commands=["npm ci"]),
        key(runtime=["echo", "v1"]),
        key(runtime=None),
        key(path="other"),
        key(files=["package.json"]),
    ]
    for name, text in ((".npmrc", "install-links=true\n"), ("greet.tgz", "another")):
        former = (release / name).read_bytes() if (release / name).exists() else None
        (release / name).write_text(text)
        others.append(key())
        (release / name).write_bytes(former) if former is not None else (release / name).unlink()
    assert key() == first
    for name in ("package.json", "package-lock.json"):
        former = (release / name).read_bytes()
        (release / name).write_bytes(former.replace(b"3.2.1", b"4.0.0"))
        assert key() == first, "the version of the app is not that of a dependency"
        (release / name).write_bytes(former.replace(b"greet.tgz", b"other.tgz"))
        others.append(key())
        (release / name).write_bytes(former)
    (release / "package-lock.json").unlink()
    others.append(key())
    assert len({first, *others}) == len(others) + 1


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"scripts": {"postinstall": "node -e 0"}}, "package.json has the install script postinstall"),
        ({"scripts": {"prepare": "node -e 0"}}, "package.json has the install script prepare"),
        ({"scripts": {"start": "node server.js"}}, None),
    ],
)
def test_an_app_with_install_scripts_is_always_installed(
    quick: Releases, app: NodeApp, manifest: Dict[str, Any], reason: Optional[str]
) -> None:
    first, second, third = (quick.make(name, lambda release: app(release, **manifest)) for name in ("r1", "r2", "r3"))
    quick.provide(first)
    found = quick.provide(second)
    assert (found["taken_from"] is None) == (reason is not None)
    assert (found["note"] or "").startswith(reason or "")
    quick.recorded.pop(0)
    assert quick.provide(third, copy=True)["taken_from"] == str(first), "unless the inventory says that it may"


def test_copy_false_always_installs(quick: Releases, app: NodeApp) -> None:
    quick.provide(quick.make("r1", app))
    assert quick.provide(quick.make("r2", app), copy=False)["taken_from"] is None


def workspaces(release: Path, scripts: Optional[Dict[str, str]] = None, nested: bool = False) -> None:
    package = release / "packages/local"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "greet", "version": "1.0.0", "scripts": scripts or {}}))
    (package / "index.js").write_text("module.exports = 'local'")
    document = {"name": "app", "version": "1.0.0", "workspaces": ["packages/*"], "dependencies": {"greet": "1.0.0"}}
    (release / "package.json").write_text(json.dumps(document))
    packages: Dict[str, Any] = {
        "": document,
        "node_modules/greet": {"resolved": "packages/local", "link": True},
        "packages/local": {"name": "greet", "version": "1.0.0"},
    }
    if nested:
        packages["packages/local/node_modules/inner"] = {"version": "1.0.0", "resolved": "file:inner.tgz"}
    lock = {"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}
    (release / "package-lock.json").write_text(json.dumps(lock))


def test_a_workspace_is_a_link_into_the_own_release(npm: Releases) -> None:
    first, second = npm.make("r1", workspaces), npm.make("r2", workspaces)
    npm.provide(first)
    (second / "packages/local/index.js").write_text("module.exports = 'newer'")
    assert npm.provide(second)["taken_from"] == str(first)
    assert greeting(second) == "newer"
    assert os.path.realpath(second / "node_modules/greet") == str(second / "packages/local")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"nested": True}, "also installs packages/local/node_modules/inner"),
        ({"scripts": {"prepare": "true"}}, "packages/local/package.json has the install script prepare"),
    ],
)
def test_a_workspace_that_is_more_than_a_link_is_installed(npm: Releases, options: Dict[str, Any], reason: str) -> None:
    make = [["sh", "-c", "mkdir -p node_modules"]]
    npm.provide(npm.make("r1", lambda release: workspaces(release, **options)), commands=make)
    found = npm.provide(npm.make("r2", lambda release: workspaces(release, **options)), commands=make)
    assert found["taken_from"] is None
    assert reason in found["note"]


def test_a_local_package_that_npm_copies_is_part_of_the_key(npm: Releases, tmp_path: Path) -> None:
    def fill(release: Path) -> None:
        (release / "lib").mkdir()
        (release / "lib/package.json").write_text(json.dumps({"name": "greet", "version": "1.0.0"}))
        (release / "lib/index.js").write_text(f"module.exports = {release.name!r}")
        (release / ".npmrc").write_text("install-links=true\n")
        document = {"name": "app", "version": "1.0.0", "dependencies": {"greet": "file:lib"}}
        (release / "package.json").write_text(json.dumps(document))
        subprocess.run(["npm", "install", "--package-lock-only"], cwd=release, env=environment(tmp_path), check=True)

    first, second = npm.make("r1", fill), npm.make("r2", fill)
    npm.provide(first)
    assert not (first / "node_modules/greet").is_symlink()
    assert npm.provide(second)["taken_from"] is None
    assert greeting(second) == "r2"


def test_code_that_prisma_generates_is_taken_only_for_the_same_schema(npm: Releases) -> None:
    """Its client reads the app's schema when it is installed (here by a stand-in), or the build generates it again."""

    def fill(release: Path, schema: str = "model A {}") -> None:
        (release / "prisma").mkdir()
        (release / "prisma/schema.prisma").write_text(schema)
        (release / "package.json").write_text('{"name": "app"}')
        packages = {"": {}, "node_modules/@prisma/client": {"version": "6.0.0", "hasInstallScript": True}}
        (release / "package-lock.json").write_text(json.dumps({"lockfileVersion": 3, "packages": packages}))

    generate = "mkdir -p node_modules/.prisma/client; cp prisma/schema.prisma node_modules/.prisma/client/"
    make = [["sh", "-c", generate]]
    first, second = npm.make("r1", fill), npm.make("r2", fill)
    npm.provide(first, commands=make)
    subprocess.run(["sh", "-c", f"sleep 0.01; {generate}"], cwd=first, check=True)
    assert npm.provide(second, commands=make)["taken_from"] == str(first)
    third = npm.make("r3", lambda release: fill(release, "model B {}"))
    assert npm.provide(third, commands=make)["taken_from"] is None


def test_npm_missing_says_where_it_was_looked_for(npm: Releases, app: NodeApp, tmp_path: Path) -> None:
    release = npm.make("r1", app)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "node").symlink_to(NODE)
    with pytest.raises(NodeopsError) as raised:
        _dependencies.ensure(ITEM, str(release), [], {"PATH": str(tools)}, 60.0, Redactor())
    assert str(raised.value) == (
        "Installing node_modules failed: npm ci --omit=dev: npm was not found on the PATH %s. Install it there, or "
        "give its directory in deploy_path." % tools
    )


def test_npm_fails(npm: Releases, app: NodeApp) -> None:
    release = npm.make("r1", app)
    (release / "package-lock.json").unlink()
    with pytest.raises(
        NodeopsError, match="Installing node_modules failed: npm ci --omit=dev: it ended with exit code 1"
    ):
        npm.provide(release)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"files": ["poetry.lock", "uv.lock"]}, "has none of poetry.lock, uv.lock"),
        ({"files": []}, "has no files"),
        ({"commands": []}, "has no commands"),
        ({"path": "../node_modules"}, "not a path inside the release"),
        ({"path": None}, "not a path inside the release"),
        ({"files": ["/etc/passwd"]}, "not a path inside the release"),
        ({"commands": ["true"]}, "node_modules does not exist after true"),
        ({"runtime": "no-such-runtime --version"}, "Asking for the runtime of node_modules failed"),
    ],
)
def test_an_entry_that_cannot_work_is_named(npm: Releases, app: NodeApp, changes: Dict[str, Any], text: str) -> None:
    release = npm.make("r1", app)
    with pytest.raises(NodeopsError) as raised:
        npm.provide(release, **changes)
    assert text in str(raised.value)


def test_node_modules_shared_by_all_releases_is_refused(npm: Releases, app: NodeApp, tmp_path: Path) -> None:
    release = npm.make("r1", app)
    (tmp_path / "shared").mkdir()
    (release / "node_modules").symlink_to(tmp_path / "shared")
    with pytest.raises(NodeopsError, match="Remove node_modules from deploy_shared"):
        npm.provide(release)
    assert list((tmp_path / "shared").iterdir()) == []


# A copy that is disturbed


def test_a_copy_that_was_killed_is_never_taken_for_whole(quick: Releases, app: NodeApp) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)
    entries = len(list((first / "node_modules").rglob("*")))
    for point in [*(f"entry_copied {number}" for number in range(1, entries + 1, 2)), "copied 1"]:
        pid = os.fork()
        if pid == 0:
            _provide_and_die(quick, second, point)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, point
        assert not (second / "node_modules").exists(), point
    assert quick.provide(second)["taken_from"] == str(first)
    assert greeting(second) == "hello"


def _provide_and_die(npm: Releases, release: Path, wanted: str) -> None:
    seen: Dict[str, int] = {}

    def reached(point: str) -> None:
        seen[point] = seen.get(point, 0) + 1
        if f"{point} {seen[point]}" == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        _points.reached = reached
        npm.provide(release)
    finally:
        os._exit(7)


def at_entry(number: int, action: Callable[[], None]) -> Callable[[str], None]:
    seen: List[str] = []

    def reached(name: str) -> None:
        seen.append(name)
        if len(seen) == number:
            action()

    return reached


def test_an_interrupted_copy_is_removed(quick: Releases, app: NodeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)
    monkeypatch.setattr(_points, "reached", at_entry(4, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(_signals.Interrupted), _signals.raised():
        quick.provide(second)
    assert not (second / "node_modules").exists()
    assert leftovers(second) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_nothing_is_left(
    quick: Releases, app: NodeApp, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)

    def full() -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_points, "reached", at_entry(4, full))
    with pytest.raises(NodeopsError, match="The disk is full"):
        quick.provide(second)
    assert not (second / "node_modules").exists()
    assert leftovers(second) == []


def test_any_other_failure_of_the_copy_falls_back_to_installing(
    quick: Releases, app: NodeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)

    def broken() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "some/file")

    monkeypatch.setattr(_points, "reached", at_entry(4, broken))
    found = quick.provide(second)
    assert found["taken_from"] is None
    assert found["note"] == f"that of {first} was not copied: Input/output error (some/file)"
    assert greeting(second) == "hello"


def test_what_the_source_ships_is_replaced_by_a_copy(quick: Releases, app: NodeApp) -> None:
    first, second = quick.make("r1", app), quick.make("r2", app)
    quick.provide(first)
    (second / "node_modules/stale").mkdir(parents=True)
    assert quick.provide(second)["taken_from"] == str(first)
    assert not (second / "node_modules/stale").exists()


def test_special_files_make_a_tree_unusable(npm: Releases, app: NodeApp) -> None:
    make = [["sh", "-c", "mkdir node_modules && mkfifo node_modules/pipe"]]
    npm.provide(npm.make("r1", app), commands=make)
    found = npm.provide(npm.make("r2", app), commands=make)
    assert found["taken_from"] is None
    assert found["note"].endswith("pipe is not a file, directory or link")


# Trees that name the release they were made in


def test_text_and_links_that_name_the_old_release_are_rewritten(npm: Releases, app: NodeApp) -> None:
    program = """
        mkdir -p node_modules/a && cd node_modules/a
        printf 'home = %s/x\\n# %s-2 %s0 \\303\\251\\377' "$R" "$R" "$R" > text
        ln -s "$R/package.json" absolute; ln -s "${R}0/other" other; ln -s ../../package.json relative
        printf '\\0%s' "${R}0" > binary; chmod 750 text; touch -d 2001-01-01 text"""
    make = [["sh", "-c", f"R=$PWD; {program}"]]
    first, second = npm.make("r1", app), npm.make("release-2", app)
    npm.provide(first, commands=make)
    assert npm.provide(second, commands=make)["taken_from"] == str(first)
    tree = second / "node_modules/a"
    expected = f"home = {second}/x\n# {first}-2 {first}0 ".encode() + b"\xc3\xa9\xff"
    assert (tree / "text").read_bytes() == expected
    assert (tree / "text").stat().st_mode & 0o777 == 0o750
    assert os.readlink(tree / "absolute") == str(second / "package.json")
    assert os.readlink(tree / "other") == f"{first}0/other"
    assert os.readlink(tree / "relative") == "../../package.json"
    third = npm.make("r3", app)
    assert npm.provide(third, commands=make)["taken_from"] == str(second)


def test_a_binary_file_that_names_the_old_release_is_not_copied(npm: Releases, app: NodeApp) -> None:
    for where in ("0", "1048570", "3000000"):  # also across the edge of what is read at once
        program = f"mkdir node_modules; (head -c {where} /dev/zero; printf '\\0%s/x' $PWD) > node_modules/b"
        make = [["sh", "-c", program]]
        npm.provide(npm.make(f"a{where}", app), commands=make)
        found = npm.provide(npm.make(f"b{where}", app), commands=make)
        assert found["taken_from"] is None
        assert found["note"].endswith("b is a binary file that names the directory it was made in")


def test_large_files_are_copied_whole(npm: Releases, app: NodeApp) -> None:
    make = [["sh", "-c", "mkdir node_modules; head -c 5000001 /dev/urandom > node_modules/large"]]
    first, second = npm.make("r1", app), npm.make("r2", app)
    npm.provide(first, commands=make)
    assert npm.provide(second, commands=make)["taken_from"] == str(first)
    assert (first / "node_modules/large").read_bytes() == (second / "node_modules/large").read_bytes()


# Dependencies: Python


def wheel(path: Path, text: str) -> None:
    """A wheel by hand: a package, a console script, its metadata."""
    name = "greet-1.0"
    files = {
        "greet.py": f"def main():\n    print({text!r}, __file__)\n",
        f"{name}.dist-info/METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
    }
    record = "".join(f"{file},,\n" for file in files) + f"{name}.dist-info/RECORD,,\n"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as stream:
        for file, content in {**files, f"{name}.dist-info/RECORD": record}.items():
            stream.writestr(file, content)


PYTHON_ITEM: Dict[str, Any] = {
    "path": ".venv",
    "files": ["requirements.txt"],
    "runtime": ["python3", "--version"],
    "commands": [
        "python3 -m venv .venv",
        ".venv/bin/pip install --quiet --no-index --disable-pip-version-check --find-links wheels -r requirements.txt",
        ["sh", "-c", "echo $PWD/src > $(echo .venv/lib/python3*/site-packages)/app.pth"],
        ["sh", "-c", "echo HERE = \\'$PWD\\' > $(echo .venv/lib/python3*/site-packages)/here.py"],
        ".venv/bin/python -c 'import here'",
    ],
}


@pytest.fixture
def venv(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "app", PYTHON_ITEM)


class PythonApp:
    def __init__(self, requirement: str = "greet", text: str = "hello") -> None:
        self.requirement = requirement
        self.text = text

    def __call__(self, release: Path) -> None:
        wheel(release / "wheels/greet-1.0-py3-none-any.whl", self.text)
        (release / "requirements.txt").write_text(self.requirement + "\n")
        (release / "src").mkdir()
        (release / "src/local_module.py").write_text(f"NAME = {release.name!r}\n")


def test_a_virtual_environment_works_in_the_next_release_when_the_first_is_gone(venv: Releases) -> None:
    first, second = venv.make("20261122T070000Z-1", PythonApp()), venv.make("20261122T080000Z-22", PythonApp())
    venv.provide(first)
    assert venv.provide(second)["taken_from"] == str(first)
    third = venv.make("third", PythonApp())
    assert venv.provide(third)["taken_from"] == str(second)
    shutil.rmtree(first)
    shutil.rmtree(second)
    bins = third / ".venv/bin"
    site = next((third / ".venv/lib").glob("python3*/site-packages"))
    said = subprocess.run([str(bins / "greet")], capture_output=True, text=True, check=True).stdout
    assert said == f"hello {site / 'greet.py'}\n"
    program = "import local_module, here, sys; print(local_module.NAME, here.HERE, sys.prefix)"
    said = subprocess.run([str(bins / "python"), "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == f"third {third} {third / '.venv'}\n"
    said = subprocess.run(
        ["sh", "-c", ". .venv/bin/activate; echo $VIRTUAL_ENV; command -v pip"],
        cwd=third,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == f"{third / '.venv'}\n{bins / 'pip'}\n"
    subprocess.run([str(bins / "pip"), "check"], env=environment(venv.root), check=True, capture_output=True)
    stale = [
        str(path)
        for path in (third / ".venv").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and str(first).encode() in path.read_bytes()
    ]
    assert stale == []


WITHOUT_PIP = [
    "python3 -m venv --without-pip .venv",
    ["sh", "-c", "python3 -m zipfile -e wheels/greet-1.0-py3-none-any.whl .venv/lib/python3*/site-packages"],
    *PYTHON_ITEM["commands"][2:],
]
"""Which is most of what a virtual environment costs."""


def test_running_an_app_does_not_count_as_a_change_of_its_environment(venv: Releases) -> None:
    first, second = venv.make("r1", PythonApp()), venv.make("r2", PythonApp())
    venv.provide(first, commands=WITHOUT_PIP)
    before = len(list(first.rglob("*.pyc")))
    program = "import colorsys, greet, here, xml.dom"
    subprocess.run([str(first / ".venv/bin/python"), "-c", program], check=True)
    site = next((first / ".venv/lib").glob("python3*/site-packages"))
    (site / "__pycache__" / "made_at_run_time.pyc").write_bytes(b"\0")
    assert len(list(first.rglob("*.pyc"))) > before
    assert venv.provide(second, commands=WITHOUT_PIP)["taken_from"] == str(first)


@pytest.mark.parametrize("is_same", full_but([True], [True, False]))
def test_a_package_of_the_release_is_taken_only_when_it_is_the_same(venv: Releases, is_same: bool) -> None:
    requirement = "./wheels/greet-1.0-py3-none-any.whl"
    first = venv.make("r1", PythonApp(requirement))
    second = venv.make("r2", PythonApp(requirement, "hello" if is_same else "newer"))
    if is_same:
        shutil.copytree(first / "wheels", second / "wheels", dirs_exist_ok=True)
    venv.provide(first)
    found = venv.provide(second)
    assert found["taken_from"] == (str(first) if is_same else None)
    if not is_same:
        assert "was installed from the release itself" in found["note"]
    said = subprocess.run([str(second / ".venv/bin/greet")], capture_output=True, text=True, check=True).stdout
    assert said.startswith("hello" if is_same else "newer")


def test_included_requirements_are_part_of_the_key(tmp_path: Path) -> None:
    base = environment(tmp_path)
    (tmp_path / "requirements.txt").write_text("-r deps/base.txt\n")
    (tmp_path / "deps").mkdir()
    (tmp_path / "deps/base.txt").write_text("-c pins.txt\ngreet\n-r base.txt\n")
    (tmp_path / "deps/pins.txt").write_text("greet==1\n")
    first = _dependencies.key(_dependencies.check(PYTHON_ITEM), str(tmp_path), base, Redactor())
    (tmp_path / "deps/pins.txt").write_text("greet==2\n")
    assert _dependencies.key(_dependencies.check(PYTHON_ITEM), str(tmp_path), base, Redactor()) != first


# The tree itself


def test_reflinks_are_used_where_the_file_system_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is the kernel's; here it is only seen that it is tried once, and given up where it is not there."""
    asked: List[int] = []

    def ioctl(_target: int, request: int, _source: int) -> None:
        asked.append(request)
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(name)
    _tree.copy(str(source), str(tmp_path / "target"), _tree.Rules())
    assert asked == [_tree.FICLONE]
    assert sorted(path.read_text() for path in (tmp_path / "target").iterdir()) == ["a", "b", "c"]
