"""pg_restore, as it should go: restored, undone, verified, recovered, status; check mode; several databases.

Full: what takes long to set up, which is autovacuum at work and a server with ICU; more damages of a backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _disk_space, _programs, _server, _swap
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import connection
from support import observe
from support.apps import QUICK, free_port
from support.modules import call
from support.pm2 import Pm2Home
from support.postgres import Server, binaries
from support.tiers import full_but

ENVIRONMENT = "staging"
READY = {"min_uptime": 0.1, "timeout": 60}
_numbers = itertools.count(1)

# Answers with the name of item 1, read anew by psql for each request; ends when it is that of $ENDS_AT.
APP = """
const http = require('http');
const { execFile } = require('child_process');
const server = http.createServer((request, response) => {
  execFile(process.env.PSQL, ['-XqAt', '-c', 'SELECT name FROM items WHERE id = 1'], (error, text) => {
    if (process.env.ENDS_AT && text.trim() === process.env.ENDS_AT) {
      console.error('cannot go on');
      process.exit(3);
    }
    response.writeHead(error ? 500 : 200, { Connection: 'close' });
    response.end(text.trim());
  });
});
server.listen(process.env.PORT, '127.0.0.1');
process.on('SIGINT', () => process.exit(0));
"""


class Site:
    """A store, a database, and an application that reads it."""

    def __init__(self, postgres: Server, pm2: Pm2Home, directory: Path) -> None:
        self.postgres = postgres
        self.pm2 = pm2
        self.directory = directory
        self.dest = str(directory / "store")
        self.port = free_port()
        self.database = postgres.create_database(rows=50)
        self.namespace = "shop"
        self.app = directory / "app.js"
        self.app.write_text(APP)

    def login(self, **more: Any) -> Dict[str, Any]:
        return self.postgres.login(dest=self.dest, environment=ENVIRONMENT, **more)

    def backup(self, *databases: str, **more: Any) -> str:
        """Make one; its id."""
        done = call("pg_backup", self.login(databases=list(databases or [self.database]), **more))
        assert not done["failed"], done
        return str(done["backup"]["id"])

    def options(self, state: str = "restored", **more: Any) -> Dict[str, Any]:
        databases = more.pop("databases", [self.database])
        given = self.login(state=state, databases=databases, confirm=databases)
        pm2 = {"pm2_home": self.pm2.home, "pm2_executable": self.pm2.executable}
        return {**given, **pm2, "namespace": self.namespace, "ready": self.ready(), **more}

    def restore(self, state: str = "restored", check: bool = False, **more: Any) -> Dict[str, Any]:
        return call("pg_restore", self.options(state, **more), check)

    def ready(self, **more: Any) -> Dict[str, Any]:
        return {**READY, "http": [{"url": f"http://127.0.0.1:{self.port}/"}], **more}

    def definition(self, name: str = "web", **env: str) -> Dict[str, Any]:
        environment = self.postgres.environment(self.database)
        variables = {"PORT": self.port, "PSQL": self.postgres.binaries.program("psql"), **environment, **env}
        return {"name": name, "script": str(self.app), "cwd": str(self.directory), "env": variables, **QUICK}

    def start(self, namespace: Optional[str] = None, *apps: Dict[str, Any]) -> None:
        """Bring the application up."""
        options = {
            "pm2_home": self.pm2.home,
            "pm2_executable": self.pm2.executable,
            "namespace": namespace or self.namespace,
            "apps": list(apps or [self.definition()]),
            "ready": READY,
        }
        done = call("pm2_process", options)
        assert not done["failed"], done

    def answer(self) -> str:
        """What the application says, once it listens."""
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert time.monotonic() < deadline
            time.sleep(0.02)

    def name_of_first(self, database: Optional[str] = None) -> str:
        return self.postgres.psql(database or self.database, "SELECT name FROM items WHERE id = 1")

    def rename_first(self, name: str, database: Optional[str] = None) -> None:
        self.postgres.psql(database or self.database, f"UPDATE items SET name = '{name}' WHERE id = 1")

    def around(self, database: Optional[str] = None) -> List[str]:
        """The database and what belongs to it."""
        mine = database or self.database
        return [name for name in self.postgres.databases() if name == mine or name.startswith(mine + "__")]

    def journal(self) -> Path:
        return Path(self.dest, ".nodeops", "restore.journal")


@pytest.fixture
def site(postgres: Server, pm2_7: Pm2Home, tmp_path: Path) -> Iterator[Site]:
    made = Site(postgres, pm2_7, tmp_path)
    yield made
    for name in made.around():
        postgres.drop_database(name)


def test_a_restore_brings_back_what_was_there_and_keeps_what_was_live(site):
    site.start()
    site.start("neighbour", {"name": "sleeper", "script": "/bin/sleep", "args": ["1000"], "cwd": "/"})
    made = site.backup()
    site.rename_first("by mistake")
    before = observe.look(site.pm2.processes("neighbour"))

    done = site.restore()

    assert not done["failed"], done
    assert done["changed"]
    assert done["backup"] == made
    [database] = done["databases"]
    assert database["name"] == site.database
    assert site.around() == [site.database, database["previous"]]
    assert site.name_of_first() == site.answer() == "item 1"
    assert done["stopped"] == done["started"] == ["web"]
    assert 0 < done["downtime"] < 10
    assert list(observe.changes(before, observe.look(site.pm2.processes("neighbour")))) == []
    assert not site.journal().exists()
    assert "not currently accepting connections" in site.postgres.fails(database["previous"], "SELECT 1")
    site.postgres.psql("postgres", f'ALTER DATABASE "{database["previous"]}" ALLOW_CONNECTIONS true')
    assert site.name_of_first(database["previous"]) == "by mistake"


def test_an_undo_takes_it_back_and_a_second_one_redoes_it(site):
    site.start()
    site.backup()
    site.rename_first("since then")
    assert not site.restore()["failed"]

    undone = site.restore("undone")

    assert not undone["failed"], undone
    assert undone["changed"]
    assert undone["backup"] is None
    assert site.name_of_first() == site.answer() == "since then"
    [database] = undone["databases"]
    assert site.around() == [site.database, database["previous"]]

    again = site.restore("undone")
    assert not again["failed"], again
    assert site.name_of_first() == site.answer() == "item 1"
    assert len(site.around()) == 2


def test_an_application_that_is_not_well_afterwards_gets_its_database_back(site):
    site.backup()
    site.rename_first("better")
    site.start(None, site.definition(ENDS_AT="item 1"))

    done = site.restore()

    assert done["failed"]
    assert done["rolled_back"] is True
    assert "web ended after its start" in done["msg"]
    assert "Everything is as before" in done["msg"]
    assert done["failed_process"] == {"name": "web", "instance": 0}
    assert "cannot go on" in done["error_log"]
    assert 0 < done["downtime"] < 20
    assert site.name_of_first() == site.answer() == "better"
    assert site.around() == [site.database]
    assert not site.journal().exists()


def test_what_was_stopped_on_purpose_stays_stopped(site):
    site.start(None, site.definition(), {"name": "resting", "script": "/bin/sleep", "args": ["1000"], "cwd": "/"})
    site.backup()
    call("pm2_process", {**_pm2(site), "namespace": "shop", "names": ["resting"], "state": "stopped"})

    done = site.restore()

    assert not done["failed"], done
    assert done["started"] == ["web"]
    assert {p["name"]: p["pm2_env"]["status"] for p in site.pm2.processes("shop")} == {
        "web": "online",
        "resting": "stopped",
    }


def _pm2(site: Site) -> Dict[str, Any]:
    return {"pm2_home": site.pm2.home, "pm2_executable": site.pm2.executable}


def test_check_mode_and_the_drill_do_not_touch_what_is_live(site):
    site.start()
    site.backup()
    site.rename_first("live")
    oid = _oid(site)
    processes = observe.look(site.pm2.jlist())
    store = _tree(site.dest)

    foreseen = site.restore(check=True)
    assert not foreseen["failed"], foreseen
    assert foreseen["changed"]
    assert [each["name"] for each in foreseen["databases"]] == [site.database]
    assert site.restore("verified", check=True)["changed"] is False
    refused = site.restore("undone", check=True)
    assert refused["failed"]
    assert "no previous database" in refused["msg"]
    assert _tree(site.dest) == store

    drill = site.restore("verified")

    assert not drill["failed"], drill
    assert drill["changed"] is False
    assert drill["problems"] == []
    assert drill["verification"]["how"] == "restored"
    assert _oid(site) == oid
    assert site.name_of_first() == site.answer() == "live"
    assert site.around() == [site.database]
    assert list(observe.changes(processes, observe.look(site.pm2.jlist()))) == []


def _oid(site: Site) -> str:
    return site.postgres.psql("postgres", f"SELECT oid FROM pg_database WHERE datname = '{site.database}'")


def _tree(directory: str) -> Dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file()}


def test_a_drill_that_finds_another_content_says_so_and_spoils_the_backup(site):
    made = site.backup()
    _forge_facts(site, made)

    drill = site.restore("verified", backup=made)

    assert drill["failed"]
    assert '"public"."items" has 50 rows, not 51' in drill["msg"]
    assert drill["problems"]
    assert site.around() == [site.database]
    refused = site.restore()
    assert refused["failed"]
    assert "verified as good" in refused["msg"]

    by_name = site.restore(backup=made)
    assert by_name["failed"]
    assert "not what was backed up" in by_name["msg"]
    assert "rolled_back" not in by_name
    assert site.around() == [site.database]
    assert not site.journal().exists()


def _forge_facts(site: Site, made: str) -> None:
    """What the archive holds is not what was counted."""

    def change(facts: Dict[str, Any]) -> None:
        facts["tables"]['"public"."items"']["rows"] += 1

    _sign_anew(site, made, change)


def _sign_anew(site: Site, made: str, change: Callable[[Dict[str, Any]], Any] = lambda facts: None) -> None:
    """With the store's own key, as if the archive had always been what it is now."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing

    path = Path(site.dest, made, "manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest["content"]["databases"][site.database])
    archive = _archive(site, made).read_bytes()
    manifest["files"][0].update(size=len(archive), sha256=hashlib.sha256(archive).hexdigest())
    manifest["hmac"] = _signing.load(site.dest + ".key").sign(manifest)
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _archive(site: Site, made: str) -> Path:
    return Path(site.dest, made, "1.dump")


def _verification(site: Site, made: str) -> Dict[str, Any]:
    return dict(json.loads(Path(site.dest, made, "verified.json").read_text()))


def _damaged(site: Site, made: str) -> None:
    """A byte of its packed rows is another."""
    path = _archive(site, made)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def _with_a_word_for_a_number(site: Site, made: str) -> None:
    """As if memory had failed while it was dumped."""
    path = _archive(site, made)
    site.postgres.run("pg_dump", "--format=custom", "--compress=0", f"--file={path}", database=site.database)
    content = path.read_bytes()
    assert content.count(b"17\titem 17\t17") == 1
    path.write_bytes(content.replace(b"17\titem 17\t17", b"xx\titem 17\t17"))


@pytest.mark.parametrize("state", full_but(["restored"], ["verified", "restored"]))
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_damaged, "could not uncompress data: i"),
        (_with_a_word_for_a_number, 'COPY failed for table "items": ERROR:  invalid input syntax for type integer)'),
    ],
    ids=["an archive that is damaged", "a row that is none"],
)
def test_a_backup_that_no_server_can_load_is_not_good(site, state, spoil, words):
    older, made = site.backup(), site.backup()
    spoil(site, made)
    _sign_anew(site, made)

    failed = site.restore(state, backup=made, namespace=None, ready=READY)

    assert failed["failed"]
    assert "could not be loaded into a scratch database" in failed["msg"]
    assert f"The live database was not touched. Backup {made} does not count as good any more." in failed["msg"]
    [problem] = failed["problems"]
    assert problem.startswith(f"{site.database}: it cannot be loaded (")
    assert words in problem
    assert failed["verification"] == _verification(site, made)
    assert _verification(site, made)["problems"] == [problem]
    assert site.around() == [site.database]
    assert not site.journal().exists()
    assert site.restore("verified")["backup"] == older
    assert call("pg_backup", site.login(databases=[site.database], state="verified", backup=made))["failed"]


