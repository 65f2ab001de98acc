"""Law: for every packet the tables do what `walk` says, or the packet reaches the first router untouched.

Untouched is allowed only for a cause (see `Bench.left_alone_for_cause`): so for a TTL above the
longest chain and with all patch ports there, the two are equal.
"""

from __future__ import annotations

from dataclasses import replace

from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.specification.walk import Delivery
from tests.properties.laws import AMPLE_TTL, Bench, law
from tests.strategies import Draw, a_case, a_network, once_in, pick

Case = tuple[Network, list[Packet]]


def an_interface_of_a_network(draw: Draw) -> tuple[Bench, int]:
    """Half the time the first that has delegations: in a line, where the longest chain begins."""
    bench = Bench.of(a_network(draw))
    places = range(len(bench.busy()))
    return bench, 0 if not places or once_in(draw, 2) else pick(draw, places)


@law(a_case)
def test_tables_do_what_walk_says(case: Case) -> None:
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        bench.check(packet)


@law(an_interface_of_a_network)
def test_every_class_of_destination_and_sender_is_compiled_right(place: tuple[Bench, int]) -> None:
    """One interface looked at exhaustively: every class of destination and sender, connection, TTL and MTU."""
    bench, number = place
    for interface in bench.busy()[number : number + 1]:
        for packet in bench.arrivals(interface):
            found, _ = bench.check(packet)
            for variant in bench.at_the_edges(packet) if found.hops else ():
                bench.check(variant)


@law(a_case)
def test_a_packet_that_no_router_is_meant_to_get_is_bridged_as_it_is(case: Case) -> None:
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        elsewhere = replace(packet, eth_dst=0x0200_0000_0BAD, ttl=AMPLE_TTL)
        assert bench.program.run(elsewhere).deliveries == (Delivery(elsewhere),)


@law(a_case)
def test_rules_of_one_priority_never_contradict_each_other(case: Case) -> None:
    """OpenFlow leaves open which of two overlapping rules of one priority wins."""
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        for _, rule, rivals in bench.program.run(packet).hits:
            assert {r.actions for r in rivals} <= {rule.actions}, (rule, rivals)
