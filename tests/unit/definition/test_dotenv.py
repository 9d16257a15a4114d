"""Environment files, compared with the programs that read them: npm's dotenv 16, python-dotenv, sh and bash."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _dotenv
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from support import places

READERS = places.CACHE / "dotenv"
SHELLS = ("sh", "bash")

_NODE = """
const dotenv = require(process.argv[1])
const lines = require('readline').createInterface({input: process.stdin})
lines.on('line', line => console.log(JSON.stringify(Object.entries(dotenv.parse(JSON.parse(line))))))
"""
_PYTHON = """
import io, json, logging, sys
import dotenv
logging.disable()
for line in sys.stdin:
    text = json.loads(line)
    read = dotenv.dotenv_values(stream=io.StringIO(text, newline=""))
    print(json.dumps(list(read.items())), flush=True)
"""


class Reader:
    """A program that gets one text after the other, and answers with the variables that it reads in each."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, text: str) -> Dict[str, str]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def npm() -> Iterator[Reader]:
    reader = Reader(["node", "-e", _NODE, str(READERS / "node_modules" / "dotenv")])
    yield reader
    reader.end()


@pytest.fixture(scope="module")
def python() -> Iterator[Reader]:
    program = f"import sys; sys.path.insert(0, {str(READERS / 'python')!r})\n{_PYTHON}"
    reader = Reader([sys.executable, "-c", program])
    yield reader
    reader.end()


def shell(name: str, text: str, directory: Path) -> Dict[str, str]:
    """The variables that `set -a; . file` sets, in a nearly empty environment."""
    file = directory / "file.env"
    file.write_bytes(text.encode())
    environment = {"PATH": os.environ["PATH"]}
    command = [name, "-c", 'set -a; . "$0"; exec env -0', str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    items = (item.partition("=") for item in done.stdout.decode().split("\0") if item)
    return {key: value for key, _equals, value in items}


EVERYDAY = {
    "EMPTY": "",
    "PLAIN": "production",
    "URL": "postgres://user:p%40ss@db.example.org:5432/app?sslmode=verify-full&application_name=api",
    "SPACES": "  two words  ",
    "HASH": "a#b #c",
    "QUOTE": "it's",
    "QUOTES": 'say "hello"',
    "JSON": '{"a": [1, "x"], "b": null}',
    "DOLLAR": "pa$$word$HOME",
    "COMMAND": "$(touch /tmp/x) `id`; rm -rf / & | > <",
    "TILDE": "~/x:~root",
    "BACKSLASH": r"C:\temp\new",
    "EQUALS": "a=b==",
    "EXCLAMATION": "wow!!",
    "KEY": "-----BEGIN PRIVATE KEY-----\nMIIEvQ+/=\nabc\n-----END PRIVATE KEY-----\n",
    "UNICODE": "grüße €  ",
    "TAB": "a\tb",
    "LITERAL_N": r"a\nb",
    "lower_case1": "x",
}


def test_all_readers_read_everyday_values_alike(npm: Reader, python: Reader, tmp_path: Path) -> None:
    text = _dotenv.render(EVERYDAY)
    assert _dotenv.disagreements(EVERYDAY) == {}
    assert _dotenv.parse(text) == npm(text) == python(text) == EVERYDAY
    for name in SHELLS:
        read = shell(name, text, tmp_path)
        assert {key: read.get(key) for key in EVERYDAY} == EVERYDAY


def test_values_are_text_as_pm2_makes_it() -> None:
    values = {"YES": True, "NO": False, "NUMBER": 8080, "HALF": 0.5, "NULL": None, "LIST": [1, "a"], "MAP": {"k": True}}
    expected = ["true", "false", "8080", "0.5", "null", '[1,"a"]', '{"k":true}']
    assert list(_dotenv.parse(_dotenv.render(values)).values()) == expected
    assert _dotenv.text_of(True) == "true"


@pytest.mark.parametrize(
    ("value", "misread_by"),
    [
        ("it's $HOME", ["sh"]),
        ('it\'s "quoted"', ["sh"]),
        ("${HOME}", ["python-dotenv"]),
        ("C:\\dir\\", ["python-dotenv"]),
        ("two\\\\backslashes", ["python-dotenv"]),
        ("carriage\rreturn", ["sh"]),
        ("'\n`$x", ["sh"]),
    ],
)
def test_a_value_without_a_common_form_is_read_by_dotenv_and_the_others_are_named(
    value: str, misread_by: List[str], npm: Reader
) -> None:
    values = {"BEFORE": "a b", "IT": value, "AFTER": "'x"}
    assert npm(_dotenv.render(values)) == values
    assert sorted(_dotenv.disagreements(values)["IT"]) == sorted(misread_by)


def test_generated_files_are_parsed_as_dotenv_parses_them(npm: Reader) -> None:
    pieces = [
        *"ab1'\"`\\$ #\n\n\r\t={}(:-~!é\u2028\u2029\ufeff\x85\x1c",
        "A=",
        "B=",
        "export ",
        "C: ",
        "# ",
        "X.y-z = ",
    ]
    generator = random.Random(16)
    for _round in range(4000):
        text = "".join(generator.choice(pieces) for _piece in range(generator.randint(1, 25)))
        assert _dotenv.parse(text) == npm(text), text


def test_generated_values_are_read_back(npm: Reader, python: Reader, tmp_path: Path) -> None:
    """By dotenv always, and by the others unless `disagreements` names them."""
    pieces = [*"ab1'\"`\\$ #\n\r\t={}(:[~!*&;|<>?é\u2028\x85nrt", "${A}", "\\n", "\\'", "$(", "\\\\", "' "]
    generator = random.Random(7)
    unwritten = read_by_all = 0
    for _round in range(300):
        values = {
            f"V{number}": "".join(generator.choice(pieces) for _piece in range(generator.randint(0, 12)))
            for number in range(generator.randint(1, 4))
        }
        try:
            text = _dotenv.render(values)
        except NodeopsError:
            unwritten += 1
            continue
        assert npm(text) == values, text
        misread_by = {name for names in _dotenv.disagreements(values).values() for name in names}
        if "python-dotenv" not in misread_by:
            assert python(text) == values, text
        if "sh" not in misread_by:
            for name in SHELLS:
                read = shell(name, text, tmp_path)
                assert {key: read.get(key) for key in values} == values, text
        read_by_all += not misread_by
    assert unwritten < 30
    assert read_by_all > 50


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A.B", "A B", "A=B", "Ä", "A\n", 7])
def test_an_invalid_name_is_refused(name: Any) -> None:
    with pytest.raises(NodeopsError, match="cannot be a variable"):
        _dotenv.render({name: "x"})


@pytest.mark.parametrize("value", ["s3cret\0value", "s3cret\udcff", "s3cret'\"`\n#"])
def test_a_value_that_cannot_be_written_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(NodeopsError, match="of TOKEN ") as raised:
        _dotenv.render({"TOKEN": value})
    assert "s3cret" not in str(raised.value)


def test_the_order_is_kept_and_of_two_the_last_counts() -> None:
    assert list(_dotenv.parse("B=1\nA=2\n")) == ["B", "A"]
    assert _dotenv.parse("A=1\nA=2\n") == {"A": "2"}
