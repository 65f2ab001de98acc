"""The routes of one IP version as the kernel holds them: by prefix, then by (table, tos, metric).

Messages do not always tell the whole story (the kernel deletes IPv4 routes silently when a link goes,
IPv6 announces a multipath route anew for each leg): where a message cannot be folded exactly, every
reading of it is kept (which ends as a hole) and `uncertain` asks for a fresh dump.

Neither do IPv6 dumps: a multipath route stands where its first leg is, and the dump goes on behind its last leg
(fib6_dump_node), past whatever stands between them. Nor is more told than one leg's metrics. So where a multipath
route has gone, been replaced or lost a leg, nobody knows what is there before the next dump.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from fsctl.agent.events import LOCAL, MAIN, UNICAST, Leg, Route
from fsctl.model.addresses import BITS, IPV6
from fsctl.model.prefix_keys import Key, mask

_FEW = 32
"""Up to here inserting one by one beats sorting."""


class Rib:
    """Routes of the tables main and local; others are not kept (extra rules are refused anyway)."""

    __slots__ = ("_local_lengths", "_routes", "_version", "closed", "doubtful", "uncertain")

    def __init__(self, version: int) -> None:
        self._version = version
        self._routes: dict[Key, tuple[Route, ...]] = {}
        self._local_lengths: dict[int, int] = {}
        self.uncertain = False
        self.doubtful: set[Key] = set()
        """IPv6 prefixes of which it is not known, before the next dump, what is there."""
        self.closed: set[Key] = set()
        """Prefixes for which the main table has a route that leads nowhere: blackhole, unreachable, prohibit, throw."""

    def __contains__(self, key: Key) -> bool:
        return key in self._routes or key in self.doubtful

    def __iter__(self) -> Iterator[Key]:
        yield from self._routes
        yield from (key for key in self.doubtful if key not in self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def at(self, key: Key) -> tuple[Route, ...]:
        """Every route for exactly this prefix."""
        return self._routes.get(key, ())

    def all(self) -> Iterator[Route]:
        """Every route."""
        return (route for there in self._routes.values() for route in there)

    def add(self, route: Route, *, in_place: bool) -> bool:
        """A route is there; `in_place` if it took the place of the first of its slot. True if that is news."""
        if route.table not in (MAIN, LOCAL):
            return False
        old = self.at(route.key)
        same = [r for r in old if r.slot == route.slot]
        if route in old:
            if not in_place or len(same) == 1:
                return False
            self._doubt(route.key)  # it took the place of another one: IPv6 may hold the same route twice then
            return True
        others = tuple(r for r in old if r.slot != route.slot)
        kept = same[1:] if in_place else [r for r in same if not self._renewed(r, route)]
        if kept or any(self._loses_legs(r, route) for r in same):
            self._doubt(route.key)
        self._put(route.key, (*others, *kept, route))
        return True

    def _renewed(self, old: Route, new: Route) -> bool:
        """Is `new` the same route told again? IPv6 tells all legs of a multipath route when one is added."""
        if old.path == new.path:
            return True
        return self._version == IPV6 and old.kind == new.kind and bool(_ways(old.legs) & _ways(new.legs))

    def _loses_legs(self, old: Route, new: Route | None) -> bool:
        """Is a leg of a multipath route not there any more, if `new` stands in its place?"""
        return self._version == IPV6 and len(old.legs) > 1 and (new is None or not _ways(old.legs) <= _ways(new.legs))

    def _doubt(self, key: Key) -> None:
        self.uncertain = True
        if self._version == IPV6:
            self.doubtful.add(key)

    def remove(self, route: Route) -> bool:
        """A route, or in IPv6 some legs of one, is gone. True if that is news."""
        if route.table not in (MAIN, LOCAL):
            return False
        old = self.at(route.key)
        remains = [_without(r, route, self._version) for r in old]
        if remains.count(None) > 1:  # one of several that are alike
            at = old.index(route) if route in old else remains.index(None)
            remains = [*old[:at], None, *old[at + 1 :]]
            self._doubt(route.key)
        left = tuple(r for r in remains if r is not None)
        is_news = left != old
        if any(r.slot == route.slot for r in left) if not is_news else any(map(self._loses_legs, old, remains)):
            self._doubt(route.key)
        self._put(route.key, left)
        return is_news or route.key in self.doubtful

    def replace_all(self, routes: Iterable[Route]) -> set[Key]:
        """What a dump says is all there is (mark and sweep); the prefixes where that is news."""
        fresh: dict[Key, tuple[Route, ...]] = {}
        for route in routes:
            if route.table in (MAIN, LOCAL):
                fresh[route.key] = (*fresh.get(route.key, ()), route)
        old = self._routes
        changed = {key for key, there in fresh.items() if not _same(old.get(key, ()), there)}
        changed.update(key for key in old if key not in fresh)
        changed |= self.doubtful
        for key in changed:
            self._put(key, fresh.get(key, ()))
        self.trust()
        return changed

    def trust(self) -> None:
        """What is known here is all that there is."""
        self.uncertain = False
        self.doubtful.clear()

    def _put(self, key: Key, routes: tuple[Route, ...]) -> None:
        was, now = self.is_local(key), any(r.table == LOCAL for r in routes)
        if routes:
            self._routes[key] = routes
        else:
            self._routes.pop(key, None)
        is_closed = any(r.table == MAIN and r.kind != UNICAST for r in routes)
        (self.closed.add if is_closed else self.closed.discard)(key)
        if was != now:
            length = key & 0xFF
            self._local_lengths[length] = self._local_lengths.get(length, 0) + (1 if now else -1)
            if not self._local_lengths[length]:
                del self._local_lengths[length]

    def is_local(self, key: Key) -> bool:
        """Has the local table a route for exactly this prefix?"""
        return any(r.table == LOCAL for r in self.at(key))

    def local_networks(self) -> dict[int, int]:
        """Prefix length -> how many prefixes of that length the local table has; single addresses are left out."""
        return {length: n for length, n in self._local_lengths.items() if length < BITS[self._version]}

    def inside(self, key: Key) -> list[Key]:
        """The prefixes inside that of `key`, itself included (also where it has no routes left)."""
        value, length = key >> 8, key & 0xFF
        end = (value | (1 << (BITS[self._version] - length)) - 1) << 8 | 0xFF
        return [key, *(k for k in self._routes if key < k <= end and k & 0xFF > length)]

    def is_shadowed(self, key: Key) -> bool:
        """Is the prefix inside one of the local table, which the kernel asks first?"""
        value, length = key >> 8, key & 0xFF
        return any(n <= length and self.is_local((value & mask(self._version, n)) << 8 | n) for n in self._local_lengths)

    def best(self, key: Key) -> list[Route] | str:
        """The routes of the lowest metric for exactly this prefix, or why none can be chosen by destination alone."""
        if key in self.doubtful:
            return "routes not told"
        routes = [r for r in self.at(key) if r.table == MAIN]
        for route in routes:
            if route.tos:
                return "tos"
            if route.special:
                return route.special
            if route.expiring:
                return "expires soon"
        lowest = min((r.metric for r in routes), default=0)
        return [r for r in routes if r.metric == lowest]


def _same(some: tuple[Route, ...], others: tuple[Route, ...]) -> bool:
    """In any order; IPv6 may hold a route twice."""
    return some == others or Counter(some) == Counter(others)


def _ways(legs: Iterable[Leg]) -> set[tuple[int, object]]:
    return {(leg.index, leg.gateway) for leg in legs}


def _without(route: Route, gone: Route, version: int) -> Route | None:
    """What is left of `route` once `gone` is gone."""
    if route.slot != gone.slot or route.kind != gone.kind or route.special != gone.special:
        return route
    if route.path == gone.path:
        return None
    if version != IPV6 or route.nhid or gone.nhid:
        return route
    left = tuple(leg for leg in route.legs if (leg.index, leg.gateway) not in _ways(gone.legs))
    if len(left) == len(route.legs):
        return route
    return replace(route, legs=left) if left else None


class Sorted:
    """Keys in order, for "which of these are inside that prefix?"; put in order only when asked."""

    __slots__ = ("_keys", "_new", "_present")

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._present: set[Key] = set()
        self._new: list[Key] = []

    def add(self, key: Key) -> None:
        if key not in self._present:
            self._present.add(key)
            self._new.append(key)

    def discard(self, key: Key) -> None:
        if key in self._present:
            self._settle()
            self._present.discard(key)
            del self._keys[bisect_left(self._keys, key)]

    def _settle(self) -> None:
        if len(self._new) <= _FEW:
            for key in self._new:
                insort(self._keys, key)
        else:
            self._keys.extend(self._new)
            self._keys.sort()
        self._new.clear()

    def inside(self, version: int, key: Key) -> list[Key]:
        """The keys whose prefix is inside that of `key`, itself included."""
        self._settle()
        value, length = key >> 8, key & 0xFF
        end = value | (1 << (BITS[version] - length)) - 1
        low, high = bisect_left(self._keys, key), bisect_left(self._keys, (end + 1) << 8)
        return [k for k in self._keys[low:high] if (k & 0xFF) >= length]
