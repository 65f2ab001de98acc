"""The store as the loop uses it: in a real thread, with a time limit, and with a list of what it still lacks.

A disk that is full or hangs must not delay a withdrawal. A router whose change the store could not take is *owed*: its
whole table is written again and again until the store has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from fsctl.errors import FsctlError, StoreError
from fsctl.fib import Fib
from fsctl.model import Forward
from fsctl.runtime import Runtime
from fsctl.status import InterfaceChange, Orphan, Session
from fsctl.store import Commit, Store

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


class Durable:
    """Commits to a store. `owed` are the routers whose stored table may differ from what is in force."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.store, self._runtime = store, runtime
        self.owed: set[str] = set()
        self.problem = ""
        self._is_busy = self._is_stuck = False
        self._never = runtime.event()
        self._retry_at = 0.0

    def commit_all(self, commits: Sequence[Commit]) -> int:
        """Make writes durable, all or none; returns the revision. Raises StoreError: the caller then changes nothing."""
        size = sum(len(commit.changes) for commit in commits)
        return self._commit([commit.router for commit in commits], lambda: self.store.commit_all(commits), size)

    def move_nexthop(self, router: str, nexthops: Mapping[int, Forward]) -> int:
        """Make the new MAC of a neighbour durable. Raises StoreError."""
        return self._commit([router], lambda: self.store.commit(router, [], nexthops))

    def commit_interface(self, change: InterfaceChange) -> int:
        """See `Store`."""
        return self._call(lambda: self.store.commit_interface(change))

    def load_sessions(self) -> dict[str, Session]:
        """See `Store`."""
        return self.store.load_sessions()

    def commit_session(self, session: Session) -> None:
        """See `Store`."""
        self._call(lambda: self.store.commit_session(session))

    def forget_session(self, router: str) -> None:
        """See `Store`. While a withdrawal of this router is owed, its session is kept: after a restart it ends once more."""
        if router not in self.owed:
            self._call(lambda: self.store.forget_session(router))

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        """See `Store`."""
        return self._call(lambda: self.store.orphans(with_flows=with_flows))

    def owe(self, routers: Iterable[str]) -> None:
        """The stored tables of these routers are out of date: `write_owed` is to write them."""
        self.owed.update(routers)

    def _commit(self, routers: Sequence[str], work: Callable[[], T], size: int = 1) -> T:
        if self.owed.intersection(routers):
            raise StoreError("the store still lacks an earlier change of this router; it is being tried again", field="store")
        try:
            return self._call(work, size)
        except StoreError:
            if self._is_busy:  # timed out: the store may still carry it out later
                self.owe(routers)
            raise

    def _call(self, work: Callable[[], T], size: int = 1) -> T:
        """Do something with the store in its thread, with `size` rows. Raises StoreError, also when it takes too long."""
        self._wait_for_turn()
        patience = PATIENCE_S + size / ROWS_PER_S
        self._is_busy = True

        def in_thread() -> T:
            try:
                return work()
            finally:
                self._is_busy = self._is_stuck = False

        try:
            result = self._runtime.offload(in_thread, patience)
        except TimeoutError as e:
            self._is_stuck = self._is_busy  # it may have ended at the last moment
            self.problem = "the store does not answer"
            raise StoreError(f"the store has not answered for {patience:.1f} s", field="store") from e
        except FsctlError as e:
            self.problem = str(e)
            raise
        self.problem = ""
        return result

    def _wait_for_turn(self) -> None:
        """The store takes one caller at a time. Nobody waits behind one that has been waited for in vain."""
        until = self._runtime.now() + PATIENCE_S
        while self._is_busy:
            left = until - self._runtime.now()
            if self._is_stuck or left <= 0:
                raise StoreError("the store does not answer", field="store")
            self._never.wait(min(left, _TURN_S))

    def next_try(self) -> float:
        return self._retry_at if self.owed or self.problem else float("inf")

    def write_owed(self, fibs: Mapping[str, Fib], sessions: Holders) -> None:
        """Write the tables that are owed, at most every RETRY_S; then forget their sessions that have ended meanwhile."""
        now = self._runtime.now()
        if now < self.next_try():
            return
        self._retry_at = now + RETRY_S
        if not self.owed:
            self._look_again()
        for router in sorted(self.owed):
            try:
                self._call(partial(self.store.replace_fib, router, fibs[router]), len(fibs[router]))
                self.owed.discard(router)
                if sessions.get(router) is None:
                    self.forget_session(router)
            except StoreError as e:
                self.owed.add(router)
                _LOG.warning("router %s: its table is not stored yet: %s", router, e)
                return
            _LOG.info("router %s: its table is stored", router)

    def _look_again(self) -> None:
        """Find out whether a store that failed works again."""
        try:
            self._call(self.store.check)
        except StoreError:
            return
        _LOG.info("the store works again")
