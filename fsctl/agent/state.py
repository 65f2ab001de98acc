"""The kernel's state as the agent knows it, and which prefixes a change of it can touch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from fsctl.agent.events import LOCAL, Addr, Event, Link, Neigh, NeighKey, Nexthop, Route, Value
from fsctl.agent.rib import Rib, Sorted
from fsctl.model.addresses import BITS, IPV4, IPV6, MULTICAST_BIT
from fsctl.model.martians import LOCAL_DESTINATIONS
from fsctl.model.prefix_keys import Key

VERSIONS = (IPV4, IPV6)
_LINK_SCOPE = {v: [(p.value, p.last, p.length) for p in LOCAL_DESTINATIONS if p.version == v] for v in BITS}
USABLE_STATES = frozenset({"reachable", "stale", "delay", "probe", "permanent"})
"""NUD_VALID without NUD_NOARP: the kernel sends to the MAC address it has (include/net/neighbour.h)."""

Place = tuple[int, Key]
"""(IP version, prefix)."""


def usable_mac(neigh: Neigh | None) -> int | None:
    """The MAC address that the kernel would send to now, if it is one station's."""
    if neigh is None or not neigh.mac or neigh.mac & MULTICAST_BIT:
        return None
    return neigh.mac if neigh.state in USABLE_STATES else None


def host_place(version: int, value: int) -> Place:
    """The prefix that holds one address."""
    return version, value << 8 | BITS[version]


def is_link_scope(version: int, key: Key) -> bool:
    """Destinations that no router forwards: nothing is said about them."""
    value, length = key >> 8, key & 0xFF
    return any(low <= value <= high and length >= n for low, high, n in _LINK_SCOPE[version])


