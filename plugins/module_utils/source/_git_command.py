# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Run git in a clean environment, with credentials that no process list shows, a timeout, and errors explained."""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
from typing import Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _process_group, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._address import (
    Credentials,
    hide,
    is_url,
    origin,
    shown,
    split_credentials,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.host._environment import STANDARD_PATH
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import Workspace, disk_full

LOCAL_TIMEOUT = 1800.0
"""Seconds that an operation without network, such as writing a large release, may take at most."""
_CONNECT_TIMEOUT = 15  # seconds, for ssh
_PROTOCOLS = "file:git:http:https:ssh"
_PASSED_ON = (  # network settings belong to the host, not to the caller of a deploy
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
)
_HELPER = """\
test "$1" = get || exit 0
while IFS= read -r line; do
  case $line in
    protocol=*) protocol=${line#protocol=} ;;
    host=*) host=${line#host=} ;;
  esac
done
test "$protocol://$host" = "$NODEOPS_GIT_ORIGIN" || exit 0
printf 'username=%s\\npassword=%s\\n' "$NODEOPS_GIT_USERNAME" "$NODEOPS_GIT_PASSWORD"
"""
"""A credential helper is used, not GIT_ASKPASS: that gets the user name, which may be a token, as an argument."""

_CAUSES: Tuple[Tuple[Sequence[str], str], ...] = (
    (
        ["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", r"No \S+ host key is known"],
        "the key of its host is not the known key. Compare them, and give the right one as known_hosts.",
    ),
    (
        ["dubious ownership"],
        "it belongs to another user. Allow it in the git configuration of the user that deploys (safe.directory).",
    ),
    (
        [
            *("Could not resolve host", "Name or service not known", "Temporary failure in name resolution"),
            *("Connection refused", "Connection timed out", "Operation timed out", "No route to host"),
            *("Network is unreachable", "Failed to connect", "Couldn't connect", "unable to connect"),
            *("Connection reset", "Connection closed by .* port"),
        ],
        "its host cannot be reached.",
    ),
    (
        ["SSL certificate problem", "certificate verif", "certificate is not trusted", "SSL peer certificate"],
        "the certificate of its host is not trusted.",
    ),
    (
        [
            *(
                "Authentication failed",
                "could not read (?:Username|Password)",
                r"Permission denied \(",
                "Access denied",
            ),
            *("returned error: 40[13]", "invalid credentials", "Load key", "UNPROTECTED PRIVATE KEY"),
        ],
        "access was refused. Check the key (without a passphrase), the name and password in the URL, and their rights.",
    ),
    (
        [
            "[Rr]epository .*not found",
            "does not appear to be a git repository",
            "does not exist",
            "returned error: 404",
        ],
        "it was not found, or cannot be read with these credentials.",
    ),
    (["cannot run ssh", "ssh: (?:command )?not found"], "ssh is not installed on this host."),
)
"""Patterns of git's messages, and what they mean."""
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_NO_REF = "find remote ref"
_SHOWN_LINES = 5  # lines of git's standard error


class GitFailed(Exception):
    """git failed, perhaps because our own copy of the repository is damaged. ``stderr``: its last lines, redacted."""

    def __init__(self, stderr: str) -> None:
        super().__init__(stderr)
        self.stderr = stderr


class RefNotFound(GitFailed):
    """The repository does not have one of the names that were asked for. Git has fetched nothing then."""


class Access(NamedTuple):
    """The address of a repository and the credentials for it."""

    address: str
    key_file: Optional[str] = None
    key: Optional[str] = None
    known_hosts: Optional[str] = None
    timeout: float = 300.0  # seconds for one exchange with the repository


class Git:
    """Runs git for one source. Its files (key, known hosts) lie in the workplace and go with it."""

    def __init__(self, place: Workspace, access: Access, redactor: Redactor) -> None:
        """Raises NodeopsError if git is missing or the key cannot be read, OSError if a file cannot be written."""
        self.place = place
        self.address = access.address
        self._access = access
        self._redactor = redactor
        path = os.environ.get("PATH") or STANDARD_PATH
        self._program = program(path)
        self._environment = _environment(path)
        self._credentials = split_credentials(access.address).credentials
        self._helper = self._write("credentials", _HELPER)
        self._ssh = self._ssh_command()
        hide(access.address, redactor)
        if access.key:
            redactor.add_environment({"key": access.key})

    def local(self, repository: str, arguments: Sequence[str], extra: Optional[Mapping[str, str]] = None) -> bytes:
        """Run git in a repository of ours and return its output. The user's configuration does not apply.

        Raises GitFailed, and NodeopsError if the disk is full or it takes too long.
        """
        environment = {
            **self._environment,
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": self.place.directory,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_DIR": repository,
            **(extra or {}),
        }
        code, output, stderr = self._run(["-c", "core.autocrlf=false", *arguments], environment, LOCAL_TIMEOUT)
        if code is None:
            raise NodeopsError(
                "git %s took longer than %g s and was ended. Nothing was deployed." % (arguments[0], LOCAL_TIMEOUT)
            )
        if code != 0:
            self._check_space(stderr, environment.get("GIT_WORK_TREE") or repository)
            raise GitFailed(self._last_lines(stderr) or "exit code %d" % code)
        return output

    def remote(self, address: str, arguments: Sequence[str], repository: Optional[str] = None) -> bytes:
        """Run git with a remote repository: ``arguments`` hold its address as ``plain(address)``.

        Raises NodeopsError for a fault of the remote side or the network, RefNotFound, otherwise GitFailed.
        """
        environment = {**self._environment, "GIT_SSH_COMMAND": self._ssh, "GIT_SSH_VARIANT": "ssh"}
        if not self._own_key() and "SSH_AUTH_SOCK" in os.environ:
            environment["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
        if repository is not None:
            environment["GIT_DIR"] = repository
        settings = ["protocol.version=2", "gc.autoDetach=false", "maintenance.autoDetach=false"]
        # A pack appears at once, loose objects one by one: a killed git would leave a commit without its content.
        settings += ["fetch.unpackLimit=1", "transfer.unpackLimit=1", "core.hooksPath=" + os.devnull]
        credentials = self._credentials_for(address)
        if credentials is not None:
            settings += ["credential.helper=", "credential.helper=!sh " + shlex.quote(self._helper)]
            environment["NODEOPS_GIT_ORIGIN"] = credentials.origin
            environment["NODEOPS_GIT_USERNAME"] = credentials.username
            environment["NODEOPS_GIT_PASSWORD"] = credentials.password
        options = [word for setting in settings for word in ("-c", setting)]
        code, output, stderr = self._run([*options, *arguments], environment, self._access.timeout)
        if code is None:
            raise self._unreadable(
                address, "it did not finish within %g s (timeout)." % self._access.timeout, self._last_lines(stderr)
            )
        if code != 0:
            self._check_space(stderr, self.place.private)
            self._explain(address, stderr, code)
        return output

    def _explain(self, address: str, stderr: str, code: int) -> NoReturn:
        told = self._last_lines(stderr)
        for patterns, cause in _CAUSES:
            if re.search("|".join(patterns), stderr):
                raise self._unreadable(address, cause, told)
        kind = RefNotFound if _NO_REF in stderr else GitFailed
        raise kind(told or "exit code %d" % code)

    @staticmethod
    def _unreadable(address: str, cause: str, told: str) -> NodeopsError:
        quote = " git said: %s" % told if told else ""
        return NodeopsError(
            "The repository %s cannot be read: %s Nothing was deployed.%s" % (shown(address), cause, quote)
        )

    @staticmethod
    def _check_space(stderr: str, path: str) -> None:
        if _NO_SPACE.search(stderr):
            raise disk_full(path)

    def _last_lines(self, stderr: str) -> str:
        lines = [line.strip() for line in self._redactor.text(stderr).splitlines() if line.strip()]
        return " | ".join(lines[-_SHOWN_LINES:])

    def _credentials_for(self, address: str) -> Optional[Credentials]:
        """The credentials of the address itself, or those of the source if it has the same origin (submodules)."""
        own = split_credentials(address).credentials
        if own is None and self._credentials and is_url(address) and origin(address) == self._credentials.origin:
            return self._credentials
        return own

    def _own_key(self) -> bool:
        return bool(self._access.key or self._access.key_file)

    def _ssh_command(self) -> str:
        words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=%d" % _CONNECT_TIMEOUT]
        words += ["-o", "ControlMaster=no", "-o", "ControlPath=none"]  # it would outlive git and hold our pipe open
        key_file = self._access.key_file
        if self._access.key:
            key = self._access.key.replace("\r\n", "\n").strip() + "\n"
            key_file = self._write("key", key)
        elif key_file and not os.access(key_file, os.R_OK):
            raise NodeopsError(
                "The key %s does not exist on this host, or %s cannot read it. Nothing was changed."
                % (key_file, self._environment["USER"])
            )
        if key_file:
            words += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "IdentityFile=" + _quoted(key_file)]
        if self._access.known_hosts:
            known = self._write("known_hosts", self._access.known_hosts.strip() + "\n")
            words += ["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=" + os.devnull]
            words += ["-o", "UserKnownHostsFile=" + _quoted(known)]
        else:
            own = os.path.join(self.place.private, "known_hosts")
            if self.place.lock is None:  # check mode: nothing is written below private
                own = self._write("known_hosts", _content(own))
            users = os.path.join(self._environment["HOME"], ".ssh", "known_hosts")
            words += ["-o", "StrictHostKeyChecking=accept-new"]
            words += ["-o", "UserKnownHostsFile=%s %s" % (_quoted(own), _quoted(users))]
        return " ".join(map(shlex.quote, words))

    def _write(self, name: str, content: str) -> str:
        path = os.path.join(self.place.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as stream:
            stream.write(content)
        return path

    def _run(
        self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> Tuple[Optional[int], bytes, str]:
        """Exit code (None after the timeout), standard output, standard error. What git has started ends with it."""
        process: Optional[subprocess.Popen[bytes]] = None
        code: Optional[int] = None
        try:
            with _signals.deferred():
                process = subprocess.Popen(
                    [self._program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=dict(environment),
                    cwd="/",
                    start_new_session=True,
                    pass_fds=() if self.place.lock is None else (self.place.lock,),
                    preexec_fn=_prepare_child,
                )
            try:
                output, stderr = process.communicate(timeout=timeout)
                code = process.returncode
            except subprocess.TimeoutExpired:
                _process_group.kill(process.pid)
                output, stderr = process.communicate()
        finally:
            if process is not None:
                _process_group.kill(process.pid)
                process.wait()
                _process_group.await_end(process.pid)
        return code, output, stderr.decode("utf-8", "replace")


def program(path: str) -> str:
    """The path of git. Raises NodeopsError if it is not in ``path``."""
    found = shutil.which("git", path=path)
    if found is None:
        raise NodeopsError(
            "git is not installed on this host (not found in %s). Nothing was changed. Install git." % path
        )
    return found


def plain(address: str) -> str:
    """An address without credentials, as a process list may show it."""
    return split_credentials(address).plain


def _environment(path: str) -> Dict[str, str]:
    user = pwd.getpwuid(os.geteuid())
    environment = {
        "PATH": path,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "LANG": "C",
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_LITERAL_PATHSPECS": "1",
    }
    environment.update({name: os.environ[name] for name in _PASSED_ON if name in os.environ})
    return environment


def _quoted(path: str) -> str:
    """A path as a value of an ssh option. ssh understands quotes and replaces %."""
    return '"%s"' % path.replace("%", "%%")


def _content(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _prepare_child() -> None:
    """Let git be killed if this process is killed: it must not write on while another run begins."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)


def fields(output: bytes) -> List[str]:
    """The fields of output that git wrote with -z."""
    return [os.fsdecode(item) for item in output.split(b"\0") if item]
