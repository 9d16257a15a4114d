# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""The contract of an app's environment: what its example file names, and rules. Messages never show a value."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _dotenv, _weak_secrets
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

_COMMENTED = re.compile(r"^[ \t]*#+[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=", re.MULTILINE)
_KEYS = ("example", "optional", "weak", "rules")


class _Rule(NamedTuple):
    required: Optional[bool] = None
    min_length: Optional[int] = None
    max_length: Optional[int] = None
    base64_bytes: Optional[int] = None
    pattern: Optional[str] = None
    one_of: Optional[List[str]] = None
    weak: bool = False


class _Contract(NamedTuple):
    example: Optional[str]
    optional: List[str]
    weak: List[str]
    rules: Dict[str, _Rule]


def check(
    contract: Mapping[str, Any], example: Optional[str], environment: Mapping[str, Any]
) -> Tuple[List[str], List[str]]:
    """Problems and warnings about ``environment``. Raises NodeopsError if the contract itself is wrong.

    ``example`` is the text of the example file (None: it is missing). Every variable that it sets must be defined, and
    may be empty only if it is empty in the example too. A variable may be missing or empty if the example sets it in a
    comment (``# NAME=``), if ``optional`` names it, or if its rule says ``required: false``.
    """
    read = _read(contract)
    if read.example is not None and example is None:
        return ["%s, which the contract names as its example, is not in the release" % read.example], []
    checked = _Check(read, example, environment)
    return checked.problems(), checked.warnings()


class _Check:
    def __init__(self, contract: _Contract, example: Optional[str], environment: Mapping[str, Any]) -> None:
        self._contract = contract
        self._has_example = example is not None
        self._shown = _dotenv.parse(example or "")
        self._commented = set(_COMMENTED.findall(example or "")) - set(self._shown)
        self._values = {str(name): _dotenv.text_of(value) for name, value in environment.items() if value is not None}
        self._known = {*self._shown, *self._commented, *contract.optional, *contract.rules}

    def problems(self) -> List[str]:
        names = [*self._shown, *(name for name in self._contract.rules if name not in self._shown)]
        names += [name for name in self._values if name not in names]
        found = ((name, self._problem(name)) for name in names)
        return ["%s %s" % (name, problem) for name, problem in found if problem]

    def warnings(self) -> List[str]:
        found = []
        for name, value in self._values.items():
            if self._has_example and name not in self._known:
                near = difflib.get_close_matches(name, self._known, 1, 0.75)
                hint = ": did you mean %s?" % near[0] if near else ""
                found.append("%s is not in %s%s" % (name, self._contract.example or "the example", hint))
            password = _weak_secrets.url_password(value)
            if password and not self._rule(name).weak and _weak_secrets.is_weak(password, self._contract.weak):
                found.append("%s is a URL with a password that is a known weak value" % name)
        return found

    def _rule(self, name: str) -> _Rule:
        return self._contract.rules.get(name, _Rule())

    def _problem(self, name: str) -> Optional[str]:
        rule, value = self._rule(name), self._values.get(name)
        if value is None:
            return self._why_missing(name, rule)
        if value == "" and not self._is_needed(name, rule):
            return None
        for is_given, problem in _PROBLEMS:
            if is_given(rule) and (value or not rule.required):
                reason = problem(rule, value)
                if reason:
                    return reason
        if value == "":
            needs = rule.required or self._shown.get(name, "") != ""
            return "is empty, but is required" if needs else None
        return self._why_weak(name, rule, value)

    def _is_needed(self, name: str, rule: _Rule) -> bool:
        if rule.required is not None:
            return rule.required
        return name not in self._contract.optional and name not in self._commented

    def _why_missing(self, name: str, rule: _Rule) -> Optional[str]:
        if not (rule.required or (name in self._shown and self._is_needed(name, rule))):
            return None
        unknown = [other for other in self._values if other not in self._known]
        near = difflib.get_close_matches(name, unknown, 1, 0.75) if self._has_example else []
        return "is not defined%s" % (" (but %s is: a typo?)" % near[0] if near else "")

    def _why_weak(self, name: str, rule: _Rule, value: str) -> Optional[str]:
        if rule.weak or not _weak_secrets.looks_secret(name):
            return None
        if value == self._shown.get(name) and not _weak_secrets.says_nothing(value):
            return "has the value of the example, which is not secret"
        if _weak_secrets.is_weak(value, self._contract.weak):
            return "has a known weak value"
        return None


