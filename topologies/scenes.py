"""What happens to routers that delegate by themselves, scene by scene, on a `Detour` with FRR and agents; with figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from topologies import frr, watch
from topologies.agents import Agent
from topologies.control import Control
from topologies.lab import Lab
from topologies.processes import LabError, run
from topologies.topos import Detour

A, B = "a", "b"
LEFT, MIDDLE, RIGHT = "r1", "r2", "r3"
DETOUR_COST = 100
FIREWALLED_PORT = 9999
SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Convergence:
    """Seconds from the daemons' start to OSPF's routes, and from the agents' start to one rule; delegations by router."""

    ospf_s: float
    bypass_s: float
    delegations: dict[str, int]
    rule: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A link cut. Milliseconds from the lost carrier to the kernel's new route, and from there to the new rule; packets lost."""

    bypassed: bool
    route_ms: float
    rule_ms: float | None
    lost: int
    sent: int
    rule: str


@dataclass(frozen=True, slots=True)
class Firewall:
    """A drop rule in the middle router. Milliseconds from nft(8)'s return to the end of its bypass, and to the reason in
    `GET /v1/routers/{r}`; `leaked_ms`: how long packets still passed that the firewall drops."""

    ended_ms: float
    shown_ms: float
    leaked_ms: float
    reason: str
    rule: str
    chain: list[str]
    returned_ms: float


@dataclass(frozen=True, slots=True)
class Death:
    """The middle router killed. Seconds to the chain's new way, and to the withdrawal of its flows; packets lost."""

    lease_s: float
    rerouted_s: float
    withdrawn_s: float
    flows_before: int
    lost: int
    sent: int
    rule: str