class State:
    """Mutable. `apply` and `replace_all` return the places to decide anew; None: every place."""

    def __init__(self) -> None:
        self.ribs = {v: Rib(v) for v in VERSIONS}
        self.links: dict[int, Link] = {}
        self.addrs: set[Addr] = set()
        self.nexthops: dict[int, Nexthop] = {}
        self.neighs: dict[NeighKey, Neigh] = {}
        self.unkept: frozenset[NeighKey] = frozenset()
        """Neighbours that nobody confirms: not to be trusted once they are stale (`neighbours`)."""
        self.own: dict[Place, int] = {}
        """The router's own addresses, and on how many interfaces each is."""
        self.hosts: dict[Place, set[int]] = {}
        """Addresses with a usable neighbour entry, and on which interfaces."""
        self.host_order = {v: Sorted() for v in VERSIONS}
        self.is_doubtful = False
        """Something has happened upon which the kernel drops routes without a word: a link changed that routes lead over, an
        address or a next-hop object went (fib_sync_down_dev, fib_sync_down_addr, remove_nexthop)."""
        self.watched: Collection[int] = ()
        """The MAC addresses of the interfaces that fsctl knows."""
        self._used: dict[int, set[int]] = {v: set() for v in VERSIONS}
        """The links that routes lead over, or have led over since the last dump; by IP version."""
        self.suspects: set[int] = set()
        """Links that came back up: the kernel may have dropped routes over them without a word (hazard 23)."""

    def apply(self, event: Event) -> Iterable[Place | NeighKey | int] | None:
        """Take one event in. What changed: places, neighbours, next-hop objects; None: anything may have."""
        value, gone = event.value, event.gone
        if isinstance(value, Route):
            return self._apply_route(event, value)
        if isinstance(value, Neigh):
            return self._apply_neigh(value, gone)
        if isinstance(value, Link):
            return self._apply_link(value, gone)
        if isinstance(value, Nexthop):
            if gone:
                self.is_doubtful |= self.nexthops.pop(value.id, None) is not None
            else:
                self.nexthops[value.id] = value
            return (value.id,)
        return self._apply_addr(value, gone)

    def _apply_route(self, event: Event, route: Route) -> Iterable[Place]:
        rib = self.ribs[route.version]
        if not event.gone:
            self._used[route.version].update(_links(route))
        news = rib.remove(route) if event.gone else rib.add(route, in_place=event.replace)
        if not news:
            return ()
        if route.table == LOCAL and route.key & 0xFF < BITS[route.version]:
            return [(route.version, key) for key in rib.inside(route.key)]
        return ((route.version, route.key),)

    def _apply_link(self, link: Link, gone: bool) -> Iterable[Place] | None:
        old = self.links.get(link.index)
        if (None if gone else link) == old:
            return ()
        is_concern = self._concerns_us(link, old)
        if is_concern and old is not None and link.up and not old.up:
            self.suspects.add(link.index)
        if gone:
            del self.links[link.index]
        else:
            self.links[link.index] = link
        self.is_doubtful |= is_concern
        return None if is_concern else ()

    def _concerns_us(self, link: Link, old: Link | None) -> bool:
        """Does a route lead over the link, or may it be one of fsctl's interfaces? Containers come and go all day (fault C7)."""
        if link.mac in self.watched or (old is not None and old.mac in self.watched):
            return True
        is_used = any(link.index in used for used in self._used.values())
        return is_used or any(n.leg is not None and n.leg.index == link.index for n in self.nexthops.values())

    def _apply_addr(self, addr: Addr, gone: bool) -> Iterable[Place]:
        if (addr in self.addrs) != gone:
            return ()
        (self.addrs.discard if gone else self.addrs.add)(addr)
        place = host_place(addr.version, addr.value)
        self.is_doubtful |= gone and not is_link_scope(*place)
        self.own[place] = self.own.get(place, 0) + (-1 if gone else 1)
        if not self.own[place]:
            del self.own[place]
        return (place,)

    def _apply_neigh(self, neigh: Neigh, gone: bool) -> Iterable[Place | NeighKey]:
        key, old = neigh.key, self.neighs.get(neigh.key)
        if gone:
            self.neighs.pop(key, None)
        else:
            self.neighs[key] = neigh
        mac = None if gone else self.mac_of(neigh)
        if mac == self.mac_of(old):
            return ()
        return self._host(neigh, mac)

    def mac_of(self, neigh: Neigh | None) -> int | None:
        """`usable_mac`, if the entry can still be trusted."""
        is_old = neigh is not None and neigh.state == "stale" and neigh.key in self.unkept
        return None if is_old else usable_mac(neigh)

    def leave(self, unkept: frozenset[NeighKey]) -> list[Place | NeighKey]:
        """Other neighbours are not kept alive any more, or are again."""
        changed = [self.neighs[k] for k in unkept ^ self.unkept if k in self.neighs]
        before = [self.mac_of(n) for n in changed]
        self.unkept = unkept
        turned = [n for n, mac in zip(changed, before, strict=True) if self.mac_of(n) != mac]
        return [what for n in turned for what in self._host(n, self.mac_of(n))]

    def _host(self, neigh: Neigh, mac: int | None) -> Iterable[Place | NeighKey]:
        """A neighbour can be sent to at this MAC address now, or (None) no more."""
        place = host_place(neigh.version, neigh.value)
        there = self.hosts.setdefault(place, set())
        (there.discard if mac is None else there.add)(neigh.index)
        if there:
            self.host_order[neigh.version].add(place[1])
        else:
            del self.hosts[place]
            self.host_order[neigh.version].discard(place[1])
        return (place, neigh.key)

    def replace_routes(self, version: int, routes: Iterable[Route]) -> Iterable[Place] | None:
        """All routes of one IP version, as a dump has them."""
        rib, routes = self.ribs[version], list(routes)
        self._used[version] = {index for route in routes for index in _links(route)}
        before = rib.local_networks()
        changed = rib.replace_all(routes)
        if rib.local_networks() != before or any(key & 0xFF < BITS[version] and rib.is_local(key) for key in changed):
            return None  # what is inside of one is shadowed, or no longer
        return [(version, key) for key in changed]

    def missing(self, kind: type[Value], fresh: set[Value]) -> list[Value]:
        """The values of one kind that a dump no longer has (and does not replace by another of the same identity)."""
        there: dict[type[Value], Iterable[Value]] = {
            Link: self.links.values(),
            Addr: self.addrs,
            Nexthop: self.nexthops.values(),
            Neigh: self.neighs.values(),
        }
        identities = {_identity(v) for v in fresh}
        return [v for v in there[kind] if _identity(v) not in identities]


def _links(route: Route) -> Iterator[int]:
    """The links that a route leads over; none for destinations that are not forwarded to, like fe80::/64."""
    if not is_link_scope(route.version, route.key):
        yield from (leg.index for leg in route.legs)


def _identity(value: Value) -> object:
    if isinstance(value, Link):
        return value.index
    if isinstance(value, Nexthop):
        return value.id
    return value.key if isinstance(value, Neigh) else value
