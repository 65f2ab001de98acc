"""Law: whatever the bridges have learned of senders, a packet is delivered where the routers or plain bridging would."""

from __future__ import annotations

from fsctl.model.addresses import MULTICAST_BIT
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.specification.walk import Learned
from tests.properties.laws import Bench, law
from tests.strategies import Draw, a_case, some_senders


def a_case_with_senders(draw: Draw) -> tuple[Network, list[Packet], list[Learned]]:
    network, packets = a_case(draw)
    return network, packets, some_senders(draw, network)


@law(a_case_with_senders)
def test_fault_a1_whatever_was_learned_nobody_gets_what_is_not_meant_for_him(
    case: tuple[Network, list[Packet], list[Learned]],
) -> None:
    network, drawn, senders = case
    bench = Bench.of(network, senders)
    for packet in drawn:
        _, outcome = bench.check(packet)
        assert len(outcome.deliveries) <= 1, "a copy"


@law(a_case_with_senders)
def test_a_sender_is_learned_at_the_port_it_sends_from(case: tuple[Network, list[Packet], list[Learned]]) -> None:
    network, drawn, senders = case
    bench = Bench.of(network, senders)
    for packet in drawn:
        assert bench.program.run(packet).learned == expected(network, packet)


def expected(network: Network, packet: Packet) -> tuple[Learned, ...]:
    """Everybody is learned, on the bridge where he sends, but for tagged and spoofed frames. Who sends at an exempt port
    is remembered as somebody to whom the bridge delivers."""
    bridge, owner = network.bridges[packet.bridge], network.by_mac.get((packet.bridge, packet.eth_src))
    left_to_the_bridge = packet.vlan or packet.eth_src & MULTICAST_BIT
    spoofed = owner is not None and owner.ofport != packet.in_port
    if left_to_the_bridge or spoofed or packet.in_port not in bridge.sender_ports:
        return ()
    port = None if packet.in_port in bridge.exempt_ports else packet.in_port
    return (Learned(packet.bridge, packet.eth_src, port),)
