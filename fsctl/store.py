"""Durable desired state: what routers delegated and said of their interfaces, and the number of the last write.

`Store` is what the controller needs; `SqliteStore` keeps it in one file on one host. A clustered store (OVSDB
with Raft, for many dom0s) fits behind the same protocol.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from fsctl.errors import FsctlError, StoreError
from fsctl.fib import DROP_ID, PUNT_ID, Change, Fib, Key, Part, PartKey, verdicts_of
from fsctl.model import IPV4, PUNT, Address, FiveTuple, Forward, Verdict
from fsctl.status import InterfaceChange, Session
from fsctl.store_file import MEMORY, Lock, open_file, open_memory, transaction


class Override(NamedTuple):
    """What a router said of an interface of its own; None: nothing, the configuration holds."""

    addresses: tuple[Address, ...] | None
    mtu: int | None


class Commit(NamedTuple):
    """What one router's writes come to; see `Store.commit`."""

    router: str
    changes: Sequence[Change]
    nexthops: Mapping[int, Forward]


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored. Routers and interfaces that the configuration no longer has may be among it."""

    fibs: dict[str, Fib] = field(default_factory=dict)
    interfaces: dict[tuple[str, str], Override] = field(default_factory=dict)
    revision: int = 0


class Store(Protocol):
    """Durable desired state. Every method raises StoreError; after an error nothing has changed."""

    def load(self) -> Stored:
        """Everything, once, before the first commit."""
        ...

    def commit_all(self, commits: Sequence[Commit]) -> int:
        """Make writes durable, all or none, and return their revision."""
        ...

    def commit(self, router: str, changes: Sequence[Change], nexthops: Mapping[int, Forward]) -> int:
        """Make a write durable and return its revision.

        `changes` are real differences, each place at most once; `nexthops` the numbers that are new or mean another
        next hop now (`Fib.add_nexthop`, `Fib.move_nexthop`, in this order), before `changes` use them.
        """
        ...

    def commit_interface(self, change: InterfaceChange) -> int:
        """Make what a router says of its interface durable and return the revision."""
        ...

    def load_sessions(self) -> dict[str, Session]:
        """The sessions by router, last heard of at 0."""
        ...

    def commit_session(self, session: Session) -> None:
        """Make a session's id, lease and grace durable."""
        ...

    def forget_session(self, router: str) -> None: ...
    def close(self) -> None: ...


