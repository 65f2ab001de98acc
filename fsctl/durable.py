"""The store as the loop uses it: in a thread of its own, with a limit to waiting, and with what it owes.

A disk that is full or hangs must not keep a withdrawal from the switches. What the store could not take is *owed*: the
router's whole table is written again until the store has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fsctl.errors import FsctlError, StoreError
from fsctl.fib import Fib
from fsctl.runtime import Runtime
from fsctl.store import Commit, Store

_LOG = logging.getLogger(__name__)
PATIENCE_S = 5.0
"""How long a commit is waited for; a disk slower than this counts as failed."""
RETRY_S = 1.0
T = TypeVar("T")


class Durable:
    """Commits to a store. `owed` are the routers whose stored table may differ from what is in force."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.store, self._runtime = store, runtime
        self.owed: set[str] = set()
        self.problem = ""
        self._is_busy = False
        self._retry_at = 0.0

    def commit_all(self, commits: Sequence[Commit]) -> int:
        """Make writes durable, all or none; returns the revision. Raises StoreError, then nothing may be changed."""
        if self.owed.intersection(commit.router for commit in commits):
            raise StoreError("the store still lacks an earlier change of this router; it is being tried again", field="store")
        try:
            return self.call(lambda: self.store.commit_all(commits))
        except StoreError:
            if self._is_busy:  # it may have been carried out all the same
                self.owed.update(commit.router for commit in commits)
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Do something with the store in its thread. Raises StoreError, also when it takes too long."""
        if self._is_busy:
            raise StoreError("the store does not answer", field="store")
        self._is_busy = True

        def in_thread() -> T:
            try:
                return work()
            finally:
                self._is_busy = False

        try:
            result = self._runtime.offload(in_thread, PATIENCE_S)
        except TimeoutError as e:
            self.problem = "the store does not answer"
            raise StoreError(f"the store has not answered for {PATIENCE_S:g} s", field="store") from e
        except FsctlError as e:
            self.problem = str(e)
            raise
        self.problem = ""
        return result

    def next_try(self) -> float:
        return self._retry_at if self.owed else float("inf")

    def settle(self, fibs: Mapping[str, Fib]) -> None:
        """Write what is owed, if it is time to try again."""
        now = self._runtime.now()
        if not self.owed or now < self._retry_at:
            return
        self._retry_at = now + RETRY_S
        for router in sorted(self.owed):
            try:
                self.call(lambda r=router: self.store.replace_fib(r, fibs[r]))  # type: ignore[misc]
            except StoreError as e:
                _LOG.warning("router %s: its table is not stored yet: %s", router, e)
                return
            self.owed.discard(router)
            _LOG.info("router %s: its table is stored", router)
