"""Keeps a fold in step with the kernel: events as they come, a fresh dump whenever they cannot be trusted."""

from __future__ import annotations

from typing import Protocol

from fsctl.agent.events import Value
from fsctl.agent.fib import Fold
from fsctl.agent.netlink import DUMPS, News
from fsctl.model.addresses import IPV4

RESYNC_EVERY_SECONDS = 300.0
"""However quiet it is: the kernel is known to delete routes without a word."""
RESYNC_PAUSE_SECONDS = 1.0
"""Between two dumps, however much flaps."""


class Source(Protocol):
    """`netlink.Kernel`, or a fake."""

    def renew(self) -> None: ...
    def read(self, datagrams: int = 512) -> News: ...
    def dump(self, kind: type[Value], request: int, version: int) -> list[Value]: ...


class Follower:
    """Mutable, owned by the agent's loop; times are seconds of a monotonic clock."""

    def __init__(self, kernel: Source, fold: Fold) -> None:
        self._kernel = kernel
        self._fold = fold
        self._wanted = True
        self._last: float | None = None
        self.dumps = 0
        self.events = 0
        self.overruns = 0

    def pump(self) -> bool:
        """Take in what has arrived. True if what may be bypassed must be looked at again."""
        news = self._kernel.read()
        for event in news.events:
            self._fold.apply(event)
        self.events += len(news.events)
        self.overruns += news.lost
        self._wanted |= news.lost or self._fold.wants_resync()
        return news.policy

    def due(self) -> float:
        """When the next dump shall be taken."""
        if self._last is None:
            return float("-inf")
        return self._last + (RESYNC_PAUSE_SECONDS if self._wanted else RESYNC_EVERY_SECONDS)

    def resync(self, now: float) -> None:
        """Take everything in anew (mark and sweep). Raises KernelError, OSError; then it is due again after the pause."""
        self._wanted, self._last = True, now
        self._kernel.renew()  # what is still under way is older than the dump
        for kind, request, version in DUMPS:
            self._fold.resync(kind, self._kernel.dump(kind, request, version), version or IPV4)
        self._fold.resynced()
        self._wanted = False
        self.dumps += 1
