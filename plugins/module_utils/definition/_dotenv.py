# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""Environment files: read as the npm package dotenv reads them, written so that other readers read the same."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import SPACE, text, trim
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

_BEGIN = "(?:\\A|(?<=[\\n\\u2028\\u2029]))"
_END = "(?:\\Z|(?=[\\n\\u2028\\u2029]))"
_LINE = re.compile(
    # dotenv 16.6, lib/main.js, with what \s ^ $ . and \w are in JavaScript
    _BEGIN
    + "[S]*(?:export[S]+)?([A-Za-z0-9_.-]+)(?:[S]*=[S]*?|:[S]+?)"
    "([S]*'(?:\\\\'|[^'])*'|[S]*\"(?:\\\\\"|[^\"])*\"|[S]*`(?:\\\\`|[^`])*`|[^#\\n]+)?"
    "[S]*(?:#[^\\n\\u2028\\u2029]*)?".replace("[S]", "[%s]" % SPACE)
    + _END
)
_QUOTED = re.compile(_BEGIN + "(['\"`])(.*)\\1" + _END, re.DOTALL)
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile("[A-Za-z0-9_./:@%+,=-]*")
_PYTHON_DECODES = {"'": re.compile(r"\\[\\']"), '"': re.compile(r"\\[\\'\"abfnrtv]")}
_PYTHON_FILLS_IN = re.compile(r"\$\{[^}:]*(?::-[^}]*)?\}")
_SHELL_EXPANDS = re.compile(r"""[`"]|\$[A-Za-z0-9_({[@*#?$!'"-]|\\[$`"\\\n]""")

NPM, SHELL, PYTHON = "npm's dotenv", "sh", "python-dotenv"


def parse(text_of_file: str) -> Dict[str, str]:
    """The variables of a file in their order, as dotenv 16 reads them: without expansion, and the last one counts.

    Lines that are not assignments to dotenv are left out.
    """
    lines = text_of_file.replace("\r\n", "\n").replace("\r", "\n")
    found: Dict[str, str] = {}
    for match in _LINE.finditer(lines):
        found[match.group(1)] = _value(match.group(2) or "")
    return found


def _value(written: str) -> str:
    value = trim(written)
    is_double_quoted = value.startswith('"')
    value = _QUOTED.sub(lambda match: match.group(2), value)
    if is_double_quoted:
        value = value.replace("\\n", "\n").replace("\\r", "\r")
    return value


def text_of(value: Any) -> str:
    """A value as a process gets it in its environment: true, numbers and lists as the text that PM2 makes of them."""
    return text(value)


def render(variables: Mapping[str, Any]) -> str:
    r"""The text of an environment file with ``variables``, in their order.

    dotenv 16 reads every value back as it is. So do sh (``set -a; . file``) and python-dotenv, if there is a form that
    all three read the same. For some values there is none; ``disagreements`` names their variables:

    - a value with ``'`` and one of ``" $ ` \``, or with a carriage return: sh fails, or runs a part as a command
    - a value with ``${...}``, and some with a backslash: python-dotenv expands or decodes it

    Raises NodeopsError for a bad name, for NUL, and for the rare value that dotenv 16 has no form for. The message
    names the variable, never the value.
    """
    chosen = [_choose(name, _checked(name, value)) for name, value in variables.items()]
    # After a \' dotenv and python-dotenv look for another ', so a value with one must not follow.
    ordered = sorted(chosen, key=lambda form: form.written.endswith("\\'"))
    written = "".join("%s=%s\n" % (form.name, form.written) for form in ordered)
    read = parse(written)
    for form in ordered:
        if read.get(form.name) != form.value:
            raise _no_form(form.name)
    return written


def disagreements(variables: Mapping[str, Any]) -> Dict[str, List[str]]:
    """The variables whose value some reader reads differently from the text of ``render``, each with its readers."""
    chosen = [_choose(name, _checked(name, value)) for name, value in variables.items()]
    return {form.name: form.misread_by for form in chosen if form.misread_by}


class _Form(NamedTuple):
    name: str
    value: str
    written: str
    misread_by: List[str]


def _checked(name: object, value: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise NodeopsError(
            "environment: %r cannot be a variable of an environment file. Nothing was written. Use letters, digits and "
            "_, not a digit first." % (name,)
        )
    as_text = text_of(value)
    try:
        as_text.encode("utf-8")
    except UnicodeEncodeError:
        raise NodeopsError("environment: the value of %s is not valid Unicode. Nothing was written." % name) from None
    if "\0" in as_text:
        raise NodeopsError("environment: the value of %s has a NUL character. Nothing was written." % name)
    return as_text


def _choose(name: str, value: str) -> _Form:
    """The form that dotenv and most of the other readers read right."""
    if _PLAIN.fullmatch(value):
        return _Form(name, value, value, [])
    forms = []
    for written in _forms(value):
        if parse("%s=%s\n" % (name, written)).get(name) == value:
            misread_by = [reader for reader, reads in _READERS if not reads(written, value)]
            forms.append(_Form(name, value, written, misread_by))
    if not forms:
        raise _no_form(name)
    return min(forms, key=lambda form: (len(form.misread_by), form.misread_by))


def _forms(value: str) -> List[str]:
    """All forms that could be written, the best readable first."""
    escaped = value.replace("\n", "\\n").replace("\r", "\\r")
    found = ["'%s'" % value, '"%s"' % value, '"%s"' % escaped]
    if not value.endswith("\\"):
        found.append(value)
    return [*found, "`%s`" % value]


def _shell_reads(written: str, value: str) -> bool:
    if "\r" in value:
        return False
    if written == "'%s'" % value:
        return "'" not in value
    return written == '"%s"' % value and not _SHELL_EXPANDS.search(value) and not value.endswith(("$", "\\"))


def _python_reads(written: str, value: str) -> bool:
    quote, inner = written[:1], written[1:-1]
    if _PYTHON_FILLS_IN.search(value):
        return False
    if quote in _PYTHON_DECODES and written == quote + inner + quote:
        if quote in inner or "\r" in inner or inner.endswith("\\"):
            return False
        return _PYTHON_DECODES[quote].sub(_decoded, inner) == value
    return written == value and quote not in ("", "'", '"', "#") and not re.search(r"[\n\r]|\s#|\A\s|\s\Z", value)


def _decoded(match: "re.Match[str]") -> str:
    return {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}.get(
        match.group()[1], match.group()[1]
    )


_READERS: Tuple[Tuple[str, Callable[[str, str], bool]], ...] = ((SHELL, _shell_reads), (PYTHON, _python_reads))


def _no_form(name: str) -> NodeopsError:
    return NodeopsError(
        "environment: the value of %s cannot be written to an environment file: dotenv has no form for one with all "
        "of its quotes. Nothing was written. Encode it (base64), or give it to the processes only." % name
    )
