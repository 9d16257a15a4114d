# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pm2_dump_backup: back up the dump and the environment files, verify, remove old ones."""

from __future__ import annotations

import contextlib
from typing import AbstractSet, Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _process_options
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump, _resurrectable
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _dump_content, _dump_restore, _env_files
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._dump_content import Content
from ansible_collections.nodeops.pm2.plugins.module_utils.store import (
    _encryption,
    _retention,
    _store,
    _store_options,
    _stored_backup,
)

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    **_process_options.CONNECTION,
    **_store_options.STORE,
    "state": {"type": "str", "choices": ["present", "verified", "restored", "pruned"], "default": "present"},
    "namespace": {"type": "str"},
    "files": {"type": "list", "elements": "str", "default": []},
    "allow_empty": {"type": "bool", "default": False},
    "backup": {"type": "str", "default": _stored_backup.LATEST},
    "parts": {"type": "list", "elements": "str", "choices": ["dump", "files"]},
    "apply": {"type": "bool", "default": False},
    "ready": _process_options.READY,
}
"""All options of the module."""

Warn = Callable[[str], None]

_NOT_BACKED_UP = "Nothing was backed up"
_ONLY = {"present": ("allow_empty",), "restored": ("apply", "parts")}


class _Call(NamedTuple):
    params: Dict[str, Any]
    check_mode: bool
    warn: Warn
    home: str
    rules: Optional[_retention.Rules]
    store: _store.Store

    @property
    def scope(self) -> _stored_backup.Scope:
        return _stored_backup.PM2, self.params["environment"], self.params["namespace"], ()

    def locked(self, what: str) -> ContextManager[None]:
        if self.check_mode:
            return contextlib.nullcontext()
        return self.store.lock(what, self.params["lock_timeout"])


def run(params: Dict[str, Any], check_mode: bool, warn: Warn) -> Dict[str, Any]:
    """The module's result; ``params`` has every option of ``ARGUMENTS``. Raises NodeopsError."""
    state = params["state"]
    for owner, names in _ONLY.items():
        given = [name for name in names if params[name]]
        if given and state != owner:
            raise NodeopsError("%s goes with state %s, not %s. Nothing was changed." % (given[0], owner, state))
    if params["namespace"] is not None:
        check_namespace(params["namespace"])
    home = params["pm2_home"] or _daemon.default_home()
    _daemon.check_home(home)
    _env_files.check_paths(params["files"], params["dest"])
    _encryption.check_recipients(params["age_recipients"])
    rules = _retention.parse(params)
    store = _store.Store(params["dest"], params["key_file"], state == "present", check_mode)
    call = _Call(params, check_mode, warn, home, rules, store)
    return {"present": _present, "verified": _verified, "restored": _restored, "pruned": _pruned}[state](call)


# -- present -----------------------------------------------------------------------------------------------------------


def _present(call: _Call) -> Dict[str, Any]:
    with call.locked(_NOT_BACKED_UP):
        content = _collected(call)
        newest = _newest(call)
        problems = _resurrectable.text(_resurrectable.problems(content.entries))
        backup = newest if newest and _holds(call, newest, content) else None
        result: Dict[str, Any] = {"changed": backup is None, "diff": _difference(newest, content, backup is None)}
        if not call.check_mode:
            if backup is None:
                backup = _written(call, content)
            backup = call.store.note_verified(backup, "resurrectable", problems)
        if problems:
            call.warn(
                "What was backed up could not be brought back on this host, so it does not count as a good backup: %s."
                % "; ".join(problems)
            )
        result.update(problems=problems, backup=described(backup) if backup else None)
        if backup is None:
            return dict(result, **_foreseen(call, is_good=not problems))
        return dict(result, **_pruning(call, is_good=not problems))


