"""SQL by a psql that stays, over a socket and over TLS: any value, any error, a lost connection, a sudden end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any, Dict, Iterator

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _contents, _programs, _psql
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError, connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session, literal
from support import processes
from support.modules import call
from support.postgres import ADMIN, Server, identifier

NO_TLS = "this PostgreSQL was built without TLS"
ODD = [
    "",
    " ",
    "a\nb",
    "\n",
    "a\tb\\c",
    'it\'s "quoted"',
    "\\N",
    "\\.",
    ":variable :'x'",
    "$1 $$",
    "grün 店 \U0001f600",
    "\x1f\x1e\x01",
    "x" * 200000,
]


@pytest.fixture(name="database", scope="module")
def _database(postgres: Server) -> Iterator[str]:
    name = postgres.create_database("session 's \"däta\\base x=y")
    yield name
    postgres.drop_database(name)


@pytest.fixture(name="login", params=["socket", "tls"])
def _login(request: pytest.FixtureRequest, postgres: Server) -> Dict[str, Any]:
    if request.param == "tls" and not postgres.has_tls:
        pytest.skip(NO_TLS)
    return postgres.login() if request.param == "socket" else postgres.login_tcp()


@pytest.fixture(name="session")
def _session(postgres: Server, database: str, login: Dict[str, Any]) -> Iterator[Session]:
    with connection(login) as reached, Session(_programs.find(login["pg_bindir"]), reached, database) as session:
        yield session


def test_values(session: Session, database: str):
    assert session.value("SELECT current_database()") == database
    assert session.query("SELECT " + ", ".join(map(literal, ODD))) == [ODD]
    assert session.query("SELECT NULL, ''") == [[None, ""]]
    assert session.query("SELECT x FROM (VALUES ('a'), (NULL), ('')) v (x)") == [["a"], [None], [""]]
    assert session.query("SELECT 1 WHERE false") == []
    assert session.query("SELECT ''") == [[""]]
    assert session.value("SELECT 1 WHERE false") is None
    assert session.value("SELECT 2 -- with a comment") == "2"
    assert len(session.query("SELECT i, repeat('y', 100) FROM generate_series(1, 20000) i")) == 20000


def test_errors_have_a_code_and_leave_the_session_usable(session: Session):
    for sql, state, words in (
        ("SELECT 1/0", "22012", "division by zero"),
        ("SELEC", "42601", "syntax error"),
        ("SELECT * FROM nowhere", "42P01", '"nowhere" does not exist'),
        ("RENAME", "42601", "syntax error"),
        ("ALTER DATABASE nowhere RENAME TO other", "3D000", "does not exist"),
        ("SELECT 'a'::int", "22P02", "invalid input syntax"),
    ):
        with pytest.raises(PgError, match=words) as caught:
            session.query(sql)
        assert caught.value.sqlstate == state
        assert "LINE 1" not in str(caught.value)
        assert session.value("SELECT 1") == "1"


def test_a_transaction_that_failed(session: Session):
    session.execute("BEGIN")
    session.execute("CREATE TABLE public.half (a int)")
    with pytest.raises(PgError, match="division"):
        session.execute("SELECT 1/0")
    with pytest.raises(PgError, match="aborted") as caught:
        session.execute("SELECT 1")
    assert caught.value.sqlstate == "25P02"
    session.execute("ROLLBACK")
    assert session.value("SELECT to_regclass('public.half')") is None


def test_limits_and_formats_that_others_have_set_do_not_matter(postgres: Server, database: str):
    settings = [
        "statement_timeout = 1",
        "default_transaction_read_only = on",
        "search_path = evil",
        "datestyle = German",
    ]
    role = "slow"
    postgres.psql("postgres", f"CREATE ROLE {role} LOGIN")
    try:
        for setting in settings:
            postgres.psql("postgres", f"ALTER ROLE {role} IN DATABASE {identifier(database)} SET {setting}")
        login = postgres.login(login_user=role)
        with connection(login) as reached, Session(_programs.find(login["pg_bindir"]), reached, database) as session:
            assert session.value("SELECT pg_sleep(0.02)") == ""
            assert session.value("SELECT current_date::timestamp::text LIKE '20__-__-__ 00:00:00'") == "t"
            assert session.value("SHOW transaction_read_only") == "off"
    finally:
        postgres.psql(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_lost_connection(postgres: Server, session: Session):
    for sql in ("SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1", "SELECT 1"):
        with pytest.raises(PgError, match="was lost") as caught:
            session.query(sql)
        assert caught.value.sqlstate == "08006"
        assert "Nothing" not in str(caught.value)


def test_a_killed_psql(session: Session):
    os.kill(session._process.pid, signal.SIGKILL)
    with pytest.raises(PgError) as caught:
        session.query("SELECT 1")
    assert caught.value.sqlstate == "08006"


def test_a_service_that_is_not_there(postgres: Server, tmp_path: Any):
    (tmp_path / "services").write_text("")
    login = {**postgres.login(), "service": "shop", "service_file": str(tmp_path / "services")}
    with connection(login) as reached, pytest.raises(PgError, match='definition of service "shop" not found'):
        _psql.tools_for(login, reached)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"login_user": "nobody_here"}, 'role "nobody_here" does not exist'),
        ({"maintenance_db": "nowhere"}, 'database "nowhere" does not exist'),
        ({"login_port": 1}, "Is the server running"),
    ],
)
def test_no_connection(postgres: Server, options: Dict[str, Any], words: str):
    login = postgres.login(**options)
    with connection(login) as reached, pytest.raises(PgError, match=words) as caught:
        _psql.tools_for(login, reached)
    assert caught.value.sqlstate == "08006"
    assert str(caught.value).endswith("Nothing was changed.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"login_password": "s3cret:\\wrong"}, "password authentication failed"),
        ({"login_password": None}, "no password supplied"),
        ({"login_host": "127.0.0.2"}, "does not match host name"),
        ({"ca_cert": "/etc/ssl/certs/ca-certificates.crt"}, "certificate verify failed"),
    ],
)
def test_no_connection_over_tls(postgres: Server, options: Dict[str, Any], words: str):
    if not postgres.has_tls:
        pytest.skip(NO_TLS)
    if not os.path.exists(options.get("ca_cert", "/")):
        options = {"ca_cert": other_authority(postgres)}
    login = postgres.login_tcp(**options)
    with connection(login) as reached, pytest.raises(PgError, match=words) as caught:
        _psql.tools_for(login, reached)
    assert "s3cret" not in str(caught.value)
    assert postgres.password not in str(caught.value)


def other_authority(postgres: Server) -> str:
    """A certificate that has signed nothing: the server's own."""
    return str(postgres.directory / "server.crt")


