"""Three ways to let Open vSwitch do a chain's walk: the cascade itself, collapsed rules, reactive exact matches.

All on one bridge: port 1 is where packets come from, port 2 where they go. The same FIBs give the same packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fsctl.collapse.compiler import Compiler
from fsctl.collapse.effects import FORWARD, Effect
from fsctl.collapse.node import Node
from fsctl.model.addresses import IPV4
from fsctl.model.delegations import Forward
from fsctl.model.fib import Change, Fib
from fsctl.model.network import Bridge, Interface, Network, Router
from fsctl.openflow.rules import FLOW_SWITCH, Action, DecTtl, Field, Output, Resubmit, RuleChange, RuleKey, SetField, match_of
from topologies.experiments.search.cascade import Cascade
from topologies.experiments.search.fibs import Chain, interface_mac
from topologies.experiments.search.tables import MASKS, Entry, PerLengthHashes

MAX_HOPS = 128
OUT = Output(2)
PART = ("eth0", IPV4, None)
EXACT_PRIORITY = 5000


def _ip(eth_dst: int, *more: Field) -> tuple[Field, ...]:
    return match_of(Field("eth_dst", eth_dst), Field("eth_type", 0x0800), *more)


def _prefix(value: int, length: int) -> Field:
    return Field("ipv4_dst", value, None if length == 32 else MASKS[length])


def _rewrite(hops: int, eth_src: int, eth_dst: int, *then: Action) -> tuple[Action, ...]:
    return DecTtl(hops), SetField("eth_src", eth_src), SetField("eth_dst", eth_dst), *then


def cascade_rules(chain: Chain) -> Iterator[RuleChange]:
    """One rule for each delegation; the rewritten packet is looked up again (the paper's flowchart as resubmit)."""
    for router in range(1, chain.routers + 1):
        for entry, forward in chain.entries(router):
            yield cascade_rule(entry, forward.eth_src, forward.eth_dst)


def cascade_rule(entry: Entry, eth_src: int, eth_dst: int, *, is_new: bool = True) -> RuleChange:
    key = RuleKey(FLOW_SWITCH, 1000 + 2 * entry.length, _ip(entry.eth_dst, _prefix(entry.value, entry.length)))
    return RuleChange(key, _rewrite(1, eth_src, eth_dst, Resubmit(FLOW_SWITCH)), is_new)


def network(chain: Chain) -> Network:
    """The chain as fsctl's compiler takes it."""
    count = chain.routers
    bridges = {f"b{k}": Bridge(f"b{k}", {f"b{j}": 10 + j for j in range(count + 1) if j != k}) for k in range(count + 1)}
    routers, fibs = {}, {}
    for k in range(1, count + 1):
        name = f"r{k}"
        ends = [Interface(name, f"eth{n}", f"b{k - 1 + n}", f"{name}.{n}", interface_mac(k, n), ofport=2 - n) for n in (0, 1)]
        routers[name] = Router(name, {end.name: end for end in ends})
        fibs[name] = Fib()
        for entry, forward in chain.entries(k):
            fibs[name].apply(change_of(entry, forward.eth_dst))
    return Network(bridges, routers, fibs, max_hops=MAX_HOPS)


def change_of(entry: Entry, eth_dst: int) -> Change:
    return Change(PART, entry.value << 8 | entry.length, Forward("eth1", eth_dst))


class Collapsed:
    """fsctl's compiler over a chain, its rules on one bridge."""

    def __init__(self, chain: Chain) -> None:
        self.network = network(chain)
        self.compiler = Compiler(self.network)

    def rules(self) -> Iterator[RuleChange]:
        for node in self.compiler.graphs[IPV4].nodes:
            for key, effect in node.rules.items():
                if isinstance(key, int) and effect.kind == FORWARD:
                    yield self._rule(node, key, effect, is_new=True)

    def _rule(self, node: Node, key: int, effect: Effect, *, is_new: bool) -> RuleChange:
        hop = self.network.fibs[effect.router].nexthops[effect.nexthop]
        eth_src = self.network.routers[effect.router].interfaces[hop.out].mac
        length = key & 0xFF
        match = _ip(node.interface.mac, _prefix(key >> 8, length))
        actions = _rewrite(effect.hops, eth_src, hop.eth_dst, OUT)
        return RuleChange(RuleKey(FLOW_SWITCH, 1000 + 2 * length, match), actions, is_new)

    def change(self, router: int, entry: Entry, eth_dst: int) -> list[RuleChange]:
        """What one changed delegation changes."""
        name, change = f"r{router}", change_of(entry, eth_dst)
        fib = self.network.fibs[name]
        number = fib.number_at(change.part, change.key)
        before = None if number is None else fib.verdict(number)
        fib.apply(change)
        found = []
        for emission in chain.from_iterable(self.compiler.update({name: [(change, before)]})):
            assert isinstance(emission.key, int)
            if emission.new is None:
                key = self._rule(emission.node, emission.key, emission.old, is_new=False).key  # type: ignore[arg-type]
                found.append(RuleChange(key, None, False))
            else:
                found.append(self._rule(emission.node, emission.key, emission.new, is_new=emission.old is None))
        return found


class ReactiveWalk:
    """Walks in software when asked about a packet, and remembers what it has had installed."""

    def __init__(self, chain: Chain) -> None:
        self._cascade = Cascade(chain, PerLengthHashes)
        self.installed: dict[RuleKey, int] = {}
        """Key of an entry -> the destination."""

    def decide(self, frame: bytes) -> tuple[RuleChange, tuple[Action, ...]]:
        """For `management.Reactive`: the five exact fields of the paper, and their verdict."""
        eth_dst, eth_src = int.from_bytes(frame[:6], "big"), int.from_bytes(frame[6:12], "big")
        dst = int.from_bytes(frame[30:34], "big")
        hops, new_src, new_dst = self._cascade.walk(dst, eth_src)
        actions: tuple[Action, ...] = _rewrite(hops, new_src, new_dst, OUT) if hops else (OUT,)
        match = _ip(eth_dst, Field("eth_src", eth_src), Field("ipv4_dst", dst))
        key = RuleKey(FLOW_SWITCH, EXACT_PRIORITY, match)
        self.installed[key] = dst
        return RuleChange(key, actions, True), actions

    def change(self, entry: Entry, eth_src: int, eth_dst: int) -> list[RuleChange]:
        """A delegation changes: every entry inside its prefix goes, because it may have been made from it."""
        forward = next(f for f in self._cascade.verdicts if f.eth_src == eth_src)
        self._cascade.table.insert(entry, self._cascade.number(type(forward)(eth_src, eth_dst)))
        gone = [key for key, dst in self.installed.items() if dst & MASKS[entry.length] == entry.value]
        for key in gone:
            del self.installed[key]
        return [RuleChange(key, None, False) for key in gone]
