# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Find, identify and start the PM2 daemon of one PM2_HOME.

The daemon is the process that listens on ``$PM2_HOME/rpc.sock``: the kernel names it (SO_PEERCRED). ``pm2.pid`` is
never trusted, as it survives ``kill -9``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files, _procfs
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._axon import AxonError, Client, RpcTimeout

KNOWN_MAJORS = (5, 6, 7)
START_TIMEOUT = 60.0  # seconds
SOCKET_GRACE = 5.0  # seconds: a daemon that starts or ends may have no socket for so long
ATTEMPTS, ATTEMPT_PAUSE = 3, 0.1  # how often a daemon is asked that breaks off; seconds between
_GOD_DAEMON = re.compile(rb"PM2 v\S+: God Daemon \(")  # how its title begins (Daemon.js:448)
SOCKET_PATH_LIMIT = 107  # bytes, sun_path without its final NUL

Version = Tuple[int, int, int]


class Daemon(NamedTuple):
    """A living daemon of the user we run as."""

    client: Client
    pid: int
    version: Version
    processes: List[Dict[str, Any]]  # getMonitorData, read when the daemon was found

    def read(self) -> List[Dict[str, Any]]:
        """The processes as they are now (getMonitorData)."""
        processes: List[Dict[str, Any]] = self.client.call("getMonitorData", {})
        return processes


def default_home() -> str:
    """PM2's own default: ``$PM2_HOME``, else ``~/.pm2`` of the user we run as (PM2 paths.js:11)."""
    return os.environ.get("PM2_HOME") or os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".pm2")


def check_home(home: str) -> None:
    """Refuse a PM2_HOME that is not ours. Raises NodeopsError; changes nothing.

    Root is refused too: a pm2 that runs as root leaves its sockets in a user's home and locks the user out.
    """
    if not os.path.isabs(home):
        raise NodeopsError("pm2_home must be an absolute path, not %r. Nothing was changed." % home)
    if len(os.fsencode(home)) + len("/rpc.sock") > SOCKET_PATH_LIMIT:
        raise NodeopsError(
            "pm2_home %s is too long: the path of its socket may have %d bytes (unix(7)). Nothing was changed."
            % (home, SOCKET_PATH_LIMIT)
        )
    try:
        status = os.stat(home)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NodeopsError("pm2_home %s cannot be read: %s. Nothing was changed." % (home, error.strerror)) from error
    if not stat.S_ISDIR(status.st_mode):
        raise NodeopsError("pm2_home %s is not a directory. Nothing was changed." % home)
    if status.st_uid != os.geteuid():
        raise NodeopsError(
            "pm2_home %s belongs to %s, and this task runs as %s. Nothing was changed. Run the task as its owner "
            "(become: true, become_user: %s)."
            % (home, user_name(status.st_uid), user_name(os.geteuid()), user_name(status.st_uid))
        )