def _collected(call: _Call) -> Content:
    """What there is now. Raises NodeopsError, which names the newest good backup, if something is lost."""
    try:
        content = _dump_content.collect(call.home, call.params["namespace"], call.params["files"])
    except NodeopsError as error:
        raise NodeopsError("%s %s" % (error, _way_back(call)), error.details) from error
    good = _newest_good(call)
    if content.source != _dump.path_of(call.home):
        _check_substitute(call, content, good)
    if not content.entries and not call.params["allow_empty"] and good and _count(good):
        raise NodeopsError(
            "The dump %s holds no process%s, and the newest good backup holds %d. %s. If this is a loss: %s If it is "
            "intended, set allow_empty." % (content.source, _of(call), _count(good), _NOT_BACKED_UP, _way_back(call))
        )
    return content


def _check_substitute(call: _Call, content: Content, good: Optional[_stored_backup.Backup]) -> None:
    """The dump's ``.bak`` was saved earlier. It is older than the newest good backup, unless it means the same."""
    lost = "%s is missing or broken" % _dump.path_of(call.home)
    if good and good.manifest["content"]["fingerprint"] != content.fingerprint(call.store.key):
        raise NodeopsError(
            "%s. A resurrect would take %s%s instead, and that, or an environment file, differs from the newest good "
            "backup. %s. Save what runs (nodeops.pm2.pm2_save), or rename %s if it is right. %s"
            % (lost, content.source, _of(call), _NOT_BACKED_UP, content.source, _way_back(call))
        )
    call.warn("%s. %s, which a resurrect would take instead, was backed up." % (lost, content.source))


def _of(call: _Call) -> str:
    namespace = call.params["namespace"]
    return "" if namespace is None else " of namespace %s" % namespace


def _newest(call: _Call) -> Optional[_stored_backup.Backup]:
    backups = call.store.backups(scope=call.scope) if call.store.exists else []
    return backups[-1] if backups else None


def _newest_good(call: _Call) -> Optional[_stored_backup.Backup]:
    good = [each for each in call.store.backups(scope=call.scope) if each.good] if call.store.exists else []
    return good[-1] if good else None


def _way_back(call: _Call) -> str:
    good = _newest_good(call)
    if good is None:
        return "There is no good backup of it in %s." % call.store.dest
    return "The newest good backup is %s, with %d processes; state: restored brings it back." % (good.id, _count(good))


def _count(backup: _stored_backup.Backup) -> int:
    return sum(len(names) for names in backup.manifest["content"]["namespaces"].values())


def _holds(call: _Call, backup: _stored_backup.Backup, content: Content) -> bool:
    """Whether the backup is intact, means the same, and is encrypted for the same."""
    recorded = backup.manifest["content"]
    if recorded["recipients"] != sorted(call.params["age_recipients"]):
        return False
    if recorded["fingerprint"] != content.fingerprint(call.store.key):
        return False
    damage = call.store.check_files(backup)
    if damage:
        call.warn("Backup %s is damaged: %s. A new one is made." % (backup.id, "; ".join(damage)))
        if not call.check_mode:
            call.store.note_verified(backup, "bytes", damage)
    return not damage


def _written(call: _Call, content: Content) -> _stored_backup.Backup:
    params = call.params
    with call.store.draft(_stored_backup.PM2) as draft:
        _dump_content.write(draft, content, params["age_recipients"])
        recorded = {
            "namespaces": content.namespaces(),
            "files": _env_files.names(content.files),
            "source": content.source,
            "recipients": sorted(params["age_recipients"]),
            "fingerprint": content.fingerprint(call.store.key),
        }
        backup = draft.commit(params["environment"], params["namespace"], _tools(params), recorded)
    damage = call.store.check_files(backup)
    if not damage and _dump_content.is_readable(backup, None):
        # Read back from the disk, to see what was really written.
        again = _dump_content.load(call.store, backup, None)
        if again.fingerprint(call.store.key) != content.fingerprint(call.store.key):
            damage = ["what is read back differs from what was written"]
    if damage:
        call.store.remove(backup)
        raise NodeopsError(
            "The backup just written cannot be read back: %s. It was removed. Look at the disk of %s."
            % ("; ".join(damage), call.store.dest)
        )
    _points.reached("dump backup read back")
    return backup


