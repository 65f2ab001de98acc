"""A dom0 in a box: a private Open vSwitch (dummy datapath), three bridges, two routers, the controller as a process.

    A - b0 - r1 - b1 - r2 - b2 - B

Port 1 of b0 is A's, port 9 of b2 is B's; r1 has b0-p2 and b1-p1, r2 has b1-p2 and b2-p1. Both routers delegate
10.0.3.0/24 towards B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.waiting import eventually
from topologies.control import Control
from topologies.sandbox import Sandbox

BRIDGES = ("b0", "b1", "b2")
NAMES = ("a", "b", "r1.eth0", "r1.eth1", "r2.eth0", "r2.eth1")
MAC = {name: f"02:00:00:00:00:{n:02x}" for n, name in enumerate(NAMES, 1)}
PLACES = {"r1": {"eth0": ("b0", "b0-p2"), "eth1": ("b1", "b1-p1")}, "r2": {"eth0": ("b1", "b1-p2"), "eth1": ("b2", "b2-p1")}}
COOKIE = "cookie=0x667363746c000000/-1"
PREFIX = "10.0.3.0/24"
A_TO_B = f"in_port=1,dl_src={MAC['a']},dl_dst={MAC['r1.eth0']},udp,nw_src=10.0.1.1,nw_dst=10.0.3.1,nw_ttl=64"


class Host:
    """Open vSwitch and controller of one test."""

    def __init__(self, directory: Path) -> None:
        self.ovs = Sandbox()
        self._directory = directory

    @staticmethod
    def _config() -> dict[str, Any]:
        routers = {
            name: {
                "interfaces": {
                    i: {"bridge": bridge, "port": port, "mac": MAC[f"{name}.{i}"]} for i, (bridge, port) in places.items()
                }
            }
            for name, places in PLACES.items()
        }
        return {"bridges": list(BRIDGES), "routers": routers}

    def start(self) -> None:
        self.ovs.start()
        for bridge in BRIDGES:
            self.ovs.add_bridge(bridge, ports=9)
        self.control = Control(self._directory, self._config(), "127.0.0.1", self.ovs)
        self.control.start()

    def stop(self) -> None:
        if hasattr(self, "control"):
            self.control.stop()
        self.ovs.stop()

    @property
    def client(self) -> Any:
        return self.control.client

    def delegate(self, router: str, next_hop: str, prefix: str = PREFIX) -> Any:
        """From eth0 to eth1, towards a MAC address by name."""
        match, new = {"in": "eth0", "ipv4_dst": prefix}, {"eth_dst": MAC[next_hop]}
        flow = {"match": match, "action": "forward", "set": new, "out": "eth1"}
        return self.client.patch_flows(router, add=[flow])

    def chain(self) -> None:
        """The whole chain is bypassed."""
        self.delegate("r2", "b")
        self.delegate("r1", "r2.eth0")
        eventually(self.is_bypassed)

    def rules(self, bridge: str) -> str:
        return self.ovs.ofctl("dump-flows", bridge, COOKIE, "--no-stats")

    def all_rules(self) -> dict[str, list[str]]:
        """Sorted; ways, whose numbers follow from their meaning, included."""
        lines = {bridge: self.rules(bridge).splitlines() for bridge in BRIDGES}
        return {bridge: sorted(line.strip() for line in dumped if "priority" in line) for bridge, dumped in lines.items()}

    def trace(self, packet: str = A_TO_B, bridge: str = "b0") -> str:
        """What the datapath would do."""
        answer = self.ovs.appctl("ofproto/trace", bridge, packet)
        return answer.split("Datapath actions:")[-1].strip()

    def is_bypassed(self) -> bool:
        """Both routers are."""
        return "ttl=62" in self.trace()

    def reasons(self, router: str) -> list[tuple[str, str]]:
        return [(f["status"]["state"], f["status"]["reason"]) for f in self.client.flows(router)]

    def is_ready(self) -> bool:
        return not self.client.not_ready()
