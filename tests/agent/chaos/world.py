"""A router with the agent, its twin without one, the real controller on a private Open vSwitch, and who is a neighbour.

The controller and the switch run for real; packets of the routers do not pass the switch (its ports are dummies). What the switch
would do with a packet is asked of it (`ofproto/trace`); what the router's kernel does with one is seen on the cables.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsctl.model.delegations import Delegation
from fsctl.model.fib import match_of_change
from fsctl.schema.bodies import read_replacement
from tests.agent.chaos.batch import batch
from tests.agent.chaos.draw import INTERFACES, KNOWN, SUBNETS
from tests.agent.chaos.fairness import FairClock
from tests.agent.chaos.line import Line
from tests.agent.chaos.obstacles import Obstacle
from tests.agent.fake import a_router
from tests.agent.guest import ROOT, confined
from tests.agent.netns import Namespace, namespaces, veth
from tests.waiting import waited_for
from topologies.control import Control
from topologies.processes import Whole, die_with_parent
from topologies.sandbox import SWITCH, Sandbox

LEASE_S = 2.0
BRIDGES = {"r0": "b0", "r1": "b1"}
_AGENT = """
import sys
from fsctl.agent import netlink
netlink.RECEIVE_BUFFER_BYTES = 300_000
from fsctl.agent.__main__ import main
sys.exit(main())
"""
"""With room for a few hundred messages, so that overruns are cheap to provoke."""
CANARY = "10.77.0.0/16"
CANARY_MAC = "02:00:00:00:00:fa"
MEND = [
    *(f"link set {i} {what}" for i in INTERFACES for what in ("up", "mtu 1500")),
    *(f"addr replace {SUBNETS[i][0]}.1/24 dev {i}" for i in INTERFACES),
    *(f"addr replace {SUBNETS[i][1]}::1/64 dev {i} nodad" for i in INTERFACES),
    f"neigh replace 10.0.1.250 lladdr {CANARY_MAC} dev r1 nud permanent",
    f"route replace {CANARY} via 10.0.1.250",
]
"""Everything is up, addressed, and the canary leads from r0 to r1."""


def router_mac(i: str) -> str:
    return f"02:00:00:00:01:0{i[1]}"


def host_mac(i: str) -> str:
    return f"02:00:00:00:02:0{i[1]}"


class World(Whole):
    """Everything that is started ends with the block."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.agent: subprocess.Popen[bytes] | None = None
        self.standing: dict[str, tuple[Obstacle, float]] = {}
        """Obstacles by name, and since when (fair time)."""
        self.router = a_router({name: router_mac(i) for i, name in KNOWN.items()})
        self.overruns = 0

    def _open(self) -> None:
        self.guest, self.hosts, self.twin, self.others = self._stack.enter_context(namespaces("cg", "ch", "ct", "co"))
        for ns, hosts in ((self.guest, self.hosts), (self.twin, self.others)):
            _cable(ns, hosts)
        self.ovs = Sandbox()
        self._stack.callback(self.ovs.stop)
        self.ovs.start()
        for bridge in BRIDGES.values():
            self.ovs.add_bridge(bridge, ports=2)
        self.control = Control(self.directory, self._configuration(), "127.0.0.1", self.ovs)
        self._stack.callback(self.control.stop)
        self.control.start()
        host, _, port = self.control.url.removeprefix("http://").rpartition(":")
        self.line = Line(self.guest.name, host, int(port))
        self._stack.callback(self.line.close)
        self.fair = FairClock(lambda: [p for p in (self.agent_pid, self.control.pid, self.ovs.pid(SWITCH)) if p])
        self._stack.callback(self.fair.stop)
        self.fair.start()
        self._stack.callback(self.stop_agent)
        self.mend()
        self.start_agent()

    @staticmethod
    def _configuration() -> dict[str, Any]:
        interfaces = {KNOWN[i]: {"bridge": bridge, "port": f"{bridge}-p2", "mac": router_mac(i)} for i, bridge in BRIDGES.items()}
        return {"bridges": list(BRIDGES.values()), "routers": {"vr1": {"interfaces": interfaces}}}

    # --- the agent ------------------------------------------------------------------------------------------

    @property
    def agent_pid(self) -> int:
        return self.agent.pid if self.agent is not None else 0

    def start_agent(self) -> None:
        words = ["run", "--url", self.line.url, "--router", "vr1", "--run-dir", str(self.directory), "--lease", str(LEASE_S)]
        command = confined(self.guest, "-c", _AGENT, *words, "--token-file", str(self.control.token_file("vr1")))
        with open(self.directory / "agent.log", "ab") as log:
            self.agent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin", "PYTHONPATH": str(ROOT)}, preexec_fn=die_with_parent,  # noqa: PLW1509
            )  # fmt: skip

    def stop_agent(self, number: int = signal.SIGKILL) -> None:
        if self.agent is not None:
            self._count_overruns()
            self.agent.send_signal(number)
            self.agent.wait(20)
            self.agent = None

    def _count_overruns(self) -> None:
        status = self.agent_status()
        self.overruns += status.get("kernel", {}).get("overruns", 0)

    def agent_status(self) -> dict[str, Any]:
        """What it says of itself; {} if it does not answer."""
        words = [sys.executable, "-m", "fsctl.agent", "status", "--json", "--run-dir", str(self.directory)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}, timeout=20)
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """SIGSTOP; time does not count meanwhile."""
        with self.fair.held():
            os.kill(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(pid, signal.SIGCONT)

    # --- the routers ----------------------------------------------------------------------------------------

    def apply(self, commands: list[str]) -> None:
        """To the router and to its twin."""
        for ns in (self.guest, self.twin):
            batch(ns, commands)

    def mend(self) -> None:
        for i in INTERFACES:
            self.far_end(i, "up")
        self.apply(MEND)

    def far_end(self, i: str, *states: str) -> None:
        """The other end of a cable is set up or down, in both worlds. Until the routers have noticed that it stays down:
        they forget neighbours then, up to a second later (linkwatch), and not at all if it came back before."""
        for hosts in (self.hosts, self.others):
            batch(hosts, [f"link set p{i[1]} {state}" for state in states])
        if states[-1] == "down":
            waited_for(lambda: all(ns.json(f"link show {i}")[0]["operstate"] != "UP" for ns in (self.guest, self.twin)), 3.0)
        elif "down" in states:
            self.apply([f"neigh flush dev {i} nud all"])

    def start_batch(self, commands: list[str]) -> subprocess.Popen[str]:
        """To the router alone, while other things happen."""
        words = ["ip", "-n", self.guest.name, "-force", "-batch", "-"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        assert process.stdin is not None
        process.stdin.write("".join(f"{c}\n" for c in commands))
        process.stdin.close()
        return process

    def put_up(self, name: str, obstacle: Obstacle) -> float:
        """Since when it is in force (fair time, at the latest)."""
        self._carry_out(obstacle.up)
        self.standing[name] = (obstacle, since := self.fair.now())
        return since

    def take_down(self, name: str) -> None:
        obstacle, _ = self.standing.pop(name)
        self._carry_out(obstacle.down)

    def _carry_out(self, commands: tuple[str, ...]) -> None:
        for command in commands:
            for ns in (self.twin, self.guest):
                if command.startswith("="):
                    ns.sysctl(*command[1:].split())
                else:
                    ns.run(command)

    # --- fsctl ----------------------------------------------------------------------------------------------

    def delegations(self) -> list[Delegation]:
        """What fsctl has of the router, as its administrator sees it. Raises FsctlError."""
        flows = [{k: f[k] for k in ("match", "action", "set", "out") if k in f} for f in self.control.client.flows("vr1")]
        changes = read_replacement(self.router, {"flows": flows}).changes
        return [Delegation(match_of_change(c.part, c.key), c.verdict) for c in changes if c.verdict is not None]

    def is_canary_bypassed(self) -> bool:
        """What the switch would do with a packet that the host on b0 sends along the canary's route."""
        packet = f"in_port=1,dl_src={host_mac('r0')},dl_dst={router_mac('r0')},udp,nw_src=10.0.0.9,nw_dst=10.77.0.5,nw_ttl=64"
        return "ttl=63" in self.ovs.appctl("ofproto/trace", "b0", packet).split("Datapath actions:")[-1]


def _cable(ns: Namespace, hosts: Namespace) -> None:
    """Routers alike, with hosts alike: who compares them sees no other MAC address."""
    for i in INTERFACES:
        p, (v4, v6) = f"p{i[1]}", SUBNETS[i]
        veth(ns, i, hosts, p)
        ns.ip(f"link set {i} address {router_mac(i)}")
        hosts.ip(f"link set {p} address {host_mac(i)}")
        for h in (2, 3):
            hosts.ip(f"addr add {v4}.{h}/24 dev {p}")
            hosts.ip(f"addr add {v6}::{h}/64 dev {p} nodad")
    ns.forwards_plainly(INTERFACES)
    ns.sysctl("ipv6/conf/all/forwarding", "1")