class SqliteStore:
    """A `Store` in an SQLite file, or in memory (":memory:"). One caller at a time."""

    def __init__(self, path: str) -> None:
        """Open or make the file; raises StoreError, and leaves a file that it cannot use as it is."""
        self._path = path
        self._lock: Lock | None = None
        self._numbers: dict[str, _Numbers] = {}
        if path == MEMORY:
            self._db = open_memory()
            return
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"the directory cannot be made: {e.strerror}", field="store", value=path) from e
        self._lock = Lock(file)
        self._lock.acquire()
        try:
            self._db = open_file(file)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def load(self) -> Stored:
        with self._transaction() as db:
            fibs = _load_fibs(db)
            interfaces = _load_interfaces(db)
            (revision,) = db.execute("SELECT revision FROM state").fetchone()
        self._numbers = {name: _Numbers.of(fib) for name, fib in fibs.items()}
        return Stored(fibs, interfaces, revision)

    def commit(self, router: str, changes: Sequence[Change], nexthops: Mapping[int, Forward]) -> int:
        return self.commit_all([Commit(router, changes, nexthops)])

    def commit_all(self, commits: Sequence[Commit]) -> int:
        numbers = dict(self._numbers)
        with self._transaction() as db:
            for router, changes, nexthops in commits:
                numbers[router] = numbers.get(router, _Numbers()).updated(nexthops)
                db.execute("INSERT OR IGNORE INTO router (name) VALUES (?)", (router,))
                (owner,) = db.execute("SELECT id FROM router WHERE name = ?", (router,)).fetchone()
                rows = [(owner, number, n.out, n.eth_dst) for number, n in nexthops.items()]
                db.executemany("INSERT OR REPLACE INTO nexthop VALUES (?, ?, ?, ?)", rows)
                _Rows(db, owner, numbers[router]).write(changes)
            revision = _next_revision(db)
        self._numbers = numbers
        return revision

    def commit_interface(self, change: InterfaceChange) -> int:
        addresses = None if change.addresses is None else " ".join(str(a) for a in change.addresses)
        statement = """INSERT INTO interface VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
            SET addresses = coalesce(excluded.addresses, addresses), mtu = coalesce(excluded.mtu, mtu)"""
        with self._transaction() as db:
            db.execute(statement, (change.router, change.interface, addresses, change.mtu))
            return _next_revision(db)

    def load_sessions(self) -> dict[str, Session]:
        with self._transaction() as db:
            rows = db.execute("SELECT router, id, lease_s, grace_s FROM session").fetchall()
        return {router: Session(router, id_, lease_s, grace_s, 0.0) for router, id_, lease_s, grace_s in rows}

    def commit_session(self, session: Session) -> None:
        row = (session.router, session.id, session.lease_s, session.grace_s)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)", row)

    def forget_session(self, router: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM session WHERE router = ?", (router,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with transaction(self._db) as db:
                yield db
        except (sqlite3.Error, OverflowError) as e:
            raise StoreError(f"the store failed, nothing was changed: {e}", field="store", value=self._path) from e
        except FsctlError as e:
            raise StoreError(f"the store is damaged: {e}", field="store", value=self._path) from e


@dataclass(slots=True)
class _Numbers:
    """Which number the rows of a next hop bear: the same book-keeping as `Fib`, on copies, so that a failed
    commit leaves it as it was."""

    by_number: dict[int, Forward] = field(default_factory=dict)
    by_nexthop: dict[Forward, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fib: Fib) -> _Numbers:
        return cls().updated(fib.nexthops)

    def updated(self, nexthops: Mapping[int, Forward]) -> _Numbers:
        """With these numbers given out or moved."""
        if not nexthops:
            return self
        new = _Numbers(dict(self.by_number), dict(self.by_nexthop))
        for number, nexthop in nexthops.items():
            old = new.by_number.get(number)
            if old is not None and new.by_nexthop.get(old) == number:
                del new.by_nexthop[old]
            new.by_number[number] = nexthop
            new.by_nexthop.setdefault(nexthop, number)
        return new

    def number(self, verdict: Verdict) -> int:
        if isinstance(verdict, Forward):
            return self.by_nexthop[verdict]
        return PUNT_ID if verdict == PUNT else DROP_ID


@dataclass(slots=True)
class _Rows:
    """Changes of one router's FIB as rows."""

    db: sqlite3.Connection
    owner: int
    numbers: _Numbers
    parts: dict[PartKey, int] = field(default_factory=dict)

    def write(self, changes: Sequence[Change]) -> None:
        numbers = {name: self.numbers.number(verdict) for name, verdict in verdicts_of(changes).items() if verdict is not None}
        set_prefixes, set_connections, gone_prefixes, gone_connections = [], [], [], []
        for part_key, key, verdict in changes:
            part = self.parts.get(part_key) or self._part(part_key)
            if not isinstance(key, FiveTuple):
                column = _key_column(part_key[1], key)
                if verdict is None:
                    gone_prefixes.append((part, column))
                else:
                    set_prefixes.append((part, column, numbers[id(verdict)]))
            elif verdict is None:
                gone_connections.append((part, *_connection_columns(key)))
            else:
                set_connections.append((part, *_connection_columns(key), numbers[id(verdict)]))
        run = self.db.executemany
        run("DELETE FROM prefix WHERE part = ? AND key = ?", gone_prefixes)
        by_connection = "part = ? AND src = ? AND dst = ? AND ip_proto = ? AND sport = ? AND dport = ?"
        run(f"DELETE FROM connection WHERE {by_connection}", gone_connections)
        run("INSERT OR REPLACE INTO prefix VALUES (?, ?, ?)", set_prefixes)
        run("INSERT OR REPLACE INTO connection VALUES (?, ?, ?, ?, ?, ?, ?)", set_connections)

    def _part(self, part_key: PartKey) -> int:
        in_port, version, eth_src = part_key
        columns = (self.owner, in_port, version, -1 if eth_src is None else eth_src)
        self.db.execute("INSERT OR IGNORE INTO part (router, in_port, version, eth_src) VALUES (?, ?, ?, ?)", columns)
        select = "SELECT id FROM part WHERE router = ? AND in_port = ? AND version = ? AND eth_src = ?"
        part: int = self.db.execute(select, columns).fetchone()[0]
        self.parts[part_key] = part
        return part


def _next_revision(db: sqlite3.Connection) -> int:
    (revision,) = db.execute("UPDATE state SET revision = revision + 1 RETURNING revision").fetchone()
    return int(revision)


def _key_column(version: int, key: Key) -> int | bytes:
    return key if version == IPV4 else key.to_bytes(17, "big")


def _connection_columns(c: FiveTuple) -> tuple[int | bytes, int | bytes, int, int, int]:
    if c.version == IPV4:
        return c.src, c.dst, c.ip_proto, c.sport, c.dport
    return c.src.to_bytes(16, "big"), c.dst.to_bytes(16, "big"), c.ip_proto, c.sport, c.dport


def _number_of_column(column: int | bytes) -> int:
    return column if isinstance(column, int) else int.from_bytes(column, "big")


def _load_fibs(db: sqlite3.Connection) -> dict[str, Fib]:
    names = dict(db.execute("SELECT id, name FROM router"))
    fibs = {name: Fib() for name in names.values()}
    parts: dict[int, tuple[int, Part, PartKey]] = {}
    for number, owner, in_port, version, eth_src in db.execute("SELECT id, router, in_port, version, eth_src FROM part"):
        parts[number] = (owner, Part(), (in_port, version, None if eth_src < 0 else eth_src))
    for number, key, verdict in db.execute("SELECT part, key, verdict FROM prefix"):
        parts[number][1].prefixes[_number_of_column(key)] = verdict
    select = "SELECT part, src, dst, ip_proto, sport, dport, verdict FROM connection"
    for number, src, dst, ip_proto, sport, dport, verdict in db.execute(select):
        _, part, (_, version, _) = parts[number]
        ends = _number_of_column(src), _number_of_column(dst)
        part.set_connection(FiveTuple(version, *ends, ip_proto, sport, dport), verdict)
    used: dict[int, set[int]] = {owner: set() for owner in names}
    for owner, part, part_key in parts.values():
        if part.prefixes or part.connections:
            fibs[names[owner]].parts[part_key] = part
            used[owner] |= {*part.prefixes.values(), *part.connections.values()}
    _load_nexthops(db, names, fibs, used)
    return fibs


def _load_nexthops(db: sqlite3.Connection, names: Mapping[int, str], fibs: dict[str, Fib], used: dict[int, set[int]]) -> None:
    """Give every FIB the next hops that it uses; forget those that no delegation uses any longer."""
    unused = []
    for owner, number, out, eth_dst in db.execute("SELECT router, number, out, eth_dst FROM nexthop ORDER BY number"):
        if number in used[owner]:
            fibs[names[owner]].add_nexthop(number, Forward(out, eth_dst))
            used[owner].discard(number)
        else:
            unused.append((owner, number))
    for owner, rest in used.items():
        if missing := rest - {PUNT_ID, DROP_ID}:
            raise StoreError("delegations use next hops that are not there", field=names[owner], value=sorted(missing))
    db.executemany("DELETE FROM nexthop WHERE router = ? AND number = ?", unused)


def _load_interfaces(db: sqlite3.Connection) -> dict[tuple[str, str], Override]:
    interfaces = {}
    for router, name, addresses, mtu in db.execute("SELECT router, name, addresses, mtu FROM interface"):
        parsed = None if addresses is None else tuple(Address.parse(text) for text in addresses.split())
        interfaces[router, name] = Override(parsed, mtu)
    return interfaces
