# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""How a server is reached: what PostgreSQL's programs get, and a password that no process list or disk shows."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor

CONNECT_TIMEOUT = 10
"""Seconds."""
_KEEP_ALIVE = (  # so that a lost host is noticed within about a minute
    ("keepalives_idle", "30"),
    ("keepalives_interval", "10"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "60000"),
)


class PgError(NodeopsError):
    """PostgreSQL, or one of its programs, has failed. ``sqlstate``: its code; 08006 if there is no connection."""

    def __init__(self, message: str, sqlstate: str = "", details: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, details)
        self.sqlstate = sqlstate


class Connection(NamedTuple):
    """The address of a server, and the role to connect as. Use it within ``connection(…)``, which makes it."""

    settings: Dict[str, str]
    """libpq's parameters: host, port, user, sslmode, sslrootcert. They hold no secret."""
    variables: Dict[str, str]
    """PGPASSFILE, PGSERVICE and PGSERVICEFILE, if they are given."""
    password: str
    maintenance_db: str

    def target(self, database: str) -> str:
        """The value of ``--dbname``: it wins over the service file, and takes every name literally."""
        pairs = dict(self.settings, dbname=database)
        return " ".join("%s='%s'" % (key, _escaped(value)) for key, value in pairs.items())

    def environ(self, database: Optional[str] = None) -> Dict[str, str]:
        """The environment of PostgreSQL's programs: only what they need of ours."""
        environment = {
            "PATH": os.environ.get("PATH") or STANDARD_PATH,
            "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
            "LANG": "C",
            "LC_ALL": "C",
            "PGDATABASE": database or self.maintenance_db,
            "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
            "PGAPPNAME": "nodeops.pm2",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": "-c statement_timeout=0",  # that of the role could end the statement that lifts it
        }
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "sslmode": "PGSSLMODE"}
        names["sslrootcert"] = "PGSSLROOTCERT"
        environment.update({names[key]: value for key, value in self.settings.items() if key in names})
        environment.update(self.variables)
        return environment

    @property
    def is_local(self) -> bool:
        """Whether the server is certainly on this host: it is reached over a socket of the file system."""
        host = self.settings.get("host")
        return host.startswith("/") if host else not self.variables.get("PGSERVICE")

    def shown(self, text: str) -> str:
        """``text`` without the password, and without passwords in URLs that were given as a name."""
        return Redactor().text(text.replace(self.password, MASK) if self.password else text)

    def __str__(self) -> str:
        """For messages: ``postgres@db.example.com:5432``."""
        host = self.settings.get("host") or self.variables.get("PGSERVICE") or "the local socket"
        port = ":" + self.settings["port"] if "port" in self.settings else ""
        user = self.settings["user"] + "@" if "user" in self.settings else ""
        return user + host + port


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


@contextlib.contextmanager
def connection(params: Mapping[str, Any]) -> Iterator[Connection]:
    """The connection that the options describe (see ``_connection_options``).

    The password is gone when this ends, also by kill -9. Raises NodeopsError for options that cannot be right; no
    server is asked.
    """
    _check(params)
    settings = {"host": params.get("login_unix_socket") or params.get("login_host")}
    settings["port"] = str(params["login_port"]) if params.get("login_port") else None
    settings["user"] = params.get("login_user")
    settings["sslmode"] = params.get("ssl_mode") if _is_tcp(params) else None
    settings["sslrootcert"] = params.get("ca_cert")
    given = {key: value for key, value in settings.items() if value}
    given.update(_KEEP_ALIVE)
    variables = {"PGSERVICE": params.get("service"), "PGSERVICEFILE": params.get("service_file")}
    variables["PGPASSFILE"] = params.get("passfile")
    password = params.get("login_password") or ""
    maintenance_db = params.get("maintenance_db") or "postgres"
    stack = contextlib.ExitStack()
    try:
        if password:
            variables["PGPASSFILE"] = _passfile(password, stack)
        known = {key: value for key, value in variables.items() if value}
        yield Connection(given, known, password, maintenance_db)
    finally:
        stack.close()


def _is_tcp(params: Mapping[str, Any]) -> bool:
    host = params.get("login_unix_socket") or params.get("login_host") or ""
    return not host.startswith("/") and bool(host or params.get("service"))


