"""Set-ups from public reports that must stay right: what the agent delegates is what the kernel would do.

The kernel is asked with `ip route get DST from SRC iif IN`, which runs the path of forwarded packets. A delegation may be
missing (the router does it itself), but it may never say anything else than the kernel.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import pytest

from fsctl.model.addresses import parse_mac
from tests.waiting import eventually

from .guest import Guest, mac
from .kernel import host
from .netns import needs_root
from .oracle import lookup

pytestmark = needs_root
NAMES = {"r0": "eth0", "r1": "eth1"}
VRRP_MAC = "00:00:5e:00:01:33"
STILL_SECONDS = 0.6
UNUSABLE = {"FAILED", "INCOMPLETE", "NOARP"}


def kernel_says(guest: Guest, dst: str, src: str, ingress: str) -> tuple[str, int] | None:
    """Egress interface by fsctl's name and next hop's MAC; None where the kernel does anything else than forward."""
    out = guest.ns.ip(f"-j route get {dst} from {src} iif {ingress}", check=False)
    route: dict[str, Any] = json.loads(out)[0] if out.strip() else {"type": "unreachable"}
    if route.get("type", "unicast") != "unicast" or route["dev"] not in NAMES:
        return None
    hop = route.get("gateway") or route.get("via", {}).get("host") or dst
    found = [n for n in guest.ns.json(f"neigh show to {hop} dev {route['dev']}") if n.get("lladdr")]
    usable = found and not UNUSABLE & set(found[0]["state"])
    return (NAMES[route["dev"]], parse_mac(found[0]["lladdr"])) if usable else None


def disagreements(guest: Guest, flows: Iterable[tuple[str, str]]) -> list[str]:
    """What is delegated otherwise than the kernel does, among these (source, destination) by each interface."""
    wrong = []
    delegations = list(guest.fake.fib)
    for src, dst in flows:
        for device, name in NAMES.items():
            delegated = lookup(delegations, name, *host(dst))
            if delegated is not None and delegated != (kernel := kernel_says(guest, dst, src, device)):
                wrong.append(f"{src} > {dst} by {name}: delegated {delegated}, the kernel {kernel}")
    return wrong


def agrees(guest: Guest, flows: list[tuple[str, str]]) -> None:
    """Wait until every delegation is what the kernel does, and see that it stays so."""
    eventually(lambda: not disagreements(guest, flows), "the agent follows the kernel")
    time.sleep(STILL_SECONDS)
    assert disagreements(guest, flows) == []


def delegated(guest: Guest, dst: str, ingress: str = "eth0") -> tuple[str, int] | None:
    return lookup(list(guest.fake.fib), ingress, *host(dst))


def follows(guest: Guest, dst: str, expected: tuple[str, str] | None, ingress: str = "eth0") -> None:
    wanted = None if expected is None else (expected[0], parse_mac(expected[1]))
    eventually(lambda: delegated(guest, dst, ingress) == wanted, f"{dst} by {ingress} becomes {expected}")


def without_hosts_mac(guest: Guest) -> None:
    """Neighbour entries by hand: nobody answers for the address."""
    guest.ns.ip(f"neigh replace 10.0.1.9 lladdr {mac(guest, 1)} dev r1 nud permanent")


@pytest.mark.parametrize("kind", ["macvlan", "veth"])
def test_fault_F11_two_devices_share_the_subnet_as_with_vrrp(guest: Guest, kind: str) -> None:
    """keepalived's `use_vmac`: the virtual address sits on a macvlan over eth1, so the subnet is connected twice.

    The veth has the same routes and addresses; it is for kernels without macvlan.
    """
    guest.ns.ip("addr del 10.0.1.1/24 dev r1")
    guest.ns.ip("addr add 10.0.1.253/24 dev r1")
    if kind == "macvlan":
        guest.ns.ip(f"link add link r1 name vrrp address {VRRP_MAC} type macvlan mode bridge", check=False)
        if "vrrp" not in guest.ns.ip("link show"):
            pytest.skip("this kernel has no macvlan (CONFIG_MACVLAN)")
    else:
        guest.ns.ip(f"link add vrrp address {VRRP_MAC} type veth peer name peer")
        guest.ns.ip("link set peer up")
    guest.ns.ip("link set vrrp up")
    guest.ns.ip("addr add 10.0.1.252/24 dev vrrp")
    without_hosts_mac(guest)
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9 dev r1")
    guest.start()
    follows(guest, "10.9.1.1", ("eth1", mac(guest, 1)))
    flows = [("10.0.0.9", d) for d in ("10.9.1.1", "10.0.1.9", "10.0.1.252", "10.0.1.253", "10.0.1.255", "10.0.1.77")]
    agrees(guest, flows)
    assert delegated(guest, "10.0.1.252") is None, "the virtual address is the router's own"
    guest.ns.ip("link del vrrp")  # the other router takes the address over
    guest.ns.ip(f"neigh replace 10.0.1.252 lladdr {VRRP_MAC} dev r1 nud permanent")
    follows(guest, "10.0.1.252", ("eth1", VRRP_MAC))
    agrees(guest, flows)


def test_fault_F11_source_specific_ipv6_routes(guest: Guest) -> None:
    """Two uplinks with a prefix each (RFC 8043): which one is right depends on the source, so neither is delegated."""
    first, second = "2001:db8:a", "2001:db8:b"
    guest.ns.sysctl("ipv6/conf/all/forwarding", "1")
    for n, device in enumerate(("r0", "r1")):
        guest.ns.ip(f"addr add fd00:{n}::1/64 dev {device} nodad")
        guest.ns.ip(f"neigh replace fd00:{n}::9 lladdr {mac(guest, n)} dev {device} nud permanent")
    guest.ns.ip(f"-6 route add default from {first}::/48 via fd00:1::9 dev r1")
    guest.ns.ip("-6 route add 2001:db8:c::/48 via fd00:1::9 dev r1")
    guest.start()
    follows(guest, "2001:db8:c::1", ("eth1", mac(guest, 1)))
    assert delegated(guest, "2001:4860::8888") is None, "other senders have no default route"
    guest.ns.ip(f"-6 route add default from {second}::/48 via fd00::9 dev r0")
    guest.ns.ip(f"-6 route add unreachable {second}:10::/60")
    destinations = ("2001:4860::8888", "2001:db8:c::1", f"{second}:10::7", f"{second}:20::7", "fd00:1::9", "fd00:0::9")
    flows = [(f"{source}::5", d) for source in (first, second, "2001:db8:f") for d in destinations]
    agrees(guest, flows)
    assert delegated(guest, "2001:4860::8888") is None
    guest.ns.ip(f"-6 route del default from {second}::/48 via fd00::9 dev r0")
    guest.ns.ip("-6 route add default via fd00:1::9 dev r1")
    agrees(guest, flows)
    assert delegated(guest, "2001:4860::8888") is None, "senders of the first prefix leave by the other uplink"
    guest.ns.ip(f"-6 route del default from {first}::/48 via fd00:1::9 dev r1")
    follows(guest, "2001:4860::8888", ("eth1", mac(guest, 1)))
    assert delegated(guest, f"{second}:10::7") is None
    agrees(guest, flows)


def test_fault_F11_a_permanent_neighbour_169_254_0_1_is_replaced(guest: Guest) -> None:
    """IPv4 over IPv6 next hops as FRR installs them (RFC 5549): via 169.254.0.1 onlink, a permanent entry of FRR's own."""
    one, other = "02:aa:00:00:00:01", "02:aa:00:00:00:02"
    guest.ns.ip(f"neigh replace 169.254.0.1 lladdr {one} dev r1 nud permanent")
    guest.ns.ip("route add 10.9.0.0/16 via 169.254.0.1 dev r1 onlink")
    guest.start()
    flows = [("10.0.0.9", d) for d in ("10.9.1.1", "10.0.1.9", "169.254.0.1")]
    for address in (one, other, one):
        guest.ns.ip(f"neigh replace 169.254.0.1 lladdr {address} dev r1 nud permanent")
        follows(guest, "10.9.1.1", ("eth1", address))
        agrees(guest, flows)
    assert guest.neigh("169.254.0.1")["state"] == ["PERMANENT"], "the entry is FRR's, not the agent's"
    guest.ns.ip("neigh del 169.254.0.1 dev r1")
    agrees(guest, flows)


