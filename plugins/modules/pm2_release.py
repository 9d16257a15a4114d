#!/usr/bin/python
# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The releases of one application: prepare, publish, roll back, prune."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pm2_release
short_description: Prepare, publish and roll back the releases of an application
version_added: 0.1.0
author:
  - nodeops.pm2 contributors (@nodeops)
description:
  - Keeps each version of an application in a directory of its own, O(root)C(/releases/<id>), and lets the link
    O(root)C(/current) name the live one.
  - A deploy is a few calls, one for each stage, V(prepared), V(built), V(migrated), V(published). What must not be half
    done is one call. V(published) and V(rolled_back) bring processes, C(current) and the dump to a release in one
    transaction, after new processes have proven themselves (O(ready)), or put everything back.
  - The first call takes a lock that names its owner. It is kept by a small process on the host until the deploy ends,
    and ends with the C(ansible-playbook) or the SSH session that drives the deploy, so that it cannot go stale.
  - The role C(nodeops.pm2.deploy) makes these calls in order, with hooks between them.
  - It is an action plugin too. A directory or archive of the controller is named, packed and uploaded by the same task.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
  - nodeops.pm2.ready
attributes:
  check_mode:
    support: full
    details: Of a release that does not exist yet the processes are told by their names only.
  diff_mode:
    support: full
    details: Values of variables and arguments are never shown, only their names.
  idempotent:
    support: full
    details: With O(force=true) every V(prepared) makes a new release.
