"""What the law modules share: from a network to its tables, and from tables to something comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsctl.collapse.compiler import Compiler, Replaced
from fsctl.model.addresses import IPV4, IPV6, Prefix
from fsctl.model.delegations import Delegation
from fsctl.model.fib import Change, Fib, match_of_change
from fsctl.model.martians import LOCAL_DESTINATIONS
from fsctl.model.network import Interface, Network
from fsctl.model.packet import Packet
from fsctl.openflow.rules import Action, Field, RuleChange, RuleTable, SetField, Update
from fsctl.pipeline import diff
from fsctl.pipeline.layout import Layout, tables
from fsctl.specification.walk import DROPPED, SLOW_PATH, Delivery, Flowterp, Learned, Outcome, Walk, delivered, walk
from tests.strategies import HOST_MACS, HOST_PORTS, Draw, boundaries, edges, known_connections, of_hypothesis, of_seed

STRANGER = HOST_MACS[-1]
"""A sender whose MAC no delegation names (strategies name the first two)."""
ORDINARY_SOURCE = {IPV4: Prefix.parse("192.0.2.77").value, IPV6: Prefix.parse("2001:db8::77").value}
AMPLE_TTL = 255
SMALL_BYTES = 68

EXAMPLES = settings().max_examples // 4
SEEDS = settings().max_examples * 3 // 2
"""Seeded values are cheap and many; examples of Hypothesis are dear, and shrink."""

Tables = Mapping[str, RuleTable]
T = TypeVar("T")


def law(make: Callable[[Draw], T]) -> Callable[[Callable[[T], None]], Callable[[str], None]]:
    """A test of a law, for what `make` makes: by Hypothesis, and for many seeds.

    `HYPOTHESIS_PROFILE=thorough` looks at more of both.
    """

    def decorate(check: Callable[[T], None]) -> Callable[[str], None]:
        value = st.composite(lambda draw: make(of_hypothesis(draw)))()

        def by_seeds() -> None:
            for seed in range(SEEDS):
                try:
                    check(make(of_seed(seed)))
                except AssertionError as e:
                    raise AssertionError(f"seed {seed}: {make(of_seed(seed))}") from e

        ways = {"shrinking": settings(max_examples=EXAMPLES)(given(value)(check)), "seeds": by_seeds}

        def test(how: str) -> None:
            ways[how]()

        test.__doc__ = check.__doc__
        parametrize: Callable[[Callable[[str], None]], Callable[[str], None]] = pytest.mark.parametrize("how", sorted(ways))
        return parametrize(test)

    return decorate


def compiled(network: Network) -> dict[str, RuleTable]:
    """The tables of all bridges, from scratch."""
    return tables(network, Compiler(network))


def as_cut(network: Network) -> dict[str, RuleTable]:
    """The same, with the chains cut that are cut already."""
    return tables(network, Compiler(network, decide=False))


def with_fibs(network: Network, fibs: Mapping[str, Sequence[Delegation]]) -> Network:
    """The network with fresh FIBs, filled in the order given."""
    return replace(network, fibs={name: Fib(list(fibs[name])) for name in network.fibs}, cuts=set())


def delegations_of(network: Network) -> dict[str, list[Delegation]]:
    return {name: list(fib) for name, fib in network.fibs.items()}


def carry_out(network: Network, changes: Sequence[tuple[str, Change]]) -> dict[str, list[Replaced]]:
    """Make the changes in the network's FIBs; gives them with what was there before, as `Compiler.update` wants."""
    replaced: dict[str, list[Replaced]] = {}
    for router, change in changes:
        fib = network.fibs[router]
        replaced.setdefault(router, []).append((change, fib.get(match_of_change(change.part, change.key))))
        fib.apply(change)
    return replaced


