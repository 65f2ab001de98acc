"""Batches of writes, and the tickets that their senders wait on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from fsctl import quota
from fsctl.collapse.compiler import Compiler, Replaced
from fsctl.config import Config
from fsctl.errors import FsctlError, TooLargeError, UnavailableError
from fsctl.installer import Installer
from fsctl.model.delegations import FiveTuple, Verdict
from fsctl.model.fib import Change, Fib, PartKey, match_of_change
from fsctl.model.network import Router
from fsctl.model.prefix_keys import Key
from fsctl.pipeline.flow_rules import flow_key
from fsctl.runtime import Runtime
from fsctl.sessions import Sessions
from fsctl.status import Failure, Write, WriteResult
from fsctl.store import Commit


class Pending:
    """`status.Ticket`. The controller begins it, sets `result`, and resolves or fails it.

    `unconfirmed` gives the bridges that have not confirmed, for the error after a timeout.
    """

    def __init__(self, runtime: Runtime, unconfirmed: Callable[[], Sequence[str]] = tuple) -> None:
        self._done = runtime.event()
        self._durable = runtime.event()
        self._unconfirmed = unconfirmed
        self._claim = Lock()
        self._is_claimed = False
        self._counts: WriteResult | None = None
        self._error: FsctlError | None = None
        self._answer: WriteResult | None = None
        self.result: Callable[[], WriteResult] | None = None

    @property
    def is_answered(self) -> bool:
        return self._done.is_set()

    @property
    def is_decided(self) -> bool:
        """It is durable, has failed, or was cancelled."""
        return self._durable.is_set()

    def begin(self) -> bool:
        """The turn of the write has come; false if its sender has cancelled it: then it must not be carried out."""
        return self._take()

    def _take(self) -> bool:
        """Decide, once, whether the loop begins the write or its sender cancels it; true for the first caller."""
        with self._claim:
            is_first = not self._is_claimed
            self._is_claimed = True
        return is_first

    def resolve(self) -> None:
        if self.result is not None:
            self._answer = self.result()
        self._done.set()

    def committed(self, counts: WriteResult) -> None:
        """The write is durable; the switches have not confirmed yet."""
        self._counts = counts
        self._durable.set()

    def fail(self, error: FsctlError) -> None:
        self._error = error
        self._durable.set()
        self._done.set()

    def stored(self, timeout: float | None = None) -> WriteResult:
        """See `status.Ticket`."""
        if not self._durable.wait(timeout) and not self._durable.is_set():
            raise self._not_stored()
        if self._error is not None:
            raise self._error
        assert self._counts is not None
        return self._counts

    def wait(self, timeout: float | None = None) -> WriteResult:
        """See `status.Ticket`."""
        if not self._done.wait(timeout) and not self._done.is_set():
            raise self._not_confirmed() if self._durable.is_set() else self._not_stored()
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise UnavailableError("the controller is stopping; the change is stored")
        return self._answer

    def _not_stored(self) -> UnavailableError:
        if self._take():
            cancelled = UnavailableError("the controller is busy; nothing was changed")
            self.fail(cancelled)
            return cancelled
        return UnavailableError("the controller is busy; the change is not stored yet, and may still be carried out")

    def _not_confirmed(self) -> UnavailableError:
        names = ", ".join(self._unconfirmed())
        who = f"these bridges have not confirmed it in time: {names}" if names else "it is not confirmed yet"
        return UnavailableError(f"the change is stored and will be applied; {who}")


class Submitted(NamedTuple):
    """A write in the queue."""

    write: Write
    ticket: Pending


Place = tuple[PartKey, Key | FiveTuple]
Latest = tuple[Verdict | None, Change]
"""The verdict at a place before the batch, and the batch's last change of that place."""


