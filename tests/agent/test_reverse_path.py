"""Reverse path filters, with real packets: what is delegated is what the kernel lets through, from whatever source (fault F7)."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack

import pytest

from fsctl.model.addresses import parse_mac
from tests.waiting import eventually

from .guest import Guest, mac
from .netns import inside, needs_root

pytestmark = needs_root
SOURCES = ("10.0.0.9", "10.0.1.77", "10.66.1.1", "192.0.2.1")
"""Behind eth0; behind eth1; where a blackhole is, if there is one; reached by a default route, if there is one."""
PROTOCOL = 253
"""For experiments (RFC 3692): nobody answers."""
ETH_P_IP = 0x0800
WAIT_S = 1.0


def packet(guest: Guest, source: str) -> bytes:
    """To 10.0.1.9, by way of the router's eth0."""
    ethernet = b"".join(parse_mac(m).to_bytes(6, "big") for m in (guest.ns.mac("r0"), mac(guest, 0)))
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.1.9")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, PROTOCOL, 0) + addresses
    total = sum(struct.unpack("!10H", ip))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return ethernet + struct.pack("!H", ETH_P_IP) + ip[:10] + struct.pack("!H", checksum) + ip[12:]


def forwarded(guest: Guest) -> set[str]:
    """From which sources packets pass the router."""
    with ExitStack() as stack:
        with inside(guest.hosts.name):
            out, back = (
                stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))) for _ in "ab"
            )
            out.bind(("h0", 0))
            back.bind(("h1", ETH_P_IP))
        for source in SOURCES:
            out.send(packet(guest, source))
        found, deadline = set[str](), time.monotonic() + WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            back.settimeout(left)
            try:
                frame = back.recv(2048)
            except TimeoutError:
                break
            if frame[23] == PROTOCOL:
                found.add(socket.inet_ntoa(frame[26:30]))
        return found


@pytest.mark.parametrize(
    ("how", "routes", "passes"),
    [
        ("1", (), {"10.0.0.9"}),
        ("1", ("default via 10.0.1.9",), {"10.0.0.9"}),
        ("2", (), {"10.0.0.9", "10.0.1.77"}),
        ("2", ("default via 10.0.1.9",), set(SOURCES)),
        ("2", ("default via 10.0.1.9", "blackhole 10.66.0.0/16"), set(SOURCES) - {"10.66.1.1"}),
        ("0", ("default via 10.0.1.9", "blackhole 10.66.0.0/16"), set(SOURCES)),
        ("0", (), set(SOURCES)),
    ],
)
def test_fault_F7_what_a_reverse_path_filter_drops_is_not_bypassed(
    guest: Guest, how: str, routes: tuple[str, ...], passes: set[str]
) -> None:
    guest.ns.sysctl("ipv4/conf/r0/rp_filter", how)
    for route in routes:
        guest.ns.ip(f"route add {route}")
    guest.ns.ip(f"neigh replace 10.0.1.9 lladdr {mac(guest, 1)} dev r1 nud permanent")
    guest.start()
    eventually(lambda: guest.fake.session is not None and guest.fake.session.synced, "no session")
    assert forwarded(guest) == passes
    refused = {r["name"]: r["scope"] for r in (guest.fake.session.reasons if guest.fake.session else ())}
    if passes == set(SOURCES):
        eventually(lambda: "10.0.1.9/32" in guest.flows(), "nothing is dropped: it is bypassed")
        assert "rp_filter" not in refused
    else:
        eventually(lambda: "[rp_filter]" in guest.status(), "refused by name")
        assert guest.flows() == {}, "packets from other sources would be bypassed too"


def test_fault_F7_a_source_blackhole_that_comes_later_ends_the_bypass(guest: Guest) -> None:
    """Remotely triggered black holes by source (RFC 5635, 4): a loose rp_filter and a blackhole for the attacker."""
    guest.ns.sysctl("ipv4/conf/r0/rp_filter", "2")
    guest.ns.ip("route add default via 10.0.1.9")
    guest.start(rounds=False)
    eventually(lambda: "10.0.1.9/32" in guest.flows(), "bypassed")
    guest.ns.ip("route add blackhole 10.66.1.1/32")
    eventually(lambda: guest.flows() == {}, "withdrawn because the routes changed")
    guest.ns.ip("route del blackhole 10.66.1.1/32")
    eventually(lambda: "10.0.1.9/32" in guest.flows(), "bypassed again")
