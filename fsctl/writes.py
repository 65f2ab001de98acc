"""A write under way: what it really changes, and the ticket that its sender waits on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from fsctl.compiler import Replaced
from fsctl.errors import FsctlError, UnavailableError
from fsctl.fib import Change, Fib, match_of_change
from fsctl.pipeline import flow_key
from fsctl.runtime import Runtime
from fsctl.status import Failure, Write, WriteResult

if TYPE_CHECKING:
    from fsctl.controller import Controller


class Pending:
    """`status.Ticket`. The controller sets `result`, and resolves or fails it."""

    def __init__(self, runtime: Runtime) -> None:
        self._done = runtime.event()
        self._durable = runtime.event()
        self._counts: WriteResult | None = None
        self._error: FsctlError | None = None
        self._answer: WriteResult | None = None
        self.result: Callable[[], WriteResult] | None = None
        self.deadline = 0.0

    def resolve(self) -> None:
        if self.result is not None:
            self._answer = self.result()
        self._done.set()

    def committed(self, counts: WriteResult) -> None:
        """The write is durable; what the switches say of it comes later."""
        self._counts = counts
        self._durable.set()

    def fail(self, error: FsctlError) -> None:
        self._error = error
        self._durable.set()
        self._done.set()

    def stored(self, timeout: float | None = None) -> WriteResult:
        """See `status.Ticket`."""
        if not self._durable.wait(timeout):
            raise UnavailableError("the controller is busy; the change is not stored yet")
        if self._error is not None:
            raise self._error
        assert self._counts is not None
        return self._counts

    def wait(self, timeout: float | None = None) -> WriteResult:
        """See `status.Ticket`."""
        if not self._done.wait(timeout):
            raise UnavailableError("the switches have not confirmed in time; the change is stored and will be applied")
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise UnavailableError("the controller is stopping")
        return self._answer


def differences(fib: Fib, write: Write) -> tuple[list[Replaced], WriteResult]:
    """The changes that really change something, each with what it replaces, and the counts (revision 0)."""
    counts = Counter[str]()
    real: list[Replaced] = []
    for change in write.changes:
        number = fib.number_at(change.part, change.key)
        before = None if number is None else fib.verdict(number)
        if before == change.verdict:
            counts["unchanged"] += 1
            continue
        counts["added" if before is None else "removed" if change.verdict is None else "changed"] += 1
        real.append((change, before))
    if write.replace:
        kept = {(change.part, change.key) for change in write.changes}
        for part_key, part in fib.parts.items():
            for key, number in part.items():
                if (part_key, key) not in kept:
                    counts["removed"] += 1
                    real.append((Change(part_key, key, None), fib.verdict(number)))
    return real, WriteResult(0, counts["added"], counts["changed"], counts["removed"], counts["unchanged"])


def failures_of(controller: Controller, write: Write) -> tuple[Failure, ...]:
    """What a switch refused of this write."""
    failed: list[Failure] = []
    for bridge, here in controller.installer.bridges.items():
        if not here.refused:
            continue
        for part, key, verdict in write.changes:
            node = controller.compiler.planes[part[1]].node_of.get((write.router, part[0], part[2]))
            if verdict is None or node is None or node.interface.bridge != bridge or key not in node.rules:
                continue
            error = here.refused.get(flow_key(node, key))
            if error:
                failed.append(Failure(match_of_change(part, key), bridge, error))
    return tuple(failed)