class Together:
    """A batch of writes: each is carried out whole or not at all, as if one came after the other.

    `replaced` are the changes that they add up to, by router. A write that replaces a router's whole FIB, or belongs to a
    session, is not batched with others of that router: whether it is admitted depends on the result of those before it.
    """

    def __init__(
        self,
        fibs: Mapping[str, Fib],
        config: Config,
        sessions: Sessions,
        first: Submitted,
        owed: Collection[str] = (),
        routers: Mapping[str, Router] | None = None,
    ) -> None:
        """`owed`: routers whose writes the store cannot take now; they are not joined with those of others.

        `routers`: with their present MAC addresses.
        """
        self._fibs, self._config, self._sessions, self._owed = fibs, config, sessions, owed
        self._routers = routers or {name: Router(name, {}) for name in fibs}
        self.writes = [first]
        self._counts: list[WriteResult | None] = []
        self._latest: dict[str, dict[Place, Latest]] = {}
        self.replaced: dict[str, list[Replaced]] = {}

    def takes(self, submitted: Submitted) -> bool:
        """Add a write to the batch; false if it cannot be batched with these."""
        write = submitted.write
        same = [s.write for s in self.writes if s.write.router == write.router]
        if same and any(w.replace or w.session is not None for w in (write, *same)):
            return False
        if self._owed and any(s.write.router in self._owed for s in (submitted, *self.writes)):
            return False
        self.writes.append(submitted)
        return True

    @property
    def size(self) -> int:
        """The number of changes in the batch."""
        return sum(len(submitted.write.changes) for submitted in self.writes)

    def commits(self, pause: Callable[[], None]) -> list[Commit]:
        """What is to be stored. Fails the tickets of writes that are not accepted; calls `pause` before each write."""
        for submitted in self.writes:
            pause()
            self._counts.append(self._begin(submitted))
        for router, places in self._latest.items():
            real = [(change, old) for old, change in places.values() if old != change.verdict]
            if real:
                self.replaced[router] = real
        withdrawn = {s.write.router for s, _ in self.accepted() if s.write.is_withdrawal}
        commits = []
        for router in (*self.replaced, *(withdrawn - self.replaced.keys())):
            changes = [change for change, _ in self.replaced.get(router, ())]
            fib, withdraws = self._fibs[router], router in withdrawn
            # While the store owes a withdrawal, what is stored may still use them.
            freed = frozenset() if withdraws or router in self._owed else frozenset(fib.freed)
            commits.append(Commit(router, changes, fib.new_nexthops(changes), withdraws, freed))
        return commits

    def accepted(self) -> Iterator[tuple[Submitted, WriteResult]]:
        """The accepted writes, with their counts (revision 0)."""
        for submitted, counts in zip(self.writes, self._counts, strict=True):
            if counts is not None:
                yield submitted, counts

    def carried_out(self) -> None:
        """The batch is durable: update `seq` and `is_synced` of the sessions, and end those that asked for it."""
        for submitted, _ in self.accepted():
            write = submitted.write
            self._sessions.carried_out(write, replaces=write.replace)
            if write.ends_session and write.session is not None:
                self._sessions.end(write.router, write.session)

    def keep_withdrawals(self, error: FsctlError) -> list[Commit]:
        """Nothing was stored: fail all writes but the withdrawals, which are carried out nevertheless.

        The withdrawals remain in `replaced` and `accepted`; they are returned, to be stored later.
        """
        for n, (submitted, counts) in enumerate(zip(self.writes, self._counts, strict=True)):
            if counts is not None and not submitted.write.is_withdrawal:
                self._counts[n] = None
                submitted.ticket.fail(error)
        routers = [submitted.write.router for submitted, _ in self.accepted()]
        self.replaced = {router: real for router, real in self.replaced.items() if router in routers}
        return [Commit(router, [c for c, _ in self.replaced.get(router, ())], {}, withdraws=True) for router in routers]

    def _begin(self, submitted: Submitted) -> WriteResult | None:
        """Begin a write and count its changes; None if it is cancelled or not admitted."""
        write = submitted.write
        if not submitted.ticket.begin():
            return None
        try:
            self._sessions.admit(write, needs_sync=not write.replace)
            return self._add(write)
        except FsctlError as e:
            submitted.ticket.fail(e)
            return None

    def _add(self, write: Write) -> WriteResult:
        """Count what a write changes after those before it in the batch. Raises TooLargeError: then it changes nothing."""
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
        if counts["added"] or counts["changed"]:
            self._check_costs(write, mine)
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

    def _check_costs(self, write: Write, mine: Mapping[Place, Latest]) -> None:
        """Raise TooLargeError if the rules, senders or next hops would exceed what the router may have."""
        config = self._config.routers[write.router]
        limits = quota.Limits(config.max_rules, config.max_senders, config.max_nexthops)
        joined = {**self._latest.get(write.router, {}), **mine}
        overlay = {place: change.verdict for place, (_, change) in joined.items()}
        quota.check(self._routers[write.router], self._fibs[write.router], overlay, limits)


def failures_of(installer: Installer, compiler: Compiler, write: Write) -> tuple[Failure, ...]:
    """The delegations of this write whose rules a switch rejected."""
    failed: list[Failure] = []
    for bridge, here in installer.bridges.items():
        if not here.rejected:
            continue
        for part, key, verdict in write.changes:
            node = compiler.graphs[part[1]].node_of.get((write.router, part[0], part[2]))
            if verdict is None or node is None or node.interface.bridge != bridge or key not in node.rules:
                continue
            error = here.rejected.get(flow_key(node, key))
            if error:
                failed.append(Failure(match_of_change(part, key), bridge, error))
    return tuple(failed)