def test_fault_F11_one_interface_does_not_forward(guest: Guest) -> None:
    without_hosts_mac(guest)
    guest.ns.ip(f"neigh replace 10.0.0.9 lladdr {mac(guest, 0)} dev r0 nud permanent")
    guest.ns.sysctl("ipv4/conf/r0/forwarding", "0")
    guest.start()
    follows(guest, "10.0.0.9", ("eth0", mac(guest, 0)), ingress="eth1")
    flows = [("10.0.0.9", "10.0.1.9"), ("10.0.1.9", "10.0.0.9")]
    agrees(guest, flows)
    assert delegated(guest, "10.0.1.9", "eth0") is None
    guest.ns.sysctl("ipv4/conf/r0/forwarding", "1")
    follows(guest, "10.0.1.9", ("eth1", mac(guest, 1)))
    guest.ns.sysctl("ipv4/conf/r0/forwarding", "0")
    follows(guest, "10.0.1.9", None)
    agrees(guest, flows)


def test_fault_F11_a_gateway_with_a_vrrp_mac(guest: Guest) -> None:
    guest.hosts.ip(f"link set h1 address {VRRP_MAC}")
    guest.ns.ip("route add default via 10.0.1.9")
    guest.start()
    flows = [("10.0.0.9", d) for d in ("192.0.2.7", "10.0.1.9")]
    follows(guest, "192.0.2.7", ("eth1", VRRP_MAC))
    agrees(guest, flows)
    guest.hosts.ip("link set h1 address 00:00:5e:00:01:34")  # another virtual router, announced as RFC 5798 asks
    guest.ns.ip("neigh replace 10.0.1.9 lladdr 00:00:5e:00:01:34 dev r1 nud reachable")
    follows(guest, "192.0.2.7", ("eth1", "00:00:5e:00:01:34"))
    agrees(guest, flows)


