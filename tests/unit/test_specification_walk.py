"""`specification.walk`, case by case of the design's section 3."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.errors import NotFoundError
from fsctl.model.addresses import IPV4, IPV6, MULTICAST_BIT, Prefix
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match
from fsctl.model.fib import Fib
from fsctl.model.ip_protocols import ICMPV6, NO_PROTO, TCP
from fsctl.model.martians import ND_TYPES
from fsctl.model.network import Address, Bridge
from fsctl.model.packet import Packet
from fsctl.specification.walk import BRIDGED, DROPPED, SLOW_PATH, walk
from tests.builders import EVERYTHING, HOST_A, HOST_B, HOST_PORT, line, mac, with_delegations, with_interface

SRC, DST = Prefix.parse("10.0.0.1").value, Prefix.parse("10.0.9.2").value


def packet(**changes: object) -> Packet:
    base = Packet("br0", HOST_PORT, HOST_A, mac(0, 0), src=SRC, dst=DST)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_chain_rewrites_both_macs_and_counts_every_hop() -> None:
    found = walk(line(3), packet(ttl=64))
    assert found.end == BRIDGED
    assert found.forwards == 3
    assert [hop.interface.router for hop in found.hops] == ["r0", "r1", "r2"]
    assert found.final == packet(bridge="br3", in_port=2, eth_src=mac(2, 1), eth_dst=HOST_B, ttl=61)


def test_without_a_delegation_the_router_gets_the_packet() -> None:
    network = replace(line(1), fibs={"r0": Fib()})
    found = walk(network, packet())
    assert (found.end, found.final, found.forwards) == (SLOW_PATH, packet(), 0)
    assert [(hop.interface.name, hop.delegation) for hop in found.hops] == [("eth0", None)]


def test_in_mid_chain_without_a_delegation_the_next_router_gets_it_rewritten() -> None:
    network = line(2)
    found = walk(replace(network, fibs={**network.fibs, "r1": Fib()}), packet())
    assert (found.end, found.forwards) == (BRIDGED, 1)
    assert (found.final.bridge, found.final.eth_dst) == ("br1", mac(1, 0))


def test_a_frame_for_no_router_is_left_alone() -> None:
    assert walk(line(1), packet(eth_dst=HOST_B)).end == SLOW_PATH


def test_an_unknown_bridge_is_an_error() -> None:
    with pytest.raises(NotFoundError) as e:
        walk(line(1), packet(bridge="nowhere"))
    assert (e.value.field, e.value.value) == ("bridge", "nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vlan": True}, "VLAN"),
        ({"in_port": 7}, "VLAN configuration"),
        ({"eth_src": MULTICAST_BIT | 1}, "multicast"),
        ({"version": None}, "not IP"),
        ({"ip_proto": NO_PROTO}, "protocol 0"),
        ({"ip_proto": 89}, "protocol 89 is not bypassed"),
        ({"dst": Prefix.parse("169.254.1.1").value}, "never forwarded"),
        ({"dst": Prefix.parse("224.0.0.251").value}, "never forwarded"),
        ({"dst": 0xFFFF_FFFF}, "never forwarded"),
        ({"src": Prefix.parse("127.0.0.1").value}, "never forwarded"),
        ({"version": IPV6, "dst": Prefix.parse("fe80::1").value, "src": 1 << 100}, "never forwarded"),
        ({"version": IPV6, "dst": Prefix.parse("ff02::1").value, "src": 1 << 100}, "never forwarded"),
        ({"eth_src": mac(0, 0)}, "another port"),
    ],
)
def test_what_never_begins(changes: dict[str, object], reason: str) -> None:
    network = line(1)
    network = replace(network, bridges={**network.bridges, "br0": Bridge("br0", exempt_ports={7: "has a VLAN configuration"})})
    found = walk(network, packet(**changes))
    assert (found.end, found.final, found.hops) == (SLOW_PATH, packet(**changes), ())
    assert reason in found.reason


@pytest.mark.parametrize("icmpv6_type", [*range(130, 140), 128])
def test_neighbour_discovery_alone_of_icmpv6_is_left_to_the_router(icmpv6_type: int) -> None:
    network = with_delegations(line(1), "r0", (Match("eth0", Prefix.parse("::/0")), Forward("eth1", HOST_B)))
    src, dst = Prefix.parse("fd00::1").value, Prefix.parse("fd00::2").value
    found = walk(network, packet(version=IPV6, src=src, dst=dst, ip_proto=ICMPV6, icmpv6_type=icmpv6_type))
    assert found.end == (SLOW_PATH if icmpv6_type in ND_TYPES else BRIDGED)


def test_a_router_may_send_from_its_own_port() -> None:
    network = line(2)
    sent = packet(bridge="br1", in_port=2, eth_src=mac(0, 1), eth_dst=mac(1, 0))
    assert walk(network, sent).end == BRIDGED
    assert walk(network, replace(sent, in_port=3)).end == SLOW_PATH


@pytest.mark.parametrize(("ttl", "end"), [(0, SLOW_PATH), (2, SLOW_PATH), (3, SLOW_PATH), (4, BRIDGED)])
def test_a_ttl_that_a_router_on_the_way_would_answer_is_left_to_it(ttl: int, end: str) -> None:
    found = walk(line(3), packet(ttl=ttl))
    assert found.end == end
    if end == SLOW_PATH:
        assert found.final == packet(ttl=ttl)
        assert "TTL" in found.reason


@pytest.mark.parametrize("place", [("r0", "eth0"), ("r0", "eth1"), ("r1", "eth0"), ("r1", "eth1")])
@pytest.mark.parametrize(("length", "end"), [(1400, BRIDGED), (1401, SLOW_PATH)])
def test_no_mtu_on_the_chain_is_exceeded(place: tuple[str, str], length: int, end: str) -> None:
    found = walk(with_interface(line(2), *place, mtu=1400), packet(length=length))
    assert found.end == end
    assert found.final == packet(length=length) if end == SLOW_PATH else found.forwards == 2


@pytest.mark.parametrize("place", [("r0", "eth0"), ("r0", "eth1")])
def test_a_first_hop_that_is_down_is_the_slow_path(place: tuple[str, str]) -> None:
    found = walk(with_interface(line(2), *place, up=False, why_down="no link"), packet())
    assert (found.end, found.final) == (SLOW_PATH, packet())
    assert "no link" in found.reason


@pytest.mark.parametrize("place", [("r1", "eth0"), ("r1", "eth1")])
def test_a_walk_ends_before_a_hop_that_is_down(place: tuple[str, str]) -> None:
    found = walk(with_interface(line(2), *place, up=False, why_down="no link"), packet())
    assert (found.end, found.forwards) == (BRIDGED, 1)
    assert (found.final.bridge, found.final.eth_dst) == ("br1", mac(1, 0))


@pytest.mark.parametrize("own", ["10.0.9.2/24", "10.0.9.2/32"])
def test_a_routers_own_address_ends_the_walk_there(own: str) -> None:
    network = with_interface(line(2), "r1", "eth1", addresses=(Address.parse(own),))
    connection = FiveTuple(IPV4, SRC, DST, TCP, 1, 2)
    network = with_delegations(network, "r1", (Match("eth0", Prefix.host(IPV4, DST), None, connection), DROP))
    found = walk(network, packet(ip_proto=TCP, sport=1, dport=2))
    assert (found.end, found.forwards, found.final.eth_dst) == (BRIDGED, 1, mac(1, 0))
    assert walk(network, packet(dst=DST + 1)).forwards == 2


def test_drop_after_a_hop_drops_and_with_a_small_ttl_does_not() -> None:
    network = with_delegations(line(2), "r1", (Match("eth0", EVERYTHING), DROP))
    assert walk(network, packet(ttl=2)).end == DROPPED
    assert walk(network, packet(ttl=1)).end == SLOW_PATH


def test_a_loop_is_left_to_the_routers() -> None:
    network = with_delegations(line(2), "r1", (Match("eth0", EVERYTHING), Forward("eth0", mac(1, 0))))
    found = walk(network, packet())
    assert (found.end, found.final) == (SLOW_PATH, packet())
    assert "loop" in found.reason


@pytest.mark.parametrize(("max_hops", "end"), [(3, BRIDGED), (2, SLOW_PATH)])
def test_a_chain_may_be_as_long_as_max_hops(max_hops: int, end: str) -> None:
    assert walk(line(3, max_hops), packet()).end == end


CONNECTION = FiveTuple(IPV4, SRC, DST, TCP, 1, 2)
HOST = Prefix.host(IPV4, DST)


@pytest.mark.parametrize(
    ("rivals", "winner"),
    [
        ([Match("eth0", EVERYTHING), Match("eth0", Prefix.parse("10.0.0.0/8"))], 1),
        ([Match("eth0", EVERYTHING, HOST_A), Match("eth0", Prefix.parse("10.0.0.0/8"))], 1),
        ([Match("eth0", HOST, HOST_A), Match("eth0", HOST)], 0),
        ([Match("eth0", HOST, HOST_A), Match("eth0", HOST, None, CONNECTION)], 1),
        ([Match("eth0", HOST, None, CONNECTION), Match("eth0", HOST, HOST_A, CONNECTION)], 1),
        ([Match("eth0", HOST, HOST_B), Match("eth0", EVERYTHING)], 1),
        ([Match("eth1", HOST), Match("eth0", EVERYTHING)], 1),
        ([Match("eth0", Prefix.parse("::/0")), Match("eth0", EVERYTHING)], 1),
    ],
)
def test_connections_beat_prefixes_the_longest_wins_then_eth_src(rivals: list[Match], winner: int) -> None:
    fib = Fib([Delegation(match, DROP) for match in rivals])
    found = walk(replace(line(1), fibs={"r0": fib}), packet(ip_proto=TCP, sport=1, dport=2))
    assert found.hops[0].delegation == Delegation(rivals[winner], DROP)


@pytest.mark.parametrize("changes", [{"fragment": True}, {"sport": 3}, {"dport": 3}, {"ip_proto": 17}, {"src": SRC + 1}])
def test_a_connection_is_exact_and_never_a_fragment(changes: dict[str, object]) -> None:
    network = with_delegations(line(1), "r0", (Match("eth0", HOST, None, CONNECTION), DROP))
    whole = packet(ip_proto=TCP, sport=1, dport=2)
    assert walk(network, whole).end == DROPPED
    end = SLOW_PATH if "fragment" in changes else BRIDGED
    assert walk(network, replace(whole, **changes)).end == end  # type: ignore[arg-type]


def test_only_the_router_that_delegated_a_connection_gets_its_fragments() -> None:
    network = with_delegations(line(3), "r1", (Match("eth0", HOST, None, CONNECTION), DROP))
    found = walk(network, packet(ip_proto=TCP, sport=0, dport=0, fragment=True))
    assert (found.end, found.forwards, found.final.eth_dst) == (BRIDGED, 1, mac(1, 0))
    assert "fragment" in found.reason


@pytest.mark.parametrize("sender", [HOST_A, HOST_B])
def test_fragments_are_left_to_the_router_for_the_senders_that_the_connection_names(sender: int) -> None:
    network = with_delegations(line(1), "r0", (Match("eth0", HOST, HOST_A, CONNECTION), DROP))
    found = walk(network, packet(eth_src=sender, ip_proto=TCP, sport=1, dport=2, fragment=True))
    assert found.end == (SLOW_PATH if sender == HOST_A else BRIDGED)


def test_behind_the_first_hop_the_sender_is_the_router_before() -> None:
    network = with_delegations(line(2), "r1", (Match("eth0", EVERYTHING, mac(0, 1)), DROP))
    assert walk(network, packet()).end == DROPPED
    network = with_delegations(line(2), "r1", (Match("eth0", EVERYTHING, HOST_A), DROP))
    assert walk(network, packet()).end == BRIDGED


def test_punt_shadows_a_shorter_prefix() -> None:
    network = with_delegations(line(1), "r0", (Match("eth0", Prefix.parse("10.0.9.0/24")), PUNT))
    assert walk(network, packet()).end == SLOW_PATH
    assert walk(network, packet(dst=Prefix.parse("10.0.8.1").value)).end == BRIDGED
