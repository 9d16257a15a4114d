# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that talk to PostgreSQL."""

from __future__ import annotations


class ModuleDocFragment:
    """Options for the server, and the role to connect as."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - The server's host name or address. A path is the directory of its socket, as in O(login_unix_socket).
      - Without both, the server of this host is reached over the default socket of PostgreSQL's programs.
    type: str
  login_port:
    description:
      - The server's port. Without it, PostgreSQL's programs take that of O(service), or 5432.
    type: int
  login_user:
    description:
      - The role to connect as. Without it, it is that of O(service), or the name of the user that the task runs as.
        With C(become_user=postgres) that is the superuser on most hosts.
    type: str
  login_password:
    description:
      - The role's password. PostgreSQL's programs get it in a file that has no name and is gone when they end. No
        process list, environment or disk shows it.
      - Without it and O(passfile), C(~/.pgpass) of the user is read, as usual in PostgreSQL.
    type: str
  login_unix_socket:
    description:
      - The directory of the server's socket.
    type: path
  passfile:
    description:
      - A password file (C(.pgpass)) on the target, C(0600).
    type: path
  service:
    description:
      - A service of the connection service file. Other options of the connection win over it.
    type: str
  service_file:
    description:
      - The connection service file on the target. Without it, C(~/.pg_service.conf) and the system's file are read.
    type: path
  ssl_mode:
    description:
      - Whether a connection over TCP has to be encrypted, and how the server has to identify itself. Only
        V(verify-full) makes sure that it is the intended server.
      - Without it, the mode is that of O(service), or V(prefer), which also accepts a connection without TLS.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description:
      - The file on the target with the certificate of the authority that has signed the server's certificate.
    type: path
  maintenance_db:
    description:
      - The database to connect to for statements that concern no particular database.
    type: str
    default: postgres
  pg_bindir:
    description:
      - The directory of C(psql), C(pg_dump) and C(pg_restore) on the target.
      - Without it, programs of the server's major version, or the next newer ones, are taken from E(PATH) and the
        usual directories.
    type: path
  accept_vulnerable_client:
    description:
      - C(pg_restore) before 15.20, 16.16, 17.12 and 18.7 runs code that a crafted archive contains (CVE-2026-116314).
        M(nodeops.pm2.pg_restore) refuses such a program. M(nodeops.pm2.pg_backup) imports nothing with it, and makes
        backups with a warning.
      - Archives are signed. So only users that have the key, or may write to a database that is backed up, can craft
        one. Set this option if you trust all of them.
    type: bool
    default: false
requirements:
  - PostgreSQL's client programs on the target, at least of the server's major version
  - Python 3.8 or newer on the target, standard library only
notes:
  - Connect to the server itself, not to a connection pooler.
"""

    ACTIONGROUP = r"""
attributes:
  action_group:
    description:
      - Use C(group/nodeops.pm2.postgresql) in C(module_defaults) to set defaults for all modules that talk to
        PostgreSQL.
    support: full
    membership:
      - nodeops.pm2.postgresql
"""
