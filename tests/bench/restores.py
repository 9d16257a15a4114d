"""Restoring a database under a running application: how long it does not answer, compared with the usual sequence.

The usual sequence is: stop the application, DROP, CREATE, let `psql` read a dump, start the application. Both restore
the same data into the same server, in turn, while a client asks for the products every 10 ms. The longest time without
a good answer counts. The application is examples/shop, two workers in cluster mode and one in fork mode.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from support import places
from support.apps import free_port
from support.load import Load
from support.modules import call_process
from support.pm2 import VERSIONS, Pm2Home
from support.postgres import ADMIN, Server

from bench.comparison import Comparison, Cost, rounds

ROUNDS = 3
SMALL, LARGE = 25, 1080  # MB that the database takes on the disk
EMPTY = 8  # MB of them are PostgreSQL's own
TARGET = 0.15
TARGET_SIZES = 1.3
ROW_BYTES = 154  # of the table below with its indexes, measured
NAMESPACE = "shop"
CLIENTS = 4  # several, because one may lose its connection with its worker
POLL = 0.01  # seconds between two requests of all clients
REQUEST_TIMEOUT = 0.5  # seconds
TIMEOUT = 1800.0  # seconds that a call may take
NAIVE = "stop, DROP, CREATE, psql, start"

_ORDERS = """\
CREATE TABLE orders (
    id bigint PRIMARY KEY, product integer NOT NULL REFERENCES products, placed timestamptz NOT NULL, note text NOT NULL
);
INSERT INTO orders
    SELECT i, 1 + i % 3, timestamptz '2026-01-01' + i * interval '1 second', 'order ' || i || ' of ' || md5(i::text)
    FROM generate_series(1, {rows}) i;
