# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Refuse commands that the inventory forbids, also if they are reached through scripts of package.json."""

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
"""Programs that run scripts of the directory they run in."""
_SHORT = {"t": "test", "tst": "test"}
_MAX_STEPS = 20000
_MORE_STEPS = 200  # for each package
_MAX_DEPTH = 50  # scripts that call each other
_MAX_PACKAGES = 1000
_NOT_LOOKED_INTO = frozenset("node_modules .git .venv site-packages".split())

Chain = Tuple[str, ...]
"""The scripts that led to a command."""
Read = Callable[[str], Optional[str]]
"""From the path of a file in the release to its text; to None if it does not exist, or is not here yet."""
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
    """Raises NodeopsError if one of ``patterns`` matches (re.search) a command, or another command that it leads to.

    A pattern is compared with the words of a command line, with one space between them. A command leads to others
    through ``npm run`` and the like (with pre and post scripts, and the words given to the script), ``npx``, and
    ``sh -c``; with ``read`` also to the scripts of another directory (``npm --prefix app run x``, ``cd app && npm run
    x``). If it is not certain in which package a script runs (``npm run x -w db``, ``pnpm -r run x``, ``turbo run x``),
    the scripts of all ``packages`` are read. What a program or a script file does itself is not seen. ``what`` names
    the option that holds the commands, such as "build". An invalid pattern also raises NodeopsError.
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
            "forbidden: %r is not a regular expression: %s. Nothing was run. Correct the pattern." % (pattern, error)
        ) from None


def _refusal(argv: Sequence[str], line: _Line, pattern: str, what: str) -> NodeopsError:
    redactor = Redactor()
    redactor.add_arguments([*argv, line.text])
    command, found = redactor.text(" ".join(argv)), redactor.text(line.text)
    chain = " (by way of %s)" % ", ".join(line.chain) if line.chain else ""
    leads = "is" if found == command and not line.chain else "leads to %s%s, which is" % (found, chain)
    return NodeopsError(
        "%s%s: the command %s %s forbidden by the pattern %s. Nothing was run. Remove the command, or remove the "
        "pattern from deploy_forbidden." % (what[:1].upper(), what[1:], command, leads, pattern),
        {"command": command, "forbidden": found, "pattern": pattern},
    )


def _scripts(package_json: Optional[str]) -> Dict[str, str]:
    try:
        scripts = json.loads((package_json or "{}").lstrip("\ufeff")).get("scripts")
    except (ValueError, AttributeError, RecursionError):
        return {}  # npm will report it
    return {name: text for name, text in scripts.items() if isinstance(text, str)} if isinstance(scripts, dict) else {}


def packages_below(top: str) -> List[str]:
    """The directories below ``top`` that have a package.json, without installed packages. Links are not followed.

    Raises NodeopsError if there are too many to read them all.
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
                "leads to a forbidden one. Nothing was run. Remove what is not needed from the source, or set "
                "deploy_forbidden to []." % (top, _MAX_PACKAGES)
            )
    return found


class _ReachableCommands:
    """All command lines that one command leads to, found by a breadth-first search."""

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
        """Another directory of the release that has a package.json; None if it has none, or cannot be read."""
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
        """Visit ``argv`` in every package, because it is not known in which one it runs."""
        if tuple(argv) not in self._done_everywhere:
            self._done_everywhere.add(tuple(argv))
            for directory in self._all_directories():
                self._enqueue(argv, chain, directory)

    def _enqueue(self, argv: Sequence[str], chain: Chain, directory: Optional[str] = None) -> None:
        here = self._here if directory is None else directory
        if argv and self._is_new("argv", *argv, here=here if self._depends_on_directory(argv) else ""):
            self._todo.append((here, argv, chain))

    @staticmethod
    def _depends_on_directory(argv: Sequence[str]) -> bool:
        """Whether what it leads to may depend on the directory it runs in. If not, it is visited once."""
        return any(
            _command_line.program(word) in _LEADING or _command_line.BEFORE_TEXT.fullmatch(word) for word in argv
        )

    def lines(self) -> List[_Line]:
        """The command lines, the command itself first. Raises NodeopsError if there are too many."""
        while self._todo:
            self._here, argv, chain = self._todo.popleft()  # the shortest chains first
            self._visit(argv, chain)
            most = _MAX_STEPS + _MORE_STEPS * len(self._scripts_in)
            if len(self._seen) > most or len(chain) > _MAX_DEPTH:
                redactor = Redactor()
                redactor.add_arguments(self._found[0].text.split())
                raise NodeopsError(
                    "The command %s leads to too many others, through scripts that call each other, so it cannot be "
                    "told whether one of them is forbidden. Nothing was run. Let it call fewer, or set "
                    "deploy_forbidden to []." % redactor.text(self._found[0].text)
                )
        return self._found

    def _is_new(self, *step: str, here: Optional[str] = None) -> bool:
        step = (self._here if here is None else here, *step)
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
        for index, word in enumerate(argv):  # whatever the words before are
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
        """Shell text as a whole, and each command in it."""
        if self._is_new("shell", text):
            self._add_line(text, chain)
            directories = [self._here]
            for argv in _command_line.simple_commands(text):
                if argv[0] in ("cd", "pushd") and len(argv) > 1:
                    directories = self._directories_after_cd(argv[-1], directories)
                for directory in directories:
                    self._enqueue(argv, chain, directory)

    def _directories_after_cd(self, named: str, before: Sequence[str]) -> List[str]:
        """The directories of commands after a ``cd``: also those before it, as it may fail or be in a subshell."""
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
        """Visit all words behind an option that could be the verb or a script, because an option may take the next
        word.
        """
        is_behind = False
        for at, word in enumerate(rest):
            if word == "--":
                return
            if is_behind and (word in _command_line.RUN | _command_line.EXEC or word in self._scripts):
                self._enqueue([program, *rest[at:]], chain)
            is_behind = is_behind or (word.startswith("-") and "=" not in word)

    def _workspace_tool(self, rest: List[str], chain: Chain) -> None:
        """``turbo run x``, ``nx run db:x``, ``lerna run x``: any word that names a script in some package."""
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
            if text is None or chain.count(step) > 1:  # a loop: the words given to a script may grow in each round
                continue
            words = [word for word in given if word != "--"] if each == name else []
            if self._is_new("script", each, *words):
                self._add_line(" ".join([text, *words]), (*chain, step))
                self._shell(" ".join([text, *map(shlex.quote, words)]), (*chain, step))

    def _script_pattern(self, word: str, program: str, chain: Chain) -> None:
        """An argument of npm-run-all (a script, perhaps with * and arguments) or of concurrently (a command line)."""
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
