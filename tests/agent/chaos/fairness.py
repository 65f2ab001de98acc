"""Time as it counts for a bound: without what nobody could have done anything about.

Taken off: while this process was not scheduled, while the watched processes waited for a processor, and while the test itself had
stopped one of them or made it slow. On a machine whose cores are shared, a bound on plain time says little.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TICK_S = 0.01
LATE_S = 0.01
"""A tick that comes later than this says that nobody was at work."""


def waited_s(pids: Iterable[int]) -> float:
    """How long all threads of these processes have been ready to run and did not (/proc/PID/schedstat, second number)."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[1])
            except (OSError, IndexError):
                continue  # this thread has just ended
    return total / 1e9


class FairClock:
    """Seconds that count. `pids` says whose waiting does not."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._stalled = self._excused = self._waited = 0.0
        self._since: float | None = None
        self._depth = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def now(self) -> float:
        """Never goes back by more than a process that ends has waited."""
        with self._lock:
            self._waited = max(self._waited, waited_s(self._pids()))
            running = 0.0 if self._since is None else time.monotonic() - self._since
            return time.monotonic() - self._stalled - self._excused - self._waited - running

    def scheduled(self) -> float:
        """Seconds in which everybody could run, whether the test had stopped somebody or not."""
        with self._lock:
            self._waited = max(self._waited, waited_s(self._pids()))
            return time.monotonic() - self._stalled - self._waited

    @contextmanager
    def held(self) -> Iterator[None]:
        """No time passes."""
        with self._lock:
            self._depth += 1
            self._since = time.monotonic() if self._since is None else self._since
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if not self._depth and self._since is not None:
                    self._excused += time.monotonic() - self._since
                    self._since = None

    def _tick(self) -> None:
        before = time.monotonic()
        while not self._ending.wait(TICK_S):
            now = time.monotonic()
            with self._lock:
                self._stalled += max(0.0, now - before - TICK_S - LATE_S)
            before = now
