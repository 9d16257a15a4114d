"""The table of keys is complete, and has PM2's aliases in PM2's order."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _schema
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _values as values
from model.context import package_of
from support.pm2 import VERSIONS


def schema_of(version: str) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads((package_of(version) / "lib" / "API" / "schema.json").read_text())
    return {key: entry for key, entry in found.items() if "\\" not in key}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_key_of_pm2_in_its_order(version: str) -> None:
    assert [key.name for key in _schema.KEYS] == list(schema_of(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_aliases_in_the_order_pm2_tries_them(version: str) -> None:
    """Each alias of the schema is put before the others, and the camelCase name comes last (tools/Config.js:34)."""

    def tried(name: str, entry: Dict[str, Any]) -> List[str]:
        given = entry.get("alias", [])
        first, *rest = name.split("_")
        camel = first + "".join(part[:1].upper() + part[1:] if len(part) > 1 else part for part in rest)
        return [*reversed([given] if isinstance(given, str) else given), camel]

    assert {key.name: list(key.aliases) for key in _schema.KEYS} == {
        name: tried(name, entry) for name, entry in schema_of(version).items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults(version: str) -> None:
    assert _schema.DEFAULTS == {
        name: entry["default"] for name, entry in schema_of(version).items() if "default" in entry
    }


def test_no_alias_belongs_to_two_keys() -> None:
    names = [name for key in _schema.KEYS for name in {*key.aliases, key.name}]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["A", "node_env", "my.setting-1", "A B", "ü", "PORT", "NODE_APP_INSTANCE", "log", "cron", "user"]
)
def test_names_of_variables(name: str) -> None:
    assert _schema.variable_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "A=B", "A\0", "A\n", "\ud800", 5, None, "toString", "__proto__", "NODE_UNIQUE_ID", "NODE_CHANNEL_FD"),
        *(
            "name",
            "instances",
            "pm_id",
            "nodeops",
            "status",
            "env",
            "io",
            "args",
            "versioning",
            "unique_id",
            "namespace",
        ),
    ],
)
def test_invalid_names(name: object) -> None:
    assert _schema.variable_problem(name)


@pytest.mark.parametrize(
    ("written", "near"),
    [("intances", "instances"), ("SCRIPT", "script"), ("max_memory", "max_memory_restart"), ("qqqq", None)],
)
def test_the_nearest_key(written: str, near: object) -> None:
    assert _schema.nearest(written) == near


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_memory_restart", "300M", 300 * 1024**2),
        ("max_memory_restart", "2G", 2 * 1024**3),
        ("max_memory_restart", "10K", 10240),
        ("max_memory_restart", "77", 77),
        ("min_uptime", "10s", 10000),
        ("min_uptime", "2m", 120000),
        ("min_uptime", "1h", 3600000),
        ("min_uptime", "250", 250),
        ("kill_timeout", " 3000 ", 3000),
        ("kill_timeout", "1e3", 1000),
        ("kill_timeout", 1.5, 1.5),
        ("instances", "max", 0),
        ("instances", "-1", -1),
        ("stop_exit_codes", [5], 5),
        ("stop_exit_codes", "5", 5),
        ("stop_exit_codes", [1, "2"], [1, "2"]),
        ("stop_exit_codes", [], None),
        ("args", "a  'b c'", ["a", "b c"]),
        ("args", [1, True, "", 1e21], ["1", "true", "", "1e+21"]),
        ("ignore_watch", "a b", ["a", "b"]),
        ("cron_restart", "0", 0),
        ("log_file", False, False),
        ("uid", 1000.0, 1000),
    ],
)
def test_values_as_pm2_takes_them(key: str, value: object, expected: object) -> None:
    assert _schema.BY_NAME[key].check(value, 7) == expected


@pytest.mark.parametrize("key", sorted(_schema.BY_NAME))
def test_no_key_accepts_every_value(key: str) -> None:
    """Each key refuses some kind of value, and refuses it with BadValue, never with another exception."""
    candidates: List[object] = [
        float("nan"),
        float("inf"),
        -1e400,
        10**400,
        "\0",
        "\ud800",
        b"x",
        object(),
        [[]],
        [None],
    ]
    candidates += [{"a": object()}, {"toString": "x"}, {1: 2}, {"a": {"constructor": 1}}, [{}], ["\0"], [float("nan")]]
    refused = 0
    for value in candidates:
        try:
            _schema.BY_NAME[key].check(value, 7)
        except values.BadValue:
            refused += 1

    # env is checked later, variable by variable
    assert refused >= (len(candidates) - 4 if key == "env" else len(candidates))
