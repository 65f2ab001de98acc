"""The loop: takes desired state in, compiles it, and hands the difference to the switches' workers; one job at a time.

Framework-free: switches, store, patch links and waiting are Protocols. Everything that changes state is queued and done by
`run` alone, so the order of writes is the order of their commits. (Heartbeats alone change sessions from request threads.)
Switches work in threads of their own (`bridge_worker`), and so does OVSDB (`ovsdb`); what they report is queued like
everything else. The loop waits for the store only, and not for long (`durable`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from fsctl.answers import Answers
from fsctl.bridge_worker import BridgeWorker, Report
from fsctl.changes import Changes
from fsctl.config import Config
from fsctl.connections import Client, Connections
from fsctl.desired import Desired, Snapshot
from fsctl.durable import Durable, load
from fsctl.errors import NotFoundError
from fsctl.installer import Installer
from fsctl.inventory import Inventory, SwitchState
from fsctl.jobs import Asked, Jobs, OfRouter
from fsctl.lease_clock import LeaseClock
from fsctl.links import Links
from fsctl.model.fib import Fib, Page, RulePage
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.openflow.ports import Port
from fsctl.recovery import Recovery
from fsctl.runtime import Runtime
from fsctl.sessions import Sessions
from fsctl.status import (
    BridgeStatus,
    FlowStatus,
    InterfaceChange,
    NexthopMove,
    Orphan,
    Override,
    OvsdbView,
    RuleStatus,
    Ticket,
    WalkReport,
    Write,
)
from fsctl.stops import Stops
from fsctl.store import Store
from fsctl.views import Views
from fsctl.writes import Pending, Submitted

_LOG = logging.getLogger(__name__)
START_PATIENCE_S = 5.0
"""How long a start waits for all bridges and OVSDB before it corrects rules that it finds installed.

With half of the network unknown, chains would be withdrawn that are right (a restart must lose no packet).
"""
MOST_WRITES, MOST_CHANGES = 64, 100_000
"""Limits of one batch of writes: it is stored, compiled and sent as a whole."""
TICK_S = 1.0
"""The longest that the loop sleeps. It wakes earlier when a lease ends, a comparison is due or a write is to be answered."""
READER_PATIENCE_S = 2.0
"""How long a reader waits for the end of the loop's turn."""
WORKERS_TURNS = 3
"""Until what was handed to the switches' workers is on its way: a worker writes it, and Ryu's own thread sends it."""
STUCK_S = 10.0
"""/healthz reports a loop that has finished no job for so long."""


