"""Each module option that may hold a secret has a mask, which decides what `invocation` shows of it.

The options come from the modules' own specifications. So these tests fail for a new option without a decision.
"""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, NamedTuple

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app_mask import APPS
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _masks
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import MASK
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_options import READY_MASK
from support import places

MODULES = sorted(path.stem for path in (places.ROOT / "plugins" / "modules").glob("*.py"))
CANARY = "canary-7c1f"


class Options(NamedTuple):
    """The arguments that a module gives to `Module`."""

    spec: Dict[str, Dict[str, Any]]
    masks: Dict[str, _masks.Mask]


class _Given(Exception):
    pass


@pytest.fixture
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Options:
    def init(_self: object, spec: Dict[str, Any], masks: Dict[str, _masks.Mask], **_others: object) -> None:
        raise _Given(Options(spec, masks))

    monkeypatch.setattr(_module.Module, "__init__", init)
    module = importlib.import_module(f"ansible_collections.nodeops.pm2.plugins.modules.{request.param}")
    with pytest.raises(_Given) as given:
        module.main()
    found = given.value.args[0]
    assert isinstance(found, Options)
    return found


each_module = pytest.mark.parametrize("options", MODULES, indirect=True)


@each_module
def test_each_option_that_is_not_plain_has_a_mask(options: Options) -> None:
    undecided = {name for name, option in options.spec.items() if not _module.is_plain(option)} - set(options.masks)
    assert undecided == set(), "decide what of these options may be shown"


@each_module
def test_each_secret_option_has_a_mask(options: Options) -> None:
    assert {name for name, option in options.spec.items() if option.get("no_log")} <= set(options.masks)


@each_module
def test_each_mask_is_for_an_option(options: Options) -> None:
    assert set(options.masks) <= set(options.spec)


@each_module
def test_a_mask_hides_keys_that_it_does_not_know(options: Options) -> None:
    """Except masks that show all, and masks of commands, which hide only what follows a word like --token."""
    for name, mask in options.masks.items():
        if mask not in (_masks.plain, _masks.secrets):
            for value in ({"MISSPELT": CANARY}, [{"MISSPELT": CANARY}], {"MISSPELT": [CANARY]}):
                assert CANARY not in str(mask(value)), name


class Shown(_module.Module):
    """A module that is not run. Says what it would show of its options."""

    def __init__(self, params: Dict[str, Any]) -> None:
        self.argument_spec = {"plain": {}, "undecided": {"type": "dict"}, "decided": {"type": "list"}}
        self._masks = {"decided": _masks.plain}
        self.params = params

    def of(self, name: str) -> Any:
        return self._invocation()["module_args"][name]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("plain", "web", "web"),
        ("plain", {"TOKEN": CANARY}, {"TOKEN": MASK}),
        ("undecided", {"TOKEN": CANARY}, MASK),
        ("undecided", None, None),
        ("decided", ["web"], ["web"]),
        ("misspelt", CANARY, MASK),
    ],
)
def test_only_a_plain_option_is_shown_without_a_mask(name: str, value: Any, shown: Any) -> None:
    assert Shown({name: value}).of(name) == shown


CHECK = {"url": f"https://me:{CANARY}@h/", "status": [200], "headers": {"X-Key": CANARY}, "expekt": CANARY}


@pytest.mark.parametrize(
    ("mask", "value", "shown"),
    [
        (_masks.values, {"A": CANARY}, {"A": MASK}),
        (_masks.values, CANARY, MASK),
        (_masks.values, "", ""),
        (_masks.hidden, [], MASK),
        (_masks.each(_masks.values), CANARY, MASK),
        (_masks.keys("a"), [CANARY], MASK),
        (_masks.keys("a"), {"a": 1, "b": CANARY, "c": {"d": CANARY}}, {"a": 1, "b": MASK, "c": {"d": MASK}}),
        (_masks.secrets, ["npm", ["run", "--token", CANARY]], ["npm", ["run", "--token", MASK]]),
    ],
)
def test_a_mask_hides(mask: _masks.Mask, value: Any, shown: Any) -> None:
    assert mask(value) == shown


def test_the_mask_of_ready_shows_the_target_of_a_check_and_not_its_credentials() -> None:
    (check,) = READY_MASK({"timeout": 30, "http": [CHECK]})["http"]
    assert CANARY not in str(check)
    assert check["status"] == [200]
    assert check["headers"] == {"X-Key": MASK}


def _apps() -> List[Dict[str, Any]]:
    return [{"name": "web", "script": f"web.js {CANARY}", "env": {"A": CANARY}, "node_args": CANARY, "scirpt": CANARY}]


def test_the_mask_of_apps_shows_no_value_of_an_environment() -> None:
    (app,) = APPS(_apps())
    assert CANARY not in str(app)
    assert (app["name"], app["script"]) == ("web", f"web.js {MASK}")
