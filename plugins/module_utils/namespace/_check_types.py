# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What a check is: the values that the option ``ready`` becomes."""

from __future__ import annotations

import socket
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Set, Tuple, Union
from urllib.parse import urlsplit

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address


class HttpCheck(NamedTuple):
    """``timeout`` in seconds for one request; ``expect`` is a compiled JMESPath expression."""

    url: str
    status: Tuple[int, ...]
    expect: Optional[Any]
    headers: Dict[str, str]
    timeout: float
    validate_certs: bool

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def label(self) -> str:
        shown = _address.shown(self.url).partition("?")[0]
        return "http check " + (shown if urlsplit(self.url).path else shown + "/")


class TcpCheck(NamedTuple):
    host: str
    port: int
    timeout: float = 5.0

    def label(self) -> str:
        return "tcp check %s:%d" % (self.host, self.port)


Check = Union[HttpCheck, TcpCheck]
Probe = Tuple[Callable[[], socket.socket], Callable[[], Optional[str]]]
"""Connect; then ask on that connection, for None or what is wrong with the answer. Both raise OSError."""


class Ready(NamedTuple):
    """What has to hold before a change is committed. Times in seconds."""

    timeout: float
    min_uptime: float
    connections: List[Check]
    log: List[Pattern[str]]

    def ports(self) -> Set[int]:
        """Of this or another host: those of its checks."""
        return {check.port for check in self.connections}
