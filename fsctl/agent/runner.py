"""The agent's loop: one thread that waits for the kernel, for answers, for the clock and for `status`."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fsctl.agent import identify, neighbours
from fsctl.agent.decide import Policy, usable_interfaces
from fsctl.agent.facts import Inspector
from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.agent.neighbours import Keeper
from fsctl.agent.netlink import Kernel
from fsctl.agent.nudge import Nudge
from fsctl.agent.provisioning import Config
from fsctl.agent.safety import Judgement, Refusal, judge, unrouted_sources
from fsctl.agent.status import StatusSocket
from fsctl.agent.sync import Mode, Settings, Sync
from fsctl.agent.transport import Lanes, Outcome
from fsctl.errors import FsctlError
from fsctl.model.addresses import IPV6, format_ip

log = logging.getLogger("fsctl.agent")

LOOK_EVERY_SECONDS = 1.0
"""Some of what must not be bypassed changes without a message (send_redirects, the older iptables)."""
TEND_EVERY_SECONDS = 5.0
SMALL = 500
"""Delegations that are worked out and withdrawn one by one as quickly as all at once."""
STOP_SECONDS = 8.0
LONGEST_SLEEP_SECONDS = 5.0


class Agent:
    """Wires everything up; `run` returns when the agent has ended in order."""

    def __init__(
        self, config: Config, kernel: Kernel, lanes: Lanes, session: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.kernel = kernel
        self.lanes = lanes
        self.clock = clock
        self.fold = Fold()
        self.follower = Follower(kernel, self.fold)
        self.sync = Sync(Settings(config.router, session, config.lease_s, config.grace_s), self.fold.fib)
        self.inspector = Inspector(kernel.requests)
        self.judgement = Judgement(Policy(), ())
        self.keeper = Keeper(neighbours.limits())
        self.nudge = Nudge()
        self.status = StatusSocket(config.run_dir)
        self.known: dict[int, str] = {}
        """MAC address -> fsctl's name of the interface."""
        self.owners: identify.Owners = {}
        self._look_at = self._tend_at = 0.0
        self._stop_by: float | None = None
        self._problem_told = ""
        self._since = ""
        """When fsctl has given this agent the router, as ISO 8601."""
        self._longest_turn = 0.0
        """The longest time for which nothing was read."""
        self._gap = ""
        self._selector = selectors.DefaultSelector()
        self._blind = ""
        """Why the kernel's tables could not be read the last time."""
        self._watch()

    def run(self) -> None:
        """Until `stop`, and then until fsctl has been told, or no longer than STOP_SECONDS."""
        while self.sync.mode is not Mode.ENDED:
            now = self.clock()
            if self._stop_by is not None and now >= self._stop_by:
                log.warning("fsctl did not confirm the withdrawal in time; the lease does the rest")
                break
            self.step(now)
            self._selector.select(self._sleep(self.clock()))
        self.close()

    def close(self) -> None:
        self._selector.close()
        self.lanes.close()
        self.inspector.close()
        self.nudge.close()
        self.status.close()
        self.kernel.close()

    def stop(self) -> None:
        """End in order; may be called from a signal handler."""
        if self._stop_by is None:
            self._stop_by = self.clock() + STOP_SECONDS
            self.sync.stop()

    def step(self, now: float) -> None:
        """One turn: what the kernel says, what fsctl answered, what follows from it."""
        self._turn(now)
        self._longest_turn = max(self._longest_turn, self.clock() - now)
        if self.sync.has_session != bool(self._since):
            self._since = datetime.now(UTC).isoformat(timespec="seconds") if self.sync.has_session else ""

    def _turn(self, now: float) -> None:
        if self.follower.pump():
            self._look_at = now
        if now >= self.follower.due():
            self._resync(now)
        for outcome in self.lanes.outcomes():
            self._take(outcome, now)
        if (gap := unrouted_sources(self.fold.state)) != self._gap:
            self._gap, self._look_at = gap, now
        if now >= self._look_at:
            self._look(now)
        if self._settle(now) | self.fold.has_new_gateways() or now >= self._tend_at:
            self._tend(now)
            self._settle(now)
        self._start_calls(now)
        self.status.serve(self.snapshot)

    def _start_calls(self, now: float) -> None:
        for call in self.sync.calls(now):
            log.debug("%s %s (%d flows)", call.method, call.path, call.changes)
            self.lanes.start(call)

    def _resync(self, now: float) -> None:
        """Dump everything. While the kernel does not answer, nothing is bypassed: what is known may be wrong."""
        try:
            self.follower.resync(now)
            self._blind = ""
        except (FsctlError, OSError) as e:
            self._blind = f"the kernel's tables cannot be read: {e}"
            log.warning("%s; trying again", self._blind)
        self._watch()
        self._look_at = now
        self.sync.refresh_router()

    def _watch(self) -> None:
        """Wait for news from the sockets that there are now."""
        wanted = {*(s.fileno() for s in self.kernel.sockets()), self.lanes.fileno(), self.status.fileno()}
        there = {int(key.fd) for key in self._selector.get_map().values()}
        for fd in there - wanted:
            self._selector.unregister(fd)
        for fd in wanted - there:
            self._selector.register(fd, selectors.EVENT_READ)

    def _settle(self, now: float) -> bool:
        changes = self.fold.settle()
        if changes:
            self.sync.changed(changes, now)
            log.debug("%d changes, %d delegations", len(changes), len(self.fold))
        return bool(changes)

    def _sleep(self, now: float) -> float:
        until = [now + LONGEST_SLEEP_SECONDS, self._look_at, self._tend_at, self.follower.due()]
        wake = self.sync.wake(now)
        if wake is not None:
            until.append(wake)
        if self._stop_by is not None:
            until.append(now + 0.1)
        return max(0.0, min(until) - now)

    def _take(self, outcome: Outcome, now: float) -> None:
        call = outcome.call
        if outcome.error is not None:
            self.sync.failed(call, outcome.error, now)
        else:
            self.sync.answered(call, outcome.answer, now)
            if call.what == "router":
                self._know(outcome.answer)
                self._look_at = now
            elif call.what in ("replace", "change"):
                log.info("%s: %d flows sent, %d delegations in all", call.what, call.changes, len(self.fold))
        if self.sync.problem != self._problem_told:
            self._problem_told = self.sync.problem
            log.log(logging.WARNING if self.sync.problem else logging.INFO, "%s", self.sync.problem or "fsctl has the whole FIB")

    def _know(self, router: Any) -> None:
        """fsctl's names of the interfaces, by MAC address (hazard 38)."""
        interfaces = router.get("interfaces", {})
        self.owners = identify.owners(interfaces)
        self.known = identify.alone(self.owners)
        self.fold.configure(interfaces=self.known)

    def _look(self, now: float) -> None:
        """What may be bypassed now? What cannot be inspected is not bypassed."""
        self._look_at = now + LOOK_EVERY_SECONDS
        state = self.fold.state
        names = usable_interfaces(state, self.known)
        try:
            if self._blind:
                raise FsctlError(self._blind)
            facts = self.inspector.look({i: state.links[i] for i in names})
            judgement = judge(facts, state, names, self.config.allow, self._also())
        except (FsctlError, OSError) as e:
            everything = frozenset((i, v) for i in names for v in (4, 6))
            reason = Refusal("inspection", f"the guest cannot be inspected: {e}")
            judgement = Judgement(Policy(everything, everything, everything), (reason, *self._also()))
        if judgement != self.judgement:
            for refusal in set(judgement.refused) - set(self.judgement.refused):
                log.warning("not bypassed: %s", refusal)
            for refusal in set(self.judgement.refused) - set(judgement.refused):
                log.info("no longer refused: %s", refusal)
            is_stricter = judgement.policy.forbids_more(self.judgement.policy)
            self.judgement = judgement
            if is_stricter and (len(self.fold) > SMALL or self.sync.is_writing):
                self.sync.withdraw_now()
                self._start_calls(now)  # before anything is worked out: that takes as long as the table is
            self.sync.reasons([r.json() for r in judgement.refused])
        self.fold.configure(policy=judgement.policy)
        self.sync.interfaces({name: self._describe(index) for index, name in names.items()})

    def _also(self) -> list[Refusal]:
        """What is left to the router for other reasons than `safety` knows."""
        neighbours_left = [Refusal("neighbours", words, version) for version, words in self.keeper.reasons()]
        refused = self.sync.too_many or self.sync.refused
        too_much = [Refusal("refused", f"fsctl refuses what is delegated: {refused}")] if refused else []
        return [*identify.unusable(self.fold.state, self.owners), *neighbours_left, *too_much]

    def _describe(self, index: int) -> dict[str, object]:
        """What fsctl shall know of an interface; link-local addresses are everybody's."""
        addresses = sorted(
            f"{format_ip(a.version, a.value)}/{a.length}"
            for a in self.fold.state.addrs
            if a.index == index and not (a.version == IPV6 and a.value >> 118 == 0xFE80 >> 6)
        )
        return {"addresses": addresses, "mtu": self.fold.state.links[index].mtu}

    def _tend(self, now: float) -> None:
        """Keep the neighbours in use alive, as many as may be."""
        self._tend_at = now + TEND_EVERY_SECONDS
        plan = self.keeper.plan(self.fold.gateways(), self.fold.hosts(), self.fold.state.neighs, now)
        self.fold.leave(plan.unkept)
        for key in plan.nudges:
            try:
                self.nudge.send(key)
                self.keeper.sent(key, True)
            except OSError as e:
                self.keeper.sent(key, False)
                log.debug("neighbour %s on interface %d: %s", format_ip(key.version, key.value), key.link, e)

    def snapshot(self) -> dict[str, Any]:
        """What `fsctl-agent status` shows."""
        s, state = self.sync, self.fold.state
        return {
            "router": self.config.router,
            "url": self.config.url,
            "mode": s.mode.value,
            "session": {
                "open": s.has_session,
                "in_step": s.in_step,
                "problem": s.problem,
                "lease": self.config.lease_s,
                "since": self._since,
                "lag": round(s.lag.seconds(self.clock()), 3),
                "late": s.lag.withdrawals,
            },
            "delegations": len(self.fold),
            "routes": {f"ipv{v}": len(rib) for v, rib in state.ribs.items()},
            "neighbours": {"gateways": len(self.fold.gateways()), "hosts": len(self.fold.hosts()), "known": len(state.neighs)},
            "interfaces": {name: state.links[index].name for index, name in self.fold.names().items()},
            "unusable": sorted({n for names in self.owners.values() for n in names} - set(self.fold.names().values())),
            "refused": [r.json() for r in self.judgement.refused],
            "allowed": [r.json() for r in self.judgement.overridden],
            "notes": list(self.judgement.notes),
            "holes": dict(self.fold.holes()),
            "failed_flows": s.failed_flows,
            "counters": {name: getattr(s.counters, name) for name in s.counters.__slots__},
            "kernel": {
                "events": self.follower.events,
                "dumps": self.follower.dumps,
                "overruns": self.follower.overruns,
                "turn": round(self._longest_turn, 3),
            },
        }