class Controller:
    """`status.Backend` over a store, switches and links."""

    def __init__(self, config: Config, store: Store, links: Links, runtime: Runtime) -> None:
        self.config, self.links, self.runtime = config, links, runtime
        self.durable = Durable(store, runtime)
        stored = load(config, store)
        self.inventory = Inventory(config, overrides=dict(stored.interfaces))
        for disagreement in self.inventory.disagreements():
            _LOG.warning("%s", disagreement)
        fibs = {name: stored.fibs.get(name, Fib()) for name in config.routers}
        self.desired = Desired(self.inventory, fibs, self.pause)
        self._jobs = Jobs(runtime)
        self.installer = Installer(runtime, self._report, self.pause)
        self.connections = Connections(self.installer, self.inventory, runtime, self._jobs.add, is_local=config.openflow.is_local)
        self.answers = Answers(runtime, self.installer, self.desired)
        self.views = Views(self)
        self.lease_clock = LeaseClock(runtime)
        self.sessions = Sessions(self.durable, self.lease_clock.now, self._jobs.wake)
        self.stops = Stops(self.desired, self.installer, self.sessions)
        self.changes = Changes(self, stored.revision)
        self._wanted_links: frozenset[frozenset[str]] | None = None
        self._may_release = False
        self.recovery = Recovery(runtime.now)
        self._stopped = False
        self._idle = runtime.event()
        self._idle.set()
        self.starting_until = runtime.now() + START_PATIENCE_S
        self._turned_at = runtime.now()

    @property
    def now(self) -> Snapshot:
        """The present network, walks and tables: one snapshot."""
        return self.desired.now

    @property
    def network(self) -> Network:
        return self.desired.now.network

    @property
    def revision(self) -> int:
        return self.changes.revision

    @property
    def is_starting(self) -> bool:
        """Bridges or OVSDB are still unknown: nothing is compiled or sent, installed rules stay."""
        return not self.desired.has_begun

    # --- what others report --------------------------------------------------------------------------

    def switch_connected(self, switch: Client, ports: Iterable[Port], datapath_id: int | None = None) -> None:
        """A configured bridge has connected."""
        found = {port.name: port for port in ports}
        self._jobs.add(lambda: self.connections.connected(switch, found, datapath_id))

    def switch_gone(self, switch: Client) -> None:
        """Its connection is gone. The switch keeps its rules."""
        self._jobs.add(lambda: self.connections.gone(switch))

    def ports_changed(self, switch: Client, ports: Iterable[Port]) -> None:
        """All ports of a bridge, after at least one came, went or changed."""
        found = {port.name: port for port in ports}
        self._jobs.add(lambda: self.connections.ports_changed(switch, found), ("ports", id(switch)))

    def ovsdb_changed(self, view: OvsdbView) -> None:
        """A new view of OVSDB."""
        self._jobs.add(lambda: self.inventory.take_ovsdb(view), "ovsdb")

    # --- status.Backend ------------------------------------------------------------------------------

    def write(self, write: Write) -> Ticket:
        """Queue a change of a router's FIB; `wait` on the ticket until the switches have confirmed. Raises NotFoundError."""
        self._router(write.router)
        ticket = Pending(self.runtime, self.away)
        self._jobs.submit(Submitted(write, ticket))
        if write.is_withdrawal:
            self.stops.ask(write, ticket)
        return ticket

    def incoming(self) -> AbstractContextManager[None]:
        return self._jobs.incoming()

    def change_interface(self, change: InterfaceChange) -> Ticket:
        """Queue a change of a router interface's addresses or MTU. Raises NotFoundError."""
        self._interface(change.router, change.interface, "interface")
        ticket = Pending(self.runtime, self.away)
        self._jobs.submit(Asked(change.router, ticket, lambda: self.changes.interface(change, ticket)))
        return ticket

    def move_nexthop(self, move: NexthopMove) -> Ticket:
        """Queue a neighbour's change of MAC; it changes one rule per rewrite, not per delegation. Raises NotFoundError."""
        self._interface(move.router, move.out, "out")
        ticket = Pending(self.runtime, self.away)
        self._jobs.submit(Asked(move.router, ticket, lambda: self.changes.nexthop(move, ticket)))
        return ticket

    def flows(self, router: str, page: Page | None = None) -> Iterable[FlowStatus]:
        return self.views.flows(self._router(router), page)

    def bridges(self) -> Sequence[BridgeStatus]:
        return self.views.bridges()

    def notices(self) -> Sequence[str]:
        return self.views.notices()

    def rules(self, bridge: str | None = None, page: RulePage | None = None) -> Iterable[RuleStatus]:
        return self.views.rules(bridge, page)

    def walk(self, packet: Packet) -> WalkReport:
        return self.views.walk(packet)

    def not_ready(self) -> Sequence[str]:
        return self.views.not_ready()

    @property
    def late_s(self) -> float:
        """How long ago the loop has finished something."""
        return self.runtime.now() - self._turned_at

    def unhealthy(self) -> str:
        if self.late_s > STUCK_S:
            return f"the controller's loop has not finished a turn for {self.late_s:.0f} s"
        return self.recovery.problem

    def overrides(self, router: str) -> Mapping[str, Override]:
        return {name: said for (owner, name), said in self.inventory.overrides.items() if owner == self._router(router)}

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        return self.durable.orphans(with_flows=with_flows)

    def forget_orphans(self, router: str) -> bool:
        return self.durable.forget_orphans(router)

    def away(self) -> tuple[str, ...]:
        """The configured bridges that are not in sync."""
        return tuple(name for name in self.config.bridges if not self.installer.in_step(name))

    def _router(self, name: str) -> str:
        if name not in self.config.routers:
            raise NotFoundError("no such router", field="router", value=name)
        return name

    def _interface(self, router: str, name: str, field: str) -> None:
        if name not in self.config.routers[self._router(router)].interfaces:
            raise NotFoundError(f"router {router} has no such interface", field=field, value=name)

    # --- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is queued, until `stop`. No error ends it."""
        self.runtime.spawn(lambda: self.lease_clock.run(lambda: self._stopped))
        while not self._stopped:
            try:
                self._jobs.wait(self._patience())
                self.pause()
                while self._jobs and not self._stopped:
                    self._one(self._next())
                    self._duties()
                    self._turned_at = self.runtime.now()
                self._duties()
            except Exception:  # noqa: BLE001 - routers go on writing, so the loop must go on
                _LOG.exception("the controller's loop failed; it goes on")
                self._jobs.wait(TICK_S)
            self._turned_at = self.runtime.now()

    def _duties(self) -> None:
        """Everything that depends on state alone, and not on who changed it."""
        for duty in (
            self._begin, self._restructure, self._withdraw_expired, self._compare, self._unstop,
            self._ask_for_links, self._store_owed, self._answer,
        ):  # fmt: skip
            self._one(duty)

    def _patience(self) -> float:
        """Seconds until something is due, if no job comes in."""
        due = min(
            self.sessions.next_end() + self.lease_clock.lost_s,
            self.installer.next_due(),
            self.answers.next_deadline(),
            self.durable.next_try(),
        )
        if self.is_starting:
            due = min(due, self.starting_until)
        return max(0.0, min(TICK_S, due - self.runtime.now() + 0.001))

    def stop(self) -> None:
        """End `run` after the present job. The switches keep their rules."""
        self._stopped = True
        self._jobs.wake()

    def _next(self) -> Callable[[], None]:
        """The next job; consecutive writes are joined to one job."""
        job = self._jobs.next()
        if isinstance(job, Asked):
            return self._charged([job], job.do)
        if not isinstance(job, Submitted):
            return job
        together = self.changes.together(job)
        while len(together.writes) < MOST_WRITES and together.size < MOST_CHANGES and self._jobs.join(together.takes):
            pass
        return self._charged(together.writes, lambda: self.changes.write(together))

    def _charged(self, asked: Sequence[OfRouter], job: Callable[[], None]) -> Callable[[], None]:
        """The job, at the cost of the routers that have asked for it."""

        def work() -> None:
            begun = self.runtime.now()
            try:
                job()
            finally:
                self._jobs.charge(asked, self.runtime.now() - begun)

        return work

    def _one(self, job: Callable[[], None]) -> None:
        self._idle.clear()
        try:
            job()
        except Exception:  # noqa: BLE001 - a bug must not end the loop
            _LOG.exception("a job failed; compiling everything anew")
            self.recovery.needed()
        finally:
            self._idle.set()

    def pause(self) -> None:
        """Between the pieces of long work: others run, and what is to be stopped is stopped."""
        self.runtime.pause()
        if self.stops.serve():
            for _ in range(WORKERS_TURNS):
                self.runtime.pause()

    def between_turns(self) -> None:
        """Wait until no job is being done, for at most READER_PATIENCE_S (`views.Known`)."""
        self._idle.wait(READER_PATIENCE_S)

    # --- duties ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """End the start once all bridges and OVSDB are known, or after START_PATIENCE_S."""
        if self.desired.has_begun:
            return
        bridges = self.installer.bridges
        known = self.inventory.ovsdb.is_known and all(b in bridges and bridges[b].is_dumped for b in self.config.bridges)
        if known or self.runtime.now() >= self.starting_until:
            self._follow_switches()
            self.desired.begin()
            for bridge in tuple(bridges):
                self.installer.sync(bridge, self.now.layout)

    def _restructure(self) -> None:
        """Follow what ports, OVSDB and switches report; after a bug, compile everything anew."""
        self.connections.review()
        if self.recovery.is_due():
            self._recover()
        self._follow_switches()
        if self.inventory.has_changed:
            self.inventory.has_changed = False
            self.installer.send([self.desired.restructure()], lambda: self.now.layout)

    def _recover(self) -> None:
        """Compile everything anew and compare all bridges; if that fails too, withdraw the bypass."""
        self.stops.forget()
        with self.recovery:
            try:
                self.desired.rebuild()
            except Exception:
                self.desired.without_bypass()
                self._sync_all()
                raise
            self._sync_all()

    def _sync_all(self) -> None:
        if self.desired.has_begun:
            for bridge in tuple(self.installer.bridges):
                self.installer.sync(bridge, self.now.layout)

    def _follow_switches(self) -> None:
        for name, here in self.installer.bridges.items():
            if not here.has_news:
                continue
            here.has_news = False
            self.inventory.take_switch(name, SwitchState(here.arrivals, here.delivers, here.policies))
        self.inventory.take_quarantined(self.installer.quarantined())

    def _compare(self) -> None:
        """Compare the bridges that are due: changed by others, of unknown state, or not compared for long."""
        if self.desired.has_begun:
            for bridge in self.installer.due():
                self.installer.sync(bridge, self.now.layout)

    def _ask_for_links(self) -> None:
        wanted = self.now.layout.joined
        if self._wanted_links is not None and self.away():
            wanted |= self._wanted_links  # a bridge that is out of sync may still hold rules that use them
        if self.desired.has_begun and wanted != self._wanted_links:
            self.links.want(wanted)
            self._wanted_links = wanted
        if self.desired.has_begun and not self._may_release and not self.away():
            self.links.allow_release()
            self._may_release = True

    def _unstop(self) -> None:
        """End what was stopped for a withdrawal that has changed nothing, or was refused."""
        layout, wanted = self.now.layout, self.stops.wanted()
        if layout.stopped.keys() - wanted and not self.recovery.is_needed:
            self.installer.send([layout.restop(wanted)], lambda: layout)

    def _withdraw_expired(self) -> None:
        """Withdraw the delegations of routers whose leases are over, also while the store fails."""
        for router in self.sessions.expired():
            _LOG.warning("router %s: its lease is over; its delegations are withdrawn", router)
            self.changes.withdraw(router)

    def _store_owed(self) -> None:
        self.durable.write_owed(self.desired.fibs, self.sessions, self.inventory.overrides)

    def _answer(self) -> None:
        self.answers.resolve_due(is_starting=self.is_starting)

    # --- switches ----------------------------------------------------------------------------------------

    def _report(self, worker: BridgeWorker, report: Report) -> None:
        self._jobs.add(lambda: self._reported(worker, report))

    def _reported(self, worker: BridgeWorker, report: Report) -> None:
        here = self.installer.current(worker)
        if here is not None:
            self.installer.take(here, report, self.now.layout)
