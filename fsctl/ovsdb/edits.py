"""Changes of the database as values; a `Change` makes one thing as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

Key = tuple[str, ...]
"""What a change is about, its kind and its bridges: ("fail_mode", "br0"), ("link", "br0", "br1")."""


@dataclass(frozen=True, slots=True)
class New:
    """A row to insert; values are lists and dicts as the IDL takes them, or other new rows."""

    table: str
    columns: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Set:
    """Write columns of a row; the transaction fails if somebody else has written them meanwhile."""

    table: str
    uuid: UUID
    columns: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a set, or to a map under `key`. `is_exclusive`: fails if somebody else has written that column meanwhile."""

    table: str
    uuid: UUID
    column: str
    value: New | UUID | str
    key: int | None = None
    is_exclusive: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove from a set of references, or a key (int) from a map. The database deletes rows without references."""

    table: str
    uuid: UUID
    column: str
    value: UUID | int


Edit = Set | Add | Remove


@dataclass(frozen=True, slots=True)
class Change:
    """Edits that belong together, and `why`, for the log. Urgent changes are sent before all others."""

    key: Key
    why: str
    edits: tuple[Edit, ...]
    is_urgent: bool = False
