# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the attributes the modules have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Descriptions of the attributes; each module adds its support."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)) in diff mode.
  idempotent:
    description: A second run with the same options changes nothing.
  platform:
    description: Target OS families that can be operated against.
    support: full
    platforms: linux
"""

    ACTIONGROUP = r"""
attributes:
  action_group:
    description: Use C(group/nodeops.pm2.pm2) in C(module_defaults) to set defaults for all modules that talk to PM2.
    support: full
    membership:
      - nodeops.pm2.pm2
"""
