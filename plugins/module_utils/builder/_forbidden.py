# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Refuse commands that the inventory forbids, also where a script of package.json leads to them."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
from collections import deque
from typing import Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Pattern, Sequence, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _command_line
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _commands
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor

_LIFECYCLE = "preinstall install postinstall prepublish preprepare prepare postprepare".split()
_RUNNERS = frozenset("run-s run-p npm-run-all npm-run-all2".split())
_OF_WORKSPACES = frozenset("turbo nx lerna lage rush wsrun ultra moon".split())
_LEADING = _command_line.MANAGERS | _RUNNERS | _OF_WORKSPACES | {"concurrently", "node"}
"""Programs that lead to scripts of a directory."""
_SHORT = {"t": "test", "tst": "test"}
_MAX_STEPS = 20000
_MORE_STEPS = 200  # for each package
_MAX_DEPTH = 50  # scripts that call each other
_MAX_PACKAGES = 1000
_NOT_LOOKED_INTO = frozenset("node_modules .git .venv site-packages".split())

Chain = Tuple[str, ...]
"""The scripts that led to a command."""
Read = Callable[[str], Optional[str]]
"""The text of a file of the release, by its path in it; None where there is none, or it is not here yet."""
Packages = Callable[[], Iterable[str]]
"""The directories of the release that have a package.json, "" for its top."""


class _Line(NamedTuple):
    text: str
    chain: Chain


def check(
    commands: Sequence[_commands.Command],
    patterns: Sequence[str],
    package_json: Optional[str],
    what: str,
    read: Optional[Read] = None,
    packages: Optional[Packages] = None,
) -> None:
    """Raises NodeopsError when a command, or one it leads to, has a match of one of ``patterns`` (re.search).

    A command line is its words with one space between them. It is followed through ``npm run`` and its like (with the
    scripts before and after, and the words given to it), ``npx``, and ``sh -c``; with ``read`` also to the scripts of
    another directory (``npm --prefix app run x``, ``cd app && npm run x``). Where it is not sure in which package a
    script runs (``npm run x -w db``, ``pnpm -r run x``, ``turbo run x``), those of all ``packages`` are looked at. What
    a program or a script file does itself is not seen. ``what`` says where the commands stand: "build". A pattern that
    is none is a NodeopsError.
    """
    compiled = [_compiled(pattern) for pattern in patterns]
    if not compiled:
        return
    scripts = _scripts(package_json)
    for command in commands:
        argv = _commands.arguments(command)
        for line in _ReachableCommands(scripts, argv, read, packages).lines():
            for pattern in compiled:
                if pattern.search(line.text):
                    raise _refusal(argv, line, pattern.pattern, what)


def _compiled(pattern: object) -> Pattern[str]:
    try:
        return re.compile(pattern)  # type: ignore[call-overload, no-any-return]
    except (re.error, TypeError, RecursionError) as error:
        raise NodeopsError(
            "forbidden: %r is no regular expression: %s. Nothing was run. Correct it." % (pattern, error)
        ) from None


def _refusal(argv: Sequence[str], line: _Line, pattern: str, what: str) -> NodeopsError:
    redactor = Redactor()
    redactor.add_arguments([*argv, line.text])
    command, found = redactor.text(" ".join(argv)), redactor.text(line.text)
    chain = " (by way of %s)" % ", ".join(line.chain) if line.chain else ""
    leads = "is" if found == command and not line.chain else "leads to %s%s, which is" % (found, chain)
    return NodeopsError(
        "%s%s: the command %s %s forbidden by the pattern %s. Nothing was run. Take the command out, or the pattern "
        "out of deploy_forbidden." % (what[:1].upper(), what[1:], command, leads, pattern),
        {"command": command, "forbidden": found, "pattern": pattern},
    )


def _scripts(package_json: Optional[str]) -> Dict[str, str]:
    try:
        scripts = json.loads((package_json or "{}").lstrip("\ufeff")).get("scripts")
    except (ValueError, AttributeError, RecursionError):
        return {}  # npm will say so
    return {name: text for name, text in scripts.items() if isinstance(text, str)} if isinstance(scripts, dict) else {}


