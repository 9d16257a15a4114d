"""Whether two databases have the same content, told from their facts."""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._contents import Facts, compare

FACTS: Facts = {
    "encoding": "UTF8",
    "owner": "shop",
    "size": 1000,
    "extensions": {"plpgsql": "1.0", "hstore": "1.8"},
    "tables": {'"public"."a"': {"rows": 3, "checksum": "12"}, '"public"."b"': {"rows": 0, "checksum": "0"}},
    "sequences": {
        "public.up": {"last": 10, "called": True, "direction": 1},
        "public.down": {"last": -10, "called": False, "direction": -1},
        "public.round": {"last": 5, "called": True, "direction": 0},
    },
    "large_objects": {"count": 2, "checksum": "99"},
    "objects": {"views": 2, "functions": 0},
}


def changed(change: Callable[[Dict[str, Any]], Any]) -> Facts:
    facts = copy.deepcopy(FACTS)
    change(facts)
    return facts


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(owner="other", size=5),
        lambda facts: facts["extensions"].update(hstore="1.9", more="1"),
        lambda facts: facts["sequences"]["public.up"].update(last=11),
        lambda facts: facts["sequences"]["public.down"].update(last=-11),
        lambda facts: facts["sequences"]["public.down"].update(called=True),
        lambda facts: facts["sequences"]["public.round"].update(last=1),
        lambda facts: facts["sequences"].update({"public.new": {"last": 1, "called": False, "direction": 1}}),
    ],
)
def test_the_same(change: Callable[[Dict[str, Any]], Any]):
    assert compare(FACTS, changed(change)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda facts: facts.update(encoding="LATIN1"), "the encoding is LATIN1, not UTF8"),
        (lambda facts: facts["extensions"].pop("hstore"), "the extension hstore is missing"),
        (lambda facts: facts["tables"].pop('"public"."b"'), 'the table "public"."b" is missing'),
        (lambda facts: facts["tables"].update(x={"rows": 0, "checksum": "0"}), "the table x is unexpected"),
        (lambda facts: facts["tables"]['"public"."a"'].update(rows=2), 'the table "public"."a" has 2 rows, not 3'),
        (lambda facts: facts["tables"]['"public"."a"'].update(checksum="13"), "other content"),
        (lambda facts: facts["sequences"]["public.up"].update(last=9), "public.up is at 9, behind 10"),
        (lambda facts: facts["sequences"]["public.up"].update(called=False), "public.up is at 10, behind 10"),
        (lambda facts: facts["sequences"]["public.down"].update(last=-9), "public.down is at -9, behind -10"),
        (lambda facts: facts["sequences"].pop("public.up"), "the sequence public.up is missing"),
        (lambda facts: facts["large_objects"].update(checksum="1"), "the large objects differ: 2, not 2"),
        (lambda facts: facts["objects"].update(views=1), "1 views, not 2"),
        (lambda facts: facts["objects"].pop("views"), "0 views, not 2"),
    ],
)
def test_different(change: Callable[[Dict[str, Any]], Any], problem: str):
    (told,) = compare(FACTS, changed(change))
    assert problem in told


def test_many_differences_are_told_in_few_words():
    many = changed(lambda facts: facts["tables"].update({f"t{i}": {"rows": 1, "checksum": "1"} for i in range(500)}))
    told = compare(FACTS, many)
    assert len(told) == 11
    assert told[-1] == "and 490 more"
