#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore PostgreSQL databases, with a way back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore PostgreSQL databases, with a way back
version_added: 0.1.0
description:
  - Restores a backup of M(nodeops.pm2.pg_backup) into a scratch database beside the live one and compares it with what
    was backed up. Only then does it replace the live database. The application is down for a second or two, whatever
    the size of the database.
  - In this time the running processes of O(namespace), and no others, are stopped, the databases are renamed in one
    transaction, and exactly those processes are started again. If the application is not well then (O(ready)),
    everything is put back, and the task fails with the reason.
  - The database that was live is kept as C(<database>__prev_<id>), closed to connections. O(state=undone) makes it live
    again. So data that was written after the backup is not lost at once.
  - If a run is killed at any moment, the next one, or O(state=recovered), finishes or undoes it. Either all databases
    of a call are swapped, or none is.
  - Roles are not restored. Those that the backup needs have to exist. A database that does not exist is created.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.connection
  - nodeops.pm2.ready
  - nodeops.pm2.store
  - nodeops.pm2.postgresql
options:
  state:
    description:
      - V(restored) gives the databases the content of O(backup). The live ones are kept as previous databases.
      - V(verified) is the drill. O(backup) is restored beside the live database, compared, and dropped again. If it
        differs from what was backed up, or no server could load it, it does not count as good any more. (With
        V(restored) it is the same.) The drill is refused while a restore that was killed in its swap is neither
        finished nor undone, because that restore is about the live database.
      - V(undone) makes the newest previous databases live again, and those that were live become previous ones. A
        second undo is a redo. All previous databases have to be of one restore.
      - V(recovered) finishes or undoes what killed runs have left. V(restored) and V(undone) do that first. If a killed
        restore has left a new database live, and the old one is brought back, the new one is kept as a previous
        database.
      - V(status) reports what there is. Nothing is changed.
    type: str
    choices: [restored, verified, undone, recovered, status]
    default: restored
  databases:
    description:
      - The databases. Give databases that belong together in one call, so that all or none are swapped.
      - Required, except with O(state=recovered) and O(state=status).
    type: list
    elements: str
  backup:
    description:
      - The id of a backup, or V(latest) for the newest that was verified as good and has all O(databases).
      - An imported backup is never V(latest). Give its id.
      - Backups of another O(environment) are refused, and so are those of another O(namespace).
    type: str
    default: latest
  confirm:
    description:
      - The same databases once more. Required with O(state=restored) and O(state=undone).
    type: list
    elements: str
  namespace:
    description:
      - The PM2 namespace whose processes use the databases. Its running processes are stopped and started again.
      - Without it, no process is stopped, and all connections to the databases are ended.
    type: str
  healthy:
    description:
      - How many times in a row all checks of O(ready) have to succeed after the start.
    type: int
    default: 3
  jobs:
    description:
      - How many connections load at once.
    type: int
    default: 2
  keep_previous:
    description:
      - How many previous databases are kept after a restore, at least one. Older ones are dropped.
    type: int
    default: 1
  stop_timeout:
    description:
      - Seconds that a process may take to stop. If a process has a longer C(kill_timeout), the call is refused.
    type: float
    default: 30
  fence_timeout:
    description:
      - Seconds within which all connections to the closed databases have to end. Otherwise everything is put back.
    type: float
    default: 10
  resurrect_timeout:
    description:
      - Seconds to wait for a C(pm2 resurrect), such as the one at boot. It matters if an interrupted restore is
        finished or undone, and the processes that it has stopped are gone with PM2's daemon. After these seconds they
        are started without the resurrect.
      - A resurrect does not start a process if another one of the same name runs, even in another namespace.
    type: float
    default: 0
  age_identity_file:
    description:
      - The file with the private key, C(0600). An encrypted backup needs it. Decrypted archives are in O(dest) while
        they are loaded.
    type: path
attributes:
  check_mode:
    support: full
    details: Everything is checked, except whether the backup can be loaded. Nothing is changed, not even in the store.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - With O(state=restored) each call restores, because it cannot be seen from outside whether anything has changed.
        With O(state=undone) each call swaps.
seealso:
  - module: nodeops.pm2.pg_backup
  - module: nodeops.pm2.pm2_process
author:
  - nodeops.pm2 contributors (@nodeops)
"""

EXAMPLES = r"""
- name: Bring the shop's database back to the newest good backup
  nodeops.pm2.pg_restore:
    dest: /var/backups/nodeops
    environment: production
    databases: [shop]
    confirm: [shop]
    namespace: shop
    ready:
      http:
        - url: http://127.0.0.1:3000/health

