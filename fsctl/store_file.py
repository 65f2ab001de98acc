"""The store's file: opened by one process only, checked before the first write, migrated to the newest format.

A file that is damaged, newer than this fsctl or not fsctl's is left unchanged, byte for byte: it is checked through a
read-only connection. While fsctl runs, SQLite holds the file exclusively, and no call waits for a lock: another process
that opens the file gets the error "database is locked".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsctl.errors import StoreError
from fsctl.store_load import add_checksums

MEMORY = ":memory:"
MODE = 0o600
"""Delegations are nobody else's business."""
APPLICATION_ID = 0x66736374
"""Marks the file as fsctl's ("fsct", PRAGMA application_id)."""

Step = str | Callable[[sqlite3.Connection], None]
MIGRATIONS: tuple[tuple[Step, ...], ...] = (
    (
        # One row: the number of the last write.
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL)",
        "INSERT INTO state VALUES (1, 0)",
        "CREATE TABLE router (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        # fib.PartKey; eth_src -1: any.
        """CREATE TABLE part (
            id INTEGER PRIMARY KEY, router INTEGER NOT NULL REFERENCES router, in_port TEXT NOT NULL,
            version INTEGER NOT NULL CHECK (version IN (4, 6)), eth_src INTEGER NOT NULL,
            UNIQUE (router, in_port, version, eth_src))""",
        """CREATE TABLE nexthop (
            router INTEGER NOT NULL REFERENCES router, number INTEGER NOT NULL CHECK (number > 0),
            out TEXT NOT NULL, eth_dst INTEGER NOT NULL, PRIMARY KEY (router, number)) WITHOUT ROWID""",
        # key: IPv4 fib.Key as an integer; IPv6 as 17 bytes, address and length. verdict: fib's number.
        """CREATE TABLE prefix (
            part INTEGER NOT NULL REFERENCES part, key NOT NULL, verdict INTEGER NOT NULL,
            PRIMARY KEY (part, key)) WITHOUT ROWID""",
        # src, dst: IPv4 as integers, IPv6 as 16 bytes.
        """CREATE TABLE connection (
            part INTEGER NOT NULL REFERENCES part, src NOT NULL, dst NOT NULL, ip_proto INTEGER NOT NULL,
            sport INTEGER NOT NULL, dport INTEGER NOT NULL, verdict INTEGER NOT NULL,
            PRIMARY KEY (part, src, dst, ip_proto, sport, dport)) WITHOUT ROWID""",
        # What a router said of its own interface; NULL: nothing. addresses: separated by blanks.
        """CREATE TABLE interface (
            router TEXT NOT NULL, name TEXT NOT NULL, addresses TEXT, mtu INTEGER,
            PRIMARY KEY (router, name)) WITHOUT ROWID""",
    ),
    (
        # Who speaks for a router, so that a router whose agent died while fsctl was away is withdrawn too.
        """CREATE TABLE session (
            router TEXT PRIMARY KEY, id TEXT NOT NULL, lease_s REAL NOT NULL, grace_s REAL NOT NULL) WITHOUT ROWID""",
    ),
    (
        # Every row has a checksum (store_rows).
        *(
            f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0"
            for table in ("state", "router", "part", "nexthop", "prefix", "connection", "interface", "session")
        ),
        add_checksums,
        # Delegations that name what the configuration no longer has. since: Unix time; flows: JSON, in REST's form.
        """CREATE TABLE orphan (
            id INTEGER PRIMARY KEY, router TEXT NOT NULL, since INTEGER NOT NULL, count INTEGER NOT NULL,
            why TEXT NOT NULL, flows TEXT NOT NULL, checksum INTEGER NOT NULL)""",
    ),
)
"""The steps from format n to n + 1; the format is PRAGMA user_version. Steps are only added, never changed."""


