#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up PM2's dump and environment files, verify backups and bring them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_dump_backup
short_description: Back up PM2's dump and environment files, verify backups and bring them back
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - A backup holds what C(pm2 resurrect) would bring back, for all namespaces or for one, and the environment files in
    O(files). It is made if a file or the meaning of the dump has changed. Counters, ids and metrics do not count.
  - It is read back right after it was written. The module also checks whether it could be brought back on this host,
    with its working directories, scripts and interpreters. Only then does it count as a good backup.
  - A restore can be limited to one namespace. All other entries and processes are left alone.
  - With O(apply) the live processes are brought to the backup by the transaction of M(nodeops.pm2.pm2_process). If they
    fail their checks, everything is put back, including the files and the dump.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
  - nodeops.pm2.ready
  - nodeops.pm2.store
  - nodeops.pm2.store.encryption
  - nodeops.pm2.store.retention
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the names of namespaces, processes and files, but no content.
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) makes a backup if there is no good one of the present state. Afterwards, backups that no keep option
        keeps are removed.
      - V(verified) checks that the backup's bytes are as they were written, and that it could be brought back on this
        host. It fails otherwise. The outcome is noted with the backup.
      - V(restored) puts back files and dump as they are in the backup; with O(apply) also the live processes.
      - V(pruned) removes the backups that no keep option keeps.
    type: str
    choices: [present, verified, restored, pruned]
    default: present
  namespace:
    description:
      - Back up or bring back only this namespace. Without it, all namespaces.
      - With O(state=verified) and O(state=restored), a backup of all namespaces will do too, if it holds this one.
    type: str
  files:
    description:
      - The absolute paths of environment and ecosystem files to back up with the dump. Content, mode and owner are
        kept. If a file is missing, the backup fails.
      - With O(state=restored) only these are put back. Without it, all files of the backup are put back. But if
        O(namespace) is given and the backup is of all namespaces, no file is, because it may belong to another one.
    type: list
    elements: str
    default: []
  allow_empty:
    description:
      - Back up a dump without processes, although the newest good backup has some. Without it, this counts as a loss
        and is refused.
    type: bool
    default: false
  backup:
    description:
      - The id of a backup, or V(latest). With O(state=restored) that is the newest one that is verified as good, with
        O(state=verified) the newest one.
    type: str
    default: latest
  parts:
    description:
      - What to bring back. Without it, both.
      - With O(apply) and only V(files), the processes are renewed as they are.
    type: list
    elements: str
    choices: [dump, files]
  apply:
    description:
      - Also bring the live processes to the backup, in one transaction for each namespace. If no daemon runs, it is
        started.
      - If a file has changed, all processes of the namespaces are renewed, because they may have read it. Then, if any
        of them ran before, either all namespaces are brought back or none. Otherwise, if one namespace cannot be
        brought back, the others still are, and the task fails at its end.
      - Processes of these namespaces that are not in the backup are removed.
    type: bool
    default: false
seealso:
  - module: nodeops.pm2.pm2_process
  - module: nodeops.pm2.pm2_save
"""

EXAMPLES = r"""
- name: Keep what a boot would bring back for 30 days
  nodeops.pm2.pm2_dump_backup:
    dest: /var/backups/shop
    environment: production
    files:
      - /srv/shop/shared/.env
    keep_daily: 30
  become: true
  become_user: shop

- name: Check that the newest backup is intact and could be brought back here
  nodeops.pm2.pm2_dump_backup:
    dest: /var/backups/shop
    environment: production
    state: verified

- name: Bring back one namespace from the newest good backup, with its processes
  nodeops.pm2.pm2_dump_backup:
    dest: /var/backups/shop
    environment: production
    state: restored
    namespace: shop-production
    apply: true
    ready:
      http:
        - url: http://127.0.0.1:3000/health

- name: Bring back the former .env, and renew the processes that read it
  nodeops.pm2.pm2_dump_backup:
    dest: /var/backups/shop
    environment: production
    state: restored
    backup: 20261124T020000Z-pm2-0a1b2c
    namespace: shop-production
    files:
      - /srv/shop/shared/.env
    parts: [files]
    apply: true
