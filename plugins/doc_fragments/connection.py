# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options every module has."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that say which PM2 daemon is meant."""

    DOCUMENTATION = r"""
options:
  pm2_home:
    description:
      - The daemon's directory, an absolute path.
      - The default is E(PM2_HOME) in the environment of the task, else C(~/.pm2) of the user the task runs as.
      - A directory or a daemon of another user is refused. Use C(become_user) to run the task as that user.
    type: path
  pm2_executable:
    description:
      - The C(pm2) program. It is used only to start a daemon and to find the installed version.
      - By default, C(pm2) is searched for in E(PATH) and in the standard directories.
    type: path
requirements:
  - PM2 5.4, 6.0 or 7.0 on the target (the daemon is asked for its version; another one is refused)
  - Python 3.8 or newer on the target, standard library only
"""
