"""What is to be written, as values: a `Change` puts one thing right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

Key = tuple[str, ...]
"""What a change is about: its kind, and the bridges that it concerns: ("fail_mode", "br0"), ("link", "br0", "br1")."""


@dataclass(frozen=True, slots=True)
class New:
    """A row to insert; values are lists and dicts as the IDL takes them, or other new rows."""

    table: str
    columns: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Set:
    """Write columns of a row, provided that nobody else has written them meanwhile."""

    table: str
    uuid: UUID
    columns: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a set, or to a map under `key`. `is_exclusive`: provided that nobody else has written that column."""

    table: str
    uuid: UUID
    column: str
    value: New | UUID | str
    key: int | None = None
    is_exclusive: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Take out of a set of references, or a key (int) out of a map; a row that nothing refers to any more is gone."""

    table: str
    uuid: UUID
    column: str
    value: UUID | int


Edit = Set | Add | Remove


@dataclass(frozen=True, slots=True)
class Change:
    """Edits that belong together, and `why` in words for the log. What `is_urgent` is sent before all else."""

    key: Key
    why: str
    edits: tuple[Edit, ...]
    is_urgent: bool = False
