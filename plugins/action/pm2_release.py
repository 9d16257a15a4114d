# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of pm2_release: it adds the owner of the run, and uploads sources of the controller."""

from __future__ import annotations

import gc
import getpass
import itertools
import multiprocessing
import os
import shutil
import socket
import tempfile
from typing import Any, Dict, List, Mapping, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _process_id
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source import _directory

# Variables of CI systems: the user who started a job, the address that shows it.
USERS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "BITBUCKET_STEP_TRIGGERER_UUID", "SUDO_USER")
LINKS = ("CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL")
TEXT_LIMIT = 1 << 20  # bytes
TEXTS_LIMIT = 200  # package.json files, together at most 4 * TEXT_LIMIT; after the upload the host reads all of them


class ActionModule(ActionBase):
    """Adds the owner. Computes the revision of a directory of the controller; packs and uploads a directory or an
    archive.
    """

    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Run the task: one module call, or two if something has to be uploaded."""
        super().run(tmp, task_vars)
        gc.disable()  # a quarter of the time to pack the module; this process ends with the task
        variables = task_vars or {}
        arguments = dict(self._task.args)
        arguments["owner"] = _owner(variables)
        source = arguments.get("source")
        local = (
            arguments.get("state") == "prepared"
            and isinstance(source, Mapping)
            and source.get("type") in ("directory", "archive")
            and source.get("location", "controller") == "controller"
            and "://" not in str(source.get("address", ""))
        )
        if not local or not isinstance(source, Mapping):
            return self._call(arguments, variables)
        source = dict(source)
        try:
            return self._prepare(arguments, source, variables)
        except NodeopsError as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            place = " (%s)" % error.filename if error.filename else ""
            raise AnsibleActionFail(
                "The source %s cannot be read or packed: %s%s. Nothing was changed."
                % (_address.shown(str(source.get("address"))), error.strerror or error, place)
            ) from error

    def _prepare(self, arguments: Dict[str, Any], source: Dict[str, Any], variables: Dict[str, Any]) -> Dict[str, Any]:
        address, exclude = str(source.get("address", "")), list(source.get("exclude") or [])
        if not address:
            raise NodeopsError("source address is empty. Nothing was changed. Check that the variable for it is set.")
        if not os.path.isabs(address):
            raise NodeopsError(
                "source address %r is not an absolute path. Nothing was changed. Give an absolute path: the base of a "
                "relative one would depend on the playbook." % _address.shown(address)
            )
        if source["type"] == "directory":
            if not os.path.isdir(address):
                raise NodeopsError(
                    "%s is not a directory on the controller. Nothing was changed. Correct source address." % address
                )
            source["revision"] = _directory.read(address, exclude).revision
            source["texts"] = _texts(address, exclude, arguments)
        elif not os.path.isfile(address):
            raise NodeopsError(
                "%s is not a file on the controller. Nothing was changed. Correct source address." % address
            )
        result = self._call(dict(arguments, source=source), variables)
        if not result.get("upload") or result.get("failed"):
            return result
        try:
            remote = self._upload(address, exclude, source)
        except Exception as error:
            self._give_up(arguments, variables, str(error))
            raise
        return self._call(dict(arguments, source=dict(source, archive=remote)), variables)

    def _give_up(self, arguments: Dict[str, Any], variables: Dict[str, Any], reason: str) -> None:
        """Report the failure to the host and free the lock, which is held since the first call."""
        common = ("root", "app", "namespace", "pm2_home", "pm2_executable", "run", "owner")
        call = {name: arguments[name] for name in common if name in arguments}
        self._call(dict(call, state="abandoned", stage="prepare", reason=reason), variables)

    def _upload(self, address: str, exclude: List[str], source: Mapping[str, Any]) -> str:
        """Upload the source as an archive. Returns its path on the host."""
        work = tempfile.mkdtemp(prefix="nodeops-")
        try:
            if source["type"] == "directory":
                archive = os.path.join(work, "source.tar.gz")
                _directory.pack(address, exclude, archive, source["revision"])
            else:
                archive = address
            remote = str(self._connection._shell.join_path(self._connection._shell.tmpdir, "source"))
            self._transfer_file(archive, remote)
            self._fixup_perms2((self._connection._shell.tmpdir, remote))
            return remote
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _call(self, arguments: Dict[str, Any], variables: Dict[str, Any]) -> Dict[str, Any]:
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        result: Dict[str, Any] = self._execute_module(module_args=arguments, task_vars=variables)
        ended = _ended(result.get("locked_by"))
        if (
            ended
        ):  # over SSH the host cannot know that: the session may be kept open for the next run, which is this one
            owner = dict(arguments["owner"], ended=ended)
            result = self._execute_module(module_args=dict(arguments, owner=owner), task_vars=variables)
        return result


def _ended(locked_by: Any) -> Optional[str]:
    """The run that has the lock, if it was started on this machine and its ansible-playbook has ended."""
    place = _process_id.pid_scope()
    if not isinstance(locked_by, Mapping) or not place or locked_by.get("place") != place:
        return None
    driver = _process_id.ProcessId(int(locked_by.get("pid") or 0), int(locked_by.get("start") or 0))
    return None if driver.alive() else str(locked_by.get("run"))


def _texts(directory: str, exclude: List[str], arguments: Mapping[str, Any]) -> Dict[str, str]:
    """The texts of files that are checked before anything is uploaded: small files, and a limited number of them."""
    contract = arguments.get("contract")
    example = contract.get("example") if isinstance(contract, Mapping) else None
    names = [name for name in ("package.json", example) if name]
    if arguments.get("forbidden"):
        below = _directory.paths(directory, [*exclude, "node_modules"])
        names += itertools.islice((path for path in below if path.endswith("/package.json")), TEXTS_LIMIT)
    texts: Dict[str, str] = {}
    room = 4 * TEXT_LIMIT
    for name in map(str, names):
        path = os.path.join(directory, name)
        size = os.path.getsize(path) if os.path.isfile(path) else room + 1
        if size <= min(TEXT_LIMIT, room):
            room -= size
            with open(path, encoding="utf-8", errors="replace") as stream:
                texts[name] = stream.read()
    return texts


def _owner(variables: Mapping[str, Any]) -> Dict[str, Any]:
    """The user who runs this, and from where. AWX tells it by variables, CI systems by the environment."""
    user = variables.get("awx_user_name") or variables.get("tower_user_name")
    user = user or next(filter(None, map(os.environ.get, USERS)), None) or _login()
    return {"user": str(user), "host": socket.gethostname(), "link": _link(variables), **_controller()}


def _controller() -> Dict[str, Any]:
    """The process of ansible-playbook. If that was killed, this process has another parent by now."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None and parent.pid else os.getpid()
    place = _process_id.pid_scope()
    seen = _process_id.find(pid)
    if place and seen is None:
        raise AnsibleActionFail("ansible-playbook (pid %d) has ended. The task was not started." % pid)
    return {"pid": pid, "start": seen.start if seen else 0, "place": place}


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _link(variables: Mapping[str, Any]) -> str:
    environment = os.environ
    if environment.get("GITHUB_RUN_ID"):
        names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
        return "%s/%s/actions/runs/%s" % tuple(environment.get(name, "") for name in names)
    job = variables.get("awx_job_id") or variables.get("tower_job_id")
    if job:
        return "AWX job %s" % job
    return next(filter(None, map(environment.get, LINKS)), "")
