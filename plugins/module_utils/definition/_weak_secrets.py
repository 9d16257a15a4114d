# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.


"""Weak secrets: placeholders, defaults, words from manuals."""

from __future__ import annotations

import re
from typing import Iterable, List, Optional
from urllib.parse import unquote, urlsplit

_SECRET_ANYWHERE = re.compile("SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|CREDENTIAL")
_SECRET_PART = re.compile(".*(?:KEY|PASS|SALT|PWD|PEPPER)S?")
_NO_SECRET_LAST = frozenset(
    """EXPIRES EXPIRY EXPIRATION EXPIRE IN TTL AGE LENGTH LEN LIMIT COUNT SIZE BITS ROUNDS DAYS HOURS MINUTES SECONDS MS
    URL URI ENDPOINT HOST PORT FILE PATH DIR DIRECTORY HEADER NAME ALGORITHM ALG TYPE ISSUER AUDIENCE ENABLED DISABLED
    REQUIRED PREFIX ID VERSION REGION INTERVAL TIMEOUT LIFETIME DURATION""".split()
)
_NO_SECRET_ANYWHERE = frozenset(("MAX", "MIN", "PUBLIC", "PUBLISHABLE"))

_WORDS = frozenset(
    """your yours my our the this that jwt api app application db database session cookie auth access refresh signing
    encryption private client server service user username root admin administrator guest owner secret secrets password
    passwords passwd pass pwd passphrase key keys token tokens salt credential credentials value string text here change
    changed changeme changeit replace replaced me it to in is not for production prod dev devel development staging
    local test tests testing demo dummy sample example examples default defaults placeholder insecure unsafe super very
    strong secure long random really some something please set enter insert put add fill todo tbd fixme foo bar baz
    foobar qwerty letmein welcome hello world login none null nil undefined empty abc abcd xxx
    with of at least or and must be characters chars character minimum min bytes generate generated hex base key64 redis
    postgres postgresql mysql mongo rabbitmq stripe google aws openai sendgrid smtp email mail webhook""".split()
)
_PARTS = (
    """changeme changethis changeit replaceme replacethis replacewith placeholder example insecure yoursecret
    yourpassword yourtoken yourkey yourapi yourjwt yourown yoursuper mysecret mypassword supersecret topsecret
    secrethere keyhere tokenhere passwordhere valuehere"""
).split()
_ALONE = frozenset("your xxx xxxx todo dummy".split())
_RUNS = ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "98765432109876543210")
_MARKED = re.compile(r"<[^<>]*>|\{\{.*\}\}|\$\{[^{}]*\}|\.{2,}|-+|_+|\*+|\?+", re.DOTALL)
_LEET = str.maketrans("0134578@$", "oleastbas")
_NO_SECRET = re.compile(
    r"true|false|yes|no|on|off|[01]|[0-9]{1,5} ?(?:ms|s|m|h|d|w)|\.{0,2}/.*|[0-9]{1,3}", re.IGNORECASE
)
_LONGEST_WORD = max(map(len, _WORDS))


def looks_secret(name: str) -> bool:
    """Whether a variable with this name holds a secret: JWT_SECRET does, JWT_SECRET_EXPIRES_IN and KEYBOARD do not."""
    parts = [part for part in re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).upper().split("_") if part]
    if not parts or parts[-1] in _NO_SECRET_LAST or _NO_SECRET_ANYWHERE.intersection(parts):
        return False
    return _SECRET_ANYWHERE.search("_".join(parts)) is not None or any(map(_SECRET_PART.fullmatch, parts))


def says_nothing(value: str) -> bool:
    """Whether a value cannot be a secret, whatever its name is: a switch, a small number, a duration, a path."""
    return _NO_SECRET.fullmatch(value.strip()) is not None


def is_weak(value: str, more: Iterable[str] = ()) -> bool:
    """Whether it is easy to guess: changeme, your_jwt_secret_here, password123, 123456, xxxxxxxx, <token>.

    ``more`` are further weak values, compared with the whole value and with each word of it, in upper or lower case.
    An empty value is not weak.
    """
    plain = value.strip().lower()
    if plain in ("", "0", "1"):  # a switch
        return False
    words = [word for word in re.split("[^a-z0-9]+", plain) if word]
    squashed = "".join(words)
    if any(plain == known.strip().lower() or known.strip().lower() in words for known in more):
        return True
    if len(set(plain)) == 1 or _MARKED.fullmatch(plain) or _is_run(squashed):
        return True
    if any(part in squashed for part in _PARTS) or (words and _ALONE.intersection(words)):
        return True
    spelled = "".join(re.split("[^a-z0-9]+", plain.translate(_LEET)))
    return bool(words) and (_is_made_of_words(squashed) or _is_made_of_words(spelled))


def _is_run(text: str) -> bool:
    return len(text) >= 3 and any(text in run for run in _RUNS)


def _is_made_of_words(text: str) -> bool:
    """Whether it consists of words from manuals and a few digits."""
    digits = sum(character.isdigit() for character in text)
    if digits > 6 or digits * 2 > len(text):
        return False
    reached: List[bool] = [True] + [False] * len(text)
    for start in range(len(text)):
        if not reached[start]:
            continue
        if text[start].isdigit():
            reached[start + 1] = True
        for end in range(start + 2, min(len(text), start + _LONGEST_WORD) + 1):
            if text[start:end] in _WORDS:
                reached[end] = True
    return reached[-1]


def url_password(value: str) -> Optional[str]:
    """The password in a URL, None if there is none."""
    if "://" not in value:
        return None
    try:
        password = urlsplit(value).password
    except ValueError:
        return None
    return unquote(password) if password else None
