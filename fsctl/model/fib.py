"""A router's FIB: its delegations, kept small (about 100 bytes each) and indexed for the compiler.

A prefix is one integer, `value << 8 | length`: in sorted order, a prefix stands right before those that it
covers. A verdict is one integer too: PUNT_ID, DROP_ID, or the number of a next hop, so that a next hop's MAC
changes in one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any, NamedTuple

from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Fragments, Match, Verdict
from fsctl.model.prefix_keys import Key, key_of, prefix_of

PUNT_ID, DROP_ID = 0, -1
_SPARE = 1024
"""How many next hops there may be that no delegation uses."""


@dataclass(slots=True)
class Part:
    """The delegations of one ingress interface for one IP version and one eth_src (None: any).

    `fragments` counts the connections that fragments of the same hosts and ip_proto may belong to.
    """

    prefixes: dict[Key, int] = field(default_factory=dict)
    connections: dict[FiveTuple, int] = field(default_factory=dict)
    fragments: Counter[Fragments] = field(init=False)

    def __post_init__(self) -> None:
        self.fragments = Counter(connection.fragments for connection in self.connections)

    def set_connection(self, connection: FiveTuple, number: int) -> None:
        if connection not in self.connections:
            self.fragments[connection.fragments] += 1
        self.connections[connection] = number

    def discard_connection(self, connection: FiveTuple) -> None:
        if self.connections.pop(connection, None) is not None:
            self.fragments[connection.fragments] -= 1
            if not self.fragments[connection.fragments]:
                del self.fragments[connection.fragments]

    def items(self) -> Iterator[tuple[Key | FiveTuple, int]]:
        """Prefixes, then connections, each with its verdict's number."""
        yield from self.prefixes.items()
        yield from self.connections.items()


PartKey = tuple[str, int, int | None]
"""(ingress interface, IP version, eth_src or None)."""


Place = tuple[PartKey, Key | FiveTuple]
"""Where in a FIB a delegation stands."""


class Page(NamedTuple):
    """The first `limit` delegations behind a place (None: from the beginning), in the order of `Fib.page`.

    `only`: just the one at this place, if it is there; nobody asks the switch for its counters then.
    """

    limit: int
    after: Place | None = None
    only: Place | None = None


RulePlace = tuple[str, PartKey, Key | FiveTuple | Fragments]
"""Where a collapsed rule stands: the router whose ingress interface it is for, and what of its packets."""


class RulePage(NamedTuple):
    """The first `limit` rules behind a place (None: from the beginning), in the order of `rank_of_part` and `rank_of_key`."""

    limit: int
    after: RulePlace | None = None


class Change(NamedTuple):
    """One delegation set (`verdict`) or removed (None): what schema, store and compiler hand to each other."""

    part: PartKey
    key: Key | FiveTuple
    verdict: Verdict | None


def change_of(match: Match, verdict: Verdict | None) -> Change:
    """The change that sets `match` to `verdict`, or removes it."""
    key = key_of(match.dst) if match.connection is None else match.connection
    return Change((match.in_port, match.dst.version, match.eth_src), key, verdict)


def place_of(match: Match) -> Place:
    """Where a delegation for this match stands."""
    return change_of(match, None)[:2]


def match_of_change(part: PartKey, key: Key | FiveTuple) -> Match:
    """The match that (part, key) stands for."""
    in_port, version, eth_src = part
    if isinstance(key, FiveTuple):
        return Match(in_port, Prefix.host(version, key.dst), eth_src, key)
    return Match(in_port, prefix_of(version, key), eth_src)


def verdicts_of(changes: Iterable[Change]) -> dict[int, Verdict | None]:
    """The distinct verdicts among changes, by id(): a large table has few, and id() avoids hashing them."""
    return {id(change.verdict): change.verdict for change in changes}


