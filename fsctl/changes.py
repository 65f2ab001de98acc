"""Carries out what routers ask for: stores it, updates the FIBs, compiles, and sends the changes to the switches.

Called by the controller's loop only. If the store fails, a change is not made. Withdrawals are the exception: they only
take the bypass away, so they are carried out anyway, and stored once the store works again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from fsctl.answers import Answers
from fsctl.config import Config
from fsctl.desired import Desired
from fsctl.durable import Durable
from fsctl.errors import FsctlError, UnavailableError
from fsctl.installer import Installer, Pieces
from fsctl.inventory import Inventory
from fsctl.model.delegations import Forward
from fsctl.recovery import Recovery
from fsctl.runtime import Runtime
from fsctl.sessions import Sessions
from fsctl.status import InterfaceChange, NexthopMove, Override, Write, WriteResult
from fsctl.stops import Stops
from fsctl.store import Commit
from fsctl.writes import Pending, Submitted, Together, failures_of

_LOG = logging.getLogger(__name__)


class Owner(Protocol):
    """The parts of the controller that a change passes through."""

    config: Config
    runtime: Runtime
    durable: Durable
    inventory: Inventory
    desired: Desired
    installer: Installer
    answers: Answers
    sessions: Sessions
    recovery: Recovery
    stops: Stops
    starting_until: float

    @property
    def is_starting(self) -> bool: ...
    def away(self) -> tuple[str, ...]: ...
    def pause(self) -> None: ...


class _Sent(NamedTuple):
    """The bundles' numbers by bridge, and the pairs of bridges that chains need from now on."""

    numbers: Mapping[str, int] = {}
    pairs: frozenset[frozenset[str]] = frozenset()


class Changes:
    """Carries out writes, next-hop moves and changes of interfaces. `revision` is the number of the last one."""

    def __init__(self, owner: Owner, revision: int) -> None:
        self._owner = owner
        self.revision = revision

    def together(self, first: Submitted) -> Together:
        """A batch that begins with this write."""
        owner = self._owner
        routers = owner.desired.now.network.routers
        return Together(owner.desired.fibs, owner.config, owner.sessions, first, owner.durable.owed, routers)

    def withdraw(self, router: str) -> None:
        """Withdraw a router's delegations, also while the store fails."""
        submitted = Submitted(Write(router, (), replace=True, is_admin=True), Pending(self._owner.runtime, self._owner.away))
        self._owner.stops.ask(*submitted)
        self._owner.pause()
        self.write(self.together(submitted))

    def write(self, together: Together) -> None:
        """Carry out a batch of writes."""
        owner = self._owner
        failure: FsctlError | None = None
        commits = together.commits(owner.pause)
        if owner.recovery.problem:
            failure = UnavailableError(f"{owner.recovery.problem}; nothing was changed")
            commits = together.keep_withdrawals(failure)
        try:
            if commits:
                self.revision = owner.durable.commit_all(commits, owner.stops.serve)
        except FsctlError as e:
            commits = together.keep_withdrawals(e)
            owner.durable.owe(commit.router for commit in commits)
            failure = e
        self._take(commits)
        together.carried_out()
        results = [(s, replace(c, revision=self.revision, is_stored=failure is None)) for s, c in together.accepted()]
        for submitted, result in results:
            submitted.ticket.committed(result)
        replaced = {c.router: together.replaced[c.router] for c in commits if c.router in together.replaced}
        sent = self._send(lambda: owner.desired.update(replaced)) if replaced else _Sent()
        for submitted, result in results:
            self._answer_later(submitted.ticket, partial(self._report, submitted.write, result), sent, together.size)

    def nexthop(self, move: NexthopMove, ticket: Pending) -> None:
        """A neighbour has another MAC."""
        owner = self._owner
        if not ticket.begin():
            return
        fib = owner.desired.fibs[move.router]
        old, new = Forward(move.out, move.old), Forward(move.out, move.new)
        numbers = fib.numbers_of(old) if old != new else []
        try:
            owner.sessions.admit(move, needs_sync=True)
            if numbers:
                self.revision = owner.durable.move_nexthop(move.router, dict.fromkeys(numbers, new))
        except FsctlError as e:
            ticket.fail(e)
            return
        owner.sessions.carried_out(move)
        result = WriteResult(self.revision, changed=int(bool(numbers)))
        ticket.committed(result)
        sent = self._send(lambda: owner.desired.move_nexthop(move.router, numbers, old, new))
        self._answer_later(ticket, partial(self._with_away, result), sent)

    def interface(self, change: InterfaceChange, ticket: Pending) -> None:
        """A router's addresses or MTU have changed."""
        owner = self._owner
        if not ticket.begin():
            return
        declared, place = owner.config.routers[change.router].interfaces[change.interface], (change.router, change.interface)
        before, old = owner.inventory.said(change.router, declared), owner.inventory.overrides.get(place, Override())
        override = old.after(change)
        try:
            owner.sessions.admit(change)
            if override != old:
                self.revision = owner.durable.commit_interface(change)
        except FsctlError as e:
            ticket.fail(e)
            return
        owner.sessions.carried_out(change)
        owner.inventory.overrides[place] = override
        changed = owner.inventory.said(change.router, declared) != before
        result = WriteResult(self.revision, changed=int(changed), unchanged=int(not changed))
        ticket.committed(result)
        sent = self._send(lambda: [owner.desired.restructure()]) if changed else _Sent()
        self._answer_later(ticket, partial(self._with_away, result), sent)

    # --- the steps -----------------------------------------------------------------------------------------

    def _take(self, commits: Iterable[Commit]) -> None:
        """Update the FIBs by what is stored, or owed to the store."""
        for router, changes, nexthops, _, freed in commits:
            fib = self._owner.desired.fibs[router]
            fib.freed -= freed
            for number, nexthop in nexthops.items():
                fib.add_nexthop(number, nexthop)
            for change in changes:
                fib.apply(change)
            self._owner.pause()

    def _send(self, changes: Callable[[], Pieces]) -> _Sent:
        owner = self._owner
        if owner.is_starting:
            return _Sent()
        before = owner.desired.now.layout.joined
        try:
            numbers = owner.installer.send(self._with_stops(changes()), lambda: owner.desired.now.layout)
        except Exception:  # noqa: BLE001 - a bug: compiling everything anew repairs it
            _LOG.exception("a change could not be compiled; compiling everything anew")
            owner.recovery.needed()
            # The answer waits for the comparison that follows.
            numbers = {bridge: here.worker.sent + 1 for bridge, here in owner.installer.bridges.items()}
        return _Sent(numbers, owner.desired.now.layout.joined - before)

    def _with_stops(self, pieces: Pieces) -> Pieces:
        """In the same bundle go the stop rules whose withdrawals it carries out."""
        yield from pieces
        yield self._owner.desired.now.layout.restop(self._owner.stops.wanted())

    def _report(self, write: Write, result: WriteResult) -> WriteResult:
        failed = failures_of(self._owner.installer, self._owner.desired.now.compiler, write)
        return replace(result, failed=failed, waiting_for=self._owner.away())

    def _with_away(self, result: WriteResult) -> WriteResult:
        return replace(result, waiting_for=self._owner.away())

    def _answer_later(self, ticket: Pending, result: Callable[[], WriteResult], sent: _Sent, changes: int = 0) -> None:
        early_until = self._owner.starting_until if self._owner.is_starting else None
        self._owner.answers.add(ticket, result, sent.numbers, sent.pairs, changes, early_until)
