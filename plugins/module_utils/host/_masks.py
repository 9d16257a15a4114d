# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What of the value of an option may be shown in ``invocation``: one function per kind of option.

The value may be of any type: it is also shown when it is wrong.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor

Mask = Callable[[Any], Any]
Masks = Mapping[str, Mask]
"""By the name of the option."""


def plain(value: Any) -> Any:
    """All of it: nothing in it can be a secret."""
    return value


def text(value: Any) -> Any:
    """A text, a number or a path. Anything else is wrong, and may hold what was meant for another option."""
    return values(value) if isinstance(value, (dict, list)) else value


def hidden(_value: Any) -> str:
    """Nothing of it."""
    return MASK


def values(value: Any) -> Any:
    """The keys of a dictionary. Of anything else only whether it is empty."""
    if isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    return MASK if value else value


def secrets(value: Any) -> Any:
    """Passwords in URLs, and what follows a word such as ``--token``, in all texts of it."""
    redactor = Redactor()
    if isinstance(value, str):
        redactor.add_arguments([value])
        return redactor.text(value)
    if isinstance(value, list):
        redactor.add_arguments(item for item in value if isinstance(item, str))
        return [redactor.text(item) if isinstance(item, str) else secrets(item) for item in value]
    if isinstance(value, dict):
        return {key: secrets(item) for key, item in value.items()}
    return value


def address(value: Any) -> str:
    """A URL or path without its credentials."""
    return _address.shown(str(value))


def each(mask: Mask) -> Mask:
    """``mask`` for each item of a list."""
    return lambda value: [mask(item) for item in value] if isinstance(value, list) else MASK


def keys(readable: str, masks: Optional[Masks] = None) -> Mask:
    """For a dictionary: only the keys named in ``readable`` are shown, and those of ``masks`` by their mask.

    Every other value is hidden, also that of a key that is misspelt.
    """
    shown: Dict[str, Mask] = {**dict.fromkeys(readable.split(), plain), **(masks or {})}

    def mask(value: Any) -> Any:
        if not isinstance(value, dict):
            return MASK
        return {key: shown.get(key, values)(item) if item else item for key, item in value.items()}

    return mask
