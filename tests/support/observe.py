"""All that can be seen of a process and of the dump. It must not change when another namespace is changed."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from support import processes

Item = Mapping[str, Any]

# PM2 writes metrics of a running process there at any time.
_METRICS = frozenset(("axm_actions", "axm_dynamic", "axm_monitor", "axm_options"))
_LOG_PATHS = ("pm_out_log_path", "pm_err_log_path", "pm_log_path")


class Seen(NamedTuple):
    """One process: what PM2 says of it, and what the kernel says."""

    label: str
    unique_id: str
    pid: int
    started: str
    status: str
    restarts: int
    pm2_env: Dict[str, Any]
    environ: Dict[str, str]
    pid_file: Optional[str]
    log_inodes: Dict[str, Optional[Tuple[int, int]]]


def look(items: Iterable[Item]) -> List[Seen]:
    """All processes of an answer of getMonitorData, by pm_id."""
    return [_look(item) for item in sorted(items, key=lambda item: int(item["pm_id"]))]


def _look(item: Item) -> Seen:
    env = item["pm2_env"]
    pid = int(item.get("pid") or 0)
    paths = sorted({env[key] for key in _LOG_PATHS if env.get(key)})
    return Seen(
        label=f"{env.get('namespace', 'default')}/{item['name']} (pm_id {item['pm_id']})",
        unique_id=env["unique_id"],
        pid=pid,
        started=start_time(pid),
        status=env["status"],
        restarts=env["restart_time"],
        pm2_env={key: value for key, value in env.items() if key not in _METRICS},
        environ=processes.environ(pid),
        pid_file=_text(env["pm_pid_path"]),
        log_inodes={path: _inode(path) for path in paths},
    )


def start_time(pid: int) -> str:
    """When the process started, in ticks since boot, which tells a reused pid. Empty if the process is gone."""
    fields = processes.read(pid, "stat").rpartition(b")")[2].split() if pid else []
    return fields[19].decode() if fields else ""


def _text(path: str) -> Optional[str]:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _inode(path: str) -> Optional[Tuple[int, int]]:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def changes(before: List[Seen], after: List[Seen]) -> Iterator[str]:
    """What changed between two looks, as sentences; empty if nothing did."""
    now = {seen.unique_id: seen for seen in after}
    known = {seen.unique_id for seen in before}
    for seen in before:
        if seen.unique_id in now:
            yield from _moved(seen, now[seen.unique_id])
        else:
            yield f"{seen.label} is gone"
    for seen in after:
        if seen.unique_id not in known:
            yield f"{seen.label} is new"


def _moved(before: Seen, after: Seen) -> Iterator[str]:
    for field, was, now in zip(Seen._fields, before, after, strict=True):
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            for key in sorted(was.keys() | now.keys()):
                if was.get(key) != now.get(key):
                    yield f"{before.label}: {field}[{key}] was {was.get(key)!r}, is {now.get(key)!r}"
        else:
            yield f"{before.label}: {field} was {was!r}, is {now!r}"


def dump_entries(path: Path) -> List[Dict[str, Any]]:
    """The entries of a dump; [] if there is no dump. Raises ValueError if it is not a list of processes."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    entries = json.loads(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not a list of processes: {text[:200]!r}")
    return entries


def peer(path: str) -> int:
    """The pid of the process that listens on a Unix socket, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
