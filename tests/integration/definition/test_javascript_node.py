"""Our model of how JavaScript and PM2 convert values, compared with node and PM2's own files on generated values."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _javascript, _paths
from model.context import package_of
from support.pm2 import VERSIONS

SEED = 11
NODE = str(shutil.which("node"))


def node(code: str, values: Any, directory: Path, *arguments: str) -> Any:
    """The result of ``code``, a JavaScript function of ``values`` and the arguments."""
    (directory / "in.json").write_text(json.dumps(values))
    program = f"""
        const fs = require('fs');
        const [input, output, ...rest] = process.argv.slice(1);
        fs.writeFileSync(output, JSON.stringify(({code})(JSON.parse(fs.readFileSync(input)), ...rest)));
        process.exit(0);
    """
    paths = [str(directory / "in.json"), str(directory / "out.json")]
    subprocess.run([NODE, "-e", program, *paths, *arguments], env={}, check=True, timeout=60)
    return json.loads((directory / "out.json").read_text())


def numbers() -> List[float]:
    choice = random.Random(SEED)
    found: List[float] = [0, -0.0, 1.0, 1e21, 1e20, 123456789012345680000, 1e-6, 1e-7, 5e-324, 1.7976931348623157e308]
    found += [choice.randint(-(2**53), 2**53) for _round in range(500)]
    while len(found) < 5000:
        number = struct.unpack("<d", choice.randbytes(8))[0]
        if math.isfinite(number):
            found.append(number)
    return [*found, *(round(choice.uniform(-1e4, 1e4), choice.randint(0, 6)) for _round in range(1000))]


def test_numbers_as_text(tmp_path: Path) -> None:
    values = numbers()

    assert [_javascript.number_text(value) for value in values] == node(
        "values => values.map(String)", values, tmp_path
    )


def test_text_as_numbers(tmp_path: Path) -> None:
    choice = random.Random(SEED)
    texts = [
        "",
        " ",
        "Infinity",
        "-Infinity",
        "+Infinity",
        "--Infinity",
        "0x1F",
        "0b101",
        "0o17",
        "0x",
        "-0x1",
        "1_000",
    ]
    texts += ["".join(choice.choices("0123456789.eE+- x", k=choice.randint(1, 6))) for _round in range(3000)]

    theirs = node("values => values.map((value) => String(Number(value)))", texts, tmp_path)

    assert [_javascript.number_text(_javascript.number_of(value)) for value in texts] == theirs


def test_truth(tmp_path: Path) -> None:
    values = [None, False, True, 0, 1, -1, 0.0, -0.0, "", " ", "0", "false", [], [0], {}, {"a": 1}]

    assert [_javascript.truthy(value) for value in values] == node("values => values.map(Boolean)", values, tmp_path)


def test_json(tmp_path: Path) -> None:
    values = [
        {"b": 1, "a": [1.0, None, True], "10": "x", "2": {}, "01": 1, "-1": 1, "4294967295": 1, "4294967294": 1},
        'quote " back \\ slash / tab \t nul-like \x01 del \x7f line\u2028 ☃ 🎈',
        [[], [[]], {}],
        1e21,
        "",
    ]

    theirs = node("values => values.map((value) => JSON.stringify(value))", values, tmp_path)

    assert [_javascript.json_text(value) for value in values] == theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_words_of_a_string(version: str, tmp_path: Path) -> None:
    choice = random.Random(SEED)
    pieces = [
        "a",
        "b-c",
        "--flag",
        "=",
        '"',
        "'",
        " ",
        "  ",
        "\t",
        "\n",
        "\u00a0",
        "ü",
        "\\",
        "x_1",
        '"two words"',
        "'q'",
    ]
    texts = ["".join(choices) for choices in (choice.choices(pieces, k=choice.randint(0, 9)) for _round in range(5000))]
    code = "(values, pm2) => values.map((value) => require(pm2 + '/lib/tools/Config.js')._valid('args', value))"

    theirs = node(code, texts, tmp_path, str(package_of(version)))

    assert [_javascript.split_words(text, int(version[0])) for text in texts] == theirs


@pytest.mark.parametrize("version", VERSIONS)
def test_binary_or_not(version: str, tmp_path: Path) -> None:
    choice = random.Random(SEED)
    kinds = [range(256), range(32, 127), [*range(32, 127), 0xC3, 0xA9], [0xE2, 0x98, 0x83, 65], [65, 200, 230, 1]]
    samples = [b"", b"\0", b"\xef\xbb\xbf\0", b"#!/bin/sh\n", "grün ☃\n".encode() * 20]
    while len(samples) < 600:
        length = choice.choice([1, 2, 30, 40, 511, 512, 513, 600])
        kind = list(choice.choice(kinds))
        plain = list(range(32, 127)) * choice.choice([0, 1, 20])
        samples.append(bytes(choice.choices(kind + plain, k=length)))
    for number, sample in enumerate(samples):
        (tmp_path / str(number)).write_bytes(sample)
    paths = [str(tmp_path / str(number)) for number in range(len(samples))]
    code = "(values, pm2) => values.map((value) => require(pm2 + '/lib/tools/isbinaryfile.js')(value))"

    theirs = node(code, paths, tmp_path, str(package_of(version)))

    assert {True, False} == set(theirs)
    assert [_paths.is_binary(path) for path in paths] == theirs


def test_paths(tmp_path: Path) -> None:
    choice = random.Random(SEED)
    pieces = ["a", "b.js", ".", "..", "/", "/", ".hidden", "x.", "ü", "two words"]
    pairs = [["/base/dir", "".join(choice.choices(pieces, k=choice.randint(1, 6)))] for _round in range(2000)]
    code = "values => values.map(([base, value]) => require('path').resolve(base, value))"
    endings = "values => values.map(([base, value]) => require('path').extname(require('path').resolve(base, value)))"

    assert [_paths.resolve(base, path) for base, path in pairs] == node(code, pairs, tmp_path)
    ours = [_paths.extension(_paths.resolve(base, path)) for base, path in pairs]
    assert ours == node(endings, pairs, tmp_path)
