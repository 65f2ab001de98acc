"""Frames from A to B that are odd in one way each: what a router does with them is for comparison with the bypass."""

from __future__ import annotations

import socket
import struct

from packets import ETH_P_IPV6, ethernet, ipv4_packet, mac_bytes, ones_sum, udp

from topologies.lab import Lab

IPV4_OPTIONS = {
    "no operation": b"\1\1\1\0",
    "router alert": bytes((148, 4, 0, 0)),
    "record route": bytes((7, 7, 4, 0, 0, 0, 0, 0)),
    "timestamp": bytes((68, 8, 5, 0, 0, 0, 0, 0)),
    "loose source route": bytes((131, 7, 4, 10, 0, 2, 10, 0)),
    "strict source route": bytes((137, 7, 4, 10, 0, 2, 10, 0)),
    "security (CIPSO)": bytes((134, 8, 0, 0, 0, 0, 0, 0)),
    "broken option": bytes((7, 60, 4, 0)),
}
HOP_BY_HOP = {
    "padding": bytes((1, 4, 0, 0, 0, 0)),
    "router alert": bytes((5, 2, 0, 0, 1, 0)),
    "unknown, skip": bytes((0x3E, 4, 0, 0, 0, 0)),
    "unknown, drop": bytes((0x7E, 4, 0, 0, 0, 0)),
    "unknown, answer": bytes((0xBE, 4, 0, 0, 0, 0)),
}


def marker(name: str) -> bytes:
    return f"<{name}>".encode()


def ipv6_packet(src: str, dst: str, payload: bytes, next_header: int = 17, version: int = 6, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    head = struct.pack("!IHBB", version << 28, size, next_header, 64)
    return head + socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst) + payload


def rewritten(packet: bytes, at: int, new: bytes) -> bytes:
    """With other bytes in the IPv4 header, and its checksum right again."""
    head = packet[:at] + new + packet[at + len(new) :]
    head = head[:10] + b"\0\0" + head[12:]
    size = (head[0] & 0xF) * 4
    return head[:10] + struct.pack("!H", ones_sum(head[:size])) + head[12:]


class OddFrames:
    """All of them by name."""

    def __init__(self, lab: Lab) -> None:
        self.a, self.b = lab.address("a"), lab.address("b")
        self.a6, self.b6 = lab.address("a", 6), lab.address("b", 6)
        self.router, self.sender = (lab.topo.stations[name].ports[0].mac for name in ("r1", "a"))
        self.frames: dict[str, bytes] = {}
        self._ipv4()
        self._link()
        self._ipv6()

    def _add(self, name: str, packet: bytes, eth_type: int = 0x0800, vid: int | None = None, eth_src: str = "") -> None:
        self.frames[name] = ethernet(self.router, eth_src or self.sender, packet, eth_type, vid)

    def _plain(self, name: str, **changes: int | bytes) -> bytes:
        return ipv4_packet(self.a, self.b, udp(marker(name) + bytes(20)), **changes)  # type: ignore[arg-type]

    def _ipv4(self) -> None:
        plain = self._plain
        self._add("nothing odd", plain("nothing odd"))
        wrong = bytearray(plain("IPv4 header checksum"))
        wrong[10] ^= 0xFF
        self._add("IPv4 header checksum", bytes(wrong))
        self._add("IPv4 version 5", plain("IPv4 version 5", version=5))
        self._add("IPv4 version 6", plain("IPv4 version 6", version=6))
        self._add("IPv4 header of 16 bytes", rewritten(plain("IPv4 header of 16 bytes"), 0, b"\x44"))
        self._add("IPv4 total length too large", rewritten(plain("IPv4 total length too large"), 2, b"\2\0"))
        self._add("IPv4 trailing bytes", plain("IPv4 trailing bytes") + b"T" * 30)
        for name, option in IPV4_OPTIONS.items():
            self._add(f"IPv4 option: {name}", plain(f"IPv4 option: {name}", options=option))
        for name, field in {"reserved bit": 0x8000, "do not fragment": 0x4000, "last fragment": 5}.items():
            self._add(name, plain(name, fragment=field))
        for protocol in (0, 255):
            self._add(f"IPv4 protocol {protocol}", plain(f"IPv4 protocol {protocol}", protocol=protocol))
        for source in ("240.0.0.1", "169.254.1.1", self.b, "10.0.0.255", "0.0.0.0", "127.0.0.1", "224.0.0.1"):
            name = f"IPv4 from {source}"
            self._add(name, ipv4_packet(source, self.b, udp(marker(name) + bytes(20))))

    def _link(self) -> None:
        plain = self._plain
        for vid in (0, 0xA000, 7):
            self._add(f"VLAN {vid:#x}", plain(f"VLAN {vid:#x}"), vid=vid)
        tags = struct.pack("!HHHHH", 0x88A8, 5, 0x8100, 6, 0x0800)
        self.frames["two tags"] = mac_bytes(self.router) + mac_bytes(self.sender) + tags + plain("two tags")
        packet = plain("LLC/SNAP")
        snap = struct.pack("!H", 8 + len(packet)) + b"\xaa\xaa\x03\0\0\0\x08\0"
        self.frames["LLC/SNAP"] = mac_bytes(self.router) + mac_bytes(self.sender) + snap + packet
        for eth_src in ("00:00:00:00:00:00", "01:00:5e:00:00:01", self.router):
            self._add(f"from {eth_src}", plain(f"from {eth_src}"), eth_src=eth_src)

    def _ipv6(self) -> None:
        def payload(name: str) -> bytes:
            return udp(marker(name) + bytes(20))

        def add(name: str, packet: bytes) -> None:
            self._add(name, packet, ETH_P_IPV6)

        add("IPv6", ipv6_packet(self.a6, self.b6, payload("IPv6")))
        add("IPv6 version 4", ipv6_packet(self.a6, self.b6, payload("IPv6 version 4"), version=4))
        add("IPv6 trailing bytes", ipv6_packet(self.a6, self.b6, payload("IPv6 trailing bytes")) + b"T" * 30)
        add("IPv6 length too large", ipv6_packet(self.a6, self.b6, payload("IPv6 length too large"), length=500))
        add("IPv6 no next header", ipv6_packet(self.a6, self.b6, payload("IPv6 no next header"), 59))
        for kind, number in (("hop-by-hop", 0), ("destination", 60)):
            for name, option in HOP_BY_HOP.items():
                full = f"IPv6 {kind} option: {name}"
                add(full, ipv6_packet(self.a6, self.b6, b"\x11\0" + option + payload(full), number))
        routing = bytes((17, 2, 0, 1, 0, 0, 0, 0)) + socket.inet_pton(socket.AF_INET6, self.b6)
        add("IPv6 routing header", ipv6_packet(self.a6, self.b6, routing + payload("IPv6 routing header"), 43))
        for source in ("::ffff:10.0.0.10", "fec0::1", "::1", "ff02::1", "fe80::1"):
            add(f"IPv6 from {source}", ipv6_packet(source, self.b6, payload(f"IPv6 from {source}")))
