# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Copies of the store elsewhere, by restic or rsync. Only good backups are copied, and never the key that signs them.

No lock is held meanwhile: backups do not change, and a restore must not wait for a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import tempfile
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address, _commands, _trusted_path
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _retention
from ansible_collections.nodeops.pm2.plugins.module_utils.store._store import Store
from ansible_collections.nodeops.pm2.plugins.module_utils.store._stored_backup import MANIFEST, VERIFIED, Backup

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "dest": {"type": "path", "required": True},
    "key_file": {"type": "path", "no_log": False},
    "tool": {"type": "str", "required": True, "choices": ["restic", "rsync"]},
    "check": {"type": "str", "choices": ["none", "structure", "data"], "default": "none"},
    "timeout": {"type": "float", "default": 21600},
    "password_file": {"type": "path", "no_log": False},
    # restic
    "repository": {"type": "str"},
    "repository_file": {"type": "path"},
    "credentials_file": {"type": "path"},
    "init": {"type": "bool", "default": False},
    "keep_last": {"type": "int"},
    "keep_daily": {"type": "int"},
    "keep_weekly": {"type": "int"},
    "keep_monthly": {"type": "int"},
    # rsync
    "target": {"type": "str"},
    "ssh_key_file": {"type": "path", "no_log": False},
    "known_hosts_file": {"type": "path"},
    "ssh_port": {"type": "int"},
    "delete": {"type": "bool", "default": False},
}
"""Times are in seconds. docs/backup.md explains each option."""

TAG = "nodeops.pm2"
_ONLY_RESTIC = ("repository", "repository_file", "credentials_file", "init", "keep_last", "keep_daily", "keep_weekly")
_ONLY_RSYNC = ("target", "ssh_key_file", "known_hosts_file", "ssh_port", "delete")
_WHAT = "the offsite copy"
_LISTING = 256 * 1024 * 1024  # bytes of restic's list of the files in a snapshot: about 400 for each
_VANISHED = {"restic": 3, "rsync": 24}
"""Exit codes for: something was removed while it was read."""
_WITH_PASSWORD = re.compile(r"://[^/@\s]*:(?!\d{1,5}/).*@", re.DOTALL)
_STATISTIC = re.compile(r"^(Number of [a-z ]+|Total [a-z ]+): ([0-9,.]+)", re.MULTILINE)


def run(params: Dict[str, Any], check_mode: bool, warn: Callable[[str], None]) -> Dict[str, Any]:
    """Copy the good backups of the store to the other place.

    Returns ``changed``, ``tool``, ``backups`` (ids that are there now), ``files`` and ``bytes`` (that were sent),
    ``snapshot`` (of restic), ``checked``. Raises NodeopsError; what is at the other place stays as it was.
    """
    tool = params["tool"]
    _check_options(params)
    store = Store(params["dest"], params.get("key_file"))
    good = [backup for backup in store.backups() if backup.good]
    if not good and check_mode:  # the steps before this one may be about to make the first
        return {"tool": tool, "backups": [], "changed": True, "files": 0, "bytes": 0}
    if not good:
        raise NodeopsError(
            "There is no good backup in %s. Nothing was copied, and the other place is as it was. Make a backup, or "
            "verify those that are there." % store.dest
        )
    for name, why in store.broken():
        warn("%s in %s was not copied: %s." % (name, store.dest, why))
    others = [backup.id for backup in store.backups() if not backup.good]
    if others:
        warn("Backups that are not verified as good were not copied: %s." % ", ".join(others))
    job = _Job(store, good, params, check_mode)
    result = _with_restic(job) if tool == "restic" else _with_rsync(job)
    return {"tool": tool, "backups": [backup.id for backup in good], **result}


class _Job(NamedTuple):
    store: Store
    backups: List[Backup]
    params: Dict[str, Any]
    check_mode: bool

    def call(
        self, argv: List[str], environment: Optional[Dict[str, str]] = None, limit: int = _commands.MAX_OUTPUT
    ) -> str:
        """Run it. Returns the last ``limit`` bytes that it prints. Raises CommandFailed."""
        environ = _commands.base_environment((), environment or {})
        redactor = Redactor()
        return _commands.output(argv, self.store.dest, environ, self.params["timeout"], redactor, _WHAT, limit)

    def copy(self, argv: List[str], environment: Optional[Dict[str, str]] = None) -> str:
        """The same, once more if a backup was removed meanwhile."""
        try:
            return self.call(argv, environment)
        except _commands.CommandFailed as error:
            if error.status != _VANISHED[self.params["tool"]]:
                raise
            return self.call(argv, environment)


