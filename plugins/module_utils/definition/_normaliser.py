# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Turn a definition into what PM2's daemon needs.

The steps are those of `pm2 start <file>`: Common.js verifyConfs (699), tools/Config.js validateJSON (82), API.js
_startJson (985) and startApps (1112), Common.js prepareAppConf (105). Line numbers are those of PM2 7.0.4. What PM2
takes from the caller's shell comes from the Context instead.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _log_paths, _paths, _schema, _script
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._accounts import AccountError, find_account
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import number_text, text, truthy
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._schema import Problem
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._values import (
    BadValue,
    check_name,
    check_text,
    check_tree,
    shown,
)


class Normalised(NamedTuple):
    """A definition that can be started: the daemon's configuration, the complete environment, how many instances."""

    config: Dict[str, Any]
    env: Dict[str, str]
    instances: int
    interpreter_path: Optional[str]


def rendered_name(definition: Mapping[str, Any]) -> str:
    """The name of an app that has none: its script's file name without the last extension (Common.js:922)."""
    keys = ("script", *_schema.SCRIPT_ALIASES, "exec")
    script = next((definition[key] for key in keys if definition.get(key)), "")
    name = os.path.basename(script.rstrip("/")) if isinstance(script, str) else ""
    return name[: name.rfind(".")] if name.rfind(".") > 0 else name


