# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Checks before anything changes: whether this server, this login and this backup fit together."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _databases
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import literal
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import Backup

OLDEST = 13  # DROP DATABASE … WITH (FORCE)
_NOTHING = "Nothing was changed."


class Login(NamedTuple):
    """What the connecting role may do. ``roles``: those that it can become, itself included."""

    name: str
    superuser: bool
    createdb: bool
    signals: bool
    roles: Set[str]


def check_confirmation(confirm: Optional[Sequence[str]], databases: Sequence[str]) -> None:
    """Raises NodeopsError unless ``confirm`` names exactly the databases."""
    if not confirm:
        raise NodeopsError(
            "This replaces the live content of %s. %s Name the same databases in confirm."
            % (", ".join(databases), _NOTHING)
        )
    if sorted(confirm) != sorted(databases):
        raise NodeopsError(
            "confirm names %s, databases names %s. %s They must be the same."
            % (", ".join(confirm), ", ".join(databases), _NOTHING)
        )


def check_backup(
    backup: Backup, databases: Sequence[str], environment: Optional[str], namespace: Optional[str]
) -> Dict[str, Facts]:
    """The facts of each database. Raises NodeopsError for a backup of something else."""
    manifest = backup.manifest
    if manifest["environment"] != environment:
        raise NodeopsError(
            "Backup %s is of environment %s, and this call is for environment %s. %s Choose a backup of this "
            "environment, or set environment to that of the backup."
            % (backup.id, _or_none(manifest["environment"]), _or_none(environment), _NOTHING)
        )
    if namespace is not None and manifest["namespace"] not in (None, namespace):
        raise NodeopsError(
            "Backup %s is of namespace %s, and this call is for namespace %s. %s"
            % (backup.id, manifest["namespace"], namespace, _NOTHING)
        )
    content: Dict[str, Facts] = manifest["content"].get("databases") or {}
    missing = [name for name in databases if name not in content]
    if missing:
        raise NodeopsError(
            "Backup %s has no database %s (it has %s). %s"
            % (backup.id, ", ".join(missing), ", ".join(sorted(content)) or "none", _NOTHING)
        )
    return {name: content[name] for name in databases}


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)


def check_server(server: Server) -> None:
    """Raises NodeopsError for a server that cannot make or rename databases as a restore needs it."""
    version = server.version[0]
    if version < OLDEST:
        raise NodeopsError("The server is PostgreSQL %d. The oldest that works is %d. %s" % (version, OLDEST, _NOTHING))
    if server.value("SELECT pg_is_in_recovery()::int") == "1":
        raise NodeopsError(
            "The server is a standby, which can only be read. %s Connect to its primary (login_host)." % _NOTHING
        )


def check_version(server: Server, name: str, facts: Facts) -> None:
    """Raises NodeopsError if the server is older than the one that was dumped."""
    version = server.version[0]
    dumped = int(str(facts["server_version"]).partition(".")[0])
    if version < dumped:
        raise NodeopsError(
            "The backup of %s is from PostgreSQL %d, and this server is %d: an older server may not understand it. %s "
            "Restore it into a server of version %d or newer." % (name, dumped, version, _NOTHING, dumped)
        )


def login(server: Server) -> Login:
    """The role that we are connected as."""
    row = server.query(
        "SELECT rolname, rolsuper::int, (rolcreatedb OR rolsuper)::int,"
        " (rolsuper OR pg_has_role('pg_signal_backend', 'USAGE'))::int"
        " FROM pg_roles WHERE rolname = session_user"
    )[0]
    # A member that does not inherit from a role may give it a database, and not touch the database afterwards.
    become = "SET" if server.version >= (16, 0) else "MEMBER"
    rows = server.query(
        "SELECT rolname FROM pg_roles WHERE pg_has_role(oid, '%s') AND pg_has_role(oid, 'USAGE')" % become
    )
    roles = {each[0] or "" for each in rows}
    return Login(row[0] or "", row[1] == "1", row[2] == "1", row[3] == "1", roles)


def check_login(who: Login, owners: Iterable[str]) -> None:
    """Raises NodeopsError if the login cannot make databases for these owners."""
    if not who.createdb:
        raise NodeopsError(
            "The login %s may not create databases. %s Connect as a superuser, or grant it CREATEDB."
            % (who.name, _NOTHING)
        )
    foreign = sorted(set(owners) - who.roles)
    if foreign and not who.superuser:
        raise NodeopsError(
            "The login %s is not a member of %s, which own what is to be restored, or does not inherit from them "
            "(NOINHERIT). %s Connect as a superuser, or grant it those roles WITH INHERIT."
            % (who.name, ", ".join(foreign), _NOTHING)
        )


