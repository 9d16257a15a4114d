# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.
"""What is in a database: rows, checksums, sequences, large objects, counts; and whether another has the same."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import Session, identifier, literal

Facts = Dict[str, Any]
_LARGE = 256 << 20  # bytes of a large object that are read: more does not fit into one value
_SHOWN = 10
_IN_ONE_LOCK = 500

# Objects of users: not of the system, not temporary. %(oid)s is the object, %(class)s its catalog.
_OURS = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
_NO_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '%(class)s'::regclass AND e.objid = %(oid)s "
    "AND e.deptype = 'e')"
)


def _no_extension(catalog: str, oid: str) -> str:
    return _NO_EXTENSION % {"class": "pg_catalog." + catalog, "oid": oid}


_TABLES = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND %s AND %s ORDER BY 1, 2"
) % (_OURS, _no_extension("pg_class", "c.oid"))

_SEQUENCES = (
    "SELECT format('%%I.%%I', n.nspname, c.relname), s.seqincrement, s.seqcycle "
    "FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relpersistence <> 't' AND %s AND %s ORDER BY 1"
) % (_OURS, _no_extension("pg_class", "c.oid"))

_NOT_INTERNAL = (
    "NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_catalog.pg_proc'::regclass AND i.objid = x.oid "
    "AND i.deptype = 'i')"
)
_IN_SCHEMA = {  # what is counted: catalog, alias of its rows, its namespace, which of them
    "views": ("pg_class", "relnamespace", "x.relkind = 'v' AND x.relpersistence <> 't'"),
    "materialized views": ("pg_class", "relnamespace", "x.relkind = 'm'"),
    "partitioned tables": ("pg_class", "relnamespace", "x.relkind = 'p'"),
    "foreign tables": ("pg_class", "relnamespace", "x.relkind = 'f'"),
    "composite types": ("pg_class", "relnamespace", "x.relkind = 'c'"),
    "functions": ("pg_proc", "pronamespace", _NOT_INTERNAL),  # not the constructors that belong to a range type
    "types": ("pg_type", "typnamespace", "x.typtype IN ('e', 'd', 'r')"),
    "constraints": ("pg_constraint", "connamespace", "x.contype IN ('p', 'u', 'f', 'c', 'x')"),
    "operators": ("pg_operator", "oprnamespace", "true"),
    "collations": ("pg_collation", "collnamespace", "true"),
    "text search configurations": ("pg_ts_config", "cfgnamespace", "true"),
    "extended statistics": ("pg_statistic_ext", "stxnamespace", "true"),
}
_OF_TABLE = {  # what belongs to a table
    "indexes": ("pg_index", "indrelid", "x.indisvalid"),
    "triggers": ("pg_trigger", "tgrelid", "NOT x.tgisinternal"),
    "rules": ("pg_rewrite", "ev_class", "x.rulename <> '_RETURN'"),
    "policies": ("pg_policy", "polrelid", "true"),
    "generated columns": ("pg_attribute", "attrelid", "x.attgenerated <> ''"),
}
_OF_DATABASE = {
    "event triggers": ("pg_event_trigger", "true"),
    "publications": ("pg_publication", "true"),
    "foreign servers": ("pg_foreign_server", "true"),
    "casts": ("pg_cast", "x.oid >= 16384"),
}


def begin(session: Session) -> str:
    """Begin to read. Returns the name of the snapshot, which others (``pg_dump --snapshot``) may read as well.

    It lasts until ``end`` or the end of the session.
    """
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return session.value("SELECT pg_export_snapshot()") or ""


def end(session: Session) -> None:
    """Release the snapshot."""
    session.execute("ROLLBACK")


def lock(session: Session, timeout: float) -> None:
    """Keep all tables as they are (no DROP, TRUNCATE, rewriting ALTER) until ``end``. Others still read and write.

    Waits up to ``timeout`` seconds for sessions that hold a table exclusively. Raises PgError.
    """
    names = [_table(*row) for row in session.query(_TABLES)]
    session.execute("SET LOCAL lock_timeout = '%dms'" % max(1, int(timeout * 1000)))
    for start in range(0, len(names), _IN_ONE_LOCK):
        only = ", ".join("ONLY " + name for name in names[start : start + _IN_ONE_LOCK])
        session.execute("LOCK TABLE %s IN ACCESS SHARE MODE" % only)
    session.execute("SET LOCAL lock_timeout = 0")


def facts(session: Session) -> Facts:
    """The facts of the session's database, from a snapshot of its own. See ``read``."""
    begin(session)
    try:
        return read(session)
    finally:
        end(session)