class Normaliser:
    """Normalises one definition. Problems are collected, so that the user sees all of them at once."""

    def __init__(
        self, definition: object, number: int, context: Context, namespace: str, base_dir: Optional[str]
    ) -> None:
        self.definition = definition
        self.context = context
        self.namespace = namespace
        self.base_dir = base_dir
        self.major = context.pm2_version[0]
        self.problems: List[Problem] = []
        self.warnings: List[str] = []
        self.label = "app %d" % number
        self.name: Optional[str] = None
        self.raw: Dict[str, Any] = {}
        self.given: Dict[str, Any] = {}
        self.env: Dict[str, str] = {}
        self.interpreter_path: Optional[str] = None

    def refuse(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.label, key, message))

    def warn(self, message: str) -> None:
        self.warnings.append("%s: %s" % (self.label, message))

    def run(self) -> Optional[Normalised]:
        """None if there are problems."""
        if not isinstance(self.definition, dict):
            self.refuse("", "must be a mapping with at least a script")
            return None
        self._read(self.definition)
        self._check_name()
        home = self._verify()
        if "script" not in self.raw:
            return None
        config = self._validated()
        self._prepare(config, home)
        if self.problems:
            return None
        count = self._count(config.pop("instances", 1))
        return Normalised(config, self.env, count, self.interpreter_path)

    # The keys as written (checks of our own; PM2 silently drops unknown keys)

    def _read(self, definition: Dict[Any, Any]) -> None:
        name = definition.get("name")
        if isinstance(name, str) and name:
            self.label = "app %s" % shown(name)
        for key, value in definition.items():
            found = _schema.ACCEPTED.get(key) if isinstance(key, str) else None
            if found is None:
                self._read_other(key, value)
            elif value is not None:
                self._read_key(key, found, value)
        for key in _schema.KEYS:
            self._check_given_once(key)

    def _read_key(self, written: str, key: _schema.Key, value: object) -> None:
        try:
            checked = key.check(value, self.major)
        except BadValue as error:
            self.refuse(written, str(error))
            return
        if key.name == "env":
            self._read_env(written, value, {})
        if key.name in _schema.WITHOUT_EFFECT and truthy(value):
            self.warn("%s has no effect in a definition" % written)
        if checked is not None:
            self.raw[written] = value
            self.given[written] = checked

    def _read_other(self, key: object, value: object) -> None:
        if isinstance(key, str) and _schema.is_env_key(key):
            if value is not None and not isinstance(value, dict):
                self.refuse(key, "must be a mapping")
            return
        near = _schema.nearest(key) if isinstance(key, str) else None
        hint = ", did you mean %s?" % near if near else ""
        self.refuse(key if isinstance(key, str) else shown(key), "is not a key of PM2%s" % hint)

    def _check_given_once(self, key: _schema.Key) -> None:
        names = {*key.aliases, key.name}
        if key.name == "script":
            names.update(_schema.SCRIPT_ALIASES)
        written = sorted(names & self.raw.keys())
        if len(written) > 1 and any(self.raw[name] != self.raw[written[0]] for name in written):
            self.refuse(key.name, "is given more than once with different values, as %s" % ", ".join(written))

    def _read_env(self, key: str, value: object, into: Dict[str, str]) -> None:
        """The variables of a mapping as text, into ``into``. Values are never shown."""
        for name, item in value.items() if isinstance(value, dict) else ():
            reason = _schema.variable_problem(name)
            if reason is None:
                try:
                    check_tree(item)
                    into[name] = check_text(text(item))
                except BadValue as error:
                    reason = str(error)
            if reason is None and name == "PM2_HOME" and into[name] != self.context.pm2_home:
                reason = "is set by PM2 to its own home"
            if reason:
                self.refuse("%s.%s" % (key, shown(name).strip('"')), reason)

    # Common.js verifyConfs

    def _put(self, key: str, value: object) -> None:
        self.raw[key] = self.given[key] = value

    def _check_name(self) -> None:
        """Common.js:922 renderApplicationName, which does not know the alias `exec` and then fails."""
        script = self._take_script()
        if self.given.get("name"):
            self.name = self.given["name"]
        elif "name" not in (problem.key for problem in self.problems) and script:
            name = rendered_name({"script": script})
            try:
                self.name = check_name(name)
            except BadValue as error:
                self.refuse("name", "is needed, as the name of the script cannot be used: it %s" % error)
            else:
                self._put("name", name)
                self.label = "app %s" % shown(name)

    def _take_script(self) -> Optional[str]:
        found: Optional[str] = None
        for key in ("script", *_schema.SCRIPT_ALIASES, "exec"):
            value = self.given.pop(key, None)
            self.raw.pop(key, None)
            found = found or value
        if found:
            self._put("script", found)
        elif not any(problem.key in ("script", *_schema.SCRIPT_ALIASES, "exec") for problem in self.problems):
            self.refuse("script", "is required: the path of the script to start")
        return found

    def _verify(self) -> Optional[str]:
        """What verifyConfs derives from the keys as written. Returns the HOME of the user that uid names."""
        given = self.given
        if given.get("exec_mode") in ("fork", "cluster"):
            self._put("exec_mode", given["exec_mode"] + "_mode")
        if given.get("execute_command") is True:
            self._put("exec_mode", "fork")
            del self.raw["execute_command"], given["execute_command"]
        self._run_through_shell()
        if given.get("time"):
            self._put("log_date_format", "YYYY-MM-DDTHH:mm:ss")
        home = self._take_account()
        if given.get("automation") is False:
            self._put("pmx", False)
        if given.get("disable_trace"):
            self._put("trace", False)
            del self.raw["disable_trace"], given["disable_trace"]
        if "instances" in given:
            self._put("instances", given["instances"])
        # Even as null (Common.js:867 asks for undefined).
        is_merge_logs_given = isinstance(self.definition, dict) and "merge_logs" in self.definition
        if given.get("exec_mode") != "cluster_mode" and not given.get("instances") and not is_merge_logs_given:
            self._put("merge_logs", True)
        return home

    def _run_through_shell(self) -> None:
        """Common.js:744: a script with a space is a command line for bash."""
        command = self.given.get("script", "")
        if " " not in command:
            return
        cwd = self.given.get("cwd") or self.base_dir or "/"
        if os.path.exists(_paths.resolve(self.base_dir or "/", cwd, command)):
            self.refuse("script", "has a space in its path: PM2 would give it to bash -c, and bash would not find it")
        if truthy(self.raw.get("args")):
            self.refuse("args", "would be dropped: a script with a space is a command line, put them there")
        if truthy(self.given.get("exec_interpreter") or self.given.get("interpreter")):
            self.refuse("interpreter", "cannot be used: a script with a space is run by bash -c")
        for shell in ("bash", "sh"):
            if _paths.which(shell, self.context.base_env.get("PATH", ""), "/"):
                self._put("script", shell)
                self._put("args", ["-c", command])
                return
        self.refuse("script", "is a command line, but PATH has no bash or sh to run it")

    def _take_account(self) -> Optional[str]:
        """Common.js:777 and tools/passwd.js. As in PM2, `uid: 0` as a number counts as not given."""
        uid, user, gid = self.given.get("uid"), self.given.get("user"), self.given.get("gid")
        if not (truthy(uid) or truthy(user) or truthy(gid)):
            return None
        key = "uid" if truthy(uid) else "user" if truthy(user) else "gid"
        if self.context.uid != 0:
            self.refuse(key, "can be used only when PM2 runs as root, it runs as %s" % self.context.user)
            return None
        if key == "gid":
            self.refuse("gid", "needs a uid too")
            return None
        try:
            account = find_account(self.given[key], gid)
        except AccountError as error:
            self.refuse(error.key if error.key == "gid" else key, str(error))
            return None
        self.raw.pop("user", None)
        self.given.pop("user", None)
        self._put("uid", account.uid)
        self._put("gid", account.gid)
        return account.home

    # tools/Config.js validateJSON

    def _validated(self) -> Dict[str, Any]:
        """Each key by its name: PM2 takes the first of name and aliases that is true to JavaScript (Config.js:99).

        So 0, false and "" for a key with an underscore count as not given, because its camelCase alias comes last.
        """
        config: Dict[str, Any] = {}
        for key in _schema.KEYS:
            value, raw = self.given.get(key.name), self.raw.get(key.name)
            for alias in key.aliases:
                if not truthy(raw):
                    value, raw = self.given.get(alias), self.raw.get(alias)
            if value is None:
                value = _schema.DEFAULTS.get(key.name)
            if value is not None:
                config[key.name] = value
        if config.get("max_restarts") is None and self.given.get("max_restarts") == 0:
            self.warn("PM2 takes max_restarts: 0 as not given, which is 16; autorestart: false means never")
        return config

    # API.js startApps and Common.js prepareAppConf

    def _prepare(self, config: Dict[str, Any], home: Optional[str]) -> None:
        config["username"] = self.context.user
        if config.setdefault("namespace", self.namespace) != self.namespace:
            message = "is %s, but this call is for the namespace %s" % (shown(config["namespace"]), self.namespace)
            self.refuse("namespace", message)
        config.setdefault("node_args", [])
        cwd = self._directory(config)
        self._fill_env(config, home)
        self._check_variables(config)
        if cwd is None:
            return
        config["pm_cwd"] = cwd
        if config.get("cwd"):
            config["cwd"] = cwd
        self.interpreter_path = _script.resolve(config, self.env, self.context, self.base_dir or cwd, self.refuse)
        if self.name is None:
            return
        for problem in _log_paths.put(config, cwd, self.context.pm2_home, self.context.home):
            self.refuse(*problem)

    def _directory(self, config: Dict[str, Any]) -> Optional[str]:
        """pm_cwd: links are kept, so that an app below a `current` link follows it (Common.js:114)."""
        written = config.get("cwd") or ""
        script = config["script"]
        if not written:
            written = self.base_dir or (os.path.dirname(script) if script.startswith("/") else "")
            if not written:
                self.refuse("cwd", "is needed: the script is not an absolute path%s" % _paths.tilde_hint(script))
                return None
        elif not written.startswith("/") and self.base_dir is None:
            self.refuse("cwd", "must be an absolute path here, not %s" % shown(written))
            return None
        directory = _paths.resolve(self.base_dir or "/", written)
        if not os.path.isdir(directory):
            self.refuse("cwd", "is not an existing directory: %s%s" % (directory, _paths.tilde_hint(written)))
            return None
        if not os.access(directory, os.X_OK):
            self.refuse("cwd", "may not be entered by %s: %s" % (self.context.user, directory))
            return None
        return directory

    def _fill_env(self, config: Dict[str, Any], home: Optional[str]) -> None:
        """The env in PM2's order: what env_<name> gave comes last, over port and the home of a uid."""
        written = config.pop("env", {})
        self.env = dict(self.context.base_env)
        for name, value in written.items():
            if _schema.variable_problem(name) is None:
                self.env[name] = text(value)
        if truthy(config.get("port")):
            self.env["PORT"] = number_text(config["port"])
        if home is not None:
            self.env["HOME"] = home
        self.env["PM2_HOME"] = self.context.pm2_home
        if "io" in config:
            self.env["io"] = text(config["io"])
        late: Mapping[str, Any] = getattr(self.definition, "late_env", {})
        for name in late:
            if name in written and _schema.variable_problem(name) is None:
                self.env[name] = text(written[name])

    def _check_variables(self, config: Dict[str, Any]) -> None:
        for key in ("instance_var", "increment_var"):
            name = config.get(key)
            reason = _schema.variable_problem(name) if name else None
            if reason:
                self.refuse(key, "%s %s" % (shown(name), reason))
        if config.get("increment_var") == config["instance_var"]:
            self.refuse("increment_var", "is the same as instance_var")
        if config["instance_var"] in self.env:
            message = (
                "is the variable in which PM2 puts the number of the instance: choose another one with instance_var"
            )
            self.refuse("env.%s" % config["instance_var"], message)

    def _count(self, wanted: float) -> int:
        """God.js:138: 0 is one per CPU, a negative number is that many fewer, but at least one."""
        number = int(wanted)
        if number < -self.context.cpus:
            self.refuse("instances", "is %d, but this host has %d CPUs" % (number, self.context.cpus))
        return max(1, number if number > 0 else self.context.cpus + number)