def _tools(params: Dict[str, Any]) -> Dict[str, str]:
    try:
        return {"pm2": "%d.%d.%d" % _daemon.find_executable(params["pm2_executable"]).version}
    except NodeopsError:
        return {}


def _difference(newest: Optional[_stored_backup.Backup], content: Content, is_changed: bool) -> Dict[str, str]:
    """The diff. It has only names."""
    before: List[str] = []
    if newest is not None:
        recorded = newest.manifest["content"]
        before = _lines(recorded["namespaces"], recorded["files"])
    after = _lines(content.namespaces(), _env_files.names(content.files))
    if is_changed and before == after:
        after.append("(the same names, with other values)\n")
    return {
        "before_header": newest.id if newest else "no backup",
        "after_header": "now",
        "before": "".join(before),
        "after": "".join(after),
    }


def _lines(namespaces: Dict[str, List[str]], files: List[str]) -> List[str]:
    processes = [
        "%s %s x %d\n" % (namespace, name, names.count(name))
        for namespace, names in sorted(namespaces.items())
        for name in sorted(set(names))
    ]
    return processes + ["%s\n" % path for path in sorted(files)]


def described(backup: _stored_backup.Backup) -> Dict[str, Any]:
    """A backup as modules return it."""
    recorded = backup.manifest["content"]
    return {
        "id": backup.id,
        "path": backup.path,
        "created": backup.manifest["created"],
        "environment": backup.manifest["environment"],
        "namespaces": sorted(recorded["namespaces"]),
        "processes": _count(backup),
        "files": recorded["files"],
        "size": backup.size,
        "encrypted": bool(recorded["recipients"]),
        "verified": backup.good,
    }


# -- verified ----------------------------------------------------------------------------------------------------------


def _verified(call: _Call) -> Dict[str, Any]:
    with call.locked("Nothing was verified"):
        backup = _chosen(call, only_good=False)
        for name, why in call.store.broken():
            call.warn("%s in the store is not a backup that can be trusted: %s." % (name, why))
        how, problems = _verification(call, backup)
        if not call.check_mode:
            backup = call.store.note_verified(backup, _noted(backup, how, problems), problems)
        result = {"changed": False, "backup": described(backup), "problems": problems, "how": how}
        if problems:
            good = _newest_good(call)
            advice = "It cannot be latest, and the keep rules do not count it. "
            advice += "The newest good one is %s." % good.id if good else "There is no good one."
            raise NodeopsError(
                "Backup %s is not good: %s. %s" % (backup.id, "; ".join(problems), advice), dict(result, changed=False)
            )
        return result


def _verification(call: _Call, backup: _stored_backup.Backup) -> Tuple[str, List[str]]:
    damage = call.store.check_files(backup)
    if damage:
        return "bytes", damage
    identity = call.params["age_identity_file"]
    if _dump_content.is_readable(backup, identity):
        content = _dump_content.load(call.store, backup, identity)
        return "resurrectable", _resurrectable.text(_resurrectable.problems(content.entries))
    call.warn("Backup %s is encrypted, and there is no age_identity_file: only its bytes were verified." % backup.id)
    former = backup.verification
    return "bytes", list(former["problems"]) if former and former["how"] != "bytes" else []


def _noted(backup: _stored_backup.Backup, how: str, problems: List[str]) -> str:
    """How it was verified. If an earlier verification has found more than reading the bytes can, that one stays."""
    former = backup.verification
    return former["how"] if former and how == "bytes" and problems == former["problems"] else how