class Scenes:
    """A running `Detour`: FRR is started by `converge`, agents when they are needed."""

    def __init__(self, lab: Lab, control: Control, stack: ExitStack, say: Callable[[str], None]) -> None:
        self.lab, self.control, self.say = lab, control, say
        self.frr: dict[str, frr.Frr] = {}
        self.agents: dict[str, Agent] = {}
        for station in lab.topo.routers():
            name = station.name
            config = frr.configuration(lab.topo, station, {Detour.DETOUR_SUBNET: DETOUR_COST})
            self.frr[name] = frr.Frr(lab[name], lab.directory / f"{name}.frr", config)
            self.agents[name] = Agent(lab, name)
            stack.callback(self.frr[name].stop)
            stack.callback(self.agents[name].stop)
        self.target = lab.address(B)
        self.target_mac = lab.topo.stations[B].ports[0].mac
        self.target_net = str(ip_network(f"{self.target}/24", strict=False))
        self.way_back = lab.topo.stations[RIGHT].ports[2].address(4, Detour.DETOUR_SUBNET)

    # What is the case

    def rule(self, bridge: str = "b0") -> dict[str, Any] | None:
        """The rule that packets for B meet on a bridge, as fsctl lists it; None: only the router knows."""
        found = [r for r in self.control.client.rules(self.lab.bridge(bridge)) if self._catches(r["match"])]
        return max(found, key=lambda r: int(r["priority"]), default=None)

    def _catches(self, match: dict[str, Any]) -> bool:
        return "ipv4_dst" in match and ip_address(self.target) in ip_network(match["ipv4_dst"])

    def chain(self, bridge: str = "b0") -> list[str]:
        """The routers that are bypassed in one go by packets for B from a bridge on; while a way is not ready, none."""
        rule = self.rule(bridge)
        return [hop["router"] for hop in rule["chain"]] if rule is not None and "output" in rule["actions_text"] else []

    def text(self, bridge: str = "b0") -> str:
        """The rule and its chain, in one line."""
        rule = self.rule(bridge)
        if rule is None:
            return "(none: to the router)"
        return f"{rule['text']}   ({' > '.join(hop['router'] for hop in rule['chain'])})"

    def wait_for_chain(self, *routers: str, timeout_s: float = 30.0) -> None:
        watch.wait_for(f"the bypass of {', '.join(routers)}", lambda: self.chain() == list(routers), timeout_s)

    def wait_for_ospf(self, *, timeout_s: float = 60.0) -> None:
        """Both directions of the chain, by the short way."""
        there, back = (self.lab.topo.stations[MIDDLE].ports[n].address(4, n + 1) for n in (0, 1))
        watch.wait_for(
            "OSPF has converged", lambda: self._next_hop(LEFT, 3) == [there] and self._next_hop(RIGHT, 0) == [back], timeout_s
        )

    def _next_hop(self, router: str, subnet: int) -> list[str]:
        try:
            return self.frr[router].route(subnet)
        except LabError:
            return []  # Daemons that have just started do not answer yet; who waits says so in the end.

    # The scenes

    def converge(self) -> Convergence:
        """OSPF finds the routes, the agents delegate them, fsctl makes one rule of them."""
        self.say("OSPF: FRR starts in each router")
        begin = time.monotonic()
        for daemons in self.frr.values():
            daemons.start()
        self.wait_for_ospf()
        ospf_s = time.monotonic() - begin
        self.lab[A].execute("ping", "-n", "-c", "3", "-i", "0.2", self.target)
        self.say(f"OSPF has converged after {ospf_s:.1f} s; now an agent starts in each router")
        begin = time.monotonic()
        self._start_agents()
        bypass_s = time.monotonic() - begin
        counts = {name: int(self.control.client.router(name)["flows"]) for name in self.agents}
        return Convergence(ospf_s, bypass_s, counts, self.text())

    def _start_agents(self) -> None:
        for agent in self.agents.values():
            agent.start()
        self.wait_for_chain(LEFT, MIDDLE, RIGHT)

    def cut(self, bypassed: bool) -> Cut:
        """Cut the cable between left and middle under traffic, with the agents or without, and mend it again."""
        if bypassed:
            self._start_agents()
        else:
            for agent in self.agents.values():
                agent.stop()
            watch.wait_for("the end of the bypass", lambda: self.chain() == [])
        with watch.routes(self.lab, LEFT) as routes, watch.rules(self.lab, "b0") as rules:
            with watch.stream(self.lab, A, B) as packets:
                time.sleep(SETTLE_S)
                at = time.time()
                self._cable("down")
                if bypassed:
                    self.wait_for_chain(LEFT, RIGHT)
                time.sleep(SETTLE_S)
            rule = self.text()
        carrier = routes.first(r"\] \d+: eth1@.*NO-CARRIER", after=at)
        route = routes.first(rf"\] {self.target_net} .*via {self.way_back} ", after=at)
        if carrier is None or route is None:
            raise LabError(f"{LEFT}'s kernel told of no lost carrier, or of no route to {self.target_net} by the other way")
        confirmed = self._new_way(rules, at) - route.at if bypassed else None
        self._cable("up")
        self.wait_for_ospf()
        if bypassed:
            self.wait_for_chain(LEFT, MIDDLE, RIGHT)
        confirmed_ms = None if confirmed is None else confirmed * 1e3
        return Cut(bypassed, (route.at - carrier.at) * 1e3, confirmed_ms, packets.lost, len(packets.sent), rule)

    def _cable(self, state: str) -> None:
        """Both ends lose or find their carrier, as when a cable is pulled."""
        middle = self.lab.port(MIDDLE, 0)
        run("ip", "-batch", "-", stdin=f"link set {self.lab.port(LEFT, 1)} {state}\nlink set {middle} {state}\n")

    def _new_way(self, rules: watch.Watch, after: float) -> float:
        """When Open vSwitch had both the rule for B and what it does: two hops, B's MAC address."""
        match = rules.first(rf"event=(ADDED|MODIFIED) table=1 .*nw_dst={self.target}[ ,]", after)
        actions = rf"dec_ttl,dec_ttl,set_field:[0-9a-f:]*->eth_src,set_field:{self.target_mac}->eth_dst,output"
        way = rules.first(rf"event=(ADDED|MODIFIED) table=5 .*actions={actions}", after)
        if match is None or way is None:
            raise LabError("Open vSwitch told of no new rule for B")
        return max(match.at, way.at)

    def firewall(self) -> Firewall:
        """The middle router is told to drop what goes to one port: it must see every packet again."""
        self._start_agents()
        guest = self.lab[MIDDLE]
        ruleset = (
            "table ip demo {\nchain forward {\ntype filter hook forward priority filter; policy accept;\n"
            f"udp dport {FIREWALLED_PORT} drop\n}}\n}}\n"
        )
        with watch.rules(self.lab, "b0") as rules:
            with watch.stream(self.lab, A, B, port=FIREWALLED_PORT) as packets:
                time.sleep(SETTLE_S)
                guest.execute("nft", "-f", "-", stdin=ruleset)
                at = time.time()
                reason = watch.wait_for("the reason is shown", self._firewall_reason, every_s=0.005)
                shown = time.time()
                self.wait_for_chain(LEFT)
                time.sleep(SETTLE_S)
            text, chain = self.text(), self.chain()
        gone = rules.first(rf"event=DELETED .*table=1 .*nw_dst={self.target}[ ,]", at)
        if gone is None:
            raise LabError("Open vSwitch did not tell that B's rule is gone")
        guest.execute("nft", "delete", "table", "ip", "demo")
        begin = time.monotonic()
        self.wait_for_chain(LEFT, MIDDLE, RIGHT)
        back = time.monotonic() - begin
        leaked = max(0.0, packets.last_arrival - at)
        return Firewall((gone.at - at) * 1e3, (shown - at) * 1e3, leaked * 1e3, reason, text, chain, back * 1e3)

    def _firewall_reason(self) -> str:
        refused = self.control.client.router(MIDDLE)["not_bypassed"]
        return next((f"{r['name']}, {r['scope']}: {r['reason']}" for r in refused if r["name"] == "firewall"), "")

    def death(self) -> Death:
        """The middle router dies: all its processes at once, and it forwards nothing any more."""
        self._start_agents()
        router = self.control.client.router(MIDDLE)
        lease, flows = float(router["session"]["lease"]), int(router["flows"])
        with watch.stream(self.lab, A, B) as packets:
            time.sleep(SETTLE_S)
            begin = time.monotonic()
            self.agents[MIDDLE].kill()
            self.frr[MIDDLE].kill()
            self.lab[MIDDLE].execute("sysctl", "-qw", "net.ipv4.ip_forward=0")
            rerouted = withdrawn = 0.0
            while not (rerouted and withdrawn):
                now = time.monotonic() - begin
                rerouted = rerouted or (now if self.chain() == [LEFT, RIGHT] else 0.0)
                withdrawn = withdrawn or (now if self._is_forgotten(MIDDLE) else 0.0)
                if now > lease + 30:
                    raise LabError(f"{MIDDLE} is dead for {now:.0f} s: rerouted after {rerouted}, withdrawn after {withdrawn}")
                time.sleep(0.05)
        return Death(lease, rerouted, withdrawn, flows, packets.lost, len(packets.sent), self.text())

    def _is_forgotten(self, router: str) -> bool:
        """No flow of it, and no rule on any bridge that bypasses it."""
        client = self.control.client
        return not client.router(router)["flows"] and not any(
            hop["router"] == router for rule in client.rules() for hop in rule["chain"]
        )


@contextmanager
def scenes(lab: Lab, say: Callable[[str], None]) -> Iterator[Scenes]:
    """The scenes of a lab; all daemons end with the block."""
    with ExitStack() as stack:
        yield Scenes(lab, lab.start_controller(), stack, say)
