"""One bridge's worker: makes the switch hold what is wanted, in order, and reports the results.

The controller's loop hands over changes and never waits for a switch. The switch's answers, and errors, go back to the loop
as `Report`s. After an error it is unknown what the switch holds; the worker then waits until the switch answers again,
reports that, and accepts only a `sync` (dump, compare, send the difference).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from fsctl.errors import FsctlError, UnavailableError
from fsctl.openflow.rules import RuleChange, RuleKey, RuleTable, Update
from fsctl.pipeline import diff
from fsctl.runtime import Runtime
from fsctl.status import Dump, Rejection

_LOG = logging.getLogger(__name__)
MAX_BACKLOG = 200_000
"""Changes that may wait for a slow switch; with more, they are discarded and the switch is compared as a whole later."""
PROBE_PAUSE_S = 1.0
IDLE_S = 30.0
"""How often an idle worker checks that its connection is still there."""


class Filling(Protocol):
    """A bundle that is being filled, in any order. It must be finished or abandoned."""

    changes: list[RuleChange]

    def add(self, changes: Sequence[RuleChange]) -> None: ...
    def finish(self) -> list[Rejection]:
        """Make all changes at once; as `Switch.apply` otherwise."""
        ...

    def abandon(self) -> None:
        """Make none of them; raises nothing."""
        ...


class Switch(Protocol):
    """One connected bridge. Every call may raise UnavailableError: it is silent, or the connection is gone."""

    bridge: str

    @property
    def is_closed(self) -> bool:
        """The connection is gone for good."""
        ...

    def apply(self, update: Update) -> list[Rejection]: ...
    def fill(self) -> Filling: ...
    def overtake(self, changes: Sequence[RuleChange]) -> list[Rejection]:
        """As `apply`, one by one, also while a bundle is being filled."""
        ...

    def dump(self) -> Dump: ...
    def counters(self) -> Mapping[RuleKey, tuple[int, int]]: ...
    def watch(self, on_drift: Callable[[bool], None]) -> None:
        """Call `on_drift` whenever somebody else changes a rule; with true if it may have been one of fsctl's."""
        ...

    def reclaim(self, keys: frozenset[RuleKey]) -> None:
        """Rules of others in these places may be replaced."""
        ...

    def probe(self) -> None:
        """Return as soon as the switch answers."""
        ...


