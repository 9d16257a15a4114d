# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A database from the outside: the properties that it has beside its content, and how another one gets them."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _contents, _names
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Version
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import identifier, literal
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server, is_lost
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _stored_backup

# Their values are lists of names: as one text they would be one name (pg_dump's variable_is_guc_list_quote).
_LISTS = frozenset(
    """local_preload_libraries search_path session_preload_libraries shared_preload_libraries temp_tablespaces
    unix_socket_directories""".split()
)
DEFAULT_TABLESPACE = "pg_default"


def names(server: Server) -> List[str]:
    """All databases of the server, sorted."""
    return sorted(row[0] or "" for row in server.query("SELECT datname FROM pg_database"))


def new_id(server: Server) -> str:
    """For the names that a restore gives. It is greater than those of all databases of the server."""
    parsed = map(_names.parse, names(server))
    return _names.new_id([each.id for each in parsed if each], _stored_backup.now().timestamp())


def read(server: Server, name: str) -> Optional[Facts]:
    """Its _contents.properties, and ``oid``, ``open``, ``template``; None if there is no such database."""
    rows = server.query(
        "SELECT oid, datallowconn::int, datistemplate::int FROM pg_database WHERE datname = %s" % literal(name)
    )
    if not rows:
        return None
    oid, is_open, is_template = rows[0]
    properties = server.ask(lambda session: _contents.properties(session, name))
    return {**properties, "oid": int(oid or 0), "open": is_open == "1", "template": is_template == "1"}


def creation(name: str, facts: Facts, version: Version) -> str:
    """The statement that makes an empty database with the same encoding, locale, owner and tablespace.

    ``version`` is that of the server. Since 15 the cluster has a default provider, which may be another one.
    """
    parts = ["CREATE DATABASE %s WITH TEMPLATE template0" % identifier(name)]
    if facts.get("owner"):
        parts.append("OWNER %s" % identifier(facts["owner"]))
    parts.append("ENCODING %s" % literal(facts["encoding"]))
    parts.append("LC_COLLATE %s LC_CTYPE %s" % (literal(facts["collate"]), literal(facts["ctype"])))
    if facts["provider"] == "icu":
        parts.append("LOCALE_PROVIDER icu ICU_LOCALE %s" % literal(facts["icu_locale"] or ""))
        if facts["icu_rules"]:
            parts.append("ICU_RULES %s" % literal(facts["icu_rules"]))
    elif facts["provider"] == "builtin":
        parts.append("LOCALE_PROVIDER builtin BUILTIN_LOCALE %s" % literal(facts["icu_locale"] or ""))
    elif version >= (15, 0):
        parts.append("LOCALE_PROVIDER libc")
    if facts["tablespace"] != DEFAULT_TABLESPACE:
        parts.append("TABLESPACE %s" % identifier(facts["tablespace"]))
    return " ".join(parts)


def apply_properties(server: Server, name: str, facts: Facts) -> None:
    """Give the database the comment, connection limit, privileges and settings of ``facts``. Raises NodeopsError."""
    _in_transaction(server, name, facts)


def check_properties(server: Server, name: str, facts: Facts) -> None:
    """Raises NodeopsError if ``apply_properties`` would fail.

    It is rolled back: a connection limit, for one, could keep the backup from being loaded.
    """
    _in_transaction(server, name, facts, "ROLLBACK")


def _in_transaction(server: Server, name: str, facts: Facts, *then: str) -> None:
    statements = _property_statements(server, name, facts)
    try:
        server.transaction([*statements, *then])
    except PgError as error:
        if is_lost(error):
            raise
        others = sorted({role for role, _text in facts["settings"] if role})
        raise NodeopsError(
            "Database %s cannot get the settings, privileges and comment of the one that it is to replace: %s. The "
            "live database was not touched. Connect as a superuser%s."
            % (
                name,
                str(error).rstrip("."),
                ", or as a role that may alter %s, which have settings in it (ALTER ROLE … IN DATABASE)"
                % ", ".join(others)
                if others
                else "",
            )
        ) from error


