# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which release a rollback goes to, which releases may be removed, and the link to the live one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.release import _history, _manifest, _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.release._layout import Layout, check_id
from ansible_collections.nodeops.pm2.plugins.module_utils.release._manifest import Manifest
from ansible_collections.nodeops.pm2.plugins.module_utils.release._rollback import choose

GOOD, BAD, BACK, BUILT = _manifest.GOOD, _manifest.BAD, _manifest.ROLLED_BACK, _manifest.BUILT


def manifest(
    release: str,
    status: str = GOOD,
    published: bool = True,
    run: str = "run",
    version: str = "",
    former: Optional[str] = None,
) -> Manifest:
    """A manifest with times that follow from its id."""
    return Manifest(
        release=release,
        app="shop",
        namespace="prod",
        version=version or release,
        revision="0",
        fingerprint="0",
        run=run,
        status=status,
        created=release,
        created_by="joe@desk",
        source={},
        dependencies=[],
        former=former,
        published=release if published else None,
    )


def one_after_the_other(statuses: dict[str, str]) -> List[Manifest]:
    """Manifests of releases deployed one after the other. Failed ones were never live."""
    made, live = [], None
    for release, status in statuses.items():
        made.append(manifest(release, status, published=status != BAD, former=live))
        live = live if status == BAD else release
    return newest_first(*made)


def newest_first(*manifests: Manifest) -> List[Manifest]:
    return sorted(manifests, key=lambda item: (item.published or "", item.created), reverse=True)


@pytest.mark.parametrize(
    ("statuses", "live", "chosen"),
    [
        ({"r1": GOOD, "r2": GOOD, "r3": GOOD}, "r3", "r2"),
        ({"r1": GOOD, "r2": GOOD, "r3": BACK}, "r2", "r1"),  # the second rollback goes further back
        ({"r1": GOOD, "r2": BAD, "r3": GOOD}, "r3", "r1"),
        ({"r1": BACK, "r2": GOOD, "r3": GOOD}, "r3", "r2"),
        ({"r1": GOOD, "r2": GOOD}, "gone", "r2"),  # current names a release that is gone
    ],
)
def test_the_default_is_the_last_good_release_before_the_live_one(
    statuses: dict[str, str], live: str, chosen: str
) -> None:
    manifests = one_after_the_other(statuses)
    alive = next((item for item in manifests if item.release == live), None)
    assert choose(manifests, alive, live, None).release == chosen


def test_a_release_that_a_rollback_skipped_is_not_chosen() -> None:
    """A requested rollback went from r3 to r1, then r4 was deployed."""
    skipped = [manifest("r1"), manifest("r2", former="r1"), manifest("r3", BACK, former="r2")]
    manifests = newest_first(*skipped, manifest("r4", former="r1"))
    assert choose(manifests, manifests[0], "r4", None).release == "r1"
    with pytest.raises(NodeopsError, match="no earlier good release"):
        choose(manifests, manifests[-1], "r1", None)


def test_a_clock_that_was_set_back_does_not_matter() -> None:
    manifests = newest_first(manifest("r9"), manifest("r1", former="r9"), manifest("r2", former="r1"))
    live = next(item for item in manifests if item.release == "r2")
    assert choose(manifests, live, "r2", None).release == "r1"
    assert choose(manifests, manifests[-1], "r1", None).release == "r9"
    with pytest.raises(NodeopsError, match="no earlier good release"):
        choose(manifests, manifests[0], "r9", None)


def test_before_a_removed_release_it_is_the_last_one_published_earlier() -> None:
    manifests = newest_first(manifest("r1"), manifest("r2", former="r1"), manifest("r4", former="r3"))
    assert [item.release for item in _manifest.predecessors(manifests, "r4")] == ["r2", "r1"]
    circle = newest_first(manifest("r1", former="r2"), manifest("r2", former="r1"))
    assert [item.release for item in _manifest.predecessors(circle, "r2")] == ["r1"]  # edited by hand


@pytest.mark.parametrize(
    ("statuses", "live"),
    [
        ({"r1": GOOD}, "r1"),
        ({"r1": GOOD, "r2": GOOD}, "r1"),  # never forward
        ({"r1": BAD, "r2": GOOD}, "r2"),
        ({}, ""),
    ],
)
def test_if_there_is_none_the_error_lists_the_releases(statuses: dict[str, str], live: str) -> None:
    manifests = one_after_the_other(statuses)
    alive = next((item for item in manifests if item.release == live), None)
    with pytest.raises(NodeopsError, match="no earlier good release") as refusal:
        choose(manifests, alive, live, None)
    for release in statuses:
        assert release in str(refusal.value)


def test_a_request_is_an_id_of_any_status_or_the_version_of_a_good_release() -> None:
    manifests = newest_first(
        manifest("r1", version="1.0"), manifest("r2", BAD, version="1.1"), manifest("r3", BACK, version="1.0")
    )
    assert choose(manifests, None, "", "r2").release == "r2"
    assert choose(manifests, None, "", "1.0").release == "r1"  # the good release of two
    same = newest_first(manifest("r1", version="1.0"), manifest("r2", version="1.0"))
    assert choose(same, same[0], "r2", "1.0").release == "r1"  # not the live release
    assert choose(same[:1], same[0], "r2", "1.0").release == "r2"
    for wanted in ("1.1", "r9"):
        with pytest.raises(NodeopsError, match=f"no release '{wanted}' to go back to"):
            choose(manifests, None, "", wanted)


