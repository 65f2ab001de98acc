"""What is wanted: the delegations and the present network, compiled and laid out as rules.

Readers see one `Snapshot`: network, compiled walks and tables belong together. It is swapped by one assignment once the
new one is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from fsctl.collapse import cuts
from fsctl.collapse.compiler import Compiler, Replaced
from fsctl.inventory import Inventory, without_switch_state
from fsctl.model.delegations import Forward
from fsctl.model.fib import Fib
from fsctl.model.network import Network
from fsctl.openflow.rules import RuleChange
from fsctl.pipeline.layout import Layout

_LOG = logging.getLogger(__name__)
Changes = dict[str, list[RuleChange]]


class Snapshot(NamedTuple):
    """A network, its compiled walks and its tables, which belong together."""

    network: Network
    compiler: Compiler
    layout: Layout


class Desired:
    """The wanted state of all bridges. Before `begin` no delegation is compiled, since not everything is known yet."""

    def __init__(self, inventory: Inventory, fibs: dict[str, Fib], pause: Callable[[], None]) -> None:
        self.inventory, self.fibs = inventory, fibs
        self._pause = pause
        self.has_begun = False
        network = inventory.network(fibs)
        compiler = Compiler(replace(network, fibs={name: Fib() for name in fibs}))
        self.now = Snapshot(network, compiler, Layout(network, compiler))

    def begin(self) -> None:
        """End the start: compile the delegations from now on."""
        self.has_begun = True
        self.rebuild()

    def rebuild(self) -> None:
        """Compile everything anew."""
        self._use(self.inventory.network(self.fibs))

    def without_bypass(self) -> None:
        """Want the fixed rules only: every packet takes the slow path."""
        network = self.inventory.network({name: Fib() for name in self.fibs})
        compiler = Compiler(network, self._pause)
        self.now = Snapshot(network, compiler, Layout(network, compiler, self.now.layout))

    def restructure(self) -> Changes:
        """Follow changed interfaces, ports, links and switches; returns the changes of rules by bridge."""
        old, network = self.now, self.inventory.network(self.fibs)
        if not self.has_begun or (network.routers == old.network.routers and network.bridges == old.network.bridges):
            return {}
        if network.routers == old.network.routers and without_switch_state(network) == without_switch_state(old.network):
            old.compiler.rewire(network)
            changes = old.layout.rewire(network)
            self.now = Snapshot(network, old.compiler, old.layout)
            return changes
        self._use(network)
        changes = self.now.layout.since(old.layout)
        old.compiler.discard()
        return changes

    def update(self, replaced: Mapping[str, Sequence[Replaced]]) -> Iterator[Changes]:
        """Follow changed delegations; yields the changes of rules in pieces, to be made as one bundle per bridge."""
        compiler, cut = self.now.compiler, set(self.now.network.cuts)
        yield from self.now.layout.apply(compiler.update(replaced))
        self._tell(cut)
        for router in replaced:
            numbers = self.fibs[router].free_nexthops()
            if numbers:
                compiler.forget(router, numbers)

    def _tell(self, before: set[cuts.Place]) -> None:
        """Log which chains are cut now, and which are no more."""
        for place in sorted(self.now.network.cuts - before):
            _LOG.warning("%s", cuts.notice(place))
        for router, interface, version in sorted(before - self.now.network.cuts):
            _LOG.info("router %s: IPv%d chains from %s are no longer cut", router, version, interface)

    def move_nexthop(self, router: str, numbers: Collection[int], old: Forward, new: Forward) -> Iterable[Changes]:
        """A neighbour has another MAC: its rewrites change; if the old or new MAC is a router's, the walks change too."""
        fib, before = self.fibs[router], self.now
        leads_on = self.has_begun and any(before.compiler.leads_on(router, hop) for hop in (old, new))
        for number in numbers:
            fib.move_nexthop(number, new)
        if not self.has_begun:
            return
        if leads_on:
            self._use(before.network)
            yield self.now.layout.since(before.layout)
            before.compiler.discard()
        yield self.now.layout.reroute(router, numbers)

    def _use(self, network: Network) -> None:
        before = set(self.now.network.cuts)  # the network may be the same
        network.cuts.update(before)  # they are lifted later than they are made
        compiler = Compiler(network, self._pause)
        self.now = Snapshot(network, compiler, Layout(network, compiler, self.now.layout))
        self._tell(before)

    def is_joined(self, pair: frozenset[str]) -> bool:
        """Whether two bridges have patch ports towards each other and both have confirmed that they let frames in."""
        bridges = self.now.network.bridges
        ends = [(bridges[a], bridges[b]) for a in pair for b in pair if a != b]
        return all(
            there.name in here.links and (here.arrivals is None or here.links[there.name] in here.arrivals)
            for here, there in ends
        )