CREATE INDEX ON orders (placed);
"""

Work = Callable[[], None]


def measure(directory: Path) -> Iterator[Comparison]:
    # The defaults of PostgreSQL, not those of the tests.
    settings = {"shared_buffers": "128MB", "wal_level": "replica"}
    settings.update(fsync="on", full_page_writes="on", autovacuum="on")
    with Server(settings=settings) as server, contextlib.ExitStack() as ending:
        shops = [Shop(server, directory / f"{size}", size, ending) for size in (SMALL, LARGE)]
        yield from _compare(*shops)


def _compare(small: Shop, large: Shop) -> Iterator[Comparison]:
    found: Dict[Tuple[str, Shop], List[Timed]] = {}
    for _round in range(rounds(ROUNDS)):
        for shop in (small, large):
            for name, work in (("ours", shop.restore), ("naive", shop.naive)):
                found.setdefault((name, shop), []).append(shop.timed(work))
    for shop, target in ((large, TARGET), (small, None)):
        ours, naive = found["ours", shop], found["naive", shop]
        what = f"{shop.megabytes} MB restored: no good answer"
        yield Comparison(what, [each.outage for each in ours], NAIVE, [each.outage for each in naive], target)
        what = f"{shop.megabytes} MB restored: the whole call"
        yield Comparison(what, [each.whole for each in ours], NAIVE, [each.whole for each in naive], None)
    sizes = [[each.outage for each in found["ours", shop]] for shop in (large, small)]
    what, other = (f"{shop.megabytes} MB restored: no good answer" for shop in (large, small))
    yield Comparison(what, sizes[0], other, sizes[1], TARGET_SIZES)


class Timed:
    """A restore: the seconds without a good answer, and in all."""

    def __init__(self, outage: float, whole: float) -> None:
        self.outage = Cost(outage, 0.0)
        self.whole = Cost(whole, 0.0)


class Shop:
    """The application with a database of about this many MB, our backup of it and a dump of pg_dump."""

    def __init__(self, server: Server, directory: Path, size: int, ending: contextlib.ExitStack) -> None:
        self._server = server
        self._directory = directory
        self._database = f"shop_{size}"
        self._rows = (size - EMPTY) * 1_000_000 // ROW_BYTES
        self._port = free_port()
        self._dump = directory / "dump.sql"
        self._home = Pm2Home(VERSIONS[-1], directory / "pm2")
        ending.callback(self._home.kill)
        self._fill()
        self._start()
        self.megabytes = int(server.psql("postgres", f"SELECT pg_database_size('{self._database}')")) // 1_000_000

    def _fill(self) -> None:
        self._server.psql("postgres", f"CREATE DATABASE {self._database}")
        schema = (places.ROOT / "examples" / "shop" / "catalogue.sql").read_text()
        self._server.psql(self._database, schema + _ORDERS.format(rows=self._rows), timeout=TIMEOUT)
        self._server.psql(self._database, "VACUUM ANALYZE", timeout=TIMEOUT)
        self._server.run("pg_dump", f"--file={self._dump}", self._database)
        self._call("pg_backup", **self._store())

    def _start(self) -> None:
        app = self._directory / "app"
        shutil.copytree(places.ROOT / "examples" / "shop", app)
        subprocess.run(["npm", "ci", "--omit=dev", "--silent", "--no-audit", "--no-fund"], cwd=app, check=True)
        env = {
            "PORT": str(self._port),
            "SHOP_DATABASE": self._database,
            "PGHOST": self._server.socket_directory,
            "PGPORT": str(self._server.port),
            "PGUSER": ADMIN,
        }
        api = {"name": "shop-api", "script": "server.js", "exec_mode": "cluster", "instances": 2}
        apps: List[Dict[str, Any]] = [api, {"name": "shop-worker", "script": "worker.js"}]
        self._call("pm2_process", apps=[{**each, "cwd": str(app), "env": env} for each in apps], **self._pm2())

    def _pm2(self) -> Dict[str, Any]:
        return {
            "namespace": NAMESPACE,
            "pm2_home": self._home.home,
            "pm2_executable": self._home.executable,
            "ready": {"min_uptime": 0.5, "http": [{"url": f"http://127.0.0.1:{self._port}/health"}]},
        }

    def _store(self) -> Dict[str, Any]:
        login = self._server.login()
        return {"dest": str(self._directory / "backups"), "databases": [self._database], **login}

    def _call(self, module: str, **options: Any) -> Dict[str, Any]:
        result = call_process(module, options, timeout=TIMEOUT)
        assert not result["failed"], result["msg"]
        return result

    def restore(self) -> None:
        """The restore of this collection."""
        confirm = {"backup": "latest", "confirm": [self._database]}
        self._call("pg_restore", **self._store(), **self._pm2(), **confirm)

    def naive(self) -> None:
        """The usual sequence, as done by hand and by known scripts."""
        self._home.cli("stop", "all")
        self._server.psql("postgres", f"DROP DATABASE {self._database}")
        self._server.psql("postgres", f"CREATE DATABASE {self._database}")
        command = [self._server.binaries.program("psql"), "-Xq", "--output", os.devnull, "--file", str(self._dump)]
        environment = self._server.environment(self._database)
        subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        self._home.cli("restart", "all")

    def timed(self, work: Work) -> Timed:
        """Run a restore while a client watches. The data has to be the same afterwards."""
        marker = f"written after the backup {time.time()}"
        self._server.psql(self._database, f"UPDATE orders SET note = '{marker}' WHERE id = 1")
        with Load(self._port, "/products", CLIENTS, POLL * CLIENTS, REQUEST_TIMEOUT, TIMEOUT) as load:
            time.sleep(0.3)
            start = time.perf_counter()
            work()
            seen, deadline = load.ok, time.monotonic() + 60
            while load.ok < seen + CLIENTS:
                assert time.monotonic() < deadline, f"the shop does not answer any more: {load.errors}"
                time.sleep(POLL)
            whole = time.perf_counter() - start
        rows, note = self._server.psql(
            self._database, "SELECT count(*), min(note) FILTER (WHERE id = 1) FROM orders"
        ).split("|")
        assert (int(rows), note == marker) == (self._rows, False), f"{rows} rows, {note!r}"
        return Timed(load.gap, whole)
