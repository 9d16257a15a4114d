"""A PM2 daemon with three namespaces: the one that is changed, and two that must not be affected.

After every operation, all that can be seen of the two is compared with their state after the start. The changed
namespace is compared with the model.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from integration.namespace.isolation_model import CLUSTER, ONLINE, UP, Call, Definition, Expected, Slot, State, expected
from support import apps, modules, observe, processes
from support.pm2 import Pm2Home

OWN = "shop"
TWIN = "shop-test"
"""A namespace with the same app names, other releases and variables, managed by pm2_process."""
CLI = "shop.cli"
"""A namespace that `pm2` itself starts and saves, beside an app in `default` that has our namespace's name."""

VARIABLES = ("ALPHA", "BETA", "API_TOKEN")
SETTLED = 1.2  # seconds after which PM2 changes nothing in its list by itself
PROGRESS = 500  # operations
GOOD_TIMEOUT, BAD_TIMEOUT = 60.0, 0.6


class Violation(AssertionError):
    """An expectation does not hold. The message has the operations so far."""


class World:
    """The daemon, the three namespaces, and the expected state of the changed one."""

    def __init__(self, version: str, directory: Path) -> None:
        self.pm2 = Pm2Home(version, directory / "pm2")
        self.count: Counter[str] = Counter()
        self.seconds = 0.0
        self.state: State = {}
        self._directory = directory
        self._port = apps.free_port()
        self._history: List[str] = []
        self._is_broken = True

    # -- building ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new example: our namespace has no process, and one old entry in the middle of the dump.

        A daemon that was harmed is replaced.
        """
        self._history = []
        if self._is_broken:
            self._build()
        else:
            counted, seconds = self.count.copy(), self.seconds
            self.do(Call(state="absent"))
            self.count, self.seconds = counted, seconds
        self.pm2.dump.write_bytes(self._first_dump)
        self._history = ["(no process, one in the dump)"]

    def end(self) -> None:
        """The end of an example: there is exactly one daemon. This reads all of /proc, so not every step checks it."""
        if not self._is_broken:
            expect(self.pm2.daemon_pids() == [self._daemon[0]], f"daemons: {self.pm2.daemon_pids()}")

    def _build(self) -> None:
        self.pm2.kill()
        self.pm2.dump.unlink(missing_ok=True)
        self._write_apps()
        self._start_cli()
        self._module("pm2_process", **self._options(Call(apps=(Definition("jobs"),)), OWN))
        self._module("pm2_process", **self._options(Call(apps=_twin_apps(str(apps.free_port()))), TWIN))
        eventually(self._check_settled, 60.0)
        time.sleep(SETTLED)
        self._first_dump = self.pm2.dump.read_bytes()
        self._module("pm2_process", namespace=OWN, state="absent")
        self.state = {}
        self._daemon = observe.peer(self.pm2.rpc_socket), observe.start_time(observe.peer(self.pm2.rpc_socket))
        self._neighbours = observe.look(self._others())
        self._neighbour_entries, _own = self._dump()
        found = [(seen.label, seen.restarts) for seen in self._neighbours]
        assert [restarts for _label, restarts in found] == [0] * 7, found
        assert len(self._neighbour_entries) == 7, _names(self._neighbour_entries)
        self._is_broken = False

    def _check_settled(self) -> None:
        """Check that PM2 has filled in all that it finds out about a process after its start."""
        for item in self.pm2.jlist():
            env = item["pm2_env"]
            expect(not env.get("vizion_running"), f"{item['name']}: its repository is looked at")
            is_node = env["exec_interpreter"] == "node" or env["exec_mode"] == "cluster_mode"
            expect(not is_node or bool(env.get("node_version")), f"{item['name']}: its node is looked at")

    def _write_apps(self) -> None:
        for release in ("one", "two", "crashes", "silent", "sick"):
            directory = self._directory / release
            crash = "boot" if release == "crashes" else None
            health = 500 if release == "sick" else 200
            apps.http_app(directory, release, crash=crash, listen=release != "silent", health=health)
            idle = directory / "idle.sh"
            idle.write_text(f"#!/bin/sh\n{'exit 1' if release == 'crashes' else 'exec sleep 3600'}\n")
            idle.chmod(0o755)

    def _start_cli(self) -> None:
        """Runs before the others: `pm2 start` would take over their processes of the same name."""
        common = {"cwd": str(self._directory / "two"), "env": {"ALPHA": "cli", "ONLY_CLI": "1"}, "pmx": False}
        ecosystem = [
            {**common, "name": "api", "namespace": CLI, "script": "app.js", "exec_mode": "cluster", "instances": 1},
            {**common, "name": "worker", "namespace": CLI, "script": "idle.sh", "interpreter": "none"},
            {**common, "name": OWN, "script": "idle.sh", "interpreter": "none"},
        ]
        path = self._directory / "ecosystem.json"
        path.write_text(json.dumps({"apps": ecosystem}))
        self.pm2.cli("start", str(path))
        self.pm2.cli("save")

    # -- operations ----------------------------------------------------------------------------------------------

    def do(self, call: Call) -> None:
        """One call of pm2_process, compared with the model."""
        wanted = expected(self.state, call)
        what = "check" if call.check_mode else f"{call.state} {wanted.outcome}"
        with self._operation(repr(call), what, call.strategy if call.state in UP else ""):
            before = _Before(self)
            result = self._module("pm2_process", expect_failure=True, **self._options(call, OWN, wanted.outcome))
            self._history[-1] += f" -> {wanted.outcome}{': ' + result['msg'] if result['failed'] else ''}"
            self.state = wanted.after
            self._check_answer(call, wanted, result)
            self._check_own(before, wanted)
            self._check_dump(before, call, wanted, result)

    def save(self, check_mode: bool) -> None:
        """One call of pm2_save."""
        with self._operation(f"pm2_save(check_mode={check_mode})", "pm2_save" + " check" * check_mode):
            before = _Before(self)
            result = self._module("pm2_save", namespace=OWN, check=check_mode)
            self._expect_unmoved(before)
            written = self._dump_file() != before.dump_file
            expect(written == (result["changed"] and not check_mode), f"changed={result['changed']} written={written}")
            if not check_mode:
                self._expect_saved()
                expect(result["entries"] == len(before.own), f"{result['entries']} entries for {len(before.own)}")

    def inform(self) -> None:
        """One call of pm2_info, which reports what the test sees, and changes nothing."""
        with self._operation("pm2_info()", "pm2_info"):
            before = _Before(self)
            result = self._module("pm2_info", namespace=OWN)
            self._expect_unmoved(before)
            expect(self._dump_file() == before.dump_file, "the dump was written")
            expect(not result["changed"], "changed is true")
            told = sorted((p["name"], p["instance"], p["status"]) for p in result["processes"])
            seen = sorted((*_slot_of(item), item["pm2_env"]["status"]) for item in self._own())
            expect(told == seen, f"it tells {told}, there is {seen}")
            expect(len(result["dump"]["entries"]) == len(self._dump()[1]), "dump: not the entries of the file")
            drifted = self._meaning_of_dump() != self._meaning_of_live()
            expect(bool(result["drift"]) == drifted, f"drift is {result['drift']}, the dump differs: {drifted}")

    def disturb(self, kind: str, number: int) -> None:
        """Kill, stop or delete a process of our namespace without the collection."""
        own = sorted(self._own(), key=_slot_of)
        running = [item for item in own if item["pm2_env"]["status"] == ONLINE]
        if not running:
            return
        item = running[number % len(running)]
        name, slot = _slot_of(item)
        with self._operation(f"disturbed: {kind} {name} {slot}", f"disturbed by {kind}"):
            before = _Before(self)
            app = self.state[name]
            if kind == "kill":
                os.kill(item["pid"], signal.SIGKILL)
                self._wait_for_restart(item)
            elif kind == "stop":
                self.pm2.rpc("stopProcessId", item["pm_id"])
                app.slots[slot] = "stopped"
            else:
                self.pm2.rpc("deleteProcessId", item["pm_id"])
                del app.slots[slot]
                if not app.slots:
                    del self.state[name]
            expect(self._dump_file() == before.dump_file, "the dump was written")
            self._check_processes()

    def _wait_for_restart(self, item: Dict[str, Any]) -> None:
        def is_back() -> None:
            found = [now for now in self._own() if now["pm_id"] == item["pm_id"]]
            expect(bool(found) and found[0]["pid"] not in (0, item["pid"]), "PM2 did not restart it")
            expect(found[0]["pm2_env"]["status"] == ONLINE, f"status {found[0]['pm2_env']['status']}")

        eventually(is_back)

    def _operation(self, text: str, *kinds: str) -> _Operation:
        return _Operation(self, text, kinds)

    def _module(self, module: str, check: bool = False, expect_failure: bool = False, **options: Any) -> Dict[str, Any]:
        home = {"pm2_home": self.pm2.home, "pm2_executable": self.pm2.executable}
        check = options.pop("check_mode", check)
        result = modules.call(module, {**home, **options}, check=check)
        if result["failed"] and not expect_failure:
            raise Violation(f"{module} failed: {result}")
        return result

    # -- what the module is given --------------------------------------------------------------------------------

    def _options(self, call: Call, namespace: str, outcome: str = "done") -> Dict[str, Any]:
        options: Dict[str, Any] = {"namespace": namespace, "state": call.state, "strategy": call.strategy}
        options.update(prune=call.prune, save=call.save, check_mode=call.check_mode)
        if call.apps is not None:
            options["apps"] = [self._definition(app, namespace) for app in call.apps]
        if call.names is not None:
            options["names"] = list(call.names)
        if call.max_affected is not None:
            options["max_affected"] = call.max_affected
        options["ready"] = self._ready(call, BAD_TIMEOUT if outcome == "undone" else GOOD_TIMEOUT)
        return options

    def _ready(self, call: Call, timeout: float) -> Dict[str, Any]:
        """The checks that releases must pass. No bad release can, on a slow machine or a quick one."""
        ready: Dict[str, Any] = {"min_uptime": 0.05, "timeout": timeout}
        wanted = [app for app in call.apps or () if call.names is None or app.name in call.names]
        if any(app.release == "crashes" for app in wanted):
            ready["log"] = ["this is never logged"]
            ready["timeout"] = GOOD_TIMEOUT
        if any(app.name == "api" and app.mode == CLUSTER for app in wanted):
            url = f"http://127.0.0.1:{self._port}/health"
            if any(app.release == "sick" for app in wanted) or (call.checks and call.state in UP):
                ready["http"] = [{"url": url}]
            if any(app.release == "silent" for app in wanted):
                ready["tcp"] = [str(self._port)]
        return ready

    def _definition(self, app: Definition, namespace: str) -> Dict[str, Any]:
        definition: Dict[str, Any] = {
            "name": app.name,
            "script": app.script,
            "cwd": str(self._directory / app.release),
            "exec_mode": app.mode,
            "instances": app.instances,
            "env": self._variables(app, namespace),
            "merge_logs": app.merge_logs,
            "args": list(app.args),
            "pmx": False,
            "vizion": False,
            "kill_retry_time": 10,
        }
        if app.script == "idle.sh":
            definition["interpreter"] = "none"
        if app.own_log:
            definition["out_file"] = str(self._directory / "custom" / f"{namespace}-{app.name}.log")
        if app.dated:
            definition["log_date_format"] = "HH:mm"
        return definition

    def _variables(self, app: Definition, namespace: str) -> Dict[str, str]:
        variables = dict(app.env)
        if namespace == OWN and app.name == "api" and app.mode == CLUSTER:
            variables["PORT"] = str(self._port)
        return variables

    # -- what is compared ----------------------------------------------------------------------------------------

    def check_neighbours(self) -> None:
        """Check that nothing of the others changed, and the daemon is the same."""
        daemon = observe.peer(self.pm2.rpc_socket)
        expect((daemon, observe.start_time(daemon)) == self._daemon, f"daemon {self._daemon} became {daemon}")
        moved = list(observe.changes(self._neighbours, observe.look(self._others())))
        expect(not moved, "other namespaces moved:\n  " + "\n  ".join(moved))
        others, _own = self._dump()
        expect(others == self._neighbour_entries, f"dump: entries of others were changed:\n  {_names(others)}")
        expect(self.pm2.dump.stat().st_mode & 0o777 == 0o600, "dump: not of mode 0600")

    def _check_answer(self, call: Call, wanted: Expected, result: Dict[str, Any]) -> None:
        expect(result["failed"] == (wanted.outcome != "done"), f"expected {wanted.outcome}, got {_short(result)}")
        if wanted.outcome == "undone":
            expect(result.get("rolled_back") is True, f"not rolled back: {_short(result)}")
        elif wanted.outcome == "refused":
            expect(not result.get("rolled_back"), f"it was not refused, but rolled back: {_short(result)}")
        else:
            told = len(result["actions"])
            expect(told == wanted.affected, f"{wanted.affected} actions expected, told: {result['actions']}")
            changed = wanted.affected > 0 or result["saved"]
            expect(result["changed"] == changed, f"changed is {result['changed']}: {result['actions']}")

    def _check_own(self, before: _Before, wanted: Expected) -> None:
        self._check_processes()
        now = {_slot_of(item): item for item in self._own()}
        for slot, item in now.items():
            was = before.own.get(slot)
            if slot in wanted.kept:
                expect(was is not None and _identity(was) == _identity(item), f"{slot} was touched: {was} {item}")
            elif slot in wanted.renewed:
                ids = {old["pm2_env"]["unique_id"] for old in before.own.values()}
                expect(item["pm2_env"]["unique_id"] not in ids, f"{slot} was not renewed")
            else:
                same = was is not None and was["pm2_env"]["unique_id"] == item["pm2_env"]["unique_id"]
                expect(same, f"{slot} is another entry of PM2's list")

    def _check_processes(self) -> None:
        """Check that the live processes are the model's: numbers, statuses, and the definition that each runs with."""
        live: Dict[str, List[Tuple[int, str]]] = {}
        for item in self._own():
            name, slot = _slot_of(item)
            live.setdefault(name, []).append((slot, item["pm2_env"]["status"]))
        wanted = {name: sorted(app.slots.items()) for name, app in self.state.items()}
        found = {name: sorted(slots) for name, slots in live.items()}
        expect(found == wanted, f"instances are {found}, expected {wanted}")
        for item in self._own():
            definition = self.state[item["name"]].definition
            eventually(lambda item=item, definition=definition: self._check_process(item, definition))  # type: ignore[misc]

    def _check_process(self, item: Dict[str, Any], app: Definition) -> None:
        env, label = item["pm2_env"], f"{item['name']} (pm_id {item['pm_id']})"
        wanted = self._definition(app, OWN)
        expect(env["pm_exec_path"] == f"{wanted['cwd']}/{app.script}", f"{label} runs {env['pm_exec_path']}")
        expect(env["pm_cwd"] == wanted["cwd"], f"{label} is in {env['pm_cwd']}")
        expect(env["exec_mode"] == f"{app.mode}_mode", f"{label} is in {env['exec_mode']}")
        expect(list(env.get("args") or []) == wanted["args"], f"{label} has args {env.get('args')}")
        expect(bool(env.get("merge_logs")) == app.merge_logs, f"{label} has merge_logs {env.get('merge_logs')}")
        expect(env.get("log_date_format") == wanted.get("log_date_format"), f"{label}: {env.get('log_date_format')}")
        expect((f"/custom/{OWN}-" in env["pm_out_log_path"]) == app.own_log, f"{label}: {env['pm_out_log_path']}")
        if env["status"] != ONLINE:
            expect(not item["pid"] or not processes.alive(item["pid"]), f"{label} is {env['status']} and runs")
            return
        expect(processes.alive(item["pid"]), f"{label} is online without a process")
        expect(os.readlink(f"/proc/{item['pid']}/cwd") == wanted["cwd"], f"{label} runs elsewhere")
        real = _real_environment(item)
        for name in (*VARIABLES, "PORT", "ONLY_CLI", "ONLY_TWIN"):
            expect(real.get(name) == wanted["env"].get(name), f"{label}: {name} is {real.get(name)!r}")
        expect(real["NODE_APP_INSTANCE"] == str(_slot_of(item)[1]), f"{label} believes to be {real}")

    def _check_dump(self, before: _Before, call: Call, wanted: Expected, result: Dict[str, Any]) -> None:
        written = self._dump_file() != before.dump_file
        saves = wanted.outcome == "done" and call.save and not call.check_mode
        if saves:
            self._expect_saved()
            expect(written == result["saved"], f"saved is {result['saved']}, written: {written}")
        else:
            expect(not written, "the dump was written")

    def _expect_saved(self) -> None:
        dump, live = self._meaning_of_dump(), self._meaning_of_live()
        expect(dump == live, f"dump and processes differ:\n  {dump}\n  {live}")

    def _expect_unmoved(self, before: _Before) -> None:
        self._check_processes()
        now = {_slot_of(item): _identity(item) for item in self._own()}
        expect(now == {slot: _identity(item) for slot, item in before.own.items()}, "own processes moved")

    # -- what there is -------------------------------------------------------------------------------------------

    def _own(self) -> List[Dict[str, Any]]:
        return self.pm2.processes(OWN)

    def _others(self) -> Iterator[Dict[str, Any]]:
        return (item for item in self.pm2.jlist() if item["pm2_env"].get("namespace") != OWN)

    def _dump(self) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
        entries = observe.dump_entries(self.pm2.dump)
        own = [entry for entry in entries if entry.get("namespace") == OWN]
        return [entry for entry in entries if entry.get("namespace") != OWN], own

    def _dump_file(self) -> Tuple[int, int, bytes]:
        found = self.pm2.dump.stat()
        return found.st_ino, found.st_mtime_ns, self.pm2.dump.read_bytes()

    def _meaning_of_dump(self) -> List[str]:
        return sorted(map(_meaning, self._dump()[1]))

    def _meaning_of_live(self) -> List[str]:
        return sorted(_meaning(item["pm2_env"]) for item in self._own())

    @property
    def history(self) -> str:
        """The operations of this example, as text."""
        return "\n".join(f"  {number}. {line}" for number, line in enumerate(self._history))

    def report(self) -> str:
        """The number of operations of each kind."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.count.items()) if kind != "operations")
        total = self.count["operations"]
        return f"{total} operations, {self.seconds / max(total, 1):.3f} s each ({kinds})"


class _Before:
    """The namespace and the dump before an operation."""

    def __init__(self, world: World) -> None:
        items = world._own()
        self.own: Dict[Slot, Dict[str, Any]] = {_slot_of(item): item for item in items}
        self.dump_file = world._dump_file()


class _Operation:
    """Counts and records one operation, and checks the neighbours after it, however it ended."""

    def __init__(self, world: World, text: str, kinds: Tuple[str, ...]) -> None:
        self._world = world
        self._text = text
        self._kinds = kinds

    def __enter__(self) -> None:
        self._world._history.append(self._text)
        self._start = time.monotonic()

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        world = self._world
        world.seconds += time.monotonic() - self._start
        world.count.update(["operations", *filter(None, self._kinds)])
        problem = error
        try:
            world.check_neighbours()
        except (Violation, OSError, ValueError) as violation:
            problem = violation
        if isinstance(problem, Exception):
            world._is_broken = True
            world.count["violations"] += 1
            text = f"{problem}\nAfter these operations on namespace {OWN}:\n{world.history}"
            print(
                f"\nVIOLATION {world.count['violations']}: {text}"
            )  # hypothesis may find others when it looks for a shorter one
            raise Violation(text) from problem
        if world.count["operations"] % PROGRESS == 0:
            print(f"PM2 {world.pm2.version}: {world.count['operations']} operations", flush=True)


def expect(holds: bool, problem: str) -> None:
    """Raise Violation unless `holds`."""
    if not holds:
        raise Violation(problem)


def eventually(check: Callable[[], None], timeout: float = 30.0) -> None:
    """Repeat `check` until it does not raise: PM2 may act after it has answered."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return check()
        except (Violation, OSError, ValueError, KeyError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _twin_apps(port: str) -> Tuple[Definition, ...]:
    env = (("ALPHA", "twin"), ("API_TOKEN", "twin"), ("ONLY_TWIN", "1"))
    return (
        Definition("api", CLUSTER, 2, "two", "app.js", (*env, ("PORT", port))),
        Definition("worker", release="two", env=env, own_log=True),
        Definition("jobs", release="two", env=env, merge_logs=True),
    )


def _short(result: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("invocation", "diff")}


def _slot_of(item: Dict[str, Any]) -> Slot:
    return item["name"], int(item["pm2_env"]["NODE_APP_INSTANCE"])


def _identity(item: Dict[str, Any]) -> Tuple[object, ...]:
    env = item["pm2_env"]
    return env["unique_id"], item["pm_id"], item.get("pid", 0), env["status"], env["restart_time"]


def _real_environment(item: Dict[str, Any]) -> Dict[str, str]:
    """The environment that the process sees. PM2 gives it to a cluster worker as JSON in one variable."""
    environ = processes.environ(item["pid"])
    if item["pm2_env"]["exec_mode"] == "fork_mode":
        return environ
    return {name: str(value) for name, value in json.loads(environ["pm2_env"]).items()}


def _meaning(entry: Dict[str, Any]) -> str:
    """What a resurrect would start from the entry, as far as the test defines it."""
    plain = ("name", "namespace", "pm_exec_path", "pm_cwd", "exec_mode", "args", "NODE_APP_INSTANCE")
    result = {key: entry.get(key) for key in (*plain, *VARIABLES, "PORT", "merge_logs", "log_date_format")}
    result["status"] = "stopped" if entry["status"] in ("stopped", "stopping") else "online"
    result["env"] = {key: value for key, value in entry["env"].items() if key != "unique_id"}
    for key in ("pm_out_log_path", "pm_err_log_path"):
        result[key] = re.sub(r"-[0-9]+\.log$", ".log", entry[key])
    return json.dumps(result, sort_keys=True)


def _names(entries: List[Dict[str, Any]]) -> List[str]:
    return [f"{entry.get('namespace')}/{entry.get('name')}" for entry in entries]
