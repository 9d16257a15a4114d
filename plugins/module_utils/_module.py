# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What the modules have in common: options, results without secrets, signals."""

from __future__ import annotations

from typing import AbstractSet, Any, Callable, Dict, NoReturn, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options


class Module(AnsibleModule):
    """An AnsibleModule that shows no environment of an app: not in ``invocation``, not in the system's log."""

    COMMON: Dict[str, Dict[str, Any]] = _process_options.CONNECTION
    """Options of every module of this kind."""

    def __init__(self, argument_spec: Dict[str, Any], **kwargs: Any) -> None:
        super().__init__(
            argument_spec=dict(self.COMMON, **argument_spec), supports_check_mode=True, no_log=True, **kwargs
        )

    def _log_invocation(self) -> None:
        """The options stay out of the system's log. (no_log above does not do that: the task's wins over it.)"""

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
        for name in ("environment", "build_environment"):
            if params.get(name):
                shown[name] = _masked(params[name])
        if params.get("contract"):
            shown["contract"] = _contract(params["contract"])
        for name in ("build", "migrate", "dependencies"):
            if params.get(name):
                shown[name] = _without_secrets(params[name])
        if params.get("login_password"):
            shown["login_password"] = MASK
        if params.get("source"):
            shown["source"] = _source(params["source"])
        return {"module_args": shown}


def _each(value: Any, show: Callable[[Any], Any]) -> Any:
    return [show(item) for item in value] if isinstance(value, list) else MASK


def _app(app: Any) -> Any:
    """A definition with every value masked that is a secret, or of a key that nobody knows."""
    from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _schema

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


def _source(source: Any) -> Any:
    if not isinstance(source, dict):
        return MASK
    readable = {"type", "location", "version", "sha256", "strip", "exclude", "key_file", "known_hosts", "submodules"}
    shown = _only(source, readable | {"timeout", "revision", "archive"})
    return dict(shown, address=_shown_address(source.get("address")))


def _only(given: Dict[str, Any], readable: AbstractSet[str]) -> Dict[str, Any]:
    """With what is not ``readable`` masked: also a key that nobody knows, such as one that is misspelt."""
    return {key: value if key in readable else _masked(value) for key, value in given.items()}


def _contract(contract: Any) -> Any:
    return _only(contract, {"example", "optional", "rules"}) if isinstance(contract, dict) else MASK


def _without_secrets(value: Any) -> Any:
    """Passwords in URLs, and what follows a word such as ``--token``."""
    redactor = Redactor()
    if isinstance(value, str):
        redactor.add_arguments([value])
        return redactor.text(value)
    if isinstance(value, list):
        redactor.add_arguments(item for item in value if isinstance(item, str))
        return [redactor.text(item) if isinstance(item, str) else _without_secrets(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    return value


def _ready(ready: Any) -> Any:
    if not isinstance(ready, dict):
        return MASK
    shown = _only(ready, {"timeout", "min_uptime", "log"})
    if ready.get("http"):
        shown["http"] = _each(ready["http"], _check)
    if ready.get("tcp"):
        shown["tcp"] = _each(ready["tcp"], _shown_address)
    return shown


def _check(check: Any) -> Any:
    if not isinstance(check, dict):
        return MASK
    shown = _only(check, {"status", "expect", "timeout", "validate_certs"})
    return dict(shown, url=_shown_address(check.get("url")))


def _shown_address(value: Any) -> str:
    from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address

    return _address.shown(str(value))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    return MASK if value else value


def run(module: Module, main: Callable[[], Dict[str, Any]], warnings: Sequence[str] = ()) -> None:
    """Run ``main`` and exit with its result; turn NodeopsError into a failure. A signal to end becomes an undo.

    ``warnings`` are those there are when ``main`` has succeeded.
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
