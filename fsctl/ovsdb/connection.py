"""The connection to ovsdb-server: reads rows, sends one transaction at a time, never waits for an answer.

It uses the IDL of Open vSwitch's Python library, which reconnects automatically and then loads the contents again. A
server that accepts and does not answer is detected by a probe (the library has none for unix sockets), or by a
transaction without an answer; then fsctl reconnects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import ovs.dirs
import ovs.timeval
from ovs.db.idl import ROW_DELETE, Idl, SchemaHelper, Transaction

from fsctl.ovsdb.edits import Add, Change, Edit, New, Set
from fsctl.ovsdb.rows import Database
from fsctl.ovsdb.schema import FIELDS, REFERS_TO, row_of, schema_json

_LOG = logging.getLogger(__name__)
PROBE_S = 5.0
"""After this silence the server is sent an echo request; after twice this time fsctl reconnects."""
SLOW_S = 2.0
"""After this time an answer counts as missing."""
DEADLINE_S = 5.0
"""After this time a transaction is given up, and fsctl reconnects."""
MAX_RECONNECT_S = 1.0
ROWS_PER_TURN = 100
"""While many rows arrive, other green threads run after so many."""


def default_remote() -> str:
    """The local database: `OVS_RUNDIR` if set, else where Open vSwitch was built to look."""
    return f"unix:{ovs.dirs.RUNDIR}/db.sock"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a transaction. `error` is the server's text; empty while `done` is false: try again."""

    done: bool
    error: str = ""


class _Idl(Idl):
    """Records which rows have changed, and lets other green threads run while many arrive."""

    def __init__(self, remote: str, sleep: Callable[[float], None]) -> None:
        schema = SchemaHelper(schema_json=schema_json())
        schema.register_all()
        self.changed: set[tuple[str, UUID]] = set()
        self._sleep, self._rows = sleep, 0
        super().__init__(remote, schema)
        reconnect = self._session.reconnect
        reconnect.set_probe_interval(int(PROBE_S * 1000))
        reconnect.set_backoff(100, int(MAX_RECONNECT_S * 1000))
        reconnect.set_quiet(True)

    def notify(self, event: str, row: Any, updates: Any = None) -> None:  # noqa: ARG002 - the library's signature
        if event != ROW_DELETE:
            self.changed.add((row._table.name, row.uuid))

    def cooperative_yield(self) -> None:
        """Called by the library per row that it reads, and by fsctl per row that it copies."""
        self._rows += 1
        if self._rows % ROWS_PER_TURN == 0:
            self._sleep(0)

    @property
    def is_current(self) -> bool:
        """Whether it is connected and has the contents."""
        return bool(self.state == Idl.IDL_S_MONITORING and self._session.is_connected())

    def silence(self) -> float:
        """Seconds since the last message of the server."""
        return float(max(0, ovs.timeval.msec() - self._session.reconnect.last_activity)) / 1000


class Connection:
    """`database` is replaced whenever rows have changed; while the server is away it keeps the last known rows."""

    def __init__(self, remote: str, sleep: Callable[[float], None]) -> None:
        self.remote, self._sleep = remote, sleep
        self.database = Database()
        self._idl = _Idl(remote, sleep)
        self._seqno = self._idl.change_seqno
        self._transaction: Any = None
        self._sent_at = 0.0
        self._current_at = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether the contents have been read, ever."""
        return bool(self._seqno)

    @property
    def is_current(self) -> bool:
        """Whether `send` can succeed now."""
        return self._idl.is_current

    @property
    def is_sending(self) -> bool:
        return self._transaction is not None

    def run(self) -> None:
        """Read what the server has sent; does not wait."""
        self._idl.run()
        if self._idl.is_current:
            self._current_at = time.monotonic()
        if self._seqno != self._idl.change_seqno:
            self._seqno = self._idl.change_seqno
            self.database = self._snapshot()

    def problem(self) -> str:
        """Why the database cannot be used now; empty if it can."""
        now = time.monotonic()
        away = now - self._current_at
        if away > SLOW_S:
            return f"no connection to Open vSwitch's database at {self.remote} for {away:.0f} s"
        waits = now - self._sent_at if self.is_sending else 0.0
        silence = max(waits if waits > SLOW_S else 0.0, self._idl.silence())
        if waits > SLOW_S or silence > PROBE_S + SLOW_S:
            return f"no answer from Open vSwitch's database at {self.remote} for {silence:.0f} s"
        return ""

    def send(self, changes: Iterable[Change]) -> None:
        """Send all changes as one transaction; `outcome` gives the result later."""
        transaction = Transaction(self._idl)
        try:
            for change in changes:
                for edit in change.edits:
                    self._write(transaction, edit)
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()
        self._transaction, self._sent_at = transaction, time.monotonic()

    def outcome(self) -> Outcome | None:
        """The result of the transaction that was sent; None while it is unknown."""
        status = self._transaction.commit()
        if status == Transaction.INCOMPLETE:
            if time.monotonic() - self._sent_at < DEADLINE_S:
                return None
            _LOG.warning("%s; reconnecting", self.problem())
            self._idl.force_reconnect()
        error = str(self._transaction.get_error()) if status == Transaction.ERROR else ""
        self._transaction = None
        return Outcome(status in (Transaction.SUCCESS, Transaction.UNCHANGED), error)

    def reopen(self) -> None:
        """Open a new connection, after the library has raised an error."""
        self._idl.close()
        self._idl = _Idl(self.remote, self._sleep)
        # -1 is no number that the new IDL has: `database` stays until the new contents have been read.
        self._seqno = self._seqno and -1
        self._transaction = None

    def close(self) -> None:
        self._idl.close()

    def _snapshot(self) -> Database:
        """All rows; only those that have changed are read again."""
        changed, self._idl.changed = self._idl.changed, set()
        fields = {}
        for table, field in FIELDS.items():
            before = getattr(self.database, field)
            rows: dict[UUID, Any] = {}
            for uuid, row in self._idl.tables[table].rows.items():
                if uuid in before and (table, uuid) not in changed:
                    rows[uuid] = before[uuid]
                else:
                    rows[uuid] = row_of(table, uuid, row._data)
                    self._idl.cooperative_yield()
            fields[field] = rows
        return Database(**fields)

    def _write(self, transaction: Any, edit: Edit) -> None:
        row = self._idl.tables[edit.table].rows[edit.uuid]
        if isinstance(edit, Set):
            for name, value in edit.columns.items():
                row.verify(name)
                setattr(row, name, self._value(transaction, name, value))
        elif isinstance(edit, Add):
            if edit.is_exclusive:
                row.verify(edit.column)
            value = self._value(transaction, edit.column, edit.value)
            if edit.key is None:
                row.addvalue(edit.column, value)
            else:
                row.setkey(edit.column, edit.key, value)
        elif isinstance(edit.value, int):
            row.delkey(edit.column, edit.value)
        else:
            row.delvalue(edit.column, self._value(transaction, edit.column, edit.value))

    def _value(self, transaction: Any, column: str, value: object) -> Any:
        """A value as the IDL takes it: its rows for UUIDs and new rows."""
        if isinstance(value, New):
            row = transaction.insert(self._idl.tables[value.table])
            for name, inner in value.columns.items():
                setattr(row, name, self._value(transaction, name, inner))
            return row
        if isinstance(value, UUID):
            return self._idl.tables[REFERS_TO[column]].rows[value]
        if isinstance(value, list):
            return [self._value(transaction, column, inner) for inner in value]
        return value
