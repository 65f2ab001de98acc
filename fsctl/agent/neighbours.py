"""Neighbours in use are kept alive although their traffic no longer passes the router (hazard 13). Pure.

The kernel would let their entries go stale and forget them. The agent never writes to the neighbour table: whatever it
asked the kernel to change there (NTF_USE, NTF_EXT_MANAGED) would also be done to an entry that somebody else has just made
permanent, since __neigh_update() knows no "only if it is still as it was". Instead it sends what forwarded packets would be:
a datagram (`nudge`). The kernel then confirms the entry by itself (STALE, DELAY, PROBE; RFC 4861, 7.3.3), and leaves
permanent entries, flags and addresses as they are.

Gateways that were never resolved are resolved on purpose; hosts are not: who has no entry has no traffic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsctl.agent.events import Neigh, NeighKey
from fsctl.agent.state import USABLE_STATES, VERSIONS

RETRY_SECONDS = 5.0
"""Between two datagrams for one neighbour; for one that does not answer, doubled up to `MAX_RETRY_SECONDS`."""
MAX_RETRY_SECONDS = 320.0
PART_OF_TABLE = 2
"""The agent keeps no more than one in so many entries that the kernel's table may have before it is cleared by force."""
PART_SOUGHT = 4
"""And one in so many of these for gateways that are not there."""
DEFAULT_GC_THRESH2 = 512
_THRESHOLD = "/proc/sys/net/ipv{version}/neigh/default/gc_thresh2"
_NEVER = (0.0, 0.0)
_SEEKING = frozenset({"none", "failed"})


def limits() -> dict[int, int]:
    """IP version -> how many neighbours may be kept, from gc_thresh2 (arp(7)); it can be read outside of containers only."""
    return {version: _threshold(version) // PART_OF_TABLE for version in VERSIONS}


def _threshold(version: int) -> int:
    try:
        return int(Path(_THRESHOLD.format(version=version)).read_text())
    except (OSError, ValueError):
        return DEFAULT_GC_THRESH2


@dataclass(frozen=True, slots=True)
class Plan:
    """`nudges`: whom to send a datagram now. `unkept`: in use, but not kept alive; not to be trusted once stale."""

    nudges: tuple[NeighKey, ...] = ()
    unkept: frozenset[NeighKey] = frozenset()


class Keeper:
    """Mutable, owned by the agent's loop; `now` is a monotonic clock in seconds. `most`: see `limits`."""

    def __init__(self, most: Mapping[int, int]) -> None:
        self.most = dict(most)
        self.unkept: frozenset[NeighKey] = frozenset()
        self._kept: set[NeighKey] = set()
        self._mute: set[NeighKey] = set()
        self._asked: dict[NeighKey, tuple[float, float]] = {}
        """When to ask again at the earliest, and how long to wait after that."""

    def plan(
        self, gateways: Collection[NeighKey], hosts: Iterable[NeighKey], neighs: Mapping[NeighKey, Neigh], now: float
    ) -> Plan:
        """What to do now. `gateways` and `hosts` are in use, `neighs` is what the kernel has."""
        usable = {k for k in {*gateways, *hosts, *self.unkept} if _is_kept_by_traffic(neighs.get(k))}
        sought = {k for k in gateways if k not in neighs or neighs[k].state not in USABLE_STATES | {"noarp"}}
        kept = set[NeighKey]()
        for version in VERSIONS:
            waiting = sorted((k for k in sought if k.version == version), key=lambda k: self._turn(k, k in neighs, now))
            alive = [k for k in usable if k.version == version]
            kept.update(self._choice(self.most[version], alive, waiting, gateways))
        self._kept = kept
        used = usable | sought
        self._asked = {k: at for k, at in self._asked.items() if k in used or now < at[0] + MAX_RETRY_SECONDS}
        self._mute &= kept
        self.unkept = frozenset((usable - kept) | self._mute)
        return Plan(tuple(k for k in sorted(kept) if self._is_due(k, neighs.get(k), now)), self.unkept)

    def _choice(
        self, most: int, alive: Iterable[NeighKey], waiting: list[NeighKey], gateways: Collection[NeighKey]
    ) -> list[NeighKey]:
        """Gateways that are there, gateways to be found, hosts; among these the same as before.

        `waiting` begins with those that have an entry already (`_turn`), which take no more room.
        """
        order = sorted(alive, key=lambda k: (k not in self._kept, k))
        first, last = [k for k in order if k in gateways], [k for k in order if k not in gateways]
        return [*first, *waiting[: most // PART_SOUGHT], *last][:most]

    def _turn(self, key: NeighKey, is_there: bool, now: float) -> tuple[bool, float, NeighKey]:
        """The kernel does not tell of an entry before it has failed: who was asked a while ago counts as there."""
        earliest = self._asked.get(key, _NEVER)[0]
        return not (is_there or earliest > now), earliest, key

    def sent(self, key: NeighKey, well: bool) -> None:
        """Whether the datagram went out. If not (a filter on the router's own packets, say), nobody confirms the entry."""
        (self._mute.discard if well else self._mute.add)(key)

    def reasons(self) -> list[tuple[int, str]]:
        """(IP version, words) about the neighbours that are not kept alive."""
        found = []
        for version in VERSIONS:
            mute = sum(k.version == version for k in self._mute)
            beyond = sum(k.version == version for k in self.unkept) - mute
            if beyond:
                found.append((version, f"more neighbours in use than {self.most[version]}, a half of gc_thresh2"))
            if mute:
                found.append((version, "the router cannot send to neighbours, so nobody confirms their entries"))
        return found

    def _is_due(self, key: NeighKey, neigh: Neigh | None, now: float) -> bool:
        state = "none" if neigh is None else neigh.state
        if state not in _SEEKING and state != "stale":
            if state in USABLE_STATES:
                self._asked.pop(key, None)
            return False  # known to be well, or already being looked for
        earliest, pause = self._asked.get(key, (now, RETRY_SECONDS))
        if now < earliest:
            return False
        longer = min(2 * pause, MAX_RETRY_SECONDS) if state in _SEEKING else RETRY_SECONDS
        self._asked[key] = (now + pause, longer)
        return True


def _is_kept_by_traffic(neigh: Neigh | None) -> bool:
    """Is it usable, and would it not be for long without traffic? Not what was set by hand, or is managed for somebody."""
    return neigh is not None and neigh.state in USABLE_STATES - {"permanent"} and not neigh.managed
