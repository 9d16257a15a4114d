# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that talk to PostgreSQL."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that say which server is meant, and as whom."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - The server's host name or address. A path is the directory of its socket, as O(login_unix_socket).
      - Without either, the server of this host is reached over the socket that PostgreSQL's programs know.
    type: str
  login_port:
    description:
      - The server's port. Without it PostgreSQL's programs take 5432, or what O(service) says.
    type: int
  login_user:
    description:
      - The role to connect as. Without it the name of the user the task runs as, or what O(service) says; with
        C(become_user=postgres) that is the superuser on most hosts.
    type: str
  login_password:
    description:
      - The role's password. It is given to PostgreSQL's programs as a file that has no name and is gone with them; no
        process list, environment or disk shows it.
      - Without it and O(passfile), C(~/.pgpass) of the user is read, as PostgreSQL does.
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
      - A service of the connection service file. Options given beside it win.
    type: str
  service_file:
    description:
      - The connection service file on the target. Without it C(~/.pg_service.conf) and the system's are read.
    type: path
  ssl_mode:
    description:
      - Whether a connection over TCP has to be encrypted, and to whom. Only V(verify-full) makes sure that it is the
        server that is meant.
      - Without it the mode is what O(service) says, else V(prefer), which takes a connection without TLS too.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description:
      - The file with the authority that has signed the server's certificate, on the target.
    type: path
  maintenance_db:
    description:
      - The database to connect to for what belongs to no database.
    type: str
    default: postgres
  pg_bindir:
    description:
      - The directory of C(psql), C(pg_dump) and C(pg_restore) on the target.
      - Without it those of the server's major version are taken, else the next newer ones, from E(PATH) and the usual
        directories.
    type: path
  accept_vulnerable_client:
    description:
      - C(pg_restore) before 15.20, 16.16, 17.12 and 18.7 runs code that a crafted archive contains (CVE-2026-116314).
        M(nodeops.pm2.pg_restore) refuses it; M(nodeops.pm2.pg_backup) imports nothing with it, and makes backups with a
        warning.
      - Archives are signed, so only whoever has the key, or may write to a database that is backed up,
        can craft one. Set this if you trust all of them.
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