def test_a_backup_whose_rows_do_not_go_together_is_not_good(site):
    """It is what the live database is: whoever may turn triggers off can make it so."""
    site.postgres.psql(
        site.database,
        "CREATE TABLE parts (item integer REFERENCES items); SET session_replication_role = replica;"
        " INSERT INTO parts VALUES (999)",
    )
    made = site.backup()
    failed = site.restore("verified")
    [problem] = failed["problems"]
    assert problem.endswith('insert or update on table "parts" violates foreign key constraint "parts_item_fkey")')
    assert _verification(site, made)["problems"]


def _without_a_role(site: Site, owner: str) -> str:
    site.postgres.psql(site.database, f"CREATE ROLE {owner}_gone; ALTER TABLE items OWNER TO {owner}_gone")
    made = site.backup()
    site.postgres.psql(site.database, f"ALTER TABLE items OWNER TO {owner}; DROP ROLE {owner}_gone")
    _sign_anew(site, made, lambda facts: facts.update(roles=[]))  # else it is refused before
    return made


def _without_a_right(site: Site, owner: str) -> str:
    site.postgres.psql(
        site.database,
        "CREATE FUNCTION me() RETURNS integer LANGUAGE internal AS 'pg_backend_pid';"
        f" ALTER FUNCTION me() OWNER TO {owner}",
    )
    return site.backup()


