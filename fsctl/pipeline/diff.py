"""Desired against installed: the ordered changes that turn one into the other. Pure.

Every prefix of the sequence is a safe state: tables that are looked up later are filled first (make before break), guards
are added before what they guard and removed after it, and in the flow switch more specific rules are added first: if the
table is full, no forward is installed without the holes in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fsctl.openflow.rules import (
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
    RuleChange,
    RuleTable,
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