def seen_by(prefix: Prefix, network: Network) -> Network:
    """The network as the collapse of one prefix sees it: without all that is narrower."""
    routers = {
        name: replace(router, interfaces={key: replace(i, addresses=()) for key, i in router.interfaces.items()})
        for name, router in network.routers.items()
    }
    wide = {
        name: [d for d in fib if d.match.dst.length <= prefix.length and d.match.dst.covers(prefix.version, prefix.value)]
        for name, fib in network.fibs.items()
    }
    return with_fibs(replace(network, routers=routers), wide)


@dataclass(frozen=True)
class Bench:
    """A network with its tables, ready to be compared packet by packet."""

    network: Network
    tables: Tables
    senders: tuple[Learned, ...] = ()
    longest: dict[Interface, int] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, senders: Sequence[Learned] = ()) -> Bench:
        return cls(network, compiled(network), tuple(senders))

    @cached_property
    def program(self) -> Flowterp:
        return Flowterp(self.tables, {b.name: b.links for b in self.network.bridges.values()}, self.senders)

    def promised(self, found: Walk) -> tuple[Delivery, ...]:
        """What the tables have to do for a walk."""
        return delivered(self.network, found, self.senders)

    def as_it_came(self, packet: Packet) -> tuple[Delivery, ...]:
        """What ordinary bridging does with a packet."""
        return delivered(self.network, Walk((), SLOW_PATH, "", packet), self.senders)

    @cached_property
    def probes(self) -> list[Packet]:
        """Packets (bridge, MACs and port still to be set) for every class of destinations and every connection.

        Between two neighbouring edges all destinations are alike, so the edges stand for all.
        """
        packets = [
            Packet("", 0, 0, 0, version, ORDINARY_SOURCE[version], dst, AMPLE_TTL, SMALL_BYTES)
            for version in (IPV4, IPV6)
            for dst in {*boundaries(self.network, version), *edges(version, LOCAL_DESTINATIONS)}
        ]
        return packets + [
            Packet("", 0, 0, 0, c.version, c.src, c.dst, AMPLE_TTL, SMALL_BYTES, c.ip_proto, *ports, fragment=is_fragment)
            for c in known_connections(self.network)
            for ports, is_fragment in (((c.sport, c.dport), False), ((0, 0), True))
        ]

    def sender(self, bridge: str, eth_src: int) -> tuple[int, int] | None:
        """(in_port, eth_src) by which that MAC may send there; None where it cannot."""
        owner = self.network.by_mac.get((bridge, eth_src))
        port = HOST_PORTS[0] if owner is None else owner.ofport
        return None if port is None or port in self.network.bridges[bridge].exempt_ports else (port, eth_src)

    def arrivals(self, interface: Interface) -> list[Packet]:
        """A packet of every kind that can reach an interface, by class of sender and of destination."""
        fib = self.network.fibs[interface.router]
        named = {d.match.eth_src for d in fib if d.match.eth_src is not None}
        senders = [self.sender(interface.bridge, mac) for mac in sorted(named | {STRANGER})]
        return [
            replace(p, bridge=interface.bridge, in_port=s[0], eth_src=s[1], eth_dst=interface.mac)
            for s in senders
            if s is not None
            for p in self.probes
        ]

    def busy(self) -> list[Interface]:
        """The interfaces that have delegations: where chains begin. A line's first comes first."""
        fibs = self.network.fibs
        return [i for i in self.network.interfaces() if any(d.match.in_port == i.name for d in fibs[i.router])]

    def at_the_edges(self, packet: Packet) -> list[Packet]:
        """The packet with every TTL and length at which its walk may end otherwise, and as a fragment."""
        hops = walk(self.network, packet).forwards
        widest = self.network.bridges[packet.bridge].max_mtu
        lengths = {i.mtu + k for i in self.network.interfaces() for k in (0, 1)}
        return [
            *(replace(packet, ttl=ttl) for ttl in (hops, hops + 1) if hops),
            *(replace(packet, length=length) for length in sorted(lengths) if hops and length <= widest),
            replace(packet, fragment=True),
        ]

    def longest_chain(self, interface: Interface) -> int:
        """The most hops that any packet takes which reaches the routers by this interface."""
        known = self.longest.get(interface)
        if known is None:
            hops = (walk(self.network, p).forwards for p in self.arrivals(interface))
            known = self.longest[interface] = max(hops, default=0)
        return known

    def longest_rule(self, interface: Interface) -> int:
        """The same, counting chains that no packet takes because longer prefixes together cover theirs.

        Their rules are there (see test_no_dead_rules), and the guard goes by the rules.
        """
        prefixes = {d.match.dst for fib in self.network.fibs.values() for d in fib}
        return max(Bench(seen_by(prefix, self.network), {}).longest_chain(interface) for prefix in prefixes)

    def left_alone_for_cause(self, packet: Packet, found: Walk) -> bool:
        """Whether the tables may leave a packet to the first router although `walk` bypasses it.

        The guard knows one TTL for all chains from an interface; and a bridge may not be reachable
        from another while one of the two patch ports is missing.
        """
        links = {b.name: b.links for b in self.network.bridges.values()}
        last = found.final.bridge
        linked = found.end == DROPPED or last == packet.bridge or (last in links[packet.bridge] and packet.bridge in links[last])
        if not linked:
            return True
        interface = self.network.by_mac[packet.bridge, packet.eth_dst]
        return packet.ttl <= self.longest_chain(interface) or packet.ttl <= self.longest_rule(interface)

    def check(self, packet: Packet) -> tuple[Walk, Outcome]:
        """The first law: the tables do what walk says, or leave the packet alone and may."""
        found, outcome = walk(self.network, packet), self.program.run(packet)
        assert not found.forwards or found.final.ttl >= 1, "no router forwards with TTL 0 (RFC 1812, 5.3.1)"
        if outcome.deliveries != self.promised(found):
            assert outcome.deliveries == self.as_it_came(packet), f"{found}\n{outcome}"
            assert self.left_alone_for_cause(packet, found), f"{found}\n{outcome}"
        return found, outcome


