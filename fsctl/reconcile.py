"""Desired against installed: the ordered changes that turn one into the other. Pure.

Every prefix of the sequence is a safe state: tables that are looked up later are filled first (make before break), guards
are added before what they guard and removed after it, and in the flow switch more specific rules are added first: if the
table is full, no forward is installed without the holes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fsctl.rules import (
    ADMISSION,
    EGRESS,
    ELSEWHERE,
    FLOW_SWITCH,
    GUARD,
    LEARN,
    MTU,
    SENDERS,
    TTL,
    WAYS,
    GotoTable,
    Resubmit,
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
    Update,
)

LAST_TABLE_MISS = 1
"""Rules of this priority or below are a table's "else": added first, removed last."""

_ADD_RANK = {
    ELSEWHERE: 8, "else": 10, SENDERS: 12, LEARN: 14, EGRESS: 20, MTU: 30, WAYS: 40, TTL: 44, ADMISSION: 46, GUARD: 50,
    FLOW_SWITCH: 60,
}  # fmt: skip
_REMOVE_RANK = {
    FLOW_SWITCH: 70, WAYS: 80, MTU: 90, TTL: 94, ADMISSION: 96, GUARD: 100, EGRESS: 110, LEARN: 112, SENDERS: 114, "else": 120,
    ELSEWHERE: 122,
}  # fmt: skip
"""The order of the tables' changes; modifications count as additions."""
_LAST_ADD, _FIRST_REMOVE = 69, 70


def rank(change: RuleChange) -> tuple[int, int]:
    """The sort key of a change; changes with equal ranks may be made in any order."""
    ranks = _ADD_RANK if change.actions is not None else _REMOVE_RANK
    table, priority, _ = change.key
    if priority <= LAST_TABLE_MISS:
        # Tables lead to higher-numbered ones: those are added first and removed last.
        return ranks["else"], -table if change.actions is not None else table
    # Most specific first when adding, last when removing.
    order = -priority if change.actions is not None else priority
    return ranks.get(table, _LAST_ADD if change.actions is not None else _FIRST_REMOVE), order


def order(changes: Iterable[RuleChange]) -> list[RuleChange]:
    """The same changes, ordered so that every prefix of the sequence is a safe state."""
    return sorted(changes, key=rank)


def diff(desired: RuleTable, installed: RuleTable, bridge: str) -> Update:
    """What turns `installed` into `desired`; empty when they are equal."""
    changes: list[RuleChange] = []
    have, want = installed.rules, desired.rules
    missing = object()
    for key, actions in want.items():
        old = have.get(key, missing)
        if old is missing:
            changes.append(RuleChange(key, actions, True))
        elif old != actions:
            changes.append(RuleChange(key, actions, False))
    changes.extend(RuleChange(key, None, False) for key in have.keys() - want.keys())
    return Update(bridge, order(changes))


def apply(update: Update, table: RuleTable) -> RuleTable:
    """The table after a bundle, as a switch would have it; `table` is left alone."""
    after = RuleTable(dict(table.rules))
    for change in update.changes:
        if change.actions is None:
            after.rules.pop(change.key, None)
        elif change.is_new or change.key in after.rules:
            after.rules[change.key] = change.actions
    return after


# --- what depends on a rejected rule ----------------------------------------------------------------------


def _value(key: RuleKey, name: str) -> int | None:
    return next((f.value for f in key.match if f.name == name and f.mask is None), None)


def _tables_named(change: RuleChange) -> set[int]:
    return {a.table for a in change.actions or () if isinstance(a, GotoTable | Resubmit)}


_GUARDS = {GUARD, ADMISSION, TTL}
_DOORS = {FLOW_SWITCH, EGRESS, TTL}
"""A guard rule that leads here lets packets in."""


class _Rejected:
    """What is missing after rejections: router MACs that are not guarded or not delivered, tables without their "else"."""

    def __init__(self, rejected: Iterable[RuleChange]) -> None:
        self._bare: set[int] = set()
        self._unguarded: set[int | None] = set()
        self._undelivered: set[int | None] = set()
        self._uncut = False
        for change in rejected:
            if change.actions is not None:  # a rejected removal leaves a rule too many, and hinders nothing
                self._add(change)

    def _add(self, change: RuleChange) -> None:
        table, priority, _ = change.key
        if table in (SENDERS, ELSEWHERE):
            return  # bridging goes on without it, by the rules that are there
        if priority <= LAST_TABLE_MISS:
            self._bare.add(table)
        elif table in _GUARDS and not _DOORS & _tables_named(change):  # those let packets in, and guard nothing
            self._unguarded.add(_value(change.key, "eth_dst"))
        elif table == EGRESS:
            self._undelivered.add(_value(change.key, "eth_src"))
        elif table == MTU and _value(change.key, "reg1") is None:
            self._uncut = True

    def hinders(self, change: RuleChange) -> bool:
        """Whether `change` would be wrong without what is missing."""
        if change.actions is None:
            return False
        key, leads_to = change.key, _tables_named(change)
        if not self._bare.isdisjoint(leads_to):
            return True
        if key.table == FLOW_SWITCH and self._unguarded:
            return None in self._unguarded or _value(key, "eth_dst") in self._unguarded
        if EGRESS in leads_to and self._undelivered:
            sources = {a.value for a in change.actions if isinstance(a, SetField) and a.name == "eth_src"}
            return None in self._undelivered or not sources.isdisjoint(self._undelivered)
        return self._uncut and key.table == MTU and key.priority > LAST_TABLE_MISS


def dependents(rejected: Sequence[RuleChange], changes: Sequence[RuleChange]) -> list[RuleChange]:
    """The additions and modifications among `changes` that must not be made if `rejected` are not.

    A rule may point to a missing entry: tables 5 and 6 send unknown packets to tables 7 and 9, the slow path. So a rule stays
    when its way is rejected, and a way when its MTU rule is; without them, their packets would follow a shorter prefix.
    These rules depend on a rejected one:

    * the flow switch rules to a router MAC, on its guard rules (all flow switch rules, on a guard without MAC);
    * the ways that deliver with a MAC, on its egress rule;
    * the MTU rules of ways, on the rule for frames that are too long;
    * all rules that lead to a table other than SENDERS and ELSEWHERE, on its "else".
    """
    missing, known = _Rejected(rejected), {id(c) for c in rejected}
    return [c for c in changes if id(c) not in known and missing.hinders(c)]
