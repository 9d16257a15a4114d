# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the modules have in common: a result without secrets, and what signals do."""

from __future__ import annotations

from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK


class Module(AnsibleModule):
    """An AnsibleModule that shows no secret of its options: not in ``invocation``, not in the system's log."""

    def __init__(self, argument_spec: Dict[str, Any], masks: _masks.Masks, **kwargs: Any) -> None:
        """``masks``: what may be shown of an option that is not plain, or that may hold a secret although it is."""
        self._masks = masks
        super().__init__(argument_spec=argument_spec, supports_check_mode=True, no_log=True, **kwargs)

    def _log_invocation(self) -> None:
        """Keep the options out of the system's log. ``no_log`` above does not: that of the task overrides it."""

    def exit_json(self, **kwargs: Any) -> NoReturn:
        super().exit_json(invocation=self._invocation(), **kwargs)

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        super().fail_json(msg, invocation=self._invocation(), **kwargs)

    def _invocation(self) -> Dict[str, Any]:
        """The options as they may be shown, also those of a call whose options are wrong."""
        spec = getattr(self, "argument_spec", {})
        params = dict(getattr(self, "params", None) or {})
        return {"module_args": {name: self._shown(spec.get(name), name, value) for name, value in params.items()}}

    def _shown(self, option: Optional[Dict[str, Any]], name: str, value: Any) -> Any:
        """What may be shown of one option. An option that is not known may be a secret under a misspelt name."""
        if option is None:
            return MASK
        mask = self._masks.get(name, _masks.text if is_plain(option) else _masks.hidden)
        return None if value is None else mask(value)


def is_plain(option: Dict[str, Any]) -> bool:
    """Whether an option is one text, number or path. Only such an option is shown without a mask."""
    return option.get("type", "str") not in ("dict", "list", "raw", "json", "jsonarg")


def run(module: Module, main: Callable[[], Dict[str, Any]], warnings: Sequence[str] = ()) -> None:
    """Run ``main`` and exit with its result. NodeopsError becomes a failure, and a signal to end becomes an undo.

    ``warnings`` are read when ``main`` has succeeded.
    """
    with _signals.raised():
        try:
            result = main()
            for warning in warnings:
                module.warn(warning)
            _signals.hold()
        except NodeopsError as error:
            module.fail_json(str(error), **error.details)
        module.exit_json(**result)