def _check_options(params: Dict[str, Any]) -> None:
    tool = params["tool"]
    others = _ONLY_RSYNC if tool == "restic" else (*_ONLY_RESTIC, "keep_monthly")
    wrong = [name for name in others if params.get(name)]
    if wrong:
        raise NodeopsError("%s does not take %s. Nothing was copied." % (tool, ", ".join(wrong)))
    for name in ("password_file", "repository_file", "credentials_file", "ssh_key_file"):
        if params.get(name):
            _trusted_path.check_secret(params[name], name)
    place = params.get("repository") if tool == "restic" else params.get("target")
    if place and _WITH_PASSWORD.search(place):
        raise NodeopsError(
            "The address of the offsite copy has a password in it. Every user of this host could read that. Nothing "
            "was copied. %s"
            % ("Put the address into repository_file." if tool == "restic" else "Put the password into password_file.")
        )
    if tool == "restic" and bool(place) == bool(params.get("repository_file")):
        raise NodeopsError("restic needs either repository or repository_file. Nothing was copied.")
    if tool == "restic" and not params.get("password_file"):
        raise NodeopsError(
            "restic needs password_file, which holds the password of the repository. Nothing was copied."
        )
    if tool == "rsync" and not place:
        raise NodeopsError("rsync needs target, such as backup@host:/srv/backups/shop. Nothing was copied.")
    if place and place.startswith("-"):
        raise NodeopsError("%r is not a place to copy to. Nothing was copied." % _address.shown(place))
    for name in ("ssh_key_file", "known_hosts_file"):
        if re.search(r"[\s'\"]", params.get(name) or ""):
            raise NodeopsError(
                "%s cannot be %r: rsync takes no spaces or quotes there. Nothing was copied." % (name, params[name])
            )


# -- restic ----------------------------------------------------------------------------------------------------------


def _with_restic(job: _Job) -> Dict[str, Any]:
    params = job.params
    rules = _retention.parse({name: params.get(name) for name in params if name.startswith("keep_")})
    base = ["restic", "--password-file", params["password_file"]]
    base += ["--repo", params["repository"]] if params.get("repository") else []
    base += ["--repository-file", params["repository_file"]] if params.get("repository_file") else []
    environment = {}
    if params.get("credentials_file"):
        environment["AWS_SHARED_CREDENTIALS_FILE"] = params["credentials_file"]
    mine = ["--host", socket.gethostname(), "--path", os.path.realpath(job.store.dest)]

    def restic(*argv: str, limit: int = _commands.MAX_OUTPUT) -> str:
        return job.call([*base, *argv], environment, limit)

    state = "state-" + _state(job.backups)
    latest = _latest(restic, ["--tag", TAG, *mine], job)
    current = latest[-1] if latest else {}
    is_changed = state not in (current.get("tags") or ())
    if not is_changed:  # a snapshot that restic could not complete has its tags too
        is_changed = not _is_complete(restic("ls", "--json", current["id"], limit=_LISTING), job)
    result: Dict[str, Any] = {"changed": is_changed, "files": 0, "bytes": 0, "snapshot": current.get("short_id")}
    if is_changed and not job.check_mode:
        with _file_of(_excluded(job)) as excluded:
            argv = [*base, "backup", "--json", "--host", socket.gethostname(), "--tag", "%s,%s" % (TAG, state)]
            summary = _summary(job.copy([*argv, "--exclude-file", excluded, "."], environment))
        result["snapshot"] = summary.get("snapshot_id", "")[:8]
        result["files"] = summary.get("files_new", 0) + summary.get("files_changed", 0)
        result["bytes"] = summary.get("data_added", 0)
        if rules:
            restic("unlock")  # locks of runs that have ended
            counts = [("--keep-" + name, getattr(rules, name)) for name in _retention.COUNTS]
            keep = [word for name, count in counts if count for word in (name, str(count))]
            restic("forget", "--prune", "--tag", TAG, *mine, "--group-by", "host,paths", *keep)
    if not job.check_mode and params["check"] != "none":
        restic("check", *(["--read-data"] if params["check"] == "data" else []))
        result["checked"] = params["check"]
    return result


def _latest(restic: Callable[..., str], which: List[str], job: _Job) -> Any:
    """Our last snapshots. The repository is made if there is none. Raises NodeopsError."""
    try:
        return _json(restic("snapshots", "--json", "--latest", "1", *which))
    except NodeopsError as error:
        if not job.params["init"]:
            message = "%s Nothing was copied. If there is no repository yet, make it with init: true." % error
            raise NodeopsError(message, error.details) from error
        if not job.check_mode:
            try:
                restic("init")  # fails if there is one, and leaves it alone
            except NodeopsError:
                raise error from None
        return []


def _excluded(job: _Job) -> List[str]:
    """Patterns for restic. Without a directory a name would fit anywhere; ``$`` would be expanded."""
    dest = _escaped(os.path.realpath(job.store.dest))
    patterns = ["%s/%s" % (dest, name) for name in (".partial-*", ".removed-*", *_others(job))]
    return [pattern.replace("$", "$$") for pattern in patterns]


