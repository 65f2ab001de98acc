"""How long fsctl may have been acting on what is no longer so. No clock: times are seconds of the caller's.

A change counts from the moment it was folded until fsctl has confirmed it, while fsctl may hold anything of this router's.
"""

from __future__ import annotations

from collections.abc import Callable

from fsctl.agent.backoff import Backoff

MOST_LAG_SECONDS = 10.0
"""Older than this no change may be: then everything is withdrawn, past the write under way, and sent anew later."""


class Lag:
    """Mutable; see `Sync`."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._backoff = Backoff(draw)
        self.withdrawals = 0
        """How often everything was withdrawn because fsctl was too far behind."""
        self._may_hold = False
        self._oldest: float | None = None
        self._under_way: float | None = None
        """The oldest change in the write under way."""

    def changed(self, now: float) -> None:
        """Something has changed that fsctl does not know yet."""
        if self._may_hold and self._oldest is None:
            self._oldest = now

    def found(self, now: float) -> None:
        """fsctl holds something that this agent has not sent since its start: nobody knows how old it is."""
        if not self._may_hold:
            self._may_hold = True
            self.changed(now)

    def sent(self) -> None:
        """A write with all changes so far is under way; from now on fsctl may hold something."""
        self._may_hold = True
        self._take_back()
        self._under_way, self._oldest = self._oldest, None

    def confirmed(self) -> None:
        """fsctl has carried that write out."""
        self._under_way = None
        self._backoff.tries = 0

    def failed(self, now: float) -> None:
        """Nobody knows what fsctl holds: at best what it held before."""
        self._take_back()
        self.changed(now)

    def late(self) -> float:
        """It has been too long, and everything is withdrawn. Seconds to wait before it is sent anew: fsctl may be slow again."""
        self.withdrawals += 1
        return self._backoff.next()

    def withdrawn(self) -> None:
        """fsctl holds nothing."""
        self._may_hold, self._oldest, self._under_way = False, None, None

    def seconds(self, now: float) -> float:
        """The age of the oldest change that fsctl may not have; 0 if it has all."""
        since = self._since()
        return 0.0 if since is None else now - since

    def ends(self) -> float | None:
        """When it will have been too long."""
        since = self._since()
        return None if since is None else since + MOST_LAG_SECONDS

    def _since(self) -> float | None:
        return min((t for t in (self._under_way, self._oldest) if t is not None), default=None)

    def _take_back(self) -> None:
        self._oldest, self._under_way = self._since(), None
