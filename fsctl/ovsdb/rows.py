"""The rows that fsctl reads, as plain values: field names are column names, references are UUIDs.

A column with at most one value is that value or None, a set is a sorted tuple, a map is a dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

Strings = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRow:
    uuid: UUID
    name: str = ""
    datapath_type: str = ""
    datapath_id: str | None = None
    fail_mode: str | None = None
    protocols: tuple[str, ...] = ()
    ports: tuple[UUID, ...] = ()
    controller: tuple[UUID, ...] = ()
    mirrors: tuple[UUID, ...] = ()
    flow_tables: Mapping[int, UUID] = field(default_factory=dict)
    stp_enable: bool = False
    rstp_enable: bool = False
    flood_vlans: tuple[int, ...] = ()
    other_config: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    uuid: UUID
    name: str = ""
    interfaces: tuple[UUID, ...] = ()
    tag: int | None = None
    trunks: tuple[int, ...] = ()
    cvlans: tuple[int, ...] = ()
    vlan_mode: str | None = None
    protected: bool = False
    qos: UUID | None = None
    bond_mode: str | None = None
    lacp: str | None = None
    bond_active_slave: str | None = None
    status: Strings = field(default_factory=dict)
    rstp_status: Strings = field(default_factory=dict)
    other_config: Strings = field(default_factory=dict)
    external_ids: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRow:
    uuid: UUID
    name: str = ""
    type: str = ""
    options: Strings = field(default_factory=dict)
    mtu: int | None = None
    mac_in_use: str | None = None
    error: str | None = None
    ingress_policing_rate: int = 0
    ingress_policing_kpkts_rate: int = 0
    external_ids: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerRow:
    uuid: UUID
    target: str = ""
    connection_mode: str | None = None
    max_backoff: int | None = None
    inactivity_probe: int | None = None
    is_connected: bool = False
    external_ids: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTableRow:
    uuid: UUID
    prefixes: tuple[str, ...] = ()
    external_ids: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorRow:
    uuid: UUID
    select_all: bool = False
    select_src_port: tuple[UUID, ...] = ()
    select_dst_port: tuple[UUID, ...] = ()
    output_port: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QosRow:
    uuid: UUID


@dataclass(frozen=True, slots=True)
class Database:
    """All rows at one moment, by UUID."""

    bridges: Mapping[UUID, BridgeRow] = field(default_factory=dict)
    ports: Mapping[UUID, PortRow] = field(default_factory=dict)
    interfaces: Mapping[UUID, InterfaceRow] = field(default_factory=dict)
    controllers: Mapping[UUID, ControllerRow] = field(default_factory=dict)
    flow_tables: Mapping[UUID, FlowTableRow] = field(default_factory=dict)
    mirrors: Mapping[UUID, MirrorRow] = field(default_factory=dict)
    qos: Mapping[UUID, QosRow] = field(default_factory=dict)

    def bridge_names(self) -> dict[str, BridgeRow]:
        """The bridges by name, in order of their names."""
        return {bridge.name: bridge for bridge in sorted(self.bridges.values(), key=lambda b: b.name)}

    def ports_of(self, bridge: BridgeRow) -> Iterator[PortRow]:
        """In order of their names."""
        yield from sorted((self.ports[u] for u in bridge.ports if u in self.ports), key=lambda p: p.name)

    def interfaces_of(self, port: PortRow) -> Iterator[InterfaceRow]:
        """In order of their names: one, or several where the port is a bond."""
        found = [self.interfaces[u] for u in port.interfaces if u in self.interfaces]
        yield from sorted(found, key=lambda i: i.name) if len(found) > 1 else found

    def controllers_of(self, bridge: BridgeRow) -> list[ControllerRow]:
        """In order of their targets."""
        found = [self.controllers[u] for u in bridge.controller if u in self.controllers]
        return sorted(found, key=lambda c: (c.target, str(c.uuid)))
