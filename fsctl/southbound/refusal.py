"""What is left of an update when a switch rejects part of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from fsctl.openflow.errors import TABLE_FULL, OpenFlowError
from fsctl.openflow.rules import RuleChange, RuleKey
from fsctl.pipeline.dependents import dependents
from fsctl.status import Rejection

FOREIGN = "a rule with another cookie has this table, priority and match"


class _Why(NamedTuple):
    """A Rejection without its rule."""

    error: str
    type: int = 0
    code: int = 0


class Refusals:
    """The changes still to be made, in order, and the rejections so far."""

    def __init__(self, changes: Sequence[RuleChange]) -> None:
        self.changes = list(changes)
        self.rejections: list[Rejection] = []

    def keep_off(self, foreign: Collection[RuleKey]) -> None:
        """Reject additions where others have a rule: OpenFlow's ADD would replace it."""
        if not foreign:
            return
        taken = [c for c in self.changes if c.is_new and c.actions is not None and c.key in foreign]
        self._drop({id(c): (c, _Why(FOREIGN)) for c in taken})

    def refuse(self, errors: Mapping[int, OpenFlowError]) -> None:
        """Remove the changes at these indexes, those that depend on them, and those that would fail in the same way."""
        dropped: dict[int, tuple[RuleChange, _Why]] = {}
        for index, error in errors.items():
            for change in (self.changes[index], *self._alike(index, error)):
                dropped.setdefault(id(change), (change, _Why(error.name, error.type, error.code)))
        self._drop(dropped)

    def _alike(self, index: int, error: OpenFlowError) -> list[RuleChange]:
        """Later additions to the same full table."""
        if error.kind != TABLE_FULL:
            return []
        full = self.changes[index].key.table
        return [c for c in self.changes[index + 1 :] if c.is_new and c.actions is not None and c.key.table == full]

    def _drop(self, dropped: dict[int, tuple[RuleChange, _Why]]) -> None:
        if not dropped:
            return
        first = next(iter(dropped.values()))[1]
        needed = first._replace(error=f"{first.error}, for what it needs")
        for other in dependents([change for change, _ in dropped.values()], self.changes):
            dropped[id(other)] = (other, needed)
        self.rejections.extend(Rejection(change.key, *why) for change, why in dropped.values())
        self.changes = [c for c in self.changes if id(c) not in dropped]