class Lock:
    """An advisory lock beside the file (NAME.lock), taken before the file is looked at.

    It holds the owner's process id and the last answered revision. Without that revision, writes could be lost
    silently: SQLite reads a log only up to a damaged place, as if it ended there.
    """

    def __init__(self, path: Path) -> None:
        self._store = path
        self._path = path.with_name(path.name + ".lock")
        self._fd = -1
        self.answered = 0
        """The lowest revision that the store may have."""

    def acquire(self) -> None:
        """Raises StoreError where another process holds it."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
            os.fchmod(self._fd, MODE)  # whoever can open it can hold it, and stop a start
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = self._lines()[0]
            self.release()
            who = f"process {holder}" if holder else "another process"
            raise StoreError(f"{who} uses this store: one fsctl at a time", field="store", value=str(self._store)) from e
        except OSError as e:
            self.release()
            raise StoreError(f"the lock file cannot be made: {e.strerror}", field="store", value=str(self._path)) from e
        answered = [line for line in self._lines()[1:2] if line.isdecimal()]
        self.answer(int(answered[0]) if answered else 0)

    def answer(self, revision: int) -> None:
        """Note a durable write that is about to be answered. Not synced: the note may be too low after a crash, not too high."""
        self.answered = revision
        with contextlib.suppress(OSError):  # a full disk: the store itself reports it at its next write
            os.pwrite(self._fd, f"{os.getpid()}\n{revision}\n{'':16}".encode("ascii"), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lines(self) -> list[str]:
        return os.pread(self._fd, 64, 0).decode("ascii", "replace").split("\n")


def open_file(path: Path, answered: int) -> sqlite3.Connection:
    """A connection to the checked, up-to-date file; a file that is missing is made.

    The caller holds the lock, which knows the last revision that was `answered`. Raises StoreError.
    """
    if not path.exists():
        _make(path)
        answered = 0
    elif not path.stat().st_size:
        raise _unusable(path, "the store is empty (0 bytes): it was truncated, or made by somebody else")
    _check(path, answered)
    try:
        db = _connect(path)
        try:
            _migrate(db)
        except BaseException:
            db.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as e:
        raise _failed(path, e) from e
    return db


def open_memory() -> sqlite3.Connection:
    """A store that lasts as long as the connection."""
    db = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
    _migrate(db)
    return db


def _make(path: Path) -> None:
    """Create a store under another name and rename it when it is complete: fsctl itself never leaves an empty file."""
    log = path.with_name(path.name + "-wal")
    if log.exists():
        detail = f"the store is missing, but its log {log.name} is there: restore the store, or move the log away too"
        raise StoreError(detail, field="store", value=str(path))
    new = path.with_name(path.name + ".new")
    try:
        for leftover in (new, new.with_name(new.name + "-wal")):
            leftover.unlink(missing_ok=True)
        db = _connect(new)
        try:
            _migrate(db)
        finally:
            db.close()
        new.rename(path)
        _sync_directory(path.parent)
    except (sqlite3.Error, OSError) as e:
        raise StoreError(f"the store cannot be made: {e}", field="store", value=str(path)) from e


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _connect(path: Path) -> sqlite3.Connection:
    """WAL with FULL: a commit that was answered survives a power cut (sqlite.org/pragma.html#pragma_synchronous).

    EXCLUSIVE is set before the first read: then SQLite uses no shared memory and keeps the lock until it closes.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        os.fchmod(fd, MODE)  # SQLite gives the same mode to the files that it makes beside it
    finally:
        os.close(fd)
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA cache_size = -16384")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _check(path: Path, answered: int) -> None:
    """Raises StoreError unless this is an undamaged store of a known format; writes nothing."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=0, uri=True)
        try:
            db.text_factory = _readable
            db.execute("PRAGMA cell_size_check = ON")
            application, version = (int(_pragma(db, name)) for name in ("application_id", "user_version"))
            damage = str(_pragma(db, "integrity_check"))
            revision = _revision(db) if application == APPLICATION_ID else None
        finally:
            db.close()
    except (sqlite3.Error, UnicodeDecodeError) as e:
        raise _failed(path, e) from e
    if application != APPLICATION_ID:
        raise _unusable(path, "this database is not fsctl's")
    if version > len(MIGRATIONS):
        detail = f"written by a newer fsctl (format {version}, this one knows up to {len(MIGRATIONS)})"
        raise _unusable(path, detail)
    if version < 1:
        raise _unusable(path, f"the format is unknown ({version})")
    if damage != "ok":
        raise _unusable(path, f"the store is damaged ({' '.join(damage.split())})")
    if revision is not None and revision < answered:
        detail = (
            f"the store ends at write {revision}, and write {answered} was answered: its log {path.name}-wal is damaged "
            f"or missing; put it back, or remove {path.name}.lock if this is an older copy on purpose"
        )
        raise StoreError(detail, field="store", value=str(path))


def _revision(db: sqlite3.Connection) -> int | None:
    """The number of the last write; None if it is no number: loading the row reports that."""
    row = db.execute("SELECT revision FROM state").fetchone()
    return row[0] if row and type(row[0]) is int else None


def _readable(text: bytes) -> str:
    """SQLite's report of damage may contain damaged names, which need not be UTF-8."""
    return text.decode("utf-8", "backslashreplace")


def _failed(path: Path, error: Exception) -> StoreError:
    """An SQLite error at start, in words that tell the operator what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; the higher bits are details
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        detail = "another process (sqlite3, a backup) has the store open: end it, and start again"
        return StoreError(detail, field="store", value=str(path))
    return _unusable(path, f"the store is damaged or no database ({error})")


def _unusable(path: Path, detail: str) -> StoreError:
    advice = f"it was left as it is; restore a copy, or move it and {path.name}-wal away to start with an empty store"
    return StoreError(f"{detail}; {advice}", field="store", value=str(path))


def _pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the file to the newest format, in one transaction."""
    version = int(_pragma(db, "user_version"))
    if version == len(MIGRATIONS):
        return
    with transaction(db):
        for step in MIGRATIONS[version:]:
            for statement in step:
                if isinstance(statement, str):
                    db.execute(statement)
                else:
                    statement(db)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
