"""Two worlds, the controller, and what is compared at a pause."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fsctl.client import Client
from fsctl.errors import FsctlError
from tests.agent.netns import inside
from tests.soak import rulebook, words
from tests.soak.deliveries import Deliveries
from tests.soak.judge import BYPASSED, ROUTED, Excuse, Judge
from tests.soak.pause import Pause
from tests.soak.plan import LEASED, MANAGED, ROUTERS, net_of
from tests.soak.probes import Talk
from tests.soak.switch import rss_kib
from tests.soak.walk import Flow, Tables, delegations
from tests.soak.watch import Leases, Outages, Stall
from tests.soak.wire import Ears
from tests.soak.world import SWITCH_NS, World
from topologies.control import Control
from topologies.processes import LabError, Whole
from topologies.sandbox import DATABASE, SWITCH

STATED_S = 1.0
"""In what time everything that somebody else has changed is to be repaired."""
GRACE_S = 1.0
"""For looking: a dump of three bridges takes some time too."""
FOLLOWED_S = 1.5
MAX_GROWTH_KIB = 128 * 1024


class Soak(Whole):
    """A running soak. Everything that threads do ends with the block."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        super().__init__()
        self.rng, self.directory = rng, directory
        self.judge, self.outages = Judge(), Outages()
        self.flows: dict[str, list[Flow]] = {}
        self.withheld: set[str] = set()
        """Routers that delegate nothing just now."""
        self.repairs: list[float] = []
        self.deliveries = Deliveries(self)

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
            found += self.deliveries.problems(pause)
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
