"""Frames built and taken apart by hand, and sockets that see all that passes the devices of a namespace."""

from __future__ import annotations

import ipaddress
import re
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

ETH_P_ALL = 3
CHATTER = 0x88B5
"""Local experimental ethertype (IEEE 802): stations say that they are there."""
NOBODYS_VLAN = 4095
"""Reserved (IEEE 802.1Q, 9.6), and fsctl's for its links: fsctl drops such frames on every port of its bridges."""
SOL_PACKET, ADD_MEMBERSHIP, AUXDATA, IGNORE_OUTGOING, MR_PROMISC = 263, 1, 8, 23, 1
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct("=IIIHHHH")
_MARK = re.compile(rb"soak:([0-9a-f]{8})")
_NEVER_RATIONED = (4,)
"""Codes of "unreachable": fragmentation needed."""
Heard = Callable[[str, bytes], None]


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def mac_text(data: bytes) -> str:
    return data.hex(":")


def ones_sum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mark_of(frame: bytes) -> int | None:
    """The number that a frame of the soak carries, also inside an ICMP error."""
    found = _MARK.search(frame)
    return int(found[1], 16) if found else None


@dataclass(frozen=True, slots=True)
class Probe:
    """A UDP packet. `size` counts the IP packet; `more`, `offset` (in bytes) make it a fragment; `vlan` tags the frame.

    `eth_type` makes it something else than IP.
    """

    sender: str
    eth_src: str
    eth_dst: str
    src: str
    dst: str
    ttl: int = 64
    size: int = 100
    more: bool = False
    offset: int = 0
    dont_fragment: bool = False
    vlan: int | None = None
    eth_type: int | None = None
    mark: int = 0

    @property
    def is_plain(self) -> bool:
        """Nothing about it but its addresses keeps it out of a bypass."""
        return self.vlan is None and self.ttl > 32

    def frame(self) -> bytes:
        src, dst = ipaddress.ip_address(self.src), ipaddress.ip_address(self.dst)
        packet = self._ipv4(src.packed, dst.packed) if src.version == 4 else self._ipv6(src.packed, dst.packed)
        tag = b"" if self.vlan is None else struct.pack("!HH", 0x8100, self.vlan)
        kind = struct.pack("!H", self.eth_type or (0x0800 if src.version == 4 else 0x86DD))
        return mac_bytes(self.eth_dst) + mac_bytes(self.eth_src) + tag + kind + packet

    def _payload(self, room: int) -> bytes:
        return (b"soak:%08x " % self.mark).ljust(room, b".")

    def _ipv4(self, src: bytes, dst: bytes) -> bytes:
        body = self._payload(self.size - 20) if self.offset else self._udp(src + dst, self.size - 20)
        flags = (0x4000 if self.dont_fragment else 0) | (0x2000 if self.more else 0) | self.offset // 8
        head = struct.pack("!BBHHHBBH", 0x45, 0, self.size, self.mark & 0xFFFF, flags, self.ttl, 17, 0) + src + dst
        return head[:10] + struct.pack("!H", ones_sum(head)) + head[12:] + body

    def _ipv6(self, src: bytes, dst: bytes) -> bytes:
        body = self._udp(src + dst, self.size - 40)
        return struct.pack("!IHBB", 6 << 28, len(body), 17, self.ttl) + src + dst + body

    def _udp(self, addresses: bytes, length: int) -> bytes:
        payload = self._payload(length - 8)
        head = struct.pack("!HHHH", 7000, 7001, length, 0)
        if self.more:
            return head + payload  # the sum would span all fragments
        pseudo = addresses + struct.pack("!IHBB", length, 0, 0, 17)
        return head[:6] + struct.pack("!H", ones_sum(pseudo + head + payload) or 0xFFFF) + payload


def chatter(mac: str, station: str) -> bytes:
    """A broadcast that teaches bridges where a station is."""
    return b"\xff" * 6 + mac_bytes(mac) + struct.pack("!H", CHATTER) + station.encode().ljust(46, b"\0")


@dataclass(frozen=True, slots=True)
class Frame:
    """A captured frame, as far as the soak looks into it. `dst` is None unless it is IP."""

    raw: bytes
    vlan: int | None
    kind: int
    dst: str | None

    @property
    def eth_dst(self) -> str:
        return mac_text(self.raw[:6])

    @property
    def eth_src(self) -> str:
        return mac_text(self.raw[6:12])

    @property
    def is_multicast(self) -> bool:
        return bool(self.raw[0] & 1)


