"""A node, the steps of walks from it, and the verdicts of all nodes at one prefix."""

from __future__ import annotations

from typing import NamedTuple

from fsctl.collapse.effects import ENDS, LOCAL_ID, Effect, Outcome, Place, Point
from fsctl.model.delegations import FiveTuple
from fsctl.model.fib import PUNT_ID, Part
from fsctl.model.network import Interface
from fsctl.model.prefix_keys import Key

NOTHING = Part()


class Node:
    """An ingress interface and a class of senders; `rules` are those emitted for it."""

    __slots__ = (
        "any", "base", "classes", "eth_src", "has_senders", "held", "index", "interface", "is_cut", "local", "own",
        "rules", "steps", "usable", "version",
    )  # fmt: skip

    def __init__(self, index: int, version: int, interface: Interface, eth_src: int | None, local: frozenset[Key]) -> None:
        self.index, self.version, self.interface = index, version, interface
        self.eth_src, self.local = eth_src, local
        self.usable = interface.up
        self.any = self.own = NOTHING
        self.has_senders = True  # whether the guard lets any packet of this class in
        self.held = False  # whether it has ever had a delegation
        self.is_cut = False  # whether Network.cuts names its interface
        self.base = self  # the node of any sender at the same interface
        self.classes: list[Node] = []
        self.rules: dict[Place, Effect] = {}
        self.steps: dict[int, Step | Outcome] = {}

    def at(self, key: Key) -> int | None:
        """The verdict's number for exactly this prefix."""
        if key in self.local:
            return LOCAL_ID
        number = self.own.prefixes.get(key)
        if number is None:
            number = self.any.prefixes.get(key)
        return number | ENDS if self.is_cut and number is not None and number > 0 else number

    @property
    def is_in_use(self) -> bool:
        """Whether a class of senders has delegations of its own."""
        return self.own is not NOTHING

    def at_point(self, point: Point) -> int | None:
        """The verdict's number for a connection. Fragments that may belong to a delegated connection are punted."""
        if isinstance(point, FiveTuple):
            return self._at_connection(point)
        return PUNT_ID if point in self.own.fragments or point in self.any.fragments else None

    def _at_connection(self, connection: FiveTuple) -> int | None:
        number = self.own.connections.get(connection)
        return self.any.connections.get(connection) if number is None else number


class Step:
    """One forward at one node: `target` is the next node, None where the chain ends."""

    __slots__ = ("alone", "bit", "limit", "target")

    def __init__(self, target: Node | None, limit: int, bit: int, alone: Outcome) -> None:
        self.target, self.limit, self.bit, self.alone = target, limit, bit, alone


class Emission(NamedTuple):
    """One rule that was added, removed or changed; None: no rule."""

    node: Node
    key: Place
    old: Effect | None
    new: Effect | None


class State:
    """The verdicts of all nodes at one prefix; `results` is filled on demand (None: not yet)."""

    __slots__ = ("best", "last", "results")

    def __init__(self, last: int, best: list[int | None], results: list[Outcome | None]) -> None:
        self.last, self.best, self.results = last, best, results
