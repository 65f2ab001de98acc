"""Which rules must not be made when others were rejected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fsctl.openflow.rules import (
    ADMISSION,
    EGRESS,
    ELSEWHERE,
    FLOW_SWITCH,
    GUARD,
    MTU,
    SENDERS,
    TTL,
    GotoTable,
    Resubmit,
    RuleChange,
    RuleKey,
    SetField,
)
from fsctl.pipeline.diff import LAST_TABLE_MISS


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
