"""The paper's flowchart in software: look up, rewrite, look up again, until nothing matches."""

from __future__ import annotations

from collections.abc import Callable

from topologies.experiments.search.fibs import SENDER_MAC, Chain, Forward
from topologies.experiments.search.tables import Table


class Cascade:
    """One table with the FIBs of all routers of a chain."""

    def __init__(self, chain: Chain, method: Callable[[], Table]) -> None:
        self.chain, self.table = chain, method()
        self.verdicts: list[Forward] = []
        self._numbers: dict[Forward, int] = {}
        for router in range(1, chain.routers + 1):
            for entry, forward in chain.entries(router):
                self.table.insert(entry, self.number(forward))

    def number(self, forward: Forward) -> int:
        """The verdict's number in the table."""
        if forward not in self._numbers:
            self._numbers[forward] = len(self.verdicts)
            self.verdicts.append(forward)
        return self._numbers[forward]

    def walk(self, dst: int, eth_src: int = SENDER_MAC) -> tuple[int, int, int]:
        """(hops, final eth_src, final eth_dst) of a packet from outside."""
        lookup, verdicts, hops, eth_dst = self.table.lookup, self.verdicts, 0, self.chain.entry_mac
        while (number := lookup(eth_dst, eth_src, dst)) is not None:
            forward = verdicts[number]
            eth_src, eth_dst = forward.eth_src, forward.eth_dst
            hops += 1
        return hops, eth_src, eth_dst
