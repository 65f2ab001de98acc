"""The rules that follow from the network alone."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace

from fsctl.model.fib import Fib
from fsctl.model.network import Address, Bridge, Interface, Network, Router
from fsctl.openflow.rules import (
    ADMISSION,
    EGRESS,
    ELSEWHERE,
    FLOW_SWITCH,
    GUARD,
    LEARN,
    MTU,
    SENDERS,
    TTL,
    WAYS,
    Action,
    Field,
    GotoTable,
    Learn,
    Output,
    RuleKey,
)
from fsctl.pipeline.fixed_rules import BRIDGE, ENTER, LEARN_AND_NORMAL, NORMAL, fixed_rules
from tests.builders import line, mac, with_interface

R0 = mac(0, 0)
C = 0x0200_0000_0C01
PLAIN = Field("eth_src", 0, 1 << 40), Field("vlan_tci", 0, 0x1000)


def with_bridge(network: Network, name: str = "br0", **changes: object) -> Network:
    changed = replace(network.bridges[name], **changes)  # type: ignore[arg-type]
    return replace(network, bridges={**network.bridges, name: changed})


def actions(network: Network, table: int, priority: int, *match: Field, bridge: str = "br0") -> tuple[Action, ...] | None:
    return fixed_rules(network, bridge, {}).rules.get(RuleKey(table, priority, match))


def test_senders_are_learned_where_the_network_says_so_for_as_long_as_the_bridge_remembers() -> None:
    network = with_bridge(line(1), sender_ports={50: 256, 51: 8}, mac_age_s=15)
    assert actions(network, LEARN, 10, Field("in_port", 50)) == (Learn(50, 15, 256),)
    assert actions(network, LEARN, 10, Field("in_port", 51)) == (Learn(51, 15, 8),)
    assert actions(network, LEARN, 10, Field("in_port", 1)) is None


def test_learned_senders_age_even_where_the_bridge_never_forgets() -> None:
    """A hard_timeout of 0 would mean for ever, and the field has 16 bits."""
    for age_s, expected in ((0, 1), (100_000, 65535)):
        network = with_bridge(line(1), sender_ports={50: 1}, mac_age_s=age_s)
        assert actions(network, LEARN, 10, Field("in_port", 50)) == (Learn(50, expected, 1),)


def test_a_routers_mac_is_learned_at_its_own_port_alone() -> None:
    network = with_bridge(line(1), sender_ports={1: 4, 50: 256})
    assert actions(network, LEARN, 30, Field("in_port", 1), Field("eth_src", R0)) == (Learn(1, 300, 4),)
    assert actions(network, LEARN, 20, Field("eth_src", R0)) == ()


def test_a_receiver_known_for_certain_needs_no_learning() -> None:
    network = with_bridge(line(1), pinned={C: 51, R0: 50})
    assert actions(network, SENDERS, 20, Field("eth_dst", C)) == (Output(51),)
    assert actions(network, SENDERS, 20, Field("eth_dst", R0)) == (Output(1),), "a router's own port goes before"
    down = with_interface(network, "r0", "eth0", up=False)
    assert actions(down, SENDERS, 20, Field("eth_dst", R0)) == (Output(50),)
    assert actions(with_interface(line(1), "r0", "eth0", up=False), SENDERS, 20, Field("eth_dst", R0)) is None


def test_what_comes_from_an_exempt_port_is_the_bridges_business_the_router_itself_too() -> None:
    network = with_bridge(line(1), exempt_ports={1: "has a VLAN configuration"})
    assert actions(network, GUARD, 8, Field("in_port", 1), *PLAIN) == NORMAL
    assert actions(network, GUARD, 5, Field("in_port", 1), Field("eth_src", R0)) is None
    assert actions(line(1), GUARD, 5, Field("in_port", 1), Field("eth_src", R0)) == ENTER


def test_fault_X1_who_sends_from_an_exempt_port_is_known_to_be_there() -> None:
    """Nothing was learned there: a neighbour who claimed the MAC address had its packets until he was forgotten."""
    network = with_bridge(line(1), exempt_ports={50: "is protected", 51: "has a VLAN configuration"}, sender_ports={50: 256})
    assert actions(network, GUARD, 8, Field("in_port", 50), *PLAIN) == LEARN_AND_NORMAL
    assert actions(network, GUARD, 8, Field("in_port", 51), *PLAIN) == NORMAL, "another VLAN"
    assert actions(network, LEARN, 10, Field("in_port", 50)) == (Learn(50, 300, 256, by_normal=True),)
    assert actions(network, ELSEWHERE, 10, Field("reg0", 2, 2)) == NORMAL


def test_fault_X2_what_a_port_has_learned_is_not_its_successors() -> None:
    """The rule stayed the same when two ports exchanged their OpenFlow numbers, and so did what it had learned.

    With 128 epochs that was so for one exchange of 128: frames went on to the port that the number had left.
    """
    draw, cookies = random.Random(1), set()
    for port_id in (7, 8, 7 + 128, *(zlib.crc32(draw.randbytes(16)) for _ in range(200))):
        network = with_bridge(line(1), sender_ports={50: 256}, port_ids={50: port_id})
        rule = actions(network, LEARN, 10, Field("in_port", 50))
        assert rule
        assert isinstance(rule[0], Learn)
        cookies.add(rule[0].cookie)
    assert len(cookies) == 203


def test_fault_X3_a_frame_of_vlan_0_shows_where_its_sender_is() -> None:
    """A priority tag (VLAN ID 0) is no VLAN. Such frames were not learned, so a neighbour's claim held."""
    assert actions(line(1), GUARD, 9, Field("vlan_tci", 0x1000)) == LEARN_AND_NORMAL
    assert actions(line(1), LEARN, 40, Field("eth_src", 1 << 40, 1 << 40)) == (), "that would be everybody's receiver"