def test_a_service_that_asks_for_tls_gets_it_or_nothing(postgres: Server, tmp_path: Any):
    """Whoever says that he has no TLS is told neither user nor password."""
    if not postgres.has_tls:
        pytest.skip(NO_TLS)
    heard = []

    def no_tls(listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:  # it is closed
                return
            with client:
                client.settimeout(10)
                heard.append(client.recv(8))
                client.send(b"N")
                heard.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=no_tls, args=[listener])
        thread.start()
        service = tmp_path / "services"
        service.write_text(
            f"[shop]\nhost=127.0.0.1\nport={listener.getsockname()[1]}\nuser={ADMIN}\npassword=s3cret\n"
            f"sslmode=verify-full\nsslrootcert={postgres.ca}\n"
        )
        options = {"service": "shop", "service_file": str(service), "pg_bindir": str(postgres.binaries.directory)}
        result = call("pg_restore", {**options, "dest": str(tmp_path / "store"), "state": "status"})
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert result["failed"]
    assert "server does not support SSL, but SSL was required" in result["msg"]
    assert heard
    assert heard[0][4:] == (80877103).to_bytes(4, "big")  # SSLRequest
    assert set(heard[1::2]) == {b""}


def test_service_file_and_passfile(postgres: Server, tmp_path: Any):
    passfile = tmp_path / "pass"
    password = postgres.password.replace("\\", "\\\\").replace(":", "\\:")
    passfile.write_text(f"127.0.0.1:{postgres.port}:*:{ADMIN}:{password}\n")
    passfile.chmod(0o600)
    services = tmp_path / "services"
    mode = "require" if postgres.has_tls else "disable"
    services.write_text(f"[shop]\nhost=127.0.0.1\nport={postgres.port}\nuser=nobody\ndbname=nowhere\nsslmode={mode}\n")
    login = {"service": "shop", "service_file": str(services), "passfile": str(passfile), "login_user": ADMIN}
    with connection(login) as reached:
        tools, _version = _psql.tools_for({"pg_bindir": postgres.login()["pg_bindir"]}, reached)
        with Session(tools, reached) as session:  # what is given wins over the service
            found = session.query(
                "SELECT current_user, current_database(), s.ssl FROM pg_stat_ssl s WHERE pid = pg_backend_pid()"
            )
            assert found == [[ADMIN, "postgres", "t" if postgres.has_tls else "f"]]