def user_name(uid: int) -> str:
    """The user's name, or the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def find(home: str, timeout: float = 15.0) -> Optional[Daemon]:
    """The daemon of ``home`` with its processes, or None if none listens.

    Raises NodeopsError for a daemon of another user, one that does not answer, or one of an unknown version.
    """
    for _try in range(ATTEMPTS - 1):
        with contextlib.suppress(_ConnectionLost):
            return _find(home, timeout)
        time.sleep(ATTEMPT_PAUSE)
    return _find(home, timeout)


class _ConnectionLost(NodeopsError):
    """The peer closed the connection early, perhaps because the daemon was ending just then."""


def _find(home: str, timeout: float) -> Optional[Daemon]:
    path = os.path.join(home, "rpc.sock")
    try:
        client = Client(path, timeout)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            return None
        raise NodeopsError(
            "The PM2 socket %s cannot be reached: %s. Nothing was changed." % (path, error.strerror)
        ) from error
    try:
        return _identify(client, home)
    except BaseException:
        client.close()
        raise


def _identify(client: Client, home: str) -> Daemon:
    if client.peer.uid != os.geteuid():
        raise NodeopsError(
            "The PM2 daemon of %s (pid %d) belongs to %s, and this task runs as %s. Nothing was changed. Run the task "
            "as the daemon's user." % (home, client.peer.pid, user_name(client.peer.uid), user_name(os.geteuid()))
        )
    try:
        version_id = client.send("getVersion", {})
        processes_id = client.send("getMonitorData", {})
        text = client.receive(version_id, "getVersion")
        version = parse_version(str(text))
        if version is None or version[0] not in KNOWN_MAJORS:
            raise NodeopsError(
                "The PM2 daemon of %s (pid %d) says it is version %s. This collection knows PM2 %s and sends "
                "nothing to other versions. Nothing was changed."
                % (home, client.peer.pid, text, ", ".join(map(str, KNOWN_MAJORS)))
            )
        processes = client.receive(processes_id, "getMonitorData")
        if not isinstance(processes, list):
            raise AxonError("The PM2 daemon of %s (pid %d) sent no list of processes." % (home, client.peer.pid))
    except RpcTimeout as error:
        raise NodeopsError(
            "%s Nothing was changed. Look at %s/pm2.log; a daemon that hangs has to be restarted by hand."
            % (error, home)
        ) from error
    except AxonError as error:
        raise _ConnectionLost("%s Nothing was changed. Look at %s/pm2.log." % (error, home)) from error
    return Daemon(client, client.peer.pid, version, processes)


def parse_version(text: str) -> Optional[Version]:
    """``7.0.4`` or ``7.0.4-beta`` as numbers, None for anything else."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2)), int(match.group(3))) if match else None


class Executable(NamedTuple):
    """An installed pm2 program."""

    path: str
    version: Version
    node: str
    directory: str  # of the pm2 package


def find_executable(given: Optional[str]) -> Executable:
    """The pm2 program, its version and its node. Raises NodeopsError, with the places that were searched."""
    path = given or shutil.which("pm2", path=_search_path())
    if not path or not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise NodeopsError(
            "The pm2 program was not found (%s). Nothing was changed. Install it (npm install --global pm2) or set "
            "pm2_executable to its absolute path." % (given or "looked in " + _search_path())
        )
    directory = os.path.dirname(os.path.dirname(os.path.realpath(path)))
    package = os.path.join(directory, "package.json")
    try:
        with open(package, encoding="utf-8") as stream:
            version = parse_version(str(json.load(stream).get("version")))
    except (OSError, ValueError):
        version = None
    if version is None:
        raise NodeopsError("%s is not a pm2 program: %s holds no version. Nothing was changed." % (path, package))
    if version[0] not in KNOWN_MAJORS:
        raise NodeopsError(
            "%s is PM2 %d.%d.%d. This collection knows PM2 %s. Nothing was changed."
            % (path, *version, ", ".join(map(str, KNOWN_MAJORS)))
        )
    node = shutil.which("node", path=os.pathsep.join([os.path.dirname(path), _search_path()]))
    if not node:
        raise NodeopsError(
            "No node program was found beside %s or in %s. Nothing was changed. Install Node.js."
            % (path, _search_path())
        )
    return Executable(os.path.abspath(path), version, os.path.realpath(node), directory)


def _search_path() -> str:
    return os.pathsep.join(filter(None, [os.environ.get("PATH"), STANDARD_PATH]))


def node_of(pid: int) -> Optional[str]:
    """The node binary that a daemon runs on (process.execPath), None if the kernel does not tell."""
    return _procfs.program(pid)