def test_egress_is_there_before_the_interface_is_up() -> None:
    key = (Field("eth_src", R0), Field("pkt_mark", 0x6673_6374))
    for up in (True, False):
        assert actions(with_interface(line(1), "r0", "eth0", up=up), EGRESS, 10, *key) is not None
    assert actions(with_interface(line(1), "r0", "eth0", up=False, ofport=None), EGRESS, 10, *key) is None


def test_no_rule_gets_before_those_for_patch_ports_and_no_other_is_high() -> None:
    """Foreign rules keep precedence; fsctl's own patch ports are nobody's business."""
    rules = fixed_rules(line(2), "br0", {("r0", "eth0"): 2}).rules
    high = {k.match for k in rules if k.table == GUARD and k.priority > 9}
    assert high == {(Field("in_port", n),) for n in line(2).bridges["br0"].links.values()}


def two_tenants() -> Network:
    """br0 - r0 - br1 - r1 - br2, and apart from them br7 - r7 - br8."""
    network = line(2)
    for n, (router, side) in enumerate((("r0", "eth0"), ("r0", "eth1"), ("r1", "eth0"), ("r1", "eth1"))):
        network = with_interface(network, router, side, addresses=(Address.parse(f"10.0.{n}.254/24"),))
    interfaces = {
        "eth0": Interface("r7", "eth0", "br7", "", 0x77, addresses=(Address.parse("10.7.0.1/32"),), ofport=1),
        "eth1": Interface("r7", "eth1", "br8", "", 0x78, addresses=(Address.parse("fd00::1/64"),), ofport=1),
    }
    return replace(
        network,
        bridges={**network.bridges, "br7": Bridge("br7"), "br8": Bridge("br8")},
        routers={**network.routers, "r7": Router("r7", interfaces)},
        fibs={**network.fibs, "r7": Fib()},
    )


def test_the_routers_own_addresses_are_guarded_on_all_bridges_that_lead_to_them_and_no_other() -> None:
    network = two_tenants()
    own = {a << 24 | b << 16 | c << 8 | d for a, b, d in ((10, 0, 0), (10, 0, 254), (10, 0, 255)) for c in range(4)}
    for bridge in ("br0", "br1", "br2"):
        assert network.own_sources[bridge] == own
    for bridge in ("br7", "br8"):
        assert network.own_sources[bridge] == {0x0A07_0001}, "of IPv6, no router drops its own addresses"
    guarded = Field("eth_type", 0x0800), Field("ipv4_src", 0x0A00_03FE)
    assert actions(network, ADMISSION, 30, *guarded, bridge="br0") is not None
    assert actions(network, ADMISSION, 30, *guarded, bridge="br7") is None


def test_what_nobody_has_a_rule_for_is_bridged() -> None:
    rules = fixed_rules(Network({"br0": Bridge("br0")}, {}, {}), "br0", {}).rules
    assert [rules[RuleKey(table, 0, ())] for table in (FLOW_SWITCH, ADMISSION, WAYS, MTU)] == [BRIDGE] * 4
    assert rules[RuleKey(TTL, 0, ())] == (GotoTable(WAYS),)
    assert rules[RuleKey(SENDERS, 1, ())] == NORMAL
