# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A job on the host: its configuration, log, metrics and ping."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _config, _kinds, _log, _metrics, _ping, _run
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._config import Config, Job, JobStep
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._metrics import Backup, Numbers
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._record import Record
from support.apps import free_port
from support.monitor import Monitor


def document(**changes: Any) -> Dict[str, Any]:
    """A configuration with `changes`."""
    job = {"name": "backup", "ping_url": None, "steps": [{"module": "pg_backup", "params": {"dest": "/srv/b"}}]}
    return {"format": 1, "path": "/srv/b.job", "name": "shop", "jobs": [job], **changes}


def job(**changes: Any) -> List[Dict[str, Any]]:
    """`jobs` with one job that has `changes`."""
    return [{**document()["jobs"][0], **changes}]


# --- configuration ----------------------------------------------------------------------------------------------------


def test_a_configuration_has_defaults() -> None:
    config = _config.parse(document())
    assert (config.log, config.environment, config.metrics_dir) == ("/srv/b.job/log", "shop", None)
    assert config.job("backup").steps[0].params == {"dest": "/srv/b"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "shop production"}, "name must be"),
        ({"name": "../shop"}, "name must be"),
        ({"name": ""}, "name must be"),
        ({"name": "x" * 65}, "name must be"),
        ({"path": "b.job"}, "path must be an absolute path"),
        ({"path": "/srv/../b.job"}, "path must be an absolute path"),
        ({"log": "log"}, "log must be an absolute path"),
        ({"metrics_dir": "metrics"}, "metrics_dir must be an absolute path"),
        ({"jobs": job(name="restore")}, "jobs.name must be one of"),
        ({"jobs": job() + job()}, "each once"),
        ({"jobs": job(steps=[])}, "at least one step"),
        ({"jobs": job(steps=[{"module": "shell", "params": {}}])}, "jobs.steps.module must be one of"),
        ({"jobs": job(ping_url="ftp://example.org/x")}, "ping_url of the job backup"),
        ({"jobs": job(ping_url="http://")}, "ping_url of the job backup"),
        ({"jobs": job(ping_url="http://example.org:99999/x")}, "ping_url of the job backup"),
        ({"jobs": job(ping_url="https://example.org/a b")}, "ping_url of the job backup"),
        ({"jobs": job(ping_url="http://[broken")}, "ping_url of the job backup"),
    ],
)
def test_a_bad_configuration_is_refused(changes: Dict[str, Any], says: str) -> None:
    with pytest.raises(NodeopsError, match=re.escape(says)) as refused:
        _config.parse(document(**changes))
    assert "Nothing was changed." in str(refused.value)


def test_the_ping_url_is_never_shown() -> None:
    with pytest.raises(NodeopsError) as refused:
        _config.parse(document(jobs=job(ping_url="ftp://example.org/canary-1234")))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', "\x00"])
def test_an_unreadable_configuration_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(NodeopsError, match=r"nodeops\.pm2\.backup"):
        _config.read(str(path))
    with pytest.raises(NodeopsError, match="No such file"):
        _config.read(str(tmp_path / "missing.json"))


def test_a_job_that_is_not_configured_is_refused() -> None:
    with pytest.raises(NodeopsError, match=r"no job 'drill' of shop\. There are: backup"):
        _config.parse(document()).job("drill")


# --- log --------------------------------------------------------------------------------------------------------------


def test_the_log_has_one_line_for_each_text(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _log.write(str(path), "first\nstill first")
    _log.write(str(path), "second \udcff")
    lines = path.read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in lines] == [
        "first still first",
        "second ?",
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_large_log_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * (_log.LARGEST + 1))
    _log.write(str(path), "new")
    assert path.read_text().endswith(" new\n")
    assert len(path.read_text()) < 100
    assert (tmp_path / "log.1").stat().st_size == _log.LARGEST + 1


