"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 15.0


@dataclass(slots=True)
class Backoff:
    """Exponential, the upper half drawn, so that a host's guests do not all come back at once."""

    draw: Callable[[], float]
    tries: int = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self.tries += 1
        limit = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self.tries - 1, 16))
        return limit * (0.5 + self.draw() / 2)
