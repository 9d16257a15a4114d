# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The directory of a backup store: whether it can be trusted and used, and how it is made."""

from __future__ import annotations

import contextlib
import os
import stat

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

STATE = ".nodeops"
NOTHING_CHANGED = "Nothing was changed."


def exists(dest: str) -> bool:
    """Raises NodeopsError for a directory that cannot be trusted or used."""
    try:
        found = os.lstat(dest)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NodeopsError(
            "The backup store %s cannot be used: %s. %s" % (dest, error.strerror, NOTHING_CHANGED)
        ) from error
    problem = ""
    if stat.S_ISLNK(found.st_mode):
        problem = "is a symbolic link: give the directory that it points to"
    elif not stat.S_ISDIR(found.st_mode):
        problem = "is not a directory"
    elif _trusted_path.is_foreign(found):
        problem = "belongs to %s: run as that user (become_user)" % _trusted_path.name_of(found.st_uid)
    elif _trusted_path.is_writable_for_others(found):
        problem = "can be written to by other users (mode %04o), who may have put something into it" % (
            stat.S_IMODE(found.st_mode)
        )
    elif not os.access(dest, os.R_OK | os.W_OK | os.X_OK):
        problem = "belongs to %s and is closed to %s: run as its owner (become_user)" % (
            _trusted_path.name_of(found.st_uid),
            _trusted_path.name_of(os.geteuid()),
        )
    if problem:
        raise NodeopsError("The backup store %s %s. %s" % (dest, problem, NOTHING_CHANGED))
    return True


def create(dest: str) -> None:
    """Make the directory, 0700, with the one for the store's state. Raises NodeopsError."""
    try:
        if not os.path.lexists(dest):
            os.makedirs(os.path.dirname(dest), exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another run makes it too
                os.mkdir(dest, 0o700)
            _files.sync_directory(os.path.dirname(dest))
        exists(dest)
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(dest, STATE), 0o700)
            _files.sync_directory(dest)
        if stat.S_IMODE(os.stat(dest).st_mode) != 0o700:
            os.chmod(dest, 0o700)
    except OSError as error:
        raise NodeopsError(
            "The backup store %s cannot be made: %s. Nothing was backed up." % (dest, _files.why(error))
        ) from error