def parse(raw: bytes) -> Frame:
    (kind,), at, vlan = struct.unpack_from("!H", raw, 12), 14, None
    if kind == 0x8100:
        tci, kind = struct.unpack_from("!HH", raw, 14)
        vlan, at = tci & 0xFFF, 18
    dst = None
    if kind == 0x0800 and len(raw) >= at + 20:
        dst = str(ipaddress.IPv4Address(raw[at + 16 : at + 20]))
    elif kind == 0x86DD and len(raw) >= at + 40:
        dst = str(ipaddress.IPv6Address(raw[at + 24 : at + 40]))
    return Frame(raw, vlan, kind, dst)


def _at(raw: bytes) -> int:
    """Where the ethertype stands, behind a tag if there is one."""
    return 16 if raw[12:14] == b"\x81\x00" else 12


def is_icmp(raw: bytes) -> bool:
    """A router's word about a packet, which it quotes."""
    at = _at(raw)
    if raw[at : at + 2] == b"\x08\x00":
        return len(raw) > at + 23 and raw[at + 11] == 1
    return raw[at : at + 2] == b"\x86\xdd" and raw[at + 8] == 58


def is_rationed(raw: bytes) -> bool:
    """An IPv4 "unreachable" (RFC 792) but for "fragmentation needed": Linux sends few of these to a sender and in all, which
    cannot be changed in a namespace (net.ipv4.route.error_cost, icmp_msgs_per_sec).
    """
    at = _at(raw)
    return is_icmp(raw) and raw[at] == 0x08 and raw[at + 22] == 3 and raw[at + 23] not in _NEVER_RATIONED


def comparable(raw: bytes) -> bytes:
    """The frame without what a router draws at random for packets of its own: the identification of ICMP errors."""
    if not is_icmp(raw):
        return raw
    at = _at(raw)
    if raw[at] == 0x08:
        return raw[: at + 6] + b"\0\0" + raw[at + 8 : at + 12] + b"\0\0" + raw[at + 14 :]
    return raw[: at + 2] + b"\x60\0\0\0" + raw[at + 6 :]


def renumbered(probe: Probe, mark: int) -> Probe:
    return replace(probe, mark=mark)


class Devices:
    """The devices of the calling thread's namespace: to send from each, and to hear what comes in at any of them."""

    def __init__(self, devices: dict[str, str], heard: Heard) -> None:
        self._heard = heard
        self.names = {device: station for station, device in devices.items()}
        self.out: dict[str, socket.socket] = {}
        self.ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
        self.ear.setsockopt(SOL_PACKET, AUXDATA, 1)
        self.ear.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        for station, device in devices.items():
            index = socket.if_nametoindex(device)
            self.ear.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("IHH8s", index, MR_PROMISC, 0, b""))
            self.out[station] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.out[station].bind((device, 0))

    def send(self, station: str, frame: bytes) -> None:
        try:
            self.out[station].send(frame)
        except OSError:
            return  # the device is down just now: the frame is lost, as it is on any wire

    def take(self) -> None:
        """Hand one frame over."""
        data, extra, _, address = self.ear.recvmsg(65536, 256)
        station = self.names.get(address[0])
        if station is None:
            return
        for level, kind, value in extra:
            if level == SOL_PACKET and kind == AUXDATA:
                status, *_, tci, tpid = _AUXDATA.unpack_from(value)
                if status & TP_STATUS_VLAN_VALID:
                    data = data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
        self._heard(station, data)

    def close(self) -> None:
        for s in (self.ear, *self.out.values()):
            s.close()


class Ears:
    """One thread that listens at all devices of several namespaces."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.problem = ""

    def add(self, devices: Devices) -> None:
        self._selector.register(devices.ear, selectors.EVENT_READ, devices)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for key, _ in self._selector.select(0.2):
                    self._drain(key.data)
        except Exception as e:  # noqa: BLE001 - a thread's error is the test's
            self.problem = f"the capture ended: {e!r}"

    @staticmethod
    def _drain(devices: Devices) -> None:
        devices.ear.setblocking(False)
        for _ in range(64):
            try:
                devices.take()
            except BlockingIOError:
                return
