"""Tables and traffic for the comparison: a chain of routers with FIBs as real ones look."""

from __future__ import annotations

import random
from dataclasses import dataclass

from topologies.experiments.search.tables import MASKS, Entry

LENGTHS = {16: 2, 19: 3, 20: 5, 21: 6, 22: 13, 23: 10, 24: 58, 32: 3}
"""Prefix lengths and their shares in percent: the shape of today's IPv4 BGP tables, and some host routes."""
SENDER_MAC = 0x02_00_00_EE_00_01
HOSTS = (0x02_00_00_FF_00_01, 0x02_00_00_FF_00_02)
"""The last router's next hops."""
FIRST, SPAN = 16 << 24, 111 << 24
"""Destinations from 16.0.0.0 to 126.255.255.255: a stretch without any that no router forwards."""


def interface_mac(router: int, number: int) -> int:
    """Router 1 is the first; interface 0 looks towards the chain's beginning."""
    return 0x02_00_00_00_00_00 | router << 8 | number + 1


@dataclass(frozen=True, slots=True)
class Forward:
    """What a router does to a packet."""

    eth_src: int
    eth_dst: int


@dataclass(frozen=True, slots=True)
class Chain:
    """`prefixes` (value, length) are known to all `routers`; `hosts[i]` says to which host prefix i leads in the end."""

    routers: int
    prefixes: tuple[tuple[int, int], ...]
    hosts: tuple[int, ...]

    @property
    def entry_mac(self) -> int:
        return interface_mac(1, 0)

    def entries(self, router: int) -> list[tuple[Entry, Forward]]:
        """The FIB of a router at its ingress interface."""
        here, out = interface_mac(router, 0), interface_mac(router, 1)
        onwards = interface_mac(router + 1, 0)
        last = router == self.routers
        return [
            (Entry(here, value, length), Forward(out, HOSTS[host] if last else onwards))
            for (value, length), host in zip(self.prefixes, self.hosts, strict=True)
        ]

    def destinations(self, count: int, seed: int = 1) -> list[int]:
        """Addresses inside the prefixes, all different where there is room."""
        dice = random.Random(seed)
        found: dict[int, None] = {}
        while len(found) < count:
            value, length = self.prefixes[dice.randrange(len(self.prefixes))]
            found[value | dice.getrandbits(32) & ~MASKS[length] & 0xFFFFFFFF] = None
            if len(self.prefixes) * 2 < count and all(length == 32 for _, length in self.prefixes):
                break
        return list(found)


def make_chain(routers: int, count: int, seed: int = 20260801) -> Chain:
    """`count` different prefixes at each of `routers` routers."""
    dice = random.Random(seed)
    lengths, weights = tuple(LENGTHS), tuple(LENGTHS.values())
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        length = dice.choices(lengths, weights)[0]
        found[(FIRST + dice.randrange(SPAN)) & MASKS[length], length] = None
    return Chain(routers, tuple(found), tuple(dice.randrange(2) for _ in found))
