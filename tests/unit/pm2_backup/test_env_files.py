"""A file of the backup store is never one of those that are backed up, whatever path leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _env_files


@pytest.mark.parametrize("path", ["store", "store/key", "link", "link/key", "key"])
@pytest.mark.parametrize("dest", ["store", "link"])
def test_a_path_into_the_store_is_refused(tmp_path: Path, path: str, dest: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    (tmp_path / "key").symlink_to("store/key")
    with pytest.raises(NodeopsError, match="is in the backup store"):
        _env_files.check_paths([str(tmp_path / path)], str(tmp_path / dest))


def test_a_path_beside_the_store_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    _env_files.check_paths([str(tmp_path / "store.env"), str(tmp_path / ".env")], str(tmp_path / "store"))