- name: Undo that restore
  nodeops.pm2.pg_restore:
    dest: /var/backups/nodeops
    environment: production
    databases: [shop]
    confirm: [shop]
    namespace: shop
    state: undone

- name: The weekly drill
  nodeops.pm2.pg_restore:
    dest: /var/backups/nodeops
    environment: production
    databases: [shop]
    state: verified

- name: Recover at boot, and after a run was killed
  nodeops.pm2.pg_restore:
    dest: /var/backups/nodeops
    state: recovered
"""

RETURN = r"""
state:
  description: The state that was asked for.
  returned: success
  type: str
backup:
  description: The id of the backup. V(null) with O(state=undone).
  returned: with O(state=restored), O(state=undone), O(state=verified)
  type: str
databases:
  description: The databases that were swapped, or would be in check mode.
  returned: with O(state=restored), O(state=undone)
  type: list
  elements: dict
  contains:
    name:
      description: The live database.
      type: str
    previous:
      description: The database that was live before, closed to connections. V(null) if there was none.
      type: str
      sample: shop__prev_20261124112031
downtime:
  description: Seconds from the first process that was stopped until everything was well again.
  returned: with O(state=restored), O(state=undone), not in check mode; also when everything was put back
  type: float
  sample: 1.07
stopped:
  description: The processes that were stopped.
  returned: with O(state=restored), O(state=undone), not in check mode
  type: list
  elements: str
started:
  description: The processes that were started again.
  returned: with O(state=restored), O(state=undone), not in check mode
  type: list
  elements: str
steps:
  description: How long each step took.
  returned: if anything was done
  type: list
  elements: dict
  contains:
    name:
      description: The step.
      type: str
    database:
      description: The database, if the step is about one.
      type: str
    seconds:
      description: How long it took.
      type: float
recovered:
  description: What killed runs had left, and what was done about it. V(null) if there was nothing.
  returned: success, and on failure if there was something
  type: dict
  contains:
    databases:
      description: For each database, whether the V(old) or the V(new) one is live.
      type: dict
    dropped:
      description: Scratch databases that were removed.
      type: list
      elements: str
    kept:
      description: Databases that were live since a restore was killed. They were replaced by the old ones, and are
        previous databases now.
      type: list
      elements: str
    opened:
      description: Databases that were closed to connections and are open again.
      type: list
      elements: str
    started:
      description: Processes that had been stopped and run again.
      type: list
      elements: str
problems:
  description: How the restored copy, or the backup's files, differ from what was backed up, or why no server could load
    it.
  returned: with O(state=verified), and if it failed for that reason
  type: list
  elements: str
verification:
  description: What is noted of the drill (C(at), C(how), C(problems)).
  returned: with O(state=verified), not in check mode
  type: dict
rolled_back:
  description: On failure, whether everything was put back. Absent if nothing live had been touched.
  returned: if a process was stopped or a database closed
  type: bool
rollback_error:
  description: Why not everything could be put back. The next run finishes the undo.
  returned: if RV(rolled_back) is false
  type: str
failed_process:
  description: The process that was not well.
  returned: on failure of a process
  type: dict
  contains:
    name:
      description: The app.
      type: str
    instance:
      description: The number of the instance.
      type: int
error_log:
  description: The last lines of the failed process's error log, without secrets.
  returned: on failure of a process
  type: list
  elements: str
status:
  description: What there is.
  returned: with O(state=status)
  type: dict
  contains:
    databases:
      description: One entry for each database.
      type: list
      elements: dict
      contains:
        name:
          description: The database.
          type: str
        exists:
          description: Whether it exists.
          type: bool
        accepts_connections:
          description: Whether it is open.
          type: bool
        size:
          description: Bytes. V(null) if the login may not know.
          type: int
        previous:
          description: The previous databases, newest first (C(name), C(since), C(size)).
          type: list
          elements: dict
        scratch:
          description: Databases that are being restored into, or were left by a killed run.
          type: list
          elements: str
        backups:
          description: How many backups have it, including imported ones.
          type: int
        newest_good_backup:
          description: The id of the backup that V(latest) would take, if it has all databases of that call.
          type: str
    interrupted:
      description: What a killed run was doing (C(state), C(phase), C(databases)). V(null) if there is none.
      type: dict
"""

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils._pg_module import PgModule
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _connection_options
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._restore import ARGUMENTS, run

MASKS: _masks.Masks = {
    **_connection_options.MASKS,
    "databases": _masks.plain,
    "confirm": _masks.plain,
    "ready": _process_options.READY_MASK,
}


def main() -> None:
    """Run the module."""
    module = PgModule(ARGUMENTS, MASKS)
    _module.run(module, lambda: run(module.params, module.check_mode, module.warn))


if __name__ == "__main__":
    main()
