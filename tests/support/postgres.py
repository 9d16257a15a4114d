"""PostgreSQL servers of the tests' own: Debian's programs (or PyPI's), own data, own socket, own port, own authority.

No service of the machine is touched. As root the server runs as another user, which PostgreSQL asks for; its data is in
a directory of its own below /var/tmp, where that user can go. The server ends with the thread that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from support import places
from support.apps import free_port

ADMIN = "postgres"
"""The superuser of every server: trusted on the socket, with `Server.password` over TCP."""

CHOSEN = "NODEOPS_POSTGRES"
_UNPRIVILEGED = ("postgres", "nobody")
_DEBIAN = Path("/usr/lib/postgresql")
_NEEDED = ("initdb", "postgres", "psql", "pg_dump", "pg_restore")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_numbers = itertools.count(1)

_SETTINGS = {
    "listen_addresses": "127.0.0.1,127.0.0.2",  # the second is not in the certificate
    "max_connections": 60,
    "shared_buffers": "32MB",
    "wal_level": "logical",
    "max_prepared_transactions": 10,
    "fsync": "off",  # what is killed here are processes, not machines
    "full_page_writes": "off",
    "autovacuum": "off",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "unix_socket_permissions": "0777",
}

_ACCESS = """\
local all all trust
local replication all trust
{kind} all all 127.0.0.0/8 scram-sha-256
"""


class Binaries(NamedTuple):
    """The directory of one version's programs, and its major version."""

    directory: Path
    major: int

    def program(self, name: str) -> str:
        """The path of `psql` and so on."""
        return str(self.directory / name)

    @property
    def has_tls(self) -> bool:
        """Whether it was built with it. PyPI's is not."""
        told = subprocess.run([self.program("pg_config"), "--configure"], capture_output=True, text=True, check=True)
        return "--with-openssl" in told.stdout or "--with-ssl" in told.stdout


def all_binaries() -> List[Binaries]:
    """Each version there is on this machine, the newest first; Debian's before PyPI's.

    $NODEOPS_POSTGRES, the directory of one version's programs, is the only one if it is given.
    """
    if os.environ.get(CHOSEN):
        return _installed(iter([Path(os.environ[CHOSEN])]))
    found = _installed(_DEBIAN.glob("*/bin"))
    return found or _installed((places.CACHE / "postgres").glob("**/bin"))


def binaries() -> Binaries:
    """The newest version; Debian's package is installed first where it is missing and this is root."""
    found = all_binaries()
    if not found:
        with contextlib.suppress(ImportError):
            from support import debian

            debian.program("psql", "postgresql")
        found = all_binaries()
    if not found:
        raise RuntimeError("there is no PostgreSQL: run scripts/setup, or install Debian's postgresql")
    return found[0]


def _installed(directories: Iterator[Path]) -> List[Binaries]:
    found = []
    for directory in directories:
        if all((directory / name).exists() for name in _NEEDED):
            told = subprocess.run(
                [str(directory / "postgres"), "--version"], capture_output=True, text=True, check=False
            )
            version = re.search(r"(\d+)\.\d+", told.stdout)
            if version:
                found.append(Binaries(directory, int(version.group(1))))
    return sorted(found, key=lambda each: -each.major)