def _is_complete(listing: str, job: _Job) -> bool:
    """Whether a snapshot has every file of the backups, of the right size."""
    there = {}
    for line in listing.splitlines():
        with contextlib.suppress(ValueError):
            node = json.loads(line)
            if isinstance(node, dict) and node.get("type") == "file":
                there[node["path"]] = node.get("size", 0)
    for backup in job.backups:
        names = {MANIFEST, VERIFIED} | {each["name"] for each in backup.manifest["files"]}
        sizes = {each["name"]: each["size"] for each in backup.manifest["files"]}
        for name in names:
            size = there.get("/%s/%s" % (backup.id, name))
            if size is None or size != sizes.get(name, size):
                return False
    return True


def _json(text: str) -> Any:
    """The JSON in what restic printed."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            return found if found is not None else []
    raise NodeopsError("restic did not answer with JSON. Nothing was copied. It printed: %s" % text[-300:].strip())


def _summary(text: str) -> Dict[str, Any]:
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.get("message_type") == "summary":
                return found
    raise NodeopsError("restic printed no summary of the backup. It printed: %s" % text[-300:].strip())


def _state(backups: List[Backup]) -> str:
    """A word that stands for what there is to copy."""
    each = [(backup.id, backup.manifest["hmac"], backup.verification) for backup in backups]
    return hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()[:16]


# -- rsync -----------------------------------------------------------------------------------------------------------


def _with_rsync(job: _Job) -> Dict[str, Any]:
    params = job.params
    base = ["rsync", "--recursive", "--times", "--chmod=D0700,F0600", "--perms", "--stats", "--timeout=300"]
    base += ["--rsh=" + _ssh(params)] if _is_over_ssh(params["target"]) else []
    base += ["--password-file=" + params["password_file"]] if params.get("password_file") else []
    base += ["--delete", "--delete-excluded"] if params["delete"] else []
    places = ["--", job.store.dest + "/", params["target"].rstrip("/") + "/"]
    # What is there, and was not removed by this store, may be the last copy of a backup, or belong to others.
    gone = sorted(job.store.removed() - set(os.listdir(job.store.dest)))
    rules = ["R /%s/" % name for name in gone] + ["+ /%s/" % name for name in sorted(_ids(job))]
    with _file_of([*rules, "P /*", "- /*"]) as chosen:
        base.append("--filter=merge " + chosen)
        dry = ["--dry-run"] if job.check_mode else []
        done = _statistics(job.copy([*base, *dry, *places]))
        result: Dict[str, Any] = {
            "changed": any(done),
            "files": done[0],
            "bytes": done[2],
            "removed": done[1],
        }
        if params["check"] != "none" and not job.check_mode:
            again = [*base, "--dry-run"] + (["--checksum"] if params["check"] == "data" else [])
            differing, too_many, _bytes = _statistics(job.call([*again, *places]))
            if differing or too_many:
                raise NodeopsError(
                    "After the offsite copy, %d files there differ from those here, and %d there are not here. Run it "
                    "again with check: data." % (differing, too_many)
                )
            result["checked"] = params["check"]
    return result


def _is_over_ssh(target: str) -> bool:
    host, colon, rest = target.partition(":")
    return bool(colon) and "/" not in host and not rest.startswith((":", "//"))


def _ssh(params: Dict[str, Any]) -> str:
    words = ["ssh", "-oBatchMode=yes"]
    if params.get("ssh_port"):
        words += ["-p", "%d" % params["ssh_port"]]
    if params.get("ssh_key_file"):
        words += ["-oIdentitiesOnly=yes", "-i", params["ssh_key_file"]]
    if params.get("known_hosts_file"):
        words += ["-oStrictHostKeyChecking=yes", "-oUserKnownHostsFile=" + params["known_hosts_file"]]
    return " ".join(words)


def _statistics(text: str) -> Tuple[int, int, int]:
    """The numbers of files sent, files removed and bytes sent."""
    found = {name: int(re.sub("[,.]", "", number)) for name, number in _STATISTIC.findall(text)}
    try:
        return (
            found["Number of regular files transferred"],
            found.get("Number of deleted files", 0),
            found["Total transferred file size"],
        )
    except KeyError:
        raise NodeopsError("rsync printed no statistics. It printed: %s" % text[-300:].strip()) from None


# -- both ------------------------------------------------------------------------------------------------------------


def _others(job: _Job) -> List[str]:
    """Patterns for what is in the store and is not copied."""
    return [_escaped(name) for name in sorted(set(os.listdir(job.store.dest)) - _ids(job))]


def _ids(job: _Job) -> Set[str]:
    return {backup.id for backup in job.backups}


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", name)


@contextlib.contextmanager
def _file_of(lines: List[str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", prefix="nodeops-offsite-", errors="surrogateescape") as stream:
        stream.write("\n".join([*lines, ""]))
        stream.flush()
        yield stream.name
