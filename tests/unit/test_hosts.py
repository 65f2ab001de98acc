"""Which next hops a bridge may forget where no agent makes them speak (fault A16)."""

from __future__ import annotations

from dataclasses import replace

from fsctl.hosts import unheard_next_hops
from fsctl.model.addresses import Prefix, format_mac
from fsctl.model.delegations import PUNT, Delegation, Forward, Match
from fsctl.model.fib import Fib
from fsctl.model.network import Network
from tests.builders import HOST_B, line, with_fib


def test_fault_A16_hosts_are_named_and_routers_are_not() -> None:
    network = line(2)
    assert unheard_next_hops(network, "r0") == []  # its next hop is r1
    assert unheard_next_hops(network, "r1") == [format_mac(HOST_B)]


def test_fault_A16_what_is_pinned_or_unused_is_not_named() -> None:
    network = line(2)
    bridges = {**network.bridges, "br2": replace(network.bridges["br2"], pinned={HOST_B: 9})}
    pinned = Network(bridges, network.routers, network.fibs)
    assert unheard_next_hops(pinned, "r1") == []
    fib = Fib([Delegation(Match("eth0", Prefix.parse("10.0.0.0/8")), Forward("eth1", HOST_B))])
    fib.set(Match("eth0", Prefix.parse("10.0.0.0/8")), PUNT)
    assert unheard_next_hops(with_fib(network, "r1", [(d.match, d.verdict) for d in fib]), "r1") == []
    assert unheard_next_hops(replace(network, fibs={**network.fibs, "r1": fib}), "r1") == []
