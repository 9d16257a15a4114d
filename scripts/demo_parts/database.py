"""The demo's own PostgreSQL server, which listens only on a socket, and `psql` to look into it."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from support import places, postgres, processes
from support.pm2 import SOCKET_PATH_LIMIT
from world import DEMO, ENVIRONMENTS, ROOT, relative

ROLE = "shopkeeper"  # owns the databases; the applications log in as this user
ADMIN = "admin"  # backs up and restores
PLACE = DEMO / "postgres"  # the server's data, log and socket; for root a link to a directory of the server's user
PASSFILES = {name: DEMO / f"{name}.pgpass" for name in (ROLE, ADMIN)}
SOCKET = PLACE / ".s.PGSQL.5432"
SCHEMA = ROOT / "examples" / "shop" / "catalogue.sql"
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{place}'
max_wal_size = '256MB'
"""


def name_of(environment: str) -> str:
    """The database of an environment."""
    return f"shop_{environment}"


def start() -> Path:
    """Make the server and a database for each environment. Returns the directory of PostgreSQL's programs."""
    if len(os.fsencode(SOCKET)) > SOCKET_PATH_LIMIT:
        raise SystemExit(f"{SOCKET} is too long a path for a socket: use a checkout with a shorter path.")
    if postgres.unprivileged():
        PLACE.symlink_to(tempfile.mkdtemp(prefix="nodeops-demo-", dir="/var/tmp"))
    else:
        PLACE.mkdir()
    PLACE.chmod(0o755)
    _give(PLACE)
    place, passwords = PLACE.resolve(), {name: secrets.token_hex(16) for name in PASSFILES}
    for name, passfile in PASSFILES.items():
        _private(passfile, f"*:*:*:{name}:{passwords[name]}\n")
    pwfile = place / "password"
    _private(pwfile, passwords[ADMIN] + "\n")
    _give(pwfile)
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    _as_server("initdb", *options, f"--username={ADMIN}", f"--pwfile={pwfile}", f"--pgdata={place / 'data'}")
    pwfile.unlink()
    with (place / "data" / "postgresql.conf").open("a") as stream:
        stream.write(SETTINGS.format(place=place))
    _as_server("pg_ctl", "start", "--wait", "--silent", f"--pgdata={place / 'data'}", f"--log={place / 'log'}")
    ask("postgres", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{passwords[ROLE]}'")
    for database in map(name_of, ENVIRONMENTS):
        ask("postgres", f"CREATE DATABASE {database} OWNER {ROLE}")
        ask(database, f"SET ROLE {ROLE};\n{SCHEMA.read_text()}")
    return _programs()


def ask(database: str, sql: str) -> List[str]:
    """The lines that psql prints."""
    done = subprocess.run(
        [str(_programs() / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"],
        input=sql,
        env={
            "PATH": os.environ["PATH"],
            "PGHOST": str(PLACE.resolve()),
            "PGUSER": ADMIN,
            "PGPASSFILE": str(PASSFILES[ADMIN]),
            "PGDATABASE": database,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"psql failed in {database}: {done.stderr}")
    return done.stdout.splitlines()


def names() -> List[str]:
    """All databases except the server's own."""
    return ask("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1")


def identity(environment: str) -> str:
    """The oid of the live database, which a rename does not change."""
    (oid,) = ask("postgres", f"SELECT oid FROM pg_database WHERE datname = '{name_of(environment)}'")
    return oid


def previous(environment: str) -> List[str]:
    """The oids of the databases that were live before. None accepts connections."""
    like = name_of(environment).replace("_", r"\_") + r"\_\_prev\_%"
    return ask("postgres", f"SELECT oid FROM pg_database WHERE datname LIKE '{like}' AND NOT datallowconn")


def rows_of(backups: List[Dict[str, Any]], environment: str) -> int:
    """The number of products in the newest backup of the database, as its manifest says."""
    content = [backup["content"] for backup in backups if backup["kind"] == "postgresql"][-1]
    return int(content["databases"][name_of(environment)]["tables"]['"public"."products"']["rows"])


def psql_command(environment: str) -> str:
    """The command for a look into a database."""
    login = f"PGPASSFILE={relative(PASSFILES[ADMIN])} PGHOST={PLACE} PGUSER={ADMIN}"
    return f"{login} {_programs() / 'psql'} {name_of(environment)} -c 'TABLE products'"


def our_processes() -> List[int]:
    """The server and its backends, which have its data directory as working directory."""
    if not PLACE.exists():
        return []
    data, found = str(PLACE.resolve() / "data"), []
    for pid in processes.all_pids():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd") == data and processes.alive(pid):
                found.append(pid)
    return found


def stop(patience: float = 15.0) -> int:
    """End the server and remove its files outside the demo's directory. Returns the number of processes ended."""
    ours = our_processes()
    deadline = time.monotonic() + patience
    while left := our_processes():
        late = time.monotonic() > deadline - patience / 2
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                if late:
                    os.kill(pid, signal.SIGKILL)
                elif processes.parent(pid) not in left:
                    os.kill(pid, signal.SIGINT)  # PostgreSQL's fast shutdown
        if time.monotonic() > deadline:
            raise SystemExit(f"PostgreSQL is still running: {left}")
        time.sleep(0.1)
    if PLACE.is_symlink():
        shutil.rmtree(PLACE.resolve(), ignore_errors=True)
        PLACE.unlink()
    return len(ours)


@functools.lru_cache(maxsize=None)
def _programs() -> Path:
    """The directory of PostgreSQL's programs, or a copy if the server's user may not be able to reach it."""
    found = postgres.all_binaries()
    if not found:
        raise SystemExit("There is no PostgreSQL on this machine, and the demo needs it: apt-get install postgresql")
    directory, wheel = found[0].directory.resolve(), places.CACHE / "postgres" / "wheel"
    if not (postgres.unprivileged() and directory.is_relative_to(wheel)):
        return directory
    copy = PLACE.resolve() / "programs"
    shutil.copytree(wheel, copy, symlinks=True)
    return copy / directory.relative_to(wheel)


def _as_server(program: str, *arguments: str) -> None:
    """Run a program as the server's user."""
    user = postgres.unprivileged()
    identity: Dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    done = subprocess.run(
        [str(_programs() / program), *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], "LANG": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **identity,
    )
    if done.returncode != 0:
        raise SystemExit(f"{program} of PostgreSQL failed:\n{done.stdout}{done.stderr}")


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _give(path: Path) -> None:
    """Make the server's user the owner."""
    if user := postgres.unprivileged():
        os.chown(path, user.pw_uid, user.pw_gid)