def read(session: Session, sequences: Optional[Facts] = None) -> Facts:
    """The same from the snapshot of ``begin``. Reads every row. ``sequences``: as ``read_sequences`` found them before.

    Raises PgError, also if row-level security would hide some rows.
    """
    return {
        **properties(session),
        "size": int(session.value("SELECT pg_database_size(current_database())") or 0),
        "extensions": dict(_pairs(session, "SELECT extname, extversion FROM pg_extension ORDER BY 1")),
        "roles": _roles(session),
        "public": session.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'") == "1",
        "tables": _tables(session),
        "sequences": read_sequences(session) if sequences is None else sequences,
        "large_objects": _large_objects(session),
        "objects": _objects(session),
    }


def properties(session: Session, database: Optional[str] = None) -> Facts:
    """What the cluster knows of a database, by default the session's. Raises PgError if there is none."""
    name = "current_database()" if database is None else literal(database)
    row = session.value("SELECT to_jsonb(d) FROM pg_database d WHERE d.datname = %s" % name)
    if row is None:
        raise PgError("There is no database %r." % database, "3D000")
    found = json.loads(row)
    related = (
        "SELECT pg_get_userbyid(d.datdba), t.spcname, pg_encoding_to_char(d.encoding), "
        "shobj_description(d.oid, 'pg_database'), array_to_json(d.datacl::text[]) "
        "FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = %s" % name
    )
    owner, tablespace, encoding, comment, acl = session.query(related)[0]
    return {
        "server_version": ".".join(map(str, session.version)),
        "encoding": encoding,
        "collate": found["datcollate"],
        "ctype": found["datctype"],
        "provider": {"i": "icu", "b": "builtin"}.get(found.get("datlocprovider", "c"), "libc"),
        "icu_locale": found.get("datlocale") or found.get("daticulocale"),  # 17 and newer; 15 and 16
        "icu_rules": found.get("daticurules"),
        "owner": owner,
        "acl": json.loads(acl) if acl else None,
        "settings": _settings(session, name),
        "comment": comment,
        "connection_limit": found["datconnlimit"],
        "tablespace": tablespace,
    }


def _settings(session: Session, name: str) -> List[List[str]]:
    sql = (
        "SELECT coalesce(r.rolname, ''), array_to_json(s.setconfig) FROM pg_db_role_setting s "
        "JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole "
        "WHERE d.datname = %s ORDER BY 1" % name
    )
    return [[role, setting] for role, listed in _pairs(session, sql) for setting in json.loads(listed)]


def _roles(session: Session) -> List[str]:
    """The roles that own something in the database or have privileges in it: a restore needs them.

    What the superuser of initdb owns is not in pg_shdepend. The schema public exists without being restored.
    """
    owned = [("pg_namespace", "x.nspowner", "x.oid"), ("pg_class", "x.relowner", "x.relnamespace")]
    owned.append(("pg_proc", "x.proowner", "x.pronamespace"))
    which = {"pg_namespace": " AND n.nspname <> 'public'", "pg_class": " AND x.relkind NOT IN ('i', 'I', 'c', 't')"}
    owners = [
        "SELECT %s FROM %s x JOIN pg_namespace n ON n.oid = %s WHERE %s AND %s%s"
        % (owner, catalog, namespace, _OURS, _no_extension(catalog, "x.oid"), which.get(catalog, ""))
        for catalog, owner, namespace in owned
    ]
    sql = (
        "SELECT DISTINCT rolname FROM pg_roles WHERE oid IN (SELECT s.refobjid FROM pg_shdepend s "
        "JOIN pg_database d ON d.datname = current_database() "
        "WHERE s.refclassid = 'pg_authid'::regclass AND (s.dbid = d.oid "
        "OR s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid) UNION %s) ORDER BY 1"
    ) % " UNION ".join(owners)
    return [str(row[0]) for row in session.query(sql)]


def _tables(session: Session) -> Dict[str, Dict[str, Any]]:
    """Rows and checksum of each table. The order of rows does not matter, but a row that is there twice does."""
    found = {}
    for schema, name in _pairs(session, _TABLES):
        table = _table(schema, name)
        # (t.*), not t: there may be a column t.
        sql = "SELECT count(*), sum(hashtextextended((t.*)::text, 0)) FROM ONLY %s t" % table
        rows, checksum = session.query(sql)[0]
        found[table] = {"rows": int(rows or 0), "checksum": checksum or "0"}
        _points.reached("facts table read")
    return found


def read_sequences(session: Session) -> Facts:
    """The position of each sequence now: sequences belong to no snapshot."""
    found = {}
    for name, increment, cycle in session.query(_SEQUENCES):
        last, called = session.query("SELECT last_value, is_called FROM %s" % name)[0]
        direction = 0 if cycle == "t" else (1 if int(increment or 1) > 0 else -1)
        found[str(name)] = {"last": int(last or 0), "called": called == "t", "direction": direction}
    return found


