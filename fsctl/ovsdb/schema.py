"""The part of Open vSwitch's schema that fsctl reads or writes. Other columns and their updates are not requested."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fsctl.ovsdb.rows import BridgeRow, ControllerRow, FlowTableRow, InterfaceRow, MirrorRow, PortRow, QosRow


def _set_of(kind: str | dict[str, str]) -> dict[str, Any]:
    return {"key": kind, "min": 0, "max": "unlimited"}


def _optional(kind: str | dict[str, str]) -> dict[str, Any]:
    return {"key": kind, "min": 0, "max": 1}


def _reference(table: str) -> dict[str, str]:
    return {"type": "uuid", "refTable": table}


_STRINGS = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
_FLOW_TABLES = {"key": "integer", "value": _reference("Flow_Table"), "min": 0, "max": "unlimited"}
COLUMNS: dict[str, dict[str, Any]] = {
    "Bridge": {
        "name": "string",
        "datapath_type": "string",
        "datapath_id": _optional("string"),
        "fail_mode": _optional("string"),
        "protocols": _set_of("string"),
        "ports": _set_of(_reference("Port")),
        "controller": _set_of(_reference("Controller")),
        "mirrors": _set_of(_reference("Mirror")),
        "flow_tables": _FLOW_TABLES,
        "stp_enable": "boolean",
        "rstp_enable": "boolean",
        "flood_vlans": _set_of("integer"),
        "other_config": _STRINGS,
    },
    "Port": {
        "name": "string",
        "interfaces": _set_of(_reference("Interface")),
        "tag": _optional("integer"),
        "trunks": _set_of("integer"),
        "cvlans": _set_of("integer"),
        "vlan_mode": _optional("string"),
        "protected": "boolean",
        "qos": _optional(_reference("QoS")),
        "bond_mode": _optional("string"),
        "lacp": _optional("string"),
        "bond_active_slave": _optional("string"),
        "status": _STRINGS,
        "rstp_status": _STRINGS,
        "other_config": _STRINGS,
        "external_ids": _STRINGS,
    },
    "Interface": {
        "name": "string",
        "type": "string",
        "options": _STRINGS,
        "mtu": _optional("integer"),
        "mac_in_use": _optional("string"),
        "error": _optional("string"),
        "ingress_policing_rate": "integer",
        "ingress_policing_kpkts_rate": "integer",
        "external_ids": _STRINGS,
    },
    "Controller": {
        "target": "string",
        "connection_mode": _optional("string"),
        "max_backoff": _optional("integer"),
        "inactivity_probe": _optional("integer"),
        "is_connected": "boolean",
        "external_ids": _STRINGS,
    },
    "Flow_Table": {"prefixes": _set_of("string"), "external_ids": _STRINGS},
    "Mirror": {
        "select_all": "boolean",
        "select_src_port": _set_of(_reference("Port")),
        "select_dst_port": _set_of(_reference("Port")),
        "output_port": _optional(_reference("Port")),
    },
    "QoS": {"type": "string"},
}

FIELDS: dict[str, str] = {
    "Bridge": "bridges",
    "Port": "ports",
    "Interface": "interfaces",
    "Controller": "controllers",
    "Flow_Table": "flow_tables",
    "Mirror": "mirrors",
    "QoS": "qos",
}
"""Table -> the field of `Database` that holds its rows."""
REFERS_TO = {"ports": "Port", "controller": "Controller", "interfaces": "Interface", "flow_tables": "Flow_Table"}
"""Column -> the table that its UUIDs are of."""
_CLASSES: dict[str, Any] = {
    "Bridge": BridgeRow,
    "Port": PortRow,
    "Interface": InterfaceRow,
    "Controller": ControllerRow,
    "Flow_Table": FlowTableRow,
    "Mirror": MirrorRow,
    "QoS": QosRow,
}
_MONITOR_ONLY = {"QoS": frozenset({"type"})}
"""Columns that are monitored only because a table needs at least one."""


def schema_json() -> dict[str, Any]:
    """The schema for `ovs.db.idl.SchemaHelper`."""
    tables = {name: {"columns": {c: {"type": t} for c, t in columns.items()}} for name, columns in COLUMNS.items()}
    return {"name": "Open_vSwitch", "version": "8.0.0", "tables": tables}


def row_of(table: str, uuid: UUID, datums: Any) -> Any:
    """A plain row from `datums`: column -> ovs.db.data.Datum."""
    skipped = _MONITOR_ONLY.get(table, frozenset())
    columns = {name: _plain(kind, datums[name].values) for name, kind in COLUMNS[table].items() if name not in skipped}
    return _CLASSES[table](uuid=uuid, **columns)


def _plain(kind: Any, values: Any) -> Any:
    """`values` is a dict of atoms: key -> value for a map, else key -> None."""
    if isinstance(kind, str) or kind["max"] == 1:
        return next((atom.value for atom in values), None)
    if "value" in kind:
        return {key.value: value.value for key, value in values.items()}
    return tuple(sorted(atom.value for atom in values))
