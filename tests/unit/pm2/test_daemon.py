"""A daemon that another call has started meanwhile is used. None is started beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A PM2_HOME in which no daemon listens when it is first looked at, and none may be started."""
    monkeypatch.setattr(_daemon, "find", lambda home: None)
    monkeypatch.setattr(_daemon, "find_executable", lambda given: None)
    monkeypatch.setattr(_daemon, "_start", lambda home, executable: pytest.fail("a second daemon was started"))
    return os.path.join(tmp_path, "pm2")


def test_a_caller_that_waited_for_the_lock_looks_again(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon: Any = object()
    monkeypatch.setattr(_daemon, "find_listening", lambda home: daemon)
    assert _daemon.ensure(home, None) == (daemon, False)


def test_beside_a_daemon_that_does_not_listen_none_is_started(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_daemon, "SOCKET_GRACE", 0)
    monkeypatch.setattr(_daemon, "running_without_socket", lambda home: 4711)
    with pytest.raises(NodeopsError, match=r"runs \(pid 4711\), but nothing listens"):
        _daemon.ensure(home, None)
