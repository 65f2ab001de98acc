"""`specification.interpreter.lookup`: what Open vSwitch would do with a rule (ovs-actions(7), ovs-fields(7))."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.model.addresses import IPV6, MULTICAST_BIT
from fsctl.model.ip_protocols import ICMPV6, TCP, UDP
from fsctl.model.packet import Packet
from fsctl.openflow.rules import (
    FIELD_ORDER,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleKey,
    RuleTable,
    SetField,
)
from fsctl.specification.interpreter import MAX_DEPTH, Frame, Learned, fragment_bits, matches
from fsctl.specification.walk import Delivery, Outcome, lookup

PACKET = Packet("br", 1, 0xA, 0xB, src=0x0A000001, dst=0x0A000902, ttl=64, length=100, sport=1000, dport=2000)
LINKS = {"br": {"peer": 9}, "peer": {"br": 8}}


def table(*rules: tuple[int, int, tuple[Field, ...], tuple[Action, ...]]) -> RuleTable:
    """Of (table, priority, match, actions)."""
    result = RuleTable()
    result.add(*(Rule(RuleKey(number, priority, match), actions) for number, priority, match, actions in rules))
    return result


def run(*actions: Action, packet: Packet = PACKET, more: RuleTable | None = None) -> Outcome:
    """What becomes of a packet to which table 0 does `actions`."""
    bridge = more or RuleTable()
    bridge.add(Rule(RuleKey(0, 1, ()), actions))
    return lookup({"br": bridge, "peer": table((0, 1, (), (Normal(),)))}, LINKS, packet)


def test_normal_and_output_deliver_the_packet_as_it_is_then() -> None:
    changed = replace(PACKET, eth_dst=0xC)
    outcome = run(Normal(), SetField("eth_dst", 0xC), Output(5))
    assert outcome.deliveries == (Delivery(PACKET), Delivery(changed, 5))


def test_no_rule_and_no_actions_drop() -> None:
    assert lookup({"br": RuleTable()}, {}, PACKET) == Outcome((), ())
    assert run().deliveries == ()


def test_the_highest_priority_wins_and_ties_are_reported() -> None:
    ties = table((0, 5, (Field("in_port", 1),), (Normal(),)), (0, 5, (), (Output(2),)), (0, 9, (Field("in_port", 2),), ()))
    outcome = lookup({"br": ties}, {}, PACKET)
    (hit,) = outcome.hits
    assert hit.rule.key.priority == 5
    assert len(hit.rivals) == 1
    assert outcome == lookup({"br": RuleTable(dict(reversed(ties.rules.items())))}, {}, PACKET)


@pytest.mark.parametrize(("ttl", "times", "after"), [(64, 1, 63), (3, 2, 1), (2, 2, None), (1, 1, None), (0, 1, None)])
def test_dec_ttl_never_lets_out_a_packet_of_ttl_0(ttl: int, times: int, after: int | None) -> None:
    packet = replace(PACKET, ttl=ttl)
    expected = () if after is None else (Delivery(replace(packet, ttl=after)),)
    assert run(DecTtl(times), Normal(), packet=packet).deliveries == expected


def test_dec_ttl_leaves_alone_what_is_not_ip() -> None:
    arp = replace(PACKET, version=None, ttl=0)
    assert run(DecTtl(), Normal(), packet=arp).deliveries == (Delivery(arp),)


def test_goto_and_resubmit_go_on_with_what_has_been_set() -> None:
    more = table((1, 1, (Field("reg1", 7),), (SetField("eth_src", 0xD),)))
    changed = Delivery(replace(PACKET, eth_src=0xD))
    assert run(SetField("reg1", 7), Resubmit(1), Normal(), more=more).deliveries == (changed,)
    assert run(SetField("reg1", 8), Resubmit(1), Normal(), more=more).deliveries == (Delivery(PACKET),)
    assert run(SetField("reg1", 7), GotoTable(1), more=more).deliveries == ()


@pytest.mark.parametrize(("frame_bytes", "larger"), [(113, 1), (114, 0), (115, 0)])
def test_check_larger_counts_the_ethernet_header(frame_bytes: int, larger: int) -> None:
    more = table((1, 1, (Field("reg0", larger, 1),), (Normal(),)))
    assert run(CheckLarger(frame_bytes), GotoTable(1), more=more).deliveries == (Delivery(PACKET),)


def test_check_larger_leaves_other_bits_alone() -> None:
    more = table((1, 1, (Field("reg0", 6),), (Normal(),)))
    assert run(SetField("reg0", 7), CheckLarger(200), GotoTable(1), more=more).deliveries == (Delivery(PACKET),)


def test_learn_delivers_nothing() -> None:
    outcome = run(Learn(1, 300, 8), Normal())
    assert outcome.deliveries == (Delivery(PACKET),)
    assert outcome.learned == (Learned(PACKET.bridge, PACKET.eth_src, PACKET.in_port),)


def test_nothing_goes_out_where_it_came_in_unless_in_port_says_otherwise() -> None:
    assert run(Output(1)).deliveries == ()
    moved = replace(PACKET, in_port=4)
    assert run(SetField("in_port", 4), Output(1)).deliveries == (Delivery(moved, 1),)


def test_a_patch_port_leads_into_the_next_bridge_where_registers_begin_anew_and_the_mark_stays() -> None:
    peer = table((0, 1, (Field("in_port", 8), Field("reg1", 0), Field("pkt_mark", 6)), (Normal(),)))
    here = table((0, 1, (), (SetField("reg1", 5), SetField("pkt_mark", 6), Output(9))))
    outcome = lookup({"br": here, "peer": peer}, LINKS, PACKET)
    assert outcome.deliveries == (Delivery(replace(PACKET, bridge="peer", in_port=8)),)
    assert [hit.bridge for hit in outcome.hits] == ["br", "peer"]


def test_a_patch_port_without_its_other_end_loses_the_packet() -> None:
    here = table((0, 1, (), (Output(9),)))
    assert lookup({"br": here, "peer": RuleTable()}, {"br": {"peer": 9}, "peer": {}}, PACKET).deliveries == ()


def test_a_loop_of_lookups_ends_as_in_the_switch() -> None:
    outcome = lookup({"br": table((0, 1, (), (Resubmit(0),)))}, {}, PACKET)
    assert outcome.deliveries == ()
    assert len(outcome.hits) == MAX_DEPTH


TCP4 = replace(PACKET, ip_proto=TCP)
ND6 = replace(PACKET, version=IPV6, ip_proto=ICMPV6, icmpv6_type=135, sport=0, dport=0)
ARP = replace(PACKET, version=None)
FIELDS = [
    ("in_port", PACKET, 1),
    ("eth_dst", PACKET, 0xB),
    ("eth_src", PACKET, 0xA),
    ("eth_type", PACKET, 0x0800),
    ("eth_type", ND6, 0x86DD),
    ("vlan_tci", PACKET, 0),
    ("vlan_tci", replace(PACKET, vlan=True), 0x1001),
    ("ipv4_src", PACKET, PACKET.src),
    ("ipv4_dst", PACKET, PACKET.dst),
    ("ipv6_src", ND6, PACKET.src),
    ("ipv6_dst", ND6, PACKET.dst),
    ("ip_proto", PACKET, UDP),
    ("nw_ttl", PACKET, 64),
    ("nw_frag", PACKET, 0),
    ("tcp_src", TCP4, 1000),
    ("tcp_dst", TCP4, 2000),
    ("udp_src", PACKET, 1000),
    ("udp_dst", PACKET, 2000),
    ("icmpv6_type", ND6, 135),
    ("reg0", PACKET, 0),
    ("reg1", PACKET, 0),
    ("pkt_mark", PACKET, 0),
]


def test_every_field_is_read() -> None:
    assert {name for name, _, _ in FIELDS} == set(FIELD_ORDER)


@pytest.mark.parametrize(("name", "packet", "value"), FIELDS)
def test_a_field_matches_its_value_alone(name: str, packet: Packet, value: int) -> None:
    assert matches((Field(name, value),), Frame(packet))
    assert not matches((Field(name, value ^ 1),), Frame(packet))
    assert matches((Field(name, value & ~1, 0xFFFE if value < 1 << 16 else ~1),), Frame(packet))


@pytest.mark.parametrize(
    ("name", "packet"),
    [
        ("ipv4_dst", ND6), ("ipv6_dst", PACKET), ("ip_proto", ARP), ("nw_ttl", ARP), ("nw_frag", ARP),
        ("tcp_dst", PACKET), ("udp_dst", TCP4), ("udp_dst", ARP), ("icmpv6_type", PACKET),
    ],
)  # fmt: skip
def test_a_field_that_the_packet_does_not_have_never_matches(name: str, packet: Packet) -> None:
    assert not any(matches((Field(name, value, mask),), Frame(packet)) for value in (0, 135, 2000) for mask in (None, 0xFFFF, 0))


def test_masks_compare_the_bits_they_name() -> None:
    assert matches((Field("eth_src", MULTICAST_BIT, MULTICAST_BIT),), Frame(replace(PACKET, eth_src=MULTICAST_BIT | 0xA)))
    assert not matches((Field("eth_src", MULTICAST_BIT, MULTICAST_BIT),), Frame(PACKET))


@pytest.mark.parametrize(("changes", "bits"), [({}, 0), ({"fragment": True}, 1), ({"fragment": True, "sport": 0, "dport": 0}, 3)])
def test_fragments_are_first_or_later(changes: dict[str, object], bits: int) -> None:
    assert fragment_bits(replace(PACKET, **changes)) == bits  # type: ignore[arg-type]
