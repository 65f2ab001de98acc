"""What the controller needs of whoever makes patch ports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol


class Links(Protocol):
    """Makes and removes patch ports between bridges; later views show them. No call waits for the database."""

    def want(self, links: frozenset[frozenset[str]]) -> None: ...
    def allow_release(self, *, allowed: bool = True) -> None:
        """Bridges that are not configured any more may lose their controller and links."""
        ...

    @property
    def problem(self) -> str:
        """Why the database cannot be used now; empty if it can."""
        ...

    @property
    def to_release(self) -> Sequence[str]:
        """Bridges that are not configured any more and are still set up for fsctl."""
        ...

    @property
    def released_with_rules(self) -> Collection[str]:
        """Bridges that were released and keep fsctl's rules, because another controller is there."""
        ...
