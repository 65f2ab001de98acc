"""Mininet nodes as fsctl's labs want them.

Guests are network namespaces with veth interfaces whose offloads are off: the userspace datapath passes on
what it gets, and a checksum left to a NIC would never be filled in. Every bridge is an Open vSwitch bridge of
the lab's own, marked with `external_ids:fsctl-lab`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from topologies.mn import Host, Link, Switch
from topologies.ovs import OpenVSwitch
from topologies.plan import RoutedTopo, Station, subnet_of
from topologies.processes import run

MARK = "fsctl-lab"
NET = Path("/sys/class/net")
CLONE_NEWNET = 0x40000000
OFFLOADS = ("rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    # Traceroute and the over-MTU tests want every answer, not one per second.
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.icmp.ratelimit": 0,
}
ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
}


class LabLink(Link):  # type: ignore[misc, unused-ignore]
    """A veth pair; `label1`, `label2` name its ends on bridges, after the lab's prefix."""

    def __init__(self, node1: Any, node2: Any, label1: str | None = None, label2: str | None = None, **params: Any) -> None:
        if label1 is not None:
            params["intfName1"] = node1.port_name(label1)
        if label2 is not None:
            params["intfName2"] = node2.port_name(label2)
        super().__init__(node1, node2, **params)


class LabSwitch(Switch):  # type: ignore[misc, unused-ignore]
    """An OVS bridge that learns, until fsctl takes it over."""

    def __init__(self, name: str, *, ovs: OpenVSwitch, prefix: str, **params: Any) -> None:
        # Mininet wants to make a datapath id of digits in the name; Open vSwitch makes its own.
        super().__init__(name, dpid="1", **params)
        self.ovs, self.prefix = ovs, prefix

    @property
    def bridge(self) -> str:
        return f"{self.prefix}{self.name}"

    def port_name(self, label: str) -> str:
        return f"{self.prefix}{label}"

    def start(self, _controllers: list[Any]) -> None:
        """One transaction: the bridge with all its ports."""
        command = [
            "add-br", self.bridge, "--", "set", "bridge", self.bridge, f"datapath_type={self.ovs.datapath}",
            "fail_mode=standalone", f"external_ids:{MARK}={os.getpid()}", "other_config:disable-in-band=true",
        ]  # fmt: skip
        for intf in self.intfList():
            if intf.name != "lo":
                command += ["--", "add-port", self.bridge, intf.name]
                run("ethtool", "-K", intf.name, *OFFLOADS)
                # A bridge port has no addresses, and so nothing to say of its own.
                Path(f"/proc/sys/net/ipv6/conf/{intf.name}/disable_ipv6").write_text("1")
        self.ovs.vsctl(*command)
        alias = NET / self.bridge / "ifalias"
        for _ in range(100):  # ovs-vsctl has waited for the daemon, the device may follow a moment later
            if alias.exists():
                break
            time.sleep(0.05)
        alias.write_text(f"{MARK}:{os.getpid()}")

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803 - Mininet's name
        self.ovs.vsctl("--if-exists", "del-br", self.bridge)
        super().stop(deleteIntfs)


class Guest(Host):  # type: ignore[misc, unused-ignore]
    """A host or a router."""

    def execute(self, *command: str, timeout_s: float = 60.0, stdin: str | None = None) -> str:
        """Standard output of a command run inside; LabError if it fails."""
        return run("mnexec", "-a", str(self.pid), *command, timeout_s=timeout_s, stdin=stdin)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` inside."""
        return ["mnexec", "-a", str(self.pid), *command]

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, to be used from here: a socket stays where it was made (setns(2))."""
        with ThreadPoolExecutor(max_workers=1) as other_thread:
            return other_thread.submit(self._open_inside, family, kind, protocol).result()

    def _open_inside(self, family: int, kind: int, protocol: int) -> socket.socket:
        with open(f"/proc/{self.pid}/ns/net") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.socket(family, kind, protocol)

    def set_up(self, topo: RoutedTopo, station: Station) -> None:
        """Addresses, permanent neighbours and routes of a station."""
        values = SYSCTLS | (ROUTER_SYSCTLS if station.is_router else {})
        # Without this a host solicits routers now and then, and its bridge learns it anew.
        values |= {f"net.ipv6.conf.{port.name}.accept_ra": 0 for port in station.ports}
        self.execute("sysctl", "-qw", *(f"{key}={value}" for key, value in values.items()))
        self.execute("ip", "link", "set", "lo", "up")
        for intf in self.intfList():
            self.execute("ethtool", "-K", intf.name, *OFFLOADS)
        self.execute("ip", "-batch", "-", stdin="\n".join(_links_and_addresses(station)))
        self.execute("ip", "-batch", "-", stdin="\n".join(_neighbours_and_routes(topo, station)))


def _links_and_addresses(station: Station) -> list[str]:
    lines = []
    for port in station.ports:
        lines.append(f"link set {port.name} mtu {port.mtu} up")
        lines += [f"addr add {address} dev {port.name}{' nodad' if ':' in address else ''}" for address in port.addresses()]
    return lines


def _neighbours_and_routes(topo: RoutedTopo, station: Station) -> list[str]:
    # Permanent neighbours: no ARP of a sender refreshes what a bridge has learned, and tests say when it does.
    lines = [
        f"neigh replace {peer.address(v, subnet)} lladdr {peer.mac} dev {port.name} nud permanent"
        for port, peer, subnet in topo.neighbours(station)
        for v in (4, 6)
        if topo.ROUTERS_ARE_TOLD
    ]
    if station.is_router and not topo.ROUTERS_ARE_TOLD:
        return lines
    for route in topo.routes(station):
        shared = next(s for s in route.port.subnets if s in route.via.subnets)
        lines += [
            f"route replace {subnet_of(v, route.subnet)} via {route.via.address(v, shared)} dev {route.port.name}" for v in (4, 6)
        ]
    return lines
