"""One world: an Open vSwitch, routers that really route, hosts. The soak has two that differ in the bypass alone."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.agent.netns import Namespace, inside, namespaces
from tests.soak.plan import HOSTS, PORTS, ROUTERS, Port, RouterPlan, net_of
from tests.soak.switch import Switch
from tests.soak.wire import Devices, Heard
from topologies.processes import Whole, run

HOSTS_NS, SWITCH_NS = "h", "s"
ROUTER_SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/icmp_ratelimit": "0",
    "ipv4/icmp_ratemask": "0",
    "ipv6/icmp/ratelimit": "0",
    "ipv6/auto_flowlabels": "0",
}
OFFLOADS = ("rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
Routes = list[dict[str, Any]]


class World(Whole):
    """`tag` keeps the namespaces of two worlds apart; `fail_mode` is that of the bridges when they are made."""

    def __init__(self, tag: str, fail_mode: str, heard: Heard, overheard: Heard) -> None:
        super().__init__()
        self.tag, self.fail_mode = tag, fail_mode
        self._heard, self._overheard = heard, overheard
        self.ns: dict[str, Namespace] = {}

    def _open(self) -> None:
        labels = (HOSTS_NS, SWITCH_NS, *ROUTERS)
        made = self._stack.enter_context(namespaces(*(f"{self.tag}{label}" for label in labels)))
        self.ns = dict(zip(labels, made, strict=True))
        for label in (HOSTS_NS, SWITCH_NS):
            for scope in ("all", "default"):
                self.ns[label].sysctl(f"ipv6/conf/{scope}/disable_ipv6", "1")
        for port in PORTS.values():
            self._plug(port)
        for plan in ROUTERS.values():
            self._configure(plan)
        self.switch = Switch(self.ns[SWITCH_NS].name)
        self._stack.callback(self.switch.stop)
        self.switch.start()
        self.switch.build(self.fail_mode)
        self.hosts = self._listen(HOSTS_NS, {p.station: p.device for p in HOSTS.values()}, self._heard)
        self.routers = {
            name: self._listen(name, {p.name: p.device for p in plan.ports}, self._overheard) for name, plan in ROUTERS.items()
        }

    def _listen(self, label: str, devices: dict[str, str], heard: Heard) -> Devices:
        with inside(self.ns[label].name):
            opened = Devices(devices, heard)
        self._stack.callback(opened.close)
        return opened

    def _plug(self, port: Port) -> None:
        """A cable: the station's end with the station's MAC, the other in Open vSwitch's namespace."""
        home = self.ns[HOSTS_NS if port.station in HOSTS else port.station]
        there = self.ns[SWITCH_NS].name
        home.ip(f"link add name {port.device} address {port.mac} type veth peer name {port.name} netns {there}")
        for ns, device in ((home, port.device), (self.ns[SWITCH_NS], port.name)):
            run("ip", "netns", "exec", ns.name, "ethtool", "-K", device, *OFFLOADS)
            self.batch(
                ns,
                [f"link set dev {device} mtu {port.mtu if ns is home else 1500} addrgenmode none", f"link set dev {device} up"],
            )
        if port.station in HOSTS:
            home.ip(f"link set dev {port.device} arp off")

    def _configure(self, plan: RouterPlan) -> None:
        """Addresses, permanent neighbours, routes."""
        ns = self.ns[plan.name]
        with inside(ns.name):
            for key, value in ROUTER_SYSCTLS.items():
                with suppress(FileNotFoundError):
                    Path("/proc/sys/net", key).write_text(value)
        lines = []
        for port in plan.ports:
            for version in (4, 6):
                nodad = " nodad" if version == 6 else ""
                lines.append(
                    f"addr add {port.address(version)}/{net_of(version, port.bridge).prefixlen} dev {port.device}{nodad}"
                )
                lines += [
                    f"neigh replace {other.address(version)} lladdr {other.mac} dev {port.device} nud permanent"
                    for other in PORTS.values()
                    if other.bridge == port.bridge and other.station != plan.name and not other.vlan
                ]
        for bridge, via, on in plan.routes:
            out = next(p for p in plan.ports if p.bridge == on)
            hop = next(p for p in ROUTERS[via].ports if p.bridge == on)
            lines += [f"route add {net_of(v, bridge)} via {hop.address(v)} dev {out.device}" for v in (4, 6)]
        self.batch(ns, lines)

    # --- kernels ------------------------------------------------------------------------------------------

    @staticmethod
    def batch(ns: Namespace, lines: list[str]) -> None:
        """`ip -batch`; raises if a line is refused."""
        run("ip", "-n", ns.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def routes(self, router: str) -> Routes:
        """Both versions' routes of table main, as iproute2 shows them."""
        return [r for v in (4, 6) for r in self._json(router, f"-{v}", "route", "show", "table", "main")]

    def addresses(self, router: str) -> set[str]:
        return {a["local"] for link in self._json(router, "addr", "show") for a in link["addr_info"]}

    def neighbours(self, router: str) -> dict[tuple[str, str], str]:
        """(device, address) -> MAC."""
        return {(n["dev"], n["dst"]): n["lladdr"] for n in self._json(router, "neigh", "show") if "lladdr" in n}

    def _json(self, router: str, *command: str) -> Routes:
        done = subprocess.run(
            ["ip", "-n", self.ns[router].name, "-d", "-j", *command], capture_output=True, text=True, check=True, timeout=20
        )
        found: Routes = json.loads(done.stdout or "[]")
        return found
