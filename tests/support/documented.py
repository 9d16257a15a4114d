# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares the result of a module with the module's RETURN."""

from __future__ import annotations

import importlib
import re
from typing import Any, Dict, Iterator, Mapping

import yaml

from support.modules import PACKAGE

COMMON = frozenset(("changed", "failed", "msg", "invocation", "diff", "warnings", "deprecations"))
"""What Ansible documents for every module."""

TYPES = {"str": str, "int": int, "bool": bool, "float": float, "list": list, "dict": dict}


def returns_of(module: str) -> Dict[str, Any]:
    """The module's RETURN."""
    documented: Dict[str, Any] = yaml.safe_load(importlib.import_module(f"{PACKAGE}.{module}").RETURN)
    return documented


def mistakes(module: str, result: Mapping[str, Any]) -> list[str]:
    """Keys of a result that RETURN lacks or describes otherwise, and keys it promises that a success does not have."""
    documented = returns_of(module)
    found = list(_differing(documented, {key: value for key, value in result.items() if key not in COMMON}, module))
    if not result["failed"]:
        promised = {
            key for key, entry in documented.items() if entry["returned"].split(",")[0] in ("success", "always")
        }
        found += [f"{module}.{key} is promised" for key in sorted(promised - result.keys())]
    return found


def _differing(documented: Mapping[str, Any], result: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in result.items():
        if key in documented:
            yield from _wrong(documented[key], value, f"{path}.{key}")
        else:
            yield f"{path}.{key} is not documented"


def _wrong(entry: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    text = " ".join(entry["description"]) if isinstance(entry["description"], list) else entry["description"]
    if value is None:
        if not re.search(r"\bnull\b", text):
            yield f"{path} is null, which its description does not say"
        return
    kind = TYPES[entry["type"]]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        yield f"{path} is {value!r}, documented as {entry['type']}"
        return
    elements = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not all(isinstance(item, TYPES[entry["elements"]]) for item in value):
        yield f"{path} has an element that is no {entry['elements']}"
    for item in elements:
        if isinstance(item, dict):
            yield from _wrong_keys(entry, text, item, path)
        for name in re.findall(r"\bone of (V\([^.]*\))", text) if isinstance(item, str) else ():
            if item not in re.findall(r"V\(([^)]*)\)", name):
                yield f"{path} is {item!r}, not {name}"


def _wrong_keys(entry: Mapping[str, Any], text: str, item: Mapping[str, Any], path: str) -> Iterator[str]:
    see = re.search(r"see M\(nodeops\.pm2\.(\w+)\) for the keys", text)
    contains = returns_of(see.group(1))[path.rpartition(".")[2]]["contains"] if see else entry.get("contains")
    if contains is not None:
        yield from _differing(contains, item, path)
        yield from (f"{path}.{key} is missing" for key in contains if key not in item)
        return
    told = set(re.findall(r"C\((\w+)\)", text))
    yield from (f"{path}.{key} is not told in the description" for key in item if key not in told)
    if "kind" in item and item["kind"] not in re.findall(r"V\((\w+)\)", text):
        yield f"{path}: the kind {item['kind']} is not documented"
