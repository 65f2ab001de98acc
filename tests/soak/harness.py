"""Two worlds, the controller, and what is compared at a pause."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fsctl.client import Client
from fsctl.errors import FsctlError
from tests.agent.netns import inside
from tests.soak import probes, rulebook, words
from tests.soak.judge import BYPASSED, ROUTED, Excuse, Judge, Sent, describe
from tests.soak.plan import HOSTS, LEASED, MANAGED, PORTS, ROUTERS, net_of
from tests.soak.probes import CHATTER_EVERY_S, Talk
from tests.soak.switch import rss_kib
from tests.soak.walk import Flow, Tables, delegations, walk
from tests.soak.watch import Leases, Outages, Stall
from tests.soak.wire import NOBODYS_VLAN, Ears, Probe, mac_text
from tests.soak.world import SWITCH_NS, World
from tests.waiting import waited_for
from topologies.control import Control
from topologies.processes import LabError, Whole
from topologies.sandbox import DATABASE, SWITCH

STATED_S = 1.0
"""In what time everything that somebody else has changed is to be repaired."""
GRACE_S = 1.0
"""For looking: a dump of three bridges takes some time too."""
ARRIVAL_S = 1.5
LEARNED_S, FOLLOWED_S = 1.3, 0.8
MAX_GROWTH_KIB = 128 * 1024


@dataclass(frozen=True, slots=True)
class Pause:
    """What holds now, after the stated time and `extra` seconds.

    `same_rules`: the switch holds the rules of before. `bypassed`: no router sees a plain packet that it has delegated;
    `left`: these routers see all of theirs. `ready`: the controller says so. `packets`: both worlds deliver the same.
    `controller`: it is there to be asked. `installed`: nothing but delegations decides what is bypassed.
    """

    extra: float = 0.0
    same_rules: bool = False
    bypassed: bool = False
    ready: bool = False
    packets: bool = True
    left: frozenset[str] = frozenset()
    controller: bool = True
    installed: bool = True

    def along(self, other: Pause) -> Pause:
        """What may be expected of both at once."""
        return Pause(
            max(self.extra, other.extra), self.same_rules and other.same_rules, self.bypassed and other.bypassed,
            self.ready and other.ready, self.packets and other.packets, self.left | other.left,
            self.controller and other.controller, self.installed and other.installed,
        )  # fmt: skip


WELL = Pause(same_rules=True, bypassed=True, ready=True)


def is_meant_for(station: str, raw: bytes) -> bool:
    """Whether a frame is addressed to whom it came to. What was only flooded there is not missed."""
    return bool(raw[0] & 1) or mac_text(raw[:6]) == HOSTS[station].mac


class Soak(Whole):
    """A running soak. Everything that threads do ends with the block."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        super().__init__()
        self.rng, self.directory = rng, directory
        self.spoofs = False
        """Whether probes with addresses of routers as sources are among those of a pause."""
        self.judge, self.outages = Judge(), Outages()
        self.flows: dict[str, list[Flow]] = {}
        self.withheld: set[str] = set()
        """Routers that delegate nothing just now."""
        self.repairs: list[float] = []
        self.cached: list[str] = []
        self.suspects: list[Sent] = []
        """Probes that were not delivered as they should."""
        self.compared = 0

    def _open(self) -> None:
        judge = self.judge
        self.bypassed, self.routed = (
            self._stack.enter_context(World(tag, mode, partial(judge.heard, name), partial(judge.overheard, name)))
            for tag, mode, name in (("1", "secure", BYPASSED), ("2", "standalone", ROUTED))
        )
        self.switch = self.bypassed.switch
        # From here on this thread, and those that it starts, are where the bypassed world's Open vSwitch is.
        self._stack.enter_context(inside(self.bypassed.ns[SWITCH_NS].name))
        self.control = Control(self.directory, configuration(), "127.0.0.1", self.switch)
        self._stack.callback(self.control.stop)
        self.control.start()
        self.ears = Ears()
        for world in (self.bypassed, self.routed):
            for devices in (world.hosts, *world.routers.values()):
                self.ears.add(devices)
        self._stack.callback(self.ears.stop)
        self.talk = Talk(judge, (self.bypassed, self.routed), self.rng.randrange(1 << 32))
        self.stall = Stall(self.control, self.outages)
        self.leases = Leases(self.control, self.outages, self._lease_rule)
        self.tables_changed()
        self.delegate()
        self.excuse(2.0)
        self.ears.start()
        for thread in (self.talk, self.stall, self.leases):
            self._stack.callback(thread.stop)
            thread.start()
        self.rules, self._rules_known = rulebook.read(self.switch), True
        self.rss = self.memory()

    # --- what the harness does ----------------------------------------------------------------------------

    def tables_changed(self) -> None:
        """The routers' kernels have other tables: read them anew."""
        self.judge.new_era({name: Tables.read(self.bypassed, name) for name in ROUTERS})

    @property
    def tables(self) -> dict[str, Tables]:
        return self.judge.tables

    def delegate(self, *routers: str) -> None:
        """These routers (all but the leased one, if none is named) replace what they delegate by what their kernels have."""
        for name in routers or tuple(r for r in ROUTERS if r != LEASED):
            if name in self.withheld:
                continue
            self.flows[name] = delegations(self.tables[name])
            with self.client(name) as client:
                client.put_flows(name, self.flows[name])

    @contextmanager
    def without(self, router: str) -> Iterator[None]:
        """While the block runs the router has withdrawn everything, whoever else delegates."""
        self.withheld.add(router)
        with self.client(router) as client:
            client.delete_flows(router)
        try:
            yield
        finally:
            self.withheld.discard(router)
        self.delegate(router)

    def client(self, router: str) -> Client:
        return Client(self.control.url, self.control.tokens[router])

    def excuse(self, seconds: float, *bridges: str, eth_dst: str | None = None) -> Excuse:
        return self.judge.excuse(frozenset(bridges or MANAGED), seconds, eth_dst)

    def flush(self, *bridges: str, seconds: float = 2.5) -> None:
        """The bridges (all, if none is named) of both worlds forget where stations are."""
        self.excuse(seconds, *bridges)
        for world in (self.bypassed, self.routed):
            for bridge in bridges or MANAGED:
                with suppress(LabError):  # a bridge that is not there, or not yet, knows nobody
                    world.switch.appctl("fdb/flush", bridge)

    def both(self, *vsctl: str) -> None:
        """The same setting in both worlds."""
        for world in (self.bypassed, self.routed):
            world.switch.ctl(*vsctl)

    def _lease_rule(self, prefix: str) -> bool:
        """Whether the leased router's rule is in the switch; while nobody can tell, it is."""
        try:
            return bool(self.switch.flows("b0", f"table=1,ip,nw_dst={prefix}"))
        except LabError:
            return True

    def memory(self) -> dict[str, int]:
        try:
            controller = rss_kib(self.control.pid)
        except LabError:
            controller = 0  # it does not run just now
        return {"controller": controller, "ovs-vswitchd": self.switch.rss_kib()}

    def forget_rules(self) -> None:
        """A write has changed what the switch shall hold: it is read when everything is well again."""
        self._rules_known = False

    def remember(self) -> None:
        """All is well: what the switch holds now is what it shall hold."""
        if not self._rules_known:
            self.rules, self._rules_known = rulebook.read(self.switch), True

    # --- what is compared ---------------------------------------------------------------------------------

    def check(self, pause: Pause) -> list[str]:
        """Everything that is not as it shall be, in words."""
        begins = time.monotonic()
        died = self.switch.died() or self.routed.switch.died()
        if died:
            return [died]
        stated = pause.extra + STATED_S
        late = self._settled(pause, begins + stated + GRACE_S)
        if pause.same_rules and not pause.extra:
            self.repairs.append(time.monotonic() - begins)
        # Cached flows follow the rules a little later.
        time.sleep(max(FOLLOWED_S, begins + stated - time.monotonic()))
        found = late + self.threads()
        if pause.packets:
            found += self.packets(pause)
        return found + self.judge.leaks() + self._memory()

    def _settled(self, pause: Pause, deadline: float) -> list[str]:
        """Wait for the rules and the controller's word."""
        while True:
            problems = self._unsettled(pause)
            if not problems or time.monotonic() > deadline:
                return problems
            time.sleep(0.05)

    def _unsettled(self, pause: Pause) -> list[str]:
        found = []
        try:
            if pause.same_rules and self._rules_known:
                found += rulebook.difference(self.rules, rulebook.read(self.switch))
            if pause.ready:
                found += [f"not ready: {reason}" for reason in self.control.client.not_ready()]
                found += words.bridges(self.control.client.bridges())
        except (LabError, FsctlError) as e:
            found.append(f"no answer: {e}")
        return found

    def threads(self) -> list[str]:
        found = [t for t in (self.ears.problem, self.talk.problem) if t] + self.leases.problems
        self.leases.problems = []
        return found

    def packets(self, pause: Pause) -> list[str]:
        """Probes in both worlds, and what REST says of the flows that they belong to."""
        self._let_learn()
        sents = [self._send(probe) for probe in probes.of_a_pause(self.rng, self.spoofs)]
        also = [s for s in sents if s.probe.vlan != NOBODYS_VLAN]
        waited_for(lambda: all(s.received(BYPASSED) == s.received(ROUTED) for s in also), ARRIVAL_S)
        time.sleep(0.05)  # for what should not arrive
        self.compared += len(sents)
        found = []
        for sent in sents:
            problems = self._compare(sent, pause) + self._seen(sent, pause)
            if problems:
                self.suspects.append(sent)
            found += problems
        self.cached = self.switch.appctl("dpctl/dump-flows").splitlines() if self.suspects else []
        return found[:12] + (words.flows(self, sents, pause.installed)[:6] if pause.controller else [])

    def explained(self, most: int = 2) -> list[str]:
        """What Open vSwitch says in both worlds of probes that were not delivered as they should."""
        lines = []
        for sent in self.suspects[:most]:
            host = HOSTS[sent.probe.sender]
            for name, world in ((BYPASSED, self.bypassed), (ROUTED, self.routed)):
                try:
                    told = world.switch.appctl("ofproto/trace", host.bridge, f"in_port={host.name}", sent.probe.frame().hex())
                except LabError as e:
                    told = str(e)
                heard = sorted({station for station, _ in sent.heard[name]})
                lines += [f"{name}: {short(sent.probe)}: heard by {heard}; traced now:", *told.splitlines()]
        for sent in self.suspects[:most]:
            eth = f"src={sent.probe.eth_src},dst={sent.probe.eth_dst}"
            lines += ["cached for it:", *(line for line in self.cached if eth in line)]
        columns = "--columns=name,type,ofport,link_state,error,options"
        try:
            told = self.switch.ctl(columns, "--format=csv", "find", "interface", "type=patch")
        except LabError as e:
            told = str(e)
        return [*lines, "patch ports:", *told.splitlines()]

    def _let_learn(self) -> None:
        """Wait until the bridges know everybody: stations speak often, but cached flows teach a bridge twice a second only."""
        time.sleep(max(CHATTER_EVERY_S + 0.1, self.judge.last_excuse + LEARNED_S - time.monotonic()))

    def _send(self, probe: Probe) -> Sent:
        sent = self.judge.sent(probe)
        for world in (self.bypassed, self.routed):
            world.hosts.send(probe.sender, sent.probe.frame())
        time.sleep(0.001)
        return sent

    def _compare(self, sent: Sent, pause: Pause) -> list[str]:
        outcome = walk(self.tables, sent.probe)
        bypassed, routed = sent.received(BYPASSED), sent.received(ROUTED)
        lost = Counter[tuple[str, bytes]]() if sent.probe.vlan == NOBODYS_VLAN else routed - bypassed
        lost = Counter({heard: n for heard, n in lost.items() if is_meant_for(*heard)})
        found = []
        for what, frames in (("lost", lost), ("too much", bypassed - routed)):
            found += [f"{what} at {station}: {describe(raw)} of {short(sent.probe)}" for station, raw in frames.elements()]
        is_known = pause.bypassed and outcome.receiver is not None
        if is_known and (outcome.receiver, outcome.frames[-1][1]) not in routed:
            found.append(f"the routed world does not do what its kernels' tables say: {short(sent.probe)}")
        return found

    def _seen(self, sent: Sent, pause: Pause) -> list[str]:
        """Whether routers have seen what they have delegated, or not seen what they have not."""
        outcome, seen = walk(self.tables, sent.probe), sent.routers[BYPASSED]
        if not sent.probe.is_plain or outcome.asked or not outcome.routers:
            return []
        if pause.bypassed and not outcome.left and seen:
            return [f"not bypassed, {sorted(seen)} saw {short(sent.probe)}"]
        unseen = sorted(p for p in sent.routers[ROUTED] - seen if PORTS[p].station in pause.left)
        return [f"still bypassed, {unseen} did not see {short(sent.probe)}"] if unseen else []

    def _memory(self) -> list[str]:
        now = self.memory()
        return [
            f"{name} has grown from {before} to {now[name]} KiB"
            for name, before in self.rss.items()
            if now[name] > before + MAX_GROWTH_KIB
        ]

    # --- daemons --------------------------------------------------------------------------------------------

    def restart_switch(self) -> None:
        """After a kill: the MAC tables are empty; the other world's too."""
        self.switch.start_again(SWITCH)
        self.flush()

    def restart_database(self) -> None:
        self.switch.start_again(DATABASE)


def short(probe: Probe) -> str:
    extra = [f"ttl {probe.ttl}"] if probe.ttl != 64 else []
    extra += [f"{probe.size} bytes"] if probe.size != 100 else []
    extra += ["first fragment"] if probe.more else ["later fragment"] if probe.offset else []
    extra += [f"vlan {probe.vlan}"] if probe.vlan is not None else []
    return " ".join([f"{probe.sender}: {probe.src} > {probe.dst} by {probe.eth_dst}", *extra])


def configuration() -> dict[str, Any]:
    """fsctl.yaml's bridges and routers."""
    routers = {
        plan.name: {
            "interfaces": {
                p.device: {
                    "bridge": p.bridge,
                    "port": p.name,
                    "mac": p.mac,
                    "mtu": p.mtu,
                    "addresses": [f"{p.address(v)}/{net_of(v, p.bridge).prefixlen}" for v in (4, 6)],
                }
                for p in plan.ports
            }
        }
        for plan in ROUTERS.values()
    }
    return json.loads(json.dumps({"bridges": list(MANAGED), "routers": routers}))  # type: ignore[no-any-return]
