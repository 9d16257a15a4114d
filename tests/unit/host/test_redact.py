"""Which parts of a text are hidden before it is shown, and which stay readable."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK, Redactor

SECRET = "s3cr3t/va lue+1"


def redactor(**env: object) -> Redactor:
    found = Redactor()
    found.add_environment(env)
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"cannot connect with {SECRET}!",
        f"url: http://h/?t={quote(SECRET, safe='')}",
        f'{{"token": {json.dumps(SECRET)}}}',
        f"{SECRET}{SECRET}",
    ],
)
def test_a_value_is_hidden_in_every_form(text: str) -> None:
    shown = redactor(ANY_NAME=SECRET).text(text)
    assert SECRET not in shown
    assert quote(SECRET, safe="") not in shown
    assert MASK in shown


def test_a_longer_secret_is_hidden_before_one_that_is_part_of_it() -> None:
    shown = redactor(SHORT="abcd1", LONG="abcd1-efgh2").text("it is abcd1-efgh2")
    assert shown == f"it is {MASK}"


def test_values_inside_objects_lists_and_json() -> None:
    found = redactor(A={"inner": ["deep-secret-1"]}, B='{"key": "deep-secret-2"}', C=["deep-secret-3"], D=123456789)
    shown = found.text("deep-secret-1 deep-secret-2 deep-secret-3 123456789")
    assert shown == " ".join([MASK] * 4)


def test_each_line_of_a_key_is_hidden() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"
    shown = redactor(KEY=key).text("parse error near kqhkiG9w0BAQEF")
    assert shown == f"parse error near {MASK}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "3000"),
        ("NODE_ENV", "my-production"),
        ("DEBUG", "true"),
        ("MODE", "production"),
        ("WORKERS", "12"),
        ("SHORT", "ab"),
        ("DIRECTORY", "/tmp"),
        ("EMPTY", ""),
        ("NOTHING", None),
        ("SWITCH", True),
    ],
)
def test_text_that_is_not_secret_stays_readable(name: str, value: object) -> None:
    text = f"started on 3000 as my-production, true, production, 12, ab, /tmp: {value}"
    assert redactor(**{name: value}).text(text) == text


def test_a_path_that_does_not_exist_may_be_a_secret() -> None:
    assert redactor(TOKEN="/8fKq/x91").text("got /8fKq/x91") == f"got {MASK}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--token", "tok-12345"], "bad tok-12345"),
        (["--api-key=key-12345"], "bad key-12345"),
        (["postgres://me:pass-12345@db/x"], "bad pass-12345"),
        (["run --password 'pass-12345' now"], "bad pass-12345"),
    ],
)
def test_secrets_of_arguments(arguments: list[str], text: str) -> None:
    found = Redactor()
    found.add_arguments(arguments)
    assert found.text(text) == f"bad {MASK}"


def test_other_arguments_stay_readable() -> None:
    found = Redactor()
    found.add_arguments(["--port", "3000", "--name", "worker-one", "--token", "--verbose"])
    assert found.text("worker-one on 3000") == "worker-one on 3000"


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:unknown-1@queue/",
        "amqp://user:pass/unknown-1@queue/",
        "amqp://user:pass@unknown-1@queue/",
        "amqp://user:pass'unknown-1@queue/",
        "password=unknown-1 was wrong",
        '{"apiKey": "unknown-1"}',
        "Authorization: Bearer unknown-1",
        "client_secret: 'unknown-1'",
    ],
)
def test_text_that_looks_like_a_secret_is_hidden_though_it_was_not_named(text: str) -> None:
    shown = Redactor().text(text)
    assert "unknown-1" not in shown
    assert MASK in shown


def test_a_port_is_not_taken_for_a_password() -> None:
    text = "GET http://localhost:4873/@shop/db 404, see http://localhost:3000/a,b:c@d"
    assert Redactor().text(text) == text


def test_a_text_of_many_urls_is_quick() -> None:
    start = time.process_time()
    Redactor().text("http://h:80;" * 9000)
    assert time.process_time() - start < 4


def test_text_without_secrets_is_unchanged() -> None:
    text = "Error: listen EADDRINUSE 127.0.0.1:3000\n    at Server.setupListenHandle (node:net:1463:16)"
    assert redactor(TOKEN=SECRET).text(text) == text
