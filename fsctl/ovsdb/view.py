"""Rows -> `OvsdbView`. Pure; every view is a new object, sorted by names, and never changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from uuid import UUID

from fsctl.errors import InvalidError
from fsctl.model.addresses import parse_mac
from fsctl.ovsdb.admission import Mirrors, exempt, has_senders, unfit
from fsctl.ovsdb.edits import Key
from fsctl.ovsdb.links import Half, datapath_type, halves
from fsctl.ovsdb.marks import CONTROLLER, OURS, Pair, link_name
from fsctl.ovsdb.rows import BridgeRow, Database, PortRow
from fsctl.ovsdb.settings import is_our_controller
from fsctl.ovsdb.wanted import Wanted
from fsctl.status import BridgeInfo, OvsdbView, PortInfo

_LOG = logging.getLogger(__name__)
DEFAULT_MTU = 1_500
MAC_AGE_S, MIN_MAC_AGE_S, MAX_MAC_AGE_S = 300, 15, 3_600
MAC_TABLE_SIZE, MIN_MAC_TABLE_SIZE, MAX_MAC_TABLE_SIZE = 8_192, 10, 1_000_000
"""ovs-vswitchd's default and its bounds for other_config:mac-aging-time and mac-table-size."""


def view_of(
    database: Database, wanted: Wanted, link_problems: Mapping[Pair, str], contested: Set[Key] = frozenset()
) -> OvsdbView:
    """`contested`: the things that somebody keeps changing back."""
    ours = halves(database, wanted)
    own_ports = {half.port.uuid for half in ours}
    bridges = list(database.bridge_names().values())
    links: dict[str, dict[str, str]] = {}
    for half in _whole(database, ours):
        links.setdefault(half.bridge.name, {})[half.peer] = half.port.name
    return OvsdbView(
        ports={(bridge.name, info.name): info for bridge in bridges for info in _ports(database, bridge, own_ports)},
        links=links,
        bridges={bridge.name: _bridge(database, bridge, wanted, contested) for bridge in bridges},
        link_problems=dict(link_problems),
        is_known=True,
    )


def _whole(database: Database, ours: list[Half]) -> Iterator[Half]:
    """The halves of links that carry packets: both ports are present, name each other as peer, and have one datapath type."""
    carrying = {}
    for half in ours:
        peer_port = link_name(half.peer, half.bridge.name)
        if half.port.name == link_name(half.bridge.name, half.peer) and any(
            interface.name == half.port.name
            and interface.type == "patch"
            and interface.options.get("peer") == peer_port
            and not interface.error
            for interface in database.interfaces_of(half.port)
        ):
            carrying[half.bridge.name, half.peer] = half
    for (here, there), half in carrying.items():
        other = carrying.get((there, here))
        if other is not None and datapath_type(half.bridge) == datapath_type(other.bridge):
            yield half


def _bridge(database: Database, bridge: BridgeRow, wanted: Wanted, contested: Set[Key]) -> BridgeInfo:
    mac_age_s = _number(bridge, "mac-aging-time", MAC_AGE_S, MIN_MAC_AGE_S, MAX_MAC_AGE_S)
    if bridge.stp_enable or bridge.rstp_enable:
        # When the tree changes, hosts move to other ports: learned senders must expire soon.
        mac_age_s = min(mac_age_s, MIN_MAC_AGE_S)
    return BridgeInfo(
        bridge.name,
        datapath_type(bridge),
        mac_age_s,
        _number(bridge, "mac-table-size", MAC_TABLE_SIZE, MIN_MAC_TABLE_SIZE, MAX_MAC_TABLE_SIZE),
        tuple(_warnings(database, bridge, wanted, contested)),
        None if bridge.datapath_id is None else int(bridge.datapath_id, 16),
    )


def _number(bridge: BridgeRow, name: str, default: int, least: int, most: int) -> int:
    """ovs-vswitchd takes what is no number for the default, and what is out of bounds for the bound."""
    try:
        value = int(bridge.other_config.get(name, ""), 0)
    except ValueError:
        return default
    return max(least, min(most, value)) if value > 0 else default


def _warnings(database: Database, bridge: BridgeRow, wanted: Wanted, contested: Set[Key]) -> Iterator[str]:
    for name, is_set in (("stp_enable", bridge.stp_enable), ("rstp_enable", bridge.rstp_enable)):
        if is_set:
            yield (
                f"{name} is set: fsctl's patch ports take no part in the spanning tree, routers' ports that are not"
                " forwarding are not bypassed, and senders are forgotten after 15 s"
            )
    if bridge.flood_vlans:
        yield "flood_vlans is set: the bridge learns no MAC addresses there"
    if not wanted.manages(bridge.name):
        return
    for row in database.controllers_of(bridge):
        if row.external_ids.get(OURS) == CONTROLLER and not is_our_controller(row, wanted.controller):
            yield f"another fsctl, {row.target}, is a controller of this bridge too: take the bridge out of one's configuration"
    for key in sorted(contested):
        if key[0] != "unlink" and bridge.name in key[1:]:
            yield f"somebody keeps changing {_named(key)}: fsctl sets it back with growing pauses"


def _named(key: Key) -> str:
    return f"the link between {' and '.join(key[1:])}" if key[0] == "link" else key[0]


def _ports(database: Database, bridge: BridgeRow, own_ports: Set[UUID]) -> Iterator[PortInfo]:
    mirrors = Mirrors.of(database, bridge)
    for port in database.ports_of(bridge):
        if port.uuid not in own_ports:
            yield from _infos(database, bridge, port, mirrors)


def _infos(database: Database, bridge: BridgeRow, port: PortRow, mirrors: Mirrors) -> Iterator[PortInfo]:
    """One per interface: OpenFlow's ports are OVSDB's interfaces (a bond has several)."""
    members = list(database.interfaces_of(port))
    for interface in members:
        yield PortInfo(
            name=interface.name,
            bridge=bridge.name,
            attached_mac=_attached_mac(interface.external_ids.get("attached-mac")),
            mtu=interface.mtu or DEFAULT_MTU,
            exempt=exempt(port, interface, members, mirrors),
            unfit=unfit(bridge, port, interface, members, mirrors),
            iface_id=interface.external_ids.get("iface-id", ""),
            uuid=str(interface.uuid),
            has_senders=has_senders(port, interface, members, mirrors),
        )


@lru_cache(maxsize=4_096)
def _attached_mac(text: str | None) -> int | None:
    """attached-mac as a number. Xen and libvirt write it; an invalid value counts as none."""
    try:
        return None if text is None else parse_mac(text)
    except InvalidError:
        _LOG.warning("external_ids:attached-mac is not a unicast MAC address: %r", text)
        return None
