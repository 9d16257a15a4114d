"""Bad input for pg_backup and pg_restore: refused with a clear error before anything is changed.

docs/faults.md lists them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing
from support import debian
from support.apps import free_port
from support.database_world import World
from support.killer import Runner
from support.namespaces import snapshot
from support.pm2 import Pm2Home
from support.postgres import Server

SECRET = "canary:pass'word\""
NOTHING = ("Nothing was", "nothing was", "Nothing is left")

Options = Dict[str, Any]


class Bench(NamedTuple):
    """What a case is made of. `cleanup` is run after it."""

    world: World
    backup: str
    directory: Path
    cleanup: contextlib.ExitStack

    def restore(self, **options: Any) -> Options:
        """Of a call of pg_restore that would work."""
        return self.world.options(**{"backup": self.backup, **options})

    def store(self) -> Path:
        """A copy of the store, to be spoiled."""
        copy = self.directory / "store"
        shutil.copytree(self.world.dest, copy, symlinks=True)
        shutil.copy2(f"{self.world.dest}.key", f"{copy}.key")
        return copy

    def from_store(self, spoil: Callable[[Path], Any], **options: Any) -> Options:
        """A restore from a copy, in which `spoil` has done something to the directory of the backup."""
        copy = self.store()
        spoil(copy / self.backup)
        return self.restore(dest=str(copy), **options)

    def sql(self, text: str, undo: str, database: str = "postgres") -> None:
        """Something on the server that stands in the way until the end of the case."""
        self.cleanup.callback(self.world.sql, database, undo)
        self.world.sql(database, text)


@pytest.fixture(scope="module", name="worlds")
def _worlds(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[World, str]]:
    directory = tmp_path_factory.mktemp("refusals")
    with Runner() as runner, World(postgres, Pm2Home("7.0", directory / "pm2"), runner, directory) as world:
        yield world, world.backup()


@pytest.fixture(name="bench")
def _bench(worlds: Tuple[World, str], tmp_path: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as cleanup:
        yield Bench(*worlds, tmp_path, cleanup)


class Case(NamedTuple):
    """`options` are those of `module`, made on the bench; `words` are in the message.

    Ansible's own check of options says nothing of what was not done.
    """

    options: Callable[[Bench], Options]
    words: Tuple[str, ...]
    module: str = "pg_restore"
    by_ansible: bool = False


def restore(*words: str, **options: Any) -> Case:
    """A restore with other options."""
    return Case(lambda bench: bench.restore(**options), words)


def by_ansible(*words: str, **options: Any) -> Case:
    """One that Ansible refuses."""
    return Case(lambda bench: bench.restore(**options), words, by_ansible=True)


def backup(*words: str, **options: Any) -> Case:
    """A backup with other options."""
    return Case(lambda bench: bench.world.backup_options(**options), words, "pg_backup")


def spoiled(spoil: Callable[[Path], Any], *words: str) -> Case:
    """A restore of a backup that was spoiled."""
    return Case(lambda bench: bench.from_store(spoil), words)


def tcp(*words: str, **options: Any) -> Case:
    """Over TCP with TLS and a password."""

    def made(bench: Bench) -> Options:
        usual = bench.restore()
        del usual["login_unix_socket"]
        return {**usual, **bench.world.server.login_tcp(), **options}

    return Case(made, words)


def names(*words: str, databases: List[str]) -> Case:
    """Odd databases, confirmed as they are."""
    return restore(*words, databases=databases, confirm=databases)


def odd_backup(*words: str, databases: List[str]) -> Case:
    """A backup of odd databases."""
    return Case(lambda bench: bench.world.store(databases=databases), words, "pg_backup")


# -- spoiling ----------------------------------------------------------------------------------------------------------


def dump_of(directory: Path) -> Path:
    (found,) = directory.glob("*.dump")
    return found


def cut(directory: Path) -> None:
    os.truncate(dump_of(directory), 1000)


def flip(directory: Path) -> None:
    """One bit."""
    path = dump_of(directory)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(directory: Path) -> None:
    path = dump_of(directory)
    path.rename(directory.parent / "elsewhere")
    path.symlink_to(directory.parent / "elsewhere")


def manifest_of(directory: Path) -> Dict[str, Any]:
    document = json.loads((directory / "manifest.json").read_text())
    assert isinstance(document, dict)
    return document


def written(document: Dict[str, Any]) -> bytes:
    """As a store writes it."""
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def forge(directory: Path) -> None:
    """Somebody exchanges the dump, and writes what it is into the manifest."""
    flip(directory)
    document = manifest_of(directory)
    document["files"][0]["sha256"] = hashlib.sha256(dump_of(directory).read_bytes()).hexdigest()
    (directory / "manifest.json").write_bytes(written(document))


def sign_anew(directory: Path, change: Callable[[Dict[str, Any]], None]) -> None:
    """The same backup, as it would be if it had been made elsewhere: who has the key signs it."""
    document = manifest_of(directory)
    change(document)
    document["hmac"] = _signing.load(f"{directory.parent}.key").sign(document)
    (directory / "manifest.json").write_bytes(written(document))


def facts_of(document: Dict[str, Any]) -> Dict[str, Any]:
    (facts,) = document["content"]["databases"].values()
    assert isinstance(facts, dict)
    return facts


def made_elsewhere(**facts: Any) -> Callable[[Path], None]:
    """It says other things of the server that it was made on."""
    return lambda directory: sign_anew(directory, lambda document: facts_of(document).update(facts))


def dumped_by(version: str) -> Callable[[Path], None]:
    """By programs of that version."""
    return lambda directory: sign_anew(directory, lambda document: document["tools"].update(pg_dump=version))


def as_another(directory: Path) -> None:
    """A complete, good backup under the id of another."""
    shutil.copytree(directory, directory.parent / ANOTHER)


ANOTHER = "20990101T000000Z-postgresql-0a1b2c"


def key_of(directory: Path) -> Path:
    return Path(f"{directory.parent}.key")


def store_is_a_link(bench: Bench) -> Options:
    path = bench.directory / "link"
    path.symlink_to(bench.store())
    return bench.restore(dest=str(path), key_file=f"{bench.directory}/store.key")


def parent_is_open(bench: Bench) -> Options:
    parent = bench.directory / "open"
    parent.mkdir()
    shutil.move(bench.store(), parent / "store")
    shutil.move(f"{bench.directory}/store.key", f"{parent}/store.key")
    parent.chmod(0o777)
    return bench.restore(dest=str(parent / "store"))


def only_bad_ones(directory: Path) -> None:
    """What was verified as bad is not taken for `latest`."""
    path = directory / "verified.json"
    document = json.loads(path.read_text())
    document["problems"] = ["shop.dump: its content has changed"]
    document["hmac"] = _signing.load(f"{directory.parent}.key").sign(document)
    path.write_bytes(written(document))


# -- the server --------------------------------------------------------------------------------------------------------


def role_is_missing(bench: Bench) -> Options:
    """The owner of what is in the backup was renamed since."""
    owner = bench.world.owner
    copy = bench.store()

    def change(document: Dict[str, Any]) -> None:
        facts = facts_of(document)
        assert owner in facts["roles"]
        facts["roles"] = ["nobody_knows_me" if role == owner else role for role in facts["roles"]]

    sign_anew(copy / bench.backup, change)
    return bench.restore(dest=str(copy))


def slot_is_there(bench: Bench) -> Options:
    """Somebody follows what is written to the live database."""
    shop = bench.world.shop
    bench.sql(
        f"SELECT pg_create_logical_replication_slot('follower_{shop}', 'pgoutput')",
        f"SELECT pg_drop_replication_slot('follower_{shop}')",
        shop,
    )
    return bench.restore()


def transaction_is_prepared(bench: Bench) -> Options:
    bench.sql(
        "BEGIN; LOCK TABLE held; PREPARE TRANSACTION 'transfer 9'", "ROLLBACK PREPARED 'transfer 9'", bench.world.shop
    )
    return bench.restore()


def login_may_nothing(bench: Bench) -> Options:
    name = f"clerk{os.getpid()}"
    bench.sql(f"CREATE ROLE {name} LOGIN", f"DROP ROLE {name}")
    return bench.restore(login_user=name)


def login_does_not_inherit(bench: Bench) -> Options:
    """What he restores would not be his."""
    name = f"heir{os.getpid()}"
    bench.sql(f"CREATE ROLE {name} LOGIN CREATEDB NOINHERIT IN ROLE {bench.world.owner}", f"DROP ROLE {name}")
    return bench.restore(login_user=name)


def login_may_not_read(bench: Bench) -> Options:
    name = f"reader{os.getpid()}"
    bench.sql(f"CREATE ROLE {name} LOGIN", f"DROP ROLE {name}")
    return bench.world.backup_options(login_user=name)


def other_authority(bench: Bench) -> Options:
    """A CA, but not the one of the server."""
    path = bench.directory / "ca.crt"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=another -days 9 -keyout /dev/null -out".split()
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    options = tcp().options(bench)
    return {**options, "ca_cert": str(path)}


def empty_bindir(bench: Bench) -> Options:
    path = bench.directory / "bin"
    path.mkdir()
    return bench.restore(pg_bindir=str(path))


def open_passfile(bench: Bench) -> Options:
    """libpq ignores such a file, with a warning that nobody sees."""
    path = bench.directory / "pgpass"
    path.write_text(f"*:*:*:*:{SECRET}\n")
    path.chmod(0o644)
    options = tcp().options(bench)
    del options["login_password"]
    return {**options, "passfile": str(path)}


# -- what else -------------------------------------------------------------------------------------------------------


def other_kind(bench: Bench) -> Options:
    copy = bench.store()
    made = bench.world.runner.call(
        "pm2_dump_backup",
        {"dest": str(copy), "pm2_home": bench.world.pm2.home, "pm2_executable": bench.world.pm2.executable},
    )
    assert not made["failed"], made
    return bench.restore(dest=str(copy), backup=made["backup"]["id"])


def rubbish_in_the_journal(bench: Bench) -> Options:
    copy = bench.store()
    (copy / ".nodeops" / "restore.journal").write_text('{"format": 1, "swaps": ')
    return bench.restore(dest=str(copy))


def not_a_store(bench: Bench) -> Options:
    path = bench.directory / "documents"
    path.mkdir(0o700)
    (path / "letter.txt").write_text("Dear")
    return bench.world.backup_options(dest=str(path))


def identity(path: Path) -> str:
    """Make a key pair in `path`; the public key."""
    program = debian.program("age-keygen", "age")
    if not program:
        pytest.skip(debian.why_not("age-keygen", "age"))
    subprocess.run([program, "-o", str(path)], check=True, capture_output=True)
    return subprocess.run([program, "-y", str(path)], check=True, capture_output=True, text=True).stdout.strip()


def encrypted(bench: Bench, **options: Any) -> Options:
    """A backup to a key that this host has not."""
    public = identity(bench.directory / "identity")
    copy = bench.store()
    made = bench.world.bring("pg_backup", bench.world.backup_options(dest=str(copy), age_recipients=[public]))
    return bench.world.options(dest=str(copy), backup=made["backup"]["id"], **options)


def other_identity(bench: Bench) -> Options:
    path = bench.directory / "other"
    identity(path)
    return encrypted(bench, age_identity_file=str(path))


def plain(text: str, told: Optional[str] = "") -> Callable[[Bench], Options]:
    """The import of a plain dump; its own SHA-256 unless another is told, or None."""

    def made(bench: Bench) -> Options:
        path = bench.directory / "dump.sql"
        path.write_text(text)
        path.chmod(0o600)
        digest = hashlib.sha256(text.encode()).hexdigest() if told == "" else told
        return bench.world.backup_options(state="imported", source=str(path), sha256=digest)

    return made


COMPLETE = """\
--
-- PostgreSQL database dump
--