def _without_an_extension(site: Site, owner: str) -> str:
    site.postgres.psql(site.database, "CREATE SCHEMA extension_gone")
    made = site.backup()
    path = _archive(site, made)
    schema, extension = b"CREATE SCHEMA extension_gone;", b"CREATE EXTENSION ension_gone;"
    assert len(schema) == len(extension)
    path.write_bytes(path.read_bytes().replace(schema, extension))
    _sign_anew(site, made)
    return made


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        (_without_a_role, '_gone" does not exist'),
        (_without_a_right, "permission denied for language internal"),
        (_without_an_extension, "ension_gone"),
    ],
    ids=["a role", "a right", "an extension"],
)
def test_what_a_server_lacks_is_not_held_against_a_backup(site, owner, lacking, words):
    made = lacking(site, owner)
    before = _verification(site, made)

    failed = site.restore("verified", login_user=owner if lacking is _without_a_right else "postgres")

    assert failed["failed"]
    assert "could not be loaded into a scratch database" in failed["msg"]
    assert words in failed["msg"]
    assert "does not count as good" not in failed["msg"]
    assert "problems" not in failed
    assert _verification(site, made) == before
    assert before["problems"] == []
    assert site.around() == [site.database]


def test_several_databases_are_swapped_together(site):
    other = site.postgres.create_database(rows=7)
    try:
        both = [site.database, other]
        alone: Dict[str, Any] = {"namespace": None, "ready": READY}
        site.backup(*both)
        for name in both:
            site.rename_first("later", name)

        done = site.restore(databases=both, **alone)

        assert not done["failed"], done
        assert [each["name"] for each in done["databases"]] == both
        assert [site.name_of_first(name) for name in both] == ["item 1", "item 1"]
        # In one transaction: both rows of the catalogue were written by the same one.
        xmin = site.postgres.psql(
            "postgres", f"SELECT DISTINCT xmin FROM pg_database WHERE datname IN ('{site.database}', '{other}')"
        )
        assert len(xmin.splitlines()) == 1
        assert not site.restore("undone", databases=both, **alone)["failed"]
        assert [site.name_of_first(name) for name in both] == ["later", "later"]

        # After another restore of one alone, an undo of both would take the other back further than anybody meant.
        assert not site.restore(backup="latest", **alone)["failed"]
        existing = site.postgres.databases()
        for check in (True, False):
            mixed = site.restore("undone", check=check, databases=both, **alone)
            assert mixed["failed"]
            assert f"the last one was of {site.database} alone. Nothing was changed" in mixed["msg"]
        assert site.postgres.databases() == existing
        assert [site.name_of_first(name) for name in both] == ["item 1", "later"]
        assert not site.restore("undone", **alone)["failed"]
        assert [site.name_of_first(name) for name in both] == ["later", "later"]
    finally:
        for name in site.around(other):
            site.postgres.drop_database(name)


