"""The loop: desired state in, compile, difference out to the switches; one thing at a time.

Framework-free: switches, store, patch links and waiting are Protocols. Everything that changes state
is queued and done by `run` alone, so the order of writes is the order of their commits. What is asked
(`flows`, `rules`, ...) reads the state between two turns of the loop (`views`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

from fsctl.compiler import Compiler
from fsctl.config import Config
from fsctl.errors import FsctlError, NotFoundError
from fsctl.fib import Fib
from fsctl.installer import Installer, Switch
from fsctl.inventory import Inventory, unlinked
from fsctl.jobs import Jobs
from fsctl.model import Forward, Network, Packet
from fsctl.pipeline import Layout
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
    Port,
    RuleStatus,
    Ticket,
    WalkReport,
    Write,
    WriteResult,
)
from fsctl.store import Store
from fsctl.views import Views
from fsctl.writes import Pending, Submitted, Together, failures_of

_LOG = logging.getLogger(__name__)
LINK_PATIENCE_S = 5.0
"""How long a write waits for a patch port that it needs."""
START_PATIENCE_S = 5.0
"""How long a start waits for all bridges and OVSDB before it corrects rules that it finds installed.

With half of the network unknown, chains would be withdrawn that are right (a restart must lose no packet).
"""
MOST_WRITES, MOST_CHANGES = 64, 100_000
"""What is stored, compiled and sent in one go: the store does not let others run meanwhile, 0.1 s for so many changes."""
RETRY_S = 30.0
"""How often bridges that refused something, or stand still, are tried again."""


class Links(Protocol):
    """Makes patch ports between bridges; the ports show up in later views."""

    def ensure_link(self, bridge: str, peer: str) -> None: ...


class Controller:
    """`status.Backend` over a store, switches and links."""

    def __init__(self, config: Config, store: Store, links: Links, runtime: Runtime) -> None:
        self.config, self._store, self._links, self.runtime = config, store, links, runtime
        for lost in store.set_aside({name: router.interfaces for name, router in config.routers.items()}, time.time()):
            _LOG.warning("router %s: %s; %d delegations are kept aside (`fsctl orphans`)", lost.router, lost.why, lost.count)
        stored = store.load()
        self.revision = stored.revision
        self._fibs = {name: stored.fibs.get(name, Fib()) for name in config.routers}
        self.inventory = Inventory(config, overrides=dict(stored.interfaces))
        for disagreement in self.inventory.disagreements():
            _LOG.warning("%s", disagreement)
        self.network = self.inventory.network(self._fibs)
        # Compiled when the start has ended: until then no port is known, and nothing is installed.
        self.compiler = Compiler(replace(self.network, fibs={name: Fib() for name in self._fibs}))
        self.layout = Layout(self.network, self.compiler)
        self.installer = Installer(runtime)
        self.views = Views(self)
        self.sessions = Sessions(store, runtime.now)
        self._jobs = Jobs(runtime)
        self._asked_links: set[frozenset[str]] = set()
        self._waiting: list[Pending] = []
        self._stopped = False
        self._ovsdb_seen = False
        self._starting_until: float | None = runtime.now() + START_PATIENCE_S

    @property
    def is_starting(self) -> bool:
        """Not all is known yet: nothing is compiled or installed, what is installed stays."""
        return self._starting_until is not None

    # --- what others report --------------------------------------------------------------------------

    def switch_connected(self, switch: Switch, ports: Iterable[Port], datapath_id: int | None = None) -> None:
        """A configured bridge has connected."""
        found = {port.name: port for port in ports}
        self._jobs.add(lambda: self._connected(switch, found, datapath_id))

    def switch_gone(self, switch: Switch) -> None:
        """Its connection is gone. What it has installed stays, until it connects again."""
        self._jobs.add(lambda: self._gone(switch))

    def ports_changed(self, switch: Switch, ports: Iterable[Port]) -> None:
        """All ports of a bridge, after one came, went or changed."""
        found = {port.name: port for port in ports}
        self._jobs.add(lambda: self._ports(switch.bridge, found))

    def ovsdb_changed(self, view: OvsdbView) -> None:
        """OVSDB says something new."""
        self._jobs.add(lambda: self._ovsdb(view))

    # --- status.Backend ------------------------------------------------------------------------------

    def write(self, write: Write) -> Ticket:
        """Change a router's FIB; the ticket waits until the switches have confirmed."""
        self._router(write.router)
        ticket = Pending(self.runtime, self._away)
        self._jobs.add(Submitted(write, ticket))
        return ticket

    def incoming(self) -> AbstractContextManager[None]:
        return self._jobs.incoming()

    def change_interface(self, change: InterfaceChange) -> Ticket:
        """A router's addresses or MTU have changed."""
        if change.interface not in self.config.routers[self._router(change.router)].interfaces:
            raise NotFoundError(f"router {change.router} has no such interface", field="interface", value=change.interface)
        ticket = Pending(self.runtime, self._away)
        self._jobs.add(lambda: self._change_interface(change, ticket))
        return ticket

    def move_nexthop(self, move: NexthopMove) -> Ticket:
        """A neighbour's MAC has changed: one change per way out, however many delegations use it."""
        if move.out not in self.config.routers[self._router(move.router)].interfaces:
            raise NotFoundError(f"router {move.router} has no such interface", field="out", value=move.out)
        ticket = Pending(self.runtime, self._away)
        self._jobs.add(lambda: self._move_nexthop(move, ticket))
        return ticket

    def overrides(self, router: str) -> Mapping[str, Override]:
        return {name: said for (owner, name), said in self.inventory.overrides.items() if owner == self._router(router)}

    def orphans(self, *, with_flows: bool = True) -> Sequence[Orphan]:
        return self._store.orphans(with_flows=with_flows)

    def flows(self, router: str) -> Iterable[FlowStatus]:
        return self.views.flows(self._router(router))

    def bridges(self) -> Sequence[BridgeStatus]:
        return self.views.bridges()

    def rules(self) -> Iterable[RuleStatus]:
        return self.views.rules()

    def walk(self, packet: Packet) -> WalkReport:
        return self.views.walk(packet)

    def not_ready(self) -> Sequence[str]:
        return self.views.not_ready()

    def _router(self, name: str) -> str:
        if name not in self.config.routers:
            raise NotFoundError("no such router", field="router", value=name)
        return name

    # --- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is queued, in order, until `stop`."""
        retry_at = self.runtime.now() + RETRY_S
        while not self._stopped:
            self._jobs.wait(self._patience())
            while self._jobs:
                self._one(self._next())
                self._one(self._settle)
            for duty in (self._settle, self._withdraw_expired, self._close, self._answer):
                self._one(duty)
            if self.runtime.now() >= retry_at:
                retry_at = self.runtime.now() + RETRY_S
                self._one(self._retry)

    def _patience(self) -> float:
        """Seconds until there is something to look at, if nothing comes in."""
        if self._waiting or self.is_starting:
            return 0.25
        return max(0.0, min(RETRY_S, self.sessions.next_end() - self.runtime.now() + 0.01))

    def _withdraw_expired(self) -> None:
        """Routers whose agents have not been heard of in time lose their FIB."""
        for router in self.sessions.expired():
            _LOG.warning("router %s: the lease of its session is over; its delegations are withdrawn", router)
            self._jobs.add(Submitted(Write(router, (), replace=True, is_admin=True), Pending(self.runtime)))

    def stop(self) -> None:
        """End `run` after the job at hand. The switches keep their rules."""
        self._stopped = True
        self._jobs.wake()

    def _next(self) -> Callable[[], None]:
        """The next job; writes that wait one behind the other are one job."""
        job = self._jobs.next()
        if not isinstance(job, Submitted):
            return job
        together = Together(self._fibs, self.config, self.sessions, job)
        while len(together.writes) < MOST_WRITES and together.size < MOST_CHANGES and self._jobs.join(together.takes):
            pass
        return lambda: self._write(together)

    def _one(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - a mistake of ours must not end the loop: the routers still write
            _LOG.exception("a change could not be carried out; compiling everything anew")
            self._use(self.inventory.network(self._fibs))
            self.installer.sync_all(self.installer.bridges, self.layout)

    def _close(self) -> None:
        """Take bridges that refuse what every bypass needs out of all chains (or let them in again)."""
        if self.installer.closed() != self.inventory.closed:
            self.inventory.closed = self.installer.closed()
            self._restructure()

    def _answer(self) -> None:
        """Answer the writes that have all the links they need, or have waited long enough."""
        missing = self.is_starting or any(
            b not in self.network.bridges[a].links
            for a, b in map(sorted, self._asked_links)
            if self.installer.in_step(a) and self.installer.in_step(b)
        )
        now = self.runtime.now()
        still = []
        for ticket in self._waiting:
            if missing and now < ticket.deadline:
                still.append(ticket)
            else:
                ticket.resolve()
        self._waiting = still

    # --- switches, ports -------------------------------------------------------------------------------

    def _connected(self, switch: Switch, ports: dict[str, Port], datapath_id: int | None) -> None:
        self.installer.connect(switch, datapath_id)
        self.inventory.ports[switch.bridge] = ports
        if not self.is_starting:
            self._restructure()
            self.installer.sync(switch.bridge, self.layout)

    def _settle(self) -> None:
        """End the start once everything is known, or has been waited for long enough."""
        if self._starting_until is None:
            return
        known = self._ovsdb_seen and all(b in self.installer.bridges for b in self.config.bridges)
        if known or self.runtime.now() >= self._starting_until:
            self._starting_until = None
            self._use(self.inventory.network(self._fibs))
            self._ask_for_links()
            self.installer.sync_all(self.installer.bridges, self.layout)

    def _gone(self, switch: Switch) -> None:
        if self.installer.disconnect(switch):
            _LOG.warning("bridge %s: disconnected; it keeps its rules", switch.bridge)

    def _ports(self, bridge: str, ports: dict[str, Port]) -> None:
        self.inventory.ports[bridge] = ports
        self._restructure()

    def _ovsdb(self, view: OvsdbView) -> None:
        self.inventory.ovsdb, self._ovsdb_seen = view, True
        self._restructure()

    def _restructure(self) -> None:
        """Compile anew if interfaces, ports or links have changed, and send the differences."""
        if self.is_starting:
            return
        network = self.inventory.network(self._fibs)
        if network.routers == self.network.routers and network.bridges == self.network.bridges:
            return
        if network.routers == self.network.routers and unlinked(network) == unlinked(self.network):
            self.network = network
            self.compiler.rewire(network)
            self.installer.apply(self.layout, self.layout.rewire(network))
        else:
            before = self.layout
            self._use(network)
            self.installer.apply(self.layout, self.layout.since(before))
            before.compiler.discard()
        self._ask_for_links()

    def _use(self, network: Network) -> None:
        self.network = network
        self.compiler = Compiler(network, self.runtime.pause)
        self.layout = Layout(network, self.compiler, self.layout)

    def _ask_for_links(self) -> None:
        for pair in self.layout.joined - self._asked_links:
            here, peer = sorted(pair)
            try:
                self._links.ensure_link(here, peer)
                self._asked_links.add(pair)
            except FsctlError as e:
                _LOG.warning("no patch ports between %s and %s: %s; left to the routers", here, peer, e)

    def _retry(self) -> None:
        self._ask_for_links()
        if not self.is_starting:
            self.installer.sync_all(self.installer.need_another_try(), self.layout)

    # --- writes ----------------------------------------------------------------------------------------

    def _write(self, together: Together) -> None:
        """Store what some writes come to, take it into the FIBs, compile, and send the differences."""
        commits = together.commits(self.runtime.pause)
        try:
            if commits:
                self.revision = self._store.commit_all(commits)
        except FsctlError as e:
            together.fail(e)
            return
        for router, changes, nexthops, _ in commits:
            fib = self._fibs[router]
            for number, nexthop in nexthops.items():
                fib.add_nexthop(number, nexthop)
            for change in changes:
                fib.apply(change)
            self.runtime.pause()
        together.carried_out()
        for submitted, counts in together.accepted():
            submitted.ticket.committed(replace(counts, revision=self.revision))
        if commits and not self.is_starting:
            pieces = self.compiler.update(together.replaced)
            self.installer.stream(self.layout, self.layout.apply(pieces))
        for submitted, counts in together.accepted():
            result = replace(counts, revision=self.revision)
            self._finish(submitted.ticket, partial(self._report, submitted.write, result))

    def _report(self, write: Write, result: WriteResult) -> WriteResult:
        return replace(result, failed=failures_of(self.installer, self.compiler, write), waiting_for=self._away())

    def _move_nexthop(self, move: NexthopMove, ticket: Pending) -> None:
        if not ticket.begin():
            return
        fib = self._fibs[move.router]
        old, new = Forward(move.out, move.old), Forward(move.out, move.new)
        numbers = fib.numbers_of(old)
        try:
            self.sessions.admit(move, needs_sync=True)
            if numbers and old != new:
                self.revision = self._store.commit(move.router, [], dict.fromkeys(numbers, new))
        except FsctlError as e:
            ticket.fail(e)
            return
        self.sessions.carried_out(move)
        result = WriteResult(self.revision, changed=int(bool(numbers) and old != new))
        ticket.committed(result)
        leads_on = not self.is_starting and any(self.compiler.leads_on(move.router, hop) for hop in (old, new))
        before = self.layout
        for number in numbers:
            fib.move_nexthop(number, new)
        if leads_on:  # walks go another way behind it
            self._use(self.network)
            self.installer.apply(self.layout, self.layout.since(before))
            before.compiler.discard()
        if not self.is_starting:
            self.installer.apply(self.layout, self.layout.reroute(move.router, numbers))
        self._finish(ticket, lambda: replace(result, waiting_for=self._away()))

    def _away(self) -> tuple[str, ...]:
        """The configured bridges whose rules must wait."""
        return tuple(name for name in self.config.bridges if not self.installer.in_step(name))

    def _finish(self, ticket: Pending, result: Callable[[], WriteResult]) -> None:
        """Answer once the links are there that the change needs."""
        self._ask_for_links()
        ticket.result = result
        ticket.deadline = self.runtime.now() + LINK_PATIENCE_S
        self._waiting.append(ticket)

    def _change_interface(self, change: InterfaceChange, ticket: Pending) -> None:
        if not ticket.begin():
            return
        declared, place = self.config.routers[change.router].interfaces[change.interface], (change.router, change.interface)
        before, old = self.inventory.said(change.router, declared), self.inventory.overrides.get(place, Override())
        override = old.after(change)
        try:
            self.sessions.admit(change)
            if override != old:
                self.revision = self._store.commit_interface(change)
        except FsctlError as e:
            ticket.fail(e)
            return
        self.sessions.carried_out(change)
        self.inventory.overrides[place] = override
        changed = self.inventory.said(change.router, declared) != before
        result = WriteResult(self.revision, changed=int(changed), unchanged=int(not changed))
        ticket.committed(result)
        if changed:
            self._restructure()
        self._finish(ticket, lambda: replace(result, waiting_for=self._away()))
