"""The ways out of a bridge: which number stands for which effect, and how many rules lead there."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping

from fsctl.collapse.effects import SLOW, Effect
from fsctl.openflow.rules import ADMISSION, Action, GotoTable, SetField


def has_way(effect: Effect) -> bool:
    """Whether packets are forwarded or dropped in the routers' place: only those that pass ADMISSION are."""
    return effect.kind != SLOW


class Ways:
    """Which number stands for which effect on one bridge.

    A number follows from the effect (so that it is the same after a restart), or is the next free one.
    """

    def __init__(self, known: Mapping[Effect, int] | None = None) -> None:
        self._known = dict(known or {})
        self.numbers: dict[Effect, int] = {}
        self.actions: dict[Effect, tuple[Action, ...]] = {}
        self._taken: dict[int, Effect] = {}
        self.uses: Counter[Effect] = Counter()

    def use(self, effect: Effect) -> bool:
        """One more rule has this effect; true if it is the first."""
        self.uses[effect] += 1
        if self.uses[effect] > 1:
            return False
        number = self._known.get(effect) or zlib.crc32(repr(tuple(effect)).encode()) & 0x7FFF_FFFF or 1
        while number in self._taken:
            number = number % 0x7FFF_FFFF + 1
        self.numbers[effect], self._taken[number] = number, effect
        self.actions[effect] = (SetField("reg1", number), GotoTable(ADMISSION))
        return True

    def leave(self, effect: Effect, rules: int) -> int | None:
        """So many rules less; the number, if they were the last."""
        self.uses[effect] -= rules
        if self.uses[effect]:
            return None
        del self.uses[effect]
        number = self.numbers.pop(effect)
        del self._taken[number], self.actions[effect]
        return number


class Tally:
    """How many rules of a bridge came to have an effect, or had it."""

    __slots__ = ("actions", "bridge", "effect", "rules")

    def __init__(self, bridge: str, effect: Effect, actions: tuple[Action, ...] = ()) -> None:
        self.bridge, self.effect, self.actions, self.rules = bridge, effect, actions, 0
