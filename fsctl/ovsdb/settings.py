"""What every managed bridge must have: fail mode, protocol, controller, prefix tracking.

Each check yields (key, change); the change is None if the setting is right. An operator's harmless settings are kept:
another controller, an own Flow_Table row, the intervals of an own Controller row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fsctl.openflow.rules import TABLES
from fsctl.ovsdb.edits import Add, Change, Edit, Key, New, Remove, Set
from fsctl.ovsdb.marks import (
    CONTROLLER,
    INACTIVITY_PROBE_MS,
    MAX_BACKOFF_MS,
    OPENFLOW,
    OURS,
    OWNER,
    PREFIX_TRACKING,
    PREFIXES,
    ids,
)
from fsctl.ovsdb.rows import BridgeRow, ControllerRow, Database

Check = tuple[Key, Change | None]


def checks(database: Database, bridge: BridgeRow, target: str | None) -> Iterator[Check]:
    """The checks of one bridge. `target` is where fsctl listens; None: others set the controller."""
    yield _check("fail_mode", bridge, _fail_mode(bridge))
    yield _check("protocols", bridge, _protocols(bridge))
    if target is not None:
        yield _check("controller", bridge, _controller(database, bridge, target))
    yield _check("flow_tables", bridge, _flow_tables(database, bridge))


def is_our_controller(row: ControllerRow, target: str | None) -> bool:
    """Whether the fsctl at `target` made this row, even if somebody has changed the row's target since."""
    return row.external_ids.get(OURS) == CONTROLLER and row.external_ids.get(OWNER, row.target) == target


def is_left_over(row: ControllerRow, target: str | None) -> bool:
    """Whether the row is of an fsctl that listened elsewhere and is gone (a bridge needs one fsctl only)."""
    return row.external_ids.get(OURS) == CONTROLLER and not is_our_controller(row, target) and not row.is_connected


def _check(kind: str, bridge: BridgeRow, found: tuple[str, list[Edit]]) -> Check:
    key, (why, edits) = (kind, bridge.name), found
    return key, Change(key, f"bridge {bridge.name}: {why}", tuple(edits)) if edits else None


def _fail_mode(bridge: BridgeRow) -> tuple[str, list[Edit]]:
    if bridge.fail_mode == "secure":
        return "", []
    was = bridge.fail_mode or "not set"
    return f"fail_mode was {was}, is secure now", [Set("Bridge", bridge.uuid, {"fail_mode": ["secure"]})]


def _protocols(bridge: BridgeRow) -> tuple[str, list[Edit]]:
    if not bridge.protocols or OPENFLOW in bridge.protocols:
        return "", []
    return f"{OPENFLOW} was not among its protocols, is now", [Add("Bridge", bridge.uuid, "protocols", OPENFLOW)]


def _controller(database: Database, bridge: BridgeRow, target: str) -> tuple[str, list[Edit]]:
    rows = database.controllers_of(bridge)
    old = [row for row in rows if is_left_over(row, target)]
    edits: list[Edit] = [Remove("Bridge", bridge.uuid, "controller", row.uuid) for row in old]
    why = [f"controller {row.target} of an earlier fsctl removed" for row in old]
    ours = sorted((row for row in rows if is_our_controller(row, target)), key=lambda row: row.target != target)
    theirs = next((row for row in rows if row.target == target and row not in old), None)
    if len(ours) > 1:
        edits += [Remove("Bridge", bridge.uuid, "controller", row.uuid) for row in ours[1:]]
        why.append(f"controller {target} was there {len(ours)} times")
    wrong: dict[str, object] = {}
    if ours:
        wrong = _differences(ours[0], target)
    elif theirs is not None:
        wrong = {name: value for name, value in _settings().items() if getattr(theirs, name) is None}
    else:
        columns = {"target": target, **_settings(), "external_ids": ids(CONTROLLER, target)}
        edits.append(Add("Bridge", bridge.uuid, "controller", New("Controller", columns)))
        why.append(f"controller {target} added")
    row = ours[0] if ours else theirs
    if wrong and row is not None:
        edits.append(Set("Controller", row.uuid, wrong))
        why.append(f"{', '.join(sorted(wrong))} of controller {row.target} set")
    return "; ".join(why), edits


def _settings() -> dict[str, object]:
    # In-band control would add hidden rules with priorities above all others.
    return {
        "connection_mode": ["out-of-band"],
        "max_backoff": [MAX_BACKOFF_MS],
        "inactivity_probe": [INACTIVITY_PROBE_MS],
    }


def _differences(row: ControllerRow, target: str) -> dict[str, object]:
    wrong = {name: value for name, value in _settings().items() if [getattr(row, name)] != value}
    if row.target != target:
        wrong["target"] = target
    if not marked(row.external_ids, wanted := ids(CONTROLLER, target)):
        wrong["external_ids"] = {**row.external_ids, **wanted}
    return wrong


def marked(external_ids: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether `external_ids` contain all of `wanted`."""
    return all(external_ids.get(key) == value for key, value in wanted.items())


def _flow_tables(database: Database, bridge: BridgeRow) -> tuple[str, list[Edit]]:
    edits: list[Edit] = []
    numbers = []
    for number in TABLES:
        row = database.flow_tables.get(bridge.flow_tables[number]) if number in bridge.flow_tables else None
        if row is None:
            columns = {"prefixes": list(PREFIXES), "external_ids": ids(PREFIX_TRACKING, None)}
            edits.append(Add("Bridge", bridge.uuid, "flow_tables", New("Flow_Table", columns), key=number))
        elif row.external_ids.get(OURS) == PREFIX_TRACKING and row.prefixes != PREFIXES:
            edits.append(Set("Flow_Table", row.uuid, {"prefixes": list(PREFIXES)}))
        else:
            continue
        numbers.append(str(number))
    return f"prefix tracking of tables {', '.join(numbers)} set", edits
