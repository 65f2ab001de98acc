"""The values that collapse works with: nodes, steps, outcomes and effects (see `graph`)."""

from __future__ import annotations

from typing import NamedTuple

from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.prefix_keys import Key

LOCAL_ID = -2
"""The verdict number of a router's own addresses: they end every walk."""
ENDS = 1 << 40
"""Added to the number of a next hop beyond which the walk is not followed (`Network.cuts`)."""
Point = FiveTuple | Fragments
"""What is matched exactly, and not by prefix."""
Place = Key | Point
"""What a rule of the flow switch is for."""
SLOW, FORWARD, DROPPED = "slow_path", "forward", "drop"


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