def _property_statements(server: Server, name: str, facts: Facts) -> List[str]:
    statements = privileges(name, facts, _exploded(server, facts["acl"]))
    statements += [setting(name, role, text) for role, text in facts["settings"]]
    if facts["comment"] is not None:
        statements.append("COMMENT ON DATABASE %s IS %s" % (identifier(name), literal(facts["comment"])))
    if facts["connection_limit"] != -1:
        statements.append("ALTER DATABASE %s CONNECTION LIMIT %d" % (identifier(name), facts["connection_limit"]))
    return statements


class Grant(NamedTuple):
    """One privilege. ``grantee`` is "" for PUBLIC."""

    grantor: str
    grantee: str
    privilege: str
    grantable: bool


def _exploded(server: Server, acl: Optional[List[str]]) -> List[Grant]:
    if acl is None:
        return []
    rows = server.query(
        "SELECT g.rolname, coalesce(r.rolname, ''), a.privilege_type, a.is_grantable::int"
        " FROM aclexplode(ARRAY[%s]::text[]::aclitem[]) a JOIN pg_roles g ON g.oid = a.grantor"
        " LEFT JOIN pg_roles r ON r.oid = a.grantee" % ", ".join(map(literal, acl))
    )
    return [Grant(grantor or "", who or "", privilege or "", given == "1") for grantor, who, privilege, given in rows]


def privileges(name: str, facts: Facts, grants: List[Grant]) -> List[str]:
    """The statements that make the database's ACL exactly ``grants``; none for PostgreSQL's default."""
    if facts["acl"] is None:
        return []
    database = identifier(name)
    owner = identifier(facts["owner"])
    statements = ["REVOKE ALL ON DATABASE %s FROM PUBLIC" % database]
    statements.append("REVOKE ALL ON DATABASE %s FROM %s" % (database, owner))
    # A role can only pass on a privilege after it got it.
    for grant in sorted(grants, key=lambda grant: grant.grantor != facts["owner"]):
        text = "GRANT %s ON DATABASE %s TO %s%s" % (
            grant.privilege,
            database,
            identifier(grant.grantee) if grant.grantee else "PUBLIC",
            " WITH GRANT OPTION" if grant.grantable and grant.grantee != facts["owner"] else "",
        )
        if grant.grantor == facts["owner"]:
            statements.append(text)
        else:
            statements += ["SET LOCAL ROLE %s" % identifier(grant.grantor), text, "RESET ROLE"]
    return statements


def setting(name: str, role: str, text: str) -> str:
    """The statement for one setting ``name=value``: of the database, or of ``role`` in it."""
    key, _equals, value = text.partition("=")
    where = "DATABASE %s" % identifier(name)
    if role:
        where = "ROLE %s IN %s" % (identifier(role), where)
    shown = ", ".join(map(literal, _list_of(value))) if key.lower() in _LISTS else literal(value)
    return "ALTER %s SET %s TO %s" % (where, identifier(key), shown or "''")


def _list_of(value: str) -> List[str]:
    """The names in a list, as the server keeps it: ``"$user", public``."""
    found = re.findall(r'"((?:[^"]|"")*)"|([^\s,]+)', value)
    return [plain or quoted.replace('""', '"') for quoted, plain in found]


def drop(server: Server, name: str) -> None:
    """Drop the database if it exists, and end the connections to it."""
    server.execute("DROP DATABASE IF EXISTS %s WITH (FORCE)" % identifier(name), again=True)


def check_same_encoding(name: str, live: Facts, facts: Facts) -> None:
    """Raises NodeopsError if the texts of the backup would be other bytes in the live database's encoding."""
    if live["encoding"] != facts["encoding"]:
        raise NodeopsError(
            "Database %s has the encoding %s, and its backup has %s: their content could not be compared. Nothing was "
            "changed. Create the database again with the encoding of the backup, or drop it: then the restore does."
            % (name, live["encoding"], facts["encoding"])
        )
