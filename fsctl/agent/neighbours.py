"""Neighbours in use are kept resolved although their traffic no longer passes the router (hazard 13). Pure.

The kernel would let their entries go stale and forget them. Where it has managed neighbours (Linux 5.16,
NTF_EXT_MANAGED) it is asked to keep them itself; otherwise an entry that goes stale is confirmed at once (NTF_USE: a
unicast probe, RFC 4861, 7.3.3). Gateways that were never resolved are resolved on purpose; hosts are not: who has no entry
has no traffic.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from fsctl.agent.events import Neigh, NeighKey
from fsctl.agent.state import USABLE_STATES

MAX_MANAGED_HOSTS = 1024
"""Hosts of connected subnets that are managed; the kernel never collects managed entries. More are probed when stale."""
RETRY_SECONDS = 5.0
"""Between two requests for the same neighbour."""


class Action(Enum):
    """What to ask the kernel for."""

    MANAGE = "manage"
    USE = "use"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Request:
    neigh: Neigh
    action: Action


def has_managed_neighbours(release: str | None = None) -> bool:
    """Does this kernel keep neighbours by itself? `release` as `uname -r` tells it."""
    found = re.match(r"(\d+)\.(\d+)", release if release is not None else platform.release())
    return found is not None and (int(found[1]), int(found[2])) >= (5, 16)


class Keeper:
    """Mutable, owned by the agent's loop; `now` is a monotonic clock in seconds."""

    def __init__(self, *, managed: bool) -> None:
        self._can_manage = managed
        self._managed: set[NeighKey] = set()
        self._asked: dict[NeighKey, float] = {}

    def plan(
        self, gateways: Iterable[NeighKey], hosts: Iterable[NeighKey], neighs: Mapping[NeighKey, Neigh], now: float
    ) -> list[Request]:
        """What to ask for now. `gateways` and `hosts` are in use, `neighs` is what the kernel has."""
        next_hops = set(gateways)
        others = {k for k in hosts if k not in next_hops and k in neighs and neighs[k].state in USABLE_STATES}
        kept = self._kept(next_hops, others)
        wanted = {key: Action.MANAGE if key in kept else Action.USE for key in next_hops | others}
        requests = [r for key in sorted(wanted) if (r := self._request(key, neighs.get(key), wanted[key], now)) is not None]
        requests += self._release(kept, neighs)
        self._asked = {key: at for key, at in self._asked.items() if key in wanted}
        return requests

    def release_all(self, neighs: Mapping[NeighKey, Neigh]) -> list[Request]:
        """Leave the kernel as it was."""
        return self._release(set(), neighs)

    def _kept(self, next_hops: set[NeighKey], others: set[NeighKey]) -> set[NeighKey]:
        if not self._can_manage:
            return set()
        room = sorted(others, key=lambda k: (k not in self._managed, k))[:MAX_MANAGED_HOSTS]
        return next_hops | set(room)

    def _request(self, key: NeighKey, neigh: Neigh | None, action: Action, now: float) -> Request | None:
        state = neigh.state if neigh is not None else "none"
        if state in ("permanent", "noarp"):
            return None  # the operator's own, and managing it would undo that
        if action is Action.MANAGE:
            if neigh is not None and neigh.managed:
                return None
        elif state not in ("stale", "failed", "none"):
            return None  # known to be well, or already being looked for
        if now - self._asked.get(key, -RETRY_SECONDS) < RETRY_SECONDS:
            return None
        self._asked[key] = now
        if action is Action.MANAGE:
            self._managed.add(key)
        return Request(neigh or Neigh(key.link, key.version, key.value, state="none"), action)

    def _release(self, kept: set[NeighKey], neighs: Mapping[NeighKey, Neigh]) -> list[Request]:
        gone = self._managed - kept
        self._managed -= gone
        return [Request(neighs[key], Action.RELEASE) for key in sorted(gone) if key in neighs and neighs[key].managed]
