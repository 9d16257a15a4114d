"""Module calls that are killed (SIGKILL) at a named point, or a given time after their start.

`Runner` starts this file as a program, which forks once per call. So each call has its own process, without the quarter
of a second that Python needs to start and import. In that process `hook` is put at the points:

- those of `_points.reached`, by their name
- `before send <method>`, `after send <method>`: a request to the daemon
- `before rename <file>`, `after rename <file>`: a written file takes the place of the old one
- `before fsync <file>`: the new file is written beside the old one, and not yet durable
- `before unlink <file>`, `after unlink <file>`: a file is removed, such as the journal

A call may pass a point more than once: `candidate_sent 2` is the second time.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from types import TracebackType
from typing import IO, Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Type

from support import durability, modules, places, processes

UTILS = "ansible_collections.nodeops.pm2.plugins.module_utils"
MODULES = ("backup_job", "pg_backup", "pg_restore", "pm2_dump_backup", "pm2_process", "pm2_release", "pm2_save")


class Outcome(NamedTuple):
    """How a call ended: `result` as of `modules.call`, or None if it was killed; `seconds` is the time it took."""

    killed: bool
    result: Optional[Dict[str, Any]]
    seconds: float
    points: List[str]


def _order(module: str, params: Mapping[str, Any], check: bool) -> Dict[str, Any]:
    return {"module": module, "arguments": modules._arguments(params, check, False)}


def _outcome(answer: Dict[str, Any]) -> Outcome:
    result = None if answer["killed"] else modules._parse(answer["printed"], answer["errors"])
    return Outcome(answer["killed"], result, answer["seconds"], answer["points"].splitlines())


class Runner:
    """Calls modules, each in a process of its own."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(modules.TESTS), str(places.COLLECTIONS)])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "support.killer"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pids(self) -> List[int]:
        """The processes of the modules that run now."""
        return [pid for pid in processes.all_pids() if processes.parent(pid) == self._server.pid]

    def call(self, module: str, params: Mapping[str, Any], check: bool = False) -> Dict[str, Any]:
        """The result of a call that is not killed."""
        result = self.run(module, params, check).result
        assert result is not None
        return result

    def run(
        self,
        module: str,
        params: Mapping[str, Any],
        check: bool = False,
        at: Optional[str] = None,
        after: Optional[float] = None,
        file_limit: Optional[int] = None,
        shell: Optional[str] = None,
        constants: Optional[Mapping[str, Any]] = None,
    ) -> Outcome:
        """A call that is killed at the point `at`, or `after` seconds, unless it has ended by then.

        `file_limit`: the largest size in bytes of a file that it may write, for a full disk. `shell`: at the point the
        call runs this command line and goes on, instead of being killed. `constants`: other values for constants of the
        module utils, such as `{"postgres._server.PATIENCE": 3.0}`.
        """
        disturbances = {"at": at, "after": after, "file_limit": file_limit, "shell": shell, "constants": constants}
        return self._outcomes([{**_order(module, params, check), **disturbances}])[0]

    def together(self, calls: Iterable[Tuple[str, Mapping[str, Any]]]) -> List[Dict[str, Any]]:
        """The results, in order, of calls of (module, options) that all run at the same time. None is killed."""
        outcomes = self._outcomes([_order(module, params, False) for module, params in calls])
        assert all(outcome.result for outcome in outcomes)
        return [outcome.result or {} for outcome in outcomes]

    def _outcomes(self, orders: List[Dict[str, Any]]) -> List[Outcome]:
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(orders), file=self._server.stdin, flush=True)
        return [_outcome(answer) for answer in json.loads(self._server.stdout.readline())]

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(10)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


# -- the server ------------------------------------------------------------------------------------------------------


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Carry out one list of orders per line. All orders of a line run at the same time."""
    for name in MODULES:
        importlib.import_module(f"{modules.PACKAGE}.{name}")
    for line in orders:
        running = [_Call(order) for order in json.loads(line)]
        print(json.dumps([call.end() for call in running]), file=answers, flush=True)


class _Call:
    """A module that runs in a child of this process."""

    def __init__(self, order: Dict[str, Any]) -> None:
        self._after = order.get("after")
        self._streams = [tempfile.TemporaryFile("w+") for _stream in range(3)]
        self._start = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            _be_the_module(order, *self._streams)

    def end(self) -> Dict[str, Any]:
        """Wait for the child, or kill it at its time."""
        status = _wait(self._pid, self._start, self._after)
        seconds = time.monotonic() - self._start
        texts = []
        for stream in self._streams:
            with stream:
                stream.seek(0)
                texts.append(stream.read())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        printed, errors, points = texts
        return {"killed": killed, "printed": printed, "errors": errors, "points": points, "seconds": seconds}


def _wait(pid: int, start: float, after: Optional[float]) -> int:
    """The exit status of the child, which is killed after `after` seconds."""
    if after is None:
        return os.waitpid(pid, 0)[1]
    while time.monotonic() < start + after:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(min(0.001, max(0.0, start + after - time.monotonic())))
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _be_the_module(order: Dict[str, Any], printed: IO[str], errors: IO[str], points: IO[str]) -> None:
    """In the child: the call, then the end of the process."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(errors.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    try:
        _put_hooks(_killing(order.get("at"), points, order.get("shell")))
        for name, value in (order.get("constants") or {}).items():
            _set_constant(name, value)
        limit = order.get("file_limit")
        if limit is not None:
            _limit_files(limit)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            modules._main(order["module"], order["arguments"])
        if limit is not None:
            _limit_files(None)
        printed.write(output.getvalue())
        printed.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def _set_constant(name: str, value: Any) -> None:
    module, _dot, constant = f"{UTILS}.{name}".rpartition(".")
    found = importlib.import_module(module)
    assert hasattr(found, constant), name
    setattr(found, constant, value)


def _limit_files(size: Optional[int]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write(2) fails with EFBIG instead
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def _killing(at: Optional[str], points: IO[str], shell: Optional[str]) -> Callable[[str], None]:
    met: Counter[str] = Counter()

    def hook(point: str) -> None:
        met[point] += 1
        with contextlib.suppress(OSError):  # file_limit holds for this file too
            os.write(points.fileno(), f"{point}\n".encode())
        if at not in (f"{point} {met[point]}", point):
            return
        if shell is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif met[point] == 1:
            subprocess.run(shell, shell=True, check=True)

    return hook


def _put_hooks(hook: Callable[[str], None]) -> None:
    importlib.import_module(f"{UTILS}.host._points").reached = hook  # type: ignore[attr-defined]
    client: Any = importlib.import_module(f"{UTILS}.pm2._axon").Client
    send = client.send

    def hooked_send(self: Any, method: str, *args: Any) -> Any:
        hook(f"before send {method}")
        identifier = send(self, method, *args)
        hook(f"after send {method}")
        return identifier

    client.send = hooked_send
    _hook_function(hook, "rename", lambda _source, target: target)
    _hook_function(hook, "unlink", lambda path: path)
    _hook_function(hook, "fsync", lambda handle: os.readlink(f"/proc/self/fd/{handle}"))


def _hook_function(hook: Callable[[str], None], name: str, path_of: Callable[..., str]) -> None:
    """Put `hook` around `os.<name>`."""
    original = getattr(os, name)

    def hooked(*args: Any, **options: Any) -> None:
        path = os.path.basename(path_of(*args))
        hook(f"before {name} {path}")
        original(*args, **options)
        hook(f"after {name} {path}")

    setattr(os, name, hooked)


if __name__ == "__main__":
    durability.sync_nothing()
    serve(sys.stdin, sys.stdout)
