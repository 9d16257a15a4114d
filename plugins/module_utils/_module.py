# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the modules have in common: options, results without secrets, signals."""

from __future__ import annotations

from typing import Any, Callable, Dict, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nodeops.pm2.plugins.module_utils import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error
from ansible_collections.nodeops.pm2.plugins.module_utils._redact import MASK

CONNECTION_OPTIONS: Dict[str, Dict[str, Any]] = {
    "pm2_home": {"type": "path"},
    "pm2_executable": {"type": "path"},
}


class Module(AnsibleModule):
    """An AnsibleModule that shows no environment of an app: not in ``invocation``, not in the system's log."""

    def __init__(self, argument_spec: Dict[str, Any], **kwargs: Any) -> None:
        # no_log keeps the parameters out of syslog; the result stays readable.
        super().__init__(
            argument_spec=dict(CONNECTION_OPTIONS, **argument_spec), supports_check_mode=True, no_log=True, **kwargs
        )

    def exit_json(self, **kwargs: Any) -> NoReturn:
        super().exit_json(invocation=self._invocation(), **kwargs)

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        super().fail_json(msg, invocation=self._invocation(), **kwargs)

    def _invocation(self) -> Dict[str, Any]:
        params = dict(getattr(self, "params", None) or {})
        if params.get("apps"):
            params["apps"] = [_without_secrets(app) for app in params["apps"]]
        if isinstance(params.get("ready"), dict) and params["ready"].get("http"):
            http = [dict(check, headers=_masked(check.get("headers"))) for check in params["ready"]["http"]]
            params["ready"] = dict(params["ready"], http=http)
        return {"module_args": params}


def _without_secrets(app: Any) -> Any:
    """A definition with every value of an environment and every argument masked."""
    if not isinstance(app, dict):
        return MASK
    secret = ("args", "node_args", "nodeArgs", "interpreter_args", "interpreterArgs", "io")
    return {key: _masked(value) if str(key).startswith("env") or key in secret else value for key, value in app.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    return MASK if value else value


def run(module: Module, main: Callable[[], Dict[str, Any]]) -> None:
    """Run ``main`` and exit with its result; turn Pm2Error into a failure. A signal to end becomes an undo."""
    with _signals.raised():
        try:
            result = main()
            _signals.hold()
        except Pm2Error as error:
            module.fail_json(str(error), **error.details)
        module.exit_json(**result)
