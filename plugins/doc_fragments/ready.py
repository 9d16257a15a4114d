# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of what new processes have to prove."""

from __future__ import annotations


class ModuleDocFragment:
    """The gate."""

    DOCUMENTATION = r"""
options:
  ready:
    description:
      - What new processes have to prove before the old ones are removed and the change is saved.
    type: dict
    default: {}
    suboptions:
      timeout:
        description:
          - Seconds within which all of it has to be true.
        type: float
        default: 30
      min_uptime:
        description:
          - Seconds that each new process has to be up without a restart.
        type: float
        default: 2
      http:
        description:
          - URLs that have to answer well. If new and old processes share a port, each new process has to answer itself.
            Answers of old ones do not count.
        type: list
        elements: dict
        suboptions:
          url:
            description:
              - An http or https URL, as seen from the target.
            type: str
            required: true
          status:
            description:
              - The statuses that are good.
            type: list
            elements: int
            default: [200]
          expect:
            description:
              - A JMESPath expression that has to be true of the JSON answer. Needs C(jmespath) on the target.
            type: str
          headers:
            description:
              - Headers to send.
            type: dict
          timeout:
            description:
              - Seconds for one request.
            type: float
            default: 5
          validate_certs:
            description:
              - Whether the certificate of an https URL has to be valid.
            type: bool
            default: true
      tcp:
        description:
          - Ports, or C(host:port), that have to accept a connection.
        type: list
        elements: str
      log:
        description:
          - Regular expressions. Each has to match in what at least one new process logs.
        type: list
        elements: str
"""