def resolved(table: RuleTable) -> Counter[object]:
    """A table without the numbers of its ways, which are names only: each replaced by what the way does.

    Raises KeyError for a rule that names a way that is not there.
    """
    ways: dict[int, set[object]] = {}
    for (number_table, priority, match), actions in table.rules.items():
        for number in _numbers(match):
            rest = tuple(f for f in match if f.name != "reg1")
            ways.setdefault(number, set()).add((number_table, priority, rest, actions))

    def spelled(action: Action) -> object:
        return frozenset(ways[action.value]) if isinstance(action, SetField) and action.name == "reg1" else action

    rules = {key: tuple(map(spelled, actions)) for key, actions in table.rules.items() if not _numbers(key.match)}
    return Counter([*rules.items(), *map(frozenset, ways.values())])


def _numbers(match: tuple[Field, ...]) -> list[int]:
    return [f.value for f in match if f.name == "reg1"]


def all_resolved(tables_: Tables) -> dict[str, Counter[object]]:
    """`resolved`, for all bridges."""
    return {bridge: resolved(table) for bridge, table in tables_.items()}


def carried_out(tables_: Tables, changes: Mapping[str, Sequence[RuleChange]]) -> dict[str, RuleTable]:
    """The tables after a bundle for each bridge."""
    return {bridge: diff.apply(Update(bridge, diff.order(changes.get(bridge, ()))), table) for bridge, table in tables_.items()}


def updates(layout: Layout, replaced: Mapping[str, Sequence[Replaced]]) -> dict[str, list[RuleChange]]:
    """All changes that an update of the layout's compiler leads to."""
    found: dict[str, list[RuleChange]] = {}
    for piece in layout.apply(layout.compiler.update(replaced)):
        for bridge, changes in piece.items():
            found.setdefault(bridge, []).extend(changes)
    return found
