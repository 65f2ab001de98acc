"""The places of one IP version: all prefixes and connections that are delegated, in the order that `sweep` visits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sortedcontainers import SortedDict, SortedList

from fsctl.collapse.effects import Point
from fsctl.model.delegations import FiveTuple
from fsctl.model.fib import Part
from fsctl.model.prefix_keys import Key


class Places:
    """`prefixes` and `points` (connections and their fragments) have the number of delegations for each."""

    def __init__(self, parts: Iterable[Part], own: Iterable[Key]) -> None:
        """All that `parts` delegate, and the routers' own addresses (once for each interface)."""
        self.prefixes: Counter[Key] = Counter()
        self.points: Counter[Point] = Counter()
        for part in parts:
            self.points.update(part.connections.keys())
            self.points.update(part.fragments)
            self.prefixes.update(part.prefixes.keys())
        self.prefixes.update(own)
        self.total = self.prefixes.total() + self.points.total()
        """All of them, counted as often as they are delegated."""
        self.order: SortedList[Key] = SortedList(self.prefixes)
        self.by_dst: SortedDict[int, set[Point]] = SortedDict()
        self._lengths = Counter(key & 0xFF for key in self.prefixes)
        for point in self.points:
            self.by_dst.setdefault(point.dst, set()).add(point)

    def lengths(self) -> list[int]:
        """The prefix lengths that there are, longest first."""
        return sorted((length for length, count in self._lengths.items() if count), reverse=True)

    def count(self, key: Key | FiveTuple, by: int) -> None:
        """A delegation for `key` was added (+1) or removed (-1)."""
        if isinstance(key, FiveTuple):
            self._count_point(key, by)
            self._count_point(key.fragments, by)
            return
        self.total += by
        before = self.prefixes[key]
        self.prefixes[key] = after = before + by
        if not before:
            self.order.add(key)
            self._lengths[key & 0xFF] += 1
        elif not after:
            del self.prefixes[key]
            self.order.remove(key)
            self._lengths[key & 0xFF] -= 1

    def _count_point(self, point: Point, by: int) -> None:
        self.total += by
        self.points[point] += by
        same_dst = self.by_dst.setdefault(point.dst, set())
        if self.points[point]:
            same_dst.add(point)
            return
        del self.points[point]
        same_dst.discard(point)
        if not same_dst:
            del self.by_dst[point.dst]
