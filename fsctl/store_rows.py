"""Values -> rows of the store. Every row has a checksum, which is verified when the row is read.

A row that something else changed (a flipped bit, an editor) has a wrong checksum. A row with a right checksum and an
invalid value was written by a bug. Both raise StoreError with the table and the row.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fsctl.errors import StoreError
from fsctl.model.addresses import IPV4
from fsctl.model.delegations import PUNT, FiveTuple, Forward, Verdict
from fsctl.model.fib import DROP_ID, PUNT_ID, Change, Fib, Part, PartKey, verdicts_of
from fsctl.model.prefix_keys import Key
from fsctl.status import Override, Session

Column = int | float | str | bytes | None
PRIME, _PART, _KEY, _VERDICT = 8_388_593, 5_195_977, 2_654_435, 7_368_787
"""A prefix's checksum is (part * _PART + key * _KEY + verdict * _VERDICT) mod PRIME. With 100,000 rows a CRC would cost
as much as the rest of the commit. Modulo a prime, every single flipped bit changes the sum; PRIME is the largest prime
that SQLite stores in three bytes."""
KEY_BYTES = 17


def checksum(*columns: Column) -> int:
    """The checksum of a row of any table except prefix."""
    return zlib.crc32(repr(columns).encode())


def prefix_checksum(part: int, key: Key, verdict: int) -> int:
    """The checksum of a row of table prefix."""
    return (part * _PART + key * _KEY + verdict * _VERDICT) % PRIME


def bad_row(table: str, row: Sequence[Column], what: str) -> NoReturn:
    """Raise StoreError for an invalid row."""
    raise StoreError(f"table {table}, row {row!r}: {what}")


def verify(table: str, row: Sequence[Column]) -> Sequence[Any]:
    """The columns of a row without the last, its checksum. Raises StoreError if that is wrong."""
    *columns, found = row
    if found != checksum(*columns):
        bad_row(table, row, "the checksum is wrong")
    return columns


@dataclass(slots=True)
class Numbers:
    """Next-hop numbers as stored. `updated` returns a copy, so that a failed commit changes nothing."""

    by_number: dict[int, Forward] = field(default_factory=dict)
    by_nexthop: dict[Forward, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fib: Fib) -> Numbers:
        return cls().updated(fib.nexthops)

    def without(self, freed: Collection[int]) -> Numbers:
        """A copy without these numbers."""
        if not freed:
            return self
        by_number = {number: nexthop for number, nexthop in self.by_number.items() if number not in freed}
        return Numbers(by_number, {nexthop: number for nexthop, number in self.by_nexthop.items() if number not in freed})

    def updated(self, nexthops: Mapping[int, Forward]) -> Numbers:
        """A copy with these numbers added or changed."""
        if not nexthops:
            return self
        new = Numbers(dict(self.by_number), dict(self.by_nexthop))
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


def owner_of(db: sqlite3.Connection, router: str) -> int:
    """The router's id; a new one on first use."""
    found = db.execute("SELECT id FROM router WHERE name = ?", (router,)).fetchone()
    if found is None:
        (owner,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM router").fetchone()
        db.execute("INSERT INTO router VALUES (?, ?, ?)", (owner, router, checksum(owner, router)))
        return int(owner)
    return int(found[0])


def write_nexthops(db: sqlite3.Connection, owner: int, nexthops: Mapping[int, Forward]) -> None:
    rows = [(owner, number, n.out, n.eth_dst) for number, n in nexthops.items()]
    db.executemany("INSERT OR REPLACE INTO nexthop VALUES (?, ?, ?, ?, ?)", [(*row, checksum(*row)) for row in rows])


def forget_nexthops(db: sqlite3.Connection, owner: int, numbers: Collection[int]) -> None:
    """Delete next hops that no delegation uses."""
    db.executemany("DELETE FROM nexthop WHERE router = ? AND number = ?", [(owner, number) for number in numbers])


def clear_fib(db: sqlite3.Connection, owner: int) -> None:
    """Delete all delegations of a router."""
    for table in ("prefix", "connection"):
        db.execute(f"DELETE FROM {table} WHERE part IN (SELECT id FROM part WHERE router = ?)", (owner,))


def forget_router(db: sqlite3.Connection, owner: int) -> None:
    """Delete everything of a router but its sessions, overrides and what is kept aside."""
    clear_fib(db, owner)
    for table in ("part", "nexthop"):
        db.execute(f"DELETE FROM {table} WHERE router = ?", (owner,))
    db.execute("DELETE FROM router WHERE id = ?", (owner,))


def write_fib(db: sqlite3.Connection, owner: int, fib: Fib) -> None:
    """Write all delegations of a router that has none stored."""
    writer = FibWriter(db, owner, Numbers())
    for part_key, part in fib.parts.items():
        writer.put(part_key, part)


@dataclass(slots=True)
class FibWriter:
    """Writes changes of one router's FIB as rows."""

    db: sqlite3.Connection
    owner: int
    numbers: Numbers
    parts: dict[PartKey, int] = field(default_factory=dict)

    def write(self, changes: Sequence[Change]) -> None:
        verdicts = {name: verdict for name, verdict in verdicts_of(changes).items() if verdict is not None}
        numbers = {name: self.numbers.number(verdict) for name, verdict in verdicts.items()}
        # Hot path: `prefix_checksum`, with the verdict's part computed once.
        seals = {name: number * _VERDICT for name, number in numbers.items()}
        set_prefixes, set_connections, gone_prefixes, gone_connections = [], [], [], []
        for part_key, key, verdict in changes:
            part = self.parts.get(part_key) or self._part(part_key)
            if not isinstance(key, FiveTuple):
                column = key if part_key[1] == IPV4 else key.to_bytes(KEY_BYTES, "big")
                if verdict is None:
                    gone_prefixes.append((part, column))
                else:
                    name = id(verdict)
                    seal = (part * _PART + key * _KEY + seals[name]) % PRIME
                    set_prefixes.append((part, column, numbers[name], seal))
            elif verdict is None:
                gone_connections.append((part, *_connection_columns(key)))
            else:
                row = (part, *_connection_columns(key), numbers[id(verdict)])
                set_connections.append((*row, checksum(*row)))
        run = self.db.executemany
        run("DELETE FROM prefix WHERE part = ? AND key = ?", gone_prefixes)
        by_connection = "part = ? AND src = ? AND dst = ? AND ip_proto = ? AND sport = ? AND dport = ?"
        run(f"DELETE FROM connection WHERE {by_connection}", gone_connections)
        run("INSERT OR REPLACE INTO prefix VALUES (?, ?, ?, ?)", set_prefixes)
        run("INSERT OR REPLACE INTO connection VALUES (?, ?, ?, ?, ?, ?, ?, ?)", set_connections)

    def put(self, part_key: PartKey, part: Part) -> None:
        """Write all delegations of a part, by their numbers."""
        number = self._part(part_key)
        for key, verdict in part.connections.items():
            row = (number, *_connection_columns(key), verdict)
            self.db.execute("INSERT INTO connection VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
        prefixes = (
            (number, _key_column(part_key[1], key), verdict, prefix_checksum(number, key, verdict))
            for key, verdict in part.prefixes.items()
        )
        self.db.executemany("INSERT INTO prefix VALUES (?, ?, ?, ?)", prefixes)

    def _part(self, part_key: PartKey) -> int:
        in_port, version, eth_src = part_key
        columns = (self.owner, in_port, version, -1 if eth_src is None else eth_src)
        select = "SELECT id FROM part WHERE router = ? AND in_port = ? AND version = ? AND eth_src = ?"
        found = self.db.execute(select, columns).fetchone()
        if found is None:
            found = self.db.execute("SELECT coalesce(max(id), 0) + 1 FROM part").fetchone()
            row = (found[0], *columns)
            self.db.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
        part = self.parts[part_key] = int(found[0])
        return part


def next_revision(db: sqlite3.Connection) -> int:
    """Count one more write."""
    revision = load_revision(db) + 1
    db.execute("UPDATE state SET revision = ?, checksum = ?", (revision, checksum(1, revision)))
    return revision


def write_override(db: sqlite3.Connection, router: str, name: str, override: Override) -> None:
    if override == Override():
        db.execute("DELETE FROM interface WHERE router = ? AND name = ?", (router, name))
        return
    addresses = None if override.addresses is None else " ".join(str(a) for a in override.addresses)
    row = (router, name, addresses, override.mtu)
    db.execute("INSERT OR REPLACE INTO interface VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))


def write_session(db: sqlite3.Connection, session: Session) -> None:
    row = (session.router, session.id, float(session.lease_s), float(session.grace_s))
    db.execute("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?)", (*row, checksum(*row)))


def _key_column(version: int, key: Key) -> int | bytes:
    return key if version == IPV4 else key.to_bytes(KEY_BYTES, "big")


def _connection_columns(c: FiveTuple) -> tuple[int | bytes, int | bytes, int, int, int]:
    if c.version == IPV4:
        return c.src, c.dst, c.ip_proto, c.sport, c.dport
    return c.src.to_bytes(16, "big"), c.dst.to_bytes(16, "big"), c.ip_proto, c.sport, c.dport


def load_revision(db: sqlite3.Connection) -> int:
    rows = db.execute("SELECT id, revision, checksum FROM state").fetchall()
    if len(rows) != 1:
        bad_row("state", (len(rows),), "expected one row")
    _, revision = verify("state", rows[0])
    if type(revision) is not int or revision < 0:
        bad_row("state", rows[0], "expected a revision")
    return revision
