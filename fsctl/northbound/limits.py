"""How much whoever has no token may ask for, by address; and how often the log speaks of the same thing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from fsctl.errors import BusyError

RATE_PER_S, BURST = 20.0, 50.0
"""Requests without a valid token of one address."""
MOST_ADDRESSES = 4096
"""Addresses that are remembered; the one that was silent for longest is forgotten."""
SAID_S = 10.0
"""How often a refusal of the same address is logged."""


class Strangers:
    """A token bucket for each address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, origin: str) -> None:
        """One request more; raises BusyError if that is too many. "" is this host, which may ask as much as it likes."""
        if not origin:
            return
        now = self._clock()
        left, at = self._known.pop(origin, (BURST, now))
        left = min(BURST, left + (now - at) * RATE_PER_S)
        self._known[origin] = (max(0.0, left - 1.0), now)
        if len(self._known) > MOST_ADDRESSES:
            self._known.popitem(last=False)
        if left < 1.0:
            raise BusyError(f"more than {RATE_PER_S:.0f} requests a second without a valid token", field="address", value=origin)


class Quiet:
    """Says how many lines about the same thing were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def left_out(self, about: str) -> int | None:
        """None: not now. Else a line is due, and so many were left out before it."""
        now = self._clock()
        at, count = self._known.pop(about, (-SAID_S, 0))
        is_due = now - at >= SAID_S
        self._known[about] = (now, 0) if is_due else (at, count + 1)
        if len(self._known) > MOST_ADDRESSES:
            self._known.popitem(last=False)
        return count if is_due else None
