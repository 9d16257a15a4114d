# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""One call of pm2_process: from options to a result."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set

from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import (
    App,
    app_name,
    build_apps,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._namespace import check_namespace
from ansible_collections.nodeops.pm2.plugins.module_utils.host import _symlink
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace import (
    _checks,
    _gate,
    _journal,
    _lock,
    _plan,
    _recovery,
    _transaction,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._check_types import Ready
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._failure import ChangeFailed
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_result import process_result
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._processes import Namespace, ours
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._report import difference_text, summary
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2 import _daemon, _dump, _dump_app, _orphans
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._daemon import Daemon
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._host_context import context_for
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import LiveApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process

UP = ("started", "restarted", "reloaded")


class Options(NamedTuple):
    """The options of pm2_process, with the module's defaults. ``ready`` has its own ones filled in."""

    namespace: str
    pm2_home: str
    pm2_executable: Optional[str]
    ready: Dict[str, Any]
    apps: Optional[List[Dict[str, Any]]] = None
    ecosystem: Optional[str] = None
    env_name: Optional[str] = None
    names: Optional[List[str]] = None
    state: str = "started"
    prune: bool = False
    strategy: str = "auto"
    save: bool = True
    max_affected: Optional[int] = None


class Additions(NamedTuple):
    """What a caller in this collection, a release or a restore, adds to what the options say."""

    environment: Optional[Dict[str, Any]] = None
    """Variables that win over those of an ecosystem file (of a release: what the inventory says)."""
    entries: Optional[List[_dump.Entry]] = None
    """Entries of a dump, instead of apps or ecosystem."""
    check_apps: Optional[Callable[[Sequence[App]], None]] = None
    """Raises NodeopsError for apps that the caller refuses, from whatever definition they come."""
    removes: Optional[Callable[[Process], bool]] = None
    """Without ``prune``: whether a process that is not defined is removed."""
    heal: bool = False
    """Whether processes that are as defined and fail a check are renewed."""
    switch: Optional[_symlink.Switch] = None
    """A link that is switched in the same transaction."""
    revert: Optional[Callable[[], None]] = None
    """Puts back what the caller has changed for the new processes; called before old ones are started again."""


class Reconciler:
    """Brings one namespace to what the options and additions say."""

    def __init__(
        self,
        options: Options,
        check_mode: bool,
        redactor: Optional[Redactor] = None,
        additions: Optional[Additions] = None,
    ) -> None:
        """``redactor``: knows the secrets that are in no definition, such as those of a file that the apps read."""
        self._options = options
        self._additions = additions or Additions()
        self._check_mode = check_mode
        self._redactor = redactor or Redactor()
        _checks.hide(options.ready, self._redactor)
        self.warnings: List[str] = []
        self._warned_of_cron: Set[str] = set()
        self.is_settled = True
        """In check mode: no process that is as defined has restarted a moment ago, so none may be in a crash loop."""

    def run(self) -> Dict[str, Any]:
        """The module's result. Raises ChangeFailed, its text without secrets, when everything is as it was."""
        try:
            return self._run()
        except NodeopsError as error:
            raise self._explained(error) from error

    def _run(self) -> Dict[str, Any]:
        options = self._options
        check_namespace(options.namespace)
        _daemon.check_home(options.pm2_home)
        ready = _checks.parse(options.ready)
        daemon = _daemon.find_listening(options.pm2_home)
        context = context_for(options.pm2_home, options.pm2_executable, daemon)
        apps = self._defined_apps(context)
        if daemon is None and not apps:
            return self._without_daemon()
        if self._check_mode:
            return self._predict(daemon, apps, ready)
        if daemon is None:
            daemon, _started = _daemon.ensure(options.pm2_home, options.pm2_executable)
        with _lock.held(options.pm2_home, options.namespace, "was not changed"):
            return self._bring(daemon, apps, ready)

    def _bring(self, daemon: Daemon, apps: Sequence[_plan.Defined], ready: Ready) -> Dict[str, Any]:
        options = self._options
        namespace = Namespace(daemon, options.namespace, ready.ports())
        recovery = _recovery.recover(namespace, options.pm2_home)
        everything = daemon.read()
        live = ours(everything, options.namespace)
        plan = self._make_plan(apps, live, everything)
        if self._additions.heal and not plan.actions and self._answers_badly(live, ready):
            plan = self._make_plan(apps, live, everything, again=True)
        orphans = self._find_orphans(plan, everything, daemon.pid)
        before = summary(live)
        saved = False
        if plan.actions:
            self._check_affected(plan)
            _orphans.end(orphans)
            transaction = _transaction.Transaction(
                namespace,
                options.pm2_home,
                plan,
                ready,
                options.save,
                self._redactor,
                self._additions.switch,
                self._additions.revert,
            )
            saved = transaction.run()
            with _transaction.after_commit():
                live = namespace.read()
        else:
            live = self._settled(namespace, live, plan, ready)
            if self._additions.switch:
                _symlink.apply(self._additions.switch)
            if options.save:
                entries = _dump.entries_of(process.pm2_env for process in live)
                saved = _dump.save(options.pm2_home, options.namespace, entries)
        return self._result(plan, orphans, live, before, saved or recovery.saved, recovery.outcome)

    def _answers_badly(self, live: List[Process], ready: Ready) -> bool:
        """Whether a check fails now. A warning tells which."""
        pids = _checks.Pids(set(), set(), {process.pid for process in live if process.running})
        for check in ready.connections:
            problem = _checks.attempt(check, pids).problem
            if problem:
                self.warnings.append(
                    self._redactor.text("All runs as defined, but the %s %s." % (check.label(), problem))
                )
                return True
        return False

    def _predict(self, daemon: Optional[Daemon], apps: Sequence[_plan.Defined], ready: Ready) -> Dict[str, Any]:
        options = self._options
        everything = daemon.processes if daemon else []
        journal = _journal.read(options.pm2_home, options.namespace)
        now = ours(everything, options.namespace)
        live = _recovery.after_recovery(now, journal)
        plan = self._make_plan(apps, live, everything)
        if self._additions.heal and not plan.actions and self._answers_badly(live, ready):
            plan = self._make_plan(apps, live, everything, again=True)
        self._check_affected(plan)
        self.is_settled = not any(_gate.is_young(process, ready.min_uptime) for process in _restarted(plan))
        orphans = self._find_orphans(plan, everything, daemon.pid if daemon else 0)
        recovered = None if journal is None else _recovery.OUTCOME[journal.phase]
        saved = bool(journal and journal.finishes_saving) and self._would_save(live, _plan.Plan([]))
        saved = saved or (options.save and self._would_save(live, plan))
        return self._result(plan, orphans, now, summary(live), saved, recovered)

    def _would_save(self, live: List[Process], plan: _plan.Plan) -> bool:
        return _dump.differs(self._options.pm2_home, self._options.namespace, _transaction.entries_after(live, plan))

    def _without_daemon(self) -> Dict[str, Any]:
        """Nothing runs, and no daemon is started for it. What is to be absent must not come back at boot either."""
        options, saved = self._options, False
        if options.state == "absent" and options.save and os.path.isdir(options.pm2_home):
            entries = _dump.of_namespace(_dump.read(options.pm2_home).entries, options.namespace)
            chosen = self._chosen_names()
            left = [entry for entry in entries if chosen is not None and str(entry.get("name")) not in chosen]
            saved = _dump.differs(options.pm2_home, options.namespace, left)
            if saved and not self._check_mode:
                saved = _dump.save(options.pm2_home, options.namespace, left)
        return self._result(_plan.Plan([]), [], [], {}, saved, None)

    # -- what is wanted ------------------------------------------------------------------------------------------

    def _defined_apps(self, context: Context) -> Sequence[_plan.Defined]:
        """The apps this call is about, validated. Empty if the state works on what is live."""
        options = self._options
        if self._additions.entries is not None:
            return _dump_app.build(self._additions.entries, options.namespace, self._redactor)
        definitions = self._definitions(context)
        if options.state in UP:
            if options.prune and options.names:
                raise NodeopsError(
                    "prune and names exclude each other: prune needs the whole definition. Nothing was changed."
                )
            if definitions is None:
                if options.state == "started" or options.prune:
                    raise NodeopsError(
                        "state %s%s needs apps or ecosystem. Nothing was changed."
                        % (options.state, " with prune" if options.prune else "")
                    )
                return []
            return self._build(definitions, context)
        if options.prune:
            raise NodeopsError(
                "prune goes with state started, restarted or reloaded, not %s. Nothing was changed." % options.state
            )
        return []

    def _definitions(self, context: Context) -> Optional[List[Dict[str, Any]]]:
        options = self._options
        if options.ecosystem:
            definitions = _ecosystem.load(options.ecosystem, options.env_name, context)
            definitions.override(self._additions.environment or {})
        elif options.apps is not None:
            definitions = _ecosystem.merge_env(options.apps, options.env_name)
        else:
            return None
        self.warnings.extend(definitions.warnings)
        for definition in definitions:
            if isinstance(definition, dict) and isinstance(definition.get("env"), dict):
                self._redactor.add_environment(definition["env"])
        if not definitions:
            raise NodeopsError(
                "No app is defined. Nothing was changed. To remove all processes of a namespace use state: absent."
            )
        return definitions

    def _build(self, definitions: List[Dict[str, Any]], context: Context) -> List[App]:
        base = os.path.dirname(os.path.abspath(self._options.ecosystem)) if self._options.ecosystem else None
        apps = build_apps(definitions, context, self._options.namespace, base)
        for app in apps:
            self.warnings.extend(app.warnings)
            self._redactor.add_environment({k: v for k, v in app.env.items() if context.base_env.get(k) != v})
            self._redactor.add_arguments(app.config.get("args") or [])
        if self._additions.check_apps:
            self._additions.check_apps(apps)
        names = self._options.names
        if not names:
            return apps
        unknown = sorted(set(names) - {app.name for app in apps})
        if unknown:
            raise NodeopsError(
                "names: %s is not defined (defined: %s). Nothing was changed."
                % (", ".join(unknown), ", ".join(app.name for app in apps))
            )
        return [app for app in apps if app.name in names]

    # -- the plan ------------------------------------------------------------------------------------------------

    def _make_plan(
        self,
        apps: Sequence[_plan.Defined],
        live: List[Process],
        everything: List[Dict[str, Any]],
        again: bool = False,
    ) -> _plan.Plan:
        options = self._options
        for process in live:
            self._redactor.add_environment(process.env)
        if options.state in UP:
            again = again or options.state != "started"
            strategy = "restart" if options.state == "restarted" and options.strategy == "auto" else options.strategy
            wanted: Sequence[_plan.Defined] = apps or self._live_apps(live)
            self._check_watch(wanted, everything)
            plan = _plan.bring_up(wanted, live, strategy, again)
            names = {app.name for app in apps}
            undefined = [process for process in live if process.name not in names and self._goes(process)]
            return _plan.remove_undefined(plan, undefined, strategy) if undefined else plan
        chosen = self._chosen(live)
        return _plan.stop(chosen) if options.state == "stopped" else _plan.remove(chosen, "asked for")

    def _goes(self, process: Process) -> bool:
        """Whether a process that is not defined is removed."""
        return self._options.prune or bool(self._additions.removes and self._additions.removes(process))

    def _live_apps(self, live: List[Process]) -> List[LiveApp]:
        groups = _plan.group(live)
        names = self._options.names
        missing = sorted(set(names or []) - set(groups))
        if missing:
            raise NodeopsError(
                "names: namespace %s has no process %s (it has: %s). Nothing was changed."
                % (self._options.namespace, ", ".join(missing), ", ".join(groups) or "none")
            )
        return [LiveApp(name, processes) for name, processes in groups.items() if not names or name in names]

    def _chosen(self, live: List[Process]) -> List[Process]:
        """What to stop or remove: the defined apps, or all of the namespace; limited to ``names``."""
        chosen = self._chosen_names()
        return [process for process in live if chosen is None or process.name in chosen]

    def _chosen_names(self) -> Optional[Set[str]]:
        chosen: Optional[Set[str]] = None
        if self._options.apps is not None:
            chosen = {app_name(definition) for definition in self._options.apps}
        elif self._options.ecosystem:
            raise NodeopsError(
                "ecosystem does not go with state %s. Nothing was changed. Give names, or neither for the whole "
                "namespace." % self._options.state
            )
        if self._options.names:
            chosen = set(self._options.names) if chosen is None else chosen & set(self._options.names)
        return chosen

    def _check_watch(self, wanted: Iterable[_plan.Defined], everything: List[Dict[str, Any]]) -> None:
        """PM2's watcher restarts by *name*, in every namespace (Watcher.js:53)."""
        foreign: Dict[str, Process] = {}
        for process in map(Process, everything):
            if process.namespace != self._options.namespace:
                foreign[process.name] = process
        for app in wanted:
            other = foreign.get(app.name)
            if other and app.config.get("watch"):
                raise NodeopsError(
                    "App %s is to be watched, and namespace %s has an app of the same name: PM2's watcher restarts by "
                    "name, so a changed file here would restart it there. Nothing was changed. Set watch: false or "
                    "rename one." % (app.name, other.namespace)
                )
            if other and other.pm2_env.get("watch"):
                self.warnings.append(
                    "%s of namespace %s is watched: PM2 will restart %s of namespace %s too whenever a file there "
                    "changes." % (app.name, other.namespace, app.name, self._options.namespace)
                )

    def _find_orphans(
        self, plan: _plan.Plan, everything: List[Dict[str, Any]], daemon_pid: int
    ) -> List[_orphans.Orphan]:
        names = {app.name for app in plan.apps if app.start and not app.retire and not app.keep}
        if not names:
            return []
        live_ids = [process.unique_id for process in map(Process, everything)]
        return _orphans.find(self._options.pm2_home, self._options.namespace, names, live_ids, daemon_pid)

    def _check_affected(self, plan: _plan.Plan) -> None:
        limit = self._options.max_affected
        if limit is not None and plan.affected > limit:
            raise NodeopsError(
                "%d processes of namespace %s would be changed, max_affected is %d. Nothing was changed. Look at "
                "actions, and raise max_affected if that is right." % (plan.affected, self._options.namespace, limit),
                {"actions": plan.actions},
            )

    def _settled(self, namespace: Namespace, live: List[Process], plan: _plan.Plan, ready: Ready) -> List[Process]:
        """A crash loop is not "running": what has restarted a moment ago must first stay up for min_uptime."""
        young = _restarted(plan)
        return _gate.settle(young, ready.min_uptime, namespace.read) if young else live

    # -- the answer ----------------------------------------------------------------------------------------------

    def _result(
        self,
        plan: _plan.Plan,
        orphans: List[_orphans.Orphan],
        live: List[Process],
        before: Dict[str, Any],
        saved: bool,
        recovered: Optional[str],
    ) -> Dict[str, Any]:
        actions = [
            _plan.action("end_orphan", o.name, None, None, ["left by a killed daemon, pid %d" % o.pid]) for o in orphans
        ]
        actions += plan.actions
        for process in live:
            self._warn_of_cron(process)
        return {
            "changed": bool(actions) or saved or recovered is not None,
            "actions": actions,
            "processes": [process_result(process) for process in live],
            "saved": saved,
            "recovered": recovered,
            "rolled_back": False,
            "diff": difference_text(self._options.namespace, before, plan),
        }

    def _warn_of_cron(self, process: Process) -> None:
        if (
            self._options.state == "stopped"
            and process.pm2_env.get("cron_restart")
            and process.name not in self._warned_of_cron
        ):
            self._warned_of_cron.add(process.name)
            self.warnings.append(
                "%s has a cron_restart: PM2 starts it again at that time although it is stopped (Worker.js:46). "
                "Use state absent to keep it down." % process.name
            )

    def _explained(self, error: NodeopsError) -> ChangeFailed:
        details = dict(error.details)
        if "rpc_error" in details:
            details["rpc_error"] = self._redactor.text(details["rpc_error"])
        reason = self._redactor.text(str(error)).rstrip(".") + "."
        return ChangeFailed(error, reason, details)


def _restarted(plan: _plan.Plan) -> List[Process]:
    """The processes that are as defined, and have restarted before."""
    return [process for app in plan.apps for process in app.keep if process.restart_time > 0 and process.running]
