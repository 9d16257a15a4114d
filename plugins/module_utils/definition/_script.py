# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The script's file, its interpreter and its mode (Common.js:131, 339 and 415 of PM2 7.0.4)."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _paths
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._values import shown

NO_INTERPRETER = "none"
CLUSTER = "cluster_mode"
FORK = "fork_mode"

_BY_EXTENSION = {
    ".sh": "bash",
    ".py": "python",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
    ".js": "node",
    ".coffee": "coffee",
    ".ls": "lsc",
    ".ts": "bun",
    ".tsx": "bun",
}
"""API/interpreter.json, the same in 5.4, 6.0 and 7.0."""
_SHIPPED = ("coffee", "lsc")
"""Interpreters that PM2 looks for in its own node_modules, though it does not ship them any more (Common.js:468)."""
_STRIP_TYPES = "--experimental-strip-types"
_VERSION = re.compile("v([0-9]+)[.]([0-9]+)[.]([0-9]+)")
_SERVE = "serve"

Refuse = Callable[[str, str], None]


def resolve(
    config: Dict[str, Any], env: Dict[str, str], context: Context, base_dir: str, refuse: Refuse
) -> Optional[str]:
    """Replace script in ``config`` by pm_exec_path, exec_interpreter and exec_mode; set PYTHONUNBUFFERED in ``env``.

    Returns the interpreter's file; None for a script that is started by itself, and for one that was refused.
    """
    return _Resolver(config, env, context, base_dir, refuse).run()


