"""Law: a walk that is given only what a packet can meet is the walk that is given everything (F9)."""

from __future__ import annotations

from dataclasses import replace

from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.narrow import for_packet
from fsctl.specification.walk import walk
from tests.properties.laws import law
from tests.strategies import a_case

Case = tuple[Network, list[Packet]]


@law(a_case)
def test_f9_a_walk_needs_no_more_than_what_its_packet_can_meet(case: Case) -> None:
    network, drawn = case
    for packet in drawn:
        for variant in (packet, replace(packet, fragment=True, sport=0, dport=0)):
            narrowed = for_packet(network, variant)
            assert walk(narrowed, variant) == walk(network, variant)
            assert all(len(narrowed.fibs[name]) <= len(fib) for name, fib in network.fibs.items())
