"""Everything a database can hold is the same after backup, loss and restore: by COPY, catalogs and pg_dump's text.

Core: a database in UTF8, and some differences that have to be found. Full: other encodings, and each difference.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _contents, _programs
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session
from support.modules import call
from support.postgres import ADMIN, Server, identifier, literal
from support.tiers import full_but

EVERYTHING = Path(__file__).with_name("everything.sql").read_text()
ROLE, READER = 'owner "of" some', "reader's"

_TABLES = """SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
AND (relkind = 'r' OR relispopulated) ORDER BY 1"""
_SEQUENCES = """SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'S' ORDER BY 1"""
_LARGE_OBJECTS = """SELECT oid, pg_get_userbyid(lomowner), lomacl, md5(lo_get(oid)),
obj_description(oid, 'pg_largeobject')
FROM pg_largeobject_metadata ORDER BY oid"""
_OUTSIDE = """SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider,
datacl, datconnlimit, datallowconn, datistemplate, spcname, shobj_description(d.oid, 'pg_database'),
(SELECT array_agg((coalesce(rolname, ''), setconfig)::text ORDER BY rolname) FROM pg_db_role_setting
 LEFT JOIN pg_roles r ON r.oid = setrole WHERE setdatabase = d.oid)
FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = current_database()"""


class Seen(NamedTuple):
    """All of a database, as text."""

    schema: str
    tables: Dict[str, List[str]]
    sequences: Dict[str, str]
    large_objects: str
    outside: str


def look(postgres: Server, name: str) -> Seen:
    """By PostgreSQL's own programs."""
    schema = postgres.run("pg_dump", "--schema-only", "--create", f"--dbname=dbname={quoted(name)}")
    schema = re.sub(r"(?m)^\\(un)?restrict .*$", "", schema)
    tables = postgres.psql(name, _TABLES).splitlines()
    contents = answers(postgres, name, [f"COPY (SELECT * FROM ONLY {table}) TO STDOUT" for table in tables])
    sequences = postgres.psql(name, _SEQUENCES).splitlines()
    positions = answers(postgres, name, [f"SELECT last_value, is_called FROM {each}" for each in sequences])
    return Seen(
        schema,
        {table: sorted(content.split("\n")) for table, content in zip(tables, contents, strict=True)},
        dict(zip(sequences, positions, strict=True)),
        postgres.psql(name, _LARGE_OBJECTS),
        postgres.psql(name, _OUTSIDE),
    )


def answers(postgres: Server, name: str, questions: List[str]) -> List[str]:
    """Those to each of many questions, by one psql."""
    between = "-- between --"
    text = postgres.psql(name, "".join(f"{question};\n\\echo '{between}'\n" for question in questions))
    found = text.split(f"{between}")
    assert found.pop() == ""
    return found


def quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.fixture(name="roles", scope="module")
def _roles(postgres: Server) -> Iterator[None]:
    for role in (ROLE, READER):
        postgres.psql("postgres", f"CREATE ROLE {identifier(role)} LOGIN")
    yield None
    for role in (ROLE, READER):
        postgres.psql("postgres", f"DROP ROLE {identifier(role)}")


