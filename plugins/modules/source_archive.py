#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Name and pack the content of a source directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_archive
short_description: Name and pack the content of a source directory
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Computes the revision of a directory, a name for what it contains, so that a deploy can tell whether there is
    anything to do.
  - With O(dest) also packs it into a gzipped tar file, in the same pass.
  - The role C(nodeops.pm2.deploy) uses it, on the controller (with C(delegate_to)) or on the host.
  - It needs no tool but Python, and works alike on a controller with GNU tar, BSD tar or none.
attributes:
  check_mode:
    support: full
    description: In check mode the revision is computed and nothing is written.
  diff_mode:
    support: none
    description: The content of the archive is not shown.
options:
  path:
    description: The source directory.
    type: path
    required: true
  exclude:
    description:
      - What to leave out, as shell patterns. One without a slash is compared with the name of every file and directory,
        at any depth; one with a slash with the path relative to O(path).
      - V(*) also matches slashes. A directory that matches is left out with all that is in it.
    type: list
    elements: str
    default: []
  revision:
    description:
      - The revision the content must have. With any other the module fails, and writes nothing.
      - It guards against a source that changes between two steps of a deploy.
    type: str
  dest:
    description:
      - Where to write the archive. It is replaced if it exists, and only its owner can read it.
      - Without it nothing is written.
    type: path
"""

EXAMPLES = r"""
- name: Name what is in the checkout on the controller
  nodeops.pm2.source_archive:
    path: "{{ playbook_dir }}/../app"
    exclude: [.git, node_modules, /coverage]
  delegate_to: localhost
  register: source

- name: Pack it
  nodeops.pm2.source_archive:
    path: "{{ playbook_dir }}/../app"
    exclude: [.git, node_modules, /coverage]
    revision: "{{ source.revision }}"
    dest: "/tmp/app-{{ source.revision[:12] }}.tar.gz"
  delegate_to: localhost
"""

RETURN = r"""
revision:
  description:
    - SHA-256 over the paths, contents, executable bits and link targets.
    - Owners, times and other permission bits are not part of it.
  type: str
  returned: success
  sample: 3f1c0a6ce8f1f6e0b9c5a8d1f2d3e4c5b6a7980f1e2d3c4b5a69788796a5b4c3
files:
  description: How many files there are.
  type: int
  returned: success
  sample: 42
size:
  description: Their size together, in bytes.
  type: int
  returned: success
  sample: 183402
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nodeops.pm2.plugins.module_utils import _source
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error


def run(module: AnsibleModule) -> _source.Summary:
    """Name, and where asked for pack, the source. Raises Pm2Error and OSError."""
    path, exclude, dest = module.params["path"], module.params["exclude"], module.params["dest"]
    if not os.path.isdir(path):
        raise Pm2Error("The source directory %s does not exist or is not a directory." % path)
    if dest and not module.check_mode:
        return _source.pack(path, exclude, dest, module.params["revision"])
    return _source.read(path, exclude, module.params["revision"])


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "revision": {"type": "str"},
            "dest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        summary = run(module)
    except Pm2Error as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="The source cannot be packed: %s" % error)
    module.exit_json(changed=bool(module.params["dest"]), **summary._asdict())


if __name__ == "__main__":
    main()
