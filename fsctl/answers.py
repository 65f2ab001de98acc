"""Writes that are not answered yet: they wait until switches have confirmed and patch links are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fsctl.desired import Desired
from fsctl.errors import UnavailableError
from fsctl.installer import Installer
from fsctl.runtime import Runtime
from fsctl.status import WriteResult
from fsctl.writes import Pending

_LOG = logging.getLogger(__name__)
PATIENCE_S = 1.5
"""How long a write waits for switches and links; the answer names what it still waits for."""
CHANGES_PER_S = 10_000
"""A write of n changes waits n / CHANGES_PER_S seconds longer."""


@dataclass(slots=True, eq=False)
class _Waiting:
    ticket: Pending
    result: Callable[[], WriteResult]
    deadline: float
    needs: dict[str, tuple[object, int]] = field(default_factory=dict)
    """By bridge: the worker, and the number of the bundle that it must have confirmed."""
    pairs: set[frozenset[str]] = field(default_factory=set)
    is_early: bool = False
    """The write came while fsctl was starting: which pairs it needs is known once the start has ended."""


class Answers:
    """All writes that are not answered yet."""

    def __init__(self, runtime: Runtime, installer: Installer, desired: Desired) -> None:
        self._runtime, self._installer, self._desired = runtime, installer, desired
        self._waiting: list[_Waiting] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(
        self,
        ticket: Pending,
        result: Callable[[], WriteResult],
        numbers: Mapping[str, int],
        pairs: Iterable[frozenset[str]] = (),
        changes: int = 0,
        early_until: float | None = None,
    ) -> None:
        """Answer `ticket` once these bundles are confirmed and these pairs of bridges are joined, or time is up.

        `numbers` are the bundles, by bridge. `early_until`: when the start ends at the latest; None: it has ended.
        """
        begins = max(self._runtime.now(), early_until or 0.0)
        deadline = begins + PATIENCE_S + changes / CHANGES_PER_S
        waiting = _Waiting(ticket, result, deadline, pairs=set(pairs), is_early=early_until is not None)
        for bridge, here in self._installer.bridges.items():
            if bridge in numbers:
                waiting.needs[bridge] = here.worker, numbers[bridge]
            elif not here.is_tracked:
                waiting.needs[bridge] = here.worker, here.worker.sent + 1
        self._waiting.append(waiting)

    def resolve_due(self, *, is_starting: bool) -> None:
        """Answer the writes that have all that they wait for, and those whose time is up."""
        now = self._runtime.now()
        done: list[_Waiting] = []
        left: list[_Waiting] = []
        for waiting in self._waiting:
            is_done = now >= waiting.deadline or (not is_starting and self._has_all(waiting))
            (done if is_done else left).append(waiting)
        self._waiting = left
        for waiting in done:
            waiting.ticket.result = waiting.result
            try:
                waiting.ticket.resolve()
            except Exception:  # noqa: BLE001 - a mistake in one answer must not keep the others waiting
                _LOG.exception("a write could not be answered")
                waiting.ticket.fail(UnavailableError("the change is stored; fsctl failed to say what became of it"))

    def next_deadline(self) -> float:
        return min((w.deadline for w in self._waiting), default=float("inf"))

    def _has_all(self, waiting: _Waiting) -> bool:
        if waiting.is_early:
            waiting.pairs, waiting.is_early = set(self._desired.now.layout.joined), False
        for pair in [pair for pair in waiting.pairs if self._desired.is_joined(pair)]:
            waiting.pairs.discard(pair)
            for bridge in pair & self._installer.bridges.keys():
                worker = self._installer.bridges[bridge].worker
                waiting.needs[bridge] = worker, worker.sent
        return not waiting.pairs and all(self._is_confirmed(b, *need) for b, need in waiting.needs.items())

    def _is_confirmed(self, bridge: str, worker: object, number: int) -> bool:
        here = self._installer.bridges.get(bridge)
        if here is None:
            return True  # it has disconnected: `waiting_for` names it
        if here.worker is not worker:
            return self._installer.in_step(bridge)
        return here.is_tracked and here.confirmed >= max(number, here.fix)