def test_a_database_that_is_gone_is_made_anew_as_it_was(site):
    run = site.postgres.psql
    role = f"keeper_{os.getpid()}_{next(_numbers)}"
    run("postgres", f"CREATE ROLE {role}")
    run("postgres", f'ALTER DATABASE "{site.database}" OWNER TO {role}')
    run("postgres", f"COMMENT ON DATABASE \"{site.database}\" IS 'it''s ours'")
    run("postgres", f'ALTER DATABASE "{site.database}" SET search_path TO "$user", public, \'a, b\'')
    run("postgres", f"ALTER ROLE {role} IN DATABASE \"{site.database}\" SET work_mem TO '7MB'")
    run("postgres", f'REVOKE CONNECT ON DATABASE "{site.database}" FROM PUBLIC')
    run("postgres", f'GRANT CONNECT ON DATABASE "{site.database}" TO {role}')
    before = _from_outside(site)
    site.backup()
    site.postgres.drop_database(site.database)

    done = site.restore(namespace=None, ready=READY)

    assert not done["failed"], done
    assert done["databases"] == [{"name": site.database, "previous": None}]
    assert site.name_of_first() == "item 1"
    assert _from_outside(site) == before
    assert site.around() == [site.database]
    site.postgres.drop_database(site.database)
    run("postgres", f"DROP ROLE {role}")


