"""Packets made, sent, caught and checked by hand, and streams whose every packet is accounted for."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from topologies.lab import Lab
from topologies.nodes import Guest

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
PORT = 7000


@dataclass(frozen=True, slots=True)
class Frame:
    """A caught IP packet: `ttl` is TTL or hop limit, `checksum_ok` that of TCP or UDP (None: neither)."""

    eth_dst: str
    eth_src: str
    version: int
    src: str
    dst: str
    ttl: int
    protocol: int
    payload: bytes
    checksum_ok: bool | None


def family_of(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def ones_sum(data: bytes) -> int:
    """RFC 1071; zero over data whose own checksum is right."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse(raw: bytes) -> Frame | None:
    """An unfragmented IP packet without options or extension headers; None for anything else."""
    (eth_type,) = struct.unpack_from("!H", raw, 12)
    macs = raw[0:6].hex(":"), raw[6:12].hex(":")
    if eth_type == ETH_P_IP:
        length = struct.unpack_from("!H", raw, 16)[0]
        header, payload = raw[14:34], raw[34 : 14 + length]
        version, ttl, protocol, src, dst = 4, header[8], header[9], header[12:16], header[16:20]
        assert ones_sum(header) == 0, "IPv4 header checksum is wrong"
    elif eth_type == ETH_P_IPV6:
        length, protocol, ttl = struct.unpack_from("!HBB", raw, 18)
        version, src, dst, payload = 6, raw[22:38], raw[38:54], raw[54 : 54 + length]
    else:
        return None
    checksum_ok = None
    if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        pseudo = src + dst + struct.pack("!II", len(payload), protocol)
        checksum_ok = ones_sum(pseudo + payload) == 0
    texts = str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst))
    return Frame(*macs, version, *texts, ttl, protocol, payload, checksum_ok)


