# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Values as JavaScript treats them: truth, numbers and strings as text, JSON, and PM2's own splitting of arguments."""

from __future__ import annotations

import json
import math
import re
from typing import Any, List, Optional, Tuple

SPACE = "\\t\\n\\v\\f\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"
"""The characters of JavaScript's \\s, for a regular expression's character class."""

_TRIM = re.compile("^[%s]+|[%s]+$" % (SPACE, SPACE))
_ARRAY_INDEX = re.compile("(?:0|[1-9][0-9]{0,9})")
_DECIMAL = re.compile("[+-]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][+-]?[0-9]+)?")
_RADIX = {"0x": 16, "0o": 8, "0b": 2}
_WORDS_5 = re.compile("([a-zA-Z0-9_\\-]+=\"[^\"]*\")|([a-zA-Z0-9_\\-]+='[^']*')|\"([^\"]*)\"|'([^']*)'|[%s]" % SPACE)
_WORDS_7 = re.compile(
    "[^%(s)s\"'=]+=\"[^\"]*\"|[^%(s)s\"'=]+='[^']*'|\"(?:[^\"]*)\"|'(?:[^']*)'|[^%(s)s]+" % {"s": SPACE}
)


def truthy(value: object) -> bool:
    """Whether the value is true to JavaScript: an empty list or object is, an empty string, 0 and NaN are not."""
    if value is None or value is False:
        return False
    if isinstance(value, str):
        return value != ""
    if isinstance(value, (int, float)):
        return not (value == 0 or math.isnan(value))
    return True


def number_text(value: float) -> str:
    """A number as JavaScript's String() writes it: 1.0 is "1", 1e21 is "1e+21", -0 is "0" (ECMA-262 6.1.6.1.20)."""
    if isinstance(value, int) and -(2**53) <= value <= 2**53:
        return str(int(value))
    if not is_finite(value) and not math.isnan(value):
        return "Infinity" if value > 0 else "-Infinity"
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    digits, point = _shortest_digits(abs(number))
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return "%s%s%se%s%d" % (sign, digits[0], fraction, "+" if point > 0 else "-", abs(point - 1))


def _shortest_digits(number: float) -> Tuple[str, int]:
    """The shortest digits of the number, and the position of its point: 0.00123 gives ("123", -2)."""
    mantissa, _mark, exponent = repr(number).partition("e")
    whole, _point, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or "0")
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return stripped.rstrip("0"), point


def number_is_exact(value: float) -> bool:
    """Whether JavaScript shows this number with the digits it was written with: above 2**53 it often does not."""
    if not isinstance(value, int) or -(2**53) <= value <= 2**53:
        return True
    return number_text(value) == str(value)


def text(value: object) -> str:
    """A value of a definition as the process sees it in its environment (Common.js mergeEnvironmentVariables).

    Strings stay. Numbers and booleans become text as in JavaScript. null, lists and objects become JSON.
    """
    if isinstance(value, str):
        return value
    return json_text(value)


def json_text(value: object) -> str:
    """A value as JSON.stringify writes it. Object keys that are array indexes come first, as in JavaScript."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value) if is_finite(value) else "null"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{%s}" % ",".join(
            "%s:%s" % (json.dumps(str(key), ensure_ascii=False), json_text(value[key])) for key in _key_order(value)
        )
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(json_text(item) for item in value)
    raise TypeError("%s has no JSON" % type(value).__name__)


def _key_order(value: Any) -> List[Any]:
    indexes = [key for key in value if _ARRAY_INDEX.fullmatch(str(key)) and int(key) < 2**32 - 1]
    if not indexes:
        return list(value)
    chosen = set(indexes)
    return sorted(indexes, key=int) + [key for key in value if key not in chosen]


def is_finite(value: float) -> bool:
    """Whether it is a finite number in JavaScript: an int of 309 digits is not."""
    return -(2**1024) < value < 2**1024


def finite(value: object) -> Optional[float]:
    """The value if it is a finite number, else None. A boolean is not a number here, though it is an int in Python."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and is_finite(value):
        return value
    return None


def number_of(value: str) -> float:
    """JavaScript's Number(string), NaN if it is not a number. An empty or blank string is 0."""
    trimmed = trim(value)
    if trimmed == "":
        return 0
    radix = _RADIX.get(trimmed[:2].lower())
    if radix is not None:
        try:
            return float(int(trimmed[2:], radix)) if not set(trimmed[2:]) & set("_+- ") else float("nan")
        except ValueError:
            return float("nan")
    if trimmed.lstrip("+-") == "Infinity" and len(trimmed) <= 9:
        return float("-inf") if trimmed[0] == "-" else float("inf")
    return float(trimmed) if _DECIMAL.fullmatch(trimmed) else float("nan")


def is_numeric(value: str) -> bool:
    """Whether the text is a number to JavaScript (`!isNaN(value)`): also "1e3", "0x1f" and " "."""
    number = number_of(value)
    return not math.isnan(number)


def trim(value: str) -> str:
    """JavaScript's String.trim()."""
    return _TRIM.sub("", value)


def split_words(value: str, major: int) -> List[str]:
    """A string of arguments as PM2 splits it (tools/Config.js `_valid`: 5.4:203 and 6.0:203, changed in 7.0:202).

    ``major`` is PM2's major version. Neither rule is a shell's: 5 and 6 cut `a"b c"` in two, 7 cuts `a"b` and `c"`.
    """
    if major >= 7:
        words = [_unquoted(word) for word in _WORDS_7.findall(value)]
    else:
        words = [word for word in _WORDS_5.split(value) if word]
    return [word for word in words if trim(word)]


def _unquoted(word: str) -> str:
    if word[0] in "\"'" and word[-1] == word[0]:
        return word[1:-1]
    return word
