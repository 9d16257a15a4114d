# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of the backup store."""

from __future__ import annotations


class ModuleDocFragment:
    """Options for the store, and those of modules that make backups."""

    DOCUMENTATION = r"""
options:
  dest:
    description:
      - The absolute path of the backup store. All kinds of backups may share one.
      - It has to be a directory of root or of the user that the task runs as, with nothing else in it. It gets the mode
        C(0700). A symbolic link is refused, and so is a path that other users could replace.
    type: path
    required: true
  key_file:
    description:
      - The file with the key that signs the backups. The first backup makes the key. It must not be in the store.
      - The default is C(<dest>.key). Keep a copy of the key elsewhere. Without the key no backup can be trusted.
    type: path
  environment:
    description:
      - The environment that the backups are of, such as V(production). Backups of another environment are not used.
    type: str
  lock_timeout:
    description:
      - Seconds to wait for another run that uses the store.
    type: float
    default: 60
"""

    ENCRYPTION = r"""
options:
  age_recipients:
    description:
      - Public keys for C(age). If there are any, the files of a backup are encrypted to them.
      - The private key is not needed to make backups, and should not be on the host.
    type: list
    elements: str
    default: []
  age_identity_file:
    description:
      - The file with the private key, C(0600). It is needed to restore an encrypted backup, and to verify more than its
        bytes.
    type: path
"""

    RETENTION = r"""
options:
  keep_last:
    description:
      - How many of the last backups to keep.
      - Only backups that are verified as good count. If none of O(keep_last), O(keep_daily), O(keep_weekly),
        O(keep_monthly) and O(keep_within) is given, no backup is removed.
    type: int
  keep_daily:
    description:
      - For how many days (UTC) with backups to keep the last one of the day.
    type: int
  keep_weekly:
    description:
      - For how many weeks with backups to keep the last one of the week.
    type: int
  keep_monthly:
    description:
      - For how many months with backups to keep the last one of the month.
    type: int
  keep_within:
    description:
      - Keep all backups that are at most this much older than the last one, such as V(30d) or V(1y6m).
      - Units are V(h), V(d), V(w), V(m) (months) and V(y).
    type: str
  minimum:
    description:
      - How many good backups are always kept, whatever the other rules say.
    type: int
    default: 1
"""