@pytest.mark.parametrize("ignored", [False, True], ids=["used while down", "ignored while down"])
def test_fault_F11_static_routes_by_distance_when_the_carrier_goes(guest: Guest, ignored: bool) -> None:
    """The better of two static routes loses its carrier and gets it back; the kernel does or does not use dead routes."""
    for key in ("all", "r1"):
        guest.ns.sysctl(f"ipv4/conf/{key}/ignore_routes_with_linkdown", str(int(ignored)))
    without_hosts_mac(guest)
    guest.ns.ip(f"neigh replace 10.0.0.9 lladdr {mac(guest, 0)} dev r0 nud permanent")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9 metric 10")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.0.9 metric 20")
    guest.start()
    flows = [("10.0.0.9", "10.9.1.1"), ("10.0.1.9", "10.9.1.1"), ("10.0.0.9", "10.0.1.9")]
    follows(guest, "10.9.1.1", ("eth1", mac(guest, 1)))
    agrees(guest, flows)
    guest.hosts.ip("link set h1 down")
    eventually(lambda: "NO-CARRIER" in guest.ns.ip("link show r1"), "the carrier goes")
    eventually(lambda: delegated(guest, "10.9.1.1") != ("eth1", parse_mac(mac(guest, 1))), "not over a dead link")
    agrees(guest, flows)
    guest.ns.ip("route del 10.9.0.0/16 via 10.0.1.9 metric 10")  # what a routing daemon does about it
    follows(guest, "10.9.1.1", ("eth0", mac(guest, 0)))
    agrees(guest, flows)
    guest.hosts.ip("link set h1 up")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9 metric 10")
    follows(guest, "10.9.1.1", ("eth1", mac(guest, 1)))
    agrees(guest, flows)
