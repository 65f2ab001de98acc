"""The values that collapse works with: nodes, steps, outcomes and effects (see `plane`)."""

from __future__ import annotations

from typing import NamedTuple

from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.fib import PUNT_ID, Part
from fsctl.model.network import Interface
from fsctl.model.prefix_keys import Key
from fsctl.rules import Field

LOCAL_ID = -2
"""The verdict number of a router's own addresses: they end every walk."""
ENDS = 1 << 40
"""Added to the number of a next hop beyond which the walk is not followed (`Network.cuts`)."""
Point = FiveTuple | Fragments
"""What is matched exactly, and not by prefix."""
Place = Key | Point
"""What a rule of the flow switch is for."""
SLOW, FORWARD, DROPPED = "slow_path", "forward", "drop"
NOTHING = Part()


class Outcome:
    """How a walk from some node ends. Interned: the same outcome is the same object.

    `hops` counts the forwards, the last by next hop `nexthop` of `router`; `limit` is the smallest MTU on the
    path in bytes; `path` has a bit for every interface visited.
    """

    __slots__ = ("hops", "kind", "limit", "nexthop", "path", "reason", "router")

    def __init__(
        self,
        kind: str,
        reason: str = "",
        *,
        router: str = "",
        nexthop: int = 0,
        hops: int = 0,
        limit: int = 0,
        path: int = 0,
    ) -> None:
        self.kind, self.reason, self.path = kind, reason, path
        self.router, self.nexthop, self.hops, self.limit = router, nexthop, hops, limit


class Effect(NamedTuple):
    """What a rule does on its bridge. `limit`: the MTU to watch in bytes; 0: none."""

    kind: str
    version: int = 0
    router: str = ""
    nexthop: int = 0
    hops: int = 0
    limit: int = 0


SLOW_EFFECT = Effect(SLOW)
NO_MATCH = Outcome(SLOW, "no delegation")
PUNTED = Outcome(SLOW, "punt")
NEVER_FORWARDED = Outcome(SLOW, "no router forwards such packets")
MARTIAN = Outcome(SLOW, "the source is an address of a router on this network")
NO_SENDER = Outcome(SLOW, "eth_src is a router's whose port is missing or has a VLAN configuration")
LOCAL = Outcome(SLOW, "the router's own address")
LOOP = Outcome(SLOW, "loop")
TOO_LONG = Outcome(SLOW, "chain longer than max_hops")
NO_CHAIN = (LOOP, TOO_LONG)


class Node:
    """An ingress interface and a class of senders; `rules` are those emitted for it."""

    __slots__ = (
        "any", "base", "classes", "eth_src", "has_senders", "head", "held", "index", "interface", "is_cut", "local", "own",
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
        self.head: tuple[Field, ...] | None = None  # what all its rules match on: see pipeline.flow_key

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