def test_no_line_is_lost_when_several_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log, "LARGEST", 6000)  # moved aside once, in the middle
    path = tmp_path / "log"

    def write(me: str) -> None:
        for number in range(100):
            _log.write(str(path), f"{me} {number}")

    writers = [threading.Thread(target=write, args=(me,)) for me in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (tmp_path / "log.1").read_text().splitlines() + path.read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == sorted(f"{me} {n}" for me in "abcd" for n in range(100))


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        _log.write(str(tmp_path / "log"), "text")
    assert not target.exists()


# --- metrics ----------------------------------------------------------------------------------------------------------

NUMBERS = Numbers(1790000000.5, 1790000000.5, 0, 12.25, {"pg_backup": Backup(4096, 1789999999)})


def test_the_metrics_are_what_prometheus_reads() -> None:
    text = _metrics.render("shop", 'a "quoted" \\ one', "backup", NUMBERS)
    sample = re.compile(r'nodeops_pm2_\w+\{(\w+="([^"\\]|\\.)*",?)+\} [0-9.]+')
    names = []
    for line in text.splitlines():
        if not line.startswith("# "):
            assert sample.fullmatch(line), line
            names.append(line.partition("{")[0])
    assert len(names) == len(set(names)) == 6
    for name in names:
        assert f"# TYPE {name} gauge\n" in text
    assert 'environment="a \\"quoted\\" \\\\ one"' in text
    assert (
        'nodeops_pm2_backup_size_bytes{name="shop",environment="a \\"quoted\\" \\\\ one",module="pg_backup"} 4096'
        in text
    )


def test_an_unknown_value_has_no_metric() -> None:
    text = _metrics.render("shop", "shop", "drill", Numbers(1.0, None, 1, 0.5, {}))
    assert "last_success" not in text
    assert "backup_size" not in text
    assert 'nodeops_pm2_job_last_exit_code{name="shop",environment="shop",action="drill"} 1\n' in text


def test_every_user_can_read_the_metrics_and_the_file_is_replaced_whole(tmp_path: Path) -> None:
    _metrics.write(str(tmp_path), "shop", "shop", "backup", NUMBERS)
    path = tmp_path / "nodeops_pm2_shop_backup.prom"
    first = path.stat()
    assert first.st_mode & 0o777 == 0o644
    _metrics.write(str(tmp_path), "shop", "shop", "backup", NUMBERS._replace(exit_code=1))
    assert path.stat().st_ino != first.st_ino
    assert list(tmp_path.iterdir()) == [path]
    _metrics.remove(str(tmp_path), "shop", "backup")
    _metrics.remove(str(tmp_path), "shop", "backup")
    assert not list(tmp_path.iterdir())


# --- the record of a run ----------------------------------------------------------------------------------------------


def record(directory: Path, code: int, warnings: List[str], **changes: Any) -> Dict[str, Any]:
    """The state after a run with this exit code."""
    values: Dict[str, Any] = {"log": str(directory / "log"), "metrics_dir": str(directory), "ping_url": None, **changes}
    this = Job("backup", [], values["ping_url"], 0.0)
    config = Config("shop", "shop", str(directory), values["log"], values["metrics_dir"], "/bin", {"backup": this})
    run = Record(config, this, warnings.append)
    run.begin()
    run.backup("pg_backup", {"backup": {"id": "a", "size": 10, "created": "2026-11-24T10:54:00Z"}} if code == 0 else {})
    run.end(code)
    return dict(json.loads((directory / "last-backup.json").read_text()))


def test_a_failed_run_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    warnings: List[str] = []
    first = record(tmp_path, 1, warnings)
    assert (first["success"], first["backups"]) == (None, {})
    good = record(tmp_path, 0, warnings)
    assert good["success"] == good["run"] > first["run"]
    assert good["backups"] == {"pg_backup": [10, 1795517640.0]}
    bad = record(tmp_path, 1, warnings)
    assert (bad["success"], bad["exit_code"], bad["backups"]) == (good["success"], 1, good["backups"])
    metrics = (tmp_path / "nodeops_pm2_shop_backup.prom").read_text()
    assert "last_exit_code" in metrics
    assert '"} 1795517640\n' in metrics
    assert warnings == []
    log = (tmp_path / "log").read_text()
    assert len(re.findall("FAILED with exit code 1", log)) == 2


def test_only_the_job_that_makes_backups_has_their_numbers(tmp_path: Path) -> None:
    """A series in two files is an error for the collector, and a drill may look at an old backup."""
    for name in _config.JOBS:
        this = Job(name, [], None, 0.0)
        config = Config("shop", "shop", str(tmp_path), str(tmp_path / "log"), str(tmp_path), "/bin", {})
        run = Record(config, this, print)
        run.backup("pm2_dump_backup", {"backup": {"size": 10, "created": "2026-11-24T10:54:00Z"}})
        run.end(0)
    lines = "".join(path.read_text() for path in tmp_path.glob("*.prom")).splitlines()
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series)) == 3 * 4 + 2