def _from_outside(site: Site) -> str:
    return site.postgres.psql(
        "postgres",
        "SELECT pg_get_userbyid(datdba), encoding, datcollate, datctype, datconnlimit, datacl,"
        " shobj_description(d.oid, 'pg_database'), array_agg(setrole::regrole || ':' || setconfig::text ORDER BY 1)"
        " FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid"
        f" WHERE datname = '{site.database}' GROUP BY d.oid",
    )


def test_without_the_home_of_pm2_only_a_database_that_is_gone_is_restored(site):
    site.backup()
    nowhere = {"pm2_home": str(site.directory / "nowhere")}
    refused = site.restore(**nowhere)
    assert refused["failed"]
    assert "nowhere does not exist. Nothing was changed" in refused["msg"]
    site.postgres.drop_database(site.database)

    done = site.restore(**nowhere)

    assert not done["failed"], done
    assert site.name_of_first() == "item 1"
    assert done["stopped"] == []
    assert any("Nothing runs in namespace shop" in warning for warning in done["warnings"])
    assert not (site.directory / "nowhere").exists()


def test_the_live_database_keeps_what_it_has_from_outside(site):
    site.backup()
    run = site.postgres.psql
    run("postgres", f"ALTER DATABASE \"{site.database}\" SET statement_timeout TO '1min'")
    run("postgres", f'ALTER DATABASE "{site.database}" CONNECTION LIMIT 33')
    run("postgres", f'REVOKE TEMPORARY ON DATABASE "{site.database}" FROM PUBLIC')
    before = _from_outside(site)

    done = site.restore(namespace=None, ready=READY)

    assert not done["failed"], done
    assert _from_outside(site) == before


