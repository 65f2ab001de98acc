"""The registry of what the adversary does.

An action is a generator: it disturbs, yields what holds at that moment (a `Pause`, checked by the soak), disturbs again or
undoes. When it has ended, everything is as before and all of `WELL` is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.soak.harness import Soak
from tests.soak.pause import Pause

Run = Callable[[Soak], Iterator[Pause]]


@dataclass(frozen=True, slots=True)
class Action:
    """`alone`: it does not go together with others. `weight`: how often it is drawn. `does`: in a few words."""

    name: str
    run: Run
    alone: bool
    weight: int
    does: str


ACTIONS: dict[str, Action] = {}


def action(alone: bool = False, weight: int = 2) -> Callable[[Run], Run]:
    """Register a generator under its own name; its docstring says what it does."""

    def register(run: Run) -> Run:
        name = run.__name__
        ACTIONS[name] = Action(name, run, alone, weight, (run.__doc__ or "").strip().splitlines()[0])
        return run

    return register


__all__ = ["ACTIONS", "Action", "Pause", "Soak", "action"]
