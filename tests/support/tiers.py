"""Tiers of tests: `make test` runs `core`, and `full` is everything. CONTRIBUTING.md has the table.

A test is in core unless it is marked `full`. On a version of PM2 other than the newest it is in full by itself, unless
it is marked `every_version`. As a plugin of pytest (see conftest.py) this file also runs a piece of the tests:

- `--chosen-by TEXT`: the order of the tests depends on TEXT, such as a commit.
- `--begin-within SECONDS`: tests that have not begun by then are left out. A summary at the end says which.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import Any, Iterable, List, Optional, Sequence, TypeVar

import pytest

from support.pm2 import VERSIONS

T = TypeVar("T")


def sample(core: Any, full: Any) -> List[Any]:
    """For parametrize: a sample of a long list for the core tier, the whole list for full."""
    return [
        pytest.param(core, id="some", marks=pytest.mark.sample),
        pytest.param(full, id="all", marks=pytest.mark.full),
    ]


def full_but(core: Sequence[T], values: Iterable[T], ids: Optional[Any] = None) -> List[Any]:
    """`values` for parametrize: those in `core` for the core tier, the others for full. `core` must be among them."""
    values = list(values)
    missing = [value for value in core if value not in values]
    assert not missing, f"not among the values: {missing}"
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=() if value in core else pytest.mark.full,
            **({"id": ids(value)} if ids else {}),
        )
        for value in values
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers")
    group.addoption("--chosen-by", help="run the tests in an order that depends on this text")
    group.addoption("--begin-within", type=float, help="seconds after which no test begins any more")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: not in the core tier")
    config.addinivalue_line("markers", "every_version: in the core tier on each version of PM2")
    config.addinivalue_line("markers", "sample: a part of what a test of the full tier does; not on older versions")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Summary(config), "tiers-told")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    older = [item for item in items if _is_on_older_version(item) and not item.get_closest_marker("every_version")]
    for item in older:
        item.add_marker(pytest.mark.full)
    superfluous = {item.nodeid: item for item in older if item.get_closest_marker("sample")}
    items[:] = [item for item in items if item.nodeid not in superfluous]
    config.hook.pytest_deselected(items=list(superfluous.values()))
    text = config.getoption("--chosen-by")
    if text:
        items.sort(key=lambda item: (_rank(text, item), item.nodeid))


def _is_on_older_version(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    flat = [each for value in parameters.values() for each in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(value, str) and value in VERSIONS[:-1] for value in flat)


def _rank(text: str, item: pytest.Item) -> str:
    """The rank of a test. Tests of one function on one version have the same, because they share what is expensive."""
    version = next((name for name in VERSIONS if name in item.name), "")
    function = item.nodeid.partition("[")[0]
    return hashlib.sha256(f"{text} {function} {version}".encode()).hexdigest()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Optional[bool]:
    """Leave out the test if it is too late to begin it."""
    within = item.config.getoption("--begin-within")
    if within is not None and time.time() - _start_of(item.config) > within:
        return True  # pytest takes the test as done, and has no report of it
    return None


def _start_of(config: pytest.Config) -> float:
    """When the run began, also in a worker of xdist."""
    worker = getattr(config, "workerinput", None)
    return float(worker["start"]) if worker else _STARTED


_STARTED = time.time()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist when the run began."""
    node.workerinput["start"] = _STARTED


class _Summary:
    """Counts the tests that were run, and says at the end how many were not."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._collected: List[str] = []
        self._run: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = self._collected or [item.nodeid for item in session.items]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: List[str]) -> None:
        self._collected = list(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "setup":
            self._run[report.nodeid] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._config.getoption("--begin-within") is None:
            return
        every = Counter(name.partition("::")[0] for name in self._collected)
        run = Counter(name.partition("::")[0] for name in self._run)
        chosen_by = self._config.getoption("--chosen-by") or "their order"
        terminalreporter.section(f"chosen by {chosen_by}: {run.total()} of {every.total()} tests were run")
        for name in sorted(every):
            terminalreporter.write_line(f"{run[name]:5d} of {every[name]:5d}  {name}")
