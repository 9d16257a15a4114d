# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Ecosystem files: from a file to raw definitions, with one environment merged as PM2 does."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, List, Mapping, NoReturn, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem_node
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import truthy
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._normaliser import rendered_name
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._schema import is_env_key
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

MAX_SIZE = 4 * 1024 * 1024
"""Bytes of a file."""

_KINDS = {".json": "json", ".yml": "yaml", ".yaml": "yaml", ".js": "js", ".cjs": "js", ".mjs": "js"}


class Definition(Dict[str, Any]):
    """A raw definition with one environment merged.

    ``late_env`` are the variables of env_<name>. PM2 applies the variables of env first, then its own for port, uid and
    interpreter, and then these (API.js:1146).
    """

    late_env: Mapping[str, Any] = {}


class Definitions(List[Dict[str, Any]]):
    """Raw definitions, with warnings for the user."""

    def __init__(self, items: Iterable[Dict[str, Any]] = (), warnings: Iterable[str] = ()) -> None:
        super().__init__(items)
        self.warnings = list(warnings)

    def override(self, environment: Mapping[str, Any]) -> None:
        """Set these variables in each definition's env."""
        for definition in self:
            if environment and isinstance(definition, dict) and isinstance(definition.get("env"), (dict, type(None))):
                definition["env"] = {**(definition.get("env") or {}), **environment}
                if isinstance(definition, Definition):
                    definition.late_env = {k: v for k, v in definition.late_env.items() if k not in environment}


def load(path: str, env_name: Optional[str], context: Context, timeout: float = 10.0) -> Definitions:
    """The definitions of a file, env_<env_name> merged into env, every other env_* dropped.

    JSON is first read strictly. If that fails (comments and the like), it is evaluated as a JavaScript expression, as
    PM2 does. Node evaluates JavaScript with the base environment, in the file's directory, for at most ``timeout``
    seconds. Raises NodeopsError: no such file, not an ecosystem file, it throws or takes too long, no app has env_name.
    """
    absolute = os.path.abspath(path)
    kind = _KINDS.get(os.path.splitext(absolute)[1])
    if kind is None:
        _fail(absolute, "is not an ecosystem file: its name must end with .js, .cjs, .mjs, .json, .yml or .yaml")
    source = _read(absolute)
    reduced = _parsed(source, kind)
    if reduced is None:
        found = _ecosystem_node.evaluate(absolute, kind, context, timeout)
        if found.error is not None:
            _fail(absolute, "cannot be used: %s" % found.error)
        reduced = found.config
    if reduced.get("static"):
        _fail(absolute, "has `static`, which this collection does not start: use an app with script: serve")
    apps = reduced["apps"]
    definitions = apps if isinstance(apps, list) else [apps]
    deploy = (reduced.get("deploy") or {}).get(env_name) if env_name else None
    warnings = ["%s: %s beside the apps is ignored, as PM2 does" % (path, key) for key in reduced.get("others", ())]
    merged = _merge(definitions, env_name, deploy if isinstance(deploy, dict) else {}, absolute)
    merged.warnings[:0] = warnings
    return merged


def merge_env(definitions: List[Dict[str, Any]], env_name: Optional[str]) -> Definitions:
    """The same merge for inline definitions. Raises NodeopsError if no app has env_<env_name>."""
    return _merge(definitions, env_name, {}, None)


def _fail(path: str, message: str) -> NoReturn:
    raise NodeopsError("The ecosystem file %s %s. Nothing was changed." % (path, message), {"ecosystem": path})


def _read(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            _fail(path, "does not exist" if not os.path.lexists(path) else "is not a file")
        with open(path, "rb") as file:
            source = file.read(MAX_SIZE + 1)
    except OSError as error:
        _fail(path, "cannot be read: %s" % error.strerror)
    if len(source) > MAX_SIZE:
        _fail(path, "is larger than %d bytes" % MAX_SIZE)
    return source


class _NotJson(ValueError):
    pass


def _not_json(_word: str) -> NoReturn:
    raise _NotJson


def _parsed(source: bytes, kind: str) -> Optional[Dict[str, Any]]:
    """The content, if it is strict JSON. None if node has to read it."""
    if kind != "json":
        return None
    try:
        config = json.loads(source.decode("utf-8-sig"), parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    return _reduced(config)


def _reduced(config: object) -> Optional[Dict[str, Any]]:
    """The same as `reduce` of the JavaScript program (API.js:943). None if it is not a configuration."""
    if isinstance(config, list):
        return {"apps": config}
    if not isinstance(config, dict):
        return None
    holder = next((key for key in ("apps", "pm2") if truthy(config.get(key))), None)
    others = {key: value for key, value in config.items() if key not in ("apps", "pm2", "deploy", "static")}
    if holder is None and not others:
        return None
    deploy = config.get("deploy")
    return {
        "apps": config[holder] if holder else others,
        "others": list(others) if holder else [],
        "static": truthy(config.get("static")),
        "deploy": {
            name: item["env"]
            for name, item in (deploy.items() if isinstance(deploy, dict) else ())
            if isinstance(item, dict) and truthy(item.get("env"))
        },
    }


def _merge(
    definitions: List[Dict[str, Any]], env_name: Optional[str], deploy: Mapping[str, Any], path: Optional[str]
) -> Definitions:
    merged = Definitions(_merged(definition, env_name, deploy) for definition in definitions)
    if not env_name:
        return merged
    key = "env_" + env_name
    having = [isinstance(definition, dict) and key in definition for definition in definitions]
    if not any(having) and not deploy:
        known = sorted(
            {name for item in definitions if isinstance(item, dict) for name in item if is_env_key(str(name))}
        )
        raise NodeopsError(
            "env_name is %s, but no app%s has %s (there is: %s). Nothing was changed."
            % (env_name, " of %s" % path if path else "", key, ", ".join(known) or "no env_* at all"),
            {"env_name": env_name, "known": known},
        )
    if not deploy:
        for definition, has_it in zip(merged, having):
            if not has_it:
                merged.warnings.append("%s has no %s, its env is used as it is" % (_named(definition), key))
    return merged


def _named(definition: object) -> str:
    name = (definition.get("name") or rendered_name(definition)) if isinstance(definition, dict) else ""
    return "app %s" % name if name else "an app"


def _merged(definition: Any, env_name: Optional[str], deploy: Mapping[str, Any]) -> Any:
    """Common.js:618 mergeEnvironmentVariables at a start: env, over it deploy's env, over both env_<name>.

    PM2 turns objects in env into JSON but silently drops those in env_<name>. Here both become JSON.
    """
    if not isinstance(definition, dict):
        return definition
    kept = {key: value for key, value in definition.items() if not _is_mergeable(key, value)}
    result = Definition(kept)
    if env_name:
        late = {**deploy, **(definition.get("env_" + env_name) or {})} if _can_merge(definition, env_name) else {}
        if late:
            result.late_env = late
            result["env"] = {**(definition.get("env") or {}), **late}
        if truthy(definition.get("append_env_to_name", definition.get("appendEnvToName"))):
            result["name"] = "%s-%s" % (definition.get("name") or rendered_name(definition), env_name)
    return result


def _is_mergeable(key: object, value: object) -> bool:
    """Whether it is an env_* of the right type. One of a wrong type stays, and is refused with all other problems."""
    return isinstance(key, str) and is_env_key(key) and (value is None or isinstance(value, dict))


def _can_merge(definition: Mapping[str, Any], env_name: str) -> bool:
    values = (definition.get("env"), definition.get("env_" + env_name))
    return all(value is None or isinstance(value, dict) for value in values)
