"""The clock that leases run on: it stands still while nobody was served.

A controller that was stopped, or that something kept from running, could not hear heartbeats either. Who was silent only
then has not been silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fsctl.runtime import Runtime

TICK_S, LATE_S = 0.05, 0.2
"""A tick that comes this much later than it should shows that nobody was served meanwhile."""


class LeaseClock:
    """Seconds. `lost_s` are those that did not count."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        self._runtime, self._clock = runtime, clock
        self._never = runtime.event()
        self._ticked = clock()
        self.lost_s = 0.0

    def now(self) -> float:
        """The time since the last tick counts as far as it is not late already."""
        late = self._clock() - self._ticked - TICK_S
        return self._runtime.now() - self.lost_s - (late if late > LATE_S else 0.0)

    def tick(self) -> None:
        """To be called every TICK_S."""
        now = self._clock()
        late = now - self._ticked - TICK_S
        if late > LATE_S:
            self.lost_s += late
        self._ticked = now

    def run(self, is_over: Callable[[], bool]) -> None:
        """Tick until it is over."""
        self._ticked = self._clock()
        while not is_over():
            self._never.wait(TICK_S)
            self.tick()