def base_environment(home: str, node: str) -> Dict[str, str]:
    """The environment of the daemon and of every app: computed, never inherited from a caller.

    PATH starts with node's own directory, so that ``node``, ``npm`` and ``npx`` are the daemon's. SHLVL keeps
    ``bash -c`` from reading ``~/.bashrc``, so that nothing exported there reaches an app. Without SHLVL, bash would
    take PM2's socket on its standard input for that of a remote shell (bash(1), "remote shell daemon").
    """
    user = pwd.getpwuid(os.geteuid())
    directory = os.path.dirname(node)
    path = STANDARD_PATH if directory in STANDARD_PATH.split(":") else directory + ":" + STANDARD_PATH
    return {
        "PATH": path,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "LANG": "C.UTF-8",
        "SHLVL": "1",
        "PM2_HOME": home,
    }


def ensure(home: str, given_executable: Optional[str]) -> Tuple[Daemon, bool]:
    """The daemon of ``home``, which is started if there is none; and whether it was started.

    If several callers start at once, there is exactly one daemon: a lock serialises the start, and a caller that
    waited looks again.
    """
    daemon = find(home)
    if daemon:
        return daemon, False
    executable = find_executable(given_executable)
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
    except OSError as error:
        raise NodeopsError("pm2_home %s cannot be made: %s. Nothing was changed." % (home, error.strerror)) from error
    check_home(home)
    with _files.lock(home, "daemon", "The PM2 daemon of %s was not started" % home, START_TIMEOUT):
        daemon = find_listening(home)
        if daemon:
            return daemon, False
        _start(home, executable)
        return _wait_until_it_answers(home), True


def _start(home: str, executable: Executable) -> None:
    environment = base_environment(home, executable.node)
    # Without this file the pm2 program prints its banner and reports the installation to its makers (Client.js:190).
    with open(os.path.join(home, "touch"), "a", encoding="utf-8"):
        pass
    process = subprocess.Popen(
        [executable.path, "ping"],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _none = process.communicate(timeout=START_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise NodeopsError(
            "'%s ping' did not start a daemon in %s within %g s. Look at %s/pm2.log."
            % (executable.path, home, START_TIMEOUT, home)
        ) from None
    if process.returncode != 0:
        raise NodeopsError(
            "'%s ping' could not start a daemon in %s (exit code %d): %s"
            % (executable.path, home, process.returncode, output.decode("utf-8", "replace").strip()[-500:])
        )


def _wait_until_it_answers(home: str) -> Daemon:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(AxonError):
            daemon = find(home)
            if daemon:
                return daemon
        time.sleep(0.05)
    raise NodeopsError("The PM2 daemon of %s was started but does not answer. Look at %s/pm2.log." % (home, home))


def find_listening(home: str) -> Optional[Daemon]:
    """As ``find``, but raises NodeopsError for a daemon that runs and does not listen.

    A daemon that is just starting or ending gets SOCKET_GRACE seconds.
    """
    deadline = time.monotonic() + SOCKET_GRACE
    while True:
        daemon = find(home)
        pid = None if daemon else running_without_socket(home)
        if pid is None:
            return daemon
        if time.monotonic() > deadline:
            raise NodeopsError(
                "A PM2 daemon of %s runs (pid %d), but nothing listens on its rpc.sock: starting a second one would "
                "run every app twice. Nothing was changed. Stop that daemon (kill %d saves and stops its apps), then "
                "run again." % (home, pid, pid)
            )
        time.sleep(0.05)


def running_without_socket(home: str) -> Optional[int]:
    """The pid of a God Daemon of this user with this PM2_HOME, found among the host's processes, else None.

    Its title may be cut, so its environment tells its PM2_HOME.
    """
    for pid in _procfs.pids():
        if _procfs.owner(pid) == os.geteuid() and _GOD_DAEMON.match(_procfs.command_line(pid, 200)):
            if _files.same(_home_of(pid), home):
                return pid
    return None


def _home_of(pid: int) -> str:
    """The PM2_HOME that a daemon was started with, empty if it has none or is gone."""
    return _procfs.environment(pid).get("PM2_HOME", "")


def home_as_named_by(daemon_pid: int, home: str) -> str:
    """``home`` as its daemon names it, so that a link to it makes no difference to its apps."""
    named = _home_of(daemon_pid)
    return named if _files.same(named, home) else home
