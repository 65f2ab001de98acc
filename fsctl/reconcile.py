"""Desired against installed: the ordered changes that turn one into the other. Pure.

The order makes a bundle valid at every step, as Open vSwitch checks it: a rule that names a missing group is
refused, and deleting a group deletes the rules that name it. It also makes every cut of it safe: what is looked up
later is there first (make before break), guards come before what they guard and go after it, and within the flow
switch the more specific comes first, so that where a table is full no forward lies bare of the holes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fsctl.errors import InvalidError
from fsctl.rules import (
    EGRESS,
    FLOW_SWITCH,
    GUARD,
    MTU,
    WAYS,
    Action,
    GotoTable,
    GroupChange,
    Resubmit,
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
    ToGroup,
    Update,
)

Change = RuleChange | GroupChange

LAST_TABLE_MISS = 1
"""Rules of this priority or below are a table's "else": first rules to come, last to go."""

_ADD_RANK = {"group": 0, "else": 10, EGRESS: 20, MTU: 30, WAYS: 40, GUARD: 50, FLOW_SWITCH: 60}
_REMOVE_RANK = {FLOW_SWITCH: 70, WAYS: 80, MTU: 90, GUARD: 100, EGRESS: 110, "else": 120, "group": 130}
"""When each table's (or kind's) changes are made; modifications come with the additions."""
_LAST_ADD, _FIRST_REMOVE = 69, 70


def rank(change: Change) -> tuple[int, int]:
    """Where a change belongs in an update; equal ranks may come in any order."""
    ranks = _ADD_RANK if change.actions is not None else _REMOVE_RANK
    if isinstance(change, GroupChange):
        return ranks["group"], 0
    table, priority, _ = change.key
    if priority <= LAST_TABLE_MISS:
        return ranks["else"], 0
    # Most specific first when adding, last when removing.
    order = -priority if change.actions is not None else priority
    return ranks.get(table, _LAST_ADD if change.actions is not None else _FIRST_REMOVE), order


def order(changes: Iterable[Change]) -> list[Change]:
    """The same changes in an order that one bundle may carry them in."""
    return sorted(changes, key=rank)


def diff(desired: RuleTable, installed: RuleTable, bridge: str) -> Update:
    """What turns `installed` into `desired`; empty when they are equal."""
    changes: list[Change] = []
    have, want = installed.rules, desired.rules
    missing = object()
    for key, actions in want.items():
        old = have.get(key, missing)
        if old is missing:
            changes.append(RuleChange(key, actions, True))
        elif old != actions:
            changes.append(RuleChange(key, actions, False))
    changes.extend(RuleChange(key, None, False) for key in have.keys() - want.keys())
    for number, bucket in desired.groups.items():
        if installed.groups.get(number) != bucket:
            changes.append(GroupChange(number, bucket, number not in installed.groups))
    changes.extend(GroupChange(number, None, False) for number in installed.groups.keys() - desired.groups.keys())
    return Update(bridge, order(changes))


def groups_named(actions: Sequence[Action] | None) -> set[int]:
    return {a.group for a in actions or () if isinstance(a, ToGroup)}


def apply(update: Update, table: RuleTable) -> RuleTable:
    """The table after a bundle, as a switch would have it; `table` is left alone.

    Raises InvalidError where Open vSwitch would refuse the bundle: a rule naming a missing group, a group added twice.
    """
    after = RuleTable(dict(table.rules), dict(table.groups))
    for change in update.changes:
        if isinstance(change, GroupChange):
            _apply_group(change, after)
        elif change.actions is None:
            after.rules.pop(change.key, None)
        else:
            missing = groups_named(change.actions) - after.groups.keys()
            if missing:
                raise InvalidError("no such group", field="actions", value=sorted(missing))
            if change.is_new or change.key in after.rules:
                after.rules[change.key] = change.actions
    return after


def _apply_group(change: GroupChange, after: RuleTable) -> None:
    if change.actions is None:
        after.groups.pop(change.id, None)
        after.rules = {k: a for k, a in after.rules.items() if change.id not in groups_named(a)}
        return
    if change.is_new == (change.id in after.groups):
        raise InvalidError("group exists" if change.is_new else "no such group", field="group", value=change.id)
    after.groups[change.id] = change.actions


def _value(key: RuleKey, name: str) -> int | None:
    return next((f.value for f in key.match if f.name == name and f.mask is None), None)


def _tables_named(change: Change) -> set[int]:
    return {a.table for a in change.actions or () if isinstance(a, GotoTable | Resubmit)}


#: Of the rules in these tables, the field by which others come to need them.
_NEEDED_BY = {MTU: "reg1", WAYS: "reg1", EGRESS: "eth_src", GUARD: "eth_dst"}


class _Refused:
    """What refused changes leave missing: groups by number, rules by (table, value of the field that leads there).

    The value is None where a rule serves all who come (frames that are too long for the way they take).
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._rules: set[tuple[int, int | None]] = set()

    def add(self, change: Change) -> bool:
        """Note a refused change; false if nothing can depend on it."""
        if change.actions is None:
            return False  # a refused removal leaves too much in place, and hinders nothing
        if isinstance(change, GroupChange):
            self._groups.add(change.id)
            return True
        field = _NEEDED_BY.get(change.key.table)
        if field is None or change.key.priority <= LAST_TABLE_MISS:
            return False
        if change.key.table == GUARD and _tables_named(change):
            return False  # it admits packets to a table; the guards that matter keep them off
        self._rules.add((change.key.table, _value(change.key, field)))
        return True

    def _missing(self, table: int, value: int | None) -> bool:
        return (table, value) in self._rules or (table, None) in self._rules

    def hinders(self, change: Change) -> bool:
        """Whether `change` would do wrong without what is missing."""
        if change.actions is None:
            return False
        if self._groups and not self._groups.isdisjoint(groups_named(change.actions)):
            return True
        if not self._rules:
            return False
        carries = {a.name: a.value for a in change.actions if isinstance(a, SetField)}
        if isinstance(change, RuleChange):
            if change.key.table == FLOW_SWITCH and self._missing(GUARD, _value(change.key, "eth_dst")):
                return True
            carries.setdefault("reg1", _value(change.key, "reg1") or 0)
        return any(self._missing(t, carries.get(_NEEDED_BY[t])) for t in _tables_named(change) if t in _NEEDED_BY)


def dependents(refused: Sequence[Change], changes: Sequence[Change]) -> list[Change]:
    """The additions and modifications among `changes` that must not be made if `refused` are not, transitively.

    Rules that name a refused group or way; ways whose MTU or egress rule was refused; flow switch rules towards a
    router MAC of which a guard was refused (all of them for a guard that says no MAC).
    """
    missing = _Refused()
    found: dict[int, Change] = {}
    grown = [c for c in refused if missing.add(c)]
    known = {id(c) for c in refused}
    while grown:
        hindered = [c for c in changes if id(c) not in known and missing.hinders(c)]
        found.update((id(c), c) for c in hindered)
        known.update(found)
        grown = [c for c in hindered if missing.add(c)]
    return list(found.values())