def _check(params: Mapping[str, Any]) -> None:
    for name in ("login_host", "login_user", "service", "maintenance_db", "login_unix_socket", "ca_cert", "passfile"):
        value = params.get(name) or ""
        if "\0" in value or "\n" in value:
            raise NodeopsError("%s is %r, which has a line break or a NUL. Nothing was changed." % (name, value))
        if "://" in value or (name == "login_host" and "@" in value):
            raise NodeopsError(
                "%s is %s, which is a URL. Nothing was changed. Give host, port, user and password each in its own "
                "option." % (name, _address.shown(value))
            )
    host, directory = params.get("login_host"), params.get("login_unix_socket")
    if host and directory:
        raise NodeopsError(
            "login_host (%s) and login_unix_socket (%s) are both given. Nothing was changed. Give one of them."
            % (host, directory)
        )
    if "," in (host or ""):
        raise NodeopsError(
            "login_host is %r, which is a list of hosts. Nothing was changed. Give one host: a backup or a restore "
            "has to know its server." % host
        )
    if directory and not os.path.isdir(directory):
        raise NodeopsError(
            "login_unix_socket is %r, which is not a directory on this host. Nothing was changed. "
            "Give the directory that holds the socket (Debian: /var/run/postgresql)." % directory
        )
    port = params.get("login_port")
    if port is not None and not 0 < port < 65536:
        raise NodeopsError("login_port is %d, which is not a port (1 to 65535). Nothing was changed." % port)
    _check_password(params)
    if params.get("service_file") and not params.get("service"):
        raise NodeopsError("service_file is given without service. Nothing was changed. Name the service in that file.")
    for name in ("ca_cert", "service_file"):
        _check_readable(name, params.get(name))
    if (params.get("ssl_mode") or "").startswith("verify") and not _is_tcp(params):
        raise NodeopsError(
            "ssl_mode is %s, and the server is reached over a socket of the file system, which has no TLS. "
            "Nothing was changed. Give login_host, or leave ssl_mode out." % params["ssl_mode"]
        )


def _check_password(params: Mapping[str, Any]) -> None:
    password, passfile = params.get("login_password"), params.get("passfile")
    if password and passfile:
        raise NodeopsError("login_password and passfile are both given. Nothing was changed. Give one of them.")
    if password and any(character in password for character in "\0\r\n"):
        raise NodeopsError(
            "login_password has a line break or a NUL, which PostgreSQL's programs cannot take. "
            "Nothing was changed. Perhaps the file that it comes from ends with a line break."
        )
    if not passfile:
        return
    _check_readable("passfile", passfile)
    mode = os.stat(passfile).st_mode
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise NodeopsError(
            "passfile %s has mode %04o: others may read it, so PostgreSQL's programs ignore it. Nothing was changed. "
            "Give it mode 0600." % (passfile, stat.S_IMODE(mode))
        )


def _check_readable(name: str, path: Optional[str]) -> None:
    if path and not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise NodeopsError(
            "%s is %s, which does not exist on this host or cannot be read by %s. Nothing was changed."
            % (name, path, pwd.getpwuid(os.geteuid()).pw_name)
        )


def _passfile(password: str, stack: contextlib.ExitStack) -> str:
    """The path of a password file with this password for every server. It exists until the stack is closed."""
    line = "*:*:*:*:%s\n" % password.replace("\\", "\\\\").replace(":", "\\:")
    return _in_memory(line, stack) or _on_disk(line, stack)


def _in_memory(line: str, stack: contextlib.ExitStack) -> Optional[str]:
    """A file without a name: nothing is left of it when this process is killed. None if the system has none."""
    try:
        handle = os.memfd_create("passfile", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return None
    stack.callback(os.close, handle)
    path = _procfs.descriptor_path(os.getpid(), handle)
    try:
        os.fchmod(handle, 0o600)
        os.write(handle, line.encode("utf-8", "surrogateescape"))
        with open(path, "rb"):
            return path
    except OSError:
        return None


def _on_disk(line: str, stack: contextlib.ExitStack) -> str:
    handle, path = tempfile.mkstemp(prefix="nodeops-passfile-")  # 0600
    stack.callback(os.unlink, path)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(line)
    return path


def last_lines(text: str, count: int = 5) -> str:
    """The end of what a program printed, as one line."""
    lines: List[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:])
