# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Git repositories as a source: keep a mirror on the host, resolve a version to a commit, export its files."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shutil
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _address
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.source._git_command import (
    Git,
    GitFailed,
    RefNotFound,
    fields,
    plain,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.source._workspace import MAX_TEXT, disk_full, free

MIRROR = "mirror.git"
SUBMODULES = "submodules"
_MARK = "nodeops-address"
_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_OWN = "refs/nodeops/"  # refs that are fetched by name and are neither branch nor tag
_COMMIT = _OWN + "commit"  # protects a commit that was fetched by its id from git's garbage collection
_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_FULL = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,64}\Z")
_BAD_VERSION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[/.]$|\.lock$")
_NEAR = 4
_MAX_HOPS = 5
_LINK, _GITLINK = "120000", "160000"


def check_version(version: str) -> None:
    """Raises NodeopsError for what cannot be a branch, tag or commit."""
    if _BAD_VERSION.search(version):
        raise NodeopsError("The git version %r cannot be a branch, tag or commit. Nothing was changed." % version)


def _is_commit_id(version: str) -> bool:
    return bool(_FULL.match(version))


class Names(NamedTuple):
    """The names in a repository, and the commits that they mean."""

    objects: Dict[str, str]  # full name (refs/heads/x, HEAD) -> commit; annotated tags peeled
    starting_with: Callable[[str], List[str]]
    """The commits that an abbreviation may mean."""


def resolve(version: str, names: Names, address: str) -> Optional[str]:
    """The commit of a branch, a tag, a full name, or an abbreviated commit. None if there is no such name.

    Raises NodeopsError if it means more than one.
    """
    if version in names.objects:
        return names.objects[version]
    found = {kind: names.objects[kind + version] for kind in (_HEADS, _TAGS) if kind + version in names.objects}
    if len(set(found.values())) > 1:
        raise NodeopsError(
            "%r is a branch (%s) and a tag (%s) of %s. Nothing was changed. Give refs/heads/%s or refs/tags/%s."
            % (version, found[_HEADS][:12], found[_TAGS][:12], _address.shown(address), version, version)
        )
    if found:
        return next(iter(found.values()))
    if _ABBREVIATED.match(version.lower()):
        commits = sorted(set(names.starting_with(version.lower())))
        if len(commits) > 1:
            raise NodeopsError(
                "%r is the start of %d commits of %s (%s). Nothing was changed. Give more digits."
                % (version, len(commits), _address.shown(address), ", ".join(c[:16] for c in commits[:_NEAR]))
            )
        if commits:
            return commits[0]
    return None


def _not_found(version: str, names: Names, address: str) -> NodeopsError:
    shown = _address.shown(address)
    if not names.objects:
        return NodeopsError("The repository %s is empty: nothing was pushed to it. Nothing was changed." % shown)
    short = sorted({name.split("/", 2)[2] for name in names.objects if name.startswith((_HEADS, _TAGS))})
    if version == "HEAD":
        return NodeopsError(
            "The HEAD of %s names a branch that does not exist there. Nothing was changed. Give a version, such as: %s."
            % (shown, ", ".join(short[:_NEAR]))
        )
    near = difflib.get_close_matches(version, short, _NEAR) or short[:_NEAR]
    return NodeopsError(
        "%r is not a branch, tag or commit of %s. Nothing was changed. It has %s%s."
        % (version, shown, ", ".join(near), " and %d more" % (len(short) - len(near)) if len(short) > len(near) else "")
    )


def resolve_remotely(git: Git, version: str) -> Tuple[str, bool]:
    """The commit of a version, and whether its content is on this host. Writes nothing.

    A commit that no name leads to, and that is not on this host, is returned as it was given.
    """
    mirror = Mirror(git, os.path.join(git.place.private, MIRROR), git.address)
    usable = mirror.is_usable()
    if _is_commit_id(version) and usable and mirror.has(version):
        return mirror.peeled(version), True
    objects: Dict[str, str] = {}
    for line in git.remote(git.address, ["ls-remote", plain(git.address)]).decode("utf-8", "replace").splitlines():
        commit_id, _tab, name = line.partition("\t")
        # The commit of an annotated tag follows the tag itself.
        objects[name[:-3] if name.endswith("^{}") else name] = commit_id

    def starting_with(digits: str) -> List[str]:
        here = mirror.starting_with(digits) if usable else []
        return here or [commit for commit in objects.values() if commit.startswith(digits)]

    names = Names(objects, starting_with)
    commit = None if _is_commit_id(version) else resolve(version, names, git.address)
    if commit is None:
        if not objects or not _ABBREVIATED.match(version.lower()):
            raise _not_found(version, names, git.address)
        return version.lower(), False
    return commit, usable and mirror.has(commit)


