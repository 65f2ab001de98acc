"""After a bug of fsctl: everything is compiled anew, with growing pauses while that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

_LOG = logging.getLogger(__name__)
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 30.0


class Recovery:
    """When to compile everything anew; a context manager around each attempt, which logs its exception and swallows it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due_at: float | None = None
        self._pause = FIRST_PAUSE_S
        self.problem = ""
        """Why delegations cannot be compiled now: writes but withdrawals are refused meanwhile. Empty if they can."""

    def needed(self) -> None:
        """A bug: the compiled state is unknown."""
        if self._due_at is None:
            self._due_at = self._now()

    @property
    def is_needed(self) -> bool:
        return self._due_at is not None

    def is_due(self) -> bool:
        return self._due_at is not None and self._now() >= self._due_at

    def __enter__(self) -> None:
        self._due_at = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> bool:
        if error is None:
            self.problem, self._pause = "", FIRST_PAUSE_S
            return False
        if not isinstance(error, Exception):
            return False
        _LOG.error("compiling everything anew failed; the next try is in %.2g s", self._pause, exc_info=error)
        self.problem = f"the controller cannot compile what is delegated ({type(error).__name__}); its log says more"
        self._due_at = self._now() + self._pause
        self._pause = min(MAX_PAUSE_S, 2 * self._pause)
        return True
