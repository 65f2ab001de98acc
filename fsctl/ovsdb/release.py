"""Bridges that carry this fsctl's Controller row and are not managed any more."""

from __future__ import annotations

from fsctl.ovsdb.edits import Change, Edit, Remove, Set
from fsctl.ovsdb.marks import OURS, PREFIX_TRACKING
from fsctl.ovsdb.rows import BridgeRow, Database
from fsctl.ovsdb.settings import is_our_controller
from fsctl.ovsdb.wanted import Wanted


def to_release(database: Database, wanted: Wanted) -> list[BridgeRow]:
    """Such bridges, in order of their names."""
    if wanted.controller is None or wanted.bridges is None:
        return []
    return [
        bridge
        for name, bridge in database.bridge_names().items()
        if not wanted.manages(name) and any(is_our_controller(row, wanted.controller) for row in database.controllers_of(bridge))
    ]


def keeps_rules(database: Database, bridge: BridgeRow, wanted: Wanted) -> bool:
    """Whether another controller remains: Open vSwitch then keeps all rules, fsctl's too."""
    return any(not is_our_controller(row, wanted.controller) for row in database.controllers_of(bridge))


def release(database: Database, bridge: BridgeRow, wanted: Wanted) -> Change:
    """Remove fsctl's rows from a bridge.

    Open vSwitch deletes all rules of a bridge without controller in fail mode standalone, and bridges as a plain switch.
    """
    rows = database.controllers_of(bridge)
    edits: list[Edit] = [
        Remove("Bridge", bridge.uuid, "controller", row.uuid) for row in rows if is_our_controller(row, wanted.controller)
    ]
    for number, uuid in sorted(bridge.flow_tables.items()):
        table = database.flow_tables.get(uuid)
        if table is not None and table.external_ids.get(OURS) == PREFIX_TRACKING:
            edits.append(Remove("Bridge", bridge.uuid, "flow_tables", number))
    why = "fsctl's controller removed; another one remains, fail_mode and rules stay"
    if not keeps_rules(database, bridge, wanted):
        edits.append(Set("Bridge", bridge.uuid, {"fail_mode": []}))
        why = "fsctl's controller removed, fail_mode cleared: a plain switch again"
    return Change(("release", bridge.name), f"bridge {bridge.name} is not managed any more: {why}", tuple(edits))
