# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The manifest of a release: what it is, where it came from, its status. It holds no secrets."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import MANIFEST, Layout

PREPARED, BUILT, GOOD, BAD, ROLLED_BACK = "prepared", "built", "good", "bad", "rolled back"
UNFINISHED = (PREPARED, BUILT)


class Manifest(NamedTuple):
    """The content of a manifest. Times are UTC, ISO 8601."""

    release: str
    app: str
    namespace: str
    version: str
    revision: str
    fingerprint: str
    run: str
    status: str
    created: str
    created_by: str
    source: Dict[str, Any]
    dependencies: List[Dict[str, Any]]
    former: Optional[str] = None
    """The release that was live when this one was made; None for the first."""
    published: Optional[str] = None
    migrated: Optional[str] = None
    reason: Optional[str] = None
    """Why it is bad or was rolled back."""

    @property
    def unfinished(self) -> bool:
        return self.status in UNFINISHED

    @property
    def good(self) -> bool:
        return self.status == GOOD


def read(directory: str) -> Optional[Manifest]:
    """The manifest of the release in ``directory``; None if there is none, or it cannot be read."""
    try:
        with open(os.path.join(directory, MANIFEST), encoding="utf-8") as stream:
            return Manifest(**json.load(stream))
    except (OSError, ValueError, TypeError):
        return None


def write(directory: str, manifest: Manifest) -> None:
    """Replace the manifest. Raises NodeopsError, and then the old one is still there."""
    path = os.path.join(directory, MANIFEST)
    data = json.dumps(manifest._asdict(), indent=2, ensure_ascii=False) + "\n"
    try:
        _files.write_atomically(path, data.encode("utf-8", "replace"), mode=0o644)
    except OSError as error:
        raise NodeopsError("%s could not be written: %s." % (path, _files.why(error))) from error


def read_all(layout: Layout) -> List[Manifest]:
    """The manifests of all releases, the last published first. Those never published follow, the last made first."""
    found = []
    try:
        names = os.listdir(layout.releases)
    except FileNotFoundError:
        names = []
    for name in names:
        manifest = read(layout.release(name))
        if manifest is not None and manifest.release == name:
            found.append(manifest)
    return sorted(found, key=lambda manifest: (manifest.published or "", manifest.created), reverse=True)


def predecessors(manifests: List[Manifest], release: str) -> List[Manifest]:
    """The releases that were live before ``release``, the last first; ``manifests`` as ``read_all`` returns them.

    Each release names its former one, so a clock that was set back does not matter, and a release that a rollback has
    left is not among them. If a former release was removed, the last one published before it takes its place.
    """
    left = {manifest.release: manifest for manifest in manifests}
    found: List[Manifest] = []
    manifest = left.pop(release, None)
    while manifest is not None and manifest.former:
        former = left.get(manifest.former) or _last_before(manifest, left.values())
        if former is not None:
            found.append(left.pop(former.release))
        manifest = former
    return found


def _last_before(manifest: Manifest, others: Iterable[Manifest]) -> Optional[Manifest]:
    since = manifest.published or manifest.created
    return next((other for other in others if other.published and other.published < since), None)
