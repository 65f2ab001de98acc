"""A write under way: what it really changes, and the ticket that its sender waits on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from fsctl.compiler import Compiler, Replaced
from fsctl.config import Config
from fsctl.errors import FsctlError, TooLargeError, UnavailableError
from fsctl.fib import Change, Fib, Key, PartKey, match_of_change
from fsctl.installer import Installer
from fsctl.model import FiveTuple, Verdict
from fsctl.pipeline import flow_key
from fsctl.runtime import Runtime
from fsctl.status import Failure, Write, WriteResult
from fsctl.store import Commit


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


class Submitted(NamedTuple):
    """A write in the queue."""

    write: Write
    ticket: Pending


Place = tuple[PartKey, Key | FiveTuple]
Latest = tuple[Verdict | None, Change]
"""What was at a place before all of these writes, and the last change of it."""


class Together:
    """Writes that are carried out in one go: each all or nothing, as if one came after the other.

    `replaced` is what they come to, by router. A write that replaces a router's whole FIB is not joined
    with others of that router.
    """

    def __init__(self, fibs: Mapping[str, Fib], config: Config, first: Submitted) -> None:
        self._fibs, self._config = fibs, config
        self.writes = [first]
        self._counts: list[WriteResult | None] = []
        self._latest: dict[str, dict[Place, Latest]] = {}
        self.replaced: dict[str, list[Replaced]] = {}

    def takes(self, submitted: Submitted) -> bool:
        """Join one more write, if it can be."""
        same = [s.write.replace for s in self.writes if s.write.router == submitted.write.router]
        if same and (submitted.write.replace or any(same)):
            return False
        self.writes.append(submitted)
        return True

    @property
    def size(self) -> int:
        """Changes asked for so far."""
        return sum(len(submitted.write.changes) for submitted in self.writes)

    def commits(self, pause: Callable[[], None]) -> list[Commit]:
        """What is to be stored. Fails the tickets of writes that cannot be accepted. Lets others run between two writes."""
        for submitted in self.writes:
            pause()
            try:
                self._counts.append(self._add(submitted.write))
            except FsctlError as e:
                self._counts.append(None)
                submitted.ticket.fail(e)
        for router, places in self._latest.items():
            real = [(change, old) for old, change in places.values() if old != change.verdict]
            if real:
                self.replaced[router] = real
        commits = []
        for router, real in self.replaced.items():
            changes = [change for change, _ in real]
            commits.append(Commit(router, changes, self._fibs[router].new_nexthops(changes)))
        return commits

    def accepted(self) -> Iterator[tuple[Submitted, WriteResult]]:
        """The writes that were not refused, with their counts (revision 0)."""
        for submitted, counts in zip(self.writes, self._counts, strict=True):
            if counts is not None:
                yield submitted, counts

    def is_withdrawal(self, router: str) -> bool:
        """Whether all that is asked of a router's FIB is that it be empty."""
        return all(s.write.replace and not s.write.changes for s in self.writes if s.write.router == router)

    def fail(self, error: FsctlError) -> None:
        """Nothing was stored."""
        for submitted, _ in self.accepted():
            submitted.ticket.fail(error)

    def _add(self, write: Write) -> WriteResult:
        """Count what a write changes after those before it; raises TooLargeError, then it changes nothing."""
        fib, latest = self._fibs[write.router], self._latest.get(write.router, {})
        mine: dict[Place, Latest] = {}
        counts = Counter[str]()
        for change in write.changes:
            place = (change.part, change.key)
            if place in latest:
                original, (_, _, before) = latest[place]
            else:
                number = fib.number_at(*place)
                original = before = None if number is None else fib.verdict(number)
            if before == change.verdict:
                counts["unchanged"] += 1
                continue
            counts["added" if before is None else "removed" if change.verdict is None else "changed"] += 1
            mine[place] = original, change
        if write.replace:
            counts["removed"] += self._add_removals(write, mine)
        self._check_quota(write, counts["added"] - counts["removed"])
        self._latest.setdefault(write.router, {}).update(mine)
        return WriteResult(0, counts["added"], counts["changed"], counts["removed"], counts["unchanged"])

    def _add_removals(self, write: Write, mine: dict[Place, Latest]) -> int:
        fib, removed = self._fibs[write.router], 0
        kept = {(change.part, change.key) for change in write.changes}
        for part_key, part in fib.parts.items():
            for key, number in part.items():
                if (part_key, key) not in kept:
                    mine[part_key, key] = fib.verdict(number), Change(part_key, key, None)
                    removed += 1
        return removed

    def _check_quota(self, write: Write, more: int) -> None:
        limit = self._config.routers[write.router].max_flows
        before = self._latest.get(write.router, {})
        joined = sum((change.verdict is not None) - (old is not None) for old, change in before.values())
        wanted = len(self._fibs[write.router]) + joined + more
        if more > 0 and wanted > limit:
            raise TooLargeError(f"router {write.router} may have {limit} delegations", field="flows", value=wanted)


def failures_of(installer: Installer, compiler: Compiler, write: Write) -> tuple[Failure, ...]:
    """What a switch refused of this write."""
    failed: list[Failure] = []
    for bridge, here in installer.bridges.items():
        if not here.rejected:
            continue
        for part, key, verdict in write.changes:
            node = compiler.planes[part[1]].node_of.get((write.router, part[0], part[2]))
            if verdict is None or node is None or node.interface.bridge != bridge or key not in node.rules:
                continue
            error = here.rejected.get(flow_key(node, key))
            if error:
                failed.append(Failure(match_of_change(part, key), bridge, error))
    return tuple(failed)
