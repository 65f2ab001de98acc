"""The state of one connected bridge: what its switch has confirmed, and when it is compared as a whole again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from fsctl.bridge_worker import BridgeWorker, Report
from fsctl.openflow.decode import ForeignRule
from fsctl.openflow.rules import EGRESS, FLOW_SWITCH, GUARD, Action, RuleChange, RuleKey, RuleTable, SetField
from fsctl.pipeline.fixed_rules import BRIDGE, FROM_LINK

_LOG = logging.getLogger(__name__)
SILENT_S = 1.0
"""A switch that has not confirmed a change for this long counts as out of sync."""
AUDIT_S = 240.0
"""How often a bridge without reported changes is compared as a whole."""
COST = 20.0
"""Repairs of one bridge take at most 1/COST of the time: after one that took t, the next begins COST * t later."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 30.0
RETRY_S = 30.0
"""How often what a switch has rejected is tried again."""
FREE_REPAIRS = 10
"""Repairs that are made at once, and one more per second. Beyond that, somebody keeps changing fsctl's rules."""


class BridgeState:
    """The worker of a bridge and what it has reported. `rejected`: the rules that the switch rejected, with its errors."""

    def __init__(self, worker: BridgeWorker, datapath_id: int | None) -> None:
        self.worker, self.datapath_id = worker, datapath_id
        self.bridge = worker.switch.bridge
        self.is_dumped = self.is_tracked = self.is_quarantined = False
        self.has_drifted = False
        self.has_news = True
        """`doors` or the rules of others have changed since the loop last looked."""
        self.broken = ""
        self.warnings: tuple[str, ...] = ()
        self.policies: tuple[ForeignRule, ...] = ()
        self.rejected: dict[RuleKey, str] = {}
        self.demoted: set[RuleKey] = set()
        self.doors: dict[RuleKey, tuple[Action, ...]] = {}
        """The arrival and egress rules that the switch is known to hold."""
        self.repairs = 0
        """Rules that somebody else had changed and that were put right."""
        self.fix = 0
        self.confirmed = 0
        """The number of the last bundle or comparison that the loop knows to be confirmed."""
        self._foreign: frozenset[RuleKey] | None = None
        self._sync, self._sync_at = 0, float("inf")
        self._began = 0.0
        self._is_restart = True
        """What the switch holds is unknown: a difference is then no repair."""
        self._credit, self._credit_at = float(FREE_REPAIRS), 0.0
        self._pause_until = 0.0

    # --- what is said of it --------------------------------------------------------------------------------

    def trouble(self, now: float) -> str:
        """Why it is not in sync; empty if what is in the switch is what is wanted."""
        late = now - self.worker.waits_since
        if not self.is_tracked:
            return self.broken or "not compared yet"
        if self.has_drifted:
            return "somebody else has changed fsctl's rules; they are being repaired"
        if self.confirmed < self._sync:
            return self.broken or "being compared with what is wanted"
        if late > SILENT_S:
            return f"the switch has not confirmed for {late:.0f} s"
        return ""

    @property
    def arrivals(self) -> frozenset[int]:
        """The patch ports whose frames are let in."""
        keys = (key for key in self.doors if key.table == GUARD)
        return frozenset(f.value for key in keys for f in key.match if f.name == "in_port")

    @property
    def delivers(self) -> frozenset[tuple[int, int]]:
        """(MAC, port) of the router interfaces in whose name frames are delivered."""
        return frozenset(
            (f.value, action.value)
            for key, actions in self.doors.items()
            if key.table == EGRESS
            for f in key.match
            for action in actions
            if f.name == "eth_src" and isinstance(action, SetField) and action.name == "in_port"
        )

    # --- what happens to it ----------------------------------------------------------------------------------

    def anew(self, changes: list[RuleChange]) -> list[RuleChange]:
        """The changes to be sent. What was rejected in these places is forgotten: it is not there, so it is added."""
        if not self.rejected and not self.demoted:
            return changes
        found = []
        for change in changes:
            was_rejected = self.rejected.pop(change.key, None) is not None
            self.demoted.discard(change.key)
            found.append(change._replace(is_new=True) if was_rejected and change.actions is not None else change)
        return found

    def promote(self, needed: Collection[RuleKey], now: float) -> None:
        """After a comparison: only these rules must stay demoted. The next comparison brings the others back."""
        if self.demoted - set(needed):
            self.demoted &= set(needed)
            self._sync_at = now

    def try_again(self, now: float) -> None:
        """Something was rejected."""
        self._sync_at = min(self._sync_at, now + RETRY_S)

    def begin_sync(self, table: RuleTable, now: float) -> None:
        """Ask the worker to make the switch hold `table`. Changes sent from now on come after it."""
        # A rule of others that has come since the last comparison, in a place where fsctl had one, is replaced.
        known = self._foreign
        ours = frozenset[RuleKey]() if known is None else frozenset(table.rules.keys() - known - self.rejected.keys())
        self.rejected.clear()
        # Until the switch has taken what it rejected, or it is known to reject it again.
        self.demoted = {key for key in self.demoted if table.rules.get(key, BRIDGE) != BRIDGE}
        for key in self.demoted:
            table.rules[key] = BRIDGE
        self.is_quarantined = False
        self.is_tracked = True
        self._sync_at, self._began = float("inf"), now
        self._sync = self.worker.sync(table, ours)

    def lose(self, why: str, now: float = 0.0, *, comes_back: bool = False) -> None:
        """What it holds is unknown. With `comes_back` the worker reports when it answers again; else it is compared soon."""
        self.is_tracked, self.broken, self._is_restart = False, why, True
        self._sync_at = float("inf") if comes_back else max(now, self._pause_until)

    def back(self, now: float) -> None:
        """It answers again."""
        self._sync_at = max(now, self._pause_until)

    def drift(self, now: float, *, hits_us: bool) -> None:
        """Somebody else has changed a rule in it, one of fsctl's or one of their own."""
        self.has_drifted |= hits_us
        self._credit = min(float(FREE_REPAIRS), self._credit + now - self._credit_at)
        self._credit_at = now
        is_free = self._credit >= 1.0
        self._credit = max(0.0, self._credit - 1.0)
        self._sync_at = min(self._sync_at, now if is_free else max(now + 1.0, self._pause_until))

    def sync_at(self) -> float:
        """When it is to be compared as a whole; one comparison ends before the next begins."""
        is_under_way = self.is_tracked and self.confirmed < self._sync
        return self._sync_at if self.is_dumped and not is_under_way else float("inf")

    def is_superseded(self, report: Report) -> bool:
        """A comparison was asked for after what it tells of: that tries again what was rejected."""
        return report.number < self._sync

    def confirm(self, report: Report, now: float) -> None:
        """The switch has confirmed changes, or a comparison as a whole."""
        self.confirmed = max(self.confirmed, report.number)
        self.worker.heard(self.confirmed)
        rejected = {r.key for r in report.rejections}
        if report.dump is not None:
            self.warnings, self.policies, self.has_news = report.dump.warnings, report.dump.policies, True
            if report.table is not None:
                self._foreign = report.dump.foreign - (report.table.rules.keys() - rejected)
        if report.is_first:
            self.is_dumped, self._sync_at = True, now
            rules = report.dump.table.rules if report.dump is not None else {}
            self._note(rules)
            self.demoted = {key for key, actions in rules.items() if key.table == FLOW_SWITCH and actions == BRIDGE}
            return
        if report.table is not None:
            self._synced(report, now)
            self._note({k: a for k, a in report.table.rules.items() if k not in rejected})
            return
        for key, actions, _ in report.changes:
            if _is_door(key):
                self.has_news = True
                if actions is None or key in rejected:
                    self.doors.pop(key, None)
                else:
                    self.doors[key] = actions

    def _note(self, rules: Mapping[RuleKey, tuple[Action, ...]]) -> None:
        self.doors = {key: actions for key, actions in rules.items() if _is_door(key)}

    def _synced(self, report: Report, now: float) -> None:
        took = now - self._began
        if report.changes and not self._is_restart:
            self.repairs += len(report.changes)
            _LOG.warning("bridge %s: somebody else changed rules; %d repaired", self.bridge, len(report.changes))
        elif self._is_restart:
            rules = len(report.table.rules) if report.table is not None else 0
            _LOG.info("bridge %s: in sync, %d changes of %d rules", self.bridge, len(report.changes), rules)
        self._is_restart = False
        if self.is_superseded(report):
            return  # a later comparison is under way, and will tell
        self.has_drifted, self.broken = self._sync_at != float("inf"), ""  # it may have drifted again meanwhile
        self._pause_until = now + min(MAX_PAUSE_S, max(MIN_PAUSE_S, COST * took))
        if not self.is_tracked:
            self._sync_at = now  # it was lost as this began: what was to be sent since then was not
        if self._sync_at == float("inf"):
            self._sync_at = now + (RETRY_S if report.rejections else max(AUDIT_S, 200 * took))


def _is_door(key: RuleKey) -> bool:
    return key.table == EGRESS or (key.table == GUARD and key.priority == FROM_LINK)