def removable(manifests: List[Manifest], live: str, keep: int, *referenced: str) -> List[str]:
    return sorted(_retention.removable(manifests, live, set(referenced), keep, "mine"))


def test_releases_that_may_be_removed() -> None:
    good = one_after_the_other({f"r{number}": GOOD for number in range(1, 7)})
    assert removable(good, "r6", 3) == ["r1", "r2", "r3"]
    assert removable(good, "r6", 3, "r1", "r2") == ["r3"]
    assert removable(good, "r6", 1) == ["r1", "r2", "r3", "r4"]  # the last good release before the live one stays
    assert removable(good, "r2", 2) == ["r3", "r4", "r5", "r6"]
    assert removable(good, "r6", 100) == []


def test_failed_and_unfinished_releases_may_be_removed() -> None:
    manifests = newest_first(
        manifest("r1"),
        manifest("r2", BAD, published=False),
        manifest("r3", BACK),
        manifest("r4", BUILT, published=False),
        manifest("r5", BUILT, published=False, run="mine"),
        manifest("r6"),
    )
    assert removable(manifests, "r6", 5) == ["r2", "r4"]  # the last failed release is kept for inspection


def test_formerly_live_releases_are_kept_first_and_the_last_failed_by_its_creation() -> None:
    manifests = newest_first(
        manifest("r1"),
        manifest("r2", former="r1"),
        manifest("r3", BACK, former="r2"),
        manifest("r4", former="r1"),
        manifest("r5", BAD, published=False, former="r4"),
        manifest("r6", former="r4"),
    )
    assert removable(manifests, "r6", 3) == ["r2", "r3"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".hidden", "-x", "a b", "x" * 121, "ä", "a\n"])
def test_invalid_ids(name: str) -> None:
    with pytest.raises(NodeopsError):
        check_id(name)


def test_the_link_is_switched_and_switched_back(tmp_path: Path) -> None:
    path = str(tmp_path / "current")
    for before in (None, "releases/r1"):
        switch = _symlink.Switch(path, before, "releases/r2")
        assert _symlink.target(path) == before
        _symlink.apply(switch)
        assert os.readlink(path) == "releases/r2"
        _symlink.revert(switch)
        assert _symlink.target(path) == before
        _symlink.apply(_symlink.Switch(path, before, "releases/r1"))
    assert os.listdir(tmp_path) == ["current"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_current_that_is_not_a_link_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "current"
    path.mkdir() if kind == "directory" else path.write_text("")
    for touch in (
        lambda: _symlink.target(str(path)),
        lambda: _symlink.apply(_symlink.Switch(str(path), None, "releases/r1")),
    ):
        with pytest.raises(NodeopsError, match="not a symbolic link"):
            touch()
    assert not path.is_symlink()


@pytest.mark.parametrize(
    ("text", "release"),
    [("releases/r1", "r1"), ("./releases/r1/", "r1"), ("releases", ""), ("../other/releases/r1", ""), ("/etc", "")],
)
def test_the_release_that_a_link_names(text: str, release: str) -> None:
    assert Layout("/srv/shop").release_named_by(text) == release
    assert Layout("/srv/shop").release_named_by("/srv/shop/releases/r7") == "r7"


def test_a_path_refers_to_its_release_whatever_follows_the_name() -> None:
    texts = ["cd '/srv/a/releases/r1' && x", "--root=/srv/releases/r2)", "/srv/releases/r3?x", "see /srv/releases/r4."]
    assert _retention._mentioned(texts) >= {"r1", "r2", "r3", "r4"}


def test_manifests_are_in_the_order_of_publication(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    for release, published in (("r1", True), ("r3", True), ("r2", False)):
        os.makedirs(layout.release(release))
        _manifest.write(layout.release(release), manifest(release, published=published))
    os.makedirs(layout.release("no-manifest"))
    os.makedirs(layout.release("copied-by-hand"))
    _manifest.write(layout.release("copied-by-hand"), manifest("r1"))
    assert [item.release for item in _manifest.read_all(layout)] == ["r3", "r1", "r2"]
    assert oct(os.stat(os.path.join(layout.release("r1"), ".nodeops-release.json")).st_mode & 0o777) == "0o644"


def test_a_line_of_history_is_written_after_a_cut_one(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    _history.append(layout, {"result": "deployed", "text": "ä\nb"})
    with open(layout.history, "a", encoding="utf-8") as stream:
        stream.write('{"result": "depl')
    _history.append(layout, {"result": "failed"})
    lines = Path(layout.history).read_text(encoding="utf-8").splitlines()
    read: List[Optional[str]] = []
    for line in lines:
        try:
            read.append(json.loads(line)["result"])
        except ValueError:
            read.append(None)
    assert read == ["deployed", None, "failed"]
