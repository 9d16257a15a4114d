# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task files that a deploy runs between its stages."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Optional


def hook_files(hooks: Mapping[str, Optional[str]], directory: str) -> Dict[str, str]:
    """The path of each hook's file. A relative one is below `directory`; a hook without a file is left out."""
    return {name: os.path.join(directory, file) for name, file in hooks.items() if file}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> Dict[str, Callable[..., Any]]:
        """By the names that a template uses."""
        return {"hook_files": hook_files}
