"""What is left of an update when a switch refuses part of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fsctl.openflow.errors import OUT_OF_GROUPS, TABLE_FULL, OpenFlowError
from fsctl.reconcile import dependents
from fsctl.rules import GroupChange, RuleChange, RuleKey
from fsctl.status import Rejection

Change = RuleChange | GroupChange
FOREIGN = "a rule with another cookie has this table, priority and match"


def _name(change: Change) -> RuleKey | int:
    return change.id if isinstance(change, GroupChange) else change.key


class Refusals:
    """The changes still to be made, in order, and the rejections so far."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = list(changes)
        self.rejections: list[Rejection] = []

    def keep_off(self, foreign: Collection[RuleKey]) -> None:
        """Refuse additions where others have a rule: OpenFlow's ADD would replace it."""
        if not foreign:
            return
        taken = [c for c in self.changes if isinstance(c, RuleChange) and c.is_new and c.actions is not None and c.key in foreign]
        self._drop({id(c): (c, Rejection(c.key, FOREIGN)) for c in taken})

    def refuse(self, errors: Mapping[int, OpenFlowError]) -> None:
        """Take out the changes at these indexes, and what cannot go without them or would fail as they did."""
        dropped: dict[int, tuple[Change, Rejection]] = {}
        for index, error in errors.items():
            change = self.changes[index]
            for other in (change, *self._alike(index, error)):
                dropped.setdefault(id(other), (other, Rejection(_name(other), error.name, *error.kind)))
        self._drop(dropped)

    def _alike(self, index: int, error: OpenFlowError) -> list[Change]:
        """Later additions that meet the same full table."""
        cause, later = self.changes[index], [c for c in self.changes[index + 1 :] if c.is_new and c.actions is not None]
        if error.kind == TABLE_FULL and isinstance(cause, RuleChange):
            return [c for c in later if isinstance(c, RuleChange) and c.key.table == cause.key.table]
        if error.kind == OUT_OF_GROUPS:
            return [c for c in later if isinstance(c, GroupChange)]
        return []

    def _drop(self, dropped: dict[int, tuple[Change, Rejection]]) -> None:
        if not dropped:
            return
        first = next(iter(dropped.values()))[1]
        for other in dependents([change for change, _ in dropped.values()], self.changes):
            because = Rejection(_name(other), f"{first.error}, for what it needs", first.type, first.code)
            dropped[id(other)] = (other, because)
        self.rejections.extend(rejection for _, rejection in dropped.values())
        self.changes = [c for c in self.changes if id(c) not in dropped]
