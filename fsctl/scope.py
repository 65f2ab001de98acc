"""What no router forwards, by its addresses alone: the guard keeps it out, so a rule for it would never be met."""

from __future__ import annotations

from fsctl.fib import Key
from fsctl.model import BITS, LOCAL_DESTINATIONS, LOCAL_SOURCES, FiveTuple


class Scope:
    """`model.LOCAL_*` for one IP version, made ready for many questions."""

    __slots__ = ("_destinations", "_host_masks", "_sources")

    def __init__(self, version: int) -> None:
        self._destinations = [(p.value, p.last) for p in LOCAL_DESTINATIONS if p.version == version]
        self._sources = [(p.value, p.last) for p in LOCAL_SOURCES if p.version == version]
        bits = BITS[version]
        self._host_masks = [(1 << (bits - length)) - 1 for length in range(bits + 1)]

    def excludes(self, key: Key | FiveTuple) -> bool:
        """Whether all packets of a prefix or a connection are kept out."""
        if isinstance(key, FiveTuple):
            to, of = key.dst, key.src
            return any(low <= to <= high for low, high in self._destinations) or any(
                low <= of <= high for low, high in self._sources
            )
        first = key >> 8
        last = first | self._host_masks[key & 0xFF]
        return any(low <= first and last <= high for low, high in self._destinations)
