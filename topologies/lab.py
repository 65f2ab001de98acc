"""A lab: Open vSwitch, a topology, the controller; and afterwards the machine as it was.

    with Lab(Chain(n=4)) as lab:
        lab.start_controller()
        lab.delegate()
        lab["a"].execute("ping", "-c", "1", lab.address("b"))

The routers delegate from inside their namespaces, over a management network: a bridge of its own, where
every router has an interface `mgmt0` and the host an address at which REST listens. Nothing but what the lab
made is removed: Mininet's global clean-up is not used.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import tempfile
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from topologies.control import Control
from topologies.mn import Mininet
from topologies.nodes import MARK, NET, Guest, LabLink, LabSwitch
from topologies.ovs import OpenVSwitch
from topologies.plan import RoutedTopo, Station
from topologies.processes import LabError, Whole, run

MANAGEMENT = "mgmt"
MANAGEMENT_NETS = tuple(IPv4Network(f"198.18.{n}.0/24") for n in range(16))
"""Reserved for benchmarks (RFC 2544), so nobody's in the outside world; a lab takes the first that is free."""


class Lab(Whole):
    """A running topology. Needs root."""

    def __init__(self, topo: RoutedTopo, ovs: OpenVSwitch | None = None) -> None:
        super().__init__()
        if os.geteuid() != 0:
            raise LabError("network namespaces and bridges need root")
        self.topo = topo
        self._given_ovs = ovs
        self.prefix = f"f{secrets.token_hex(2)}"
        self.control: Control | None = None

    def _open(self) -> None:
        self._stack.enter_context(_signals_as_exceptions())
        # Mininet waits for ever for a namespace that cannot be made; this says why it cannot.
        run("mnexec", "-n", "true")
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fsctl-lab-")))
        self.ovs = self._given_ovs or self._stack.enter_context(OpenVSwitch())
        _sweep(self.ovs)
        self._start_network()
        for station in topo_order(self.topo):
            self[station.name].set_up(self.topo, station)
        self._start_management()

    def _start_network(self) -> None:
        # Mininet raises the whole machine's limits before its first network; the lab leaves them alone.
        Mininet.inited = True
        self.topo.addSwitch(MANAGEMENT)
        for router in self.topo.routers():
            self.topo.addLink(router.name, MANAGEMENT, intfName1="mgmt0", label2=f"{router.name}.m")
        switch = partial(LabSwitch, ovs=self.ovs, prefix=self.prefix)
        self.net = Mininet(switch=switch, host=Guest, link=LabLink, controller=None, topo=None)
        self._stack.callback(self._stop_network)
        self.net.topo = self.topo
        self.net.build()
        self.net.start()

    def _stop_network(self) -> None:
        bridges = [switch.bridge for switch in self.net.switches]
        # Bridges first: Open vSwitch complains of ports whose devices vanish.
        if bridges:
            self.ovs.vsctl(*" -- ".join(f"--if-exists del-br {name}" for name in bridges).split())
        self.net.stop()

    def _start_management(self) -> None:
        bridge, net = self.bridge(MANAGEMENT), _free_net()
        self.management = str(net[1])
        run("ip", "addr", "add", f"{self.management}/{net.prefixlen}", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        for n, router in enumerate(self.topo.routers()):
            self[router.name].execute("ip", "addr", "add", f"{net[10 + n]}/{net.prefixlen}", "dev", "mgmt0")
            self[router.name].execute("ip", "link", "set", "mgmt0", "up")

    # Names

    def __getitem__(self, station: str) -> Guest:
        """The namespace of a host or router."""
        guest = self.net.get(station)
        assert isinstance(guest, Guest)
        return guest

    def bridge(self, name: str) -> str:
        """The name that a topology's bridge has in Open vSwitch."""
        return f"{self.prefix}{name}"

    def port(self, station: str, number: int = 0) -> str:
        """The bridge's end of a station's interface."""
        return f"{self.prefix}{self.topo.stations[station].ports[number].label}"

    def address(self, station: str, version: int = 4, number: int = 0) -> str:
        """The first address of a station's interface."""
        port = self.topo.stations[station].ports[number]
        return port.address(version, port.subnets[0])

    # The controller

    def start_controller(self) -> Control:
        """Start fsctl and wait until every bridge is connected and in step; again after `stop_controller`."""
        if self.control is None:
            self.control = Control(self.directory, self._config(), self.management, self.ovs)
            self._stack.callback(self.control.stop)
        self.control.start()
        return self.control

    def _config(self) -> dict[str, Any]:
        routers = {}
        for router in self.topo.routers():
            interfaces = {
                port.name: {
                    "bridge": self.bridge(port.bridge),
                    "port": f"{self.prefix}{port.label}",
                    "mac": port.mac,
                    "mtu": port.mtu,
                    "addresses": list(port.addresses()),
                }
                for port in router.ports
            }
            routers[router.name] = {"interfaces": interfaces}
        return {"bridges": [self.bridge(name) for name in self.topo.managed], "routers": routers}

    def delegate(self, *routers: str) -> None:
        """These routers (all, if none is named) delegate all that they route, each from its own namespace."""
        for router in self._chosen(routers):
            self.put(router.name, self.topo.flows(router))

    def withdraw(self, *routers: str) -> None:
        """These routers (all, if none is named) take everything back."""
        for router in self._chosen(routers):
            self.put(router.name, [])

    def _chosen(self, names: tuple[str, ...]) -> list[Station]:
        return [s for s in self.topo.routers() if not names or s.name in names]

    def put(self, router: str, flows: list[dict[str, Any]]) -> Any:
        """`fsctl flows put` by a router, with its own token, from inside its namespace; what fsctl answers."""
        if self.control is None:
            raise LabError("the controller has not been started")
        command = self.control.command(router, "flows", "put", router, "-")
        return json.loads(self[router].execute(*command, stdin=json.dumps(flows)))


def topo_order(topo: RoutedTopo) -> list[Station]:
    """Hosts first, so that a router's first packet finds everybody."""
    return sorted(topo.stations.values(), key=lambda s: s.is_router)


def _free_net() -> IPv4Network:
    """One that this machine has no route into: an address there disturbs nobody."""
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "all"))
    used = [IPv4Network(r["dst"], strict=False) for r in routes if r["dst"] not in ("default", "0.0.0.0/0")]
    for net in MANAGEMENT_NETS:
        if not any(net.overlaps(other) for other in used):
            return net
    raise LabError(f"this machine uses all of {MANAGEMENT_NETS[0]} to {MANAGEMENT_NETS[-1]}")


def _sweep(ovs: OpenVSwitch) -> None:
    """Remove what labs that were killed have left: bridges, and devices of a private Open vSwitch's bridges."""
    table = ovs.vsctl("-f", "json", "--columns", "name,external_ids", "list", "bridge")
    for name, (_, pairs) in json.loads(table)["data"]:
        if _is_orphan(dict(pairs).get(MARK, "")):
            ovs.vsctl("--if-exists", "del-br", name)
    for device in NET.iterdir():
        mark, _, pid = (device / "ifalias").read_text().strip().partition(":")
        if mark == MARK and _is_orphan(pid):
            run("ip", "link", "del", device.name)


def _is_orphan(pid: str) -> bool:
    return pid.isdigit() and not Path(f"/proc/{pid}").exists()


class _signals_as_exceptions:  # noqa: N801 - reads as a statement
    """SIGTERM ends the `with` block in order, as Ctrl-C does."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._raise)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @staticmethod
    def _raise(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
