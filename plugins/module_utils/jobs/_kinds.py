# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a step of a job can be: the functions of the modules, by the module's name."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

KINDS = ("pm2_dump_backup", "pg_backup", "pg_restore", "pm2_recover", "offsite")


def library(kind: str) -> Any:
    """The file behind ``kind``. It has ``ARGUMENTS`` (a module's argument specification) and
    ``run(params, check_mode, warn) -> result``, which raises NodeopsError.

    Each is imported only if it is needed. The imports are written out, because Ansible reads them to know what a
    module needs.
    """
    if kind == "pm2_dump_backup":
        from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _dump_backup

        return _dump_backup
    if kind == "pg_backup":
        from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _backup

        return _backup
    if kind == "pg_restore":
        from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _restore

        return _restore
    if kind == "pm2_recover":
        from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _pm2_recover

        return _pm2_recover
    if kind == "offsite":
        from ansible_collections.nodeops.pm2.plugins.module_utils.store import _offsite

        return _offsite
    raise NodeopsError("A step is called %r. Nothing was done. Possible are: %s." % (kind, ", ".join(KINDS)))


def arguments(kind: str) -> Dict[str, Dict[str, Any]]:
    """The options of a step, as an argument specification."""
    return dict(library(kind).ARGUMENTS)
