"""A model of what pm2_process does to a namespace: a second, shorter implementation that the test compares with."""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

ONLINE, STOPPED = "online", "stopped"
CLUSTER, FORK = "cluster", "fork"
UP = ("started", "restarted", "reloaded")
GOOD_RELEASES = ("one", "two")
BAD_RELEASES = ("crashes", "silent", "sick", "missing")
"""Bad releases: throws at its start; never listens; answers 500 to the health check; its script is missing."""

Slot = Tuple[str, int]
"""An app's name and the number of an instance."""


class Definition(NamedTuple):
    """The definition of an app. Different definitions have different effects."""

    name: str
    mode: str = FORK
    instances: int = 1
    release: str = "one"
    script: str = "idle.sh"
    env: Tuple[Tuple[str, str], ...] = ()
    merge_logs: bool = False
    own_log: bool = False
    dated: bool = False
    args: Tuple[str, ...] = ()

    @property
    def is_bad(self) -> bool:
        return self.release in BAD_RELEASES


class App(NamedTuple):
    """The state of an app: its definition, and the status of each instance."""

    definition: Definition
    slots: Dict[int, str]

    def active(self) -> Set[int]:
        return {slot for slot, status in self.slots.items() if status == ONLINE}


State = Dict[str, App]


class Call(NamedTuple):
    """The options of one call of pm2_process; `checks` adds http, tcp or log checks to `ready`."""

    state: str = "started"
    apps: Optional[Tuple[Definition, ...]] = None
    names: Optional[Tuple[str, ...]] = None
    strategy: str = "auto"
    prune: bool = False
    save: bool = True
    max_affected: Optional[int] = None
    checks: bool = False
    check_mode: bool = False

    def __repr__(self) -> str:
        """Only options that are not the default, for the list of operations of a failure."""
        given = [
            f"{field}={value!r}"
            for field, value, default in zip(self._fields, self, self._field_defaults.values(), strict=True)
            if value != default
        ]
        return f"Call({', '.join(given)})"


class Expected(NamedTuple):
    """The expected effect of a call. `outcome`: "done", "refused" (before any change) or "undone" (rolled back).

    `kept`: instances whose process is not touched. `renewed`: instances that get another process, in another entry of
    PM2's list. All others keep their entry, and may get a new process.
    """

    outcome: str
    after: State
    affected: int
    kept: FrozenSet[Slot]
    renewed: FrozenSet[Slot] = frozenset()


class Change(NamedTuple):
    """The change of one app."""

    name: str
    after: Optional[App]
    kept: Set[int]
    affected: int
    stops_first: bool = False
    fails: bool = False


def expected(before: State, call: Call) -> Expected:
    """What `call` does to a namespace in the state `before`."""
    changes = _changes(before, call)
    if changes is None:
        return Expected("refused", before, 0, slots_of(before))
    affected = sum(change.affected for change in changes)
    if call.max_affected is not None and affected > call.max_affected:
        return Expected("refused", before, affected, slots_of(before))
    if call.check_mode:
        return Expected("done", before, affected, slots_of(before))
    if any(change.fails for change in changes):
        stopped_meanwhile = {
            (change.name, slot)
            for change in changes
            if change.stops_first and change.name in before
            for slot in before[change.name].active() - change.kept
        }
        stopped_meanwhile |= _making_room(before, changes, call.strategy)
        return Expected("undone", before, affected, slots_of(before) - stopped_meanwhile)
    return _done(before, changes, affected, call.state)


def _making_room(before: State, changes: List[Change], strategy: str) -> Set[Slot]:
    """Instances that are removed, and end before an app starts that did not run: it may be the same app, renamed."""
    new = [change.after for change in changes if change.after and not _runs(before, change.name)]
    if strategy == "replace" or not new:
        return set()
    shares_ports = any(app.definition.mode == CLUSTER for app in new)
    leaving = [before[change.name] for change in changes if change.after is None]
    return {
        (app.definition.name, slot)
        for app in leaving
        if not (shares_ports and app.definition.mode == CLUSTER)
        for slot in app.active()
    }


def _runs(before: State, name: str) -> bool:
    return name in before and bool(before[name].active())


def _done(before: State, changes: List[Change], affected: int, state: str) -> Expected:
    after = dict(before)
    kept = set(slots_of(before))
    renewed: Set[Slot] = set()
    for change in changes:
        after.pop(change.name, None)
        kept -= {slot for slot in kept if slot[0] == change.name}
        kept |= {(change.name, slot) for slot in change.kept}
        if change.after is not None:
            after[change.name] = change.after
            if state in UP:
                renewed |= {(change.name, slot) for slot in set(change.after.slots) - change.kept}
    return Expected("done", after, affected, frozenset(kept), frozenset(renewed))


def slots_of(state: State) -> FrozenSet[Slot]:
    """Every existing instance."""
    return frozenset((name, slot) for name, app in state.items() for slot in app.slots)


def _changes(before: State, call: Call) -> Optional[List[Change]]:
    """The change of each app that the call concerns; None if the call must be refused."""
    defined = None if call.apps is None else [definition.name for definition in call.apps]
    if call.state not in UP:
        if call.prune:
            return None
        chosen = [name for name in before if _is_chosen(name, defined) and _is_chosen(name, call.names)]
        return [_taken_down(before[name], name, call.state) for name in chosen]
    if call.apps == () or (call.prune and (call.names or call.apps is None)):
        return None
    if call.apps is None:
        return _renewed(before, call)
    if any(definition.release == "missing" for definition in call.apps) or set(call.names or ()) - set(defined or ()):
        return None
    wanted = [definition for definition in call.apps if _is_chosen(definition.name, call.names)]
    changes = [_brought_up(before.get(definition.name), definition, call) for definition in wanted]
    if call.prune:
        surplus = [name for name in before if name not in (defined or ())]
        changes += [_taken_down(before[name], name, "absent") for name in surplus]
    return changes


def _is_chosen(name: str, names: Optional[Iterable[str]]) -> bool:
    return names is None or name in names


def _renewed(before: State, call: Call) -> Optional[List[Change]]:
    if call.state == "started" or set(call.names or ()) - set(before):
        return None
    chosen = {name: app for name, app in before.items() if _is_chosen(name, call.names)}
    return [
        _brought_up(app, app.definition._replace(instances=len(app.slots)), call, defined=app.definition)
        for app in chosen.values()
    ]


def _brought_up(live: Optional[App], wanted: Definition, call: Call, defined: Optional[Definition] = None) -> Change:
    slots = live.slots if live else {}
    is_same = live is not None and live.definition._replace(instances=wanted.instances) == wanted
    may_stay = is_same and call.state == "started"
    kept = {slot for slot in (live.active() if live else ()) if may_stay and slot < wanted.instances}
    retired_active = {slot for slot in (live.active() if live else ()) if slot not in kept}
    strategy = "restart" if call.state == "restarted" and call.strategy == "auto" else call.strategy
    both_cluster = wanted.mode == CLUSTER and live is not None and live.definition.mode == CLUSTER
    stops_first = strategy == "restart" or (strategy == "auto" and bool(retired_active) and not both_cluster)
    affected = max(wanted.instances, len(slots)) - len(kept)
    after = App(defined or wanted, dict.fromkeys(range(wanted.instances), ONLINE))
    return Change(wanted.name, after, kept, affected, stops_first, wanted.is_bad)


def _taken_down(live: App, name: str, state: str) -> Change:
    if state == "absent":
        return Change(name, None, set(), len(live.slots))
    after = App(live.definition, dict.fromkeys(live.slots, STOPPED))
    return Change(name, after, set(live.slots) - live.active(), len(live.active()))
