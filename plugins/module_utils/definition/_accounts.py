# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The user and group an app runs as."""

from __future__ import annotations

import grp
import pwd
from typing import NamedTuple, Optional, Union


class Account(NamedTuple):
    uid: int
    gid: int
    home: str


class AccountError(Exception):
    """There is no such user or group. ``key`` is "uid" or "gid"."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def find_account(user: Union[str, int], group: Optional[Union[str, int]]) -> Account:
    """A user by name or number, with the group given or its own (Common.js:800). Raises AccountError.

    PM2 reads /etc/passwd itself; this asks the system, so users of a directory service are found too.
    """
    try:
        entry = pwd.getpwuid(int(user)) if str(user).isdigit() else pwd.getpwnam(str(user))
    except (KeyError, OverflowError):
        raise AccountError("uid", "there is no user %s" % user) from None
    if not group:
        return Account(entry.pw_uid, entry.pw_gid, entry.pw_dir)
    try:
        found = grp.getgrgid(int(group)) if str(group).isdigit() else grp.getgrnam(str(group))
    except (KeyError, OverflowError):
        raise AccountError("gid", "there is no group %s" % group) from None
    return Account(entry.pw_uid, found.gr_gid, entry.pw_dir)