def test_a_failure_of_log_metrics_or_ping_does_not_end_a_job(tmp_path: Path) -> None:
    warnings: List[str] = []
    record(
        tmp_path,
        0,
        warnings,
        log=str(tmp_path / "missing" / "log"),
        metrics_dir=str(tmp_path / "missing"),
        ping_url=f"http://127.0.0.1:{free_port()}/canary",
    )
    assert [warning.split(" ")[1] for warning in warnings] == ["log", "ping", "log", "metrics", "ping"]
    assert "canary" not in str(warnings)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_past_its_commit", [False, True])
def test_a_job_that_a_signal_ends_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_past_its_commit: bool
) -> None:
    """Also if the step that ran was finished because it could not be undone: those after it did not run."""
    ran: List[Dict[str, Any]] = []

    def step(params: Dict[str, Any], *_more: Any) -> Dict[str, Any]:
        ran.append(params)
        if is_past_its_commit:
            _signals.hold()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return {"changed": True}

    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(_kinds, "library", lambda _kind: SimpleNamespace(run=step))
    steps = [JobStep("pg_backup", {"number": number}) for number in (1, 2)]
    this = Job("backup", steps, None, 0.0)
    config = Config("shop", "shop", str(tmp_path), str(tmp_path / "log"), None, "/usr/bin:/bin", {"backup": this})
    outcomes = _run.perform(config, this, False, pytest.fail)
    assert ran == [{"number": 1}]
    assert [outcome.failed for outcome in outcomes] == [not is_past_its_commit]
    assert _run.code_of(this, outcomes) == _run.FAILED
    state = json.loads((tmp_path / "last-backup.json").read_text())
    assert (state["success"], state["exit_code"]) == (None, _run.FAILED)


# --- ping -------------------------------------------------------------------------------------------------------------


def test_a_ping_reports_start_and_exit_code(tmp_path: Path) -> None:
    with Monitor() as monitor:
        record(tmp_path, 0, [], ping_url=monitor.url("/ping/uuid/"))
        record(tmp_path, 1, [], ping_url=monitor.url("/ping/uuid?x=1"))
    assert [path for path, _body in monitor.seen] == [
        "/ping/uuid/start",
        "/ping/uuid/0",
        "/ping/uuid/start?x=1",
        "/ping/uuid/1?x=1",
    ]
    assert "FAILED with exit code 1" in monitor.seen[-1][1]


def test_a_ping_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ping, "_PAUSE", 0.01)
    with Monitor(answers=[503, 503]) as monitor:
        assert _ping.ping(monitor.url("/a"), "0", "text") is None
    assert len(monitor.seen) == 3
    with Monitor(answers=[404] * 9) as monitor:
        assert _ping.ping(monitor.url("/canary"), "0", "text") == "the ping of 127.0.0.1 failed: it answered 404"
    assert len(monitor.seen) == _ping.ATTEMPTS
