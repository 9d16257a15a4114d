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
from typing import Callable, Dict, List, NamedTuple, Optional, Pattern, Sequence, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils import _commands
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error
from ansible_collections.nodeops.pm2.plugins.module_utils._redact import Redactor

_MANAGERS = frozenset("npm pnpm yarn bun".split())
_RUN = frozenset("run run-script rum urn".split())
_EXEC = frozenset("exec x dlx".split())
_INSTALL = frozenset(
    "install i in ins isntall ci clean-install ic install-clean add rebuild it cit install-test".split()
)
_LIFECYCLE = "preinstall install postinstall prepublish preprepare prepare postprepare".split()
_RUNNERS = frozenset("run-s run-p npm-run-all npm-run-all2".split())
_SHORT = {"t": "test", "tst": "test"}
_PREFIXES = frozenset(
    "env cross-env cross-env-shell exec time nice nohup command sudo npx bunx dotenv dotenvx --".split()
)
_WITH_VALUE = frozenset("-e -f -u -n -c -p --file --package --prefix --workspace -w -C --filter --dir --cwd".split())
_IN_DIRECTORY = frozenset("--prefix -C --dir --cwd -w --workspace".split())
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_OPERATOR = re.compile(r"[();<>|&]+")
_MAX_STEPS = 20000


Way = Tuple[str, ...]
"""The scripts that led to a command."""
Read = Callable[[str], Optional[str]]
"""The text of a file of the release, by its path in it; None where there is none, or it is not here yet."""


class _Line(NamedTuple):
    text: str
    way: Way


def check(
    commands: Sequence[_commands.Command],
    patterns: Sequence[str],
    package_json: Optional[str],
    what: str,
    read: Optional[Read] = None,
) -> None:
    """Raises Pm2Error when a command, or one it leads to, has a match of one of ``patterns`` (re.search).

    A command line is its words with one space between them. It is followed through ``npm run`` and its like (with the
    scripts before and after, and the words given to it), ``npx``, and ``sh -c``; with ``read`` also to the scripts of
    another directory (``npm --prefix app run x``, ``cd app && npm run x``). What a program or a script file does
    itself is not seen. ``what`` says where the commands stand: "build". A pattern that is none is a Pm2Error.
    """
    compiled = [_compiled(pattern) for pattern in patterns]
    if not compiled:
        return
    scripts = _scripts(package_json)
    for command in commands:
        argv = _commands.arguments(command)
        for line in _Following(scripts, argv, read).lines():
            for pattern in compiled:
                if pattern.search(line.text):
                    raise _forbidden(argv, line, pattern.pattern, what)


def _compiled(pattern: object) -> Pattern[str]:
    try:
        return re.compile(pattern)  # type: ignore[call-overload, no-any-return]
    except (re.error, TypeError, RecursionError) as error:
        raise Pm2Error(
            "forbidden: %r is no regular expression: %s. Nothing was run. Correct it." % (pattern, error)
        ) from None


def _forbidden(argv: Sequence[str], line: _Line, pattern: str, what: str) -> Pm2Error:
    redactor = Redactor()
    redactor.add_arguments([*argv, line.text])
    command, found = redactor.text(" ".join(argv)), redactor.text(line.text)
    way = " (by way of %s)" % ", ".join(line.way) if line.way else ""
    leads = "is" if found == command and not line.way else "leads to %s%s, which is" % (found, way)
    return Pm2Error(
        "%s%s: the command %s %s forbidden by the pattern %s. Nothing was run. Take the command out, or the pattern "
        "out of deploy_forbidden." % (what[:1].upper(), what[1:], command, leads, pattern),
        {"command": command, "forbidden": found, "pattern": pattern},
    )


def _scripts(package_json: Optional[str]) -> Dict[str, str]:
    try:
        scripts = json.loads(package_json or "{}").get("scripts")
    except (ValueError, AttributeError, RecursionError):
        return {}  # npm will say so
    return {name: text for name, text in scripts.items() if isinstance(text, str)} if isinstance(scripts, dict) else {}


