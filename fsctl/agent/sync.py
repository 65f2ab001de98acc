"""Keeps fsctl's copy of the FIB equal to the fold's: what to send when. No I/O, no clock, no threads.

`calls` says what to send now, `answered` and `failed` say how it went, `wake` when to ask again. Two lanes, each with
one call at a time: the session (opening, heartbeats, the router's interfaces) and the writes. The first write
replaces the whole FIB; then only differences move. After anything doubtful the whole FIB is sent again (docs/agent.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import quote

from fsctl.agent import wire
from fsctl.agent.backoff import LAST_RETRY_SECONDS, Backoff
from fsctl.agent.lag import Lag
from fsctl.errors import ConflictError, ForbiddenError, FsctlError, NotFoundError, UnauthorizedError, UnsyncedError
from fsctl.model.delegations import Verdict
from fsctl.model.fib import Change, PartKey
from fsctl.model.prefix_keys import Key

MOST_REASONS = 200
"""fsctl takes no more."""
SESSION, WRITE, SAFETY = LANES = ("session", "write", "safety")
"""Each has a connection of its own."""
QUIET_SECONDS, MAX_WAIT_SECONDS = 0.004, 0.25
"""A burst is over when nothing came for so long; it is sent after so long in any case."""
HOPELESS_RETRY_SECONDS = 30.0
"""A refused token, an unknown router: somebody has to do something first."""
HEARTBEATS_PER_LEASE = 3
_NOT_OURS = (ConflictError, UnauthorizedError, ForbiddenError, NotFoundError)
"""The router is another's, or nobody's: nothing that this agent sends would be taken."""


class Mode(Enum):
    """Where the agent is between start and end."""

    RUNNING = "running"
    WITHDRAWING = "withdrawing"
    CLOSING = "closing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request; `what` names it, `changes` counts the flows it is about."""

    lane: str
    what: str
    method: str
    path: str
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """`lease_s`: how long fsctl keeps the FIB without a heartbeat; `grace_s`: and then holds it for a returning agent."""

    router: str
    session: str
    lease_s: float = 10.0
    grace_s: float = 0.0


@dataclass(slots=True)
class Counters:
    """What was sent since the start."""

    calls: int = 0
    full: int = 0
    patches: int = 0
    changes: int = 0
    heartbeats: int = 0
    failures: int = 0


def _is_ignored(error: FsctlError) -> bool:
    """Whether fsctl has ignored a write of a session that is ours: it was sent before the session was opened anew."""
    return isinstance(error, UnsyncedError) or (isinstance(error, ConflictError) and error.field == "seq")


