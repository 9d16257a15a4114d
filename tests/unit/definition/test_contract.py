"""The contract of an environment: missing, weak and unknown variables are named, and no value is shown."""

from __future__ import annotations

import base64
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _contract, _weak_secrets
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

EXAMPLE = """\
# Configuration of the app. DEBUG=1 in here is prose.
NODE_ENV=production
PORT=3000
DATABASE_URL=postgres://app:app-password@localhost/app   # where
JWT_SECRET="put your secret here"
ENCRYPTION_KEY=
JWT_EXPIRES_IN=1h
TOKEN_TTL=15m
#REDIS_URL=redis://localhost
# export SENTRY_DSN=
"""
STRONG = "u8Jq2Zr7-Wn4Xk9Lp3Vt6Ys1Bc5Dm0Gf"
GOOD: Dict[str, Any] = {
    "NODE_ENV": "production",
    "PORT": 3000,
    "DATABASE_URL": "postgres://app:k3Jh8Zx2@db/app",
    "JWT_SECRET": STRONG,
    "ENCRYPTION_KEY": "",
    "JWT_EXPIRES_IN": "1h",
    "TOKEN_TTL": "15m",
}


def check(
    environment: Dict[str, Any], contract: Optional[Dict[str, Any]] = None, example: Optional[str] = EXAMPLE
) -> List[str]:
    return _contract.check({"example": ".env.example", **(contract or {})}, example, environment)[0]


def problem(name: str, value: Any, **rule: Any) -> List[str]:
    return check({**GOOD, name: value}, {"rules": {name: rule}} if rule else {})


def test_a_good_environment_has_no_problems_and_no_warnings() -> None:
    assert _contract.check({"example": ".env.example"}, EXAMPLE, GOOD) == ([], [])


def test_each_missing_variable_is_named() -> None:
    assert check({}) == [f"{name} is not defined" for name in GOOD]


def test_null_is_not_defined() -> None:
    assert problem("PORT", None) == ["PORT is not defined"]


def test_a_variable_may_be_empty_only_if_the_example_is_empty() -> None:
    assert problem("PORT", "") == ["PORT is empty, but is required"]
    assert problem("ENCRYPTION_KEY", "") == []
    assert problem("ENCRYPTION_KEY", "", required=True) == ["ENCRYPTION_KEY is empty, but is required"]
    assert problem("ENCRYPTION_KEY", "", base64_bytes=32) == ["ENCRYPTION_KEY is base64 of 0 bytes: base64_bytes is 32"]


def test_optional_variables_may_be_missing_or_empty_but_not_wrong() -> None:
    without = {name: value for name, value in GOOD.items() if name != "PORT"}
    assert check(without, {"optional": ["PORT"]}) == []
    assert check(without, {"rules": {"PORT": {"required": False}}}) == []
    rules = {"SENTRY_DSN": {"pattern": "https://.*"}}
    assert check({**GOOD, "SENTRY_DSN": ""}, {"rules": rules}) == []
    assert check({**GOOD, "SENTRY_DSN": "x"}, {"rules": rules}) == ["SENTRY_DSN does not match the pattern https://.*"]
    assert check(GOOD, {"rules": {"SENTRY_DSN": {"required": True}}}) == ["SENTRY_DSN is not defined"]


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ({"min_length": 32}, STRONG, STRONG[:31]),
        ({"max_length": 32}, STRONG, STRONG + "x"),
        (
            {"base64_bytes": 32},
            base64.b64encode(bytes(range(32))).decode(),
            base64.b64encode(bytes(range(31))).decode(),
        ),
        ({"base64_bytes": 32}, base64.urlsafe_b64encode(bytes(range(224, 256))).decode(), STRONG + "!"),
        ({"base64_bytes": 3}, "8J+S", "8J+"),
        ({"base64_bytes": 4}, "8J+SqQ", "8J+S qQ=="),
        ({"pattern": "[a-z]{3}[0-9]"}, "abz7", "abz7\n"),
        ({"one_of": ["red", 7, True]}, "true", "True"),
    ],
)
def test_rules(rule: Dict[str, Any], right: str, wrong: str) -> None:
    assert problem("RULED", right, **rule) == []
    found = problem("RULED", wrong, **rule)
    assert len(found) == 1
    assert found[0].startswith("RULED is ") or found[0].startswith("RULED does not match")
    assert next(iter(rule)) in found[0].replace("does not match the pattern", "pattern")