"""

RETURN = r"""
backup:
  description: The backup that was made, found unchanged, verified or brought back. Null in check mode if one would be
    made.
  returned: for all states but V(pruned)
  type: dict
  contains:
    id:
      description: Its name in the store.
      type: str
    path:
      description: Its directory.
      type: str
    created:
      description: When it was made, UTC.
      type: str
    environment:
      description: The environment it is labelled with.
      type: str
    namespaces:
      description: The namespaces it has processes of.
      type: list
      elements: str
    processes:
      description: How many processes.
      type: int
    files:
      description: The environment files in it.
      type: list
      elements: str
    size:
      description: Bytes on disk.
      type: int
    encrypted:
      description: Whether it is encrypted.
      type: bool
    verified:
      description: Whether its last verification found it good.
      type: bool
  sample:
    id: 20261124T020000Z-pm2-0a1b2c
    path: /var/backups/shop/20261124T020000Z-pm2-0a1b2c
    created: "2026-11-24T02:00:00Z"
    environment: production
    namespaces: [shop-production, shop-test]
    processes: 7
    files: [/srv/shop/shared/.env]
    size: 18231
    encrypted: false
    verified: true
problems:
  description: Why it cannot be brought back on this host, or what is damaged; also what is wrong with O(namespace) or
    O(ready).
  returned: if there are any, and for V(present), V(verified) and V(restored)
  type: list
  elements: raw
how:
  description: What was verified, V(resurrectable), or V(bytes) if it is encrypted and there is no key.
  returned: for V(verified)
  type: str
removed:
  description: The ids of the backups that were removed.
  returned: for V(pruned), and for V(present) with keep options
  type: list
  elements: str
kept:
  description: The ids of the backups that are kept.
  returned: for V(pruned), and for V(present) with keep options
  type: list
  elements: str
reasons:
  description: Why each of them is kept, by id.
  returned: for V(pruned), and for V(present) with keep options
  type: dict
actions:
  description: What was done to live processes, as M(nodeops.pm2.pm2_process) returns it, each with its C(namespace).
  returned: for V(restored)
  type: list
  elements: dict
processes:
  description: The processes of the namespaces afterwards, as M(nodeops.pm2.pm2_process) returns them.
  returned: for V(restored) with O(apply)
  type: list
  elements: dict
files:
  description: The files of the backup (C(path)), and whether each was C(changed).
  returned: for V(restored)
  type: list
  elements: dict
restored_namespaces:
  description: The namespaces that were brought back.
  returned: for V(restored)
  type: list
  elements: str
saved:
  description: Whether C(dump.pm2) was written.
  returned: for V(restored)
  type: bool
recovered:
  description: V(finished) or V(undone) if an earlier run on a namespace was killed half-way, otherwise null.
  returned: for V(restored) with O(apply)
  type: str
committed:
  description:
    - True if the failure came after the change was made and saved. Then only old processes may be left, which the next
      run removes.
  returned: on such a failure
  type: bool
rolled_back:
  description: On failure, whether everything was put back.
  returned: if anything had been changed
  type: bool
rollback_error:
  description: Why not everything could be put back.
  returned: if RV(rolled_back) is false
  type: str
failed_process:
  description: The app (C(name)) and C(instance) that failed its checks.
  returned: on failure of a new process
  type: dict
error_log:
  description: The last lines of the failed process's error log, without secrets.
  returned: on failure of a new process
  type: list
  elements: str
rpc_error:
  description: What the daemon answered.
  returned: if the daemon refused a request
  type: str
"""

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _dump_backup
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _store_options

MASKS: _masks.Masks = {
    **_store_options.MASKS,
    "environment": _masks.values,
    "files": _masks.plain,
    "parts": _masks.plain,
    "ready": _process_options.READY_MASK,
}


def main() -> None:
    """Entry point."""
    module = _module.Module(_dump_backup.ARGUMENTS, MASKS)

    def call() -> Dict[str, Any]:
        return _dump_backup.run(module.params, module.check_mode, module.warn)

    _module.run(module, call)


if __name__ == "__main__":
    main()
