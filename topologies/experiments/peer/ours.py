"""fsctl on the same ground: bridges where routers are plugged in, here without guests behind the ports."""

from __future__ import annotations

import json
import time

from topologies.experiments.peer.contender import Contender, Installed, Restarted
from topologies.experiments.peer.ground import PREFIXES, Ground
from topologies.experiments.rig import HOST_MAC, OTHER_HOST_MAC, Connection, Rig, mac, prefix
from topologies.processes import run
from topologies.sandbox import Sandbox


class GroundRig(Rig):
    """A `Rig` whose Open vSwitch is the ground's."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground.routers)
        self.ground = ground

    def _switch(self) -> Sandbox:
        """The routers' interfaces, under the names that the configuration uses; nobody listens there."""
        for k in range(1, self.routers + 1):
            for bridge, number in ((self.bridges[k - 1], 2), (self.bridges[k], 1)):
                port = f"{bridge}-p{number}"
                kind = ("type=internal", f"ofport_request={number}")
                self.ground.ovs.vsctl("add-port", bridge, port, "--", "set", "interface", port, *kind)
                run("sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1")
                run("ip", "link", "set", port, "up")
        return self.ground.ovs


class Ours(Contender):
    """Delegations instead of routes."""

    name = "fsctl"
    changes = 20

    def _open(self) -> None:
        self.ground = self._stack.enter_context(Ground([f"b{k}" for k in range(self.routers + 1)], self.routers))
        self._rig = self._stack.enter_context(GroundRig(self.ground))
        self._hosts_speak()

    def _hosts_speak(self) -> None:
        """The last bridge floods what goes to hosts that it has never heard; the peers' hosts answer ARP."""
        for end, source in ((self.ground.ends[1], HOST_MAC), ("other0", OTHER_HOST_MAC)):
            with self.ground.space.raw_socket(end) as host:
                head = bytes.fromhex((mac(self.routers, 1) + source).replace(":", ""))
                host.send(head + b"\x88\xb5" + bytes(46))

    @property
    def pids(self) -> list[int]:
        return [self._rig.control.pid]

    @property
    def entry_mac(self) -> str:
        return mac(1, 0)

    def install(self, count: int) -> Installed:
        """Its answers come when Open vSwitch has confirmed the rules: no need to look."""
        bodies = {k: json.dumps({"flows": self._rig.table(k, count)}).encode() for k in range(1, self.routers + 1)}
        took = self._rig.put_all(bodies)
        return Installed(took, self.rules(), self.routers * count)

    def change(self, number: int) -> float:
        body = json.dumps({"add": [self._rig.flow(self.routers, prefix(number), OTHER_HOST_MAC)]}).encode()
        start = time.monotonic()
        self._rig.connection.request("PATCH", f"/v1/routers/r{self.routers}/flows", body)
        return time.monotonic() - start

    def restart(self) -> Restarted:
        before = self.rules()
        self._rig.control.stop()
        start = time.monotonic()
        self._rig.control.start()
        took = time.monotonic() - start
        rest = Connection(self._rig.control)
        knows = sum(rest.request("GET", f"/v1/routers/r{k}")["flows"] for k in range(1, self.routers + 1))
        rest.close()
        return Restarted(took, min(before, self.ground.count(PREFIXES)), knows)