class _Following:
    """All command lines that one command leads to."""

    def __init__(self, scripts: Dict[str, str], argv: Sequence[str], read: Optional[Read]) -> None:
        self._scripts_in = {"": scripts}
        self._read = read
        self._here = ""
        self._seen: Set[Tuple[str, ...]] = set()
        self._todo: List[Tuple[str, Sequence[str], Way]] = [("", argv, ())]
        self._found: List[_Line] = []

    @property
    def _scripts(self) -> Dict[str, str]:
        return self._scripts_in[self._here]

    def _directory(self, named: str, here: str) -> str:
        """Another directory of the release that has scripts; ``here`` where it has none or cannot be looked into."""
        path = os.path.normpath(os.path.join(here, named))
        path = "" if path == "." else path
        if path not in self._scripts_in:
            text = self._read(path + "/package.json") if self._read and not path.startswith(("/", "..")) else None
            if text is None:
                return here
            self._scripts_in[path] = _scripts(text)
        return path

    def _later(self, argv: Sequence[str], way: Way, directory: Optional[str] = None) -> None:
        self._todo.append((self._here if directory is None else directory, argv, way))

    def lines(self) -> List[_Line]:
        """The command itself first. Raises Pm2Error when there is no end of it."""
        while self._todo:
            self._here, argv, way = self._todo.pop()
            self._follow(argv, way)
            if len(self._seen) > _MAX_STEPS:
                raise Pm2Error(
                    "The command %s leads to more than %d others, so it cannot be told whether one is forbidden. "
                    "Nothing was run." % (self._found[0].text, _MAX_STEPS)
                )
        return self._found

    def _is_new(self, *step: str) -> bool:
        step = (self._here, *step)
        is_new = step not in self._seen
        self._seen.add(step)
        return is_new

    def _tell(self, text: str, way: Way) -> None:
        self._found.append(_Line(" ".join(text.split()), way))

    def _follow(self, argv: Sequence[str], way: Way) -> None:
        if not argv or not self._is_new("argv", *argv):
            return
        self._tell(" ".join(argv), way)
        inner = _without_prefix(argv)
        if inner != list(argv):
            self._later(inner, way)
        for option, text in zip(argv, argv[1:]):  # of a shell, su, npx, npm exec
            if re.fullmatch("-[a-zA-Z]*c[a-zA-Z]*|--call|--command", option):
                self._shell(text, way)
        for index, word in enumerate(argv):  # whatever runs it
            self._leads_to(word.rpartition("/")[2], list(argv[index + 1 :]), way)

    def _leads_to(self, program: str, rest: List[str], way: Way) -> None:
        if program in _MANAGERS:
            self._manager(program, rest, way)
        elif program in _RUNNERS or program == "concurrently":
            for word in rest:
                self._several(word, program, way)
        elif program == "node" and "--run" in rest[:-1]:
            index = rest.index("--run")
            self._script(rest[index + 1], rest[index + 2 :], way)
        elif program == "node" and rest and rest[0].startswith("--run="):
            self._script(rest[0][len("--run=") :], rest[1:], way)

    def _shell(self, text: str, way: Way) -> None:
        """The text of a shell as a whole, and each command in it."""
        if self._is_new("shell", text):
            self._tell(text, way)
            directory = self._here
            for argv in _simple_commands(text):
                if argv[0] == "cd" and len(argv) == 2:
                    directory = self._directory(argv[1], directory)
                self._later(argv, way, directory)

    def _manager(self, program: str, rest: List[str], way: Way) -> None:
        named, others = _without_directory(rest)
        directory = self._directory(named, self._here) if named else self._here
        if directory != self._here:
            self._later([program, *others], way, directory)
            return
        words = _without_options(rest)
        verb = words[0] if words else "install" if program in ("yarn", "pnpm", "bun") else ""
        given = words[1:]
        if verb not in _INSTALL:
            self._behind_options(program, rest, way)
        if verb in _RUN:
            if given:
                self._script(given[0], given[1:], way)
        elif verb in _EXEC:
            self._later([word for word in given if word != "--"], way)
        elif verb in ("workspace", "workspaces"):  # of yarn
            self._manager(program, given[1:] if verb == "workspace" else given, way)
        elif verb in _INSTALL:
            for name in _LIFECYCLE:
                self._script(name, [], way, with_hooks=False)
            if verb in ("it", "cit", "install-test"):
                self._script("test", [], way)
        elif verb:
            name = _SHORT.get(verb, verb)
            for each in [name, "stop", "start"] if name == "restart" else [name]:
                self._script(each, given, way)
            if program != "npm" and verb not in self._scripts:
                self._later([verb, *given], way)

    def _behind_options(self, program: str, rest: List[str], way: Way) -> None:
        """An option may take the next word, so whatever could be the verb or the script behind one is followed."""
        is_behind = False
        for at, word in enumerate(rest):
            if word == "--":
                return
            if is_behind and (word in _RUN | _EXEC or word in self._scripts):
                self._later([program, *rest[at:]], way)
            is_behind = is_behind or (word.startswith("-") and "=" not in word)

    def _script(self, name: str, given: Sequence[str], way: Way, with_hooks: bool = True) -> None:
        for each in ["pre" + name, name, "post" + name] if with_hooks else [name]:
            text, step = self._scripts.get(each), "the script %s" % each
            if text is None or way.count(step) > 1:  # a loop, in which what is given to a script may grow
                continue
            words = [word for word in given if word != "--"] if each == name else []
            if self._is_new("script", each, *words):
                self._tell(" ".join([text, *words]), (*way, step))
                self._shell(" ".join([text, *map(shlex.quote, words)]), (*way, step))

    def _several(self, word: str, program: str, way: Way) -> None:
        """An argument of npm-run-all (a script, maybe with * and arguments) or of concurrently (a command line)."""
        name, _space, given = word.partition(" ")
        if program == "concurrently":
            prefix, colon, short = name.partition(":")
            if not (colon and prefix in _MANAGERS):
                self._shell(word, way)
                return
            name = short
        for script in self._scripts:
            if fnmatch.fnmatchcase(script, name):
                self._script(script, _words(given), way)


