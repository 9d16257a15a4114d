"""Calls of the collection's modules: in this process (quick), or in their own (to kill one, or to run several at once).

`python -m support.modules <module>` is such a process. It reads the arguments from standard input.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import Any, Dict, Iterator, Mapping, Optional
from unittest import mock

from support import places

PACKAGE = "ansible_collections.nodeops.pm2.plugins.modules"
TESTS = places.ROOT / "tests"

_one_at_a_time = threading.Lock()


def call(module: str, params: Mapping[str, Any], check: bool = False, diff: bool = False) -> Dict[str, Any]:
    """Run `module` in this process. Returns what it printed; `failed` and `changed` are false if it does not give them.

    An exception of the module is raised here. The arguments and standard output belong to the whole process, so a call
    of another thread at the same time is refused; use `spawn` for that.
    """
    if not _one_at_a_time.acquire(blocking=False):
        raise RuntimeError("modules.call() runs already in another thread: use call_process()")
    try:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            _main(module, _arguments(params, check, diff))
        return _parse(printed.getvalue())
    finally:
        _one_at_a_time.release()


def spawn(
    module: str,
    params: Mapping[str, Any],
    env: Optional[Mapping[str, str]] = None,
    check: bool = False,
    diff: bool = False,
) -> subprocess.Popen[str]:
    """Start `module` as its own process. `env` is added to this process's environment. See `finish`."""
    path = os.pathsep.join([str(TESTS), str(places.COLLECTIONS)])
    with tempfile.TemporaryFile("w+") as stdin:
        json.dump(_arguments(params, check, diff), stdin)
        stdin.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "support.modules", module],
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finish(process: subprocess.Popen[str], timeout: float = 120.0) -> Dict[str, Any]:
    """The result of a spawned module, as `call` returns it. Kills the module and raises after `timeout` seconds."""
    try:
        printed, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return _parse(printed, errors)


def call_process(
    module: str,
    params: Mapping[str, Any],
    env: Optional[Mapping[str, str]] = None,
    check: bool = False,
    diff: bool = False,
    timeout: float = 120.0,
) -> Dict[str, Any]:
    """`spawn`, then `finish`."""
    return finish(spawn(module, params, env, check, diff), timeout)


def _arguments(params: Mapping[str, Any], check: bool, diff: bool) -> Dict[str, Any]:
    return {**params, "_ansible_check_mode": check, "_ansible_diff": diff}


def _parse(printed: str, errors: str = "") -> Dict[str, Any]:
    try:
        result = json.loads(printed)
    except ValueError as error:
        raise AssertionError(f"not one JSON document: {printed!r}\n{errors}") from error
    if "warnings" in result:  # since ansible-core 2.19 objects, which the controller turns into text
        texts = [item if isinstance(item, str) else item["event"]["msg"] for item in result["warnings"]]
        result["warnings"] = texts
    return {"failed": False, "changed": False, **result}


def _main(module: str, arguments: Dict[str, Any]) -> None:
    from ansible import module_utils
    from ansible.module_utils.common import warnings

    internal = getattr(module_utils, "_internal", None)  # since ansible-core 2.19
    assert not getattr(internal, "is_controller", False), (
        "a test in this process has imported Ansible's controller, so that a module takes itself for a part of it: "
        "move that test to tests/unit/controller"
    )
    warnings._global_warnings.clear()  # kept per process, and a module expects a process of its own
    warnings._global_deprecations.clear()
    with _module_arguments(arguments), contextlib.suppress(SystemExit):
        importlib.import_module(f"{PACKAGE}.{module}").main()


@contextlib.contextmanager
def _module_arguments(arguments: Dict[str, Any]) -> Iterator[None]:
    """Make AnsibleModule find `arguments`."""
    try:
        from ansible.module_utils.testing import patch_module_args  # since ansible-core 2.19
    except ImportError:
        from ansible.module_utils import basic

        with mock.patch.object(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()):
            yield
    else:
        with patch_module_args(arguments):
            yield


if __name__ == "__main__":
    _main(sys.argv[1], json.load(sys.stdin))
