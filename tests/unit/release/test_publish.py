# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status of a release after each outcome of the change that was to make it live."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Iterator, Optional
from unittest import mock

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _errors
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._failure import ChangeFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._gate import GateFailure
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _activation, _dispatch, _manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall
from ansible_collections.nodeops.pm2.plugins.module_utils.release._options import ReleaseOptions
from unit.release.test_releases import manifest

NONE = dict.fromkeys(ReleaseOptions._fields)
GIVEN = {
    "state": "published",
    "app": "shop",
    "namespace": "prod",
    "run": "run",
    "owner": {},
    "release": "r1",
    "lock_timeout": 0.0,
    "environment": {},
    "build_environment": {},
    "apps": [{"name": "api", "script": "api.js"}],
    "ready": {},
    "keep": 5,
}


@pytest.fixture
def call(tmp_path: Path) -> Iterator[ModuleCall]:
    """A call that publishes r1, which is prepared. Nothing is live, and no process holds the lock."""
    options: Any = {**NONE, **GIVEN, "root": str(tmp_path / "shop"), "pm2_home": str(tmp_path / "pm2")}
    found = ModuleCall(ReleaseOptions(**options), check_mode=False)
    found.layout.make()
    (tmp_path / "shop/releases/r1").mkdir()
    _manifest.write(found.layout.release("r1"), manifest("r1", _manifest.PREPARED, published=False))
    with mock.patch.object(found, "locked", return_value=contextlib.nullcontext()):
        yield found


def failure(cause: NodeopsError, kind: str) -> ChangeFailed:
    """The error of a failed change of a namespace."""
    cause.settle(kind)
    return ChangeFailed(cause, f"{cause}.", cause.details)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (failure(GateFailure("api answered 500"), _errors.UNDONE), _manifest.BAD),
        (failure(GateFailure("api answered 500"), _errors.UNDO_FAILED), _manifest.BAD),
        (GateFailure("The site answered 500"), _manifest.BAD),
        (failure(NodeopsError("max_affected is 2"), _errors.UNCHANGED), None),
        (failure(NodeopsError("The disk is full"), _errors.UNDONE), None),
        (NodeopsError("The app is not in the release"), None),
        (failure(NodeopsError("The daemon said no"), _errors.COMMITTED), _manifest.GOOD),
    ],
    ids=str,
)
def test_a_release_is_bad_good_or_gone(call: ModuleCall, error: NodeopsError, status: Optional[str]) -> None:
    """None: it was not tried. So it is removed, and the next run makes it anew."""
    with mock.patch.object(_activation, "activate", side_effect=error):
        with pytest.raises(NodeopsError) as raised:
            _dispatch.run(call)
    left = _manifest.read(call.layout.release("r1"))
    assert (left and left.status) == status
    assert raised.value.outcome == error.outcome
    assert {**raised.value.details, **error.details} == raised.value.details
    assert call.warnings == []