def make(postgres: Server, name: str, options: str, more: str = "") -> None:
    """A database with everything, owned by a role that does not connect."""
    postgres.psql(
        "postgres", f"CREATE DATABASE {identifier(name)} OWNER {identifier(ROLE)} TEMPLATE template0 {options}"
    )
    done = subprocess.run(
        [
            postgres.binaries.program("psql"),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            f"role={ROLE}",
            "-v",
            f"reader={READER}",
        ],
        input=EVERYTHING + more,
        env=postgres.environment(name),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for sql in (
        f"GRANT CONNECT, TEMP ON DATABASE {{0}} TO {identifier(READER)}",
        "REVOKE ALL ON DATABASE {0} FROM PUBLIC",
        "ALTER DATABASE {0} SET work_mem = '7MB'",
        "ALTER DATABASE {0} SET search_path = extra, public",
        "ALTER DATABASE {0} SET timezone = 'Asia/Tokyo'",
        f"ALTER ROLE {identifier(READER)} IN DATABASE {{0}} SET datestyle = 'SQL, DMY'",
        "ALTER DATABASE {0} CONNECTION LIMIT 55",
        "COMMENT ON DATABASE {0} IS 'it''s the \"shop\"'",
    ):
        postgres.psql("postgres", sql.format(identifier(name)))


def drop(postgres: Server, name: str) -> None:
    """It, and the one that a restore kept of it."""
    for each in postgres.databases():
        if each == name or each.startswith(f"{name}__"):
            postgres.drop_database(each)


CONTRIB = """
CREATE SCHEMA contrib;
CREATE EXTENSION hstore SCHEMA contrib;
CREATE EXTENSION citext SCHEMA contrib;
CREATE EXTENSION pg_trgm SCHEMA contrib;
CREATE TABLE with_extensions (a contrib.hstore, b contrib.citext UNIQUE);
INSERT INTO with_extensions VALUES ('a=>1, "b c"=>NULL', 'MiXed');
CREATE INDEX ON with_extensions USING gin ((b::text) contrib.gin_trgm_ops);
"""
UNICODE = """
CREATE TABLE "größe 店" (t text);
INSERT INTO "größe 店" VALUES ('\u00e4 \u5e97 \U0001f600 e\u0301');
COMMENT ON TABLE "größe 店" IS '店';
"""
LATIN1 = """
CREATE TABLE "größe" (t text);
INSERT INTO "größe" VALUES ('\u00e4\u00a3'), (chr(255));
COMMENT ON TABLE "größe" IS '\u00fc';
"""
ICU = """
CREATE COLLATION extra.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE loose (t text COLLATE extra.loose PRIMARY KEY);
INSERT INTO loose VALUES ('Abc'), ('x');
"""
XML = """
CREATE TABLE with_xml (x xml);
INSERT INTO with_xml VALUES ('<a b="c">&lt;</a>'), ('text'), (NULL);
"""


def has(postgres: Server, sql: str) -> bool:
    """Whether this build of PostgreSQL has it."""
    return postgres.psql("postgres", sql) == "t"


def extras(postgres: Server) -> str:
    """What can be had besides."""
    found = ""
    if has(postgres, "SELECT count(*) = 3 FROM pg_available_extensions WHERE name IN ('hstore', 'citext', 'pg_trgm')"):
        found += CONTRIB
    if has(postgres, "SELECT count(*) > 1 FROM pg_collation WHERE collprovider = 'i'"):
        found += ICU
    if "--with-libxml" in postgres.run("pg_config", "--configure"):
        found += XML
    return found


LOSS = f"""
DELETE FROM types; DROP TABLE events, twice; SELECT setval('down', 0), lo_unlink(70001);
DROP FUNCTION secure; REVOKE ALL ON parent FROM {identifier(READER)}; DROP VIEW plain CASCADE; DROP PUBLICATION few;
CREATE TABLE new (a int);
"""


@pytest.mark.parametrize(
    ("name", "options", "own", "over"),
    [
        pytest.param("round trip", "ENCODING 'UTF8'", UNICODE, "socket", id="UTF8"),
        pytest.param(
            "Größe \"\\ o'd x=y",
            "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
            LATIN1,
            "tls",
            id="LATIN1",
            marks=pytest.mark.full,
        ),
        pytest.param(
            "ascii",
            "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
            "",
            "socket",
            id="SQL_ASCII",
            marks=pytest.mark.full,
        ),
    ],
)
def test_everything(postgres: Server, roles: None, tmp_path: Path, name: str, options: str, own: str, over: str):
    try:
        make(postgres, name, options, own + ("" if "ASCII" in options else extras(postgres)))
        before = look(postgres, name)
        login = postgres.login() if over == "socket" else postgres.login_tcp()
        store = {**login, "dest": str(tmp_path / "store"), "databases": [name], "environment": "test"}
        backed_up = call("pg_backup", store)
        assert backed_up["changed"], backed_up
        postgres.psql(name, f"SET search_path = public; {LOSS}")
        lost = look(postgres, name)
        assert all(one != other for one, other in zip(before[:4], lost[:4], strict=True))
        restored = call("pg_restore", {**store, "confirm": [name]})
        assert restored["changed"], restored
        same(before, look(postgres, name))
        undone = call("pg_restore", {**store, "confirm": [name], "state": "undone"})
        assert undone["changed"], undone
        same(lost, look(postgres, name))
    finally:
        drop(postgres, name)


def same(before: Seen, after: Seen) -> None:
    """Assert it, part by part, so that a difference can be read."""
    assert after.outside == before.outside
    assert after.schema.splitlines() == before.schema.splitlines()
    assert after.tables.keys() == before.tables.keys()
    for table, found in before.tables.items():
        assert after.tables[table] == found, table
    assert after.sequences == before.sequences
    assert after.large_objects == before.large_objects


ALTERED = {
    "a row less": ("DELETE FROM twice WHERE a = 2", "has 2 rows, not 3"),
    "a row more": ("INSERT INTO twice VALUES (1)", "has 4 rows, not 3"),
    "other rows, as many": ("UPDATE twice SET a = 2 WHERE ctid = '(0,1)'", "but other content"),
    "NULL for empty": ("UPDATE types SET i = NULL WHERE i = ''", "but other content"),
    "one bit of a long value": (
        "UPDATE types SET j = overlay(j PLACING 'z' FROM 6000) WHERE i = '299'",
        "other content",
    ),
    "zero for minus zero": ("UPDATE types SET f = 0 WHERE a = 0", "but other content"),
    "a row of a partition": ("DELETE FROM events WHERE id = 1", "rows, not"),
    "a row of a child": ("DELETE FROM child", "has 0 rows, not 1"),
    "a table without columns": ("DROP RULE no_delete ON nothing; DELETE FROM nothing", "has 0 rows, not 1"),
    "a table less": ("DROP TABLE empty", "is missing"),
    "a table more": ("CREATE TABLE more ()", "is unexpected"),
    "a sequence behind": ("SELECT setval('serials_a_seq', 3)", "is at 3, behind 20"),
    "a sequence behind, downwards": ("SELECT setval('down', 10)", "is at 10, behind"),
    "a sequence less": ("DROP SEQUENCE unused", "is missing"),
    "a large object less": ("SELECT lo_unlink(70003)", "the large objects differ"),
    "a large object changed": ("SELECT lo_put(70001, 0, '\\x01')", "the large objects differ"),
    "an index less": ("DROP INDEX types_json", "indexes, not"),
    "a view less": ("DROP VIEW extra.over", "views, not"),
    "a function less": ("DROP FUNCTION standard", "functions, not"),
    "a trigger less": ("DROP TRIGGER off ON parent", "triggers, not"),
    "a policy less": ("DROP POLICY own ON two", "policies, not"),
    "a rule less": ("DROP RULE no_delete ON nothing", "rules, not"),
    "a constraint less": ("ALTER TABLE child DROP CONSTRAINT child_kind", "constraints, not"),
    "a foreign key less": ("ALTER TABLE two DROP CONSTRAINT two_one_fkey", "constraints, not"),
    "a publication less": ("DROP PUBLICATION few", "publications, not"),
    "an event trigger less": ("DROP EVENT TRIGGER tells", "event triggers, not"),
    "a cast less": ("DROP CAST (text AS extra.pair)", "casts, not"),
    "an operator less": ("DROP OPERATOR === (int, int)", "operators, not"),
    "a type less": ("ALTER TABLE types DROP COLUMN at; DROP TYPE extra.floatrange", "types, not"),
    "a materialized view less": ("DROP MATERIALIZED VIEW unfilled", "materialized views, not"),
    "an empty schema less": ("DROP SCHEMA spare", "schemas, not"),
}


@pytest.fixture(name="whole", scope="module")
def _whole(postgres: Server, roles: None) -> Iterator[str]:
    try:
        make(postgres, "whole", "ENCODING 'UTF8'", "CREATE SCHEMA spare;")
        yield "whole"
    finally:
        drop(postgres, "whole")


def facts(postgres: Server, name: str) -> Dict[str, Any]:
    with connection(postgres.login()) as reached:
        with Session(_programs.find(str(postgres.binaries.directory)), reached, name) as session:
            return _contents.facts(session)


@pytest.fixture(name="known", scope="module")
def _known(postgres: Server, whole: str) -> Tuple[Dict[str, Any], Seen]:
    """What is recorded of the whole, and what these tests see of it."""
    return facts(postgres, whole), look(postgres, whole)


@pytest.fixture(name="altered")
def _altered(postgres: Server, whole: str) -> Iterator[str]:
    """A copy of the whole."""
    postgres.psql("postgres", f"CREATE DATABASE altered TEMPLATE {whole}")
    yield "altered"
    postgres.drop_database("altered")


def test_the_facts_of_a_copy_are_the_same(postgres: Server, known: Tuple[Dict[str, Any], Seen], altered: str):
    assert _contents.compare(known[0], facts(postgres, altered)) == []


COMMON = [
    *("a row more", "other rows, as many", "NULL for empty", "a table less", "a sequence behind"),
    *("a large object changed", "an index less", "a trigger less"),
]


@pytest.mark.parametrize("what", full_but(COMMON, ALTERED))
def test_the_facts_find_a_difference(
    postgres: Server, whole: str, known: Tuple[Dict[str, Any], Seen], altered: str, what: str
):
    """Both comparisons do: the one of these tests, which has to see what a restore loses, and that of pg_restore."""
    expected, seen = known
    sql, words = ALTERED[what]
    postgres.psql(altered, f"SET search_path = public; {sql}")
    told = _contents.compare(expected, facts(postgres, altered))
    assert any(words in each for each in told), told
    now = look(postgres, altered)
    assert now[1:4] != seen[1:4] or now.schema.replace(altered, whole) != seen.schema, "not seen by these tests"


def test_what_is_recorded(postgres: Server, whole: str):
    found = facts(postgres, whole)
    assert found["roles"] == sorted([ROLE, READER, ADMIN])  # the last owns what nobody was given
    assert found["owner"] == ROLE
    assert found["comment"] == 'it\'s the "shop"'
    assert found["connection_limit"] == 55
    assert ["", "work_mem=7MB"] in found["settings"]
    assert [READER, "DateStyle=SQL, DMY"] in found["settings"]
    assert any(each.startswith((f'"{READER}"=', READER)) for each in found["acl"]), found["acl"]
    assert found["large_objects"]["count"] == 3
    assert found["tables"]['"Odd ""schema"" \\\\"."Tab""le \\\\ \'"']["rows"] == 1
    assert found["objects"]["partitioned tables"] == 3
    own = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {literal(whole)}"
    assert postgres.psql("postgres", own) == ROLE != ADMIN
