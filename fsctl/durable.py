"""The store as the loop uses it: in a real thread, with a time limit, and with a list of what it still lacks.

A disk that is full or hangs must not delay a withdrawal. What the store could not take, or may have taken after the
caller got an error, is *owed*: the value in memory is written again and again until the store has it.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from threading import Lock
from typing import Protocol, TypeVar

from fsctl.config import Config
from fsctl.errors import FsctlError, StoreError
from fsctl.model.delegations import Forward
from fsctl.model.fib import Fib
from fsctl.runtime import Runtime
from fsctl.status import CLEAR, InterfaceChange, Orphan, Override, Session
from fsctl.store import Commit, Store, Stored

_LOG = logging.getLogger(__name__)
PATIENCE_S, ROWS_PER_S = 1.0, 20_000
"""How long a commit is waited for, and how much longer one of many rows; a disk slower than this counts as failed."""
RETRY_S = 1.0
_TURN_S = 0.005
"""A real thread cannot wake a green one: a waiting green thread polls this often."""
T = TypeVar("T")


class Holders(Protocol):
    """Who holds a router's session."""

    def get(self, router: str) -> Session | None: ...


class Kind(IntEnum):
    """What can be owed, in the order in which it is written: a session is forgotten once its withdrawal is stored."""

    TABLE = 1
    INTERFACE = 2
    SESSION = 3


Debt = tuple[Kind, str, str]
"""The kind, the router, and the interface or ""."""