options:
  root:
    description:
      - The application's directory, absolute. Each environment needs one of its own.
      - It holds C(releases/), C(current), C(shared/), the history C(deploys.jsonl), and C(.nodeops/) (0700) with the
        lock, the git mirror, and the processes of each release with their environment.
    type: path
    required: true
  app:
    description:
      - The application's name, for messages, manifests and the history.
    type: str
    required: true
  namespace:
    description:
      - The PM2 namespace of its processes. Nothing outside of it is touched.
    type: str
    required: true
  state:
    description:
      - V(prepared), there is a release directory with what O(source) holds, unless the live release is made of the same
        and O(force) is not set. Then it also looks whether that runs as it is defined, when told how (O(apps) or
        O(ecosystem)). Takes the lock.
      - V(built), its dependencies are there and the O(build) commands have run.
      - V(migrated), the O(migrate) commands have run.
      - V(published), it is live; then releases beyond O(keep) are removed. Frees the lock.
      - V(rolled_back), the release before the live one, or O(release), is live, and processes that only another
        release had are gone. Takes and frees the lock.
      - V(pruned), releases beyond O(keep) are removed.
      - V(abandoned), what this run has prepared is removed and the lock freed, because something between two calls
        failed, or one of them was killed. What that has left half done is finished or undone first.
      - Where a state fails, what was prepared is removed (or, by the gate of V(published), marked bad), the outcome is
        written into the history, and the lock is freed.
    type: str
    choices: [prepared, built, migrated, published, rolled_back, pruned, abandoned]
    required: true
  run:
    description:
      - A name for this deploy, the same in all its calls and on all hosts, the lock's token. It begins with the time,
        C(20261122T093000Z-) and something random, and the time is the start of the release's id.
    type: str
    required: true
  release:
    description:
      - The release. For V(prepared) its id, by default the time of O(run) and the start of the revision.
      - For V(rolled_back) an id or a version.
    type: str
  from_release:
    description:
      - For V(rolled_back), the id of the release that is to be left. Where another one is live, because somebody has
        deployed meanwhile, the call is refused and changes nothing.
    type: str
  version:
    description:
      - What people call the release. By default the C(version) of its C(package.json), else the start of its revision.
    type: str
  force:
    description:
      - Make a release even where the live one is made of the same.
    type: bool
    default: false
  lock_timeout:
    description:
      - Seconds to wait for another run to end.
    type: float
    default: 0
  source:
    description:
      - Where the release comes from, for V(prepared).
    type: dict
    suboptions:
      type:
        description:
          - A directory, an archive (tar, also compressed, or zip), or a git repository.
        type: str
        choices: [directory, archive, git]
        required: true
      location:
        description:
          - Where a directory or an archive is. A repository and a URL are fetched by the host.
        type: str
        choices: [controller, host]
        default: controller
      address:
        description:
          - The absolute path of a directory or an archive, the http(s) URL of an archive, or a repository.
        type: str
        required: true
      version:
        description:
          - Of a repository, a branch, tag or commit.
        type: str
        default: HEAD
      sha256:
        description:
          - The SHA-256 of an archive, required for one. Compared before anything of it is unpacked.
        type: str
      strip:
        description:
          - How many leading directories of the names in an archive are left off.
        type: int
        default: 0
      exclude:
        description:
          - What of a directory is left out, as shell patterns. One without a slash is compared with every
            name, at any depth; one with a slash with the path from the top.
        type: list
        elements: str
        default: []
      key_file:
        description:
          - The private key for a repository, a file on the host.
        type: path
      key:
        description:
          - The private key itself. It is on the host only while git runs.
        type: str
      known_hosts:
        description:
          - Lines for C(known_hosts). Without them a host's key is accepted when it is first seen, and then kept.
        type: str
      submodules:
        description:
          - Whether submodules are part of the release.
        type: bool
        default: true
      timeout:
        description:
          - Seconds one operation on the network may take.
        type: float
        default: 300
      revision:
        description:
          - Set by the action plugin. The revision of a directory of the controller.
        type: str
      archive:
        description:
          - Set by the action plugin. Where on the host the upload is.
        type: path
      texts:
        description:
          - Set by the action plugin. Files of the source that are needed before the upload.
        type: dict
  shared:
    description:
      - What releases share, kept in O(root)C(/shared) and linked into each. Paths of directories, or dictionaries with
        C(path) and C(type), V(directory) or V(file).
    type: list
    elements: raw
    default: []
  environment:
    description:
      - Variables of the application. Values are never shown. One that is null is left out, as if it were not given.
    type: dict
    default: {}
  environment_file:
    description:
      - The file in the release, such as V(.env), that O(environment) is written to (0600).
    type: str
  environment_processes:
    description:
      - Whether O(environment) is given to the processes. What O(apps) says of one process wins over it; it wins over
        what the ecosystem file says.
    type: bool
    default: true
  contract:
    description:
      - What O(environment) has to fulfil before anything changes.
      - C(example), the path of a C(.env.example) in the source, whose variables are required, but those in C(optional);
        C(rules), by variable C(required), C(min_length), C(max_length), C(base64_bytes), C(pattern), C(one_of),
        C(weak); C(weak), more values that count as weak.
    type: dict
    default: {}
  dependencies:
    description:
      - What is installed into the release, or copied from an earlier good release with the same files,
        runtime, commands, machine and O(build_environment) (secrets apart).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The directory that holds them.
        type: str
        required: true
      files:
        description:
          - The files that say what is installed. At least one has to exist.
        type: list
        elements: str
        required: true
      runtime:
        description:
          - A command whose output names the runtime.
        type: list
        elements: str
      commands:
        description:
          - The commands that install them, each a list of arguments or a string. No shell.
        type: list
        elements: raw
        required: true
  build:
    description:
      - Commands that build the release, each a list of arguments or a string. They run in it, without a shell.
    type: list
    elements: raw
    default: []
  build_environment:
    description:
      - Variables of the commands of O(dependencies), O(build) and O(migrate). Values are never shown.
    type: dict
    default: {}
  path:
    description:
      - Directories in front of the E(PATH) of commands. After them come those of the daemon's node, of
        O(pm2_executable), and the system's.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds one command may take.
    type: float
    default: 3600
  migrate:
    description:
      - Commands that migrate the database, with O(build_environment) and O(environment), of which the latter wins. Run
        them on one host.
    type: list
    elements: raw
    default: []
  forbidden:
    description:
      - Regular expressions. A command that one is found in is refused before anything is run; so is C(npm run x) when
        the script x of C(package.json) has it, and C(npm run x -w db) when that of any C(package.json) of the release
        outside C(node_modules) has it.
    type: list
    elements: str
    default: []
  apps:
    description:
      - The processes, as M(nodeops.pm2.pm2_process) takes them (O(nodeops.pm2.pm2_process#module:apps)). A relative or
        missing C(cwd) is one in the release.
      - Without O(apps) and O(ecosystem) the release is files only, a static site, and no daemon is needed. Then
        O(ready) is looked at when C(current) leads to it, and put back where it does not hold.
    type: list
    elements: dict
    default: []
  ecosystem:
    description:
      - An ecosystem file, relative to the release.
    type: str
  env_name:
    description:
      - Which C(env_NAME) of it is merged.
    type: str
  prune:
    description:
      - Remove processes of the namespace that are not defined.
    type: bool
    default: false
  strategy:
    description:
      - How a process makes way (O(nodeops.pm2.pm2_process#module:strategy)).
    type: str
    choices: [auto, replace, restart]
    default: auto
  max_affected:
    description:
      - Refuse when more processes than this would be changed.
    type: int
  keep:
    description:
      - How many good releases are kept, the live one included. Never removed are the live one, the last good one before
        it, one that C(current), a process of any namespace or the dump refers to, and the last one that failed.
    type: int
    default: 5
  go_on:
    description:
      - For V(prepared), go on to V(published) in the same call where nothing has to be done between, no dependencies,
        no build and no migration. It saves the time of a task.
    type: bool
    default: false
  stage:
    description:
      - For V(abandoned), where it failed.
    type: str
  reason:
    description:
      - For V(abandoned), why.
    type: str
  owner:
    description:
      - Who runs this, set by the action plugin, with C(user), C(host), C(link) (of the CI job) and C(pid).
    type: dict
    default: {}
seealso:
  - module: nodeops.pm2.pm2_process
"""

EXAMPLES = r"""
- name: Fetch the release, unless it is live already
  nodeops.pm2.pm2_release:
    state: prepared
    root: /srv/shop
    app: shop
    namespace: shop-production
    run: "{{ shop_run }}"
    source:
      type: git
      address: git@git.example.org:shop/shop.git
      version: v2.4.0
      key_file: /home/shop/.ssh/deploy
  register: shop_release

- name: Bring it live, or leave everything as it is
  nodeops.pm2.pm2_release:
    state: published
    root: /srv/shop
    app: shop
    namespace: shop-production
    run: "{{ shop_run }}"
    release: "{{ shop_release.release }}"
    environment: "{{ shop_environment }}"
    apps:
      - name: shop-api
        script: server.js
        exec_mode: cluster
        instances: 2
    ready:
      http:
        - url: http://127.0.0.1:3000/health

- name: Go back to the release before
  nodeops.pm2.pm2_release:
    state: rolled_back
    root: /srv/shop
    app: shop
    namespace: shop-production
    run: "{{ shop_run }}"
"""

RETURN = r"""
release:
  description: The id of the release.
  returned: but for V(pruned)
  type: str
directory:
  description: Where it is.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
former:
  description: The id that C(current) named before, null when there was none.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back), and on failure
  type: str
needed:
  description: Whether a new release was made. Else RV(release) is the live one.
  returned: with O(state=prepared)
  type: bool
in_order:
  description:
    - Whether the live release runs as O(apps) or O(ecosystem) define, and answers well. Then there is nothing to do,
      and the lock is free. Else go on with V(published).
  returned: with O(state=prepared) and RV(needed=false)
  type: bool
went_on:
  description: Whether this call has published too (O(go_on)). Then all that V(published) returns is there.
  returned: with O(state=prepared) and O(go_on=true)
  type: bool
current:
  description: The id that C(current) names after the failure, null when there is none.
  returned: on failure, and with O(state=abandoned)
  type: str
committed:
  description:
    - True when the failure came after the change was made and saved. The release is live; only old processes may be
      left, and the next run removes them.
  returned: on such a failure
  type: bool
version:
  description: What people call the release.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
revision:
  description: What it was made from. A commit, the SHA-256 of an archive, or of a directory's content.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
dependencies:
  description: Where the dependencies came from.
  returned: with O(state=built)
  type: list
  elements: dict
commands:
  description: The commands that ran, with their duration in seconds.
  returned: with O(state=built) and O(state=migrated)
  type: list
  elements: dict
actions:
  description: What was done to processes (RV(nodeops.pm2.pm2_process#module:actions)).
  returned: with O(state=published) and O(state=rolled_back)
  type: list
  elements: dict
processes:
  description: The processes afterwards (RV(nodeops.pm2.pm2_process#module:processes)).
  returned: with O(state=published) and O(state=rolled_back)
  type: list
  elements: dict
saved:
  description: Whether C(dump.pm2) was written.
  returned: with O(state=published) and O(state=rolled_back)
  type: bool
recovered:
  description: V(finished) or V(undone) when an earlier run, or call of this run, had been killed half-way, else null.
  returned: with O(state=published), O(state=rolled_back) and O(state=abandoned)
  type: str
rolled_back:
  description: On failure, whether everything was put back. Absent when nothing had been changed.
  returned: with O(state=published) and O(state=rolled_back)
  type: bool
removed:
  description: The ids of releases that were removed.
  returned: with O(state=published), O(state=pruned) and O(state=abandoned)
  type: list
  elements: str
stage:
  description: Where it failed.
  returned: on failure
  type: str
command:
  description: The command that failed.
  returned: on failure of a command
  type: list
  elements: str
output:
  description: The end of its output, without secrets.
  returned: on failure of a command
  type: list
  elements: str
error_log:
  description: The last lines of the failed process's error log, without secrets.
  returned: on failure of a new process
  type: list
  elements: str
failed_process:
  description: The app and instance that did not prove itself.
  returned: on failure of a new process
  type: dict
contract:
  description: What the environment lacks. Names of variables, never values.
  returned: when O(contract) is not fulfilled
  type: list
  elements: str
locked_by:
  description: Who holds the lock.
  returned: when another run does
  type: dict
"""

from typing import Any, Dict

from ansible_collections.nodeops.pm2.plugins.module_utils import _module
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.release._dispatch import STATES, run
from ansible_collections.nodeops.pm2.plugins.module_utils.release._module_call import ModuleCall
from ansible_collections.nodeops.pm2.plugins.module_utils.release._option_masks import MASKS
from ansible_collections.nodeops.pm2.plugins.module_utils.release._options import ReleaseOptions

SOURCE: Dict[str, Any] = {
    "type": {"type": "str", "choices": ["directory", "archive", "git"], "required": True},
    "location": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
    "address": {"type": "str", "required": True},
    "version": {"type": "str", "default": "HEAD"},
    "sha256": {"type": "str"},
    "strip": {"type": "int", "default": 0},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "key_file": {"type": "path"},
    "key": {"type": "str", "no_log": False},
    "known_hosts": {"type": "str"},
    "submodules": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 300},
    "revision": {"type": "str"},
    "archive": {"type": "path"},
    "texts": {"type": "dict"},
}

DEPENDENCY: Dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "files": {"type": "list", "elements": "str", "required": True},
    "runtime": {"type": "list", "elements": "str"},
    "commands": {"type": "list", "elements": "raw", "required": True},
}


def main() -> None:
    """Entry point."""
    module = _module.Module(
        {
            **_process_options.CONNECTION,
            "root": {"type": "path", "required": True},
            "app": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "run": {"type": "str", "required": True},
            "owner": {"type": "dict", "default": {}},
            "release": {"type": "str"},
            "from_release": {"type": "str"},
            "version": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 0},
            "source": {"type": "dict", "options": SOURCE},
            "shared": {"type": "list", "elements": "raw", "default": []},
            "environment": {"type": "dict", "default": {}},
            "environment_file": {"type": "str"},
            "environment_processes": {"type": "bool", "default": True},
            "contract": {"type": "dict", "default": {}},
            "dependencies": {"type": "list", "elements": "dict", "options": DEPENDENCY, "default": []},
            "build": {"type": "list", "elements": "raw", "default": []},
            "build_environment": {"type": "dict", "default": {}},
            "path": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "float", "default": 3600},
            "migrate": {"type": "list", "elements": "raw", "default": []},
            "forbidden": {"type": "list", "elements": "str", "default": []},
            "apps": {"type": "list", "elements": "dict", "default": []},
            "ecosystem": {"type": "str"},
            "env_name": {"type": "str"},
            "prune": {"type": "bool", "default": False},
            "strategy": _process_options.STRATEGY,
            "max_affected": {"type": "int"},
            "ready": _process_options.READY,
            "keep": {"type": "int", "default": 5},
            "go_on": {"type": "bool", "default": False},
            "stage": {"type": "str"},
            "reason": {"type": "str"},
        },
        MASKS,
        required_if=[
            ("state", "prepared", ["source"]),
            ("state", "built", ["release"]),
            ("state", "migrated", ["release"]),
            ("state", "published", ["release"]),
        ],
    )
    options = ReleaseOptions(**dict(module.params, pm2_home=module.params["pm2_home"] or _daemon.default_home()))
    call = ModuleCall(options, module.check_mode)

    _module.run(module, lambda: run(call), call.warnings)


if __name__ == "__main__":
    main()