def packages_below(top: str) -> List[str]:
    """The directories below ``top`` that have a package.json, but for installed ones; no link is followed.

    Raises NodeopsError where there are too many to look at all.
    """
    found: List[str] = []
    todo = [""]
    while todo:
        directory = todo.pop()
        try:
            entries = sorted(os.scandir(os.path.join(top, directory)), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name == "package.json":
                found.append(directory)
            elif entry.name not in _NOT_LOOKED_INTO and entry.is_dir(follow_symlinks=False):
                todo.append(os.path.join(directory, entry.name))
        if len(found) > _MAX_PACKAGES:
            raise NodeopsError(
                "%s holds more than %d files package.json outside node_modules, so it cannot be told whether a command "
                "leads to a forbidden one. Nothing was run. Leave out of the source what is not needed, or make "
                "deploy_forbidden []." % (top, _MAX_PACKAGES)
            )
    return found


class _ReachableCommands:
    """All command lines that one command leads to."""

    def __init__(
        self, scripts: Dict[str, str], argv: Sequence[str], read: Optional[Read], packages: Optional[Packages]
    ) -> None:
        self._scripts_in = {"": scripts}
        self._read = read
        self._packages = packages
        self._here = ""
        self._seen: Set[Tuple[str, ...]] = set()
        self._done_everywhere: Set[Tuple[str, ...]] = set()
        self._todo: Deque[Tuple[str, Sequence[str], Chain]] = deque()
        self._found: List[_Line] = []
        self._enqueue(argv, ())

    @property
    def _scripts(self) -> Dict[str, str]:
        return self._scripts_in[self._here]

    def _directory(self, named: str, here: str) -> Optional[str]:
        """Another directory of the release that has scripts; None where it has none or cannot be looked into."""
        path = os.path.normpath(os.path.join(here, named))
        path = "" if path == "." else path
        return path if path in self._scripts_in or self._has_package(path) else None

    def _has_package(self, path: str) -> bool:
        text = self._read(path + "/package.json") if self._read and not path.startswith(("/", "..")) else None
        if text is not None:
            self._scripts_in[path] = _scripts(text)
        return text is not None

    def _all_directories(self) -> List[str]:
        if self._packages is not None:
            for path in self._packages():
                if path not in self._scripts_in:
                    self._has_package(path)
            self._packages = None
        return list(self._scripts_in)

    def _in_every_package(self, argv: Sequence[str], chain: Chain) -> None:
        """Follow ``argv`` in every package, as it is not told here in which it runs."""
        if tuple(argv) not in self._done_everywhere:
            self._done_everywhere.add(tuple(argv))
            for directory in self._all_directories():
                self._enqueue(argv, chain, directory)

    def _enqueue(self, argv: Sequence[str], chain: Chain, directory: Optional[str] = None) -> None:
        where = self._here if directory is None else directory
        if argv and self._is_new("argv", *argv, where=where if self._depends_on_directory(argv) else ""):
            self._todo.append((where, argv, chain))

    @staticmethod
    def _depends_on_directory(argv: Sequence[str]) -> bool:
        """Whether what it leads to may depend on where it runs; else it is followed once."""
        return any(
            _command_line.program(word) in _LEADING or _command_line.BEFORE_TEXT.fullmatch(word) for word in argv
        )

    def lines(self) -> List[_Line]:
        """The command itself first. Raises NodeopsError when there is no end of it."""
        while self._todo:
            self._here, argv, chain = self._todo.popleft()  # the shortest chains first
            self._visit(argv, chain)
            most = _MAX_STEPS + _MORE_STEPS * len(self._scripts_in)
            if len(self._seen) > most or len(chain) > _MAX_DEPTH:
                redactor = Redactor()
                redactor.add_arguments(self._found[0].text.split())
                raise NodeopsError(
                    "The command %s leads to too many others, by way of scripts that call each other, so it cannot be "
                    "told whether one is forbidden. Nothing was run. Let it call fewer, or make deploy_forbidden []."
                    % redactor.text(self._found[0].text)
                )
        return self._found

    def _is_new(self, *step: str, where: Optional[str] = None) -> bool:
        step = (self._here if where is None else where, *step)
        is_new = step not in self._seen
        self._seen.add(step)
        return is_new

    def _add_line(self, text: str, chain: Chain) -> None:
        self._found.append(_Line(" ".join(text.split()), chain))

    def _visit(self, argv: Sequence[str], chain: Chain) -> None:
        self._add_line(" ".join(argv), chain)
        inner = _command_line.without_prefix(argv)
        self._enqueue(inner, chain)
        if any(map(_command_line.is_setting, argv)):
            self._in_every_package(inner, chain)
        for option, text in zip(argv, argv[1:]):  # of a shell, su, npx, npm exec
            if _command_line.BEFORE_TEXT.fullmatch(option):
                self._shell(text, chain)
        for index, word in enumerate(argv):  # whatever runs it
            self._visit_program(_command_line.program(word), list(argv[index + 1 :]), chain)

    def _visit_program(self, program: str, rest: List[str], chain: Chain) -> None:
        if program in _command_line.MANAGERS:
            self._manager(program, rest, chain)
        elif program in _RUNNERS or program == "concurrently":
            for word in rest:
                self._script_pattern(word, program, chain)
        elif program in _OF_WORKSPACES:
            self._workspace_tool(rest, chain)
        elif program == "node" and "--run" in rest[:-1]:
            index = rest.index("--run")
            self._script(rest[index + 1], rest[index + 2 :], chain)
        elif program == "node" and rest and rest[0].startswith("--run="):
            self._script(rest[0][len("--run=") :], rest[1:], chain)

    def _shell(self, text: str, chain: Chain) -> None:
        """The text of a shell as a whole, and each command in it."""
        if self._is_new("shell", text):
            self._add_line(text, chain)
            directories = [self._here]
            for argv in _command_line.simple_commands(text):
                if argv[0] in ("cd", "pushd") and len(argv) > 1:
                    directories = self._directories_after_cd(argv[-1], directories)
                for directory in directories:
                    self._enqueue(argv, chain, directory)

    def _directories_after_cd(self, named: str, before: Sequence[str]) -> List[str]:
        """Where what follows a ``cd`` may run: also where it would without, as that may fail or be of a subshell."""
        found = list(before)
        for here in before:
            directory = self._directory(named, here)
            found += self._all_directories() if directory is None else [directory]
        return list(dict.fromkeys(found))

    def _manager(self, program: str, rest: List[str], chain: Chain) -> None:
        named, others = _command_line.without_directory(rest)
        directory = self._directory(named, self._here) if named else None
        if directory is not None:
            self._enqueue([program, *others], chain, directory)
            return
        words = _command_line.without_options(rest)
        verb = words[0] if words else "install" if program in ("yarn", "pnpm", "bun") else ""
        given = words[1:]
        if verb in _command_line.INSTALL | _command_line.WORKSPACES or _command_line.leads_elsewhere(rest):
            self._in_every_package([program, *rest], chain)
        if not rest or rest[0] not in _command_line.INSTALL:
            self._words_behind_options(program, rest, chain)
        if verb in _command_line.RUN:
            if given:
                self._script(given[0], given[1:], chain)
        elif verb in _command_line.EXEC:
            self._enqueue([word for word in given if word != "--"], chain)
        elif verb in _command_line.WORKSPACES:
            self._manager(program, given[1:] if verb == "workspace" else given, chain)
        elif verb in _command_line.INSTALL:
            for name in _LIFECYCLE:
                self._script(name, [], chain, with_hooks=False)
            if verb in ("it", "cit", "install-test"):
                self._script("test", [], chain)
        elif verb:
            name = _SHORT.get(verb, verb)
            for each in [name, "stop", "start"] if name == "restart" else [name]:
                self._script(each, given, chain)
            if program != "npm" and verb not in self._scripts:
                self._enqueue([verb, *given], chain)

    def _words_behind_options(self, program: str, rest: List[str], chain: Chain) -> None:
        """An option may take the next word, so whatever could be the verb or the script behind one is followed."""
        is_behind = False
        for at, word in enumerate(rest):
            if word == "--":
                return
            if is_behind and (word in _command_line.RUN | _command_line.EXEC or word in self._scripts):
                self._enqueue([program, *rest[at:]], chain)
            is_behind = is_behind or (word.startswith("-") and "=" not in word)

    def _workspace_tool(self, rest: List[str], chain: Chain) -> None:
        """``turbo run x``, ``nx run db:x``, ``lerna run x``: whatever word is the name of a script in some package."""
        at = rest.index("--") if "--" in rest else len(rest)
        names = [name for word in rest[:at] for name in _command_line.targets(word)]
        for directory in self._all_directories():
            for name in names:
                if name in self._scripts_in[directory]:
                    self._enqueue(["npm", "run", name, *rest[at:]], chain, directory)

    def _script(self, name: str, given: Sequence[str], chain: Chain, with_hooks: bool = True) -> None:
        for each in ["pre" + name, name, "post" + name] if with_hooks else [name]:
            step = "the script %s" % each + (" of %s/package.json" % self._here if self._here else "")
            text = self._scripts.get(each)
            if text is None or chain.count(step) > 1:  # a loop, in which what is given to a script may grow
                continue
            words = [word for word in given if word != "--"] if each == name else []
            if self._is_new("script", each, *words):
                self._add_line(" ".join([text, *words]), (*chain, step))
                self._shell(" ".join([text, *map(shlex.quote, words)]), (*chain, step))

    def _script_pattern(self, word: str, program: str, chain: Chain) -> None:
        """An argument of npm-run-all (a script, maybe with * and arguments) or of concurrently (a command line)."""
        name, _space, given = word.partition(" ")
        if program == "concurrently":
            prefix, colon, short = name.partition(":")
            if not (colon and prefix in _command_line.MANAGERS):
                self._shell(word, chain)
                return
            name = short
        for script in self._scripts:
            if fnmatch.fnmatchcase(script, name):
                self._script(script, _command_line.split(given), chain)