class Drift(Enum):
    """Somebody else changed rules: at least one of fsctl's, or only their own."""

    OURS = "ours"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of something. `number` is its number; 0: nothing that was asked for.

    `changes` were made but for `rejections`; `dump` is there after a sync, `table` what it led to; `error`: what is
    installed is unknown now.
    """

    number: int = 0
    changes: Sequence[RuleChange] = ()
    rejections: Sequence[Rejection] = ()
    dump: Dump | None = None
    table: RuleTable | None = None
    error: Exception | None = None
    is_first: bool = False
    is_back: bool = False
    drift: Drift | None = None


class _Commit(NamedTuple):
    number: int


class _Abandon(NamedTuple):
    pass


class _Overtaking(NamedTuple):
    changes: Sequence[RuleChange]


@dataclass(frozen=True, slots=True)
class _Sync:
    """`ours` are the rules that this switch has confirmed to hold: their places are taken back from others."""

    number: int
    table: RuleTable
    ours: frozenset[RuleKey] = field(default_factory=frozenset)


_Item = Sequence[RuleChange] | _Commit | _Abandon | _Overtaking | _Sync


class BridgeWorker:
    """The queue of one connected switch, and the thread that processes it."""

    def __init__(self, switch: Switch, runtime: Runtime, report: Callable[[BridgeWorker, Report], None]) -> None:
        self.switch = switch
        self.sent = self.confirmed = 0
        """The numbers of the last bundle or comparison that was asked for, and of the last one that the switch has confirmed."""
        self.backlog = 0
        self._runtime, self._report = runtime, report
        self._queue: deque[_Item] = deque()
        self._awake = runtime.event()
        self._filling: Filling | None = None
        self._asked: deque[tuple[int, float]] = deque()
        """What was asked for and when, since the last that the loop has heard of."""
        self._first: Dump | None = None
        self._is_lost = False
        self._has_begun = False
        """What it holds at first has been told."""
        self._is_stopped = False
        self._drift: Drift | None = None

    # --- called by the loop ----------------------------------------------------------------------------

    def add(self, changes: Sequence[RuleChange]) -> bool:
        """A piece of the next bundle; false if the switch is too far behind: it needs a sync."""
        if self.backlog > MAX_BACKLOG:
            self._drop()
            return False
        self.backlog += len(changes)
        self._put(changes)
        return True

    def commit(self) -> int:
        """The bundle is complete. Returns its number, which the report will have."""
        return self._numbered(_Commit)

    def overtake(self, changes: Sequence[RuleChange]) -> None:
        """Changes that are made before all that waits, but for a comparison: that would undo them."""
        last = max((n for n, item in enumerate(self._queue) if isinstance(item, _Sync)), default=-1)
        self._queue.insert(last + 1, _Overtaking(changes))
        self._awake.set()

    def abandon(self) -> None:
        """Discard what was added since the last commit."""
        self._put(_Abandon())

    def sync(self, table: RuleTable, ours: frozenset[RuleKey]) -> int:
        """Make the switch hold `table`, which includes all that waits in the queue."""
        self._drop()
        return self._numbered(lambda number: _Sync(number, table, ours))

    def stop(self) -> None:
        self._is_stopped = True
        self._awake.set()

    def heard(self, confirmed: int) -> None:
        """The loop knows that everything up to this number is confirmed."""
        while self._asked and self._asked[0][0] <= confirmed:
            self._asked.popleft()

    @property
    def waits_since(self) -> float:
        """When the oldest thing that is not confirmed was asked for; infinite if there is none."""
        return self._asked[0][1] if self._asked else float("inf")

    def _numbered(self, make: Callable[[int], _Item]) -> int:
        self.sent += 1
        self._asked.append((self.sent, self._runtime.now()))
        self._put(make(self.sent))
        return self.sent

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        self._awake.set()

    def _drop(self) -> None:
        """Empty the queue, and discard the open bundle."""
        self._queue.clear()
        self._queue.append(_Abandon())
        self.backlog = 0

    # --- the thread ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`, or until the connection is gone."""
        while not self._has_begun and not self._is_stopped and not self.switch.is_closed:
            self._attempt(self._begin)
            if not self._has_begun and self._answers():
                self._awake.wait(PROBE_PAUSE_S)
        while not self._is_stopped and not self.switch.is_closed:
            if self._is_lost:
                self._come_back()
            if not self._queue:
                self._awake.wait(IDLE_S)
                self._awake.clear()
                continue
            self._attempt(self._next)
        self._give_up()

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as e:  # noqa: BLE001 - nobody above can handle it; the bridge is out of sync
            self._give_up()
            self._is_lost = True
            unexpected = None if isinstance(e, FsctlError) else e
            _LOG.warning("bridge %s is out of sync: %s", self.switch.bridge, e or repr(e), exc_info=unexpected)
            self._report(self, Report(error=e))

    def _begin(self) -> None:
        self.switch.watch(self._drifted)
        self._first = self.switch.dump()
        self._has_begun, self._is_lost = True, False
        self._report(self, Report(dump=self._first, is_first=True))

    def _drifted(self, hits_us: bool) -> None:
        """Somebody else has changed a rule. Called from the thread that receives: it must not wait."""
        self._first = None
        drift = Drift.OURS if hits_us else Drift.THEIRS
        if self._drift is not drift and self._drift is not Drift.OURS:
            self._drift = drift
            self._report(self, Report(drift=drift))

    def _next(self) -> None:
        try:
            item = self._queue.popleft()
        except IndexError:
            return  # the loop has dropped it meanwhile
        if isinstance(item, _Sync):
            self._sync(item)
        elif self._is_lost:
            return
        elif isinstance(item, _Commit):
            self._finish(item)
        elif isinstance(item, _Abandon):
            self._give_up()
        elif isinstance(item, _Overtaking):
            for rejection in self.switch.overtake(item.changes):
                _LOG.warning("bridge %s rejected %s: %s", self.switch.bridge, rejection.key, rejection.error)
        else:
            self.backlog = max(0, self.backlog - len(item))
            if self._filling is None:
                self._filling = self.switch.fill()
            self._filling.add(item)

    def _finish(self, commit: _Commit) -> None:
        filling, self._filling = self._filling, None
        rejections = filling.finish() if filling is not None else []
        self.confirmed = commit.number
        self._report(self, Report(commit.number, filling.changes if filling else (), rejections))

    def _sync(self, wanted: _Sync) -> None:
        self._give_up()
        self._drift = None  # what changes from now on is not in the dump
        dump, self._first = self._first or self.switch.dump(), None
        reclaimed = dump.foreign & wanted.ours
        self.switch.reclaim(reclaimed)
        update = diff.diff(wanted.table, dump.table, self.switch.bridge)
        rejections = self.switch.apply(update) if update else []
        if reclaimed:
            dump = self.switch.dump()  # without the rules of others that were replaced
        self._is_lost = False
        self.confirmed = wanted.number
        self._report(self, Report(wanted.number, update.changes, rejections, dump, wanted.table))

    def _come_back(self) -> None:
        """Wait until the switch answers again. The loop then asks for a sync."""
        if any(isinstance(item, _Sync) for item in self._queue):
            return
        if not self._answers():
            return
        self._report(self, Report(is_back=True))
        while not any(isinstance(item, _Sync) for item in self._queue):
            if self._is_stopped or self.switch.is_closed:
                return
            self._awake.wait(PROBE_PAUSE_S)
            self._awake.clear()

    def _answers(self) -> bool:
        """Wait until the switch answers; false if it has disconnected or the probe failed."""
        try:
            self.switch.probe()
        except UnavailableError:
            return False
        except Exception:  # noqa: BLE001 - the bridge stays out of sync; it is asked again
            _LOG.exception("bridge %s: the probe failed", self.switch.bridge)
            self._awake.wait(PROBE_PAUSE_S)
            return False
        return True

    def _give_up(self) -> None:
        """Discard the open bundle, if any."""
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.abandon()
