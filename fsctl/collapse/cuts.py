"""Where chains are cut, so that the routers' tables do not multiply: an upper bound of what walks beyond a router cost.

Pure. At a router interface there is a rule for each prefix that the routers *behind* its next hops have delegated, and for
each class of senders (eth_src) of the interface again. So a router with s senders before one with n prefixes has s x n rules,
though each is within its own bounds (`quota`). Where that exceeds the router's `max_rules`, no walk is followed from that
interface into the next router, which then gets the packets itself: the bypass is shorter, and nobody is refused because of
another's table. (To cut the classes alone would save nothing: a rule for any sender with a longer prefix goes before theirs.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from fsctl.collapse.nodes import Nodes, entered
from fsctl.model.network import Network

LIFTED = 3 / 4
"""A cut is lifted when the rules it saves are below this share of the bound: one prefix cannot make it come and go."""
Place = tuple[str, str, int]
"""(router, ingress interface, IP version)."""
End = tuple[str, str]
"""(router, ingress interface)."""


def notice(place: Place) -> str:
    """A cut, for people."""
    router, interface, version = place
    return (
        f"router {router}: IPv{version} packets that come in by {interface} are bypassed to the next router only: with all that "
        "is delegated behind it the router would have more rules than it may (max_rules)"
    )


def may_be_needed(nodes: Nodes, total: int) -> bool:
    """Whether any interface could exceed its bound; `total`: all delegations and own addresses of this IP version.

    Takes no time: small networks never need more than this.
    """
    return total * (1 + nodes.most_classes) > nodes.network.least_max_rules


def wanted(nodes: Nodes) -> set[Place]:
    """All cuts of one IP version that the network's FIBs need; `Network.cuts` has those in force."""
    network, version = nodes.network, nodes.version
    sizes, following = _sizes(network, version), _following(network, version)
    found: set[Place] = set()
    for end in sizes:
        place = (*end, version)
        behind = sum(sizes[beyond] for beyond in _behind(end, following))
        classes = sum(node.is_in_use for node in nodes.node_of[*end, None].classes)
        limit = network.routers[end[0]].max_rules * (LIFTED if place in network.cuts else 1)
        if behind * (1 + classes) > limit:
            found.add(place)
    return found


def _sizes(network: Network, version: int) -> dict[End, int]:
    """The rules that each router interface's delegations, and the router's own addresses, can make before it."""
    sizes: dict[End, int] = {}
    for router in network.routers.values():
        own = sum(of_version == version for of_version, _ in network.own_addresses[router.name])
        sizes |= {(router.name, name): own for name in router.interfaces}
        for (in_port, of_version, _), part in network.fibs[router.name].parts.items():
            if of_version == version:
                sizes[router.name, in_port] += len(part.prefixes) + 2 * len(part.connections)
    return sizes


def _following(network: Network, version: int) -> dict[End, set[End]]:
    """The router interfaces that each interface's delegations for prefixes lead to, as `graph` makes steps: all are up."""
    numbers: dict[End, set[int]] = {}
    for router, fib in network.fibs.items():
        for (in_port, of_version, _), part in fib.parts.items():
            if of_version == version and network.routers[router].interfaces[in_port].up:
                numbers.setdefault((router, in_port), set()).update(part.prefixes.values())
    return {end: set(_entered(network, end[0], used)) for end, used in numbers.items()}


def _entered(network: Network, router: str, numbers: Set[int]) -> Iterator[End]:
    """The routers' interfaces that walks come to by these next hops."""
    for number in numbers:
        hop = network.fibs[router].nexthops.get(number)
        out = network.routers[router].interfaces.get(hop.out) if hop is not None else None
        into = entered(network, out, hop.eth_dst) if hop is not None and out is not None else None
        if into is not None:
            yield into.router, into.name


def _behind(end: End, following: Mapping[End, Set[End]]) -> set[End]:
    """The other routers' interfaces that walks from this one can come to."""
    seen: set[End] = set()
    todo = [end]
    while todo:
        new = following.get(todo.pop(), frozenset()) - seen
        seen |= new
        todo += new
    return seen - {end}