class Mirror:
    """A bare copy of a repository. It is complete or does not exist: it is made elsewhere and renamed."""

    def __init__(self, git: Git, path: str, address: str) -> None:
        self.git = git
        self.path = path
        self.address = address

    def is_usable(self) -> bool:
        """Whether it exists and is a mirror of this repository."""
        try:
            with open(os.path.join(self.path, _MARK)) as stream:
                return stream.read() == self._mark()
        except OSError:
            return False

    def has(self, commit: str) -> bool:
        """Whether the mirror has a commit with its directories."""
        try:
            self.git.local(self.path, ["ls-tree", "-r", "-z", "--name-only", commit + "^{commit}"])
        except GitFailed:
            return False
        return True

    def peeled(self, name: str) -> str:
        """The commit of a name or an annotated tag. Raises GitFailed."""
        output = self.git.local(self.path, ["rev-parse", "--quiet", "--verify", name + "^{commit}"])
        return output.decode("ascii").strip()

    def starting_with(self, digits: str) -> List[str]:
        """The commits that an abbreviation may mean, also through annotated tags."""
        found = []
        for name in self.git.local(self.path, ["rev-parse", "--disambiguate=" + digits]).decode("ascii").split():
            try:
                found.append(self.peeled(name))
            except GitFailed:  # a file or a directory
                continue
        return found

    def ensure(self, version: str) -> str:
        """Fetch what ``version`` means now, and return the commit. Raises NodeopsError, GitFailed."""
        if self.is_usable():
            if _is_commit_id(version) and self.has(version):
                return self.peeled(version)  # a commit never changes
            with contextlib.suppress(GitFailed):  # not a fault of the remote repository: the mirror is damaged
                _remove_unfinished(self.path)
                self._fetch(self.path, version)
                return self._commit(version)
        self.recreate(version)
        return self._commit(version)

    def _commit(self, version: str) -> str:
        names = self._names()
        commit = self._by_id(version) if _is_commit_id(version) else resolve(version, names, self.address)
        if commit is None:
            raise _not_found(version, names, self.address)
        if not self.has(commit):
            raise GitFailed("the commit %s is incomplete" % commit)
        return commit

    def recreate(self, version: str) -> None:
        """Fetch everything into a new mirror, which replaces this one. Raises NodeopsError, GitFailed."""
        fresh = os.path.join(self.git.place.directory, "mirror")
        shutil.rmtree(fresh, ignore_errors=True)
        self.git.local(fresh, ["init", "--bare", "--quiet", "--template="])
        self._fetch(fresh, version)
        with open(os.path.join(fresh, _MARK), "w") as stream:
            stream.write(self._mark())
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        if os.path.lexists(self.path):
            old = os.path.join(self.git.place.directory, "old")
            os.rename(self.path, old)
        os.rename(fresh, self.path)
        if os.path.lexists(os.path.join(self.git.place.directory, "old")):
            _remove(os.path.join(self.git.place.directory, "old"))

    def discard(self) -> None:
        """Remove it so that an interruption does not leave half of it."""
        old = os.path.join(self.git.place.directory, "old")
        os.rename(self.path, old)
        _remove(old)

    def _mark(self) -> str:
        """A hash of the address, which itself may hold secrets."""
        return hashlib.sha256(plain(self.address).encode("utf-8", "surrogateescape")).hexdigest() + "\n"

    def _fetch(self, repository: str, version: str) -> None:
        refspecs = list(_REFSPECS)
        if version == "HEAD":
            refspecs.append("+HEAD:%sHEAD" % _OWN)
        elif version.startswith("refs/") and not version.startswith((_HEADS, _TAGS)):
            refspecs.append("+%s:%s%s" % (version, _OWN, version))
        fetch = ["fetch", "--quiet", "--prune", "--force", "--no-tags", plain(self.address)]
        try:
            self.git.remote(self.address, [*fetch, *refspecs], repository)
        except RefNotFound:
            if len(refspecs) == len(_REFSPECS):
                raise
            # Git fetches nothing if one name does not exist. The error message needs the names that exist.
            self.git.remote(self.address, [*fetch, *_REFSPECS], repository)
            self.git.local(repository, ["update-ref", "-d", refspecs[-1].partition(":")[2]])

    def _by_id(self, commit: str) -> Optional[str]:
        """A commit that no branch or tag leads to. Many servers give it if it is asked for by its id."""
        if not self.has(commit):
            refspec = "+%s:%s" % (commit, _COMMIT)
            try:
                self.git.remote(
                    self.address, ["fetch", "--quiet", "--no-tags", plain(self.address), refspec], self.path
                )
            except GitFailed:
                return None
            if not self.has(commit):
                return None
        return self.peeled(commit)

    def _names(self) -> Names:
        objects: Dict[str, str] = {}
        wanted = "--format=%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)"
        for line in self.git.local(self.path, ["for-each-ref", wanted]).decode("utf-8", "surrogateescape").splitlines():
            name, kind, target, peeled_kind, peeled = line.split("\0")
            if kind == "tag":
                kind, target = peeled_kind, peeled
            if kind == "tag":  # a tag of a tag
                try:
                    kind, target = "commit", self.peeled(name)
                except GitFailed:
                    continue
            if kind == "commit":
                objects[name] = target
        for name in [name for name in objects if name.startswith(_OWN)]:
            target = objects.pop(name)
            if name != _COMMIT:
                objects[name[len(_OWN) :]] = target
        return Names(objects, self.starting_with)

    def read_file(self, commit: str, path: str) -> Optional[bytes]:
        """A file of a commit, or None. Links in the repository are followed. Raises GitFailed."""
        for _hop in range(_MAX_HOPS):
            found = fields(self.git.local(self.path, ["ls-tree", "-z", commit, "--", path]))
            if len(found) != 1:
                return None
            mode, kind, name = found[0].partition("\t")[0].split(" ")
            if kind != "blob":
                return None
            if int(self.git.local(self.path, ["cat-file", "-s", name])) > MAX_TEXT:
                raise NodeopsError(
                    "%s in %s is larger than %d bytes, so it was not read."
                    % (path, _address.shown(self.address), MAX_TEXT)
                )
            content = self.git.local(self.path, ["cat-file", "blob", name])
            if mode != _LINK:
                return content
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.fsdecode(content)))
            if path.startswith(("/", "../")) or path == "..":
                return None
        return None

    def export(self, commit: str, dest: str) -> List[Tuple[str, str]]:
        """Write the content of a commit, without .git, into the empty directory ``dest``.

        Returns the submodules: their paths (empty directories now) and commits. Raises GitFailed, NodeopsError.
        """
        index = {"GIT_INDEX_FILE": os.path.join(self.git.place.directory, "index"), "GIT_WORK_TREE": dest}
        try:
            self.git.local(self.path, ["read-tree", commit], index)
            self.git.local(self.path, ["checkout-index", "--all", "--force", "--quiet"], index)
            entries = fields(self.git.local(self.path, ["ls-files", "--stage", "-z"], index))
        except GitFailed:
            self._check_room(commit, dest)
            raise
        finally:
            if os.path.lexists(index["GIT_INDEX_FILE"]):
                os.unlink(index["GIT_INDEX_FILE"])
        split = [entry.partition("\t") for entry in entries if entry.startswith(_GITLINK)]
        return [(path, head.split(" ")[1]) for head, _tab, path in split]

    def _check_room(self, commit: str, dest: str) -> None:
        """Raises NodeopsError if the disk has no room for the commit. Git does not say why it could not write."""
        _empty(dest)
        lines = fields(self.git.local(self.path, ["ls-tree", "-r", "-l", "-z", commit]))
        sizes = [line.partition("\t")[0].split()[3] for line in lines]
        if sum(int(size) for size in sizes if size.isdigit()) > free(dest):
            raise disk_full(dest)

    def submodules(self, commit: str) -> Dict[str, Dict[str, str]]:
        """What .gitmodules says about each path: url, update ..."""
        try:
            wanted = ["config", "--blob", commit + ":.gitmodules", "-z", "--list"]
            items = fields(self.git.local(self.path, wanted))
        except GitFailed:  # the file does not exist
            return {}
        sections: Dict[str, Dict[str, str]] = {}
        for item in items:
            key, _newline, value = item.partition("\n")
            first, _dot, rest = key.partition(".")
            name, _dot, option = rest.rpartition(".")
            if first == "submodule" and name:
                sections.setdefault(name, {})[option] = value
        return {section["path"].rstrip("/"): section for section in sections.values() if "path" in section}