def _large_objects(session: Session) -> Dict[str, Any]:
    sql = (
        "SELECT count(*), sum(hashtextextended(oid || encode(sha256(lo_get(oid, 0, %d)), 'hex'), 0)) "
        "FROM pg_largeobject_metadata" % _LARGE
    )
    count, checksum = session.query(sql)[0]
    return {"count": int(count or 0), "checksum": checksum or "0"}


def _objects(session: Session) -> Dict[str, int]:
    """How many objects there are of each class, without those of extensions."""
    counts = []
    for what, (catalog, namespace, which) in _IN_SCHEMA.items():
        ours = "%s AND %s AND %s" % (_OURS, which, _no_extension(catalog, "x.oid"))
        join = "JOIN pg_namespace n ON n.oid = x.%s" % namespace
        counts.append((what, "SELECT count(*) FROM %s x %s WHERE %s" % (catalog, join, ours)))
    for what, (catalog, relation, which) in _OF_TABLE.items():
        ours = "%s AND %s AND c.relpersistence <> 't' AND %s" % (_OURS, which, _no_extension("pg_class", "c.oid"))
        join = "JOIN pg_class c ON c.oid = x.%s JOIN pg_namespace n ON n.oid = c.relnamespace" % relation
        counts.append((what, "SELECT count(*) FROM %s x %s WHERE %s" % (catalog, join, ours)))
    for what, (catalog, which) in _OF_DATABASE.items():
        ours = "%s AND %s" % (which, _no_extension(catalog, "x.oid"))
        counts.append((what, "SELECT count(*) FROM %s x WHERE %s" % (catalog, ours)))
    counts.append(("schemas", "SELECT count(*) FROM pg_namespace n WHERE %s" % _OURS))
    sql = "SELECT " + ", ".join("(%s)" % each for _what, each in counts)
    return {what: int(value or 0) for (what, _sql), value in zip(counts, session.query(sql)[0])}


def _pairs(session: Session, sql: str) -> List[Tuple[str, str]]:
    return [(str(first), str(second)) for first, second in session.query(sql)]


def _table(schema: Any, name: Any) -> str:
    """The quoted name: for SQL, and the same for every version of the server."""
    return "%s.%s" % (identifier(str(schema)), identifier(str(name)))


def compare(expected: Facts, found: Facts) -> List[str]:
    """What differs between the contents of two databases, in words; empty if nothing does.

    What the cluster knows of them (``properties``) is not compared.
    """
    problems = []
    if expected["encoding"] != found["encoding"]:
        problems.append("the encoding is %s, not %s" % (found["encoding"], expected["encoding"]))
    for extension in sorted(set(expected["extensions"]) - set(found["extensions"])):
        problems.append("the extension %s is missing" % extension)
    problems += _compare_tables(expected["tables"], found["tables"])
    problems += _compare_sequences(expected["sequences"], found["sequences"])
    if expected["large_objects"] != found["large_objects"]:
        before, after = expected["large_objects"]["count"], found["large_objects"]["count"]
        problems.append("the large objects differ: %d, not %d" % (after, before))
    for what, count in sorted(expected["objects"].items()):
        if found["objects"].get(what, 0) != count:
            problems.append("%d %s, not %d" % (found["objects"].get(what, 0), what, count))
    more = len(problems) - _SHOWN
    return problems if more <= 0 else [*problems[:_SHOWN], "and %d more" % more]


def _compare_tables(expected: Dict[str, Any], found: Dict[str, Any]) -> List[str]:
    problems = ["the table %s is missing" % name for name in sorted(set(expected) - set(found))]
    problems += ["the table %s is unexpected" % name for name in sorted(set(found) - set(expected))]
    for name in sorted(set(expected) & set(found)):
        before, after = expected[name], found[name]
        if before["rows"] != after["rows"]:
            problems.append("the table %s has %d rows, not %d" % (name, after["rows"], before["rows"]))
        elif before["checksum"] != after["checksum"]:
            problems.append("the table %s has the right number of rows, %d, but other content" % (name, after["rows"]))
    return problems


def _compare_sequences(expected: Dict[str, Any], found: Dict[str, Any]) -> List[str]:
    """A sequence may be ahead, because it belongs to no snapshot. Behind, it would give numbers a second time."""
    problems = []
    for name, before in sorted(expected.items()):
        after = found.get(name)
        if after is None:
            problems.append("the sequence %s is missing" % name)
        elif (_position(after) - _position(before)) * before["direction"] < 0:
            problems.append("the sequence %s is at %d, behind %d" % (name, after["last"], before["last"]))
    return problems


def _position(sequence: Dict[str, Any]) -> int:
    return 2 * int(sequence["last"]) + int(sequence["called"]) * int(sequence["direction"])
