"""An application with its databases, to be restored and to have everything go wrong meanwhile.

On one PostgreSQL server and one PM2 daemon stand a namespace `shop`, whose processes use the databases `shop` and
`stock`, a `neighbour` with a database of its own, and a visitor that nobody stops: it holds a connection to `shop` and
comes back at once when it loses it. What the application does is in its data, so a backup can hold a database that the
application does not get on with.

Everything is looked at with psql, pg_dump, PM2's RPC and /proc, not with the collection's code.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import itertools
import json
import os
import re
import shlex
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from support import killer, observe, processes
from support.apps import QUICK, free_port
from support.load import get
from support.pm2 import Pm2Home
from support.postgres import Server, identifier, literal

NAMESPACE = "shop"
NEIGHBOUR = "neighbour"
ENVIRONMENT = "production"
PROCESSES = [("api", "0", "online"), ("api", "1", "online"), ("paused", "0", "stopped"), ("worker", "0", "online")]
HELPERS = ("pg_dump", "pg_restore", "psql")

_numbers = itertools.count(1)


def until(condition: Callable[[], Any], what: str, timeout: float = 60.0, pause: float = 0.02) -> None:
    """Wait until `condition` holds. AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(pause)


class State(NamedTuple):
    """A database: which one it is (its oid stays when it is renamed), and all that is in it and about it."""

    oid: str
    text: str


def assert_same(now: State, was: State) -> None:
    """Fails with what differs, if the one database is not the other, or other things are in it."""
    lines = difflib.unified_diff(was.text.splitlines(), now.text.splitlines(), "was", "is", lineterm="", n=0)
    assert now.text == was.text, "\n".join(list(lines)[:40])
    assert now.oid == was.oid, f"the same content, but database {now.oid} instead of {was.oid}"


class Before(NamedTuple):
    """The world before a call."""

    states: Dict[str, State]
    others: List[str]
    """Names of the databases that are none of the live ones."""
    previous: Dict[str, State]
    """What was live before, as it was seen then: nobody may connect to it. Only where that is known."""
    backups: List[str]