class Fib:
    """Mutable, owned by one controller (or one test). Iterating gives `Delegation` values."""

    __slots__ = ("_crowded", "_ids", "_top", "freed", "nexthops", "parts")

    def __init__(self, delegations: Iterable[Delegation] = ()) -> None:
        self.parts: dict[PartKey, Part] = {}
        self.nexthops: dict[int, Forward] = {}
        self._ids: dict[Forward, int] = {}
        self._top = 0
        self._crowded = _SPARE
        self.freed: set[int] = set()
        """Numbers of next hops that were freed; the store still has them."""
        for d in delegations:
            self.set(d.match, d.verdict)

    def __len__(self) -> int:
        return sum(len(p.prefixes) + len(p.connections) for p in self.parts.values())

    def __repr__(self) -> str:
        return f"Fib({list(self)!r})"

    def __iter__(self) -> Iterator[Delegation]:
        for part_key, key, number in self.numbered():
            yield Delegation(match_of_change(part_key, key), self.verdict(number))

    def numbered(self) -> Iterator[tuple[PartKey, Key | FiveTuple, int]]:
        """All delegations, each with its verdict's number; the FIB must not change meanwhile."""
        for part_key, part in self.parts.items():
            for key, number in part.items():
                yield part_key, key, number

    def page(self, page: Page) -> Iterator[tuple[PartKey, Key | FiveTuple, int]]:
        """A part of the delegations: by ingress interface, IP version and sender; prefixes before connections, by address.

        Each delegation has its place in this order whatever comes and goes: who reads page after page sees it once.
        """
        if page.only is not None:
            number = self.number_at(*page.only)
            if number is not None:
                yield *page.only, number
            return
        left = page.limit
        for part_key in sorted(self.parts, key=_order):
            if page.after is not None and _order(part_key) < _order(page.after[0]):
                continue
            part = self.parts[part_key]
            last = page.after[1] if page.after is not None and page.after[0] == part_key else None
            found: list[Key | FiveTuple] = []
            if not isinstance(last, FiveTuple):
                found += nsmallest(left, (key for key in part.prefixes if last is None or key > last))
            after = last if isinstance(last, FiveTuple) else None
            found += nsmallest(left - len(found), (c for c in part.connections if after is None or c > after))
            for key in found:
                yield part_key, key, part.prefixes[key] if not isinstance(key, FiveTuple) else part.connections[key]
            left -= len(found)
            if not left:
                return

    def verdict(self, number: int) -> Verdict:
        """The verdict that a number stands for."""
        if number > 0:
            return self.nexthops[number]
        return PUNT if number == PUNT_ID else DROP

    def number(self, verdict: Verdict) -> int:
        """The number of a verdict; a new one on first use."""
        if isinstance(verdict, Forward):
            number = self._ids.get(verdict)
            if number is None:
                number = self._top + 1
                self.add_nexthop(number, verdict)
            return number
        return PUNT_ID if verdict is PUNT or verdict == PUNT else DROP_ID

    def add_nexthop(self, number: int, nexthop: Forward) -> None:
        """Give `nexthop` a number (as the store remembers it)."""
        self.nexthops[number] = nexthop
        self._ids.setdefault(nexthop, number)
        self._top = max(self._top, number)

    def new_nexthops(self, changes: Iterable[Change]) -> dict[int, Forward]:
        """The numbers that new next hops among these changes will get: the store writes them before the FIB changes."""
        new: dict[Forward, int] = {}
        for verdict in verdicts_of(changes).values():
            if isinstance(verdict, Forward) and verdict not in self._ids and verdict not in new:
                new[verdict] = self._top + 1 + len(new)
        return {number: nexthop for nexthop, number in new.items()}

    def move_nexthop(self, number: int, nexthop: Forward) -> None:
        """The next hop with this number has another MAC now, for every delegation that uses it."""
        old = self.nexthops[number]
        if self._ids.get(old) == number:
            del self._ids[old]
        self.add_nexthop(number, nexthop)

    def has_nexthop(self, nexthop: Forward) -> bool:
        """Whether this next hop has a number."""
        return nexthop in self._ids

    def free_nexthops(self) -> frozenset[int]:
        """Forget the next hops that no delegation uses, once there may be many; returns their numbers, which stay unused."""
        if len(self.nexthops) <= self._crowded:
            return frozenset()
        used: set[int] = set()
        for part in self.parts.values():
            used.update(part.prefixes.values(), part.connections.values())
        gone = frozenset(self.nexthops.keys() - used)
        for number in gone:
            nexthop = self.nexthops.pop(number)
            if self._ids.get(nexthop) == number:
                del self._ids[nexthop]
        self.freed |= gone
        self._crowded = len(self.nexthops) + _SPARE
        return gone

    def numbers_of(self, nexthop: Forward) -> list[int]:
        """All numbers that stand for this next hop: several, once `move_nexthop` has given two the same MAC."""
        return [number for number, known in self.nexthops.items() if known == nexthop]

    def number_at(self, part_key: PartKey, key: Key | FiveTuple) -> int | None:
        """The verdict's number at exactly this place, None where there is no delegation."""
        part = self.parts.get(part_key)
        if part is None:
            return None
        return part.connections.get(key) if isinstance(key, FiveTuple) else part.prefixes.get(key)

    def get(self, match: Match) -> Verdict | None:
        change = change_of(match, None)
        number = self.number_at(change.part, change.key)
        return None if number is None else self.verdict(number)

    def set(self, match: Match, verdict: Verdict) -> None:
        """Add or replace."""
        self.apply(change_of(match, verdict))

    def discard(self, match: Match) -> None:
        """Remove if there."""
        self.apply(change_of(match, None))

    def apply(self, change: Change) -> None:
        """Carry out one change; removing a missing delegation is no error."""
        part_key, key, verdict = change
        part = self.parts.get(part_key)
        if verdict is not None:
            if part is None:
                part = self.parts[part_key] = Part()
            number = self.number(verdict)
            if isinstance(key, FiveTuple):
                part.set_connection(key, number)
            else:
                part.prefixes[key] = number
        elif part is not None:
            if isinstance(key, FiveTuple):
                part.discard_connection(key)
            else:
                part.prefixes.pop(key, None)
            if not part.prefixes and not part.connections:
                del self.parts[part_key]


def _order(part_key: PartKey) -> tuple[str, int, int]:
    """Any sender comes first."""
    in_port, version, eth_src = part_key
    return in_port, version, -1 if eth_src is None else eth_src


def rank_of_part(router: str, part_key: PartKey) -> tuple[str, tuple[str, int, int]]:
    """The order of rules: by router, ingress interface, IP version and sender."""
    return router, _order(part_key)


def rank_of_key(key: Key | FiveTuple | Fragments) -> tuple[int, Any]:
    """The order of rules of one part: prefixes before connections before fragments."""
    return 0 if isinstance(key, int) else 1 if isinstance(key, FiveTuple) else 2, key