CREATE TABLE t (i int);
{more}
--
-- PostgreSQL database dump complete
--

"""


CASES: Dict[str, Case] = {
    # what is to be confirmed
    "no confirmation": restore("confirm", confirm=None),
    "an empty confirmation": restore("confirm", confirm=[]),
    "the confirmation of another database": restore("confirm", "customers", confirm=["customers"]),
    "the confirmation of one more": Case(
        lambda bench: bench.restore(confirm=[bench.world.shop, bench.world.stock]), ("confirm",)
    ),
    "the confirmation in capitals": Case(lambda bench: bench.restore(confirm=[bench.world.shop.upper()]), ("confirm",)),
    "another environment": restore("environment", "production", "test", environment="test"),
    "no environment": restore("environment", "production", environment=None),
    "an undo without confirmation": Case(lambda bench: bench.world.options("undone", confirm=[]), ("confirm",)),
    # which backup
    "an unknown backup": restore("20261124T105400Z-postgresql-0a1b2c", backup="20261124T105400Z-postgresql-0a1b2c"),
    "a path as backup": restore("../../etc", "is not the id of a backup", backup="../../etc"),
    "an absolute path as backup": restore("/etc/passwd", "is not the id of a backup", backup="/etc/passwd"),
    "an empty backup": restore("is not the id of a backup", backup=""),
    "a backup of PM2's dump": Case(other_kind, ("kind pm2", "postgresql")),
    "a database that is not in the backup": names("elsewhere", databases=["elsewhere"]),
    "a store without backups": Case(
        lambda bench: bench.from_store(shutil.rmtree) | {"backup": "latest"}, ("There is no backup",)
    ),
    "the latest, and none is good": Case(
        lambda bench: bench.from_store(only_bad_ones) | {"backup": "latest"}, ("verified as good",)
    ),
    # the backup
    "a cut dump": spoiled(cut, ".dump"),
    "a flipped bit": spoiled(flip, ".dump"),
    "a missing dump": spoiled(lambda directory: dump_of(directory).unlink(), ".dump", "missing"),
    "an empty dump": spoiled(lambda directory: os.truncate(dump_of(directory), 0), ".dump"),
    "a dump that is a link": spoiled(link, ".dump"),
    "a dump that others may write": spoiled(lambda directory: dump_of(directory).chmod(0o666), ".dump"),
    "a file too many": spoiled(lambda directory: (directory / "extra.dump").touch(), "extra.dump", "does not belong"),
    "no manifest": spoiled(lambda directory: (directory / "manifest.json").unlink(), "no manifest.json"),
    "a cut manifest": spoiled(
        lambda directory: os.truncate(directory / "manifest.json", 99), "manifest.json", "damaged"
    ),
    "a forged manifest": spoiled(forge, "manifest.json", "not signed"),
    "a backup under another id": Case(
        lambda bench: bench.from_store(as_another) | {"backup": ANOTHER}, (ANOTHER, "manifest is that of")
    ),
    # its key and its store
    "no key": spoiled(lambda directory: key_of(directory).unlink(), "store.key", "does not exist"),
    "a key that others may read": spoiled(lambda directory: key_of(directory).chmod(0o644), "store.key", "0600"),
    "a short key": spoiled(lambda directory: key_of(directory).write_text("abcd\n"), "store.key", "32 bytes"),
    "another key": spoiled(lambda directory: key_of(directory).write_text("ab" * 32), "not signed"),
    "a key in the store": Case(
        lambda bench: bench.restore(key_file=f"{bench.world.dest}/the.key"), ("the.key", "outside")
    ),
    "a store that is a link": Case(store_is_a_link, ("symbolic link",)),
    "a store that others may write": spoiled(lambda directory: directory.parent.chmod(0o777), "0777"),
    "a store in a place that others may write": Case(parent_is_open, ("open", "0777")),
    "no store": restore("no backup store", dest="/nonexistent/backups"),
    "a store with dots": restore("..", dest="/var/../nonexistent"),
    "a store that is a file": restore("/etc/passwd", dest="/etc/passwd"),
    "a directory that is no store": Case(not_a_store, ("documents", "letter.txt"), "pg_backup"),
    # names
    "a name that is reserved": names("postgres", "reserved", databases=["postgres"]),
    "a template": names("template1", "reserved", databases=["template1"]),
    "a name that is too long": names("42", databases=["x" * 43]),
    "a name that is too long in bytes": names("42", databases=["ü" * 22]),
    "a name with a line break": names("line break", databases=["shop\nstock"]),
    "a name with a slash": names("slash", databases=["../shop"]),
    "an empty name": names("empty", databases=[""]),
    "no databases": names("databases", databases=[]),
    "a database twice": names("twice", databases=["shop", "shop"]),
    "the name of a previous database": names("restore gives", databases=["shop__prev_20261124105400"]),
    "a backup of a reserved name": odd_backup("template0", "reserved", databases=["template0"]),
    "a backup of a missing database": odd_backup("nosuch", databases=["nosuch"]),
    "a backup of a URL": odd_backup("postgresql://", databases=[f"postgresql://u:{SECRET}@h/d"]),
    # who and where
    "a wrong password": tcp("password", login_password=SECRET),
    "a password with a line break": tcp("login_password", login_password="a\nb"),
    "a passfile that others may read": Case(open_passfile, ("pgpass",)),
    "a passfile that is missing": restore("/nonexistent", passfile="/nonexistent"),
    "a login that does not exist": restore("nobody_knows_me", login_user="nobody_knows_me"),
    "a login that may not make databases": Case(login_may_nothing, ("CREATEDB",)),
    "a login that does not inherit": Case(login_does_not_inherit, ("NOINHERIT",)),
    "a login that may not read": Case(login_may_not_read, ("permission denied",), "pg_backup"),
    "a socket that is not there": restore("/nonexistent", login_unix_socket="/nonexistent"),
    "a port where nobody listens": Case(
        lambda bench: bench.restore(login_port=free_port()), ("No connection", "running")
    ),
    "a port that is none": restore("login_port", "70000", login_port=70000),
    "a host that is not in the certificate": tcp("127.0.0.2", "certificate", login_host="127.0.0.2"),
    "a certificate of another authority": Case(other_authority, ("certificate",)),
    "an authority that is missing": tcp("/nonexistent/ca.crt", ca_cert="/nonexistent/ca.crt"),
    "a socket for verify-full": restore("verify-full", "no TLS", ssl_mode="verify-full"),
    "a host and a socket": restore("login_host", "login_unix_socket", "both", login_host="127.0.0.1"),
    "an ssl_mode that does not exist": by_ansible("ssl_mode", "on", ssl_mode="on"),
    # the programs and the server
    "a client with a known hole": restore(
        "CVE-2026-116314", "accept_vulnerable_client", accept_vulnerable_client=False
    ),
    "programs that are not there": restore("/nonexistent/bin", pg_bindir="/nonexistent/bin"),
    "programs that are not all there": Case(empty_bindir, ("psql", "/bin")),
    "a backup of a newer server": spoiled(made_elsewhere(server_version="99.1"), "99"),
    "a dump of a newer pg_dump": spoiled(dumped_by("99.1"), "99.1", "server of version 17"),
    "a role that is missing": Case(role_is_missing, ("nobody_knows_me",)),
    "an extension that is missing": spoiled(made_elsewhere(extensions={"postgis": "3.4.0"}), "postgis"),
    "another encoding": spoiled(made_elsewhere(encoding="LATIN1"), "LATIN1", "UTF8"),
    "a slot of a follower": Case(slot_is_there, ("follower_",)),
    "a prepared transaction": Case(transaction_is_prepared, ("prepared transaction", "transfer 9")),
    "a connection to what is replaced": Case(
        lambda bench: bench.restore(maintenance_db=bench.world.shop), ("maintenance_db", "also in databases")
    ),
    "an undo without a previous database": Case(lambda bench: bench.world.options("undone"), ("previous",)),
    # numbers and PM2
    "no previous database to keep": restore("keep_previous", keep_previous=0),
    "no healthy answer": restore("healthy", healthy=0),
    "no jobs": restore("jobs", jobs=0),
    "a negative patience": restore("stop_timeout", stop_timeout=-1),
    "a negative wait for the lock": restore("lock_timeout", lock_timeout=-1),
    "a check that is no URL": restore("is not an http or https URL", ready={"http": [{"url": "localhost/health"}]}),
    "an uptime longer than the patience": restore("min_uptime", ready={"min_uptime": 9, "timeout": 3}),
    "a namespace with a slash": restore("namespace", namespace="shop/../other"),
    "a PM2 home that is missing": restore("/nonexistent/.pm2", pm2_home="/nonexistent/.pm2"),
    "a journal that cannot be read": Case(rubbish_in_the_journal, ("restore.journal",)),
    "a state that does not exist": by_ansible("state", "dropped", state="dropped"),
    "an option that does not exist": by_ansible("force", force=True),
    # encryption
    "an encrypted backup and no identity": Case(encrypted, ("age_identity_file",)),
    "an encrypted backup and another identity": Case(other_identity, ("other",)),
    "an identity that is missing": Case(
        lambda bench: encrypted(bench, age_identity_file="/nonexistent/identity"), ("/nonexistent/identity",)
    ),
    "a recipient that is none": backup("me@example.com", age_recipients=["me@example.com"]),
    # retention
    "rules that keep nothing": backup("keep nothing", keep_last=0, keep_daily=0, keep_weekly=0, keep_monthly=0),
    "a negative rule": backup("keep_last", "-1", keep_last=-1),
    "a minimum of nothing": backup("minimum", keep_last=1, minimum=0),
    "a span of rubbish": backup("keep_within", "a while", keep_within="a while"),
    "pruning without rules": backup("keep_", state="pruned"),
    # import
    "an import that was cut": Case(plain(COMPLETE.format(more="")[:-40]), ("complete",), "pg_backup"),
    "an import with another checksum": Case(
        plain(COMPLETE.format(more=""), "0" * 64), ("SHA-256", "0" * 64), "pg_backup"
    ),
    "an import that runs a program": Case(plain(COMPLETE.format(more="\\! id")), ("\\!",), "pg_backup"),
    "an import that connects elsewhere": Case(
        plain(COMPLETE.format(more="\\connect customers")), ("\\connect",), "pg_backup"
    ),
    "an import with an error": Case(plain(COMPLETE.format(more="SELECT 1/0;")), ("division by zero",), "pg_backup"),
    "an import of nothing": backup("/nonexistent.sql", state="imported", source="/nonexistent.sql", sha256="0" * 64),
    "an import without a checksum": Case(
        plain(COMPLETE.format(more=""), None), ("sha256",), "pg_backup", by_ansible=True
    ),
}


class Seen(NamedTuple):
    """What no refused call may change."""

    databases: str
    roles: str
    content: str
    stored: List[Tuple[str, int, str]]
    processes: Any


def see(bench: Bench) -> Seen:
    world = bench.world
    return Seen(
        world.sql("postgres", "SELECT oid, datname, datallowconn, datdba, datacl FROM pg_database ORDER BY 1"),
        world.sql("postgres", "SELECT rolname FROM pg_roles ORDER BY 1"),
        world.sql(world.shop, "SELECT * FROM orders; SELECT * FROM behaviour; SELECT last_value FROM orders_id_seq"),
        [*files_below(world.dest), *files_below(bench.directory)],
        snapshot(world.pm2),
    )


def files_below(directory: Path) -> List[Tuple[str, int, str]]:
    """Names, modes and contents; but not what was noted of a backup that was found to be bad."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in ("lock", "verified.json"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append((str(path), path.lstat().st_mode, digest))
    return found


@pytest.mark.parametrize("name", CASES)
def test_refused(bench: Bench, name: str) -> None:
    case = CASES[name]
    options: Mapping[str, Any] = {key: value for key, value in case.options(bench).items() if value is not None}
    before = see(bench)
    result = bench.world.runner.call(case.module, options)
    assert result["failed"], result
    assert not result["changed"], result
    for word in case.words:
        assert word in result["msg"], f"{word!r} is not in: {result['msg']}"
    assert case.by_ansible or any(words in result["msg"] for words in NOTHING), result["msg"]
    assert "Traceback" not in json.dumps(result)
    assert SECRET not in json.dumps(result, ensure_ascii=False).replace('\\"', '"')
    assert see(bench) == before


def test_after_all_that_a_restore_works(bench: Bench) -> None:
    """So what the cases have in common was right, and each was refused for its own reason."""
    world = bench.world
    world.write("before the restore")
    before = world.look()
    world.bring("pg_restore", bench.restore())
    world.check(before, bench.backup)
    world.bring("pg_restore", {**tcp().options(bench), "state": "verified"})