class Listener:
    """All IP packets that an interface of a guest takes in or out while it is open."""

    def __init__(self, guest: Guest, interface: str = "eth0") -> None:
        self._socket = guest.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self._socket.bind((interface, ETH_P_ALL))
        # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC: frames for other MACs too.
        index = int(guest.execute("cat", f"/sys/class/net/{interface}/ifindex"))
        self._socket.setsockopt(263, 1, struct.pack("IHH8s", index, 1, 0, b""))

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def frames(self, seconds: float = 0.3) -> Iterator[Frame]:
        """What has come in so far and comes within the next `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                raw, address = self._socket.recvfrom(65536)
            except TimeoutError:
                return
            if address[2] != PACKET_OUTGOING and (frame := parse(raw)) is not None:
                yield frame


def send_udp(guest: Guest, address: str, payload: bytes, ttl: int = 64, port: int = PORT) -> None:
    """One UDP packet with this TTL or hop limit."""
    version = ipaddress.ip_address(address).version
    with guest.open_socket(family_of(version), socket.SOCK_DGRAM) as sock:
        level, option = (socket.IPPROTO_IP, socket.IP_TTL) if version == 4 else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        sock.setsockopt(level, option, ttl)
        sock.sendto(payload, (address, port))


def caught(lab: Lab, sender: str, receiver: str, version: int = 4, ttl: int = 64, interface: str = "eth0") -> Frame | None:
    """Send one packet and catch it at the receiver."""
    marker = f"{sender}>{receiver} {time.monotonic()}".encode()
    with Listener(lab[receiver], interface) as listener:
        send_udp(lab[sender], lab.address(receiver, version), marker, ttl)
        for frame in listener.frames(3):
            if frame.payload.endswith(marker):
                return frame
    return None


def forwarded(lab: Lab, router: str) -> int:
    """Packets, IPv4 and IPv6, that a router has forwarded itself."""
    proc = Path(f"/proc/{lab[router].pid}/net")
    rows = [line.split() for line in (proc / "snmp").read_text().splitlines() if line.startswith("Ip:")]
    v4 = dict(zip(rows[0], rows[1], strict=True))["ForwDatagrams"]
    v6 = dict(line.split() for line in (proc / "snmp6").read_text().splitlines())["Ip6OutForwDatagrams"]
    return int(v4) + int(v6)


@dataclass(slots=True)
class Stream:
    """What a steady stream came to: numbers of packets sent, and the set that arrived."""

    sent: int = 0
    arrived: set[int] | None = None

    @property
    def lost(self) -> list[int]:
        assert self.arrived is not None, "still running"
        return sorted(set(range(self.sent)) - self.arrived)


@contextmanager
def stream(lab: Lab, sender: str, receiver: str, version: int = 4, rate_pps: int = 300) -> Iterator[Stream]:
    """Numbered UDP packets at a steady rate while the block runs; after it, the result is complete."""
    result, arrived, stopping = Stream(), set[int](), threading.Event()
    address = lab.address(receiver, version)
    with (
        lab[sender].open_socket(family_of(version), socket.SOCK_DGRAM) as source,
        lab[receiver].open_socket(family_of(version), socket.SOCK_DGRAM) as sink,
    ):
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        sink.bind((address, PORT))
        sink.settimeout(1.0)

        def send() -> None:
            start = time.monotonic()
            while not stopping.is_set():
                if time.monotonic() - start < result.sent / rate_pps:
                    time.sleep(0.2 / rate_pps)
                    continue
                source.sendto(struct.pack("!I", result.sent), (address, PORT))
                result.sent += 1

        def receive() -> None:
            while True:
                try:
                    arrived.add(struct.unpack("!I", sink.recv(64))[0])
                except TimeoutError:
                    if stopping.is_set():
                        return

        threads = [threading.Thread(target=receive), threading.Thread(target=send)]
        for thread in threads:
            thread.start()
        try:
            yield result
        finally:
            stopping.set()
            for thread in reversed(threads):
                thread.join()
            result.arrived = arrived


# Frames byte by byte


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ipv4_packet(src: str, dst: str, payload: bytes, protocol: int = socket.IPPROTO_UDP, ttl: int = 64,
                fragment: int = 0, options: bytes = b"", version: int = 4, ident: int = 1) -> bytes:  # fmt: skip
    """`fragment` is the field of flags and offset as it stands in the header; `options` a multiple of 4 bytes."""
    first = version << 4 | (5 + len(options) // 4)
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(payload), ident, fragment, ttl, protocol, 0)
    head += socket.inet_aton(src) + socket.inet_aton(dst) + options
    return head[:10] + struct.pack("!H", ones_sum(head)) + head[12:] + payload


def udp(payload: bytes, sport: int = PORT, dport: int = PORT) -> bytes:
    """A UDP datagram without a checksum, as IPv4 allows."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ethernet(eth_dst: str, eth_src: str, payload: bytes, eth_type: int = ETH_P_IP, vid: int | None = None) -> bytes:
    tag = b"" if vid is None else struct.pack("!HH", 0x8100, vid)
    return mac_bytes(eth_dst) + mac_bytes(eth_src) + tag + struct.pack("!H", eth_type) + payload


def send_frames(guest: Guest, *frames: bytes, interface: str = "eth0") -> None:
    """Whatever the guest's kernel would say of them."""
    with guest.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for frame in frames:
            sock.send(frame)


class RawListener(Listener):
    """All frames, as bytes; a VLAN tag that the kernel has taken out is in front again."""

    def __init__(self, guest: Guest, interface: str = "eth0") -> None:
        super().__init__(guest, interface)
        self._socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA

    def raw(self, seconds: float = 0.3) -> list[bytes]:
        found, deadline = [], time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, ancillary, _, address = self._socket.recvmsg(65536, 256)
            except TimeoutError:
                break
            if address[2] == PACKET_OUTGOING:
                continue
            for level, kind, aux in ancillary:
                status, *_, tci, tpid = struct.unpack("=IIIHHHH", aux[:20])
                if (level, kind) == (263, 8) and status & 0x10:  # TP_STATUS_VLAN_VALID
                    data = data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
            found.append(data)
        return found