def unprivileged() -> Optional[pwd.struct_passwd]:
    """Who the server runs as: None for whoever runs the tests, if that is not root."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("there is no user that PostgreSQL can run as")


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Server:
    """`with Server() as server: …`; listens on `server.socket_directory` and `server.port`, TLS with `server.ca`.

    `data`: where its data is to be instead of in `directory`, e.g. on a small disk. The directory has to exist, to be
    empty and to be the server's user's (see `unprivileged`). `settings` come on top of those of the tests.
    """

    def __init__(
        self,
        directory: Optional[Path] = None,
        found: Optional[Binaries] = None,
        settings: Optional[Mapping[str, Any]] = None,
        data: Optional[Path] = None,
        initdb: Sequence[str] = (),
    ) -> None:
        self.binaries = found or binaries()
        self._own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="pg-", dir="/var/tmp"))
        self.data = data or self.directory / "data"
        self.socket_directory = str(self.directory / "s")
        self.ca = str(self.directory / "ca.crt")
        self.log = self.directory / "log"
        self.port = free_port()
        self.password = "a:b\\c'd\"e " + secrets.token_hex(8)
        self.has_tls = self.binaries.has_tls
        self._user = unprivileged()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._initdb = list(initdb)
        self._primary: Optional[Server] = None
        self._process: Optional[subprocess.Popen[bytes]] = None

    def replica(self) -> Server:
        """A hot standby of this server, to be entered like any other."""
        made = Server(found=self.binaries)
        made._primary = self
        return made

    # -- its life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Server:
        try:
            self.make()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def make(self) -> None:
        """The cluster, the certificates, the configuration."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        for made in (Path(self.socket_directory), self.data):
            made.mkdir(exist_ok=True)
            self.give(made)
        self.data.chmod(0o700)
        if self._primary:
            self._copy(self._primary)
            return
        options = ["--no-sync", "--no-instructions", "--auth=trust", f"--username={ADMIN}"]
        if not self._initdb:
            options += [
                "--encoding=UTF8",
                "--locale=C.UTF-8" if self.binaries.directory.is_relative_to(_DEBIAN) else "--no-locale",
            ]
        self._run_as_server("initdb", *options, *self._initdb, f"--pgdata={self.data}")
        if self.has_tls:
            self._certificates()
        self._configure({**self._settings, **self._places()})
        (self.data / "pg_hba.conf").write_text(_ACCESS.format(kind="hostssl" if self.has_tls else "host"))

    def _copy(self, primary: Server) -> None:
        command = [
            self.binaries.program("pg_basebackup"),
            f"--pgdata={self.data}",
            "-R",
            "--checkpoint=fast",
            "--no-sync",
        ]
        subprocess.run(command, env=primary.environment(), check=True, cwd="/", **self._identity())
        self.password = primary.password
        self._configure({"port": self.port, "unix_socket_directories": self.socket_directory})

    def _configure(self, settings: Mapping[str, Any]) -> None:
        with (self.data / "postgresql.conf").open("a") as stream:
            stream.write("".join(f"{name} = '{value}'\n" for name, value in settings.items()))

    def _places(self) -> Dict[str, Any]:
        found = {"port": self.port, "unix_socket_directories": self.socket_directory}
        if not self.has_tls:
            return found
        tls = {
            "ssl": "on",
            "ssl_cert_file": self.directory / "server.crt",
            "ssl_key_file": self.directory / "server.key",
        }
        return {**found, **tls}

    def start(self, timeout: float = 30.0) -> None:
        """Start the server and wait until it answers."""
        deadline = time.monotonic() + timeout
        for _attempt in range(10):
            self._spawn()
            while self._running():
                if self._answers():
                    self._set_password()
                    return
                assert time.monotonic() < deadline, f"PostgreSQL does not start:\n{self.log_text()}"
                time.sleep(0.02)
            time.sleep(0.1)  # backends of a killed postmaster may need a moment to notice
        raise AssertionError(f"PostgreSQL does not start:\n{self.log_text()}")

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries.program("postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                preexec_fn=_end_with_parent,
                start_new_session=True,
                **self._identity(),
            )

    def stop(self, how: signal.Signals = signal.SIGINT, timeout: float = 30.0) -> None:
        """End the server: SIGINT (fast), SIGQUIT (immediate) or SIGTERM (smart)."""
        if self._process and self._running():
            self._process.send_signal(how)
            self._process.wait(timeout)
        self._process = None

    def kill(self) -> None:
        """`kill -9` of the postmaster; returns when its backends have followed."""
        assert self._process
        session = self._process.pid
        self._process.kill()
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + 20
        while _processes_below(self.data):
            assert time.monotonic() < deadline, f"backends of {session} outlive their postmaster"
            time.sleep(0.02)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and remove its files."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop(signal.SIGQUIT, 10)
        for pid in _processes_below(self.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process
        return self._process.pid

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        return self._psql("postgres", "SELECT 1", ADMIN, 10).returncode == 0

    def _set_password(self) -> None:
        if not self._primary and self._settings.get("default_transaction_read_only") != "on":
            self.psql("postgres", f"ALTER ROLE {ADMIN} PASSWORD {literal(self.password)}")

    def log_text(self) -> str:
        """What the server said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def give(self, path: Path) -> None:
        """Make the server's user the owner of a path."""
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _identity(self) -> Dict[str, Any]:
        if not self._user:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run_as_server(self, name: str, *arguments: str) -> None:
        command = [self.binaries.program(name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **self._identity())
        assert done.returncode == 0, done.stdout + done.stderr

    def _certificates(self) -> None:
        """An authority and a certificate of localhost and 127.0.0.1, not of 127.0.0.2."""
        place = self.directory
        extension = place / "extension"
        extension.write_text("subjectAltName = DNS:localhost, IP:127.0.0.1\n")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl(
            "req", "-x509", *new_key, "-keyout", place / "ca.key", "-out", self.ca, "-subj", "/CN=tests", "-days", 9
        )
        request, key = place / "server.csr", place / "server.key"
        _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
        signing = ["-CA", self.ca, "-CAkey", place / "ca.key", "-CAcreateserial", "-extfile", extension, "-days", 9]
        _openssl("x509", "-req", "-in", request, "-out", place / "server.crt", *signing)
        key.chmod(0o600)
        self.give(key)

    # -- what is asked of it -------------------------------------------------------------------------------------------

    def environment(self, database: str = "postgres", user: str = ADMIN) -> Dict[str, str]:
        """For PostgreSQL's programs: to the socket, where everybody is trusted."""
        return {
            "PATH": f"{self.binaries.directory}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "LANG": "C",
            "PGHOST": self.socket_directory,
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGDATABASE": database,
            "PGCLIENTENCODING": "UTF8",
        }

    def psql(self, database: str, sql: str, user: str = ADMIN, timeout: float = 60.0) -> str:
        """Run SQL; its unaligned output, without the last newline. Not by the collection's code."""
        done = self._psql(database, sql, user, timeout)
        assert done.returncode == 0, f"{sql}\n{done.stderr}"
        return done.stdout.rstrip("\n")

    def fails(self, database: str, sql: str, user: str = ADMIN) -> str:
        """The error of SQL that has to fail."""
        done = self._psql(database, sql, user, 60.0)
        assert done.returncode != 0, f"{sql}\n{done.stdout}"
        return done.stderr

    def _psql(self, database: str, sql: str, user: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.binaries.program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=sql,
            env=self.environment(database, user),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def run(self, name: str, *arguments: str, database: str = "postgres", user: str = ADMIN) -> str:
        """What one of PostgreSQL's programs prints, `pg_dump` for one."""
        done = subprocess.run(
            [self.binaries.program(name), *arguments],
            env=self.environment(database, user),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create_database(
        self, name: Optional[str] = None, owner: Optional[str] = None, rows: int = 100, options: str = ""
    ) -> str:
        """A database with a table `items (id, name, number)` of so many rows, None of it `rows` below 0; its name."""
        name = name or f"db{os.getpid()}_{next(_numbers)}"
        given = f" OWNER {identifier(owner)}" if owner else ""
        self.psql("postgres", f"CREATE DATABASE {identifier(name)}{given} {options}")
        if rows >= 0:
            become = f"SET ROLE {identifier(owner)};" if owner else ""
            if owner:
                self.psql(name, f"GRANT CREATE ON SCHEMA public TO {identifier(owner)}")
            self.psql(
                name,
                f"{become} CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL, number int NOT NULL);"
                f"INSERT INTO items (name, number) SELECT 'item ' || i, i FROM generate_series(1, {rows}) i;",
            )
        return name

    def drop_database(self, name: str) -> None:
        """With all that is connected to it."""
        self.psql("postgres", f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")

    def databases(self) -> List[str]:
        """All but the templates and `postgres`."""
        found = self.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
        return [name for name in found.splitlines() if name != "postgres"]

    def login(self, **more: Any) -> Dict[str, Any]:
        """Options of the modules: over the socket."""
        return {
            "login_unix_socket": self.socket_directory,
            "login_port": self.port,
            "login_user": ADMIN,
            "pg_bindir": str(self.binaries.directory),
            "accept_vulnerable_client": True,
            **more,
        }

    def login_tcp(self, **more: Any) -> Dict[str, Any]:
        """Options of the modules: over TCP with a password, and TLS as far as the server was built with it."""
        options = self.login()
        del options["login_unix_socket"]
        tcp = {"login_host": "127.0.0.1", "login_password": self.password}
        tls = {"ssl_mode": "verify-full", "ca_cert": self.ca} if self.has_tls else {}
        return {**options, **tcp, **tls, **more}


def identifier(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _openssl(*arguments: Any) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _processes_below(data: Path) -> List[int]:
    """What runs with the data directory as its working directory: a postmaster and its backends."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd") == str(data):
                    found.append(int(entry))
    return found
