"""A controller whose switches are made of paper."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from fsctl.config import Config, InterfaceConfig, RouterConfig
from fsctl.controller import Controller
from fsctl.errors import SilentError, UnavailableError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Match, Verdict
from fsctl.model.fib import change_of
from fsctl.openflow.ports import Port
from fsctl.openflow.rules import FLOW_SWITCH, RuleChange, RuleKey, RuleTable, Update
from fsctl.pipeline import diff
from fsctl.pipeline.layout import tables
from fsctl.runtime import Runtime, Threads
from fsctl.status import BridgeInfo, Dump, OvsdbView, PortInfo, Rejection, Write, WriteResult
from fsctl.store import SqliteStore, Store

PORTS = {"x": ("r0", "l-y", "l-z"), "y": ("r1", "s0", "l-x", "l-z"), "z": ("s1", "l-x", "l-y")}
MAC = {name: 0x0200_0000_0000 + n for n, name in enumerate(("a", "b", "r0", "r1", "s0", "s1"), 1)}


class PaperFilling:
    """Changes for a PaperSwitch, made when all are there."""

    def __init__(self, switch: PaperSwitch) -> None:
        self.changes: list[RuleChange] = []
        self._switch = switch

    def add(self, changes: Sequence[RuleChange]) -> None:
        if self._switch.gone:
            raise UnavailableError("gone")
        self.changes += changes

    def finish(self) -> list[Rejection]:
        return self._switch.apply(Update(self._switch.bridge, diff.order(self.changes)))

    def abandon(self) -> None:
        self._switch.abandoned += 1


class PaperSwitch:
    """A bridge that keeps its rules in a dict; `refuse` says what it will not take."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self.table = RuleTable()
        self.refuse: set[RuleKey] = set()
        self.updates: list[Update] = []
        self.gone = False
        self.is_closed = False
        self.abandoned = 0
        self.overtaking: list[RuleKey] = []
        self.reclaimed: frozenset[RuleKey] = frozenset()

    def apply(self, update: Update) -> list[Rejection]:
        if self.gone:
            raise UnavailableError("gone")
        self.updates.append(update)
        bad = [c.key for c in update.changes if c.actions is not None and c.key in self.refuse]
        kept = [c for c in update.changes if c.key not in bad]
        self.table = diff.apply(Update(self.bridge, kept), self.table)
        return [Rejection(key, "OFPFMFC_TABLE_FULL", 5, 1) for key in bad]

    def overtake(self, changes: Sequence[RuleChange]) -> list[Rejection]:
        self.overtaking += [change.key for change in changes]
        return self.apply(Update(self.bridge, list(changes)))

    def fill(self) -> PaperFilling:
        return PaperFilling(self)

    def dump(self) -> Dump:
        if self.gone:
            raise SilentError("gone")
        return Dump(RuleTable(dict(self.table.rules)))

    def watch(self, on_drift: Callable[[bool], None]) -> None:
        self.drift = on_drift

    def reclaim(self, keys: frozenset[RuleKey]) -> None:
        self.reclaimed |= keys

    def answers(self, within_s: float) -> bool:
        assert within_s > 0
        return not self.gone

    def disconnect(self) -> None:
        self.is_closed = True

    def probe(self) -> None:
        while self.gone and not self.is_closed:
            time.sleep(0.005)

    def counters(self) -> Mapping[RuleKey, tuple[int, int]]:
        return {key: (3, 300) for key in self.table.rules if key.table == FLOW_SWITCH}

    def ports(self) -> list[Port]:
        return []


class PaperLinks:
    """Patch ports that are there as soon as they are asked for."""

    def __init__(self) -> None:
        self.asked: list[frozenset[str]] = []
        self.on_link = lambda: None
        self.released = False
        self.to_release: tuple[str, ...] = ()
        self.released_with_rules: frozenset[str] = frozenset()
        self.problem = ""

    def want(self, links: frozenset[frozenset[str]]) -> None:
        self.asked = sorted(links, key=sorted)
        self.on_link()

    def allow_release(self, *, allowed: bool = True) -> None:
        self.released = allowed


class Lab:
    """Bridges x, y, z; routers r (x-y) and s (y-z)."""

    def __init__(self, max_flows: int = 1000, runtime: Runtime | None = None, store: Store | None = None) -> None:
        routers = {
            name: RouterConfig(
                name,
                {
                    f"eth{n}": InterfaceConfig(f"eth{n}", bridge, f"{name}{n}", MAC[f"{name}{n}"], 1500, ())
                    for n, bridge in enumerate(bridges)
                },
                max_flows=max_flows,
            )
            for name, bridges in {"r": "xy", "s": "yz"}.items()
        }
        self.config = Config("test", "0" * 64, tuple("xyz"), routers, store=":memory:")
        self.links = PaperLinks()
        self.switches = {b: PaperSwitch(b) for b in "xyz"}
        self.store = store or SqliteStore(":memory:")
        self.runtime = runtime or Threads()
        self.start()

    def start(self) -> None:
        self.controller = Controller(self.config, self.store, self.links, self.runtime)
        self.links.on_link = self.report
        self.thread = threading.Thread(target=self.controller.run, daemon=True)
        self.thread.start()
        for bridge, switch in self.switches.items():
            self.controller.switch_connected(switch, self.ports(bridge))
        self.controller.ovsdb_changed(self.view())

    def reconnect(self, bridge: str) -> None:
        """The connection of a bridge ends and is made again."""
        self.controller.switch_gone(self.switches[bridge])
        self.switches[bridge].is_closed = False
        self.controller.switch_connected(self.switches[bridge], self.ports(bridge))

    def ports(self, bridge: str, down: str = "") -> list[Port]:
        return [Port(name, number, name != down) for number, name in enumerate(PORTS[bridge], 1)]

    def view(self) -> OvsdbView:
        asked = {tuple(sorted(pair)) for pair in self.links.asked}
        links = {b: {p: f"l-{p}" for p in "xyz" if tuple(sorted((b, p))) in asked} for b in "xyz"}
        ports = {(b, name): PortInfo(name, b) for b in "xyz" for name in PORTS[b] if not name.startswith("l-")}
        return OvsdbView(ports, links, bridges={name: BridgeInfo(name) for name in "xyz"}, is_known=True)

    def report(self) -> None:
        self.controller.ovsdb_changed(self.view())

    def write(self, router: str, *flows: tuple[str, Verdict | None], replace: bool = False) -> WriteResult:
        changes = [change_of(Match("eth0", Prefix.parse(text)), verdict) for text, verdict in flows]
        return self.controller.write(Write(router, changes, replace)).wait(10)

    def settle(self) -> None:
        """Until every switch holds what is wanted now."""
        deadline = time.monotonic() + 5
        quiet = 0
        while quiet < 3:
            assert time.monotonic() < deadline, list(self.controller.not_ready())
            self.write("r")
            at_rest = all(
                here.confirmed == here.worker.sent and not here.trouble(time.monotonic())
                for here in self.controller.installer.bridges.values()
            )
            quiet = quiet + 1 if at_rest and not self.controller.inventory.has_changed else 0
            time.sleep(0.005)

    def check_in_step(self) -> None:
        """What the switches hold is what a compilation from nothing gives."""
        self.settle()
        wanted = tables(self.controller.network, self.controller.now.compiler)
        for bridge, switch in self.switches.items():
            assert switch.table.rules == wanted[bridge].rules

    def flow_rules(self, bridge: str) -> dict[RuleKey, tuple]:
        return {k: a for k, a in self.switches[bridge].table.rules.items() if k.table == FLOW_SWITCH and k.priority}

    def stop(self) -> None:
        self.controller.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
