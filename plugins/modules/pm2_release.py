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
  - A deploy is a few calls, one for each stage, V(prepared), V(built), V(migrated), V(published). What must not be left
    half done is one call. V(published) and V(rolled_back) bring processes, C(current) and the dump to a release in one
    transaction. New processes have to prove themselves first (O(ready)). If they do not, everything is put back.
  - The first call takes a lock that names its owner. A small process on the host holds it until the deploy ends. That
    process also ends with the C(ansible-playbook) or the SSH session that runs the deploy, so the lock cannot go stale.
  - The role C(nodeops.pm2.deploy) makes these calls in order, with hooks between them.
  - There is an action plugin of the same name. It computes the revision of a directory of the controller, and packs and
    uploads a directory or an archive of the controller, in the same task.
extends_documentation_fragment:
  - nodeops.pm2.attributes
  - nodeops.pm2.attributes.actiongroup
  - nodeops.pm2.connection
  - nodeops.pm2.ready
attributes:
  check_mode:
    support: full
    details: For a release that does not exist yet the result has only the names of its processes.
  diff_mode:
    support: full
    details: Only names of variables and arguments are shown, never values.
  idempotent:
    support: full
    details: With O(force=true) every V(prepared) makes a new release.
options:
  root:
    description:
      - The application's directory, an absolute path. Each environment needs one of its own.
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
      - The PM2 namespace of its processes. Processes of other namespaces are not touched.
    type: str
    required: true
  state:
    description:
      - V(prepared), there is a release directory with the content of O(source). If the live release is made of the same
        and O(force) is not set, no release is made. Then the call checks whether the live one runs as O(apps) or
        O(ecosystem) define it, if one of them is given. Takes the lock.
      - V(built), the dependencies are installed and the O(build) commands have run.
      - V(migrated), the O(migrate) commands have run.
      - V(published), the release is live. Then releases beyond O(keep) are removed. Frees the lock.
      - V(rolled_back), the release before the live one, or O(release), is live. Processes that only another release had
        are removed. Takes and frees the lock.
      - V(pruned), releases beyond O(keep) are removed.
      - V(abandoned), what this run has prepared is removed and the lock is freed. It is for a run in which something
        between two calls failed, or a call was killed. What was left half done is finished or undone first.
      - If a state fails, what was prepared is removed, the outcome is written to the history, and the lock is freed. A
        release that has not proven itself in V(published) is not removed but marked bad.
    type: str
    choices: [prepared, built, migrated, published, rolled_back, pruned, abandoned]
    required: true
  run:
    description:
      - A name for this deploy, the same in all its calls and on all hosts. It identifies the owner of the lock. It
        begins with the time, as in C(20261122T093000Z-), followed by something random. The id of the release begins
        with the same time.
    type: str
    required: true
  release:
    description:
      - The id of the release. For V(prepared) the default is the time of O(run) and the start of the revision.
      - For V(rolled_back) an id or a version.
    type: str
  from_release:
    description:
      - For V(rolled_back), the id of the release that is to be left. If another one is live, because another run has
        deployed meanwhile, the call is refused and changes nothing.
    type: str
  version:
    description:
      - The version of the release, as people call it. The default is the C(version) of its C(package.json), else the
        start of its revision.
    type: str
  force:
    description:
      - Make a release even if the live one is made of the same.
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
          - The SHA-256 of an archive, for which it is required. It is compared before anything is unpacked.
        type: str
      strip:
        description:
          - How many leading directories of the names in an archive are removed.
        type: int
        default: 0
      exclude:
        description:
          - What is left out of a directory, as shell patterns. A pattern without a slash is compared with every name,
            at any depth. A pattern with a slash is compared with the path from the top.
        type: list
        elements: str
        default: []
      key_file:
        description:
          - The private key for a repository, a file on the host.
        type: path
      key:
        description:
          - The private key itself. It is stored on the host only while git runs.
        type: str
      known_hosts:
        description:
          - Lines for C(known_hosts). Without them the key of a new host is accepted and then kept.
        type: str
      submodules:
        description:
          - Whether submodules are part of the release.
        type: bool
        default: true
      timeout:
        description:
          - Seconds that one operation on the network may take.
        type: float
        default: 300
      revision:
        description:
          - Set by the action plugin. The revision of a directory of the controller.
        type: str
      archive:
        description:
          - Set by the action plugin. The path of the upload on the host.
        type: path
      texts:
        description:
          - Set by the action plugin. Texts of files of the source that are needed before the upload.
        type: dict
  shared:
    description:
      - What all releases share. It is kept in O(root)C(/shared) and linked into each release. Paths of directories, or
        dictionaries with C(path) and C(type), which is V(directory) or V(file).
    type: list
    elements: raw
    default: []
  environment:
    description:
      - Variables of the application. Values are never shown. A variable that is null counts as not given.
    type: dict
    default: {}
  environment_file:
    description:
      - The file in the release, such as V(.env), to which O(environment) is written (0600).
    type: str
  environment_processes:
    description:
      - Whether the processes get O(environment). The variables of one process in O(apps) win over it. It wins over
        those of the ecosystem file.
    type: bool
    default: true
  contract:
    description:
      - The requirements for O(environment). They are checked before anything changes.
      - C(example) is the path of a C(.env.example) in the source. Its variables are required, except those in
        C(optional). C(rules) has for a variable C(required), C(min_length), C(max_length), C(base64_bytes), C(pattern),
        C(one_of), C(weak). C(weak) lists more values that count as weak.
    type: dict
    default: {}
  dependencies:
    description:
      - What is installed into the release. It is copied from an earlier good release if that has the same files,
        runtime, commands, machine and O(build_environment) (except secrets).
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
          - The files that determine what is installed, such as a lock file. At least one has to exist.
        type: list
        elements: str
        required: true
      runtime:
        description:
          - A command whose output identifies the runtime.
        type: list
        elements: str
      commands:
        description:
          - The commands that install them, each a list of arguments or a string. They run without a shell.
        type: list
        elements: raw
        required: true
  build:
    description:
      - Commands that build the release, each a list of arguments or a string. They run in the release, without a shell.
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
      - Directories at the front of the E(PATH) of commands. They are followed by those of the daemon's node and of
        O(pm2_executable), and by the system's.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds that one command may take.
    type: float
    default: 3600
  migrate:
    description:
      - Commands that migrate the database. They get O(build_environment) and O(environment); the latter wins. Run them
        on one host.
    type: list
    elements: raw
    default: []
  forbidden:
    description:
      - Regular expressions. If one matches a command, nothing is run. For C(npm run x) the script x of C(package.json)
        is compared too. For C(npm run x -w db) it is the script x of every C(package.json) of the release outside of
        C(node_modules).
    type: list
    elements: str
    default: []
  apps:
    description:
      - The processes, as for M(nodeops.pm2.pm2_process) (O(nodeops.pm2.pm2_process#module:apps)). A relative C(cwd) is
        relative to the release, which is also its default.
      - Without O(apps) and O(ecosystem) the release is a static site, files only, and needs no daemon. Then O(ready) is
        checked after C(current) was switched to it. If a check fails, C(current) is switched back.
    type: list
    elements: dict
    default: []
  ecosystem:
    description:
      - An ecosystem file, relative to the release.
    type: str
  env_name:
    description:
      - Which C(env_NAME) of the ecosystem file is merged.
    type: str
  prune:
    description:
      - Remove processes of the namespace that are not defined.
    type: bool
    default: false
  strategy:
    description:
      - How a process is replaced (O(nodeops.pm2.pm2_process#module:strategy)).
    type: str
    choices: [auto, replace, restart]
    default: auto
  max_affected:
    description:
      - Refuse the call if more processes than this would be changed.
    type: int
  keep:
    description:
      - How many good releases are kept, the live one included. The live one, the last good one before it and the last
        one that failed are never removed. Nor is any that C(current), a process of any namespace or the dump refers to.
    type: int
    default: 5
  go_on:
    description:
      - For V(prepared), go on to V(published) in the same call if nothing has to be done between them, which means no
        dependencies, no build and no migration. That saves the time of a task.
    type: bool
    default: false
  stage:
    description:
      - For V(abandoned), the stage that failed.
    type: str
  reason:
    description:
      - For V(abandoned), the reason of the failure.
    type: str
  owner:
    description:
      - Set by the action plugin. The user who runs the deploy, and from where, as C(user), C(host), C(link) (of the CI
        job) and C(pid).
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

- name: Make it live, or leave everything as it is
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
  returned: except for O(state=pruned)
  type: str
directory:
  description: Its directory.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
former:
  description: The id that C(current) named before, null if there was none.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back), and on failure
  type: str
needed:
  description: Whether a new release was made. If not, RV(release) is the live one.
  returned: with O(state=prepared)
  type: bool
in_order:
  description:
    - Whether the live release runs as O(apps) or O(ecosystem) define it, and answers well. If so, there is nothing to
      do, and the lock is free. If not, continue with V(published).
  returned: with O(state=prepared) and RV(needed=false)
  type: bool
went_on:
  description: Whether this call has also published (O(go_on)). If so, it returns all that V(published) returns.
  returned: with O(state=prepared) and O(go_on=true)
  type: bool
current:
  description: The id that C(current) names after the failure, null if there is none.
  returned: on failure, and with O(state=abandoned)
  type: str
committed:
  description:
    - True if the failure came after the change was made and saved. The release is live. Only old processes may be left;
      the next run removes them.
  returned: on such a failure
  type: bool
version:
  description: The version of the release, as people call it.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
revision:
  description: The revision of the source. A commit, the SHA-256 of an archive, or a hash of a directory's content.
  returned: with O(state=prepared), O(state=published) and O(state=rolled_back)
  type: str
dependencies:
  description: How the dependencies were provided, copied or installed.
  returned: with O(state=built)
  type: list
  elements: dict
commands:
  description: The commands that ran, with their durations in seconds.
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
  description: V(finished) or V(undone) if an earlier run, or call of this run, had been killed half-way, else null.
  returned: with O(state=published), O(state=rolled_back) and O(state=abandoned)
  type: str
rolled_back:
  description: On failure, whether everything was put back. Absent if nothing had been changed.
  returned: with O(state=published) and O(state=rolled_back)
  type: bool
removed:
  description: The ids of releases that were removed.
  returned: with O(state=published), O(state=pruned) and O(state=abandoned)
  type: list
  elements: str
stage:
  description: The stage that failed.
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
  description: The app and instance that have not proven themselves.
  returned: on failure of a new process
  type: dict
contract:
  description: What is wrong with the environment. It has names of variables, never values.
  returned: if O(contract) is not fulfilled
  type: list
  elements: str
locked_by:
  description: The owner of the lock.
  returned: if another run holds it
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
