# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A restore under way that changes files: what was there before it, kept until it is over."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils import _env_files, _files
from ansible_collections.nodeops.pm2.plugins.module_utils._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error


class Unfinished(NamedTuple):
    """``files`` as they were (None: there was none); ``namespaces`` as the restore remembers them."""

    backup: str
    files: Dict[str, Optional[EnvFile]]
    namespaces: Dict[str, Any]


def path_of(pm2_home: str) -> str:
    """Where it is kept (0600): under a name that no journal of a namespace can have."""
    return _files.state_path(pm2_home, "restore-of-files")


def read(pm2_home: str) -> Optional[Unfinished]:
    """What a killed restore has left, or None. Raises Pm2Error when it is there and unreadable."""
    path = path_of(pm2_home)
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        files = {name: _env_files.from_json(each) if each else None for name, each in document["files"].items()}
        return Unfinished(document["backup"], files, document["namespaces"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Pm2Error(
            "What an interrupted restore has left in %s cannot be read (%s). Nothing was changed. Compare the "
            "environment files by hand, then remove it." % (path, type(error).__name__)
        ) from error


def write(pm2_home: str, unfinished: Unfinished) -> None:
    """Raises Pm2Error when it cannot be made durable."""
    path = path_of(pm2_home)
    files = {name: each.as_json() if each else None for name, each in unfinished.files.items()}
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _files.write_atomically(path, json.dumps(dict(unfinished._asdict(), files=files)).encode())
    except OSError as error:
        raise Pm2Error("%s could not be written: %s. Nothing was restored." % (path, _files.why(error))) from error


def remove(pm2_home: str) -> None:
    """The restore is over."""
    path = path_of(pm2_home)
    with contextlib.suppress(FileNotFoundError):
        _files.discard_unfinished(path)
        os.unlink(path)
        _files.sync_directory(os.path.dirname(path))
