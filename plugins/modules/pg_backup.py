#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up PostgreSQL databases."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Back up PostgreSQL databases into a signed store
version_added: 0.1.0
description:
  - Dumps databases into the backup store. A backup is either complete and verified, or it does not exist.
  - Each database is dumped from one snapshot. The number of rows and a checksum of each table are taken from the same
    snapshot. M(nodeops.pm2.pg_restore) compares them with what it has restored before anything goes live.
  - The application goes on meanwhile. Several databases are backed up one after the other, each as of its own moment.
  - Roles, tablespaces and the server's configuration are not backed up. The names of the roles that a backup needs are
    recorded, and checked before a restore.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.store
  - nodeops.pm2.store.encryption
  - nodeops.pm2.store.retention
  - nodeops.pm2.postgresql
  - nodeops.pm2.postgresql.actiongroup
options:
  databases:
    description:
      - The databases. Give databases that belong together in one call, so that they are restored together.
      - A name may have at most 42 bytes, because a restore appends to it.
      - Backups of other databases, of another O(environment) or O(namespace) in the same store are left alone.
    type: list
    elements: str
    required: true
  namespace:
    description:
      - The PM2 namespace that uses the databases. Here it is only a label.
    type: str
  state:
    description:
      - V(present) makes a backup. Then, if there are keep rules, it removes the backups that no rule keeps.
      - V(verified) reads all of O(backup) as a restore would, and fails if anything is wrong with it. Without
        O(age_identity_file), only the bytes of encrypted files are checked. No server is needed.
        (O(nodeops.pm2.pg_restore#module:state=verified) proves more, because it restores the backup beside the live
        database.)
      - V(pruned) removes the backups that no keep rule keeps.
      - V(imported) makes a backup of O(source), a plain dump of C(pg_dump) that you already have. It is loaded into a
        database of its own, which is dropped afterwards. The live database is not touched. The same source is imported
        only once. An imported backup is never V(latest), so name it by its id. No keep rule counts or removes it, and
        the import applies none.
    type: str
    choices: [present, verified, pruned, imported]
    default: present
  backup:
    description:
      - With O(state=verified), the id of a backup, or V(latest) for the newest that was not imported.
    type: str
    default: latest
  source:
    description:
      - With O(state=imported), a file on the target with plain SQL as C(pg_dump) writes it without C(--create). It may
        be packed by C(gzip).
      - A file is refused if it does not end like a dump of C(pg_dump), or if it has commands of C(psql). Its SQL runs
        as O(login_user), so import only what you trust.
    type: path
  sha256:
    description:
      - With O(state=imported), the SHA-256 of O(source), taken at the place that the dump comes from.
    type: str
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - With O(state=present) each call makes a backup.
author:
  - nodeops.pm2 contributors (@nodeops)
"""

EXAMPLES = r"""
- name: Back up the shop's database, keep a week and a month
  nodeops.pm2.pg_backup:
    dest: /var/backups/nodeops
    databases: [shop]
    environment: production
    namespace: shop
    keep_daily: 7
    keep_weekly: 4
  become: true
  become_user: postgres

- name: Back up two databases of a remote host that belong together
  nodeops.pm2.pg_backup:
    dest: /var/backups/nodeops
    databases: [bank, bank_content]
    environment: production
    login_host: db.example.com
    login_user: backup
    login_password: "{{ backup_password }}"
    ssl_mode: verify-full
    ca_cert: /etc/ssl/certs/db-ca.pem

- name: Check that the newest backup is whole
  nodeops.pm2.pg_backup:
    dest: /var/backups/nodeops
    databases: [shop]
    environment: production
    namespace: shop
    state: verified

- name: Import an old dump into the store
  nodeops.pm2.pg_backup:
    dest: /var/backups/nodeops
    databases: [shop]
    environment: production
    namespace: shop
    state: imported
    source: /root/dumps/shop-2026-11-01.sql.gz
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

RETURN = r"""
backup:
  description: The backup that was made or verified. V(null) in check mode.
  returned: with O(state=present), O(state=verified), O(state=imported)
  type: dict
  contains:
    id:
      description: Its name in the store.
      type: str
      sample: 20261124T105400Z-postgresql-0a1b2c
    path:
      description: Its directory.
      type: str
    created:
      description: When it was made (UTC).
      type: str
      sample: "2026-11-24T10:54:00Z"
    environment:
      description: The label.
      type: str
    namespace:
      description: The label.
      type: str
    databases:
      description: Which databases it holds.
      type: list
      elements: str
    size:
      description: Bytes of its files.
      type: int
    encrypted:
      description: Whether they are encrypted.
      type: bool
    verified:
      description: Whether it was read again and found whole.
      type: bool
problems:
  description: What is wrong with the backup.
  returned: with O(state=verified), also on failure
  type: list
  elements: str
removed:
  description: The backups that were removed, oldest first.
  returned: with O(state=present), O(state=pruned), if there are keep rules
  type: list
  elements: str
kept:
  description: The backups of these databases that exist, oldest first, without imported ones.
  returned: with O(state=present), O(state=pruned), if there are keep rules
  type: list
  elements: str
reasons:
  description: Why each backup was kept.
  returned: with O(state=present), O(state=pruned), if there are keep rules
  type: dict
"""

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils._pg_module import PgModule
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _connection_options
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._backup import ARGUMENTS, run
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _store_options

MASKS: _masks.Masks = {**_store_options.MASKS, **_connection_options.MASKS, "databases": _masks.plain}


def main() -> None:
    """Run the module."""
    module = PgModule(ARGUMENTS, MASKS, required_if=[("state", "imported", ["source", "sha256"])])
    _module.run(module, lambda: run(module.params, module.check_mode, module.warn))


if __name__ == "__main__":
    main()
