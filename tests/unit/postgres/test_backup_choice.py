"""Which backup is the latest: of this environment, of this namespace or of none, with all the databases."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _backup_choice
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import POSTGRESQL, Backup


def backup(name: str, namespace: Optional[str], environment: str = "production", *databases: str) -> Backup:
    content: Dict[str, Any] = {"databases": {each: {} for each in databases or ("shop",)}}
    manifest = {"kind": POSTGRESQL, "environment": environment, "namespace": namespace, "content": content}
    return Backup(name, f"/nowhere/{name}", manifest, {"problems": []})


BACKUPS = [
    backup("both", "shop", "production", "orders", "shop"),
    backup("own", "shop"),
    backup("of all", None),
    backup("other", "other"),
    backup("test", "test", "test"),
]


@pytest.mark.parametrize(
    ("namespace", "environment", "databases", "latest"),
    [
        ("shop", "production", ["shop"], "of all"),
        ("other", "production", ["shop"], "other"),
        (None, "production", ["shop"], "other"),
        ("shop", "production", ["shop", "orders"], "both"),
        ("test", "test", ["shop"], "test"),
    ],
)
def test_the_latest(namespace: Optional[str], environment: str, databases: List[str], latest: str) -> None:
    store = SimpleNamespace(backups=lambda kind: BACKUPS)
    params = {"namespace": namespace, "environment": environment}
    call: Any = SimpleNamespace(params=params, databases=databases, store=store)
    assert _backup_choice._latest(call) == latest
