"""What a router's own delegations may cost: an upper bound of the rules they make, counted before anything is stored.

Pure. A delegation makes at most one rule for any sender (a connection two: itself and its fragments). A class of senders
(eth_src) has a rule only where one of its own prefixes covers: elsewhere its verdict is that for any sender. So a class
costs as many rules as there are prefixes under its own. What other routers' prefixes add behind a next hop is not counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from fsctl.errors import TooLargeError
from fsctl.model.addresses import BITS
from fsctl.model.delegations import FiveTuple, Forward, Verdict
from fsctl.model.fib import Fib, Part, PartKey
from fsctl.model.network import Router
from fsctl.model.prefix_keys import Key

Overlay = Mapping[tuple[PartKey, Key | FiveTuple], Verdict | None]
"""What will be at some places of a FIB; None: nothing."""
NOTHING = Part()


class Limits(NamedTuple):
    """`rules` per bridge, `senders` (classes) per interface, `nexthops` per router."""

    rules: int
    senders: int
    nexthops: int


def check(router: Router, fib: Fib, overlay: Overlay, limits: Limits) -> None:
    """Raise TooLargeError if the FIB with this overlay would exceed a limit.

    Takes as long as the overlay and the number of classes, unless the coarse bound exceeds a limit: then the FIB is read.
    """
    sizes = _sizes(fib, overlay)
    _check_senders(router.name, sizes, limits.senders)
    _check_nexthops(router.name, fib, overlay, limits.nexthops)
    itself = leads_to_itself(router, fib, overlay)
    for bridge in dict.fromkeys(i.bridge for i in router.interfaces.values()):
        names = {i.name for i in router.interfaces.values() if i.bridge == bridge}
        if itself or _coarse(sizes, names) > limits.rules:
            rules = exact(fib, overlay, names, itself=itself)
            if rules > limits.rules:
                detail = f"router {router.name} may have {limits.rules} rules (max_rules) on bridge {bridge}"
                raise TooLargeError(detail, field="flows", value=rules)


def leads_to_itself(router: Router, fib: Fib, overlay: Overlay) -> bool:
    """Whether a next hop is an interface of the router itself: what it delegates there makes rules where it is sent from."""
    macs = {i.mac for i in router.interfaces.values()}
    new = {id(v): v for v in overlay.values()}.values()
    return any(isinstance(v, Forward) and v.eth_dst in macs for v in (*fib.nexthops.values(), *new))


def exact(fib: Fib, overlay: Overlay, interfaces: Collection[str], *, itself: bool = False) -> int:
    """The upper bound of the rules at these interfaces, from the FIB's prefixes and connections.

    `itself`: see `leads_to_itself`; then what any interface of the router has counts at each of these.
    What the router's own addresses add is left out: one rule for each, at each interface and class.
    """
    everything = _parts(fib, overlay)
    parts = {part_key: keys for part_key, keys in everything.items() if part_key[0] in interfaces}
    rules = 0
    for name, version in {part_key[:2] for part_key in parts}:
        everyone = parts.get((name, version, None), {})
        if itself:
            everyone = {key: None for part_key, keys in everything.items() if part_key[1] == version for key in keys}
        classes = [keys for part_key, keys in parts.items() if part_key[:2] == (name, version) and part_key[2] is not None]
        in_order = sorted(_rules_at(version, everyone)) if classes else []
        rules += sum(_cost(key) for key in everyone)
        rules += sum(_of_class(version, keys, in_order) for keys in classes)
    return rules


_Keys = dict[Key | FiveTuple, None]


def _parts(fib: Fib, overlay: Overlay) -> dict[PartKey, _Keys]:
    """What each part will have."""
    parts: dict[PartKey, _Keys] = {part_key: {key: None for key, _ in part.items()} for part_key, part in fib.parts.items()}
    for (part_key, key), verdict in overlay.items():
        if verdict is None:
            parts.setdefault(part_key, {}).pop(key, None)
        else:
            parts.setdefault(part_key, {})[key] = None
    return parts


def _cost(key: Key | FiveTuple) -> int:
    return 2 if isinstance(key, FiveTuple) else 1


def _rules_at(version: int, keys: Iterable[Key | FiveTuple]) -> Iterator[Key]:
    """Where the rules are: a connection's two at its destination."""
    for key in keys:
        if isinstance(key, FiveTuple):
            yield from [key.dst << 8 | BITS[version]] * 2
        else:
            yield key


def _of_class(version: int, keys: Iterable[Key | FiveTuple], in_order: list[Key]) -> int:
    """The most rules of a class: its own, and those for any sender that its own prefixes cover."""
    count, last = 0, -1
    prefixes: list[Key] = []
    for key in keys:
        count += _cost(key)
        if not isinstance(key, FiveTuple):
            prefixes.append(key)
    for key in sorted(prefixes):
        if key >> 8 > last:
            last = (key >> 8) | ((1 << (BITS[version] - (key & 0xFF))) - 1)
            count += bisect_right(in_order, last << 8 | 0xFF) - bisect_left(in_order, key)
    return count


class _Size(NamedTuple):
    prefixes: int
    connections: int


def _sizes(fib: Fib, overlay: Overlay) -> dict[PartKey, _Size]:
    """How many prefixes and connections each part will have."""
    more: Counter[tuple[PartKey, bool]] = Counter()
    for (part_key, key), verdict in overlay.items():
        more[part_key, isinstance(key, FiveTuple)] += (verdict is not None) - (fib.number_at(part_key, key) is not None)
    sizes = {}
    for part_key in {*fib.parts, *(part for part, _ in more)}:
        part = fib.parts.get(part_key, NOTHING)
        size = _Size(len(part.prefixes) + more[part_key, False], len(part.connections) + more[part_key, True])
        if size.prefixes or size.connections:
            sizes[part_key] = size
    return sizes


def _coarse(sizes: Mapping[PartKey, _Size], interfaces: Collection[str]) -> int:
    """As `exact`, as if every class covered everything."""
    rules = 0
    for (name, version, eth_src), size in sizes.items():
        if name in interfaces:
            rules += size.prefixes + 2 * size.connections
            if eth_src is not None:
                everyone = sizes.get((name, version, None), _Size(0, 0))
                rules += everyone.prefixes + 2 * everyone.connections
    return rules


def _check_senders(router: str, sizes: Mapping[PartKey, _Size], limit: int) -> None:
    classes: dict[str, set[int]] = {}
    for name, _, eth_src in sizes:
        if eth_src is not None:
            classes.setdefault(name, set()).add(eth_src)
    for name, macs in classes.items():
        if len(macs) > limit:
            detail = f"router {router} may tell {limit} senders (max_senders) apart at interface {name}"
            raise TooLargeError(detail, field="eth_src", value=len(macs))


def _check_nexthops(router: str, fib: Fib, overlay: Overlay, limit: int) -> None:
    wanted = {verdict for verdict in {id(v): v for v in overlay.values()}.values() if isinstance(verdict, Forward)}
    if len(fib.nexthops) + len(wanted) <= limit or all(fib.has_nexthop(hop) for hop in wanted):
        return
    used = {fib.verdict(n) for key, part in fib.parts.items() for k, n in part.items() if n > 0 and (key, k) not in overlay}
    if len(used | wanted) > limit:
        detail = f"router {router} may have {limit} next hops (max_nexthops)"
        raise TooLargeError(detail, field="next_hop", value=len(used | wanted))
