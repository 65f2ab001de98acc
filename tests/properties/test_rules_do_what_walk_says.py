"""Law: for every packet the tables do what `walk` says, or the packet reaches the first router untouched.

Untouched is allowed only for a cause (see `Bench.left_alone_for_cause`): so for a TTL above the
longest chain and with all patch ports there, the two are equal.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, note, target
from hypothesis import strategies as st

from fsctl.model import Network, Packet
from fsctl.semantics import Delivery
from tests.properties.laws import AMPLE_TTL, Bench
from tests.strategies import cases, networks


@given(cases())
def test_tables_do_what_walk_says(case: tuple[Network, list[Packet]]) -> None:
    network, drawn = case
    bench = Bench.of(network)
    longest = 0
    for packet in drawn:
        note(str(packet))
        found, _ = bench.check(packet)
        longest = max(longest, found.forwards)
    target(longest, label="hops bypassed")


@given(networks(), st.data())
def test_every_class_of_destination_and_sender_is_compiled_right(network: Network, data: st.DataObject) -> None:
    """One interface looked at exhaustively: every class of destination and sender, connection, TTL and MTU."""
    bench = Bench.of(network)
    busy = bench.busy()
    if not busy:
        return
    half_the_time_the_first = [busy[0]] * len(busy) + busy
    for packet in bench.arrivals(data.draw(st.sampled_from(half_the_time_the_first))):
        found, _ = bench.check(packet)
        for variant in bench.at_the_edges(packet) if found.hops else ():
            bench.check(variant)


@given(cases(4))
def test_a_packet_that_no_router_is_meant_to_get_is_bridged_as_it_is(case: tuple[Network, list[Packet]]) -> None:
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        elsewhere = replace(packet, eth_dst=0x0200_0000_0BAD, ttl=AMPLE_TTL)
        assert bench.program.run(elsewhere).deliveries == (Delivery(elsewhere),)


@given(cases(4))
def test_rules_of_one_priority_never_contradict_each_other(case: tuple[Network, list[Packet]]) -> None:
    """OpenFlow leaves open which of two overlapping rules of one priority wins."""
    network, drawn = case
    bench = Bench.of(network)
    for packet in drawn:
        for _, rule, rivals in bench.program.run(packet).hits:
            assert {r.actions for r in rivals} <= {rule.actions}, (rule, rivals)
