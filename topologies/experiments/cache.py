"""How many cached flows one sender can make with packets of every IP protocol and TTL: bypassed, routed, plain bridging."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable

from fsctl.model.addresses import IPV4
from fsctl.model.ip_protocols import BYPASSED_PROTOCOLS
from topologies import measure
from topologies.experiments.report import Report, Say, Settings
from topologies.lab import Lab
from topologies.topos import Measured

PROTOCOLS = range(256)
BURST, PAUSE_S = 64, 0.002
"""Packets that are sent at once: the queue towards ovs-vswitchd is short."""
SETTLE_S = 0.5


def run(settings: Settings, say: Say) -> Report:
    """One sender, one destination; flows are counted before any of them is 10 s old and removed."""
    report = Report("cache", "cached flows of one sender: every IP protocol with every TTL")
    ttls = range(100, 100 + settings.scaled(64, 8))
    packets = len(PROTOCOLS) * len(ttls)
    with Lab(Measured(n=1)) as lab:
        lab.start_controller()
        measure.round_trip_ms(lab["a"], lab.address("b", number=1), count=5)
        for name in ("plain L2", "routed", "bypassed"):
            say(f"{name}: {packets} packets")
            (lab.delegate if name == "bypassed" else lab.withdraw)()
            flows = cached(lab, PROTOCOLS, ttls, number=int(name == "plain L2"))
            most = len(BYPASSED_PROTOCOLS[IPV4]) * len(ttls) + len(PROTOCOLS)
            report.at_most(f"{name}: flows for {len(PROTOCOLS)} protocols x {len(ttls)} TTLs", flows, "flows", most)
    return report


def cached(lab: Lab, protocols: Iterable[int], ttls: Iterable[int], number: int = 0) -> int:
    """Cached flows of packets from A to B; `number` 0: by way of the first router, 1: over the bridge that both share."""
    a, b = lab.topo.stations["a"].ports[number], lab.topo.stations["b"].ports[number]
    to = b.mac if number else lab.topo.stations["r1"].ports[0].mac
    lab.ovs.appctl("revalidator/purge")
    header = bytes.fromhex(to.replace(":", "") + a.mac.replace(":", "")) + b"\x08\x00"
    src, dst = lab.address("a", number=number), lab.address("b", number=number)
    frames = [header + _ipv4(src, dst, protocol, ttl) for ttl in ttls for protocol in protocols]
    with lab["a"].open_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((a.name, 0))
        for n, frame in enumerate(frames):
            sock.send(frame)
            if not n % BURST:
                time.sleep(PAUSE_S)
    time.sleep(SETTLE_S)
    return sum(f"src={a.mac}" in line and f"dst={to}" in line for line in lab.ovs.appctl("dpctl/dump-flows").splitlines())


def _ipv4(src: str, dst: str, protocol: int, ttl: int) -> bytes:
    """A packet with 40 bytes of payload that mean a port, a type, an unknown header: nobody checks them here."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 0, 0, ttl, protocol, 0, socket.inet_aton(src), socket.inet_aton(dst))
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + struct.pack("!HHHH", 4096, 4096, 40, 0) + bytes(32)
