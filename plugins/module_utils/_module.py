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
from ansible_collections.nodeops.pm2.plugins.module_utils._redact import MASK, Redactor

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
        """The options as they may be shown. Also of a call whose options are wrong: nothing of it is sure but names."""
        spec = getattr(self, "argument_spec", {})
        params = dict(getattr(self, "params", None) or {})
        shown = {key: value if key in spec else MASK for key, value in params.items()}
        if params.get("apps"):
            shown["apps"] = _each(params["apps"], _app)
        if params.get("ready"):
            shown["ready"] = _ready(params["ready"])
        return {"module_args": shown}


def _each(value: Any, show: Callable[[Any], Any]) -> Any:
    return [show(item) for item in value] if isinstance(value, list) else MASK


def _app(app: Any) -> Any:
    """A definition with every value masked that is a secret, or of a key that nobody knows."""
    from ansible_collections.nodeops.pm2.plugins.module_utils import _schema

    if not isinstance(app, dict):
        return MASK
    shown = {}
    for key, value in app.items():
        found = _schema.ACCEPTED.get(key)
        if found is not None and found.name == "script" and isinstance(value, str):
            shown[key] = value if " " not in value else value.split(" ")[0] + " " + MASK
        else:
            secret = found is None or found.is_secret or found.name == "node_args"
            shown[key] = _masked(value) if secret else value
    return shown


def _ready(ready: Any) -> Any:
    if not isinstance(ready, dict):
        return MASK
    return dict(ready, http=_each(ready["http"], _check)) if ready.get("http") else ready


def _check(check: Any) -> Any:
    if not isinstance(check, dict):
        return MASK
    return dict(check, url=Redactor().text(str(check.get("url"))), headers=_masked(check.get("headers")))


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
