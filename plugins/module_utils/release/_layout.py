# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The directories and files below an application's root."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

MANIFEST = ".nodeops-release.json"
PREPARING = ".preparing-"
REMOVING = ".removing-"
ID = "[A-Za-z0-9][A-Za-z0-9._+-]{0,119}"


class Layout(NamedTuple):
    """Paths below an application's root."""

    root: str

    @property
    def current(self) -> str:
        """The link that names the live release."""
        return os.path.join(self.root, "current")

    @property
    def releases(self) -> str:
        return os.path.join(self.root, "releases")

    @property
    def shared(self) -> str:
        return os.path.join(self.root, "shared")

    @property
    def history(self) -> str:
        return os.path.join(self.root, "deploys.jsonl")

    @property
    def private(self) -> str:
        """0700: the lock, the processes of each release with their environment, the git mirror, unfinished work."""
        return os.path.join(self.root, ".nodeops")

    @property
    def definitions(self) -> str:
        return os.path.join(self.private, "definitions")

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def link_text(self, release: str) -> str:
        """The text of ``current``: relative, so that the root may be mounted elsewhere."""
        return os.path.join("releases", release)

    def release_named_by(self, link_text: str) -> str:
        """The id of the release that a text of ``current`` leads to, also over more links; "" if it leads elsewhere."""
        path = os.path.join(self.root, link_text)
        real = os.path.realpath(path)
        if os.path.dirname(real) == os.path.realpath(self.releases):
            return os.path.basename(real)
        path = os.path.normpath(path)  # a release may itself be a link to another disk
        return os.path.basename(path) if os.path.dirname(path) == os.path.normpath(self.releases) else ""

    def release_at(self, real_path: str) -> str:
        """The id of the release whose directory a real path is or lies in, "" for none."""
        top = os.path.realpath(self.releases) + os.sep
        return real_path[len(top) :].split(os.sep)[0] if real_path.startswith(top) else ""

    def make(self) -> None:
        """Create the missing directories. Raises NodeopsError."""
        try:
            with _files.readable_by_all():
                os.makedirs(self.releases, exist_ok=True)
            for path in (self.private, self.definitions):
                os.makedirs(path, exist_ok=True)
                os.chmod(path, 0o700)
        except OSError as error:
            raise NodeopsError(
                "%s cannot be created: %s. Nothing was changed. Create root for the user of the task, or become that "
                "user." % (error.filename, error.strerror)
            ) from error


def check_id(release: str) -> str:
    """Raises NodeopsError for a name that cannot be the id of a release."""
    if not re.fullmatch(ID, release):
        raise NodeopsError(
            "release %r cannot be an id: an id has up to 120 letters, digits and . _ + -, and begins with a letter or "
            "digit. Nothing was changed." % release
        )
    return release
