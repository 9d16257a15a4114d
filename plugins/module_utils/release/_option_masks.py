# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What of the options of pm2_release may be shown."""

from __future__ import annotations

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _app_mask
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options

MASKS: _masks.Masks = {
    "owner": _masks.plain,
    "source": _masks.keys(
        "type location version sha256 strip exclude key_file known_hosts submodules timeout revision archive",
        {"address": _masks.address},
    ),
    "shared": _masks.plain,
    "environment": _masks.values,
    "contract": _masks.keys("example optional rules"),
    "dependencies": _masks.secrets,
    "build": _masks.secrets,
    "build_environment": _masks.values,
    "path": _masks.plain,
    "migrate": _masks.secrets,
    "forbidden": _masks.plain,
    "apps": _app_mask.APPS,
    "ready": _process_options.READY_MASK,
}
