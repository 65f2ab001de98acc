"""Martians: packets that no router forwards, because of their addresses. The guard keeps them out, so they need no rule."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from fsctl.model.addresses import Prefix
from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.prefix_keys import HOST_MASKS, Key


def _prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(Prefix.parse(t) for t in texts)


#: Destinations no router forwards, or that mean the link itself (RFC 1812 5.3.7 and 4.2.2.11, RFC 3927, RFC 4291).
LOCAL_DESTINATIONS = _prefixes(
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8"
)

#: Sources whose packets no router forwards (RFC 1812 5.3.7, RFC 4291 2.5.2, 2.5.3, 2.5.6, 2.7).
LOCAL_SOURCES = _prefixes("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8")

#: ICMPv6 types of neighbour discovery (RFC 4861): RS, RA, NS, NA, Redirect.
ND_TYPES = (133, 134, 135, 136, 137)


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


class Martians:
    """`LOCAL_DESTINATIONS` and `LOCAL_SOURCES` of one IP version, indexed for many lookups."""

    __slots__ = ("_destinations", "_host_masks", "_sources")

    def __init__(self, version: int) -> None:
        self._destinations = _Ranges(p for p in LOCAL_DESTINATIONS if p.version == version)
        self._sources = _Ranges(p for p in LOCAL_SOURCES if p.version == version)
        self._host_masks = HOST_MASKS[version]

    def excludes(self, key: Key | FiveTuple | Fragments) -> bool:
        """Whether the guard keeps out all packets of a prefix, a connection or its fragments."""
        if isinstance(key, FiveTuple | Fragments):
            return self._destinations.cover(key.dst, key.dst) or self._sources.cover(key.src, key.src)
        first = key >> 8
        return self._destinations.cover(first, first | self._host_masks[key & 0xFF])