class Durable:
    """Commits to a store."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.store, self._runtime = store, runtime
        self.problem = ""
        self._debts: dict[Debt, int] = {}
        """What the store may lack, each with a number that is new whenever the debt is."""
        self._paid: dict[Debt, int] = {}
        """What the store has taken, perhaps after its caller had stopped waiting; set by the store's thread."""
        self._counter = itertools.count()
        self._turn = Lock()
        self._is_busy = self._is_late = False
        self._never = runtime.event()
        self._retry_at = 0.0

    @property
    def owed(self) -> set[str]:
        """The routers whose stored table may differ from what is in force."""
        return {router for kind, router, _ in tuple(self._debts) if kind is Kind.TABLE}

    def commit_all(self, commits: Sequence[Commit], meanwhile: Callable[[], object] | None = None) -> int:
        """Make writes durable, all or none; returns the revision. Raises StoreError: the caller then changes nothing.

        `meanwhile` is called again and again while the store is at work.
        """
        rows = sum(len(commit.changes) for commit in commits)
        return self._commit([commit.router for commit in commits], lambda: self.store.commit_all(commits), rows, meanwhile)

    def move_nexthop(self, router: str, nexthops: Mapping[int, Forward]) -> int:
        """Make the new MAC of a neighbour durable. Raises StoreError."""
        return self._commit([router], lambda: self.store.commit(router, [], nexthops))

    def commit_interface(self, change: InterfaceChange) -> int:
        """See `Store`."""
        return self._call(lambda: self.store.commit_interface(change), (Kind.INTERFACE, change.router, change.interface))

    def load_sessions(self) -> dict[str, Session]:
        """See `Store`."""
        return self.store.load_sessions()

    def commit_session(self, session: Session) -> None:
        """See `Store`. After an error, `write_owed` writes the session that is in memory then."""
        try:
            self._call(lambda: self.store.commit_session(session))
        except StoreError:
            self._owe((Kind.SESSION, session.router, ""))
            raise

    def forget_session(self, router: str) -> None:
        """See `Store`. While a withdrawal of this router is owed, its session is kept: after a restart it ends once more."""
        debt: Debt = (Kind.SESSION, router, "")
        if router in self.owed:
            self._owe(debt)
            return
        try:
            self._call(lambda: self.store.forget_session(router))
        except StoreError:
            self._owe(debt)
            raise

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        """See `Store`."""
        return self._call(lambda: self.store.orphans(with_flows=with_flows))

    def forget_orphans(self, router: str) -> bool:
        """See `Store`."""
        return self._call(lambda: self.store.forget_orphans(router))

    def owe(self, routers: Iterable[str]) -> None:
        """The stored tables of these routers are out of date: `write_owed` is to write them."""
        self._owe(*((Kind.TABLE, router, "") for router in routers))

    def _owe(self, *debts: Debt) -> None:
        for debt in debts:
            self._debts[debt] = next(self._counter)

    def _commit(
        self, routers: Sequence[str], work: Callable[[], T], rows: int = 1, meanwhile: Callable[[], object] | None = None
    ) -> T:
        if self.owed.intersection(routers):
            raise StoreError("the store still lacks an earlier change of this router; it is being tried again", field="store")
        return self._call(work, *((Kind.TABLE, router, "") for router in routers), rows=rows, meanwhile=meanwhile)

    def _call(self, work: Callable[[], T], *debts: Debt, rows: int = 1, meanwhile: Callable[[], object] | None = None) -> T:
        """Call `work` in the store's thread; it writes `rows` rows. Raises StoreError, also when it takes too long.

        After a timeout `work` may still be done later, so `debts` are owed.
        """
        self._take_turn()
        patience = PATIENCE_S + rows / ROWS_PER_S

        def in_thread() -> T:
            try:
                return work()
            finally:
                self._is_busy = False

        try:
            result = self._runtime.offload(in_thread, patience, meanwhile)
        except TimeoutError as e:
            self._is_late = True
            self._owe(*debts)
            raise self._silent(patience) from e
        except FsctlError as e:
            self.problem = str(e)
            raise
        self.problem = ""
        return result

    def _take_turn(self) -> None:
        """Wait for the store, which takes one caller at a time. After a timeout nobody waits for it: raises StoreError."""
        until = self._runtime.now() + PATIENCE_S
        while not self._is_mine():
            left = until - self._runtime.now()
            if left <= 0 or self._is_late:
                raise self._silent(PATIENCE_S)
            self._never.wait(min(left, _TURN_S))

    def _is_mine(self) -> bool:
        with self._turn:
            if self._is_busy:
                return False
            self._is_busy, self._is_late = True, False
            return True

    def _silent(self, waited_s: float) -> StoreError:
        self.problem = "the store does not answer"
        return StoreError(f"the store has not answered for {waited_s:.1f} s", field="store")

    # --- what is owed --------------------------------------------------------------------------------------

    def next_try(self) -> float:
        return self._retry_at if self._debts or self.problem else float("inf")

    def write_owed(self, fibs: Mapping[str, Fib], sessions: Holders, overrides: Mapping[tuple[str, str], Override]) -> None:
        """At most every RETRY_S: write what is owed, or probe whether the store works again."""
        now = self._runtime.now()
        self._strike_out()
        if now < self._retry_at or not (self._debts or self.problem):
            return
        self._retry_at = now + RETRY_S
        try:
            for debt, number in sorted(self._debts.items()):
                rows = len(fibs[debt[1]]) if debt[0] is Kind.TABLE else 1
                write = partial(self._write, debt, fibs, sessions, overrides)
                self._pay(debt, number, write, rows)
            if self.problem:
                self._call(self.store.probe)
        except StoreError as e:
            owed = sorted({router for _, router, _ in self._debts})
            _LOG.warning("the store does not work%s: %s", f"; not stored yet: {', '.join(owed)}" if owed else "", e)

    def _pay(self, debt: Debt, number: int, write: Callable[[], None], rows: int) -> None:
        def in_thread() -> None:
            write()
            self._paid[debt] = number

        self._call(in_thread, rows=rows)
        self._strike_out()
        _LOG.info("router %s: its %s is stored", debt[1], debt[0].name.lower())

    def _strike_out(self) -> None:
        """Delete the debts that are paid, unless they are owed again since."""
        while self._paid:
            debt, number = self._paid.popitem()
            if self._debts.get(debt) == number:
                del self._debts[debt]

    def _write(
        self, debt: Debt, fibs: Mapping[str, Fib], sessions: Holders, overrides: Mapping[tuple[str, str], Override]
    ) -> None:
        kind, router, interface = debt
        if kind is Kind.TABLE:
            self.store.replace_fib(router, fibs[router])
        elif kind is Kind.INTERFACE:
            said = overrides.get((router, interface), Override())
            addresses = CLEAR if said.addresses is None else said.addresses
            mtu = CLEAR if said.mtu is None else said.mtu
            self.store.commit_interface(InterfaceChange(router, interface, addresses, mtu))
        elif (session := sessions.get(router)) is not None:
            self.store.commit_session(session)
        else:
            self.store.forget_session(router)


def load(config: Config, store: Store) -> Stored:
    """What is stored of the configured routers; delegations of others are kept aside, and never installed."""
    known = {name: router.interfaces for name, router in config.routers.items()}
    for lost in store.set_aside(known, time.time()):
        _LOG.warning("router %s: %s; %d delegations are kept aside (`fsctl orphans`)", lost.router, lost.why, lost.count)
    return store.load()