def check_needs(server: Server, who: Login, name: str, facts: Facts, outside: Facts) -> None:
    """Raises NodeopsError if a role, an extension or a tablespace of the backup is missing."""
    wanted = {*(facts.get("roles") or []), outside["owner"], *(role for role, _text in outside["settings"] if role)}
    there = {row[0] for row in server.query("SELECT rolname FROM pg_roles")}
    missing = sorted(wanted - there)
    if missing:
        raise NodeopsError(
            "The role %s does not exist on this server, and the backup of %s needs it: what it owns and what it was "
            "granted would be lost. %s Create it (community.postgresql.postgresql_user), then run again."
            % (", ".join(missing), name, _NOTHING)
        )
    rows = server.query(
        "SELECT e.name, bool_or(NOT v.superuser OR v.trusted)::int FROM pg_available_extensions e"
        " JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version GROUP BY 1"
    )
    available = {str(row[0]): row[1] == "1" for row in rows}
    for extension in sorted(facts["extensions"]):
        if extension not in available:
            raise NodeopsError(
                "The extension %s is not installed on this server, and the backup of %s needs it. %s Install its "
                "package on the database host, then run again." % (extension, name, _NOTHING)
            )
        if not (available[extension] or who.superuser or extension == "plpgsql"):
            raise NodeopsError(
                "The backup of %s needs the extension %s, which only a superuser may create; the login is %s. %s"
                % (name, extension, who.name, _NOTHING)
            )
    spaces = {row[0] for row in server.query("SELECT spcname FROM pg_tablespace")}
    if outside["tablespace"] not in spaces:
        raise NodeopsError("The tablespace %s of %s does not exist. %s" % (outside["tablespace"], name, _NOTHING))


def check_live(server: Server, who: Login, name: str, live: Facts) -> None:
    """Raises NodeopsError if the live database could not be renamed."""
    if live["template"]:
        raise NodeopsError("Database %s is a template. %s" % (name, _NOTHING))
    if not live["open"]:
        raise NodeopsError(
            "Database %s is closed to connections (ALLOW_CONNECTIONS false), and no restore of this store has closed "
            "it. %s Find out who closed it. If it was a restore, state recovered opens it." % (name, _NOTHING)
        )
    check_login(who, [live["owner"]])
    check_prepared(server, name)
    slots = _column(server, "SELECT slot_name FROM pg_replication_slots WHERE database = %s" % literal(name))
    if slots:
        raise NodeopsError(
            "Database %s has logical replication slots (%s), which would stay with the old database. %s Drop them "
            "first, and create them again afterwards." % (name, ", ".join(slots), _NOTHING)
        )
    subscribed = _column(server, "SELECT subname FROM pg_subscription WHERE subdbid = %d" % live["oid"])
    if subscribed:
        raise NodeopsError(
            "Database %s has subscriptions (%s), which would stay with the old database. %s Drop them first, and "
            "create them again afterwards." % (name, ", ".join(subscribed), _NOTHING)
        )
    if not who.superuser:
        others = _column(
            server,
            "SELECT DISTINCT r.rolname FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
            " WHERE a.datname = %s AND (r.rolsuper OR NOT (%s OR pg_has_role(r.oid, 'USAGE'))) ORDER BY 1"
            % (literal(name), "true" if who.signals else "false"),
        )
        if others:
            raise NodeopsError(
                "%s is connected to %s, and the login %s may not end those connections. %s Connect as a superuser, or "
                "grant the login pg_signal_backend: then it may end all connections but those of superusers."
                % (", ".join(others), name, who.name, _NOTHING)
            )


def check_prepared(server: Server, name: str) -> None:
    """Raises NodeopsError for a prepared transaction: it has no connection, but prevents the rename."""
    prepared = _column(server, "SELECT gid FROM pg_prepared_xacts WHERE database = %s" % literal(name))
    if prepared:
        raise NodeopsError(
            "Database %s has prepared transactions (%s), which keep it from being renamed. %s Finish them (COMMIT "
            "PREPARED or ROLLBACK PREPARED)." % (name, ", ".join(prepared[:5]), _NOTHING)
        )


def identify(server: Server) -> str:
    """The identifier of this cluster."""
    return server.value("SELECT system_identifier FROM pg_control_system()") or ""


def _column(server: Server, sql: str) -> List[str]:
    return [row[0] or "" for row in server.query(sql)]


def live_of(server: Server, databases: Sequence[str]) -> Dict[str, Optional[Facts]]:
    """The properties of each database, None for one that does not exist."""
    return {name: _databases.read(server, name) for name in databases}
