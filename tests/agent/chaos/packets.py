"""Real packets: put on the router's cables by its neighbours, and where the kernel has sent them."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from ipaddress import ip_address

from fsctl.model.addresses import parse_mac
from tests.agent.chaos.draw import INTERFACES, KNOWN
from tests.agent.chaos.kernel_says import SOURCE, version_of
from tests.agent.netns import Namespace, inside
from tests.agent.oracle import Answer

ETH_P_ALL, ETH_P = 0x0003, {4: 0x0800, 6: 0x86DD}
PROTOCOL, TTL = 253, 64
"""For experiments (RFC 3692): nobody answers."""
MARK = struct.Struct("!4sI")
QUIET_S, MOST_S = 0.05, 0.5


def frame(router: str, destination: str, number: int) -> bytes:
    """A packet for `destination`, as a neighbour hands it to the router."""
    version = version_of(destination)
    addresses = ip_address(SOURCE[version]).packed + ip_address(destination).packed
    payload = MARK.pack(b"KAOS", number)
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, TTL, PROTOCOL, 0)
        total = sum(struct.unpack("!10H", head + addresses))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        packet = head[:10] + struct.pack("!H", checksum) + addresses + payload
    else:
        packet = struct.pack("!IHBB", 6 << 28, len(payload), PROTOCOL, TTL) + addresses + payload
    macs = (parse_mac(router).to_bytes(6, "big"), bytes.fromhex("020000000277"))
    return b"".join(macs) + struct.pack("!H", ETH_P[version]) + packet


def read(data: bytes) -> tuple[int, int] | None:
    """(number, destination MAC address) of a packet of ours that a router has forwarded."""
    at = {0x0800: 14 + 20, 0x86DD: 14 + 40}.get(int.from_bytes(data[12:14], "big"))
    if at is None or len(data) < at + MARK.size:
        return None
    word, number = MARK.unpack_from(data, at)
    ttl = data[22] if at == 34 else data[21]
    return (number, int.from_bytes(data[:6], "big")) if word == b"KAOS" and ttl == TTL - 1 else None


class Cables:
    """Sockets on the hosts' ends of a router's cables."""

    def __init__(self, router: Namespace, hosts: Namespace) -> None:
        self._macs = {i: router.mac(i) for i in KNOWN}
        with inside(hosts.name):
            self._ends = {i: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) for i in INTERFACES}
            for i, s in self._ends.items():
                s.bind((f"p{i[1]}", ETH_P_ALL))
                s.setblocking(False)

    def close(self) -> None:
        for s in self._ends.values():
            s.close()

    def forwarded(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
        """(ingress device, destination) -> what came of a packet; no entry where none came out."""
        for s in self._ends.values():
            _drain(s)
        for number, (i, destination) in enumerate(pairs):
            try:
                self._ends[i].send(frame(self._macs[i], destination, number))
            except OSError:
                continue  # the cable is down
        found: dict[tuple[str, str], Answer] = {}
        with selectors.DefaultSelector() as selector:
            for i, s in self._ends.items():
                selector.register(s, selectors.EVENT_READ, i)
            deadline = time.monotonic() + MOST_S
            while time.monotonic() < deadline and (ready := selector.select(QUIET_S)):
                for key, _ in ready:
                    for number, mac in filter(None, map(read, _drain(self._ends[key.data]))):
                        found[pairs[number]] = (KNOWN.get(key.data, key.data), mac)
        return found


def _drain(s: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(s.recv(2048))
        except OSError:
            return found