def _without_prefix(argv: Sequence[str]) -> List[str]:
    """The command behind assignments, ``env``, ``npx`` and their like, and their options."""
    words = list(argv)
    while words:
        if _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        elif words[0].rpartition("/")[2] in _PREFIXES and len(words) > 1:
            words = words[1:]
            while words and words[0].startswith("-"):
                words = words[2:] if words[0] in _WITH_VALUE else words[1:]
        else:
            break
    return words


def _without_options(rest: Sequence[str]) -> List[str]:
    """Words before the first that is none: options of npm itself, with their values; those after it stay."""
    words = list(rest)
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in _WITH_VALUE else words[1:]
    if len(words) > 1 and words[0] in _RUN | _EXEC:
        inner = words[1:]
        while inner and inner[0].startswith("-") and inner[0] != "--":
            inner = inner[2:] if inner[0] in _WITH_VALUE else inner[1:]
        words = [words[0], *(inner[1:] if inner[:1] == ["--"] else inner)]
    return words


def _without_directory(rest: Sequence[str]) -> Tuple[str, List[str]]:
    """The directory that an option of a package manager names, "" for none, and the words without it."""
    for at, word in enumerate(rest):
        option, equals, value = word.partition("=")
        if word == "--":
            break
        if option in _IN_DIRECTORY and (equals or at + 1 < len(rest)):
            return (value, [*rest[:at], *rest[at + 1 :]]) if equals else (rest[at + 1], [*rest[:at], *rest[at + 2 :]])
    return "", list(rest)


def _simple_commands(text: str) -> List[List[str]]:
    """A shell's text cut at its operators."""
    found: List[List[str]] = [[]]
    text = text.replace("\\\n", " ").replace("\n", " ; ").replace("$(", " ; ").replace("`", " ; ")
    for word in _words(text, operators=True):
        if _OPERATOR.fullmatch(word):
            found.append([])
        elif word not in ("!", "{", "}", "then", "do", "else", "if", "while") or found[-1]:
            found[-1].append(word)
    return [words for words in found if words]


def _words(text: str, operators: bool = False) -> List[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&" if operators else False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # an unfinished quote
        return text.split()