def ensure(git: Git, version: str) -> str:
    """Fetch what ``version`` means into the mirror of the source, and return the commit."""
    return Mirror(git, os.path.join(git.place.private, MIRROR), git.address).ensure(version)


def read_file(git: Git, commit: str, path: str) -> Optional[bytes]:
    """A file of a commit, from the mirror of the source. None if the file or the mirror does not exist."""
    mirror = Mirror(git, os.path.join(git.place.private, MIRROR), git.address)
    return mirror.read_file(commit, path) if mirror.is_usable() and mirror.has(commit) else None


def export(git: Git, commit: str, dest: str, submodules: bool) -> None:
    """Write a commit, and its submodules, into the empty directory ``dest``. Raises NodeopsError and GitFailed."""
    mirror = Mirror(git, os.path.join(git.place.private, MIRROR), git.address)
    used: Set[str] = set()
    _export(mirror, commit, dest, submodules, used)
    cache = os.path.join(git.place.private, SUBMODULES)
    for name in os.listdir(cache) if os.path.isdir(cache) else []:
        if name not in used:
            Mirror(git, os.path.join(cache, name), "").discard()


def _export(mirror: Mirror, commit: str, dest: str, submodules: bool, used: Set[str]) -> None:
    mirror.ensure(commit)
    try:
        gitlinks = mirror.export(commit, dest)
    except GitFailed:
        _empty(dest)
        mirror.recreate(commit)
        mirror.ensure(commit)
        gitlinks = mirror.export(commit, dest)
    if not submodules or not gitlinks:
        return
    described = mirror.submodules(commit)
    for path, wanted in gitlinks:
        description = described.get(path, {})
        if description.get("update") == "none":
            continue
        address = _submodule_address(mirror.address, path, description.get("url", ""))
        name = hashlib.sha256(plain(address).encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".git"
        used.add(name)
        inner = Mirror(mirror.git, os.path.join(mirror.git.place.private, SUBMODULES, name), address)
        target = os.path.join(dest, path)
        if os.path.realpath(target) != os.path.join(os.path.realpath(dest), path):
            raise NodeopsError(
                "The path of the submodule %s leads through a link. Nothing was deployed. Correct it in the repository."
                % path
            )
        os.makedirs(target, exist_ok=True)
        try:
            _export(inner, wanted, target, submodules, used)
        except NodeopsError as error:
            raise NodeopsError("Submodule %s: %s" % (path, error)) from error


def _submodule_address(parent: str, path: str, url: str) -> str:
    if not url:
        raise NodeopsError(
            "%s has the submodule %s without an address in .gitmodules. Nothing was deployed. Remove or correct it in "
            "the repository." % (_address.shown(parent), path)
        )
    address = _address.join(parent, url) if url.startswith(("./", "../")) else url
    try:
        _address.check_repository(address)
    except NodeopsError as error:
        raise NodeopsError("Submodule %s: %s" % (path, error)) from error
    if _address.is_local(address) and not _address.is_local(parent):
        raise NodeopsError(
            "The submodule %s has the address %s, which is on the host itself. A repository from elsewhere may not "
            "refer to the host. Nothing was deployed." % (path, address)
        )
    return address


def _remove_unfinished(repository: str) -> None:
    """Remove what a killed git has left: locks, which would stop the next one, and incomplete packs."""
    for directory, _directories, names in os.walk(repository):
        for name in names:
            if name.endswith(".lock") or name.startswith(("tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_obj_")):
                os.unlink(os.path.join(directory, name))


def _empty(directory: str) -> None:
    for name in os.listdir(directory):
        _remove(os.path.join(directory, name))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)
