# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of the backup store."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that say which store; and those of modules that make backups."""

    DOCUMENTATION = r"""
options:
  dest:
    description:
      - The backup store, an absolute path. All kinds of backup may share one.
      - It has to be a directory of root or of the user the task runs as, with nothing else in it; it is made C(0700).
        A symbolic link is refused, and so is a place where other users could put something else.
    type: path
    required: true
  key_file:
    description:
      - The key that signs the backups. It is made by the first backup, beside the store, and never inside of it.
      - Without it C(<dest>.key) is taken. Keep a copy elsewhere, without it no backup can be believed.
    type: path
  environment:
    description:
      - Names the environment the backups are of, such as V(production). Backups of another one are not taken.
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
      - Public keys for C(age). When there are any, the files of a backup are encrypted to them.
      - The private key is not needed to make backups, and should not be on the host.
    type: list
    elements: str
    default: []
  age_identity_file:
    description:
      - The file with the private key, C(0600). Needed to restore what is encrypted, and to verify more than its bytes.
    type: path
"""

    RETENTION = r"""
options:
  keep_last:
    description:
      - How many of the last backups to keep.
      - Only backups that are verified as good count. When no O(keep_last), O(keep_daily), O(keep_weekly),
        O(keep_monthly) or O(keep_within) is given, none is removed.
    type: int
  keep_daily:
    description:
      - For how many days (UTC) that have backups to keep the last one.
    type: int
  keep_weekly:
    description:
      - For how many weeks that have backups to keep the last one.
    type: int
  keep_monthly:
    description:
      - For how many months that have backups to keep the last one.
    type: int
  keep_within:
    description:
      - Keep all backups that are at most so much older than the last one, such as V(30d) or V(1y6m).
      - Units are V(h), V(d), V(w), V(m) (months) and V(y).
    type: str
  minimum:
    description:
      - How many good backups always stay, whatever the other rules say.
    type: int
    default: 1
"""
