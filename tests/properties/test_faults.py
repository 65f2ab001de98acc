"""Faults that were found in the rules: what was wrong, as a case of its own beside the laws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, PUNT, FiveTuple, Match, Verdict
from fsctl.model.fib import change_of
from fsctl.model.ip_protocols import UDP
from fsctl.model.network import Address, Network
from fsctl.model.packet import Packet
from fsctl.pipeline.layout import Layout
from fsctl.specification.walk import DROPPED, SLOW_PATH, walk
from tests.builders import HOST_A, HOST_B, HOST_PORT, line, mac, with_delegations, with_interface
from tests.properties.laws import Bench, all_resolved, carried_out, carry_out, compiled, updates

SRC, DST = Prefix.parse("10.0.1.1").value, Prefix.parse("10.0.3.1").value
CONNECTION = FiveTuple(4, SRC, DST, UDP, 1000, 2000)
BY_CONNECTION = Match("eth0", Prefix.host(4, DST), None, CONNECTION)
WHOLE = Packet("br0", HOST_PORT, HOST_A, mac(0, 0), 4, SRC, DST, ip_proto=UDP, sport=1000, dport=2000)
FIRST = replace(WHOLE, fragment=True)
LATER = replace(FIRST, sport=0, dport=0)


@pytest.mark.parametrize("verdict", [DROP, PUNT])
@pytest.mark.parametrize("fragment", [FIRST, LATER], ids=["first", "later"])
def test_fault_A13_fragments_of_a_connection_go_to_the_router_that_decides_on_it(verdict: Verdict, fragment: Packet) -> None:
    """The prefix forwarded them, past the router's drop."""
    network = with_delegations(line(2), "r0", (BY_CONNECTION, verdict))
    bench = Bench.of(network)
    assert walk(network, WHOLE).end == (DROPPED if verdict is DROP else SLOW_PATH)
    for packet in (fragment, replace(fragment, sport=fragment.sport and 999)):
        found, outcome = bench.check(packet)
        assert found.end == SLOW_PATH
        assert outcome.deliveries == bench.as_it_came(packet)
    other, _ = bench.check(replace(fragment, src=SRC + 1))
    assert other.forwards == 2, "fragments of other hosts are bypassed as before"


def test_fault_A13_behind_a_hop_too() -> None:
    found, _ = Bench.of(with_delegations(line(3), "r1", (BY_CONNECTION, DROP))).check(LATER)
    assert (found.forwards, found.final.eth_dst) == (1, mac(1, 0))


def test_fault_A13_the_last_connection_between_two_hosts_takes_the_fragments_rule_along() -> None:
    network = line(2)
    layout = Layout(network, Compiler(network))
    tables = before = layout.tables()
    other = replace(BY_CONNECTION, connection=replace(CONNECTION, dport=2001))
    for match, verdict, left_alone in (
        (BY_CONNECTION, DROP, True), (other, DROP, True), (BY_CONNECTION, None, True), (other, None, False),
    ):  # fmt: skip
        tables = carried_out(tables, updates(layout, carry_out(network, [("r0", change_of(match, verdict))])))
        assert all_resolved(tables) == all_resolved(compiled(network))
        found, _ = Bench(network, tables).check(LATER)
        assert (found.end == SLOW_PATH) == left_alone
    assert all_resolved(tables) == all_resolved(before)


def with_addresses(network: Network) -> Network:
    has = {("r0", "eth0"): "10.0.1.254/24", ("r0", "eth1"): "10.0.2.1/24", ("r1", "eth1"): "10.0.3.254/24"}
    for (router, side), address in has.items():
        network = with_interface(network, router, side, addresses=(Address.parse(address),))
    return network


@pytest.mark.parametrize("src", ["10.0.1.254", "10.0.1.255", "10.0.1.0", "10.0.2.1", "10.0.3.254", "10.0.3.255"])
def test_fault_A14_what_claims_to_be_from_a_router_is_for_the_routers_to_judge(src: str) -> None:
    """They drop it (martian source): routed 0 of 5, bypassed 5 of 5."""
    bench = Bench.of(with_addresses(line(2)))
    packet = replace(WHOLE, src=Prefix.parse(src).value)
    found, outcome = bench.check(packet)
    assert (found.end, outcome.deliveries) == (SLOW_PATH, bench.as_it_came(packet))


def test_fault_A14_other_sources_are_bypassed() -> None:
    found, _ = Bench.of(with_addresses(line(2))).check(WHOLE)
    assert (found.forwards, found.final.eth_dst) == (2, HOST_B)