def test_a_secret_left_at_the_examples_value_is_refused() -> None:
    assert problem("JWT_SECRET", "put your secret here") == [
        "JWT_SECRET has the value of the example, which is not secret"
    ]
    example = (
        "API_TOKEN=k9Xw3Lq8Rt5Zp\nUSE_TOKEN=true\nTOKEN_TTL=15m\nTLS_KEY=/etc/app/key.pem\nBCRYPT_SALT_ROUNDS=10\n"
    )
    values = {"API_TOKEN": "k9Xw3Lq8Rt5Zp", "USE_TOKEN": True, "TOKEN_TTL": "15m", "TLS_KEY": "/etc/app/key.pem"}
    found = check({**values, "BCRYPT_SALT_ROUNDS": 10}, example=example)
    assert found == ["API_TOKEN has the value of the example, which is not secret"]


WEAK = """\
changeme change-me ChangeMe123 secret SECRET password Password1! passw0rd P@ssw0rd admin root 123456 12345678
1234567890 default test testing example placeholder your-secret your_jwt_secret_here YOUR_API_KEY xxx xxxxxxxx
00000000 aaaaaaaaaaaaaaaa <your-token> ${JWT_SECRET} super-secret-jwt-key-change-in-production dev-secret-key
my-secret replace_me todo qwerty letmein abc123 insert-your-key-here dbpassword supersecretkey abcdefgh
AKIAIOSFODNN7EXAMPLE secret123 ... ******** postgres please_change_this_to_a_long_random_string your-256-bit-secret
change_this_in_production""".split()
NOT_WEAK = [
    STRONG,
    "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    base64.b64encode(bytes(range(100, 132))).decode(),
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "correct-horse-battery-staple",
    "8492-0175-3341",
    "Tr0ub4dor&3",
    '["k1Zx8","q7Lw2"]',
    "secretariat-won-1973-belmont",
]


@pytest.mark.parametrize("value", WEAK)
def test_weak_values_are_refused_for_secrets_only(value: str) -> None:
    for name in ("JWT_SECRET", "dbPassword", "API_KEY", "SMTP_PASS", "STRIPE_TOKEN", "HASH_SALT", "APIKEY"):
        found = problem(name, value)
        assert found == [f"{name} has a known weak value"]
    assert problem("GREETING", value) == []
    assert problem("API_KEY", value, weak=True) == []


@pytest.mark.parametrize("value", NOT_WEAK)
def test_strong_values_pass(value: str) -> None:
    assert problem("API_KEY", value) == []


def test_random_values_are_not_taken_for_weak() -> None:
    import random

    generator = random.Random(5)
    for size in (6, 9, 16, 32):
        for _round in range(3000):
            value = base64.b64encode(bytes(generator.randrange(256) for _byte in range(size))).decode()
            assert not _weak_secrets.is_weak(value), value
            assert not _weak_secrets.is_weak(base64.b64decode(value).hex())


@pytest.mark.parametrize(
    "name", "JWT_EXPIRES_IN TOKEN_URL MAX_TOKENS SALT_ROUNDS API_KEY_HEADER KEYBOARD PASSENGER VAPID_PUBLIC_KEY".split()
)
def test_names_that_are_not_secrets(name: str) -> None:
    assert not _weak_secrets.looks_secret(name)


