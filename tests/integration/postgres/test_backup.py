"""pg_backup: what a backup holds, what is left when it fails or is killed, verification, retention, imported dumps.

Core: one or two of each list of damages, kills and rules. Full: all of them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import (
    _database_dump,
    _disk_space,
    _import,
    _programs,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from support import debian, processes
from support.killer import Runner
from support.modules import call, finish, spawn
from support.postgres import Server, identifier, literal
from support.tiers import full_but

STORE_POINTS = [
    "store draft made",
    "store file added",
    "store sequence taken",
    "store manifest written",
    "store verification noted",
]
BACKUP_POINTS = [
    *("backup snapshot taken", "backup dump started", "facts table read", "backup facts read", "backup dumped"),
    *("backup dump read", "backup before commit", "store backup committed", "backup committed", "backup verified"),
    *STORE_POINTS,
]
IMPORT_POINTS = ["import scratch made", "import loaded", "backup dumped", "backup committed"]
COMMITTED = {"store backup committed", "backup committed", "store verification noted", "backup verified"}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Calls in processes of their own."""
    with Runner() as made:
        yield made


@pytest.fixture(name="database")
def _database(postgres: Server) -> Iterator[str]:
    name = postgres.create_database(rows=500)
    yield name
    postgres.drop_database(name)


class Place:
    """A store, and the options of pg_backup for it."""

    def __init__(self, postgres: Server, database: str, directory: Path) -> None:
        self.postgres = postgres
        self.database = database
        self.directory = directory
        self.store = directory / "store"

    def options(self, **more: Any) -> Dict[str, Any]:
        own = {"dest": str(self.store), "databases": [self.database], "environment": "production"}
        return {**self.postgres.login(), **own, **more}

    def call(self, check: bool = False, **more: Any) -> Dict[str, Any]:
        """A call that must succeed."""
        result = call("pg_backup", self.options(**more), check)
        assert not result["failed"], result
        return result

    def fails(self, words: str, **more: Any) -> Dict[str, Any]:
        """A call that must fail with these words, and leave every backup as it is."""
        before = self.backups()
        result = call("pg_backup", self.options(**more))
        assert result["failed"], result
        assert words in result["msg"], result["msg"]
        assert not result["changed"]
        assert self.backups() == before
        assert self.left() == []
        return result

    def backups(self) -> List[str]:
        """The ids of what is complete."""
        if not self.store.exists():
            return []
        return sorted(path.name for path in self.store.iterdir() if not path.name.startswith("."))

    def left(self) -> List[str]:
        """What is neither complete nor the store's own."""
        found = self.store.iterdir() if self.store.exists() else []
        return [path.name for path in found if path.name.startswith(".") and path.name != ".nodeops"]

    def manifest(self, backup: str) -> Dict[str, Any]:
        return json.loads((self.store / backup / "manifest.json").read_text())

    def content(self, backup: str) -> Dict[str, Any]:
        """What is recorded of the database."""
        return self.manifest(backup)["content"]["databases"][self.database]

    def restored(self, backup: str) -> str:
        """A new database with what is in the dump, restored without the collection's code."""
        name = self.postgres.create_database(rows=-1)
        archive = self.store / backup / self.content(backup)["file"]
        self.postgres.run("pg_restore", "--exit-on-error", f"--dbname={name}", str(archive))
        return name


@pytest.fixture(name="place")
def _place(postgres: Server, database: str, tmp_path: Path) -> Place:
    return Place(postgres, database, tmp_path)


def sum_of(postgres: Server, database: str) -> str:
    """Rows and a checksum of the table."""
    return postgres.psql(database, "SELECT count(*), sum(number), md5(string_agg(name, ',' ORDER BY id)) FROM items")


# -- a backup ----------------------------------------------------------------------------------------------------------


