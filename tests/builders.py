"""Small networks by hand, for cases that say what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Delegation, Forward, Match, Verdict
from fsctl.model.fib import Fib
from fsctl.model.network import Bridge, Interface, Network, Router

HOST_A, HOST_B, HOST_PORT = 0xA, 0xB, 50
EVERYTHING = Prefix.parse("0.0.0.0/0")
ETH0_PORT, ETH1_PORT, FIRST_LINK_PORT = 1, 2, 100


def mac(router: int, side: int) -> int:
    """Of eth<side> of r<router>."""
    return 0x0200_0000_0000 + router * 16 + side


def line(length: int, max_hops: int = 32) -> Network:
    """br0 - r0 - br1 - r1 - br2 ...: r<n> has eth0 on br<n> and eth1 on br<n+1>, and sends everything on.

    All bridges are joined by patch ports.
    """
    routers, fibs = {}, {}
    for n in range(length):
        name = f"r{n}"
        eth0 = Interface(name, "eth0", f"br{n}", "", mac(n, 0), ofport=ETH0_PORT)
        eth1 = Interface(name, "eth1", f"br{n + 1}", "", mac(n, 1), ofport=ETH1_PORT)
        routers[name] = Router(name, {"eth0": eth0, "eth1": eth1})
        neighbour = HOST_B if n == length - 1 else mac(n + 1, 0)
        fibs[name] = Fib([Delegation(Match("eth0", EVERYTHING), Forward("eth1", neighbour))])
    names = [f"br{n}" for n in range(length + 1)]
    links = {here: {peer: FIRST_LINK_PORT + n for n, peer in enumerate(names) if peer != here} for here in names}
    return Network({name: Bridge(name, links[name]) for name in names}, routers, fibs, max_hops)


def with_interface(network: Network, router: str, name: str, **changes: object) -> Network:
    """With other values at one interface."""
    old = network.routers[router]
    changed = replace(old.interfaces[name], **changes)  # type: ignore[arg-type]
    routers = {**network.routers, router: replace(old, interfaces={**old.interfaces, name: changed})}
    return replace(network, routers=routers)


def with_delegations(network: Network, router: str, *more: tuple[Match, Verdict]) -> Network:
    """With these on top of what the router has delegated."""
    fib = Fib([*network.fibs[router], *(Delegation(m, v) for m, v in more)])
    return replace(network, fibs={**network.fibs, router: fib})


def with_fib(network: Network, router: str, fib: Sequence[tuple[Match, Verdict]]) -> Network:
    """With these and nothing else delegated by the router."""
    return replace(network, fibs={**network.fibs, router: Fib([Delegation(m, v) for m, v in fib])})