def test_only_as_many_previous_databases_stay_as_asked_for(site):
    site.backup()
    kept = []
    for _round in range(3):
        done = site.restore(namespace=None, ready=READY, keep_previous=2)
        assert not done["failed"], done
        kept.append(done["databases"][0]["previous"])
    assert site.around() == [site.database, *kept[1:]]


def test_recovered_finds_nothing_to_do_after_a_restore(site):
    site.backup()
    assert not site.restore(namespace=None, ready=READY)["failed"]

    for databases in ([site.database], None):
        done = site.restore("recovered", databases=databases, confirm=None, namespace=None)
        assert not done["failed"], done
        assert done["changed"] is False
        assert done["recovered"] is None


def test_recovered_without_a_journal_drops_what_was_left_and_opens_what_was_closed(site):
    scratch = f"{site.database}__new_20260101000000"
    site.backup()
    site.postgres.create_database(scratch, rows=1)
    site.postgres.psql("postgres", f'ALTER DATABASE "{site.database}" ALLOW_CONNECTIONS false')

    foreseen = site.restore("recovered", check=True, namespace=None)
    assert foreseen["changed"]
    assert foreseen["recovered"]["dropped"] == [scratch]
    done = site.restore("recovered", namespace=None)

    assert not done["failed"], done
    assert done["changed"]
    assert done["recovered"]["dropped"] == [scratch]
    assert done["recovered"]["opened"] == [site.database]
    assert site.around() == [site.database]
    assert site.name_of_first() == "item 1"


def test_what_somebody_has_closed_only_recovered_opens(site):
    site.backup()
    assert not site.restore(namespace=None, ready=READY)["failed"]
    site.postgres.psql("postgres", f'ALTER DATABASE "{site.database}" ALLOW_CONNECTIONS false')

    assert not site.restore("verified", namespace=None)["failed"]
    refused = site.restore(namespace=None, ready=READY)
    assert refused["failed"]
    assert "is closed to connections" in refused["msg"]
    assert "state recovered opens" in refused["msg"]
    assert "not currently accepting connections" in site.postgres.fails(site.database, "SELECT 1")

    assert site.restore("recovered", namespace=None)["recovered"]["opened"] == [site.database]
    assert site.name_of_first() == "item 1"


# -- a login that is no superuser --------------------------------------------------------------------------------------


@pytest.fixture(name="owner")
def _owner(site: Site) -> Iterator[str]:
    """Owns the database, and may make others."""
    role = f"owner_{os.getpid()}_{next(_numbers)}"
    run = site.postgres.psql
    run("postgres", f"CREATE ROLE {role} LOGIN CREATEDB; CREATE ROLE {role}_app LOGIN")
    run("postgres", f'ALTER DATABASE "{site.database}" OWNER TO {role}')
    run(site.database, f"ALTER TABLE items OWNER TO {role}; GRANT {role} TO postgres")
    yield role
    for name in site.around():
        site.postgres.drop_database(name)
    run("postgres", f"DROP ROLE {role}_app; DROP ROLE {role}")


