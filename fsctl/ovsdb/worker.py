"""The steps: read, compare, write what is due. See `OvsdbLinks`."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fsctl.errors import UnavailableError
from fsctl.ovsdb.connection import Connection, default_remote
from fsctl.ovsdb.edits import Change, Key
from fsctl.ovsdb.ledger import CALM_S, Ledger
from fsctl.ovsdb.marks import Pair
from fsctl.ovsdb.plan import LINK_LINGER_S, Plan, plan
from fsctl.ovsdb.rows import Database
from fsctl.ovsdb.view import view_of
from fsctl.ovsdb.wanted import Wanted
from fsctl.status import OvsdbView

_LOG = logging.getLogger(__name__)
STEP_S, BUSY_STEP_S = 0.05, 0.01
"""The pause between two steps of `run`; the shorter one while a transaction is under way."""
QUIET_S = 2.0
"""After so long without a change, the pause is doubled."""
TURN_S = 0.002
TOLD_S, TOLD_AGAIN_S = 1.0, 60.0
"""How long something is wrong before it is logged, and before it is logged again."""
MISTAKE_PAUSE_S = 1.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 1.0
"""The pause after a transaction that conflicted with somebody else's change; doubled each time."""


class OvsdbLinks:
    """Keeps bridges, ports and patch links in one Open vSwitch database as they are wanted.

    `manage`, `want` and `allow_release` say what is wanted and return at once. `step` compares it with the rows and sends
    the difference as one transaction, whose result a later step takes; call it about 20 times a second, or let `run` do it.
    Nothing waits for the database, or blocks in poll(2): only `sleep` is used, which may be that of green threads.
    """

    def __init__(self, remote: str | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.remote = remote or default_remote()
        self.released_with_rules: frozenset[str] = frozenset()
        """Bridges that were released and keep rules with fsctl's cookie, because another controller remains there."""
        self._connection = Connection(self.remote, sleep)
        self._sleep = sleep
        self._stepping, self._wanting = threading.Lock(), threading.Lock()
        self._wanted = Wanted()
        self._view = OvsdbView()
        self._callbacks: list[Callable[[], None]] = []
        self._is_told = True
        self._ledger = Ledger()
        self._plan = Plan()
        self._made_of = (Database(), self._wanted)
        """The input of the present plan and view; while it is unchanged, nothing is compared."""
        self._plan_again_at = self._compared_at = 0.0
        self._last_controller: str | None = None
        self._unwanted_since: dict[Pair, float] = {}
        self._sent: list[Change] = []
        self._most: int | None = None
        """How many changes one transaction may have while one of them is refused; None: all."""
        self._retry_at, self._retries = 0.0, 0
        self._tell_at, self._is_told_of = time.monotonic() + TOLD_S, False

    # What is wanted

    def manage(self, bridges: Sequence[str], controller: str | None) -> None:
        """Keep these bridges controllable by the fsctl that listens at `controller`.

        Fail mode secure; OpenFlow 1.4 among the protocols; `controller` (like `tcp:127.0.0.1:6653`; None: others set
        it) among the controllers; prefix tracking for fsctl's tables. Bridges that do not exist are set up once they do.
        """
        self._want(bridges=frozenset(bridges), controller=controller)

    def want(self, links: frozenset[Pair]) -> None:
        """Join these pairs of bridges by patch ports; other links are removed LINK_LINGER_S later."""
        self._want(links=links)

    def allow_release(self, *, allowed: bool = True) -> None:
        """Bridges that are not managed any more may lose fsctl's controller, links and settings.

        Call it when no rule on the managed bridges needs them.
        """
        self._want(may_release=allowed)

    def _want(self, **changes: Any) -> None:
        with self._wanting:  # held for a microsecond
            self._wanted = replace(self._wanted, **changes)

    # What is there

    @property
    def ready(self) -> bool:
        """Whether the database's contents have been seen; until then `view` is empty and means nothing."""
        return self._connection.is_known

    @property
    def repairs(self) -> Counter[str]:
        """How often something that had been right was repaired, by kind: link, fail_mode, controller, ..."""
        return self._ledger.repairs

    @property
    def problem(self) -> str:
        """Why the database cannot be used now; empty if it can."""
        refused = self._ledger.errors()
        return self._connection.problem() or next(
            (f"Open vSwitch's database refuses a change of {' '.join(key)}: {error}" for key, error in refused.items()), ""
        )

    @property
    def to_release(self) -> tuple[str, ...]:
        """Bridges that carry fsctl's Controller row, are not managed any more, and wait for `allow_release`."""
        return self._plan.to_release

    @property
    def is_busy(self) -> bool:
        """Whether changes are still to be made, or their outcome is not known."""
        return bool(self._sent or self._plan.changes)

    def view(self) -> OvsdbView:
        """Ports and links as last seen, also while ovsdb-server is away. fsctl's own patch ports are in `links` only."""
        return self._view

    def on_change(self, callback: Callable[[], None]) -> None:
        """`callback()` runs within `step`, after the view has changed."""
        self._callbacks.append(callback)

    # Steps

    def step(self) -> bool:
        """Read what the database has sent, send what is due; true if the view has changed."""
        if not self._stepping.acquire(blocking=False):
            return False  # another thread is in `step`
        try:
            changed = self._step(time.monotonic())
        finally:
            self._stepping.release()
        self._is_told = self._is_told and not changed
        if not self._is_told:
            for callback in self._callbacks:
                callback()
            self._is_told = True  # else the next step tries again
        return changed

    def run(self, stopped: Callable[[], bool]) -> None:
        """Call `step` until `stopped()`; no error ends it."""
        while not stopped():
            try:
                self.step()
                self._tell(time.monotonic())
            except Exception:  # noqa: BLE001 - a bug of ours or of the library must not end the loop
                _LOG.exception("OVSDB: a step failed; reconnecting")
                self._connection.reopen()
                self._plan_again_at, self._sent = 0.0, []
                self._sleep(MISTAKE_PAUSE_S)
            self._rest()

    def _tell(self, now: float) -> None:
        """Log what is wrong with the database once it has been so for a moment, and once a minute then."""
        problem = self.problem
        if problem and now >= self._tell_at:
            self._tell_at, self._is_told_of = now + TOLD_AGAIN_S, True
            _LOG.warning("OVSDB at %s: %s", self.remote, problem)
        elif not problem:
            if self._is_told_of:
                _LOG.info("OVSDB at %s works again", self.remote)
            self._tell_at, self._is_told_of = now + TOLD_S, False

    def _rest(self) -> None:
        self._sleep(BUSY_STEP_S if self._sent else STEP_S)
        is_quiet = time.monotonic() - self._compared_at > QUIET_S and not self._plan.changes
        if is_quiet and self._wanted is self._made_of[1]:
            self._sleep(STEP_S)

    def wait_ready(self, timeout_s: float = 5.0) -> None:
        """Wait until the database's contents are known; raises UnavailableError after `timeout_s` seconds."""
        self._step_until(lambda: self.ready, timeout_s)

    def _step_until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                raise UnavailableError("no answer from Open vSwitch's database", field="ovsdb", value=self.remote)
            self.step()
            self._sleep(TURN_S)

    def close(self) -> None:
        self._connection.close()

    # Inside

    def _step(self, now: float) -> bool:
        self._connection.run()
        if self._sent:
            self._take_outcome(now)
        if not self._connection.is_known:
            return False
        changed = False
        made_of = (self._connection.database, self._wanted)
        if now >= self._plan_again_at or made_of[0] is not self._made_of[0] or made_of[1] is not self._made_of[1]:
            self._made_of = made_of
            changed = self._compare(now)
        if self._plan.changes and not self._sent and now >= self._retry_at and self._connection.is_current:
            self._send(now)
        return changed

    def _compare(self, now: float) -> bool:
        """Make plan and view again; true if the view has changed."""
        database, wanted = self._made_of
        self._compared_at = now
        if wanted.controller != self._last_controller:
            self._last_controller = wanted.controller
            self._ledger.forget(lambda _key: False)
        waiting = self._unwanted_since
        found = plan(database, wanted, {pair for pair, since in waiting.items() if now - since >= LINK_LINGER_S})
        self._plan = found
        self._ledger.forget(lambda key: _is_wanted(wanted, key))
        self._ledger.saw(found.right, found.changes, now)
        self._unwanted_since = waiting = {pair: waiting.get(pair, now) for pair in found.unwanted}
        ends = [since + LINK_LINGER_S for since in waiting.values() if now - since < LINK_LINGER_S]
        self._plan_again_at = min(ends, default=now + CALM_S) if ends or self._ledger.is_busy else float("inf")
        self.released_with_rules = frozenset(name for name in self.released_with_rules if not wanted.manages(name))
        view = view_of(database, wanted, self._link_problems(), self._ledger.contested())
        if view == self._view:
            return False
        self._view = view
        return True

    def _link_problems(self) -> dict[Pair, str]:
        refused = {
            frozenset(key[1:]): f"Open vSwitch's database refuses the patch ports: {error}"
            for key, error in self._ledger.errors().items()
            if key[0] == "link"
        }
        return {**refused, **self._plan.link_problems}

    def _send(self, now: float) -> None:
        """Send all changes that are due, in one transaction."""
        due = self._ledger.due(self._plan.changes, now)
        self._sent = due if self._most is None else due[: self._most]
        if self._sent:
            self._connection.send(self._sent)

    def _take_outcome(self, now: float) -> None:
        outcome = self._connection.outcome()
        if outcome is None:
            return
        sent, self._sent = self._sent, []
        self._plan_again_at = now
        if outcome.done:
            self._retries = 0
            self._most = None if self._most is None or self._most >= len(self._plan.changes) else 2 * self._most
            for change in sent:
                self._done(change, now)
        elif not outcome.error:
            self._retry_at = now + min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0**self._retries)
            self._retries += 1
        elif len(sent) > 1:
            # One bad change must not block the others: find it by bisection.
            self._most = len(sent) // 2
        else:
            self._ledger.refused(sent[0], outcome.error, now)

    def _done(self, change: Change, now: float) -> None:
        self._ledger.done(change, now)
        if change.key[0] == "release" and change.key[1] in self._plan.keeps_rules:
            self.released_with_rules |= {change.key[1]}
            _LOG.warning(
                "bridge %s has another controller: Open vSwitch keeps the rules with fsctl's cookie there; delete them",
                change.key[1],
            )


def _is_wanted(wanted: Wanted, key: Key) -> bool:
    if key[0] == "link":
        return wanted.links is not None and frozenset(key[1:]) in wanted.links
    return wanted.manages(key[1])