def _length(rule: _Rule, value: str) -> Optional[str]:
    if rule.min_length is not None and len(value) < rule.min_length:
        return "is too short: min_length is %d characters" % rule.min_length
    if rule.max_length is not None and len(value) > rule.max_length:
        return "is too long: max_length is %d characters" % rule.max_length
    return None


def _base64(rule: _Rule, value: str) -> Optional[str]:
    try:
        standard = value.translate(str.maketrans("-_", "+/"))
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4 if "=" not in standard else 0), validate=True)
    except (binascii.Error, ValueError):
        return "is not base64: base64_bytes is %d" % (rule.base64_bytes or 0)
    if len(decoded) != rule.base64_bytes:
        return "is base64 of %d bytes: base64_bytes is %d" % (len(decoded), rule.base64_bytes or 0)
    return None


def _pattern(rule: _Rule, value: str) -> Optional[str]:
    if re.fullmatch(rule.pattern or "", value) is None:
        return "does not match the pattern %s" % rule.pattern
    return None


def _one_of(rule: _Rule, value: str) -> Optional[str]:
    return None if value in (rule.one_of or ()) else "is not one_of %s" % ", ".join(rule.one_of or ())


_PROBLEMS: Tuple[Tuple[Callable[[_Rule], bool], Callable[[_Rule, str], Optional[str]]], ...] = (
    (lambda rule: rule.min_length is not None or rule.max_length is not None, _length),
    (lambda rule: rule.base64_bytes is not None, _base64),
    (lambda rule: rule.pattern is not None, _pattern),
    (lambda rule: rule.one_of is not None, _one_of),
)


def _read(contract: Mapping[str, Any]) -> _Contract:
    for key in contract:
        if key not in _KEYS:
            raise _wrong(str(key), "is not a key of a contract%s" % _hint(str(key), _KEYS))
    example, rules = contract.get("example"), contract.get("rules")
    if example is not None and (not isinstance(example, str) or not example):
        raise _wrong("example", "has to be the path of a file in the release")
    rules = {} if rules is None else rules
    if not isinstance(rules, dict):
        raise _wrong("rules", "has to be a mapping of variables to their rules")
    return _Contract(
        example,
        _texts(contract.get("optional"), "optional"),
        _texts(contract.get("weak"), "weak"),
        {str(name): _read_rule(str(name), rule) for name, rule in rules.items()},
    )


def _read_rule(name: str, written: Any) -> _Rule:
    key_path = "rules.%s" % name
    if not isinstance(written, dict):
        raise _wrong(key_path, "has to be a mapping such as {min_length: 32}")
    given: Dict[str, Any] = {}
    for key, value in written.items():
        reader = _READERS.get(key)
        if reader is None:
            raise _wrong("%s.%s" % (key_path, key), "is not a rule%s" % _hint(str(key), tuple(_READERS)))
        if value is not None:
            given[key] = reader(value, "%s.%s" % (key_path, key))
    rule = _Rule(**given)
    if rule.min_length is not None and rule.max_length is not None and rule.min_length > rule.max_length:
        raise _wrong(key_path, "has a min_length above its max_length, so no value can be right")
    return rule


def _boolean(value: Any, key_path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key_path, "has to be true or false")
    return value


def _number(value: Any, key_path: str) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):  # from a template
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(key_path, "has to be a whole number, not negative")
    return value


def _regex(value: Any, key_path: str) -> str:
    try:
        re.compile(value)
    except (re.error, TypeError, RecursionError) as error:
        raise _wrong(key_path, "is not a regular expression: %s" % error) from None
    return str(value)


def _texts(value: Any, key_path: str) -> List[str]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)) or any(isinstance(item, (list, dict)) or item is None for item in value):
        raise _wrong(key_path, "has to be a list of strings")
    return [_dotenv.text_of(item) for item in value]


_READERS: Dict[str, Callable[[Any, str], Any]] = {
    "required": _boolean,
    "min_length": _number,
    "max_length": _number,
    "base64_bytes": _number,
    "pattern": _regex,
    "one_of": _texts,
    "weak": _boolean,
}


def _hint(key: str, known: Tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.6)
    return ": did you mean %s?" % near[0] if near else ": there are %s" % ", ".join(known)


def _wrong(key_path: str, what: str) -> NodeopsError:
    return NodeopsError(
        "contract: %s %s. Nothing was changed. Correct the contract, then run again." % (key_path, what)
    )
