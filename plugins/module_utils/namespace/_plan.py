# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""What to do, per app: which instances stay, which are started, which processes go. Nothing is sent here."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App
from ansible_collections.nodeops.pm2.plugins.module_utils.namespace._process_state import (
    describe,
    is_active,
    is_between_lives,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._dump_app import DumpApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._live_app import LiveApp
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Difference, Process, differences, reasons

Action = Dict[str, Any]
Defined = Union[App, LiveApp, DumpApp]

BESIDE = "beside"  # candidates start while the old ones serve
STOP_FIRST = "stop_first"  # the old are stopped before the new start, and started again if the new fail

_COUNT_DIFFERS = "instances: %d running, %d defined"


class AppPlan(NamedTuple):
    """The change of one app (one name of the namespace).

    ``start`` are instance numbers to start, ``retire`` processes to remove, ``stop`` processes to stop and keep in
    PM2's list, ``keep`` those that are as defined.
    """

    name: str
    app: Optional[Defined]
    start: List[int]
    retire: List[Process]
    stop: List[Process]
    keep: List[Process]
    order: str
    actions: List[Action]
    differences: List[Difference]

    def affected(self) -> int:
        """How many processes this would change. A replaced one counts once."""
        return max(len(self.start), len(self.retire)) + len(self.stop)


class StopThenStart(NamedTuple):
    """Processes that have to end, and the apps that are started when they have."""

    stop: List[Process]
    start: List[AppPlan]


class Plan(NamedTuple):
    """``leaving``: the processes to remove that end before a new app is started."""

    apps: List[AppPlan]
    leaving: Tuple[Process, ...] = ()

    @property
    def actions(self) -> List[Action]:
        return [action for plan in self.apps for action in plan.actions]

    @property
    def affected(self) -> int:
        return sum(plan.affected() for plan in self.apps)

    @property
    def stop_then_start(self) -> List[StopThenStart]:
        """Which processes end before which apps start: those of an app before its new ones, removed before new apps."""
        waiting = [app for app in self.apps if app.order == STOP_FIRST and app.start]
        steps = [StopThenStart([p for p in app.retire if is_active(p)], [app]) for app in waiting if not _is_new(app)]
        new = [app for app in waiting if _is_new(app)]
        return [*steps, StopThenStart(list(self.leaving), new)] if new else steps


def group(processes: Iterable[Process]) -> Dict[str, List[Process]]:
    """By app name, in the order of instance number and pm_id."""
    groups: Dict[str, List[Process]] = {}
    for process in sorted(processes, key=lambda p: (p.instance is None, p.instance or 0, p.pm_id)):
        groups.setdefault(process.name, []).append(process)
    return groups


def bring_up(apps: Iterable[Defined], live: Iterable[Process], strategy: str, again: bool) -> Plan:
    """``started``, or with ``again`` ``restarted``/``reloaded``: every instance as defined and running."""
    groups = group(live)
    return Plan([_bring_up(app, groups.get(app.name, []), strategy, again) for app in apps])


def _bring_up(app: Defined, live: List[Process], strategy: str, again: bool) -> AppPlan:
    keep: Dict[int, Process] = {}
    why: Dict[int, List[str]] = {}
    found: List[Difference] = []
    for process in live:
        different = _differences(app, process)
        number = process.instance
        surplus = number is not None and number not in app.numbers and app.instances <= number < len(live)
        found = found or ([] if surplus else different)
        if surplus:
            why[process.pm_id] = [_COUNT_DIFFERS % (len(live), app.instances)]
        elif different:
            why[process.pm_id] = reasons(different)
        elif not as_wanted(app, process):
            why[process.pm_id] = ["status: %s" % describe(process)]
        elif number is None or number not in app.numbers or number in keep:
            why[process.pm_id] = [_COUNT_DIFFERS % (len(live), app.instances)]
        elif again:
            why[process.pm_id] = ["asked for"]
        else:
            keep[number] = process
    start = [slot for slot in app.numbers if slot not in keep]
    kept = {process.pm_id for process in keep.values()}
    retire = [process for process in live if process.pm_id not in kept]
    order = _order(app, retire, strategy)
    actions = _actions(app, start, retire, order, why, len(live))
    return AppPlan(app.name, app, start, retire, [], list(keep.values()), order, actions, found)


def _differences(app: Defined, process: Process) -> List[Difference]:
    if isinstance(app, LiveApp):
        return []
    return app.differences(process) if isinstance(app, DumpApp) else differences(app, process)


def as_wanted(app: Defined, process: Process) -> bool:
    """Whether it runs; or rests because the definition says so: it is not started automatically, or waits for cron."""
    if process.running:
        return True
    if process.status != "stopped":
        return False
    waits_for_cron = bool(app.config.get("cron_restart")) and app.config.get("autorestart") is False
    return waits_for_cron or not app.starts(process.instance or 0)


def _order(app: Defined, retire: List[Process], strategy: str) -> str:
    if strategy == "restart":
        return STOP_FIRST
    if strategy == "replace" or not any(is_active(process) for process in retire):
        return BESIDE
    shares_port = app.exec_mode == "cluster_mode" and all(
        process.exec_mode == "cluster_mode" for process in retire if is_active(process)
    )
    return BESIDE if shares_port else STOP_FIRST


def _actions(
    app: Defined, start: List[int], retire: List[Process], order: str, why: Dict[int, List[str]], live: int
) -> List[Action]:
    """One action per process that changes. An old process and the new one in its place are one action."""
    actions = []
    waiting = list(retire)
    for slot in start:
        old = next((p for p in waiting if p.instance == slot), waiting[0] if waiting else None)
        if old is None:
            reason = ["not running"] if not live else [_COUNT_DIFFERS % (live, app.instances)]
            actions.append(action("start", app.name, None, slot, reason))
        else:
            waiting.remove(old)
            verb = "start" if not is_active(old) else ("replace" if order == BESIDE else "restart")
            actions.append(action(verb, app.name, old.pm_id, slot, why[old.pm_id]))
    actions.extend(action("delete", app.name, p.pm_id, p.instance, why[p.pm_id]) for p in waiting)
    return actions


def action(verb: str, name: str, pm_id: Optional[int], instance: Optional[int], why: List[str]) -> Action:
    """``pm_id``: of the process that was found, None if there was none."""
    return {"action": verb, "name": name, "pm_id": pm_id, "instance": instance, "reasons": why}


def stop(live: Iterable[Process]) -> Plan:
    """``stopped``: these processes stay in PM2's list and do not run."""
    plans = []
    for name, processes in group(live).items():
        active = [process for process in processes if process.status != "stopped" or is_between_lives(process)]
        actions = [action("stop", name, p.pm_id, p.instance, ["status: %s" % describe(p)]) for p in active]
        resting = [process for process in processes if process not in active]
        plans.append(AppPlan(name, None, [], [], active, resting, STOP_FIRST, actions, []))
    return Plan(plans)


def remove(live: Iterable[Process], reason: str) -> Plan:
    """``absent`` and ``prune``: these processes are taken out of PM2's list."""
    plans = []
    for name, processes in group(live).items():
        actions = [action("delete", name, p.pm_id, p.instance, [reason]) for p in processes]
        plans.append(AppPlan(name, None, [], processes, [], [], STOP_FIRST, actions, []))
    return Plan(plans)


def remove_undefined(plan: Plan, undefined: List[Process], strategy: str) -> Plan:
    """``plan``, and the removal of the processes that are not defined.

    A new app may be one of them under another name, on the same port, so it is started when they have ended. Cluster
    workers share their ports, so they are not stopped for new workers.
    """
    new = [app for app in plan.apps if app.app is not None and app.start and _is_new(app)]
    has_workers = any(app.app is not None and app.app.exec_mode == "cluster_mode" for app in new)
    leaving = [p for p in undefined if is_active(p) and not (has_workers and p.exec_mode == "cluster_mode")]
    apps = plan.apps
    if leaving and strategy != "replace":
        apps = [app._replace(order=STOP_FIRST) if app in new else app for app in apps]
    return Plan(apps + remove(undefined, "not defined").apps, tuple(leaving))


def _is_new(app: AppPlan) -> bool:
    return not app.keep and not any(is_active(process) for process in app.retire)
