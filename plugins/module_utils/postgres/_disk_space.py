# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Disk space for a second copy beside the live database, and for the WAL of loading it.

A full pg_wal ends the whole server. It can be measured if the server is on this host and tells where its files are.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import literal
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._server import Server

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_RESERVE = 16 << 20
"""Bytes that stay free in addition."""
_SLACK = 1.1
"""A copy may be larger than what was measured."""
_DATA, _WAL = "its data", "its WAL"

Free = Callable[[str], int]


class Disk(NamedTuple):
    """The place of data or of WAL. ``segment`` is the size of a WAL file in bytes, 0 for data."""

    use: str
    path: str
    device: int
    segment: int


class DiskSpace(NamedTuple):
    """The disks of the server, and how much WAL a load may leave before a checkpoint."""

    disks: List[Disk]
    segment: int
    most_wal: Optional[int]
    """Bytes. None: all of it may have to stay (archiving, replication slots)."""

    def wal(self, data: int) -> int:
        """Bytes of WAL for a load of ``data`` bytes."""
        kept = data if self.most_wal is None else min(data, self.most_wal)
        return kept + 2 * self.segment


def find(server: Server, tablespace: str) -> Optional[DiskSpace]:
    """None if the server is on another host, or if the login may not know where its files are."""
    if not (server.connection.is_local or server.connection.settings.get("host") in _LOOPBACK):
        return None
    try:
        data = server.value("SELECT current_setting('data_directory')") or ""
        place = server.value(
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = %s" % literal(tablespace)
        )
    except PgError as error:
        if error.sqlstate != "42501":  # insufficient_privilege
            raise
        return None
    wal = os.path.realpath(os.path.join(data, "pg_wal"))
    segment = int(server.value("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'") or 0)
    disks = [_disk(_DATA, place or data, 0), _disk(_WAL, wal, segment) or _disk(_WAL, data, segment)]
    found = [disk for disk in disks if disk]
    if len(found) < len(disks):
        return None
    return DiskSpace(found, segment, _most_wal(server))


def _disk(use: str, path: str, segment: int) -> Optional[Disk]:
    try:
        return Disk(use, path, os.stat(path).st_dev, segment)
    except OSError:
        return None


def _most_wal(server: Server) -> Optional[int]:
    row = server.query(
        "SELECT current_setting('archive_mode') <> 'off' OR EXISTS (SELECT FROM pg_replication_slots),"
        " pg_size_bytes(current_setting('max_wal_size')), pg_size_bytes(current_setting('wal_keep_size'))"
    )[0]
    # A checkpoint is spread over time: until it is done, the WAL of the next one is written as well.
    return None if row[0] == "t" else max(2 * int(row[1] or 0), int(row[2] or 0))


def free(path: str) -> int:
    """Bytes that the server may still write there."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def unchecked(data: int) -> str:
    """The warning that the free space was not checked."""
    return (
        "The free space of the database server was not checked: it is another host, or the login may not know where "
        "its files are. The copy beside the live database needs %s." % shown(data)
    )


def check(wanted: Sequence[Tuple[DiskSpace, int]], measure: Free = free) -> None:
    """Raises NodeopsError if the disks lack the space for so many bytes each, and for the WAL of all."""
    everything = sum(data for _space, data in wanted)
    needs: Dict[Tuple[str, str], int] = {}
    devices: Dict[int, List[Disk]] = {}
    for space, data in wanted:
        for disk in space.disks:
            known = (disk.use, disk.path) in needs
            if not known:
                devices.setdefault(disk.device, []).append(disk)
            if disk.use == _DATA:
                needs[disk.use, disk.path] = needs.get((disk.use, disk.path), 0) + int(data * _SLACK)
            elif not known:
                needs[disk.use, disk.path] = space.wal(everything)
    for disks in devices.values():
        needed = sum(needs[disk.use, disk.path] for disk in disks) + _RESERVE
        left = measure(disks[0].path)
        if left < needed:
            raise NodeopsError(
                "The disk of %s has %s free, and the restored copy beside the live database needs %s there (%s). "
                "Nothing was changed. Free some space: a full disk would end the whole server."
                % (
                    disks[0].path,
                    shown(left),
                    shown(needed),
                    " and ".join("%s for %s" % (shown(needs[disk.use, disk.path]), disk.use) for disk in disks),
                )
            )


def problem(space: DiskSpace, measure: Free = free) -> Optional[str]:
    """Which disk is about to be full; None while there is enough space."""
    for disk in space.disks:
        left = measure(disk.path)
        if left < max(_RESERVE // 2, 2 * disk.segment):
            return "the disk of %s (%s) has only %s left" % (disk.path, disk.use, shown(left))
    return None


def shown(size: int) -> str:
    """A size in bytes for people."""
    return "%.1f GiB" % (size / 2**30) if size >= 2**30 else "%.1f MiB" % (size / 2**20)