class _Resolver:
    def __init__(
        self, config: Dict[str, Any], env: Dict[str, str], context: Context, base_dir: str, refuse: Refuse
    ) -> None:
        self.config = config
        self.env = env
        self.context = context
        self.base_dir = base_dir
        self.refuse = refuse
        self.major = context.pm2_version[0]
        self.cwd: str = config["pm_cwd"]
        self.written: str = config.get("exec_interpreter") or ""

    def run(self) -> Optional[str]:
        path = self._script_path(self.config.pop("script"))
        if path is None:
            return None
        self.config["pm_exec_path"] = path
        self._source_maps(path)
        interpreter = self._interpreter(path)
        if interpreter is None:
            return None
        if "python" in interpreter:
            self.env["PYTHONUNBUFFERED"] = "1"
        found = self._find(interpreter)
        if found is None:
            return None
        name, interpreter_path = found
        self.config["exec_interpreter"] = name
        self._mode(name, interpreter_path)
        self._check_script(path, name)
        return interpreter_path

    def _script_path(self, script: str) -> Optional[str]:
        """Relative to the cwd; if it is not there, as a shell finds it from the base directory (Common.js:132)."""
        if script == _SERVE:
            script = self._serve() or script
        path = _paths.resolve(self.cwd, script)
        if os.path.exists(path):
            return path
        found = _paths.which(script, self.context.base_env.get("PATH", ""), self.base_dir)
        if found is None:
            self.refuse("script", "is not found: %s%s" % (path, _paths.tilde_hint(script)))
        return found

    def _serve(self) -> Optional[str]:
        """API.js:1123: the static file server that comes with PM2."""
        path = os.path.join(self.context.pm2_dir, "lib", "API", "Serve.js")
        return path if self.context.pm2_dir and os.path.exists(path) else None

    def _source_maps(self, path: str) -> None:
        """5.4:168 and 6.0:168: a map beside the script switches source maps on. 7.0 does it for every script."""
        if self.major >= 7 or self.config.get("disable_source_map_support") is True:
            return
        if os.access(path + ".map", os.R_OK):
            self.config["source_map_support"] = True
        self.config.pop("disable_source_map_support", None)

    def _interpreter(self, path: str) -> Optional[str]:
        """Common.js:415 resolveInterpreter, up to the look-up. None, after refusing, if there is none."""
        if self.written:
            if "node@" in self.written:
                self.refuse("interpreter", "%s is for nvm: give the path of that node" % shown(self.written))
                return None
            return self.written
        extension = _paths.extension(path)
        better = _BY_EXTENSION.get(extension)
        if better is None:
            return self._guess(path)
        if better == "python" and not self._which("python") and self._which("python3"):
            return "python3"
        if extension == ".ts" and self.major >= 7 and not self._which("bun"):
            return self._node_with_types()
        return better

    def _guess(self, path: str) -> Optional[str]:
        try:
            binary = _paths.is_binary(path)
        except OSError as error:
            self.refuse("script", "cannot be read: %s: %s" % (path, error.strerror))
            return None
        if binary:
            return NO_INTERPRETER
        return "node" if self.major < 6 else self.context.node

    def _node_with_types(self) -> Optional[str]:
        """7.0:428: TypeScript by node itself, natively (22.18, 23.6) or behind a flag (22.6) (tools/typestrip.js)."""
        version = _node_version(self._which("node") or self.context.node)
        if (22, 18, 0) <= version < (23, 0, 0) or version >= (23, 6, 0):
            return "node"
        if version >= (22, 6, 0):
            node_args: List[str] = self.config["node_args"]
            if _STRIP_TYPES not in node_args:
                self.config["node_args"] = [*node_args, _STRIP_TYPES]
            return "node"
        self.refuse("script", "is TypeScript: it needs bun, node 22.18 or newer, or an interpreter such as ts-node")
        return None

    def _which(self, command: str) -> Optional[str]:
        """Its path on the app's own PATH, which the daemon's spawn uses too."""
        return _paths.which(command, self.env.get("PATH", ""), self.cwd)

    def _find(self, interpreter: str) -> Optional[Tuple[str, Optional[str]]]:
        """The interpreter as sent, and its file; None for a script that is started by itself."""
        if interpreter == NO_INTERPRETER:
            return interpreter, None
        if interpreter in _SHIPPED and self.context.pm2_dir:
            interpreter = os.path.join(self.context.pm2_dir, "node_modules", ".bin", interpreter)
        found = self._which(interpreter)
        if found is None and interpreter == "node":
            return self.context.node, self.context.node
        if found is None:
            self.refuse("interpreter", "%s is not found: not an executable, not in PATH" % shown(interpreter))
            return None
        return interpreter, found

    def _mode(self, interpreter: str, interpreter_path: Optional[str]) -> None:
        """Common.js:339 determineExecMode; which interpreters count as node changed in 6.0 and in 7.0."""
        written = self.config.get("exec_mode")
        if written:
            mode = written if written.endswith("_mode") else written + "_mode"
        else:
            wanted = self.config.get("instances")
            counts = wanted is not None and (wanted >= 1 or wanted in (0, -1))
            mode = CLUSTER if counts and self._looks_like_node(interpreter) else FORK
        self.config["exec_mode"] = mode
        if mode == CLUSTER:
            self._check_cluster(interpreter, interpreter_path, bool(written))

    def _looks_like_node(self, interpreter: str) -> bool:
        if self.major < 6:
            return "node" in interpreter
        if self.major < 7:
            return "node" in interpreter or "bun" in interpreter
        return os.path.basename(interpreter).endswith(("node", "bun"))

    def _check_cluster(self, interpreter: str, interpreter_path: Optional[str], asked: bool) -> None:
        """A worker always runs on the daemon's own node, whatever interpreter is given (ClusterMode.js:59)."""
        if not self.written and interpreter in ("node", self.context.node):
            return
        if self.written == "node":
            return
        if interpreter_path and os.path.realpath(interpreter_path) == os.path.realpath(self.context.node):
            return
        what = "exec_mode" if asked else "interpreter"
        message = "cluster mode runs everything on the daemon's node (%s), not on %s: use exec_mode: fork"
        self.refuse(what, message % (self.context.node, shown(interpreter)))

    def _check_script(self, path: str, interpreter: str) -> None:
        """Refuse scripts that PM2 would start and call "online", though they cannot run."""
        if os.path.isdir(path):
            names = ("package.json", "index.js", "index.json", "index.node")
            if not interpreter.endswith("node") or not any(os.path.exists(os.path.join(path, n)) for n in names):
                self.refuse("script", "is a directory: %s" % path)
        elif interpreter == NO_INTERPRETER and not os.access(path, os.X_OK):
            self.refuse("script", "is not executable, and has no interpreter: %s" % path)
        elif not os.access(path, os.R_OK) and interpreter != NO_INTERPRETER:
            self.refuse("script", "cannot be read: %s" % path)


def _node_version(node: str) -> Tuple[int, ...]:
    """The version of a node binary, (0,) if it is unknown."""
    try:
        done = subprocess.run(
            [node, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={}, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = _VERSION.match(done.stdout.decode("ascii", "replace"))
    return tuple(int(part) for part in match.groups()) if match else (0,)