def _chosen(call: _Call, only_good: bool, but: AbstractSet[str] = frozenset()) -> _stored_backup.Backup:
    """The backup that the options name. For one namespace, a backup of all namespaces will do if it has that one."""
    wanted, scope = call.params["backup"], call.scope
    namespace = call.params["namespace"]
    if wanted == _stored_backup.LATEST:
        return _latest(call, only_good, but)
    backup = call.store.find(wanted, _stored_backup.PM2)
    if _fits(backup, scope):
        return backup
    if backup.manifest["environment"] == call.params["environment"] and backup.manifest["namespace"] is None:
        raise NodeopsError(
            "Backup %s does not hold namespace %s. Nothing was changed. It holds: %s."
            % (backup.id, namespace, ", ".join(sorted(backup.manifest["content"]["namespaces"])) or "none")
        )
    return call.store.find(wanted, _stored_backup.PM2, scope)


def _latest(call: _Call, only_good: bool, but: AbstractSet[str]) -> _stored_backup.Backup:
    found = [each for each in call.store.backups(_stored_backup.PM2) if _fits(each, call.scope)]
    if found and not only_good:
        return found[-1]
    found = [each._replace(verification=None) if each.id in but else each for each in found]
    return call.store.newest_good(found, _stored_backup.described(call.scope))


def _fits(backup: _stored_backup.Backup, scope: _stored_backup.Scope) -> bool:
    _kind, environment, namespace, _databases = scope
    if backup.manifest["environment"] != environment:
        return False
    if backup.manifest["namespace"] == namespace:
        return True
    return backup.manifest["namespace"] is None and namespace in backup.manifest["content"]["namespaces"]


# -- restored and pruned -----------------------------------------------------------------------------------------------


def _restored(call: _Call) -> Dict[str, Any]:
    with call.locked("Nothing was restored"):
        backup = _intact(call)
        content = _dump_content.load(call.store, backup, call.params["age_identity_file"])
        is_whole = backup.manifest["namespace"] == call.params["namespace"]
        restore = _dump_restore.Restore(
            call.params, call.home, backup.id, content, is_whole, call.store.key, call.check_mode, call.warn
        )
        return dict(restore.run(), backup=described(backup))


def _intact(call: _Call) -> _stored_backup.Backup:
    """The backup that the options name, with all its bytes verified. For latest: the newest one that is intact."""
    damaged: Set[str] = set()
    while True:
        backup = _chosen(call, only_good=True, but=damaged)
        damage = call.store.check_files(backup)
        if not damage:
            return backup
        if not call.check_mode:
            call.store.note_verified(backup, "bytes", damage)
        text = "Backup %s is damaged: %s." % (backup.id, "; ".join(damage))
        if call.params["backup"] != _stored_backup.LATEST:
            raise NodeopsError("%s Nothing was restored. %s" % (text, _way_back(call)))
        call.warn(text + " The newest good backup before it is used.")
        damaged.add(backup.id)


def _pruned(call: _Call) -> Dict[str, Any]:
    if call.rules is None:
        raise NodeopsError("state pruned needs at least one keep option. Nothing was removed. Give keep_last, for one.")
    if not call.store.exists:
        raise NodeopsError("There is no backup store at %s. Nothing was removed." % call.store.dest)
    with call.locked("Nothing was removed"):
        result = _pruning(call, is_good=True)
        return dict(result, changed=bool(result["removed"]))


def _foreseen(call: _Call, is_good: bool) -> Dict[str, Any]:
    """What would be removed after the backup that check mode does not make."""
    if call.rules is None or not call.store.exists or not is_good:
        return _pruning(call, is_good)
    return _retention.told(
        _retention.foresee(call.store.backups(scope=call.scope), call.rules, _stored_backup.now()), call.warn
    )


def _pruning(call: _Call, is_good: bool) -> Dict[str, Any]:
    """What the keep rules remove. After a backup that is not good they remove nothing."""
    if call.rules is None or not call.store.exists:
        return {}
    if not is_good:
        return {"removed": [], "kept": [each.id for each in call.store.backups(scope=call.scope)], "reasons": {}}
    return _retention.told(
        _retention.prune(call.store, call.scope, call.rules, _stored_backup.now(), call.check_mode), call.warn
    )
