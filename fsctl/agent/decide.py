"""Where would the kernel send a packet to this prefix, as far as the destination alone tells?

The answer is a `Decision`; it holds for every ingress interface. Where more than the destination
decides (tos, source, several next hops), where the router would do more than forward (encapsulate,
fragment to a route's own MTU) or cannot (no next hop), it is a `Hole`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import NamedTuple

from fsctl.agent.events import UNICAST, Leg, NeighKey, Route
from fsctl.agent.state import Place, State, is_link_scope
from fsctl.model.addresses import BITS, IPV6
from fsctl.model.delegations import Forward
from fsctl.model.prefix_keys import Key, mask

VIRTUAL_KINDS = frozenset({"vlan", "bridge", "bond", "team", "vrf", "dummy", "ifb"})
"""Devices that may carry the MAC address of a vif without being it, nor taking its packets (as ipvlan and macvlan do)."""


class Direct(NamedTuple):
    """On the link: each neighbour is a host of its own, what is not resolved is a hole."""

    link: int


class Hole(NamedTuple):
    """Left to the router, and why."""

    reason: str


Decision = Forward | Direct | Hole


class Gateway(NamedTuple):
    """A neighbour that routes lead via: resolved on purpose. A destination itself (a route to one address) is not."""

    neigh: NeighKey


Need = NeighKey | Gateway | int
"""What a decision was made from, besides routes: a neighbour, or a next-hop object's id."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What `safety` forbids, as (interface index, IP version): as ingress, as egress, as both at once."""

    no_ingress: frozenset[tuple[int, int]] = frozenset()
    no_egress: frozenset[tuple[int, int]] = frozenset()
    no_hairpin: frozenset[tuple[int, int]] = frozenset()

    def forbids_more(self, before: Policy) -> bool:
        """Whether something is forbidden that was not."""
        mine, theirs = astuple(self), astuple(before)
        return any(new - old for new, old in zip(mine, theirs, strict=True))


def usable_interfaces(state: State, interfaces: Mapping[int, str]) -> dict[int, str]:
    """Interface index -> fsctl's name, by MAC address, for those that are up, their own master, and dumped since.

    Two devices with the MAC of one fsctl interface: neither, since nobody can tell which one packets come from.
    """
    found: dict[str, list[int]] = {}
    for link in state.links.values():
        if link.mac is not None and link.mac in interfaces and link.kind not in VIRTUAL_KINDS:
            found.setdefault(interfaces[link.mac], []).append(link.index)
    alone = {name: at[0] for name, at in found.items() if len(at) == 1 and at[0] not in state.suspects}
    return {i: name for name, i in alone.items() if state.links[i].up and not state.links[i].master}


class Decider:
    """Decides one place at a time and remembers what each decision depends on."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.names: dict[int, str] = {}
        self.policy = Policy()
        self._needs: dict[Place, tuple[Need, ...]] = {}
        self.users: dict[Need, set[Place]] = {}
        self.has_new_gateways = False
        """Since somebody has last set it to False."""

    def decide_route(self, place: Place) -> Decision | None:
        """For a place with routes or an own address; None if nothing is to be said about it."""
        version, key = place
        needs: set[Need] = set()
        decision = self._decide_route(version, key, needs)
        self._note(place, needs)
        return decision

    def _decide_route(self, version: int, key: Key, needs: set[Need]) -> Decision | None:
        rib = self.state.ribs[version]
        if is_link_scope(version, key):
            return None
        if rib.is_shadowed(key) or (version, key) in self.state.own:
            return Hole("local")
        if key not in rib:
            return None
        best = rib.best(key)
        if isinstance(best, str):
            return Hole(best)
        found = {decision for route in best for decision in self._ways(route, needs)}
        return found.pop() if len(found) == 1 else Hole("multipath")

    def decide_host(self, place: Place, decisions: Mapping[Key, Decision], lengths: list[int]) -> Decision | None:
        """A neighbour without a route of its own: forwarded if the subnet it is in is connected right there."""
        version, key = place
        if place not in self.state.hosts or is_link_scope(version, key):
            return None
        parent = parent_of(version, key, decisions, lengths)
        around = None if parent is None else decisions[parent]
        if not isinstance(around, Direct):
            return None
        mac = self._mac(NeighKey(around.link, version, key >> 8))
        return None if mac is None else Forward(self.names[around.link], mac)

    def _mac(self, neigh: NeighKey) -> int | None:
        """Where a packet for this neighbour goes; None also for an interface's own MAC address (it would come back)."""
        mac = self.state.mac_of(self.state.neighs.get(neigh))
        return None if mac == self.state.links[neigh.link].mac else mac

    def _ways(self, route: Route, needs: set[Need]) -> Iterator[Decision]:
        if route.kind != UNICAST:
            yield Hole(route.kind)
        elif route.nhid:
            yield from self._object(route, route.nhid, needs)
        elif route.version == IPV6 and len(route.legs) > 1:
            yield Hole("multipath")  # however alike: each leg has metrics of its own, of which one leg's are told (`rib`)
        else:
            for leg in route.legs or (Leg(0),):
                yield self._leg(route, leg, needs)

    def _object(self, route: Route, number: int, needs: set[Need]) -> Iterator[Decision]:
        needs.add(number)
        nexthop = self.state.nexthops.get(number)
        if nexthop is None:
            yield Hole("next-hop object missing")
        elif nexthop.blackhole:
            yield Hole("blackhole")
        elif nexthop.leg is not None:
            yield self._leg(route, nexthop.leg, needs)
        else:
            for member in nexthop.group:
                yield from self._object(route, member, needs)

    def _leg(self, route: Route, leg: Leg, needs: set[Need]) -> Decision:
        name = self.names.get(leg.index)
        if leg.encap:
            return Hole("encapsulated")
        if name is None:
            return Hole("interface not known to fsctl, or down")
        if leg.dead:
            return Hole("dead next hop")
        if (leg.index, route.version) in self.policy.no_egress:
            return Hole("egress refused")
        if route.mtu and route.mtu != self.state.links[leg.index].mtu:
            return Hole("route MTU")
        if leg.gateway is not None:
            neigh = NeighKey(leg.index, *leg.gateway)
            needs.add(Gateway(neigh))
        elif route.key & 0xFF == BITS[route.version]:
            neigh = NeighKey(leg.index, route.version, route.key >> 8)
        else:
            return Direct(leg.index)
        needs.add(neigh)
        mac = self._mac(neigh)
        return Hole("next hop unresolved") if mac is None else Forward(name, mac)

    def forget(self, place: Place) -> None:
        """The place has no routes any more: it depends on nothing."""
        self._note(place, set())

    def _note(self, place: Place, needs: set[Need]) -> None:
        for need in self._needs.pop(place, ()):
            places = self.users[need]
            places.discard(place)
            if not places:
                del self.users[need]
        if needs:
            self._needs[place] = tuple(needs)
            for need in needs:
                self.has_new_gateways |= isinstance(need, Gateway) and need not in self.users
                self.users.setdefault(need, set()).add(place)


def parent_of(version: int, key: Key, decisions: Mapping[Key, Decision], lengths: list[int]) -> Key | None:
    """The longest shorter prefix with a decision; `lengths` are those that occur, longest first."""
    value, length = key >> 8, key & 0xFF
    for n in lengths:
        if n < length and (candidate := (value & mask(version, n)) << 8 | n) in decisions:
            return candidate
    return None
