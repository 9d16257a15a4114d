# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Checks of single values of a definition, before PM2 sees them.

A check takes a value as written and the daemon's major version. It returns the value that PM2 would use
(tools/Config.js `_valid`, line numbers of PM2 7.0.4), or raises BadValue, which says what is expected instead.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, FrozenSet, List, Optional

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _cron
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import (
    finite,
    is_finite,
    is_numeric,
    json_text,
    number_is_exact,
    split_words,
)

MAX_TIMER = 2**31 - 1
"""Milliseconds: a longer setTimeout fires at once."""
MAX_INSTANCES = 1000
MAX_STRING = 128 * 1024
"""Bytes of one argument or one environment variable, with its NUL, that Linux accepts (MAX_ARG_STRLEN)."""
MAX_DEPTH = 20

CONTROL = re.compile("[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]")
_NUMERIC = re.compile("[ ]*[+-]?[0-9]+(?:[.][0-9]+)?(?:[eE][+-]?[0-9]+)?[ ]*")
_SIZE = re.compile("([0-9]+)([GMK])?")
_DURATION = re.compile("([0-9]+)([hms])?")
_SIZES = {None: 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_DURATIONS = {None: 1, "s": 1000, "m": 60 * 1000, "h": 60 * 60 * 1000}
_EXEC_MODE = re.compile("(?:cluster|fork)(?:_mode)?")
_NAMESPACE = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_REGEX_NAME = re.compile("/.*/[a-z]*")

OBJECT_MEMBERS: FrozenSet[str] = frozenset(
    (
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
        "toJSON",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    )
)
"""Members of every JavaScript object: as keys they shadow functions that PM2 calls."""


class BadValue(Exception):
    """A value that is not accepted. The text says what is expected: "must be ..."."""


def shown(value: object, limit: int = 60) -> str:
    """A value for a message, cut after ``limit`` characters."""
    try:
        rendered = json_text(value)
    except TypeError:
        rendered = type(value).__name__
    return rendered if len(rendered) <= limit else rendered[: limit - 3] + "..."


def _refuse(value: object, expected: str) -> BadValue:
    return BadValue("must be %s, not %s" % (expected, shown(value)))


def check_text(value: object, what: str = "a string") -> str:
    """Any string that can be an argument or a file name: without NUL, and valid in UTF-8."""
    if not isinstance(value, str):
        raise _refuse(value, what)
    if "\0" in value:
        raise BadValue("has a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadValue("is not valid Unicode (a lone surrogate)") from None
    return value


def check_line(value: object, what: str = "a string") -> str:
    """A string without control characters and line separators."""
    line = check_text(value, what)
    if CONTROL.search(line):
        raise BadValue("has a control character or a line break: %s" % shown(value))
    return line


def check_name(value: object) -> str:
    """An app's name. "all", numbers and /patterns/ are refused: the pm2 command gives them another meaning."""
    name = check_line(value, "a string (quote it)")
    if not name or len(name.encode("utf-8")) > 200:
        raise BadValue("must be a name of 1 to 200 bytes")
    if name != name.strip():
        raise BadValue("starts or ends with a space: %s" % shown(name))
    if name == "all" or is_numeric(name):
        raise BadValue("%s has another meaning in `pm2 stop %s`: choose another name" % (shown(name), name))
    if name.startswith("-") or _REGEX_NAME.fullmatch(name):
        raise BadValue("%s is an option or a pattern to the pm2 command: choose another name" % shown(name))
    if name in OBJECT_MEMBERS:
        raise BadValue(
            "%s is a member of every JavaScript object, which PM2 cannot distinguish: choose another name" % shown(name)
        )
    return name


def check_namespace(value: object) -> str:
    """A namespace: letters, digits and _ . - (not first: . -), up to 100, not "all" and not a number."""
    name = check_line(value, "a string (quote it)")
    if not _NAMESPACE.fullmatch(name):
        raise BadValue(
            "must be 1 to 100 letters, digits, _, . or -, starting with a letter, digit or _: %s" % shown(name)
        )
    if name == "all" or name in OBJECT_MEMBERS or is_numeric(name):
        raise BadValue("%s has another meaning to the pm2 command: choose another name" % shown(name))
    return name


def boolean(value: object, _major: int) -> bool:
    if not isinstance(value, bool):
        raise _refuse(value, "true or false")
    return value


def string(value: object, _major: int) -> str:
    return check_line(value)


def script(value: object, _major: int) -> str:
    script = check_text(value, "the path of a script")
    if not script:
        raise BadValue("must not be empty")
    return script


def name(value: object, _major: int) -> str:
    return check_name(value)


def namespace(value: object, _major: int) -> str:
    return check_namespace(value)


def exec_mode(value: object, _major: int) -> str:
    if not isinstance(value, str) or (value and not _EXEC_MODE.fullmatch(value)):
        raise _refuse(value, '"fork" or "cluster"')
    return value


def number_between(low: float, high: float, what: str, whole: bool = False) -> Callable[[object, int], float]:
    """A number, or a string that is one (Config.js:174), within bounds. NaN and infinity never are."""

    def check(value: object, _major: int) -> float:
        number = _as_number(value)
        if number is None or not low <= number <= high or (whole and number != int(number)):
            raise _refuse(value, what)
        return number

    return check


def _as_number(value: object) -> Optional[float]:
    if isinstance(value, str) and _NUMERIC.fullmatch(value):
        value = float(value)
        return int(value) if finite(value) is not None and value == int(value) else finite(value)
    return finite(value)


milliseconds = number_between(0, MAX_TIMER, "milliseconds, a number from 0 to %d" % MAX_TIMER)


def instances(value: object, _major: int) -> int:
    """How many. "max" and 0: one per CPU; a negative number: that many fewer than CPUs (Common.js:857, God.js:138)."""
    if value == "max":
        return 0
    number = _as_number(value)
    if number is None or number != int(number) or abs(number) > MAX_INSTANCES:
        raise _refuse(value, 'a whole number up to %d, or "max"' % MAX_INSTANCES)
    return int(number)


def size(value: object, _major: int) -> float:
    """Bytes (Config.js:216 "sbyte")."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    number = int(match.group(1)) * _SIZES[match.group(2)] if match else finite(value)
    if number is None or not 0 <= number <= 2**53:
        raise _refuse(value, 'bytes, or a whole number with K, M or G as in "300M"')
    return number


def duration(value: object, _major: int) -> float:
    """Milliseconds (Config.js:223 "stime"); 100 at least when given as a number."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    number = int(match.group(1)) * _DURATIONS[match.group(2)] if match else _as_number(value)
    is_falsy = not isinstance(value, str) and number == 0
    if number is None or (number < 100 and not is_falsy and not (match and match.group(2))) or number > MAX_TIMER:
        raise _refuse(value, 'milliseconds from 100, or a whole number with s, m or h as in "10s"')
    return number


def cron_pattern(value: object, _major: int) -> object:
    if value == "0" or finite(value) == 0:
        return 0
    pattern = check_line(value, "a cron pattern, or 0 for none")
    reason = _cron.problem(pattern) if pattern else None
    if reason:
        raise BadValue("%s is not a usable cron pattern: %s" % (shown(pattern), reason))
    return pattern


def exit_codes(value: object, _major: int) -> object:
    """Exit codes. PM2 turns a list of one into a number, and drops an empty list (Config.js:174, isNaN([5]))."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        number = _as_number(item)
        if number is None or number != int(number) or not 0 <= number <= 255:
            raise _refuse(value, "an exit code from 0 to 255, or a list of them")
    if not items:
        return None
    return _as_number(items[0]) if len(items) == 1 else items


def words(value: object, major: int) -> List[str]:
    """Arguments: a list, or a string that PM2 splits (differently from a shell)."""
    if isinstance(value, str):
        return split_words(check_text(value), major)
    if not isinstance(value, list):
        raise BadValue("must be a list of strings or one string, not %s" % _kind(value))
    return [_word(item) for item in value]


def _word(item: object) -> str:
    """Numbers and booleans become text, as Node passes them to a program."""
    number = finite(item)
    if number is not None and not number_is_exact(number):
        raise BadValue("has a number that JavaScript cannot hold exactly: quote it")
    if number is not None or isinstance(item, bool):
        return json_text(item)
    if not isinstance(item, str):
        raise BadValue("must be a list of strings, it holds %s" % _kind(item))
    if len(check_text(item).encode("utf-8")) >= MAX_STRING:
        raise BadValue("has an argument of more than 128 KiB, which Linux does not take")
    return item


def _kind(value: object) -> str:
    """The type of a value, for a message that does not show the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return {int: "a number", float: "a number", str: "a string", list: "a list", dict: "a mapping"}.get(
        type(value), type(value).__name__
    )


def strings(value: object, _major: int) -> List[str]:
    if not isinstance(value, list):
        raise _refuse(value, "a list of strings")
    return [check_text(item, "a list of strings") for item in value]


def globs(value: object, major: int) -> List[str]:
    """Patterns for chokidar. It throws inside the daemon for anything that is not a string."""
    patterns = split_words(check_text(value), major) if isinstance(value, str) else strings(value, major)
    return [_glob(item) for item in patterns]


def _glob(item: str) -> str:
    if not item or len(item) > 4096:
        raise BadValue("has a path that is empty or longer than 4096 characters")
    return item


def watch(value: object, major: int) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _glob(check_text(value)) if value else value
    if isinstance(value, list):
        return [_glob(item) for item in strings(value, major)]
    raise _refuse(value, "true, false, a path or a list of paths")


def path_or_boolean(value: object, _major: int) -> object:
    return value if isinstance(value, bool) else check_line(value, "a path, true or false")


def boolean_or_string(value: object, _major: int) -> object:
    return value if isinstance(value, bool) else check_line(value, "true, false or a string")


def filter_env(value: object, major: int) -> object:
    if isinstance(value, (bool, str)):
        return boolean_or_string(value, major)
    return strings(value, major)


def account(value: object, _major: int) -> object:
    """A user or group by name or number; it is looked up later."""
    if isinstance(value, str):
        return check_line(value)
    number = finite(value)
    if number is None or number != int(number) or number < 0:
        raise _refuse(value, "a name or a number")
    return int(number)


def variables(value: object, _major: int) -> Dict[str, Any]:
    """A mapping of variables; each is checked later, so that a message can name it."""
    if not isinstance(value, dict):
        raise BadValue("must be a mapping, not %s" % _kind(value))
    return value


def mapping(value: object, major: int) -> Dict[str, Any]:
    found = variables(value, major)
    check_tree(found)
    return found


def check_tree(value: object, depth: int = 0) -> None:
    """Check a value: only types of JSON, and no keys that break PM2's own code. Raises BadValue."""
    if depth > MAX_DEPTH:
        raise BadValue("is nested more than %d levels deep" % MAX_DEPTH)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadValue("has a key that is not a string: %s" % shown(key))
            if check_text(key) in OBJECT_MEMBERS:
                raise BadValue("has the key %s, a member of every JavaScript object" % shown(key))
            check_tree(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_tree(item, depth + 1)
    elif isinstance(value, str):
        check_text(value)
    elif isinstance(value, (int, float)):
        if not is_finite(value) or not number_is_exact(value):
            raise BadValue("has a number that JavaScript cannot hold exactly: quote it")
    elif value is not None and not isinstance(value, bool):
        raise BadValue("has a value of an unknown kind: %s" % type(value).__name__)


_WATCH_SWITCHES = (
    "persistent",
    "ignoreInitial",
    "followSymlinks",
    "disableGlobbing",
    "usePolling",
    "useFsEvents",
    "alwaysStat",
    "ignorePermissionErrors",
    "atomic",
    "awaitWriteFinish",
)
_WATCH_NUMBERS = ("interval", "binaryInterval", "depth", "atomic")


def watch_options(value: object, major: int) -> Dict[str, Any]:
    """Options of chokidar 3 (Watcher.js:39). It throws inside the daemon for a bad `ignored`, so types are checked."""
    options = mapping(value, major)
    for key, item in options.items():
        if key == "ignored" and isinstance(item, (str, list)):
            globs(item if isinstance(item, list) else [item], major)
        elif key == "cwd" and isinstance(item, str):
            check_line(item)
        elif key == "awaitWriteFinish" and isinstance(item, dict):
            _write_finish(item)
        elif not _is_switch_or_number(key, item):
            raise BadValue("has the option %s, which chokidar does not have with that kind of value" % shown(key))
    return options


def _is_switch_or_number(key: str, item: object) -> bool:
    if isinstance(item, bool):
        return key in _WATCH_SWITCHES
    number = finite(item)
    return key in _WATCH_NUMBERS and number is not None and 0 <= number <= MAX_TIMER


def _write_finish(item: Dict[str, Any]) -> None:
    for key, value in item.items():
        number = finite(value)
        if key not in ("stabilityThreshold", "pollInterval") or number is None or not 0 <= number <= MAX_TIMER:
            raise BadValue("awaitWriteFinish takes stabilityThreshold and pollInterval in milliseconds")
