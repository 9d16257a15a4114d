# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Bring back what a backup holds: environment files, dump, and with ``apply`` the live processes.

Each namespace is a transaction of its own. If files of running processes change, everything is one transaction: if one
namespace fails, the files and every namespace are put back. ``_restore_note`` keeps the former state across a kill -9.
So the next restore knows what to renew, and what to go back to. What was changed after the kill is not overwritten by
that former state. Restores into one PM2 wait for each other, whatever their stores.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, cast

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _dotenv
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _points, _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import (
    COMMITTED,
    UNDO_FAILED,
    UNDONE,
    NodeopsError,
    Outcome,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import _checks, _journal, _resurrect
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import ours
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump, _resurrectable
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup import _env_files, _restore_note
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._dump_content import Content
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._env_files import EnvFile
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2_backup._restore_note import Former, FormerFile, Unfinished
from ansible_collections.nodeops.pm2.plugins.module_utils.store import _signing

_READY_AGAIN: Dict[str, Any] = {"timeout": 60, "min_uptime": 1, "http": [], "tcp": [], "log": []}
"""The checks of former processes that are put back: they have to run."""


class Restore:
    """One restore. ``is_whole``: the backup holds no more than what is asked for. ``key``: that of its store."""

    def __init__(
        self,
        params: Dict[str, Any],
        pm2_home: str,
        backup: str,
        content: Content,
        is_whole: bool,
        key: _signing.Key,
        check_mode: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._params = params
        self._home = pm2_home
        self._executable: Optional[str] = params["pm2_executable"]
        self._backup = backup
        self._key = key
        self._check_mode = check_mode
        self._warn = warn
        parts = params["parts"] or ["dump", "files"]
        namespace = params["namespace"]
        self._with_dump = "dump" in parts
        self._namespaces = list(content.namespaces()) if namespace is None else [namespace]
        self._entries = [entry for entry in content.entries if _dump.namespace_of(entry) in self._namespaces]
        self._files = self._chosen_files(content.files, is_whole) if "files" in parts else []
        self._formers: Dict[str, Former] = {}
        self._former_files: Dict[str, FormerFile] = {}
        self._dump_before: List[str] = []

    def _chosen_files(self, files: List[EnvFile], is_whole: bool) -> List[EnvFile]:
        """Those that the option ``files`` names. Without it all, unless the backup is also of other namespaces."""
        wanted = self._params["files"]
        unknown = sorted(set(wanted) - {each.path for each in files})
        if unknown:
            text = "Backup %s does not hold %s (it holds: %s)." % (
                self._backup,
                ", ".join(unknown),
                ", ".join(_env_files.names(files)) or "no file",
            )
            if len(unknown) == len(wanted):
                raise NodeopsError(text + " Nothing was restored.")
            self._warn(text)
        if wanted:
            return [each for each in files if each.path in wanted]
        if is_whole or not files:
            return files
        if self._params["parts"] and "files" in self._params["parts"]:
            raise NodeopsError(
                "Backup %s is of all namespaces, and its files may belong to any of them. Nothing was restored. Name "
                "in files those that belong to namespace %s: %s."
                % (self._backup, self._namespaces[0], ", ".join(_env_files.names(files)))
            )
        return []

    def run(self) -> Dict[str, Any]:
        """The module's result. Raises NodeopsError; its outcome tells what was put back."""
        _checks.parse(self._params["ready"])
        for each in self._files:
            _env_files.check(each)
        if self._check_mode:
            return self._run()
        os.makedirs(self._home, mode=0o700, exist_ok=True)
        with _restore_note.lock(self._home, self._params["lock_timeout"]):
            return self._run()

    def _run(self) -> Dict[str, Any]:
        changed = [each for each in self._files if _env_files.differs(each)]
        self._dump_before = _lines(_dump.read(self._home).entries, self._namespaces)
        return self._bring(changed) if self._params["apply"] else self._put(changed)

    # -- without the processes ---------------------------------------------------------------------------------------

    def _put(self, changed: List[EnvFile]) -> Dict[str, Any]:
        """Restore files and dump. Running processes stay as they are."""
        problems = _resurrectable.text(_resurrectable.problems(self._entries)) if self._with_dump else []
        if problems:
            self._warn("A resurrect could not bring back all of it on this host: %s." % "; ".join(problems))
        writes = self._with_dump and _dump.would_replace(self._home, self._namespaces, self._entries)
        if not self._check_mode and (changed or writes):
            former = {each.path: FormerFile(_env_files.look(each.path), []) for each in changed}
            try:
                self._put_files(changed)
                if writes:
                    self._tell_put_aside()
                    _dump.replace(self._home, self._namespaces, self._entries)
                _points.reached("dump restored")
            except BaseException:
                _put_back_files(former)
                raise
        return self._result(bool(changed or writes), changed, [], writes, problems)

    def _put_files(self, changed: List[EnvFile]) -> None:
        for each in changed:
            _env_files.put(each)
            _points.reached("environment file put")

    def _tell_put_aside(self) -> None:
        dump = _dump.read(self._home)
        if dump.problem and dump.source is None:
            self._warn(
                "%s. Both were kept as .broken. Their other namespaces are not in the dump now: bring those back from "
                "a backup." % dump.problem
            )

    # -- with the processes ------------------------------------------------------------------------------------------

    def _bring(self, changed: List[EnvFile]) -> Dict[str, Any]:
        unfinished = _restore_note.find(self._home, self._namespaces)
        again = bool(changed or unfinished)
        if self._check_mode:
            return self._brought(changed, {each: self._bring_one(each, again, None) for each in self._namespaces})
        self._former_files = {each.path: FormerFile(_env_files.look(each.path), []) for each in changed}
        daemon = _daemon.find_listening(self._home)
        self._remember(daemon)
        for note in unfinished.values():
            self._take_over(note, daemon)
        files = _Once(lambda: _put_back_files(self._former_files))
        is_one = again and any(former.runs for former in self._formers.values())
        if self._with_dump:
            self._tell_put_aside()
            _dump.put_aside(self._home)
        if again:
            self._note()
            _points.reached("restore noted")
        results: Dict[str, Dict[str, Any]] = {}
        failures: Dict[str, NodeopsError] = {}
        try:
            self._put_files(changed)
            for namespace in self._namespaces:
                try:
                    results[namespace] = self._bring_one(namespace, again, files.run if is_one else None)
                    _points.reached("namespace restored")
                except NodeopsError as error:
                    if is_one or isinstance(error, _signals.Interrupted):
                        raise
                    failures[namespace] = error
            if failures and not results and not any(map(_is_committed, failures.values())):
                try:
                    files.run()
                except NodeopsError as error:
                    raise NodeopsError("%s %s" % (self._failed(failures, results, changed), error)) from error
        except BaseException as error:
            if _is_committed(error):  # the rest stays as well; because of the note the next run checks again
                cast(NodeopsError, error).details.update(changed=True, restored_namespaces=list(results))
            else:
                self._put_back(error, files, results, again)
            raise
        if _are_as_before(failures):
            self._settle()
        if failures:
            raise self._failed(failures, results, changed)
        return self._brought(changed, results)

    def _remember(self, daemon: Optional[Daemon]) -> None:
        """Note the former state of each namespace."""
        everything = daemon.read() if daemon else []
        dump = _dump.read(self._home).entries
        for namespace in self._namespaces:
            live = ours(everything, namespace)
            entries = _dump.entries_of(process.pm2_env for process in live)
            runs = any(process.running for process in live)
            self._formers[namespace] = Former(entries, _dump.of_namespace(dump, namespace), runs, [])

    def _take_over(self, note: Unfinished, daemon: Optional[Daemon]) -> None:
        """Take the former state from the note of a killed restore, if nothing has changed since.

        If that restore was also of other namespaces, only our files are taken.
        """
        others = [name for name in note.namespaces if name not in self._formers]
        ours = set(_env_files.names(self._files))
        for name, former in note.namespaces.items():
            if name not in self._formers:
                continue
            is_settled = daemon is not None and _journal.read(self._home, name) is None
            if former.is_untouched(self._formers[name], is_settled, self._key):
                self._formers[name] = former
            else:
                self._tell_newer("Namespace %s" % name, note)
        for path, noted in note.files.items():
            if others and path not in ours:
                continue
            now = _env_files.look(path)
            if noted.is_untouched(now, self._key):
                self._former_files[path] = noted
            else:
                self._former_files[path] = FormerFile(now, [])
                self._tell_newer(path, note)
        if others:
            self._warn(
                "An interrupted restore of backup %s was also of namespace %s. Restore that too."
                % (note.backup, ", ".join(others))
            )

    def _tell_newer(self, what: str, note: Unfinished) -> None:
        self._warn(
            "%s was changed after the restore of backup %s was killed. If this restore fails, it is put back as it is "
            "now, not as it was before that one." % (what, note.backup)
        )

    def _note(self) -> None:
        """Write down the former state, with the marks of what is going to replace it."""
        files = dict(self._former_files)
        for each in self._files:
            if each.path in files:
                former = files[each.path]
                files[each.path] = former._replace(marks=[*former.marks, _restore_note.mark_of_file(each, self._key)])
        namespaces = {}
        for name, before in self._formers.items():
            entries = _dump.of_namespace(self._entries, name)
            mark = [_restore_note.mark_of_entries(entries, self._key)] if self._with_dump else []
            namespaces[name] = before._replace(marks=before.marks + mark)
        _restore_note.write(self._home, self._params["namespace"], Unfinished(self._backup, files, namespaces))

    def _settle(self) -> None:
        try:
            _restore_note.settle(self._home, self._namespaces, set(self._former_files))
        except NodeopsError as error:
            self._warn("That the restore is over could not be noted: %s The next one will renew all processes." % error)

    def _bring_one(self, namespace: str, again: bool, revert: Optional[Callable[[], None]]) -> Dict[str, Any]:
        ready = self._params["ready"]
        if self._with_dump:
            entries = _dump.of_namespace(self._entries, namespace)
            return _resurrect.bring(
                self._home,
                self._executable,
                namespace,
                entries,
                ready,
                self._check_mode,
                save=True,
                prune=True,
                again=again,
                warn=self._warn,
                revert=revert,
                redactor=self._redactor(),
            )
        if not again:
            return {"changed": False, "actions": [], "processes": [], "saved": False, "recovered": None, "diff": None}
        return _resurrect.renew(
            self._home, self._executable, namespace, ready, self._check_mode, self._warn, revert, self._redactor()
        )

    def _redactor(self) -> Redactor:
        """It knows the values in the files: processes read them, and their log is shown if they fail."""
        redactor = Redactor()
        formers = [former.file for former in self._former_files.values() if former.file]
        for each in self._files + formers:
            redactor.add_environment(dict(_dotenv.parse(each.data.decode("utf-8", "replace"))))
        return redactor

    def _put_back(self, error: BaseException, files: "_Once", results: Dict[str, Dict[str, Any]], is_one: bool) -> None:
        """Put back the files, and then the namespaces that were brought. The one that failed has put itself back.

        If this is not one transaction (``is_one``), the namespaces that were brought stay.
        """
        problems = []
        try:
            files.run()
        except NodeopsError as second:
            problems.append(str(second))
        _points.reached("files put back")
        for namespace in results if is_one else ():
            former = self._formers[namespace]
            try:
                _resurrect.bring(
                    self._home,
                    self._executable,
                    namespace,
                    former.live,
                    _READY_AGAIN,
                    check_mode=False,
                    save=False,
                    prune=True,
                    again=True,
                )
                _dump.save(self._home, namespace, former.saved)
            except (NodeopsError, OSError) as second:
                problems.append("namespace %s: %s" % (namespace, second))
        is_as_before = not problems and _outcome(error).kind != UNDO_FAILED
        if is_as_before:
            self._settle()
        stay = [] if is_one else list(results)
        if isinstance(error, NodeopsError):
            if problems:
                error.settle(UNDO_FAILED, "; ".join(problems))
            elif is_as_before:
                error.settle(UNDO_FAILED if stay else UNDONE)
            error.details.update(changed=not is_as_before or bool(stay), restored_namespaces=stay)
        if problems:
            error.args = (
                "%s Not all could be put back: %s. What was there before is kept below %s: restore again."
                % (error, "; ".join(problems).rstrip("."), self._home),
            )

    def _failed(
        self, failures: Dict[str, NodeopsError], results: Dict[str, Dict[str, Any]], changed: List[EnvFile]
    ) -> NodeopsError:
        done = self._brought(changed if results else [], results)  # without results the files were put back
        told = " ".join("Namespace %s was not brought back: %s" % each for each in failures.items())
        also = " Brought back: %s." % ", ".join(results) if results else ""
        details = {key: value for failure in failures.values() for key, value in failure.details.items()}
        details.update(restored_namespaces=list(results), actions=done["actions"], files=done["files"])
        failure = NodeopsError(told + also, dict(details, changed=done["changed"]))
        if _are_as_before(failures) and not results:
            failure.settle(UNDONE)
        else:
            reasons = [each.outcome.reason for each in failures.values() if each.outcome.reason]
            failure.settle(UNDO_FAILED, reasons[-1] if reasons else "")
            if any(map(_is_committed, failures.values())):
                failure.details.update(Outcome(COMMITTED).details)  # that of one namespace, beside that of all
        return failure

    # -- the answer --------------------------------------------------------------------------------------------------

    def _brought(self, changed: List[EnvFile], results: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
        is_changed = bool(changed) or any(result["changed"] for result in results.values())
        saved = any(result["saved"] for result in results.values())
        result = self._result(is_changed, changed, list(results.items()), saved, [])
        recovered = [each["recovered"] for each in results.values() if each["recovered"]]
        return dict(result, recovered=recovered[0] if recovered else None, rolled_back=False)

    def _result(
        self, is_changed: bool, changed: List[EnvFile], results: List[Any], saved: bool, problems: List[str]
    ) -> Dict[str, Any]:
        names = set(_env_files.names(changed))
        lines = "".join("%s\n" % name for name in sorted(names))
        diffs = [{"before_header": "files", "after_header": "files", "before": "", "after": lines}] if names else []
        if saved and not results:
            diffs.append(self._dump_difference())
        return {
            "changed": is_changed,
            "actions": [dict(action, namespace=name) for name, each in results for action in each["actions"]],
            "processes": [process for _name, each in results for process in each["processes"]],
            "files": [{"path": each.path, "changed": each.path in names} for each in self._files],
            "restored_namespaces": self._namespaces if self._with_dump else [],
            "saved": saved,
            "problems": problems,
            "diff": diffs + [each["diff"] for _name, each in results if each["diff"]],
        }

    def _dump_difference(self) -> Dict[str, str]:
        after = _lines(self._entries, self._namespaces)
        if after == self._dump_before:
            after.append("(the same names, with other values)\n")
        path = _dump.path_of(self._home)
        before = "".join(self._dump_before)
        return {"before_header": path, "after_header": path, "before": before, "after": "".join(after)}


def _outcome(error: BaseException) -> Outcome:
    return error.outcome if isinstance(error, NodeopsError) else Outcome()


def _is_committed(error: BaseException) -> bool:
    """Whether the namespace was brought, and what failed came after that."""
    return _outcome(error).kind == COMMITTED


def _are_as_before(failures: Dict[str, NodeopsError]) -> bool:
    return not any(failure.outcome.kind in (UNDO_FAILED, COMMITTED) for failure in failures.values())


def _lines(entries: List[_dump.Entry], namespaces: List[str]) -> List[str]:
    named = [(_dump.namespace_of(entry), entry.get("name")) for entry in entries]
    return sorted("%s %s\n" % each for each in named if each[0] in namespaces)


class _Once:
    """An action that is done once. If it failed, it is done again the next time."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Optional[Callable[[], None]] = action

    def run(self) -> None:
        if self._action:
            self._action()
            self._action = None


def _put_back_files(formers: Dict[str, FormerFile]) -> None:
    """Put all back. Then raises NodeopsError for the first that could not be put back."""
    failure: Optional[NodeopsError] = None
    for path, former in formers.items():
        try:
            _env_files.put_former(path, former.file)
        except (NodeopsError, OSError) as error:
            failure = failure or (error if isinstance(error, NodeopsError) else NodeopsError(str(error)))
    if failure:
        raise failure
