"""What has been put right, and how often: repairs are counted, and those that do not last are made ever more rarely."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fsctl.ovsdb.edits import Change, Key

_LOG = logging.getLogger(__name__)
AT_ONCE = 5
"""So many repairs of one thing are made without a pause; after that the pauses double from 1 s."""
LONGEST_PAUSE_S = 30.0
CALM_S = 10.0
"""What has been right for so long, and for twice the last pause, is repaired at once again."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 10.0


@dataclass(slots=True)
class _Pace:
    """One thing's recent history. `error` is why the database refused the last change."""

    done: int = 0
    failed: int = 0
    last: float = 0.0
    pause: float = 0.0
    error: str = ""

    @property
    def until(self) -> float:
        return self.last + self.pause

    def is_calm(self, now: float) -> bool:
        return now - self.last > max(CALM_S, 2 * self.pause)


class Ledger:
    """Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.repairs: Counter[str] = Counter()
        self._was_right: set[Key] = set()
        self._paces: dict[Key, _Pace] = {}

    def due(self, changes: Iterable[Change], now: float) -> list[Change]:
        """Those that need not wait: the urgent ones alone, if there are any."""
        found = [change for change in changes if self._until(change.key) <= now]
        return [change for change in found if change.is_urgent] or found

    def saw(self, right: frozenset[Key], changes: Iterable[Change], now: float) -> None:
        """`right` are as wanted, `changes` are what is not."""
        self._was_right |= right
        wrong = {change.key for change in changes}
        for key in [key for key in self._paces if key not in wrong]:
            self._paces[key].error = ""
            if self._paces[key].is_calm(now):
                del self._paces[key]

    def forget(self, is_wanted: Callable[[Key], bool]) -> None:
        """What is made again after it was not wanted for a while is no repair."""
        self._was_right = {key for key in self._was_right if is_wanted(key)}

    def done(self, change: Change, now: float) -> None:
        """The database has taken it."""
        if change.key in self._was_right:
            self.repairs[change.key[0]] += 1
            _LOG.warning("repaired: %s", change.why)
        else:
            _LOG.info("%s", change.why)
        pace = self._paces.setdefault(change.key, _Pace())
        if pace.is_calm(now):
            pace.done = 0
        pace.done, pace.failed, pace.error, pace.last = pace.done + 1, 0, "", now
        pace.pause = 0.0 if pace.done < AT_ONCE else min(LONGEST_PAUSE_S, 2.0 ** (pace.done - AT_ONCE))
        if pace.done == AT_ONCE:
            _LOG.warning("%s: somebody changes it back again and again; fsctl pauses between repairs", " ".join(change.key))

    def refused(self, change: Change, error: str, now: float) -> None:
        """The database has not taken it, and says why."""
        pace = self._paces.setdefault(change.key, _Pace())
        if pace.error != error:
            _LOG.warning("Open vSwitch's database refuses a change (%s): %s", change.why, error)
        pace.failed, pace.error, pace.last = pace.failed + 1, error, now
        pace.pause = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (pace.failed - 1))

    def errors(self) -> dict[Key, str]:
        """What the database refuses now."""
        return {key: pace.error for key, pace in self._paces.items() if pace.error}

    def contested(self) -> frozenset[Key]:
        """What somebody changes back again and again."""
        return frozenset(key for key, pace in self._paces.items() if pace.done >= AT_ONCE)

    @property
    def is_busy(self) -> bool:
        """Whether something was changed or refused lately."""
        return bool(self._paces)

    def _until(self, key: Key) -> float:
        pace = self._paces.get(key)
        return pace.until if pace is not None else float("-inf")
