"""Which ports may take part in the bypass, and why others may not, according to OVSDB.

Delay: Open vSwitch writes `Port:status`, `Port:rstp_status`, `Port:bond_active_slave` and
`Interface:mac_in_use` when a state changes, at most every 100 ms (its 5 s timer is for counters only). fsctl reads them in
its next step, at most 100 ms later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from fsctl.ovsdb.rows import BridgeRow, Database, InterfaceRow, PortRow

ACTIVE_BACKUP = "active-backup"


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The ports that a bridge's mirrors select or send to."""

    outputs: frozenset[UUID] = frozenset()
    selected: frozenset[UUID] = frozenset()
    selects_all: bool = False

    @staticmethod
    def of(database: Database, bridge: BridgeRow) -> Mirrors:
        rows = [database.mirrors[uuid] for uuid in bridge.mirrors if uuid in database.mirrors]
        return Mirrors(
            frozenset(row.output_port for row in rows if row.output_port is not None),
            frozenset(uuid for row in rows for uuid in (*row.select_src_port, *row.select_dst_port)),
            any(row.select_all for row in rows),
        )


Members = Sequence[InterfaceRow]
"""All interfaces of a port: one, or several where it is a bond."""


def exempt(port: PortRow, interface: InterfaceRow, members: Members, mirrors: Mirrors) -> str:
    """Why frames that arrive there are left to NORMAL, which knows how to treat such ports; empty if they are not."""
    if port.tag is not None or port.trunks or port.cvlans or port.vlan_mode:
        return "has a VLAN configuration"
    if port.protected:
        return "is protected"
    if port.uuid in mirrors.outputs:
        return "is a mirror's output port"
    if len(members) > 1 and not _is_active(port, interface, members):
        return "is a bond member that Open vSwitch may not receive from"
    return ""


def has_senders(port: PortRow, interface: InterfaceRow, members: Members, mirrors: Mirrors) -> bool:
    """Whether NORMAL takes untagged frames from there, as of VLAN 0 (ovs-vswitchd.conf.db(5), Port, VLAN Configuration)."""
    if port.uuid in mirrors.outputs:
        return False
    if len(members) > 1 and any(_is_active(port, m, members) for m in members) and not _is_active(port, interface, members):
        return False
    mode = port.vlan_mode or ("trunk" if port.tag is None else "access")
    if mode == "trunk":
        return not port.trunks or 0 in port.trunks
    return not port.tag and mode in ("access", "native-tagged", "native-untagged")


def unfit(bridge: BridgeRow, port: PortRow, interface: InterfaceRow, members: Members, mirrors: Mirrors) -> str:
    """Why a router's interface at this port is not bypassed; empty if it may be."""
    if len(members) > 1:
        return exempt(port, interface, members, mirrors) or "is a bond member"
    return exempt(port, interface, members, mirrors) or next(_hindrances(bridge, port, interface, mirrors), "")


def _is_active(port: PortRow, interface: InterfaceRow, members: Members) -> bool:
    """Whether NORMAL takes all frames from this member: the active one of an active-backup bond without LACP.

    In other modes it depends on LACP, on the hash and on what the bridge has learned.
    """
    return (
        (port.bond_mode or ACTIVE_BACKUP) == ACTIVE_BACKUP
        and (port.lacp or "off") == "off"
        and bool(interface.mac_in_use)
        and port.bond_active_slave == interface.mac_in_use
        and sum(member.mac_in_use == interface.mac_in_use for member in members) == 1
    )


def _hindrances(bridge: BridgeRow, port: PortRow, interface: InterfaceRow, mirrors: Mirrors) -> Iterator[str]:
    """What the host does to packets of this port, and the bypass would not."""
    if port.qos is not None:
        yield "has QoS"
    if interface.ingress_policing_rate or interface.ingress_policing_kpkts_rate:
        yield "has ingress policing"
    if mirrors.selects_all or port.uuid in mirrors.selected:
        yield "is mirrored"
    stp = port.status.get("stp_state", "") if bridge.stp_enable else ""
    if stp and stp != "forwarding":
        yield f"is not forwarding (STP: {stp})"
    rstp = port.rstp_status.get("rstp_port_state", "") if bridge.rstp_enable else ""
    if rstp and rstp != "Forwarding":
        yield f"is not forwarding (RSTP: {rstp.lower()})"
