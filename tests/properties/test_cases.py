"""Counterexamples that the laws once found, shrunk and kept; and those the design warns of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4, Prefix
from fsctl.model.delegations import DROP, PUNT, FiveTuple, Forward, Match, Verdict
from fsctl.model.fib import change_of
from fsctl.model.ip_protocols import TCP
from fsctl.model.network import Address, Interface, Network
from fsctl.model.packet import Packet
from fsctl.openflow.rules import FLOW_SWITCH, RuleTable
from fsctl.pipeline.layout import Layout
from fsctl.specification.walk import DROPPED, Delivery
from tests.builders import (
    EVERYTHING,
    HOST_A,
    HOST_B,
    HOST_PORT,
    line,
    mac,
    with_delegations,
    with_fib,
    with_interface,
)
from tests.properties.laws import Bench, all_resolved, carried_out, carry_out, compiled, updates

NET = Prefix.parse("10.0.0.0/8")
SRC = Prefix.parse("192.0.2.77").value


def packet(dst: str, **changes: object) -> Packet:
    base = Packet("br0", HOST_PORT, HOST_A, mac(0, 0), src=SRC, dst=Prefix.parse(dst).value)
    return replace(base, **changes)  # type: ignore[arg-type]


def collapsed(table: RuleTable) -> int:
    """How many rules delegations have led to."""
    return sum(key.table == FLOW_SWITCH and bool(key.match) for key in table.rules)


def updated(network: Network, *changes: tuple[str, Match, Verdict | None]) -> dict[str, RuleTable]:
    """The tables after these changes, made by region."""
    layout = Layout(network, Compiler(network))
    tables = layout.tables()
    for router, match, verdict in changes:
        replaced = carry_out(network, [(router, change_of(match, verdict))])
        tables = carried_out(tables, updates(layout, replaced))
    return tables


def test_nothing_goes_into_a_patch_port_whose_other_end_is_missing() -> None:
    """Found by: tables do what walk says. Packets went into a port that led nowhere."""
    network = line(1)
    network = replace(network, bridges={**network.bridges, "br1": replace(network.bridges["br1"], links={})})
    sent = packet("10.0.0.1")
    assert Bench.of(network).program.run(sent).deliveries == Bench.of(network).as_it_came(sent)


def test_when_the_last_delegation_goes_the_holes_of_own_addresses_go() -> None:
    """Found by: region equals full. The hole at 10.1.1.254 stayed."""
    network = with_interface(line(1), "r0", "eth1", addresses=(Address.parse("10.1.1.254/32"),))
    after = updated(network, ("r0", Match("eth0", EVERYTHING), None))
    assert collapsed(after["br0"]) == 0
    assert all_resolved(after) == all_resolved(compiled(with_fib(network, "r0", [])))


def test_an_mtu_watched_no_more_leaves_no_rule_behind() -> None:
    """Found by: region equals full. The rule for what is too large stayed while a way without its patch port had a limit."""
    network = with_interface(line(1), "r0", "eth1", mtu=1400)
    stick = (Match("eth0", NET), Forward("eth0", HOST_B))
    network = with_delegations(with_interface(network, "r0", "eth0", mtu=1300), "r0", stick)
    network = replace(network, bridges={**network.bridges, "br1": replace(network.bridges["br1"], links={})})
    after = updated(network, ("r0", stick[0], None))
    assert all_resolved(after) == all_resolved(
        compiled(with_fib(network, "r0", [(Match("eth0", EVERYTHING), Forward("eth1", HOST_B))]))
    )


@pytest.mark.parametrize("dst", ["169.254.1.0/24", "224.0.0.5/32", "127.0.0.0/8"])
def test_no_rule_for_destinations_that_no_router_forwards(dst: str) -> None:
    """Found by: no dead rules. The guard keeps these packets out."""
    network = with_fib(line(1), "r0", [(Match("eth0", Prefix.parse(dst)), DROP)])
    assert collapsed(compiled(network)["br0"]) == 0
    assert Compiler(network).outcome("r0", Match("eth0", Prefix.parse(dst))).kind != DROPPED


def test_no_rule_for_connections_from_sources_that_no_router_forwards() -> None:
    """Found by: no dead rules."""
    host = Prefix.parse("10.0.0.1")
    connection = FiveTuple(IPV4, Prefix.parse("127.0.0.1").value, host.value, TCP, 1, 2)
    network = with_delegations(line(1), "r0", (Match("eth0", host, None, connection), DROP))
    assert collapsed(compiled(network)["br0"]) == 1


def test_no_rule_for_a_router_as_sender_whose_port_is_missing() -> None:
    """Found by: no dead rules. The guard takes such a packet for spoofed."""
    network = with_delegations(line(2), "r1", (Match("eth0", EVERYTHING, mac(0, 1)), DROP))
    assert collapsed(compiled(network)["br1"]) == 2
    network = with_interface(network, "r0", "eth1", up=False, ofport=None)
    assert collapsed(compiled(network)["br1"]) == 1


def test_a_drop_behind_a_chain_is_not_the_drop_above_it() -> None:
    """The two drops look alike and are not, as the guard has to know the longer chain. TTL 1 has to be answered by r0."""
    network = with_fib(line(2), "r1", [(Match("eth0", EVERYTHING), DROP)])
    network = with_fib(network, "r0", [(Match("eth0", EVERYTHING), DROP), (Match("eth0", NET), Forward("eth1", mac(1, 0)))])
    bench = Bench.of(network)
    short = packet("10.0.0.1", ttl=1)
    assert bench.program.run(short).deliveries == bench.as_it_came(short)
    assert bench.program.run(replace(short, ttl=2)).deliveries == ()


def test_composing_rules_pairwise_would_be_wrong() -> None:
    """Design, section 3: 10/8 -> one router, 10.1/16 -> another, and the first knows 10.1.1/24."""
    network = line(2)
    other = replace(network.routers["r1"].interfaces["eth0"], router="r2", mac=mac(2, 0), ofport=7)
    routers = {**network.routers, "r2": replace(network.routers["r1"], name="r2", interfaces={"eth0": other})}
    network = replace(network, routers=routers, fibs={**network.fibs, "r2": type(network.fibs["r1"])()})
    to_r1, to_r2 = Forward("eth1", mac(1, 0)), Forward("eth1", mac(2, 0))
    network = with_fib(network, "r0", [(Match("eth0", NET), to_r1), (Match("eth0", Prefix.parse("10.1.0.0/16")), to_r2)])
    network = with_fib(network, "r1", [(Match("eth0", Prefix.parse("10.1.1.0/24")), Forward("eth1", HOST_B))])
    bench = Bench.of(network)
    found, _ = bench.check(packet("10.1.1.1"))
    assert (found.forwards, found.final.eth_dst) == (1, mac(2, 0))


def test_a_change_in_mid_chain_reaches_the_rules_at_its_beginning() -> None:
    """Hazard 31: stale composed rules."""
    hole = Match("eth0", Prefix.parse("10.9.0.0/16"))
    network = line(3)
    after = updated(network, ("r2", hole, PUNT), ("r1", hole, DROP), ("r1", hole, None))
    bench = Bench(network, after)
    found, _ = bench.check(packet("10.9.1.1"))
    assert (found.forwards, found.final.eth_dst) == (2, mac(2, 0))


def test_a_walk_that_comes_back_is_a_loop_even_where_it_would_end_there() -> None:
    """A mutant of the compiler that random networks seldom find: r0 punts what r1 sends back, and takes what others send."""
    network = line(2)
    back = replace(network.routers["r1"].interfaces["eth1"], bridge="br0", ofport=7)
    r1 = replace(network.routers["r1"], interfaces={**network.routers["r1"].interfaces, "eth1": back})
    network = replace(network, routers={**network.routers, "r1": r1})
    network = with_fib(network, "r1", [(Match("eth0", EVERYTHING), Forward("eth1", mac(0, 0)))])
    network = with_delegations(network, "r0", (Match("eth0", EVERYTHING, mac(1, 1)), PUNT))
    bench = Bench.of(network)
    found, outcome = bench.check(packet("10.0.0.1"))
    assert "loop" in found.reason
    assert outcome.deliveries == bench.as_it_came(packet("10.0.0.1"))


def test_a_router_on_a_stick_hands_over_on_the_bridge_it_got_the_packet_from() -> None:
    """Figure 3 with both networks on one bridge."""
    only = Interface("r0", "eth0", "br0", "", mac(0, 0), ofport=1)
    network = line(1)
    network = replace(network, routers={"r0": replace(network.routers["r0"], interfaces={"eth0": only})})
    network = with_fib(network, "r0", [(Match("eth0", EVERYTHING), Forward("eth0", HOST_B))])
    found, outcome = Bench.of(network).check(packet("10.0.0.1"))
    rewritten = replace(packet("10.0.0.1"), in_port=1, eth_src=mac(0, 0), eth_dst=HOST_B, ttl=63)
    assert outcome.deliveries == (Delivery(rewritten),)
    assert found.final == rewritten
