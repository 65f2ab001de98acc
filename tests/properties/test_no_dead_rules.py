"""Law: every rule of the flow switch table is for packets that the guard lets in, and says something else
about them than the rule below it.

What is not asked: that longer prefixes do not cover a rule all together (0.0.0.0/1 and 128.0.0.0/1 a
default route). Leaving such a rule out would make a change reach beyond its own prefix, against the
region that updates rely on (design: a change can only change rules inside its prefix).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fsctl.model.addresses import BITS, IPV4, IPV6, Prefix
from fsctl.model.ip_protocols import TCP, UDP
from fsctl.model.martians import LOCAL_DESTINATIONS
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.openflow.rules import FLOW_SWITCH, WAYS, Rule, RuleKey, SetField
from fsctl.specification.interpreter import Frame
from fsctl.specification.walk import walk
from tests.properties.laws import AMPLE_TTL, ORDINARY_SOURCE, STRANGER, Bench, law
from tests.strategies import a_network, edges

IP_VERSION = {0x0800: IPV4, 0x86DD: IPV6}


def prefix_in(key: RuleKey) -> Prefix:
    """The destinations that a rule of the flow switch is about."""
    fields = {f.name: f for f in key.match}
    version = IP_VERSION[fields["eth_type"].value]
    dst = fields.get(f"ipv{version}_dst")
    if dst is None:
        return Prefix(version, 0, 0)
    length = BITS[version] if dst.mask is None else dst.mask.bit_count()
    return Prefix(version, dst.value, length)


def flow_rules(bench: Bench, bridge: str) -> list[Rule]:
    """The rules of the flow switch table but its table miss."""
    rules = bench.tables[bridge].rules
    return [Rule(key, actions) for key, actions in rules.items() if key.table == FLOW_SWITCH and key.match]


def witnesses(bench: Bench, bridge: str, rule: Rule, rules: list[Rule]) -> Iterator[Packet]:
    """Packets for a rule: one for every class of destinations that the bridge's rules distinguish."""
    values = {f.name: f.value for f in rule.key.match}
    inside = prefix_in(rule.key)
    version = inside.version
    sender = bench.sender(bridge, values.get("eth_src", STRANGER))
    if sender is None:
        return
    packet = Packet(bridge, *sender, values["eth_dst"], version, ORDINARY_SOURCE[version], ttl=AMPLE_TTL)
    for proto, l4 in ((TCP, "tcp"), (UDP, "udp")):
        if f"{l4}_src" in values:
            src, sport, dport = values[f"ipv{version}_src"], values[f"{l4}_src"], values[f"{l4}_dst"]
            packet = replace(packet, src=src, ip_proto=proto, sport=sport, dport=dport)
    if any(f.name == "nw_frag" and f.value for f in rule.key.match):
        packet = replace(packet, src=values[f"ipv{version}_src"], ip_proto=values["ip_proto"], fragment=True)
    places = edges(version, [*(prefix_in(r.key) for r in rules), *LOCAL_DESTINATIONS])
    yield from (replace(packet, dst=dst) for dst in sorted(places) if inside.covers(version, dst))


def admitted(bench: Bench, packet: Packet) -> bool:
    """Whether the guard lets a packet come as far as the flow switch."""
    return any(hit.rule.key.table == FLOW_SWITCH for hit in bench.program.run(packet).hits)


class Meaning:
    """What the rules of one bridge's flow switch say, and to which packets."""

    def __init__(self, bench: Bench, bridge: str) -> None:
        self.bench = bench
        self.rules = flow_rules(bench, bridge)
        self.packets = {r.key: [p for p in witnesses(bench, bridge, r, self.rules) if admitted(bench, p)] for r in self.rules}

    def matching(self, packet: Packet) -> list[Rule]:
        """Highest priority first."""
        return list(self.bench.program.matching(Frame(packet), FLOW_SWITCH))

    def hops(self, rule: Rule) -> int | None:
        """Routers bypassed; None where longer prefixes leave the rule no packet, or for the table miss."""
        met = (p for p in self.packets.get(rule.key, ()) if self.matching(p)[0] == rule)
        return next((walk(self.bench.network, p).forwards for p in met), None)

    def says_more(self, rule: Rule) -> bool:
        """Whether some packet would fare otherwise by the rule below.

        A drop behind more hops is another drop, as the guard leaves packets of a TTL that a router on
        the way would answer to that router: the longest chain among the rules tells it which.
        """
        for packet in self.packets[rule.key]:
            found = self.matching(packet)
            below = next(r for r in found[found.index(rule) :] if r.key.priority < rule.key.priority)
            if below.actions != rule.actions or self.hops(below) != self.hops(rule):
                return True
        return False


@law(a_network)
def test_every_rule_says_something_that_the_one_below_does_not(network: Network) -> None:
    bench = Bench.of(network)
    for bridge in network.bridges:
        meaning = Meaning(bench, bridge)
        for rule in meaning.rules:
            assert meaning.says_more(rule), rule


@law(a_network)
def test_every_way_is_taken_and_every_way_taken_is_there(network: Network) -> None:
    bench = Bench.of(network)
    for table in bench.tables.values():
        actions = [action for listed in table.rules.values() for action in listed]
        named = {a.value for a in actions if isinstance(a, SetField) and a.name == "reg1"}
        there = {f.value for key in table.rules if key.table == WAYS for f in key.match if f.name == "reg1"}
        assert named == there
