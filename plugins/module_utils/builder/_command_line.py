# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Parse command lines: find prefixes, options, directories and the command behind them."""

from __future__ import annotations

import re
import shlex
from typing import Iterator, List, Sequence, Tuple

MANAGERS = frozenset("npm pnpm yarn bun".split())
RUN = frozenset("run run-script rum urn".split())
EXEC = frozenset("exec x dlx".split())
INSTALL = frozenset(
    "install i in ins isntall ci clean-install ic install-clean add rebuild it cit install-test".split()
)
WORKSPACES = frozenset("workspace workspaces foreach recursive multi m".split())
"""Words of yarn and pnpm in front of a command for other packages."""
_PREFIXES = frozenset(
    "env cross-env cross-env-shell exec time nice nohup command sudo npx bunx dotenv dotenvx --".split()
)
_WITH_VALUE = frozenset("-e -f -u -n -c -p --file --package --prefix --workspace -w -C --filter -F --dir --cwd".split())
_IN_DIRECTORY = frozenset("--prefix -C --dir --cwd".split())
_ELSEWHERE = "workspaces workspace-root ws include-workspace-root iwr filter recursive prefix dir cwd top-level".split()
BEFORE_TEXT = re.compile("-[a-zA-Z]*c[a-zA-Z]*|--call|--command")
"""Options of a shell, su, npx and npm exec that are followed by shell text."""
_SETTING = re.compile(r"p?npm_config_(\w+)=", re.IGNORECASE)
_MANAGER = re.compile(r"(npm|pnpm|yarn|bun)(?:-[\w.-]+)?\.[cm]?js")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_OPERATOR = re.compile(r"[();<>|&]+")


def program(word: str) -> str:
    """The program that a word names, without directory and version (``npx pnpm@9``, ``yarn-4.1.0.cjs``)."""
    name = word.rpartition("/")[2].partition("@")[0]
    found = _MANAGER.fullmatch(name)
    return found.group(1) if found else name


def leads_elsewhere(rest: Sequence[str]) -> bool:
    """Whether a package manager's options, also abbreviated ones, may name other packages or another directory."""
    for word in rest:
        if word == "--":
            break
        if word.startswith("--"):
            if _is_elsewhere(word[2:].partition("=")[0]):
                return True
        elif re.match("-[A-Za-z]*[wrCFT]", word):
            return True
    return False


def is_setting(word: str) -> bool:
    """Whether a word is an assignment with the effect of such an option."""
    found = _SETTING.match(word)
    return bool(found and _is_elsewhere(found.group(1).lower().replace("_", "-")))


def _is_elsewhere(option: str) -> bool:
    return bool(option) and (option.startswith("filter") or any(name.startswith(option) for name in _ELSEWHERE))


def targets(word: str) -> Iterator[str]:
    """The possible scripts in a word such as ``x``, ``--target=x,y`` or ``project:x``."""
    for part in word.rpartition("=")[2].split(","):
        while part:
            yield part
            part = part.partition(":")[2]


def without_prefix(argv: Sequence[str]) -> List[str]:
    """The command behind assignments and behind ``env``, ``npx`` and the like with their options."""
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


def without_options(rest: Sequence[str]) -> List[str]:
    """The words without npm's own options and their values, which come first; later options stay."""
    words = list(rest)
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in _WITH_VALUE else words[1:]
    if len(words) > 1 and words[0] in RUN | EXEC:
        inner = words[1:]
        while inner and inner[0].startswith("-") and inner[0] != "--":
            inner = inner[2:] if inner[0] in _WITH_VALUE else inner[1:]
        words = [words[0], *(inner[1:] if inner[:1] == ["--"] else inner)]
    return words


def without_directory(rest: Sequence[str]) -> Tuple[str, List[str]]:
    """The directory that an option of a package manager names, or "", and the words without that option."""
    for at, word in enumerate(rest):
        option, equals, value = word.partition("=")
        if word == "--":
            break
        if option in _IN_DIRECTORY and (equals or at + 1 < len(rest)):
            return (value, [*rest[:at], *rest[at + 1 :]]) if equals else (rest[at + 1], [*rest[:at], *rest[at + 2 :]])
    return "", list(rest)


def simple_commands(text: str) -> List[List[str]]:
    """Shell text, split into commands at its operators."""
    found: List[List[str]] = [[]]
    text = text.replace("\\\n", " ").replace("\n", " ; ").replace("$(", " ; ").replace("`", " ; ")
    for word in split(text, operators=True):
        if _OPERATOR.fullmatch(word):
            found.append([])
        elif word not in ("!", "{", "}", "then", "do", "else", "if", "while") or found[-1]:
            found[-1].append(word)
    return [words for words in found if words]


def split(text: str, operators: bool = False) -> List[str]:
    """The words of shell text, even if a quote is not closed. With ``operators``, operators are words of their own."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&" if operators else False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # an unfinished quote
        return text.split()