@contextlib.contextmanager
def connected(site: Site, user: str) -> Iterator[subprocess.Popen[str]]:
    """Somebody who stays."""
    psql = subprocess.Popen(
        [site.postgres.binaries.program("psql"), "-XqAt"],
        env={**site.postgres.environment(site.database, user)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert psql.stdin
    assert psql.stdout
    try:
        print("SELECT 'here';", file=psql.stdin, flush=True)
        assert psql.stdout.readline() == "here\n"
        yield psql
    finally:
        psql.kill()
        psql.communicate()


@pytest.mark.full
def test_an_owner_restores_his_database_while_autovacuum_works_on_it(site, owner):
    run = site.postgres.psql
    options = {"namespace": None, "ready": READY, "login_user": owner}
    site.backup(login_user=owner)
    run(
        site.database,
        f"SET ROLE {owner}; CREATE TABLE big AS SELECT i, repeat('x', 100) FROM generate_series(1, 100000) i;"
        "ALTER TABLE big SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,"
        " autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0); DELETE FROM big WHERE i % 2 = 0",
    )
    run("postgres", "ALTER SYSTEM SET autovacuum_naptime = 1")
    run("postgres", "ALTER SYSTEM SET autovacuum = on")
    try:
        run("postgres", "SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while not run("postgres", f"{_WORKERS} AND datname = '{site.database}' AND query LIKE '%VACUUM%public.big%'"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        done = site.restore(**options)
    finally:
        run("postgres", "ALTER SYSTEM RESET ALL")
        run("postgres", "SELECT pg_reload_conf()")

    assert not done["failed"], done
    assert site.name_of_first() == "item 1"


_WORKERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


def test_a_superuser_who_is_connected_is_in_the_way_of_others(site, owner):
    site.postgres.psql("postgres", f"GRANT pg_signal_backend TO {owner}")
    site.backup(login_user=owner)
    with connected(site, "postgres"):
        refused = site.restore(namespace=None, ready=READY, login_user=owner)
    assert refused["failed"]
    assert f"postgres is connected to {site.database}" in refused["msg"]
    assert "Nothing was changed" in refused["msg"]
    assert not site.restore(namespace=None, ready=READY, login_user=owner)["failed"]


def test_who_may_not_be_ended_protects_nobody_else(site, owner):
    site.postgres.psql("postgres", f"GRANT pg_signal_backend TO {owner}")
    login = {**site.postgres.login(), "login_user": owner}
    with connected(site, "postgres"), connected(site, f"{owner}_app") as other, connection(login) as reached:
        with _server.Server(_programs.find(login["pg_bindir"]), reached) as server:
            with pytest.raises(NodeopsError, match=r"1 connections did not end within 0\.5 s: .* by postgres"):
                _swap.disconnect(server, [site.database], 0.5)
        assert other.stdin
        print("SELECT 1;", file=other.stdin, flush=True)
        assert other.wait(10) != 0


def test_a_setting_of_another_role_is_refused_before_anything_is_loaded(site, owner):
    setting = f'ALTER ROLE {owner}_app IN DATABASE "{site.database}"'
    site.backup(login_user=owner)
    site.postgres.psql("postgres", f"{setting} SET work_mem TO '7MB'")

    refused = site.restore(namespace=None, ready=READY, login_user=owner)

    assert refused["failed"]
    assert "cannot get the settings" in refused["msg"]
    assert f"may alter {owner}_app" in refused["msg"]
    assert "The live database was not touched" in refused["msg"]
    assert "load" not in [step["name"] for step in refused["steps"]]
    assert site.around() == [site.database]
    done = site.restore(namespace=None, ready=READY)
    assert not done["failed"], done
    assert "work_mem=7MB" in _from_outside(site)


def test_recovered_of_all_databases_leaves_alone_what_is_of_others(site, owner):
    foreign, own = (f"{site.database}__new_2026010100000{number}" for number in (1, 2))
    site.postgres.create_database(foreign, rows=-1)
    site.postgres.create_database(own, owner=owner, rows=-1)
    site.backup()
    options = {"confirm": None, "namespace": None, "login_user": owner}

    done = site.restore("recovered", databases=None, **options)

    assert not done["failed"], done
    assert done["recovered"]["dropped"] == [own]
    assert any(foreign in warning and "left alone" in warning for warning in done["warnings"])
    assert foreign in site.around()


def test_a_database_without_the_schema_public(site):
    run = site.postgres.psql
    run(site.database, "CREATE SCHEMA shop; ALTER TABLE items SET SCHEMA shop; DROP SCHEMA public")
    site.backup()
    done = site.restore(namespace=None, ready=READY)
    assert not done["failed"], done
    assert run(site.database, "SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname !~ '^pg_'") in (
        "information_schema,shop",
        "shop,information_schema",
    )
    assert run(site.database, "SELECT count(*) FROM shop.items") == "50"


@pytest.mark.full
def test_a_locale_is_that_of_the_database_not_of_the_server(tmp_path):
    """A server that was made with ICU makes new databases with it too."""
    found = binaries()
    if found.major < 15 or "--with-icu" not in subprocess.check_output(
        [found.program("pg_config"), "--configure"], text=True
    ):
        pytest.skip("this PostgreSQL has no databases with ICU")
    icu = ["--locale-provider=icu", "--icu-locale=de", "--encoding=UTF8", "--locale=C.UTF-8"]
    with Server(found=found, initdb=icu) as server:
        name = server.create_database(options="TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'")
        options = server.login(dest=str(tmp_path / "store"), databases=[name])
        provider = f"SELECT datlocprovider, datcollate FROM pg_database WHERE datname = '{name}'"
        assert server.psql("postgres", provider) == "c|C"
        assert not call("pg_backup", options)["failed"]
        done = call("pg_restore", {**options, "confirm": [name]})
        assert not done["failed"], done
        assert server.psql("postgres", provider) == "c|C"


def test_kept_wal_takes_its_room(site):
    site.postgres.psql("postgres", "ALTER SYSTEM SET wal_keep_size = '64GB'")
    login = site.postgres.login()
    try:
        site.postgres.psql("postgres", "SELECT pg_reload_conf()")
        with connection(login) as reached, _server.Server(_programs.find(login["pg_bindir"]), reached) as server:
            space = _disk_space.find(server, "pg_default")
    finally:
        site.postgres.psql("postgres", "ALTER SYSTEM RESET ALL")
        site.postgres.psql("postgres", "SELECT pg_reload_conf()")
    assert space
    assert space.most_wal in (None, 64 << 30)  # None: another test has a replication slot


def test_status_tells_what_there_is(site):
    made = site.backup()
    assert not site.restore(namespace=None, ready=READY)["failed"]
    store = _tree(site.dest)

    done = site.restore("status", namespace=None)

    assert not done["failed"], done
    assert done["changed"] is False
    [database] = done["status"]["databases"]
    assert (database["name"], database["exists"], database["accepts_connections"]) == (site.database, True, True)
    assert database["newest_good_backup"] == made
    assert [each["name"] for each in database["previous"]] == site.around()[1:]
    assert database["size"] > 1_000_000
    assert database["scratch"] == []
    assert done["status"]["interrupted"] is None
    assert _tree(site.dest) == store


def test_an_encrypted_backup_over_tls_with_a_password(site):
    identity = site.directory / "identity"
    public = _age_key(identity)
    recipients = {"age_recipients": [public]}
    tcp = site.postgres.login_tcp()
    made = call("pg_backup", {**site.login(databases=[site.database], **recipients), **tcp, "login_unix_socket": None})
    assert not made["failed"], made
    site.rename_first("later")

    refused = site.restore(namespace=None, ready=READY)
    assert refused["failed"]
    assert "age_identity_file" in refused["msg"]
    over = {**tcp, "login_unix_socket": None, "age_identity_file": str(identity)}
    done = site.restore(namespace=None, ready=READY, **over)

    assert not done["failed"], done
    assert site.name_of_first() == "item 1"
    assert site.postgres.password not in json.dumps(done)
    assert sorted(os.listdir(site.dest)) == [".nodeops", made["backup"]["id"]]


def _age_key(path: Path) -> str:
    from support import debian

    program = debian.program("age-keygen", "age")
    if program is None:
        pytest.skip(debian.why_not("age-keygen", "age"))
    done = subprocess.run([program, "-o", str(path)], capture_output=True, text=True, check=True)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return done.stderr.split()[-1]