def test_further_weak_values() -> None:
    contract = {"weak": ["Bankim2024", 4711]}
    for value in ("bankim2024", "x-BANKIM2024-y", "4711"):
        assert check({**GOOD, "JWT_SECRET": value}, contract) == ["JWT_SECRET has a known weak value"]


def test_unknown_variables_are_warnings_with_a_near_name() -> None:
    environment = {
        **GOOD,
        "DATABSE_URL": GOOD["DATABASE_URL"],
        "EXTRA": "1",
        "REDIS_URL": "redis://r",
        "SENTRY_DSN": "x",
    }
    del environment["DATABASE_URL"]
    problems, warnings = _contract.check({"example": ".env.example"}, EXAMPLE, environment)
    assert problems == ["DATABASE_URL is not defined (but DATABSE_URL is: a typo?)"]
    assert warnings == [
        "DATABSE_URL is not in .env.example: did you mean DATABASE_URL?",
        "EXTRA is not in .env.example",
    ]


def test_a_weak_password_in_a_url_is_a_warning() -> None:
    environment = {**GOOD, "DATABASE_URL": "postgres://app:password@db/app"}
    found = _contract.check({"example": ".env.example"}, EXAMPLE, environment)
    assert found == ([], ["DATABASE_URL is a URL with a password that is a known weak value"])


def test_without_an_example_only_the_rules_count() -> None:
    rules = {"A": {"required": True}, "B": {"min_length": 2}}
    assert _contract.check({"rules": rules}, None, {"C": "1"}) == (["A is not defined"], [])


def test_an_example_that_is_not_there() -> None:
    assert _contract.check({"example": "x/.env.example"}, None, GOOD)[0] == [
        "x/.env.example, which the contract names as its example, is not in the release"
    ]


def test_no_message_shows_a_value() -> None:
    canary = "canary-value"
    contract = {
        "rules": {
            "A_KEY": {"min_length": 99},
            "B_KEY": {"max_length": 1},
            "C_KEY": {"base64_bytes": 1},
            "D_KEY": {"pattern": "x"},
            "E_KEY": {"one_of": ["x"]},
        },
        "weak": [canary],
    }
    environment = {f"{letter}_KEY": canary for letter in "ABCDEF"}
    problems, warnings = _contract.check(contract, "F_KEY=canary-value\n", {**environment, "U": f"http://u:{canary}@h"})
    assert len(problems) == 6
    assert canary not in " ".join(problems + warnings)


@pytest.mark.parametrize(
    ("contract", "names"),
    [
        ({"exmaple": "x"}, "exmaple is not a key of a contract: did you mean example"),
        ({"example": 7}, "example"),
        ({"optional": "PORT"}, "optional"),
        ({"weak": [None]}, "weak"),
        ({"rules": []}, "rules"),
        ({"rules": {"A": 7}}, "rules.A"),
        ({"rules": {"A": {"minlength": 3}}}, "rules.A.minlength is not a rule: did you mean min_length"),
        ({"rules": {"A": {"min_length": "long"}}}, "rules.A.min_length"),
        ({"rules": {"A": {"min_length": True}}}, "rules.A.min_length"),
        ({"rules": {"A": {"min_length": -1}}}, "rules.A.min_length"),
        ({"rules": {"A": {"min_length": 3, "max_length": 2}}}, "rules.A"),
        ({"rules": {"A": {"pattern": "("}}}, "rules.A.pattern"),
        ({"rules": {"A": {"pattern": 7}}}, "rules.A.pattern"),
        ({"rules": {"A": {"one_of": "x"}}}, "rules.A.one_of"),
        ({"rules": {"A": {"required": "yes"}}}, "rules.A.required"),
    ],
)
def test_an_invalid_contract_is_an_error_that_names_the_key(contract: Dict[str, Any], names: str) -> None:
    with pytest.raises(NodeopsError, match="contract: ") as raised:
        _contract.check(contract, "", {})
    assert f"contract: {names}" in str(raised.value)
