"""Flow tables that find the entry of a packet, each by another method; all find the same one.

An entry binds the ingress interface's MAC (eth_dst) and a destination prefix, and may bind a sender (eth_src). The
longest prefix wins; among equals the one with eth_src (design: fsctl.model.addresses.Match). `probes` counts what a look-up
touched: entries compared, trie nodes visited, hash tables asked. It is what a faster language would not change.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

BITS = 32
MASKS = [((1 << n) - 1) << (BITS - n) for n in range(BITS + 1)]


class Entry(NamedTuple):
    """A condition; `value` has no host bits, `eth_src` None means any sender."""

    eth_dst: int
    value: int
    length: int
    eth_src: int | None = None

    def precedence(self) -> tuple[int, bool]:
        return self.length, self.eth_src is not None


class Table(Protocol):
    """A flow table. `verdict` is opaque to it."""

    probes: int

    def insert(self, entry: Entry, verdict: int) -> None:
        """Add an entry, or replace the verdict of one."""
        ...

    def remove(self, entry: Entry) -> None:
        """Raises KeyError if it is not there."""
        ...

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        """The verdict of the best entry for a packet."""
        ...


class LinearList:
    """All entries in order of precedence, the first that matches is the one: what a small kernel table does."""

    def __init__(self) -> None:
        self.probes = 0
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        """(-length, any sender?, eth_dst, value, eth_src or 0, verdict): sorted is in order of precedence."""

    @staticmethod
    def _key(entry: Entry) -> tuple[int, int, int, int, int]:
        return -entry.length, int(entry.eth_src is None), entry.eth_dst, entry.value, entry.eth_src or 0

    def insert(self, entry: Entry, verdict: int) -> None:
        at = self._find(entry)
        if at is not None:
            del self._rows[at]
        insort(self._rows, (*self._key(entry), verdict))

    def remove(self, entry: Entry) -> None:
        at = self._find(entry)
        if at is None:
            raise KeyError(entry)
        del self._rows[at]

    def _find(self, entry: Entry) -> int | None:
        key = self._key(entry)
        at = bisect_left(self._rows, key)
        return at if at < len(self._rows) and self._rows[at][:5] == key else None

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        for number, (minus_length, is_any, to, value, sender, verdict) in enumerate(self._rows, 1):
            if to == eth_dst and dst & MASKS[-minus_length] == value and (is_any or sender == eth_src):
                self.probes += number
                return verdict
        self.probes += len(self._rows)
        return None


class _Verdicts:
    """Those of one prefix: by sender, and for any."""

    __slots__ = ("any", "by_src")

    def __init__(self) -> None:
        self.any: int | None = None
        self.by_src: dict[int, int] | None = None

    def set(self, eth_src: int | None, verdict: int) -> None:
        if eth_src is None:
            self.any = verdict
        else:
            if self.by_src is None:
                self.by_src = {}
            self.by_src[eth_src] = verdict

    def discard(self, eth_src: int | None) -> bool:
        """False if there was none."""
        if eth_src is None:
            found, self.any = self.any is not None, None
            return found
        return self.by_src is not None and self.by_src.pop(eth_src, None) is not None

    def get(self, eth_src: int) -> int | None:
        found = self.by_src.get(eth_src) if self.by_src else None
        return self.any if found is None else found

    def __bool__(self) -> bool:
        return self.any is not None or bool(self.by_src)


class _TrieNode:
    __slots__ = ("children", "verdicts")

    def __init__(self) -> None:
        self.children: list[_TrieNode | None] = [None, None]
        self.verdicts: _Verdicts | None = None


class BinaryTrie:
    """One trie for each ingress interface, a node for each bit of the prefix."""

    def __init__(self) -> None:
        self.probes = 0
        self._roots: dict[int, _TrieNode] = {}

    def insert(self, entry: Entry, verdict: int) -> None:
        node = self._roots.setdefault(entry.eth_dst, _TrieNode())
        for bit in _bits(entry):
            child = node.children[bit]
            if child is None:
                child = node.children[bit] = _TrieNode()
            node = child
        if node.verdicts is None:
            node.verdicts = _Verdicts()
        node.verdicts.set(entry.eth_src, verdict)

    def remove(self, entry: Entry) -> None:
        """Nodes that lead nowhere are cut off."""
        root = node = self._roots.get(entry.eth_dst)
        path: list[tuple[_TrieNode, int]] = []
        for bit in _bits(entry):
            if node is None:
                break
            path.append((node, bit))
            node = node.children[bit]
        if root is None or node is None or node.verdicts is None or not node.verdicts.discard(entry.eth_src):
            raise KeyError(entry)
        if not node.verdicts:
            node.verdicts = None
        for parent, bit in reversed(path):
            child = parent.children[bit]
            if child is None or child.verdicts is not None or any(child.children):
                break
            parent.children[bit] = None

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        node, best, shift = self._roots.get(eth_dst), None, BITS - 1
        while node is not None:
            self.probes += 1
            if node.verdicts is not None:
                found = node.verdicts.get(eth_src)
                if found is not None:
                    best = found
            if shift < 0:
                break
            node = node.children[dst >> shift & 1]
            shift -= 1
        return best


def _bits(entry: Entry) -> Iterator[int]:
    for n in range(entry.length):
        yield entry.value >> (BITS - 1 - n) & 1


class PerLengthHashes:
    """For each ingress interface a hash of prefixes for every length in use, asked from the longest on."""

    def __init__(self) -> None:
        self.probes = 0
        self._by_interface: dict[int, dict[int, dict[int, _Verdicts]]] = {}

    def insert(self, entry: Entry, verdict: int) -> None:
        lengths = self._by_interface.setdefault(entry.eth_dst, {})
        if entry.length not in lengths:
            # Kept from the longest to the shortest, so that a look-up can stop at the first hit.
            lengths[entry.length] = {}
            ordered = sorted(lengths.items(), reverse=True)
            lengths.clear()
            lengths.update(ordered)
        lengths[entry.length].setdefault(entry.value, _Verdicts()).set(entry.eth_src, verdict)

    def remove(self, entry: Entry) -> None:
        lengths = self._by_interface.get(entry.eth_dst, {})
        verdicts = lengths.get(entry.length, {}).get(entry.value)
        if verdicts is None or not verdicts.discard(entry.eth_src):
            raise KeyError(entry)
        if not verdicts:
            del lengths[entry.length][entry.value]
            if not lengths[entry.length]:
                del lengths[entry.length]

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        for length, table in self._by_interface.get(eth_dst, {}).items():
            self.probes += 1
            verdicts = table.get(dst & MASKS[length])
            if verdicts is not None:
                found = verdicts.get(eth_src)
                if found is not None:
                    return found
        return None


class TupleSpace:
    """A hash for every combination of masks in use, whatever the interface (Srinivasan, Suri, Varghese 1999).

    Open vSwitch's classifier is one: it asks the tuples from the highest priority on, and stops where none can win.
    """

    def __init__(self) -> None:
        self.probes = 0
        self._tuples: dict[tuple[int, bool], dict[tuple[int, int, int], int]] = {}

    @staticmethod
    def _hashed(entry: Entry) -> tuple[int, int, int]:
        return entry.eth_dst, entry.value, entry.eth_src or 0

    def insert(self, entry: Entry, verdict: int) -> None:
        mask = entry.precedence()
        if mask not in self._tuples:
            self._tuples[mask] = {}
            self._tuples = dict(sorted(self._tuples.items(), reverse=True))
        self._tuples[mask][self._hashed(entry)] = verdict

    def remove(self, entry: Entry) -> None:
        mask = entry.precedence()
        table = self._tuples.get(mask, {})
        del table[self._hashed(entry)]
        if not table:
            del self._tuples[mask]

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        for (length, with_src), table in self._tuples.items():
            self.probes += 1
            found = table.get((eth_dst, dst & MASKS[length], eth_src if with_src else 0))
            if found is not None:
                return found
        return None


class ExactHash:
    """One hash of the exact packets seen so far, filled on a miss from the table behind it.

    The paper's five fields, all exact, allow no prefix; so this is a cache, as a reactive controller installs it. Any
    change may concern any entry: it starts anew.
    """

    def __init__(self, behind: Callable[[], Table] = PerLengthHashes) -> None:
        self._behind = behind()
        self._own_probes = 0
        self._seen: dict[tuple[int, int, int], int | None] = {}

    @property
    def probes(self) -> int:
        return self._own_probes + self._behind.probes

    @probes.setter
    def probes(self, value: int) -> None:
        self._own_probes, self._behind.probes = value, 0

    def __len__(self) -> int:
        return len(self._seen)

    def insert(self, entry: Entry, verdict: int) -> None:
        self._seen.clear()
        self._behind.insert(entry, verdict)

    def remove(self, entry: Entry) -> None:
        self._seen.clear()
        self._behind.remove(entry)

    def lookup(self, eth_dst: int, eth_src: int, dst: int) -> int | None:
        self._own_probes += 1
        key = eth_dst, eth_src, dst
        try:
            return self._seen[key]
        except KeyError:
            found = self._seen[key] = self._behind.lookup(eth_dst, eth_src, dst)
            return found


METHODS: dict[str, Callable[[], Table]] = {
    "linear list": LinearList,
    "binary trie": BinaryTrie,
    "per-length hashes": PerLengthHashes,
    "tuple-space search": TupleSpace,
    "exact hash": ExactHash,
}
