"""The packet of POST /v1/walk as JSON <-> `model.Packet`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsctl.errors import InvalidError
from fsctl.model.addresses import IPV4, IPV6, format_ip, format_mac
from fsctl.model.ip_protocols import UDP
from fsctl.model.packet import Packet
from fsctl.schema.addresses import host
from fsctl.schema.flows import DESTINATIONS, PORTS, PROTOCOLS, SOURCES
from fsctl.schema.text import Json, boolean, fields, integer
from fsctl.status import BridgeStatus

ANY_HOST_MAC = "02:66:73:63:74:6c"
"""Who sent the packet where the question does not say: nobody's MAC address."""
ANY_HOST = {IPV4: "192.0.2.1", IPV6: "2001:db8::1"}
"""The same for the source address: documentation addresses (RFC 5737, RFC 3849)."""
MAX_PORT = 0xFFFF_FEFF
"""OFPP_MAX and below are ordinary ports; OFPP_IN_PORT and above are reserved (OpenFlow 1.4, 7.2.1)."""

_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_OPTIONAL = (
    "eth_src", *DESTINATIONS, *SOURCES, "ttl", "length", "ip_proto", *PORTS, "icmpv6_type", "fragment", "vlan",
)  # fmt: skip


def read_packet(body: Json, bridges: Sequence[BridgeStatus]) -> Packet:
    """A packet that arrives at `in_port` (name or OpenFlow number) of `bridge`; raises InvalidError."""
    members = fields(body, "", ("bridge", "in_port", "eth_dst"), _OPTIONAL)
    bridge = next((b for b in bridges if b.name == members["bridge"]), None)
    if bridge is None:
        known = ", ".join(b.name for b in bridges)
        raise InvalidError(f"expected a bridge ({known})", field="bridge", value=members["bridge"])
    version = _version(members)
    ip_proto, sport, dport = _transport(members)
    source_field = f"ipv{version}_src"
    return Packet(
        bridge=bridge.name,
        in_port=_port(members["in_port"], bridge),
        eth_src=_any_mac(members.get("eth_src", ANY_HOST_MAC), "eth_src"),
        eth_dst=_any_mac(members["eth_dst"], "eth_dst"),
        version=version,
        src=host(version, members.get(source_field, ANY_HOST[version]), source_field),
        dst=host(version, members[f"ipv{version}_dst"], f"ipv{version}_dst"),
        ttl=integer(members.get("ttl", 64), "ttl", 0, 255),
        length=integer(members.get("length", 84), "length", 20 if version == IPV4 else 40, 65575),
        ip_proto=ip_proto,
        sport=sport,
        dport=dport,
        icmpv6_type=integer(members["icmpv6_type"], "icmpv6_type", 0, 255) if "icmpv6_type" in members else None,
        fragment=boolean(members.get("fragment", False), "fragment"),
        vlan=boolean(members.get("vlan", False), "vlan"),
    )


def _version(members: Json) -> int:
    given = [name for name in DESTINATIONS if name in members]
    if len(given) != 1:
        raise InvalidError("expected either ipv4_dst or ipv6_dst", field="ipv4_dst")
    version = DESTINATIONS[given[0]]
    for name, other in SOURCES.items():
        if name in members and other != version:
            raise InvalidError(f"expected ipv{version}_src beside {given[0]}", field=name, value=members[name])
    return version


def _transport(members: Json) -> tuple[int, int, int]:
    """ip_proto (where it is not given: as the ports say, else UDP) and both ports."""
    given = [name for name in PORTS if name in members]
    default = PORTS[given[0]] if given else UDP
    ip_proto = integer(members.get("ip_proto", default), "ip_proto", 0, 255)
    for name in given:
        if PORTS[name] != ip_proto:
            raise InvalidError(f"does not go with ip_proto {ip_proto}", field=name, value=members[name])
    if ip_proto not in PROTOCOLS:
        return ip_proto, 0, 0
    names = (f"{PROTOCOLS[ip_proto]}_src", f"{PROTOCOLS[ip_proto]}_dst")
    sport, dport = (integer(members.get(name, 0), name, 0, 65535) for name in names)
    return ip_proto, sport, dport


def _port(value: Json, bridge: BridgeStatus) -> int:
    """A port that the bridge has; while none is known, any number."""
    number = bridge.ofports.get(value) if isinstance(value, str) else integer(value, "in_port", 1, MAX_PORT)
    if number is None or (bridge.ofports and number not in bridge.ofports.values()):
        known = ", ".join(f"{name}: {ofport}" for name, ofport in bridge.ofports.items()) or "none is known now"
        raise InvalidError(f"expected a port of {bridge.name} ({known})", field="in_port", value=value)
    return number


def _any_mac(value: Json, path: str) -> int:
    """Unlike in a delegation, a packet's MAC addresses may be multicast or broadcast."""
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise InvalidError("expected a MAC address like 02:00:00:00:00:01", field=path, value=value)
    return int(value.replace(":", ""), 16)


def packet_json(packet: Packet, bridge: BridgeStatus | None = None) -> dict[str, Json]:
    """A packet as `read_packet` takes it, with the port's name where `bridge` knows it."""
    names = {} if bridge is None else {number: name for name, number in bridge.ofports.items()}
    out: dict[str, Json] = {
        "bridge": packet.bridge,
        "in_port": names.get(packet.in_port, packet.in_port),
        "eth_src": format_mac(packet.eth_src),
        "eth_dst": format_mac(packet.eth_dst),
    }
    version = packet.version
    if version is None:
        return out
    out[f"ipv{version}_src"], out[f"ipv{version}_dst"] = format_ip(version, packet.src), format_ip(version, packet.dst)
    out |= {"ttl": packet.ttl, "length": packet.length, "ip_proto": packet.ip_proto}
    if packet.ip_proto in PROTOCOLS:
        protocol = PROTOCOLS[packet.ip_proto]
        out |= {f"{protocol}_src": packet.sport, f"{protocol}_dst": packet.dport}
    if packet.icmpv6_type is not None:
        out["icmpv6_type"] = packet.icmpv6_type
    return out | {name: True for name in ("fragment", "vlan") if getattr(packet, name)}
