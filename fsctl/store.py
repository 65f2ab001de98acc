"""Durable desired state: delegations, what routers said of their interfaces, sessions, and the number of the last write.

`Store` is the interface that the controller needs; `SqliteStore` implements it with one file on one host. A clustered
store (OVSDB with Raft, for many dom0s) would fit behind the same protocol.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from fsctl import store_load, store_rows
from fsctl import store_orphans as orphans
from fsctl.errors import FsctlError, StoreError
from fsctl.model.delegations import Forward
from fsctl.model.fib import Change, Fib
from fsctl.status import InterfaceChange, Orphan, Override, Session
from fsctl.store_file import MEMORY, Lock, open_file, open_memory, transaction
from fsctl.store_orphans import Known

__all__ = ["Commit", "Known", "Orphan", "Override", "SqliteStore", "Store", "Stored"]

T = TypeVar("T")


class Commit(NamedTuple):
    """What one router's writes add up to; see `Store.commit`.

    `withdraws`: delete all delegations of the router, and what is kept aside for it; `changes` only tell whether any were
    in force. `freed` are numbers of next hops that nothing stored uses any more.
    """

    router: str
    changes: Sequence[Change]
    nexthops: Mapping[int, Forward]
    withdraws: bool = False
    freed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything that is stored, except sessions and what is kept aside."""

    fibs: dict[str, Fib] = field(default_factory=dict)
    interfaces: dict[tuple[str, str], Override] = field(default_factory=dict)
    revision: int = 0


class Store(Protocol):
    """Durable desired state. Every method raises StoreError; after an error nothing has changed.

    One caller at a time, on any thread.
    """

    def set_aside(self, known: Known, now: float) -> Sequence[Orphan]:
        """Once, before `load`: move delegations that name a router or interface not in `known` out of the FIBs; returns them.

        Sessions and overrides of what is not configured are deleted. `now` is a Unix time.
        """
        ...

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        """What is kept aside, newest first."""
        ...

    def forget_orphans(self, router: str) -> bool:
        """Delete what is kept aside of a router; false if there is nothing."""
        ...

    def load(self) -> Stored:
        """Everything, once, before the first commit."""
        ...

    def commit_all(self, commits: Sequence[Commit]) -> int:
        """Make writes durable, all or none, and return their revision."""
        ...

    def commit(self, router: str, changes: Sequence[Change], nexthops: Mapping[int, Forward]) -> int:
        """Make a write durable and return its revision.

        `changes` are real differences, at most one per place. `nexthops` are the numbers that are new, or that stand for
        another next hop now; they are written before the `changes`, which use them.
        """
        ...

    def replace_fib(self, router: str, fib: Fib) -> int:
        """Make a router's stored FIB equal to `fib`, whatever it was, and return the revision.

        For a FIB that changed while the store failed. What is kept aside stays, unless `fib` is empty.
        """
        ...

    def commit_interface(self, change: InterfaceChange) -> int:
        """Make what a router says of its interface durable and return the revision."""
        ...

    def load_sessions(self) -> dict[str, Session]:
        """The sessions by router, with `beat` 0."""
        ...

    def commit_session(self, session: Session) -> None:
        """Make a session's id, lease and grace durable."""
        ...

    def forget_session(self, router: str) -> None:
        """Delete a router's session, if there is one."""
        ...

    def probe(self) -> None:
        """Write something, and take it back."""
        ...

    def close(self) -> None: ...