def test_what_it_holds(place: Place, postgres: Server, database: str):
    postgres.psql(database, "CREATE VIEW few AS SELECT * FROM items WHERE id < 10")
    result = place.call(namespace="shop")
    backup = result["backup"]
    assert result["changed"]
    assert (backup["environment"], backup["namespace"], backup["databases"]) == ("production", "shop", [database])
    assert (backup["verified"], backup["encrypted"]) == (True, False)
    assert place.backups() == [backup["id"]]
    assert Path(backup["path"]) == place.store / backup["id"]
    assert backup["size"] == (place.store / backup["id"] / "1.dump").stat().st_size
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in Path(backup["path"]).iterdir()}
    assert modes == dict.fromkeys(["1.dump", "manifest.json", "verified.json"], "0o600")
    content = place.content(backup["id"])
    own = "SELECT sum(hashtextextended(items::text, 0)) FROM items"
    assert content["tables"] == {'"public"."items"': {"rows": 500, "checksum": postgres.psql(database, own)}}
    assert content["sequences"]["public.items_id_seq"]["last"] == 500
    assert (content["objects"]["views"], content["objects"]["indexes"]) == (1, 1)
    assert (content["encoding"], content["owner"]) == ("UTF8", "postgres")
    assert content["size"] == int(postgres.psql(database, "SELECT pg_database_size(current_database())"))
    assert set(place.manifest(backup["id"])["tools"]) == {"pg_dump", "postgresql"}
    restored = place.restored(backup["id"])
    assert sum_of(postgres, restored) == sum_of(postgres, database)
    postgres.drop_database(restored)


def test_several_databases_in_one_backup(place: Place, postgres: Server, database: str):
    odd = postgres.create_database("o'd \"näme\\ x=y", rows=7)
    table = 'a "b"\\c.d'
    postgres.psql(
        odd, f"CREATE SCHEMA {identifier(table)}; CREATE TABLE {identifier(table)}.{identifier(table)} AS SELECT 1"
    )
    backup = place.call(databases=[odd, database])["backup"]
    databases = place.manifest(backup["id"])["content"]["databases"]
    assert backup["databases"] == sorted([odd, database])
    assert databases[odd]["tables"]['"public"."items"']["rows"] == 7
    assert databases[odd]["tables"][f"{identifier(table)}.{identifier(table)}"]["rows"] == 1
    assert sorted(each["file"] for each in databases.values()) == ["1.dump", "2.dump"]
    assert place.call(databases=[database, odd], state="verified")["backup"]["id"] == backup["id"]
    postgres.drop_database(odd)


