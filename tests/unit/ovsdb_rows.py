"""A database made of plain rows, on which changes can be carried out as ovsdb-server would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any
from uuid import UUID, uuid4

from fsctl.ovsdb.edits import Add, Change, New, Remove, Set
from fsctl.ovsdb.links import link_name
from fsctl.ovsdb.marks import ids
from fsctl.ovsdb.rows import BridgeRow, ControllerRow, Database, InterfaceRow, PortRow
from fsctl.ovsdb.schema import _CLASSES, COLUMNS, FIELDS

TARGET = "tcp:127.0.0.1:6653"


class Rows:
    """Tables of rows; `carry_out` applies changes, and drops rows that nothing refers to any more."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[UUID, Any]] = {table: {} for table in COLUMNS}

    @property
    def database(self) -> Database:
        return Database(**{FIELDS[table]: dict(rows) for table, rows in self.tables.items()})

    def insert(self, table: str, **columns: Any) -> Any:
        row = _CLASSES[table](uuid=uuid4(), **columns)
        self.tables[table][row.uuid] = row
        return row

    def update(self, table: str, uuid: UUID, **columns: Any) -> None:
        self.tables[table][uuid] = replace(self.tables[table][uuid], **columns)

    def bridge(self, name: str, **columns: Any) -> BridgeRow:
        row: BridgeRow = self.insert("Bridge", name=name, **columns)
        return row

    def port(self, bridge: str, name: str, interface: Mapping[str, Any] | None = None, **columns: Any) -> PortRow:
        made: InterfaceRow = self.insert("Interface", name=name, **(interface or {}))
        row: PortRow = self.insert("Port", name=name, interfaces=(made.uuid,), **columns)
        owner = self.named("Bridge", bridge)
        self.update("Bridge", owner.uuid, ports=(*owner.ports, row.uuid))
        return row

    def controller(self, bridge: str, target: str, **columns: Any) -> ControllerRow:
        row: ControllerRow = self.insert("Controller", target=target, **columns)
        owner = self.named("Bridge", bridge)
        self.update("Bridge", owner.uuid, controller=(*owner.controller, row.uuid))
        return row

    def half(self, here: str, there: str, owner: str | None = None, **columns: Any) -> PortRow:
        """One of fsctl's patch ports; without `owner` as its first edition made it."""
        name, mark = link_name(here, there), ids("link", owner, **{"fsctl-peer": there})
        options = {"peer": link_name(there, here)}
        interface = {"type": "patch", "options": options, "external_ids": mark}
        return self.port(here, name, interface, **{"tag": 4095, "external_ids": mark, **columns})

    def named(self, table: str, name: str) -> Any:
        return next(row for row in self.tables[table].values() if row.name == name)

    def names(self, table: str) -> list[str]:
        return sorted(row.name for row in self.tables[table].values())

    def carry_out(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for edit in change.edits:
                self._edit(edit)
        self._collect()

    def _edit(self, edit: Set | Add | Remove) -> None:
        row = self.tables[edit.table][edit.uuid]
        if isinstance(edit, Set):
            self.update(edit.table, edit.uuid, **self._columns(edit.table, edit.columns))
            return
        old = getattr(row, edit.column)
        if isinstance(edit, Add):
            value = self._value(edit.value)
            new = {**old, edit.key: value} if edit.key is not None else tuple(sorted({*old, value}))
        elif isinstance(old, dict):
            new = {key: value for key, value in old.items() if key != edit.value}
        else:
            new = tuple(value for value in old if value != edit.value)
        self.update(edit.table, edit.uuid, **{edit.column: new})

    def _columns(self, table: str, columns: Mapping[str, object]) -> dict[str, Any]:
        return {name: self._shaped(COLUMNS[table][name], value) for name, value in columns.items()}

    def _shaped(self, kind: Any, value: Any) -> Any:
        if isinstance(kind, str) or "value" in kind:
            return value
        inner = [self._value(v) for v in value]
        return (inner[0] if inner else None) if kind["max"] == 1 else tuple(sorted(inner))

    def _value(self, value: Any) -> Any:
        if not isinstance(value, New):
            return value
        return self.insert(value.table, **self._columns(value.table, value.columns)).uuid

    def _collect(self) -> None:
        for table, holder, column in (
            ("Port", "Bridge", "ports"),
            ("Interface", "Port", "interfaces"),
            ("Controller", "Bridge", "controller"),
        ):
            kept = {uuid for row in self.tables[holder].values() for uuid in getattr(row, column)}
            self.tables[table] = {uuid: row for uuid, row in self.tables[table].items() if uuid in kept}


def field_names(row_class: Any) -> set[str]:
    return {field.name for field in fields(row_class)}
