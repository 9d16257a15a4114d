# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The link that names the live release, switched by rename: a reader sees the old or the new, never none."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError


class Switch(NamedTuple):
    """The link at ``path`` is to point to ``after`` instead of ``before`` (its text; None: there was no link)."""

    path: str
    before: Optional[str]
    after: str


def target(path: str) -> Optional[str]:
    """The text of the link, None if there is nothing. Raises NodeopsError if there is something else."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None
    except OSError:
        raise NodeopsError(
            "%s is not a symbolic link, so it was not made by this collection. Nothing was changed. Move it away, or "
            "choose another root." % path
        ) from None


def apply(switch: Switch) -> None:
    """Point the link to ``after``. Raises NodeopsError, with the link as it was."""
    _set(switch.path, switch.after)


def revert(switch: Switch) -> None:
    """Point the link to ``before`` again. Raises NodeopsError."""
    if switch.before is not None:
        _set(switch.path, switch.before)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(switch.path)
        _files.sync_directory(os.path.dirname(switch.path))


def _set(path: str, text: str) -> None:
    if target(path) == text:
        return
    temporary = os.path.join(os.path.dirname(path), ".%s.new" % os.path.basename(path))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(text, temporary)
        os.rename(temporary, path)
        _files.sync_directory(os.path.dirname(path))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise NodeopsError("%s could not be switched to %s: %s." % (path, text, _files.why(error))) from error