def test_dump_and_checksums_are_of_one_moment(place: Place, postgres: Server, database: str, runner: Runner):
    """Rows are written, changed and removed all the time, and a table is emptied in the middle of the dump."""
    postgres.psql(database, "CREATE TABLE mirror AS SELECT id FROM items; CREATE TABLE emptied AS SELECT 1 AS a")
    postgres.psql(
        database,
        "CREATE PROCEDURE churn() LANGUAGE plpgsql AS $$ BEGIN LOOP"
        "  INSERT INTO items (name, number) VALUES ('new', 1); INSERT INTO mirror SELECT max(id) FROM items; COMMIT;"
        "  UPDATE items SET number = number + 1 WHERE id % 100 = 0; COMMIT;"
        "  DELETE FROM mirror WHERE id IN (SELECT min(id) FROM items); DELETE FROM items WHERE id IN"
        "  (SELECT min(id) FROM items); COMMIT; END LOOP; END $$",
    )
    writer = subprocess.Popen(
        [postgres.binaries.program("psql"), "-Xqc", "CALL churn()"],
        env=postgres.environment(database),
        stderr=subprocess.DEVNULL,
    )
    try:
        psql = f"{postgres.binaries.program('psql')} -h {postgres.socket_directory} -p {postgres.port} -U postgres"
        truncate = f'{psql} -d {database} -Xqc "SET lock_timeout = 100; TRUNCATE emptied" || true; sleep 0.3'
        outcome = runner.run("pg_backup", place.options(), at="backup dump started", shell=truncate)
    finally:
        writer.kill()
        writer.wait()
        postgres.psql(
            "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        )
    assert outcome.result
    assert outcome.result["changed"], outcome.result
    backup = outcome.result["backup"]["id"]
    restored = place.restored(backup)
    tables = place.content(backup)["tables"]
    for table, recorded in tables.items():
        own = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t"
        assert postgres.psql(restored, own) == f"{recorded['rows']}|{recorded['checksum']}", table
    assert tables['"public"."items"']["rows"] == tables['"public"."mirror"']["rows"]
    assert tables['"public"."emptied"']["rows"] == 1  # nobody could empty it meanwhile
    assert int(postgres.psql(database, "SELECT last_value FROM items_id_seq")) > 510  # the writer has written
    postgres.drop_database(restored)


def test_check_mode_makes_nothing(place: Place, tmp_path: Path):
    result = place.call(check=True)
    assert result["changed"]
    assert result["backup"] is None
    assert list(tmp_path.iterdir()) == []
    first = place.call()["backup"]["id"]
    result = place.call(check=True, keep_last=1)
    assert (result["kept"], result["removed"]) == ([], [first])
    assert place.backups() == [first]


def test_the_password_is_nowhere(place: Place, postgres: Server, tmp_path: Path, runner: Runner):
    seen = tmp_path / "seen"
    # So that it takes a moment, in which it is held.
    postgres.psql(place.database, "CREATE TABLE noise AS SELECT gen_random_uuid() FROM generate_series(1, 200000)")
    hold, go_on = (f"pkill -{name} -P $PPID pg_dump" for name in ("STOP", "CONT"))
    look = f"{hold}; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ > {seen} 2>/dev/null; {go_on}"
    options = {**postgres.login_tcp(), **{key: place.options()[key] for key in ("dest", "databases", "environment")}}
    outcome = runner.run("pg_backup", options, at="backup dump started", shell=look)
    assert outcome.result
    assert outcome.result["changed"], outcome.result
    token = postgres.password.split()[-1]
    data = seen.read_bytes()
    assert b"pg_dump" in data
    assert token.encode() not in data
    assert token not in json.dumps(outcome.result)
    assert outcome.result["invocation"]["module_args"]["login_password"] != postgres.password
    found = subprocess.run(["grep", "-rlF", token, str(place.store)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_an_old_client_is_told_of(place: Place):
    result = place.call(accept_vulnerable_client=False)
    vulnerable = "CVE-2026-116314" in "".join(result.get("warnings", []))
    version = place.postgres.run("pg_restore", "--version")
    major, minor = (int(number) for number in version.split()[2].split(".")[:2])
    assert vulnerable == (major < 15 or minor < {15: 20, 16: 16, 17: 12, 18: 7}.get(major, 0))


def test_a_replica_will_do(place: Place, postgres: Server):
    """The load of a backup can be kept from the primary."""
    with postgres.replica() as replica:
        assert replica.psql("postgres", "SELECT pg_is_in_recovery()") == "t"
        backup = place.call(**replica.login())["backup"]["id"]
    restored = place.restored(backup)
    assert sum_of(postgres, restored) == sum_of(postgres, place.database)
    postgres.drop_database(restored)


# -- failures ----------------------------------------------------------------------------------------------------------


def test_points(place: Place, runner: Runner):
    """All that the tests know."""
    outcome = runner.run("pg_backup", place.options())
    met = {point for point in outcome.points if not point.startswith(("before ", "after "))}
    assert met == set(BACKUP_POINTS)


KILLED = ["backup dumped", "store backup committed", "store verification noted"]


@pytest.mark.parametrize("point", full_but(["store backup committed"], KILLED))
def test_killed(place: Place, postgres: Server, runner: Runner, point: str):
    """The next run makes its backup, and nothing of the killed one is left but a backup that was complete.

    (Each point is killed at in test_faults.py.)
    """
    first = place.call()["backup"]["id"]
    outcome = runner.run("pg_backup", place.options(), at=point)
    assert outcome.killed
    after = place.call(keep_last=10)
    assert place.left() == []
    assert len(place.backups()) == (3 if point in COMMITTED else 2)
    assert set(after["kept"]) == set(place.backups())
    assert {first, after["backup"]["id"]} <= set(place.backups())
    assert {name for names in after["reasons"].values() for name in names} == {"last"}, "all of them are good"
    wait_until_alone(postgres, place.database)


def wait_until_alone(postgres: Server, database: str) -> None:
    """Until nothing of a killed run works on: no program, no backend."""
    deadline = time.monotonic() + 60
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = {literal(database)}"
    while postgres.psql("postgres", count) != "0" or programs(database):
        assert time.monotonic() < deadline, programs(database)
        time.sleep(0.05)


def programs(database: str) -> List[str]:
    """The programs that work on a database."""
    lines = [processes.cmdline(pid) for pid in processes.all_pids()]
    return [line for line in lines if f"dbname='{database}'" in line]


def test_a_full_disk(place: Place, postgres: Server, runner: Runner):
    postgres.psql(place.database, "CREATE TABLE noise AS SELECT gen_random_uuid() FROM generate_series(1, 20000)")
    first = place.call()["backup"]["id"]
    outcome = runner.run("pg_backup", place.options(keep_last=1), file_limit=200000)
    assert outcome.result
    assert outcome.result["failed"]
    assert f"Database {place.database} was not backed up: pg_dump failed" in outcome.result["msg"]
    assert "Nothing is left of it. Free some space on the disk of dest" in outcome.result["msg"]
    assert (place.backups(), place.left()) == ([first], [])
    assert place.call(state="verified")["backup"]["id"] == first


@pytest.mark.parametrize("point", full_but(["backup dump started"], ["backup snapshot taken", "backup dump started"]))
def test_a_lost_connection(place: Place, postgres: Server, runner: Runner, point: str):
    postgres.psql(place.database, "CREATE TABLE noise AS SELECT gen_random_uuid() FROM generate_series(1, 50000)")
    psql = f"{postgres.binaries.program('psql')} -h {postgres.socket_directory} -p {postgres.port} -U postgres"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{place.database}'"
    outcome = runner.run("pg_backup", place.options(), at=point, shell=f'sleep 0.05; {psql} -d postgres -Xqc "{end}"')
    assert outcome.result
    assert outcome.result["failed"], outcome.result
    assert f"Database {place.database} was not backed up: " in outcome.result["msg"]
    assert "Nothing is left of it." in outcome.result["msg"]
    assert (place.backups(), place.left()) == ([], [])
    place.call()


def test_the_server_dies(place: Place, postgres: Server, runner: Runner):
    outcome = runner.run("pg_backup", place.options(), at="backup dump started", shell=f"kill -9 {postgres.pid}")
    postgres.kill()
    postgres.start()
    assert outcome.result
    assert outcome.result["failed"]
    assert (place.backups(), place.left()) == ([], [])
    place.call()


def test_ended_by_a_signal(place: Place, postgres: Server):
    postgres.psql(place.database, "CREATE FUNCTION slow() RETURNS text LANGUAGE sql AS 'SELECT pg_sleep(60)::text'")
    with held(postgres, place.database, "LOCK TABLE items"):
        process = spawn("pg_backup", place.options())
        deadline = time.monotonic() + 60
        while place.left() == [] and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        result = finish(process)
    assert "ended by SIGTERM" in result["msg"]
    assert (place.backups(), place.left()) == ([], [])
    wait_until_alone(postgres, place.database)


class held:
    """A transaction that stays open."""

    def __init__(self, postgres: Server, database: str, sql: str) -> None:
        self._postgres, self._database, self._sql = postgres, database, sql

    def __enter__(self) -> None:
        command = [self._postgres.binaries.program("psql"), "-XqAt"]
        environment = self._postgres.environment(self._database)
        pipe = subprocess.PIPE
        self._psql = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self._psql.stdin
        assert self._psql.stdout
        self._psql.stdin.write(f"BEGIN; {self._sql}; SELECT 'held';\n")
        self._psql.stdin.flush()
        assert self._psql.stdout.readline().strip() == "held"

    def __exit__(self, *_exception: object) -> None:
        self._psql.communicate(timeout=10)


def test_a_table_that_somebody_holds(place: Place, postgres: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_database_dump, "LOCK_WAIT", 0.2)
    with held(postgres, place.database, "LOCK TABLE items"):
        place.fails("A session holds a table exclusively")
    place.call()


def test_two_at_once(place: Place, runner: Runner):
    results = runner.together([("pg_backup", place.options())] * 3)
    assert [result["failed"] for result in results] == [False] * 3, results
    assert sorted(result["backup"]["id"] for result in results) == place.backups()
    assert sorted(place.manifest(backup)["sequence"] for backup in place.backups()) == [1, 2, 3]
    first, second = runner.together([("pg_backup", place.options(lock_timeout=0))] * 2)
    failed = first if first["failed"] else second
    assert f"{place.database} was not backed up: another run holds {place.store}/.nodeops/lock (pid " in failed["msg"]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (
            "ALTER TABLE items ENABLE ROW LEVEL SECURITY; GRANT SELECT ON items, items_id_seq TO {role}",
            "row-level security policy for table",
        ),
        ("SELECT 1", "permission denied for table items"),
    ],
    ids=["rows that it may not see", "a table that it may not read"],
)
def test_a_role_that_does_not_see_all(place: Place, postgres: Server, prepare: str, words: str):
    role = f"reader_{place.database}"
    postgres.psql("postgres", f"CREATE ROLE {role} LOGIN")
    postgres.psql(place.database, prepare.format(role=role))
    place.fails(words, login_user=role)
    postgres.psql(place.database, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("role", ["owner", "reader"])
def test_no_superuser_is_needed(place: Place, postgres: Server, role: str):
    """The owner of everything will do, or a role that may read everything."""
    name = f"{role}_{place.database}"
    postgres.psql("postgres", f"CREATE ROLE {name} LOGIN; GRANT pg_read_all_data TO {name}")
    if role == "owner":
        postgres.psql(
            "postgres", f"REVOKE pg_read_all_data FROM {name}; ALTER DATABASE {place.database} OWNER TO {name}"
        )
        postgres.psql(place.database, f"ALTER TABLE items OWNER TO {name}")
    backup = place.call(login_user=name)["backup"]["id"]
    assert place.content(backup)["tables"]['"public"."items"']["rows"] == 500
    postgres.psql(place.database, f"REASSIGN OWNED BY {name} TO postgres")
    postgres.psql("postgres", f"ALTER DATABASE {place.database} OWNER TO postgres; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"databases": ["nowhere"]}, "There is no database 'nowhere'"),
        ({"databases": []}, "databases is empty"),
        ({"databases": ["postgres"]}, "is reserved"),
        ({"databases": ["a/b"]}, "has a slash"),
        ({"databases": ["postgresql://u:s3cret@h/d"]}, "has a slash"),
        ({"databases": ["x" * 43]}, "at most 42"),
        ({"login_port": 1}, "No connection to database 'postgres'"),
        ({"login_user": "stranger"}, 'role "stranger" does not exist'),
        ({"pg_bindir": "/usr/bin"}, "does not hold psql, pg_dump and pg_restore"),
        ({"keep_last": 0}, "The rules keep nothing"),
        ({"keep_last": -1}, "keep_last cannot be -1"),
        ({"age_recipients": ["rubbish"]}, "is not a public key of age"),
        ({"dest": "relative"}, "relative"),
        ({"state": "verified"}, "There is no backup store"),
        ({"state": "verified", "backup": "../x"}, "There is no backup store"),
        ({"state": "pruned"}, "no keep rule is given"),
        ({"state": "pruned", "keep_last": 1}, "there is no backup store"),
        ({"state": "imported"}, "source"),
        ({"login_password": "a", "passfile": "/etc/passwd"}, "both given"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_refused(place: Place, options: Dict[str, Any], words: str):
    result = place.fails(words, **options)
    assert "s3cret" not in json.dumps(result)
    assert place.backups() == []


def test_a_database_that_is_closed(place: Place, postgres: Server):
    postgres.psql("postgres", f"ALTER DATABASE {place.database} ALLOW_CONNECTIONS false")
    place.fails("is closed to connections")


# -- verification, encryption, retention -------------------------------------------------------------------------------


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: Dict[str, Tuple[Callable[[Path], Any], str]] = {
    "flipped": (lambda path: flip(path, 0.5), "1.dump is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "1.dump has "),
    "missing": (lambda path: path.unlink(), "1.dump is missing"),
    "mode": (lambda path: path.chmod(0o644), "open to other users"),
    "more": (lambda path: (path.parent / "more").write_text(""), "more does not belong to it"),
}
"""All that can be damaged is in the tests of the store."""


@pytest.mark.parametrize("name", full_but(["flipped"], DAMAGE))
def test_damage_is_found(place: Place, name: str):
    damage, words = DAMAGE[name]
    good, bad = place.call()["backup"]["id"], place.call()["backup"]["id"]
    damage(place.store / bad / "1.dump")
    failed = place.fails(words, state="verified")
    assert f"Backup {bad} is damaged" in failed["msg"]
    assert failed["problems"]
    assert failed["backup"]["verified"] is False
    assert place.call(state="verified", backup=good)["problems"] == []
    assert place.call(state="pruned", keep_last=1)["kept"] == [good, bad]  # the bad one does not count


def test_what_a_restore_has_found_no_look_at_the_bytes_refutes(place: Place):
    backup = place.call()["backup"]["id"]
    store = Store(str(place.store))
    with store.lock("Nothing", 1):
        store.note_verified(store.find(backup, "postgresql"), "restored", ["items has 3 rows, not 500"])
    for _time in range(2):
        failed = place.fails("items has 3 rows", state="verified", backup=backup)
        assert failed["backup"]["verified"] is False


def test_a_forged_manifest(place: Place):
    backup = place.call()["backup"]["id"]
    path = place.store / backup / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 500', '"rows": 400'))
    place.fails("not signed with the key", state="verified", backup=backup)


def test_encrypted(place: Place, tmp_path: Path):
    if not debian.program("age", "age"):
        pytest.skip(debian.why_not("age", "age"))
    identity = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    public = subprocess.run(
        ["age-keygen", "-y", str(identity)], check=True, capture_output=True, text=True
    ).stdout.strip()
    backup = place.call(age_recipients=[public])["backup"]
    assert backup["encrypted"]
    files = sorted(path.name for path in (place.store / backup["id"]).iterdir())
    assert files == ["1.dump.age", "manifest.json", "verified.json"]
    assert place.content(backup["id"])["file"] == "1.dump.age"
    assert b"PGDMP" not in (place.store / backup["id"] / "1.dump.age").read_bytes()
    place.call(state="verified")
    place.call(state="verified", age_identity_file=str(identity))
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
    place.fails("cannot be decrypted", state="verified", age_identity_file=str(other))
    assert sorted(path.name for path in (place.store / ".nodeops").iterdir()) == ["lock", "sequence"]


def test_retention_in_the_same_call(place: Place, postgres: Server):
    other = postgres.create_database(rows=1)
    others = place.call(databases=[other])["backup"]["id"]
    first, second = place.call()["backup"]["id"], place.call()["backup"]["id"]
    place.fails("There is no database", databases=["nowhere"], keep_last=1)
    result = place.call(keep_last=2)
    assert (result["kept"], result["removed"]) == ([second, result["backup"]["id"]], [first])
    assert others in place.backups()
    result = place.call(state="pruned", keep_last=1)
    assert result["changed"]
    assert result["removed"] == [second]
    assert not place.call(state="pruned", keep_last=1)["changed"]
    postgres.drop_database(other)


RULES: List[Dict[str, Any]] = [{"keep_last": 2}, {"keep_daily": 1}, {"keep_last": 3, "minimum": 2}]


@pytest.mark.parametrize("rules", full_but([{"keep_last": 2}], RULES))
def test_check_mode_foresees_what_is_removed(place: Place, rules: Dict[str, Any]):
    """Its own backup counts, and so does that of a run that was killed before it could verify it."""
    assert place.call(check=True, **rules)["removed"] == []
    made = [place.call()["backup"]["id"] for _round in range(3)]
    (place.store / made[1] / "verified.json").unlink()
    before = place.backups()
    foreseen = place.call(check=True, **rules)
    assert place.backups() == before
    assert not (place.store / made[1] / "verified.json").exists()
    result = place.call(**rules)
    assert foreseen["removed"] == result["removed"] != []
    assert [*foreseen["kept"], result["backup"]["id"]] == result["kept"]
    assert foreseen["reasons"] == {name: why for name, why in result["reasons"].items() if name in made}


# -- imported ----------------------------------------------------------------------------------------------------------


class Source:
    """A plain dump of the database, changed or not."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.text = place.postgres.run("pg_dump", database=place.database)
        self.path = place.directory / "old.sql"

    def options(self, data: bytes, **more: Any) -> Dict[str, Any]:
        self.path.write_bytes(data)
        own = {"state": "imported", "source": str(self.path), "sha256": hashlib.sha256(data).hexdigest()}
        return {**own, **more}


@pytest.fixture(name="source")
def _source(place: Place) -> Source:
    tools = _programs.find(str(place.postgres.binaries.directory))
    if not _import.can_restrict(tools):
        pytest.skip("this psql cannot be kept from running psql commands of a dump")
    return Source(place)


def test_a_psql_that_would_run_commands(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_import, "_RESTRICTING", {99: 0})
    place.fails("cannot be kept from running psql commands", **Source(place).options(Source(place).text.encode()))


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_imported(place: Place, source: Source, postgres: Server, pack: Callable[[bytes], bytes]):
    before = sum_of(postgres, place.database)
    options = source.options(pack(source.text.encode()), namespace="shop")
    postgres.psql(place.database, "DELETE FROM items")
    assert place.call(check=True, **options)["changed"]
    assert place.backups() == []
    result = place.call(**options)
    assert result["changed"]
    backup = result["backup"]["id"]
    content = place.content(backup)
    assert content["tables"]['"public"."items"']["rows"] == 500
    assert place.manifest(backup)["content"]["imported"] == {"source": "old.sql", "sha256": options["sha256"]}
    restored = place.restored(backup)
    assert sum_of(postgres, restored) == before
    assert postgres.psql(place.database, "SELECT count(*) FROM items") == "0"
    again = place.call(**options)
    assert not again["changed"]
    assert again["backup"]["id"] == backup
    assert place.call(state="verified", namespace="shop", backup=backup)["problems"] == []
    postgres.drop_database(restored)
    assert not [name for name in postgres.databases() if "__new_" in name]


def test_what_is_imported_counts_for_no_rule(place: Place, source: Source):
    """No rule removes it, and for it no backup that was made here."""
    made = [place.call()["backup"]["id"] for _round in range(2)]
    options = source.options(source.text.encode(), keep_last=1)
    imported = place.call(**options)["backup"]["id"]
    again = place.call(**options)
    assert (again["changed"], again["backup"]["id"]) == (False, imported)
    result = place.call(state="pruned", keep_last=1)
    assert (result["kept"], result["removed"]) == (made[1:], made[:1])
    assert sorted(place.backups()) == sorted([made[1], imported])


def test_what_is_imported_is_never_the_latest(place: Place, source: Source):
    """It is taken by its id."""

    def restore(**more: Any) -> Dict[str, Any]:
        return call("pg_restore", {**place.options(state="verified"), **more})

    imported = place.call(**source.options(source.text.encode()))["backup"]["id"]
    words = f"An imported backup is never latest. Name it by its id: {imported}."
    failed = restore()
    assert f"There is no backup of postgresql {place.database} in production" in failed["msg"]
    assert words in failed["msg"]
    place.fails(words, state="verified")
    place.fails(f"is of imported postgresql {place.database}", state="verified", backup=imported, environment="other")
    assert place.call(state="verified", backup=imported)["problems"] == []
    drill = restore(backup=imported)
    assert (drill["failed"], drill["backup"]) == (False, imported), drill

    place.postgres.psql(place.database, "DELETE FROM items")
    made = place.call()["backup"]["id"]
    again = place.call(**source.options(source.text.encode() + b"--\n"))["backup"]["id"]
    assert len({imported, made, again}) == 3
    assert restore()["backup"] == made
    assert place.call(state="verified")["backup"]["id"] == made
    [status] = restore(state="status")["status"]["databases"]
    assert (status["backups"], status["newest_good_backup"]) == (3, made)
    done = call("pg_restore", {**place.options(backup=imported), "confirm": [place.database]})
    assert not done["failed"], done
    assert place.postgres.psql(place.database, "SELECT count(*) FROM items") == "500"
    [previous] = [each["previous"] for each in done["databases"]]
    place.postgres.drop_database(previous)


def test_a_disk_without_room_for_an_import(place: Place, source: Source, monkeypatch: pytest.MonkeyPatch):
    """Before it is begun it is refused; while it is loaded it is given up."""
    options = source.options(source.text.encode())
    monkeypatch.setattr(_disk_space, "_RESERVE", 1 << 60)
    place.fails("Nothing was changed. Free some space", **options)
    monkeypatch.setattr(_disk_space, "check", lambda _wanted: None)
    place.fails("Loading the dump was given up: the disk of ", **options)
    assert not [name for name in place.postgres.databases() if name.startswith(f"{place.database}__")]


def test_imported_of_a_database_that_is_not_there(place: Place, source: Source, postgres: Server):
    result = place.call(databases=["long_gone"], **source.options(source.text.encode()))
    assert result["changed"]
    assert "long_gone" not in postgres.databases()


def changed(text: str, by: str) -> str:
    """The dump with something more in its middle."""
    return text.replace("SET row_security = off;", f"{by}\nSET row_security = off;")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) * 6 // 10], "is not complete"),
        (lambda text: text.replace("-- PostgreSQL database dump complete", "--"), "is not complete"),
        (lambda text: text + "\nDROP TABLE items;\n", "is not complete"),
        (lambda text: "-- PostgreSQL database dump complete\n" + text[:500], "is not complete"),
        (lambda text: "SELECT 1;\n-- PostgreSQL database dump complete\n", "does not begin like a dump of pg_dump"),
        (lambda text: changed(text, "\\! touch {evil}"), "has a command of psql in line"),
        (lambda text: changed(text, "\\connect postgres"), "has a command of psql in line"),
        (lambda text: changed(text, "SELECT 1 \\! touch {evil}\n;"), "backslash commands are restricted"),
        (lambda text: changed(text, "\\unrestrict guess\nSELECT 1 \\! touch {evil}\n;"), "cannot be loaded"),
        (lambda text: changed(text, "\\restrict again"), "backslash commands are restricted"),
        (lambda text: text + "\\unrestrict x\n\\! touch {evil}\n", "has a command of psql in line"),
        (lambda text: changed(text, "SELECT 1/0;"), "division by zero"),
        (lambda text: changed(text, "CREATE DATABASE more;"), "cannot run inside a transaction block"),
        (lambda text: changed(text, "ALTER TABLE items OWNER TO nobody_here;"), "does not exist"),
        (lambda text: changed(text, "/* open"), "The dump cannot be loaded"),
        (lambda text: changed(text, "SELECT 'open;"), "The dump cannot be loaded"),
        (lambda text: "--\n-- PostgreSQL database cluster dump\n--\n" + text, "dump of a whole cluster"),
        (lambda text: "PGDMP" + text, "is an archive of pg_dump"),
        (lambda text: "", "does not begin like a dump of pg_dump"),
    ],
)
def test_not_imported(place: Place, source: Source, postgres: Server, change: Callable[[str], str], words: str):
    before = sum_of(postgres, place.database)
    evil = place.directory / "evil"
    place.fails(words, **source.options(change(source.text).replace("{evil}", str(evil)).encode()))
    assert not evil.exists()
    assert sum_of(postgres, place.database) == before
    assert not [name for name in postgres.databases() if "__new_" in name]


def test_not_imported_for_other_reasons(place: Place, source: Source):
    data = source.text.encode()
    place.fails("has the SHA-256", **source.options(data, sha256="0" * 64))
    place.fails("not 64 hexadecimal digits", **source.options(data, sha256="abc"))
    place.fails("cannot be unpacked", **source.options(gzip.compress(data)[:-9]))
    place.fails("cannot be read", **source.options(data, source="/nowhere"))
    place.fails("is not a regular file", **source.options(data, source="/dev/null"))
    place.fails("Name the one database of the dump", **source.options(data, databases=["a", "b"]))


@pytest.mark.parametrize("point", full_but(["import loaded"], IMPORT_POINTS))
def test_killed_in_an_import(place: Place, source: Source, postgres: Server, runner: Runner, point: str):
    before = sum_of(postgres, place.database)
    options = place.options(**source.options(source.text.encode()))
    assert runner.run("pg_backup", options, at=point).killed
    result = call("pg_backup", options)
    assert not result["failed"], result
    assert len(place.backups()) == (2 if point == "backup committed" else 1)
    assert place.left() == []
    assert not [name for name in postgres.databases() if "__new_" in name]
    assert sum_of(postgres, place.database) == before


def test_own_places(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a call needs besides the store is gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    place.call()
    assert os.listdir(tmp_path / "tmp") == []
