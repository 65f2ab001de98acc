"""Packets that no router forwards because of their addresses: the guard keeps them out, so they need no rule."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from fsctl.fib import Key
from fsctl.model import BITS, LOCAL_DESTINATIONS, LOCAL_SOURCES, FiveTuple, Fragments, Prefix


class _Ranges:
    """The address ranges of disjoint prefixes, sorted. Hot path: looked up for every prefix of every table."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        ranges = sorted((p.value, p.last) for p in prefixes)
        self._firsts, self._lasts = [first for first, _ in ranges], [last for _, last in ranges]
        assert all(last < first for last, first in zip(self._lasts, self._firsts[1:], strict=False))

    def cover(self, first: int, last: int) -> bool:
        at = bisect_right(self._firsts, first)
        return at > 0 and last <= self._lasts[at - 1]


class Scope:
    """`model.LOCAL_*` for one IP version, indexed for many lookups."""

    __slots__ = ("_destinations", "_host_masks", "_sources")

    def __init__(self, version: int) -> None:
        self._destinations = _Ranges(p for p in LOCAL_DESTINATIONS if p.version == version)
        self._sources = _Ranges(p for p in LOCAL_SOURCES if p.version == version)
        bits = BITS[version]
        self._host_masks = [(1 << (bits - length)) - 1 for length in range(bits + 1)]

    def excludes(self, key: Key | FiveTuple | Fragments) -> bool:
        """Whether the guard keeps out all packets of a prefix, a connection or its fragments."""
        if isinstance(key, FiveTuple | Fragments):
            return self._destinations.cover(key.dst, key.dst) or self._sources.cover(key.src, key.src)
        first = key >> 8
        return self._destinations.cover(first, first | self._host_masks[key & 0xFF])
