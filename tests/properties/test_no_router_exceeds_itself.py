"""Law (the invariant of the design): a delegation never lets a router cause a packet it could not have sent itself.

What is rewritten leaves by an interface of the router that delegated it, with that interface's MAC
and from its port; and a router's FIB touches only what was sent to that router, or to a router
that handed it on.
"""

from __future__ import annotations

from dataclasses import replace

from fsctl.model.delegations import Forward
from fsctl.model.fib import Fib
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.specification.walk import walk
from tests.properties.laws import Bench, law
from tests.strategies import a_case


@law(a_case)
def test_what_is_rewritten_left_by_its_routers_own_interface(case: tuple[Network, list[Packet]]) -> None:
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        deliveries = bench.program.run(packet).deliveries
        assert len(deliveries) <= 1
        for sent, port in deliveries:
            assert port != sent.in_port
            if sent == packet:
                continue
            owners = [i for i in network.interfaces() if (i.bridge, i.mac, i.ofport) == (sent.bridge, sent.eth_src, sent.in_port)]
            assert len(owners) == 1
            last = walk(network, packet).hops
            routers = [hop.interface.router for hop in last if _forwards(hop.delegation)]
            assert owners[0].up
            assert owners[0].router in routers
            assert replace(sent, bridge="", in_port=0, eth_src=0, eth_dst=0, ttl=0) == replace(
                packet, bridge="", in_port=0, eth_src=0, eth_dst=0, ttl=0
            )
            assert sent.ttl < packet.ttl


@law(a_case)
def test_a_fib_has_no_say_where_its_router_is_not_on_the_way(case: tuple[Network, list[Packet]]) -> None:
    network, drawn = case
    bench = Bench.of(network)
    for name in network.routers:
        without = Bench.of(replace(network, fibs={**network.fibs, name: Fib()}))
        for packet in drawn:
            outcome = bench.program.run(packet)
            if name in {hop.interface.router for hop in walk(network, packet).hops}:
                continue
            # It may still make the guard wait for a larger TTL, elsewhere on chains from the same interface.
            allowed = {outcome.deliveries, bench.as_it_came(packet)}
            assert without.program.run(packet).deliveries in allowed or outcome.deliveries == bench.as_it_came(packet)


def _forwards(delegation: object) -> bool:
    return isinstance(getattr(delegation, "verdict", None), Forward)