class Sync:
    """`fib` is the fold's, looked at whenever something is sent. Times are seconds of a monotonic clock."""

    def __init__(
        self, settings: Settings, fib: Mapping[PartKey, Mapping[Key, Verdict]], draw: Callable[[], float] = random.random
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self.lag = Lag(draw)
        self.mode = Mode.RUNNING
        self.problem = ""
        """Why fsctl does not have our FIB, as a text; "" when all is well."""
        self.refused = ""
        """Why fsctl refuses what is delegated, as a text; "" once it has taken it."""
        self.router: dict[str, Any] | None = None
        """The last answer to GET /v1/routers/{r}."""
        self.failed_flows: list[Any] = []
        """Flows of the last write whose rules a switch rejected."""
        self._fib = fib
        self._draw = draw
        self._path = f"/v1/routers/{quote(settings.router, safe='')}"
        self._seq = self._acknowledged = 0
        """The number of the last write that was sent, and of the last one that fsctl has confirmed."""
        self._reasons: list[Mapping[str, object]] = []
        self._reasons_sent: list[Mapping[str, object]] = []
        self._interfaces: dict[str, dict[str, object]] = {}
        self._announced: dict[str, dict[str, object]] = {}
        self._is_open = self._is_full = self._withdraw = False
        self._urgent = False
        self._overtaken: Call | None = None
        """A write under way that a withdrawal has overtaken: whatever is answered, fsctl does not have it any more."""
        self._want_router = True
        self._dirty: set[tuple[PartKey, Key]] = set()
        self._first_change = self._last_change = 0.0
        self._busy: dict[str, Call] = {}
        self._not_before = dict.fromkeys(LANES, 0.0)
        self._backoff = {lane: Backoff(draw) for lane in LANES}
        self._heartbeat_at = 0.0
        self._was_in_step = False

    def changed(self, changes: Iterable[Change], now: float) -> None:
        """The fold's FIB has changed there."""
        self.lag.changed(now)
        if not self._is_full and WRITE not in self._busy:
            return  # the whole FIB is sent anyway
        for part, key, _ in changes:
            assert isinstance(key, int)
            if not self._dirty:
                self._first_change = now
            self._dirty.add((part, key))
            self._last_change = now

    def reasons(self, reasons: list[Mapping[str, object]]) -> None:
        """What is not bypassed and why, to be shown on the router."""
        self._reasons = reasons[:MOST_REASONS]

    def interfaces(self, wanted: Mapping[str, dict[str, object]]) -> None:
        """What the guest's interfaces are like: name -> {"addresses": [...], "mtu": n}."""
        self._interfaces = dict(wanted)

    def refresh_router(self) -> None:
        """Ask anew which interfaces fsctl knows (hazard 38)."""
        self._want_router = True

    def withdraw_now(self) -> None:
        """Something must not be bypassed any more: take everything back, past whatever is being written; then send anew.

        One small message, however large the table. fsctl carries withdrawals out first, and ignores older writes that come later.
        """
        self._urgent = self._is_open and (self._is_full or self.is_writing)

    @property
    def is_writing(self) -> bool:
        """Is a write under way, or failed and to be tried again? Nobody knows for how long, nor what fsctl has meanwhile."""
        return WRITE in self._busy or self._backoff[WRITE].tries > 0

    @property
    def too_many(self) -> str:
        """How many delegations are needed and how many fsctl allows, as a text; "" if they are not too many.

        Nothing is sent then: a part of a table would send packets where the kernel does not.
        """
        most, needed = (self.router or {}).get("max_flows"), sum(map(len, self._fib.values()))
        return "" if most is None or needed <= most else f"{needed} delegations are needed, fsctl allows {most} (max_flows)"

    def stop(self) -> None:
        """Withdraw everything and end the session: from here to `Mode.ENDED`."""
        self.mode = Mode.WITHDRAWING if self._is_open else Mode.ENDED
        self._not_before = dict.fromkeys(self._not_before, 0.0)

    @property
    def has_session(self) -> bool:
        """Has fsctl given this agent the router?"""
        return self._is_open

    @property
    def in_step(self) -> bool:
        """Has fsctl confirmed all that the fold says?"""
        return self._is_full and not self._dirty and WRITE not in self._busy

    # -- what to send

    def calls(self, now: float) -> list[Call]:
        """The calls to start now, at most one per lane."""
        found = []
        if (late := self._late_at()) is not None and now >= late:
            self.withdraw_now()
        for lane, choose in ((SAFETY, self._safety_call), (SESSION, self._session_call), (WRITE, self._write_call)):
            if lane in self._busy or now < self._not_before[lane] or (lane == WRITE and SAFETY in self._busy):
                continue
            call = choose(now)
            if call is not None:
                self._busy[lane] = call
                self.counters.calls += 1
                found.append(call)
        return found

    def wake(self, now: float) -> float | None:
        """When to ask `calls` again although nothing has happened; None: not before something does."""
        if self.mode is not Mode.RUNNING:
            lane = SESSION if self.mode is Mode.CLOSING else WRITE
            return None if lane in self._busy or self.mode is Mode.ENDED else max(now, self._not_before[lane])
        times = [max(now, self._not_before[SAFETY])] if self._urgent and SAFETY not in self._busy else []
        if (late := self._late_at()) is not None:
            times.append(max(now, late, self._not_before[SAFETY]))
        if SESSION not in self._busy:
            has_business = not self._is_open or self._want_router or self._reasons != self._reasons_sent
            times.append(max(now if has_business else self._heartbeat_at, self._not_before[SESSION]))
        if not {WRITE, SAFETY} & self._busy.keys() and self._is_open and (self.router is not None or self._withdraw):
            has_more = self._is_full if self.too_many else not self._is_full
            if self._withdraw or has_more or self._unannounced() is not None:
                times.append(max(now, self._not_before[WRITE]))
            elif self._dirty and self._is_full:
                times.append(max(self._due(), self._not_before[WRITE]))
        return min(times, default=None)

    def _late_at(self) -> float | None:
        """When fsctl will have been without some change for so long that it had better have nothing."""
        can_withdraw = self._is_open and (self._is_full or self.is_writing) and SAFETY not in self._busy
        return self.lag.ends() if can_withdraw else None

    def _unannounced(self) -> str | None:
        """An interface of which fsctl does not know what it is like now."""
        return next((name for name, wanted in self._interfaces.items() if self._announced.get(name) != wanted), None)

    def _due(self) -> float:
        return min(self._last_change + QUIET_SECONDS, self._first_change + MAX_WAIT_SECONDS)

    def _safety_call(self, now: float) -> Call | None:
        if not self._urgent or self.mode is not Mode.RUNNING:
            return None
        if (late := self._late_at()) is not None and now >= late:
            self._not_before[WRITE] = max(self._not_before[WRITE], now + self.lag.late())
            self.problem = f"fsctl was {self.lag.seconds(now):.0f} s behind; everything is withdrawn"
        self._urgent = self._is_full = False
        self._dirty.clear()
        self._overtaken = self._busy.get(WRITE)
        return self._withdrawal(SAFETY, "withdraw now")

    def _withdrawal(self, lane: str, what: str) -> Call:
        return Call(lane, what, "DELETE", f"{self._path}/flows", query=self._query())

    def _session_call(self, now: float) -> Call | None:
        if self.mode is Mode.CLOSING:
            return Call(SESSION, "close", "DELETE", f"{self._path}/session", query={"session": self.settings.session})
        if self.mode is not Mode.RUNNING:
            return None
        if not self._is_open or now >= self._heartbeat_at or self._reasons != self._reasons_sent:
            return self._heartbeat()
        if self._want_router:
            self._want_router = False
            return Call(SESSION, "router", "GET", self._path)
        return None

    def _heartbeat(self) -> Call:
        self._reasons_sent = self._reasons
        self._was_in_step = self._is_full and WRITE not in self._busy
        self.counters.heartbeats += 1
        s = self.settings
        body = {"id": s.session, "lease": s.lease_s, "graceful_restart": s.grace_s, "reasons": self._reasons, "seq": self._seq}
        return Call(SESSION, "heartbeat", "PUT", f"{self._path}/session", wire.object_body(body))

    def _write_call(self, now: float) -> Call | None:
        if self.mode is Mode.WITHDRAWING or (self._withdraw and self._is_open):
            return self._withdrawal(WRITE, "withdraw")
        if self.mode is not Mode.RUNNING or not self._is_open or self.router is None:
            return None
        name = self._unannounced()
        if name is not None:
            wanted = self._announced[name] = self._interfaces[name]
            path = f"{self._path}/interfaces/{quote(name, safe='')}"
            return Call(WRITE, f"interface {name}", "PATCH", path, wire.object_body(wanted), self._query())
        if self.too_many:
            return self._withdrawal(WRITE, "withdraw") if self._is_full else None
        if not self._is_full:
            return self._replace()
        return self._change() if self._dirty and now >= self._due() else None

    def _query(self) -> dict[str, str]:
        """Whose write this is, and its number: fsctl refuses one that arrives after a later one."""
        self._seq += 1
        return {"session": self.settings.session, "seq": str(self._seq)}

    def _replace(self) -> Call:
        self._dirty.clear()
        self.lag.sent()
        self.counters.full += 1
        count = sum(map(len, self._fib.values()))
        return Call(WRITE, "replace", "PUT", f"{self._path}/flows", wire.full_body(self._fib), self._query(), count)

    def _change(self) -> Call:
        changes = [Change(part, key, self._fib.get(part, {}).get(key)) for part, key in self._dirty]
        self._dirty.clear()
        self.lag.sent()
        self.counters.patches += 1
        self.counters.changes += len(changes)
        return Call(WRITE, "change", "PATCH", f"{self._path}/flows", wire.patch_body(changes), self._query(), len(changes))

    def answered(self, call: Call, answer: Mapping[str, Any], now: float) -> None:
        """fsctl has done what `call` asked for."""
        del self._busy[call.lane]
        self._backoff[call.lane].tries = 0
        self._acknowledged = max(self._acknowledged, int(call.query.get("seq", 0)))
        if call.what in ("withdraw", "withdraw now"):
            self.lag.withdrawn()
        if call is self._overtaken:
            self._overtaken = None
            return
        if call.what == "heartbeat":
            self._is_open = True
            self._seq = max(self._seq, answer.get("seq", 0))
            self._heartbeat_at = now + self.settings.lease_s / HEARTBEATS_PER_LEASE
            # An older write that came late, to a session that was opened anew since, has no newer one before it there.
            is_older = answer.get("seq", self._acknowledged) < self._acknowledged
            if self._was_in_step and (is_older or not answer.get("synced", True)):
                self._is_full = False
        elif call.what == "router":
            self._take_router(dict(answer), now)
        elif call.what in ("replace", "change"):
            self._is_full = True
            self.lag.confirmed()
            self.failed_flows = list(answer.get("failed", ()))
            self.problem = self.refused = ""
        elif call.what == "withdraw":
            self._is_full = self._withdraw = False
            self._not_before[WRITE] = now + LAST_RETRY_SECONDS
            self.mode = Mode.CLOSING if self.mode is Mode.WITHDRAWING else self.mode
        elif call.what == "close":
            self.mode = Mode.ENDED

    def _take_router(self, router: dict[str, Any], now: float) -> None:
        self.router = router
        if router.get("flows") and not self._is_full:
            self.lag.found(now)
        there: Mapping[str, Mapping[str, Any]] = router.get("interfaces", {})
        self._announced = {name: {"addresses": i.get("addresses"), "mtu": i.get("mtu")} for name, i in there.items()}

    def failed(self, call: Call, error: FsctlError, now: float) -> None:
        """fsctl refused, or nobody knows whether it did what `call` asked for."""
        del self._busy[call.lane]
        if call is self._overtaken:
            self._overtaken = None
            self._announced.pop(call.what.partition(" ")[2], None)
            return
        self.counters.failures += 1
        if call.what in ("replace", "change"):
            self.lag.failed(now)
        self.problem = f"{call.what}: {error}"
        self._not_before[call.lane] = now + self._pause(call, error)
        if self.mode is not Mode.RUNNING:
            if isinstance(error, _NOT_OURS):
                self.mode = Mode.ENDED  # tried again otherwise, for as long as the agent has time; the lease does the rest
        elif call.lane == WRITE:
            self._write_failed(call, error)
        elif call.lane == SAFETY:
            self._urgent = not isinstance(error, (ConflictError, *_NOT_OURS))  # else fsctl listens to somebody else
        elif isinstance(error, _NOT_OURS):
            self._is_open = self._is_full = False
            self._want_router = True
        elif call.what == "router":
            self._want_router = True

    def _pause(self, call: Call, error: FsctlError) -> float:
        if _is_ignored(error):
            return 0.0
        if isinstance(error, ConflictError):
            return self.settings.lease_s / 4 * (0.5 + self._draw())
        if isinstance(error, _NOT_OURS):
            return HOPELESS_RETRY_SECONDS * (0.5 + self._draw())
        return self._backoff[call.lane].next()

    def _write_failed(self, call: Call, error: FsctlError) -> None:
        is_refused = 400 <= error.status < 500
        if _is_ignored(error):
            self._is_full = False  # the session is ours, and fsctl has not got the whole table: that comes next
            return
        if isinstance(error, ConflictError):
            self._is_open = self._is_full = False  # the session is somebody else's by now
            self._heartbeat_at = 0.0
            return
        if call.what.startswith("interface"):
            if not is_refused:
                self._announced.pop(call.what.partition(" ")[2], None)
            return
        self._is_full = False
        self._want_router = True
        self.refused = str(error) if is_refused else ""
        # What was written before is older than the kernel's state by now: better nothing than that.
        self._withdraw |= is_refused and not isinstance(error, (UnauthorizedError, ForbiddenError, NotFoundError))
        if self._withdraw and call.what != "withdraw":
            self._not_before[WRITE] = 0.0