class World:
    """See above. `runner` calls the modules; `texts` has what is in each backup, by its id and the database's name."""

    def __init__(
        self, server: Server, pm2: Pm2Home, runner: killer.Runner, directory: Path, dest: Optional[Path] = None
    ) -> None:
        self.server = server
        self.pm2 = pm2
        self.runner = runner
        self.directory = directory
        self.dest = dest or directory / "backups"
        self.port = free_port()
        number = f"{os.getpid()}_{next(_numbers)}"
        self.owner, self.brake = f"owner{number}", f"brake{number}"
        self.shop, self.stock, self.other = f"shop{number}", f"stock{number}", f"other{number}"
        self.texts: Dict[str, Dict[str, str]] = {}
        self._seen: Dict[str, State] = {}
        self._pool = ThreadPoolExecutor(1)
        self._visitor: Optional[subprocess.Popen[bytes]] = None
        self._make_databases()
        _write_apps(directory / "app")
        self.start_processes()
        self.visit()

    # -- options ---------------------------------------------------------------------------------------------------

    def store(self, **options: Any) -> Dict[str, Any]:
        """The options of a backup store and of the server."""
        return {"dest": str(self.dest), "environment": ENVIRONMENT, **self.server.login(), **options}

    def backup_options(self, *databases: str, **options: Any) -> Dict[str, Any]:
        """Of a call of pg_backup, of `shop` unless there are others."""
        return self.store(databases=list(databases or [self.shop]), **options)

    def options(self, state: str = "restored", *databases: str, **options: Any) -> Dict[str, Any]:
        """Of a call of pg_restore, of `shop` unless there are others."""
        names = list(databases or [self.shop])
        ready = {"min_uptime": 0.2, "timeout": 60, "http": [{"url": f"http://127.0.0.1:{self.port}/health"}]}
        usual: Dict[str, Any] = {
            "state": state,
            "databases": names,
            "namespace": NAMESPACE,
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
        }
        if state in ("restored", "undone"):
            usual.update(ready=ready, confirm=names, healthy=2)
        return self.store(**{**usual, **options})

    def backup(self, *databases: str, **options: Any) -> str:
        """A backup of what there is now; its id. What was in it is in `texts`."""
        names = databases or (self.shop,)
        result = self.bring("pg_backup", self.backup_options(*names, **options))
        made = str(result["backup"]["id"])
        self.texts[made] = {name: self.state(name).text for name in names}
        return made

    def bring(self, module: str, options: Mapping[str, Any]) -> Dict[str, Any]:
        """An undisturbed call, which must succeed."""
        result = self.runner.call(module, options)
        assert not result["failed"], result["msg"]
        return result

    def start(self, module: str, options: Mapping[str, Any], **how: Any) -> Future[killer.Outcome]:
        """A call that runs on while the test does something to it (see `Runner.run`); one at a time."""
        return self._pool.submit(self.runner.run, module, options, **how)

    def recovered(self, *databases: str) -> Dict[str, Any]:
        """What is done once after a fault."""
        return self.bring("pg_restore", self.options("recovered", *databases))

    # -- databases -------------------------------------------------------------------------------------------------

    def _make_databases(self) -> None:
        self.sql("postgres", f"CREATE ROLE {self.owner} LOGIN; CREATE ROLE {self.brake};")
        for name in (self.shop, self.stock):
            self.server.create_database(name, owner=self.owner, rows=-1)
            self.sql(name, _TABLES.format(brake=self.brake), user=self.owner)
            self.sql(
                name,
                f"COMMENT ON DATABASE {name} IS 'of the shop'; ALTER DATABASE {name} SET work_mem TO '5MB';"
                f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {self.brake};",
            )
        self.server.create_database(self.other, rows=-1)
        self.sql(self.other, "CREATE TABLE items AS SELECT i FROM generate_series(1, 5) i")

    def sql(self, database: str, text: str, user: str = "postgres") -> str:
        """Run it; what it prints."""
        return self.server.psql(database, text, user=user)

    def write(self, note: str, database: Optional[str] = None, behaviour: str = "well") -> None:
        """Change the live database: the first order's note, and what the application does."""
        oid = self.sql(
            database or self.shop,
            f"UPDATE orders SET note = {literal(note)} WHERE id = 1; UPDATE behaviour SET what = {literal(behaviour)};"
            "SELECT oid FROM pg_database WHERE datname = current_database()",
        )
        self._seen.pop(oid, None)

    def state(self, name: str) -> State:
        """The whole of a live database: its dump as text, with owner, rights, settings and comment."""
        oid = self.sql("postgres", f"SELECT oid FROM pg_database WHERE datname = {literal(name)}")
        assert oid, f"there is no database {name}"
        text = self.server.run("pg_dump", "--create", name)
        return State(oid, re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.M))

    def _newest_previous(self, name: str) -> List[str]:
        """Its oid, and whether one may connect to it; empty where there is none."""
        named = f"starts_with(datname, {literal(name + '__prev_')})"
        newest = f"SELECT oid, datallowconn FROM pg_database WHERE {named} ORDER BY datname DESC LIMIT 1"
        found = self.sql("postgres", newest)
        return found.split("|") if found else []

    def others(self) -> List[str]:
        """Databases of this world that are none of its three."""
        mine = (f"{self.shop}__", f"{self.stock}__")
        return [name for name in self.server.databases() if name.startswith(mine)]

    def previous(self, name: Optional[str] = None) -> List[str]:
        """The previous databases that are kept, the oldest first."""
        return [other for other in self.others() if other.startswith(f"{name or self.shop}__prev_")]

    def psql(self, text: str, database: str = "postgres") -> str:
        """A command line that runs SQL, for a shell."""
        environment = self.server.environment(database)
        given = [f"{name}={value}" for name, value in environment.items() if name.startswith("PG")]
        command = ["env", *given, self.server.binaries.program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        return f"printf %s {shlex.quote(text)} | {shlex.join(command)}"

    @contextlib.contextmanager
    def session(self, database: str, *statements: str, user: str = "postgres") -> Iterator[subprocess.Popen[str]]:
        """A connection that has run `statements` and stays open, in a transaction if they begin one."""
        process = subprocess.Popen(
            [self.server.binaries.program("psql"), "-XqAt"],
            env={**self.server.environment(database, user), "PGAPPNAME": "session"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        try:
            print("\n".join([*statements, "SELECT 'done';"]), file=process.stdin, flush=True)
            while (line := process.stdout.readline()) != "done\n":
                assert line, f"psql ended: {statements}"
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def brakes(self) -> Iterator[None]:
        """Within, loading a database stands still in the middle of its data (see `is_loading`)."""
        self.sql("postgres", f"COMMENT ON ROLE {self.brake} IS 'on'")
        try:
            yield
        finally:
            self.sql("postgres", f"COMMENT ON ROLE {self.brake} IS NULL")

    def is_loading(self) -> bool:
        """Whether a restore stands at the brake."""
        return bool(self.sql("postgres", f"SELECT 1 FROM pg_stat_activity WHERE {self.loading_backends}"))

    def is_held_up(self) -> bool:
        """Whether a backup waits for a table that somebody has locked."""
        return bool(self.sql("postgres", f"SELECT 1 FROM pg_stat_activity WHERE {self.waiting_backends}"))

    @property
    def waiting_backends(self) -> str:
        """What chooses them from pg_stat_activity."""
        return f"datname = {literal(self.shop)} AND wait_event_type = 'Lock'"

    @property
    def loading_backends(self) -> str:
        """What chooses them from pg_stat_activity."""
        mine = " OR ".join(f"starts_with(datname, '{name}__new_')" for name in (self.shop, self.stock))
        return f"({mine}) AND query LIKE 'COPY%held%' AND state = 'active'"

    def helpers(self, *names: str) -> List[int]:
        """The pids of PostgreSQL's programs that work for the modules now."""
        found = []
        for pid in processes.all_pids():
            program = Path(processes.cmdline(pid).split(" ")[0]).name
            if program in (names or HELPERS) and processes.alive(pid):
                environment = processes.environ(pid)
                if environment.get("PGPORT") == str(self.server.port) and environment.get("PGAPPNAME") != "session":
                    found.append(pid)
        return found

    # -- processes -------------------------------------------------------------------------------------------------

    def start_processes(self) -> None:
        """Both namespaces, as they are when all is well."""
        usual = {"cwd": str(self.directory / "app"), "env": self._environment(self.shop), **QUICK}
        apps: List[Dict[str, Any]] = [
            {"name": "api", "script": "api.js", "exec_mode": "cluster", "instances": 2, "kill_timeout": 3000, **usual},
            {"name": "worker", "script": "worker.js", **usual},
            {"name": "paused", "script": "worker.js", **usual},
        ]
        self._start(NAMESPACE, apps, min_uptime=0.2, http=[{"url": f"http://127.0.0.1:{self.port}/health"}])
        self._process(NAMESPACE, state="stopped", names=["paused"])
        self._start(NEIGHBOUR, [{**apps[1], "name": "api", "env": self._environment(self.other)}], min_uptime=0.2)
        until(self._neighbour_backend, "the neighbour connects")
        until(lambda: all(self._known(item) for item in self.pm2.jlist()), "PM2 knows the versions")
        self._neighbour = observe.look(self.pm2.processes(NEIGHBOUR))
        self._neighbour_saved = self._saved(NEIGHBOUR)
        self._neighbour_connection = self._neighbour_backend()
        self._neighbour_state = self.state(self.other)
        self._shop_saved = self._saved(NAMESPACE)

    @staticmethod
    def _known(item: Mapping[str, Any]) -> bool:
        return bool(item["pm2_env"].get("node_version")) or item["pm2_env"]["status"] == "stopped"

    def _environment(self, database: str) -> Dict[str, str]:
        return {
            "PORT": str(self.port),
            "DATABASE": database,
            "DATABASE_USER": "postgres" if database == self.other else self.owner,
            "DATABASE_SOCKET": f"{self.server.socket_directory}/.s.PGSQL.{self.server.port}",
        }

    def _start(self, namespace: str, apps: Sequence[Mapping[str, Any]], **ready: Any) -> None:
        self._process(namespace, apps=list(apps), ready=ready)

    def _process(self, namespace: str, **options: Any) -> None:
        where = {"namespace": namespace, "pm2_home": self.pm2.home, "pm2_executable": self.pm2.executable}
        self.bring("pm2_process", {**where, **options})

    def visit(self) -> None:
        """Start the visitor."""
        self._visitor = self.visitors(1, 5)

    def visitors(self, count: int, pause: float) -> subprocess.Popen[bytes]:
        """So many connections to `shop` that come back after `pause` ms, from outside of PM2; until it is killed."""
        return subprocess.Popen(
            ["node", str(self.directory / "app" / "visitor.js"), str(count), str(pause)],
            env={**os.environ, **self._environment(self.shop)},
            stdin=subprocess.DEVNULL,
        )

    def ask(self) -> Tuple[str, int]:
        """What the application answers with 200: the first order's note, and the number of orders."""
        answer = json.loads(get(self.port, "/health"))
        return answer["note"], answer["orders"]

    def _saved(self, namespace: str) -> List[Dict[str, Any]]:
        return [entry for entry in observe.dump_entries(self.pm2.dump) if entry["namespace"] == namespace]

    def _neighbour_backend(self) -> str:
        return self.sql("postgres", f"SELECT pid FROM pg_stat_activity WHERE datname = {literal(self.other)}")

    # -- what has to hold ------------------------------------------------------------------------------------------

    def look(self) -> Before:
        """To be compared with what is there afterwards."""
        states = {name: self.state(name) for name in (self.shop, self.stock)}
        previous = {name: self._seen.get("".join(self._newest_previous(name)[:1])) for name in states}
        self._seen.update({state.oid: state for state in states.values()})
        known = {name: state for name, state in previous.items() if state}
        return Before(states, self.others(), known, self.stored())

    def stored(self) -> List[str]:
        """What lies in the backup store."""
        return sorted(path.name for path in self.dest.iterdir()) if self.dest.exists() else []

    def check(self, before: Before, backup: Optional[str] = None, *databases: str, kept: int = 0) -> None:
        """All is in order. With `backup` the databases are exactly what it holds, without exactly the old ones.

        `databases` are those that were restored, `shop` unless told otherwise. `kept`: how many more previous ones
        there are, because they were live between a kill and a way back.
        """
        self._check_databases(before, backup, *databases, kept=kept)
        self.check_processes()

    def _check_databases(self, before: Before, backup: Optional[str], *databases: str, kept: int = 0) -> None:
        swapped = list(databases or [self.shop]) if backup else []
        for name, was in before.states.items():
            now = self.state(name)
            if name in swapped:
                assert backup
                assert_same(now, State(now.oid, self.texts[backup][name]))
                assert now.oid != was.oid
                self._check_previous(name, was)
            else:
                assert_same(now, was)
        more = [name for name in self.others() if name not in before.others]
        assert len(more) == len(swapped) + kept, f"databases that were left: {more}"
        assert all("__prev_" in name for name in self.others()), self.others()
        self.check_left()

    def check_without_neighbour(self, before: Before, backup: str) -> bool:
        """As `check_either`, when the daemon was lost with all it had: who else ran there is not for us to start."""
        is_new = self.state(self.shop).oid != before.states[self.shop].oid
        self._check_databases(before, backup if is_new else None)
        self._check_answer()
        live = [_described(item["pm2_env"]) for item in self.pm2.processes(NAMESPACE)]
        assert sorted(live) == [process for process in PROCESSES if process[2] == "online"]
        assert self._saved(NEIGHBOUR) == self._neighbour_saved
        assert_same(self.state(self.other), self._neighbour_state)
        return is_new

    def check_as_after_a_boot(self, before: Before, backup: str) -> None:
        """The databases of `backup`, and in both namespaces what the dump holds, each once."""
        self._check_databases(before, backup)
        self._check_answer()
        assert sorted(_described(item["pm2_env"]) for item in self.pm2.processes(NAMESPACE)) == PROCESSES
        assert [_described(item["pm2_env"]) for item in self.pm2.processes(NEIGHBOUR)] == [("api", "0", "online")]

    def server_was_restarted(self) -> None:
        """The connections are lost, which was not our doing: until all have come back, and the neighbour's is new."""
        until(self._neighbour_backend, "the neighbour connects again")
        self._neighbour_connection = self._neighbour_backend()

    def check_either(self, before: Before, backup: str, *databases: str) -> bool:
        """As `check`, whichever it is; whether they are the new ones."""
        names = databases or (self.shop,)
        is_new = self.state(names[0]).oid != before.states[names[0]].oid
        self.check(before, backup if is_new else None, *databases)
        return is_new

    def check_undone(self, before: Before, *databases: str) -> None:
        """The newest previous databases are live again, and what was live is kept as the newest previous one."""
        for name in databases or (self.shop,):
            self._check_previous(name, before.states[name])
            assert_same(self.state(name), before.previous[name])
        assert all("__prev_" in name for name in self.others()), self.others()
        self.check_left()
        self.check_processes()

    def _check_previous(self, name: str, was: State) -> None:
        """The newest previous database is the one that was live, and nobody can have changed it."""
        assert self._newest_previous(name) == [was.oid, "f"], f"the previous database of {name} is another or open"

    def check_left(self) -> None:
        """No fence, no lock, no program, no half backup, no journal."""
        until(lambda: not self.helpers(), f"the helpers end: {[processes.cmdline(pid) for pid in self.helpers()]}")
        closed = self.sql(
            "postgres",
            f"SELECT datname FROM pg_database WHERE datname IN ('{self.shop}', '{self.stock}') AND NOT datallowconn",
        )
        assert not closed
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        until(lambda: self.sql("postgres", locks) == "0", "the advisory locks are free")
        assert not [name for name in self.stored() if name.startswith((".partial", ".removed"))]
        own = self.dest / ".nodeops"
        assert not [path.name for path in own.iterdir() if "journal" in path.name or path.name.endswith(".new")]
        with (own / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = Path(self.pm2.home, "nodeops")
        assert not [path.name for path in state.iterdir() if path.name.endswith((".journal", ".new"))]

    def check_processes(self) -> None:
        """The application answers with what is in the live database, and the neighbour did not move."""
        self._check_answer()
        live = self.pm2.processes(NAMESPACE)
        found = sorted(_described(item["pm2_env"]) for item in live)
        assert found == PROCESSES, found
        for item in live:
            if item["pm2_env"]["status"] == "online":
                assert processes.alive(item["pid"])
                assert _environment_of(item["pid"])["DATABASE"] == self.shop
        assert sorted(map(_described, self._saved(NAMESPACE))) == sorted(map(_described, self._shop_saved))
        self.check_neighbour()

    def _check_answer(self) -> None:
        expected = self.sql(self.shop, "SELECT note, (SELECT count(*) FROM orders) FROM orders WHERE id = 1")
        until(lambda: self._answers(expected), f"the application answers {expected}")

    def _answers(self, expected: str) -> bool:
        try:
            note, orders = self.ask()
        except (OSError, ValueError):  # it has only just been started
            return False
        return f"{note}|{orders}" == expected

    def check_neighbour(self) -> None:
        """No pid, no count, no variable, no entry of the dump, no row; and its connection was not cut."""
        moved = list(observe.changes(self._neighbour, observe.look(self.pm2.processes(NEIGHBOUR))))
        assert not moved, moved
        assert self._saved(NEIGHBOUR) == self._neighbour_saved
        assert self._neighbour_backend() == self._neighbour_connection
        assert_same(self.state(self.other), self._neighbour_state)

    def is_well(self) -> bool:
        """Whether the next test can begin: after one that failed this may not be so."""
        try:
            self.check_left()
            self.check_processes()
        except (AssertionError, OSError, ValueError):
            return False
        return not [name for name in self.others() if "__new_" in name]

    # -- its end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the visitor, and remove the databases, but for those of a server that does not run any more."""
        if self._visitor:
            self._visitor.kill()
            self._visitor.wait()
        self.pm2.kill()
        with contextlib.suppress(AssertionError):
            for name in [self.shop, self.stock, self.other, *self.others()]:
                self.server.drop_database(name)
            self.sql("postgres", f"DROP ROLE {identifier(self.owner)}; DROP ROLE {identifier(self.brake)}")

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def _described(env: Mapping[str, Any]) -> Tuple[str, str, str]:
    return (env["name"], str(env["NODE_APP_INSTANCE"]), env["status"])


def _environment_of(pid: int) -> Dict[str, str]:
    """What a process was started with; a cluster worker gets it in a JSON of PM2's."""
    environment = processes.environ(pid)
    return {**environment, **json.loads(environment.get("pm2_env", "{}"))}


# -- the application ---------------------------------------------------------------------------------------------------


def _write_apps(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"client": _CLIENT, "api": _API, "worker": _WORKER, "visitor": _VISITOR}.items():
        (directory / f"{name}.js").write_text(text)


_TABLES = """\
CREATE TABLE orders (id serial PRIMARY KEY, note text NOT NULL, amount numeric(10,2) NOT NULL);
INSERT INTO orders (note, amount) SELECT 'order ' || i, i * 1.25 FROM generate_series(1, 200) i;
SELECT setval('orders_id_seq', 200); -- the server would lose some numbers when it is killed
CREATE INDEX ON orders (note);
CREATE TABLE behaviour (what text NOT NULL);
INSERT INTO behaviour VALUES ('well');
CREATE FUNCTION brake() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  WHILE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = '{brake}'
                AND pg_catalog.shobj_description(r.oid, 'pg_authid') = 'on') LOOP
    PERFORM pg_catalog.pg_sleep(0.02);
  END LOOP;
  RETURN true;
END $$;
CREATE TABLE held (id int CHECK (public.brake()));
INSERT INTO held VALUES (1);
"""

_CLIENT = """\
// The least of a client of PostgreSQL: trusted on a Unix socket, one query at a time, all values as text.
const net = require('net');

exports.connect = (name) => new Promise((resolve, reject) => {
  const socket = net.connect(process.env.DATABASE_SOCKET);
  let buffer = Buffer.alloc(0);
  let rows = [];
  let failed = null;
  let settle = { resolve: () => resolve(connection), reject };
  const end = (error) => { socket.destroy(); settle.reject(error); connection.lost(error); };
  const connection = {
    lost: () => {},
    close: () => socket.end(Buffer.from([0x58, 0, 0, 0, 4])),
    query: (sql) => new Promise((resolve, reject) => {
      if (socket.destroyed) { reject(new Error('no connection')); return; }
      rows = []; failed = null;
      settle = { resolve, reject };
      const text = Buffer.from(sql + '\\0');
      const head = Buffer.alloc(5);
      head.write('Q'); head.writeInt32BE(text.length + 4, 1);
      socket.write(Buffer.concat([head, text]));
    }),
  };
  const take = (type, body) => {
    if (type === 'E') failed = new Error(body.toString().split('\\0').find((field) => field[0] === 'M').slice(1));
    else if (type === 'D') {
      const row = [];
      for (let field = 0, at = 2; field < body.readInt16BE(0); field++) {
        const length = body.readInt32BE(at);
        at += 4;
        row.push(length < 0 ? null : body.toString('utf8', at, at + length));
        at += Math.max(0, length);
      }
      rows.push(row);
    } else if (type === 'Z') failed ? settle.reject(failed) : settle.resolve(rows);
  };
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length >= 5 && buffer.length > buffer.readInt32BE(1)) {
      const size = buffer.readInt32BE(1) + 1;
      take(String.fromCharCode(buffer[0]), buffer.subarray(5, size));
      buffer = buffer.subarray(size);
    }
  });
  socket.on('error', end);
  socket.on('close', () => end(failed || new Error('the connection was closed')));
  socket.on('connect', () => {
    const { DATABASE, DATABASE_USER } = process.env;
    const given = ['user', DATABASE_USER, 'database', DATABASE, 'application_name', name];
    const text = Buffer.from(given.map((word) => word + '\\0').join('') + '\\0');
    const head = Buffer.alloc(8);
    head.writeInt32BE(text.length + 8, 0); head.writeInt32BE(196608, 4);
    socket.write(Buffer.concat([head, text]));
  });
});

// A connection that is made again `pause` ms after it was lost, and asks every 50 ms.
exports.stay = async (name, pause) => {
  const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));
  for (;;) {
    try {
      const connection = await exports.connect(name);
      for (;;) {
        await connection.query('SELECT 1');
        await sleep(50);
      }
    } catch { await sleep(pause); }
  }
};
"""

_API = """\
// Answers /health with what is in the database. What it says in `behaviour` is what it does: `well`, `unhealthy`,
// `crash <seconds>` after the start, with 0 before it listens.
const http = require('http');
const { connect } = require('./client.js');

const ask = async () => {
  const connection = await connect('api');
  try {
    const [[note]] = await connection.query('SELECT note FROM orders WHERE id = 1');
    const [[orders]] = await connection.query('SELECT count(*) FROM orders');
    const [[what]] = await connection.query('SELECT what FROM behaviour');
    return { note, orders: Number(orders), what };
  } finally { connection.close(); }
};

const server = http.createServer(async (request, response) => {
  const answer = await ask().catch((error) => ({ what: error.message }));
  response.writeHead(answer.orders && answer.what !== 'unhealthy' ? 200 : 503, { Connection: 'close' });
  response.end(JSON.stringify(answer));
});
const crash = () => { throw new Error('no such column: price'); };

process.on('SIGINT', () => process.exit(0));
ask().catch((error) => ({ what: error.message })).then(({ what }) => {
  const [word, seconds] = what.split(' ');
  if (word === 'crash') setTimeout(crash, seconds * 1000); // PM2 only notes what is thrown in a promise
  if (what !== 'crash 0') server.listen(process.env.PORT, '127.0.0.1');
});
"""

_WORKER = """\
process.on('SIGINT', () => process.exit(0));
require('./client.js').stay('worker', 20);
"""

_VISITOR = """\
const [count, pause] = process.argv.slice(2).map(Number);
for (let number = 0; number < count; number++) require('./client.js').stay('visitor', pause);
"""