def test_an_end_in_the_middle_cancels_the_statement(postgres: Server, database: str):
    """As when a signal ends the run: nothing goes on in the server."""

    class Ended(Exception):
        pass

    def ended(*_arguments: object) -> None:
        raise Ended

    login = postgres.login()
    pids = []

    def ask() -> None:
        with connection(login) as reached:
            with Session(_programs.find(login["pg_bindir"]), reached, database) as session:
                pids.append(session._process.pid)
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                session.query("SELECT pg_sleep(60)")

    former = signal.signal(signal.SIGALRM, ended)
    start = time.monotonic()
    try:
        with pytest.raises(Ended):
            ask()
    finally:
        signal.signal(signal.SIGALRM, former)
    assert time.monotonic() - start < 30
    assert not processes.alive(pids[0])
    wait_until_idle(postgres, database)


def test_psql_ends_with_us(postgres: Server, database: str):
    """Killed -9 in the middle of a statement: the server notices that nobody waits any more."""
    login = postgres.login()
    child = os.fork()
    if child == 0:
        with connection(login) as reached, Session(_programs.find(login["pg_bindir"]), reached, database) as session:
            session.query("SELECT pg_sleep(60)")
        os._exit(0)
    deadline = time.monotonic() + 60
    while "pg_sleep" not in postgres.psql(
        "postgres", "SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    ):
        assert time.monotonic() < deadline
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until_idle(postgres, database)


def wait_until_idle(postgres: Server, database: str) -> None:
    """Until nobody is connected to the database."""
    deadline = time.monotonic() + 60
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = {literal(database)}"
    while postgres.psql("postgres", count) != "0":
        assert time.monotonic() < deadline, postgres.psql("postgres", "SELECT * FROM pg_stat_activity")
        time.sleep(0.05)


def test_several_threads_have_sessions_of_their_own(postgres: Server, database: str):
    login = postgres.login()
    found = []

    def ask(number: int) -> None:
        with connection(login) as reached, Session(_programs.find(login["pg_bindir"]), reached, database) as session:
            found.append((number, session.value(f"SELECT {number}")))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(number, str(number)) for number in range(4)]


def test_facts_do_not_depend_on_the_settings_of_a_database(postgres: Server):
    name = postgres.create_database(rows=-1)
    try:
        postgres.psql(
            name,
            "CREATE TABLE t (a timestamptz, b interval, c float8, d bytea, e money, f date);"
            "INSERT INTO t VALUES ('2026-11-24 11:00+00', '1 day 2:03', 1/3.0, '\\xdead', 12.34, '2026-02-01')",
        )
        before = facts_of(postgres, name)
        for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'SQL, DMY'", "intervalstyle = iso_8601"):
            postgres.psql(name, f"ALTER DATABASE {identifier(name)} SET {setting}")
        for setting in ("extra_float_digits = 0", "bytea_output = escape", "search_path = public"):
            postgres.psql(name, f"ALTER DATABASE {identifier(name)} SET {setting}")
        after = facts_of(postgres, name)
        assert after["tables"] == before["tables"]
        assert len(after["settings"]) == 6
        postgres.psql(name, "UPDATE t SET c = c + 1e-15")
        assert facts_of(postgres, name)["tables"] != before["tables"]
    finally:
        postgres.drop_database(name)


def facts_of(postgres: Server, name: str) -> Dict[str, Any]:
    login = postgres.login()
    with connection(login) as reached, Session(_programs.find(login["pg_bindir"]), reached, name) as session:
        return _contents.facts(session)