class SqliteStore:
    """A `Store` in an SQLite file, or in memory (":memory:")."""

    def __init__(self, path: str) -> None:
        """Open or create the file. Raises StoreError; a file that cannot be used is left unchanged."""
        self._path = path
        self._lock: Lock | None = None
        self._numbers: dict[str, store_rows.Numbers] = {}
        if path == MEMORY:
            self._db = open_memory()
            return
        file = Path(path)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"the directory cannot be made: {e.strerror}", field="store", value=path) from e
        self._lock = Lock(file)
        self._lock.acquire()
        try:
            self._db = open_file(file, self._lock.answered)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def set_aside(self, known: Known, now: float) -> Sequence[Orphan]:
        with self._transaction() as db:
            return orphans.set_aside(db, known, now)

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        with self._transaction() as db:
            return orphans.load(db, with_flows=with_flows)

    def forget_orphans(self, router: str) -> bool:
        with self._transaction() as db:
            return orphans.drop(db, router)

    def load(self) -> Stored:
        with self._transaction() as db:
            stored = Stored(store_load.load_fibs(db), store_load.load_overrides(db), store_rows.load_revision(db))
            store_load.load_sessions(db)  # checks the rows: damage is found before the start goes on
        self._numbers = {name: store_rows.Numbers.of(fib) for name, fib in stored.fibs.items()}
        return self._answer(stored.revision, stored)

    def commit(self, router: str, changes: Sequence[Change], nexthops: Mapping[int, Forward]) -> int:
        return self.commit_all([Commit(router, changes, nexthops)])

    def commit_all(self, commits: Sequence[Commit]) -> int:
        numbers = dict(self._numbers)
        with self._transaction() as db:
            has_changed = [self._write(db, commit, numbers) for commit in commits]
            revision = store_rows.next_revision(db) if any(has_changed) else store_rows.load_revision(db)
        self._numbers = numbers
        return self._answer(revision, revision)

    def _write(self, db: sqlite3.Connection, commit: Commit, numbers: dict[str, store_rows.Numbers]) -> bool:
        """Write one commit; false for a withdrawal that had nothing to delete."""
        router, changes, nexthops, withdraws, freed = commit
        owner = store_rows.owner_of(db, router)
        if withdraws:
            store_rows.clear_fib(db, owner)
            return orphans.drop(db, router) or bool(changes)
        numbers[router] = numbers.get(router, store_rows.Numbers()).without(freed).updated(nexthops)
        store_rows.forget_nexthops(db, owner, freed)
        store_rows.write_nexthops(db, owner, nexthops)
        store_rows.FibWriter(db, owner, numbers[router]).write(changes)
        return True

    def replace_fib(self, router: str, fib: Fib) -> int:
        numbers = store_rows.Numbers.of(fib)
        with self._transaction() as db:
            owner = store_rows.owner_of(db, router)
            store_rows.clear_fib(db, owner)
            db.execute("DELETE FROM nexthop WHERE router = ?", (owner,))
            store_rows.write_nexthops(db, owner, fib.nexthops)
            store_rows.write_fib(db, owner, fib)
            if not len(fib):
                orphans.drop(db, router)
            revision = store_rows.next_revision(db)
        self._numbers[router] = numbers
        return self._answer(revision, revision)

    def commit_interface(self, change: InterfaceChange) -> int:
        with self._transaction() as db:
            override = store_load.load_overrides(db).get((change.router, change.interface), Override())
            store_rows.write_override(db, change.router, change.interface, override.after(change))
            revision = store_rows.next_revision(db)
        return self._answer(revision, revision)

    def load_sessions(self) -> dict[str, Session]:
        with self._transaction() as db:
            return store_load.load_sessions(db)

    def commit_session(self, session: Session) -> None:
        with self._transaction() as db:
            store_rows.write_session(db, session)

    def forget_session(self, router: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM session WHERE router = ?", (router,))

    def probe(self) -> None:
        with self._transaction() as db:
            db.execute("INSERT INTO session VALUES ('', '', 0, 0, 0)")
            db.execute("DELETE FROM session WHERE router = ''")

    def _answer(self, revision: int, value: T) -> T:
        """Note a durable revision in the lock file; returns `value`."""
        if self._lock is not None:
            self._lock.answer(revision)
        return value

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with transaction(self._db) as db:
                yield db
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as e:
            raise StoreError(f"the store failed, nothing was changed: {e}", field="store", value=self._path) from e
        except FsctlError as e:
            raise StoreError(f"the store is damaged: {e}", field="store", value=self._path) from e
