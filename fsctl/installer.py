"""The connected switches: what each has confirmed to hold, and what it is sent next.

The controller's loop calls all methods, and none of them waits for a switch: `bridge_worker` does. What a switch confirms
comes back through `take`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from fsctl.bridge_state import BridgeState
from fsctl.bridge_worker import BridgeWorker, Drift, Report, Switch
from fsctl.demotion import to_demote
from fsctl.errors import FsctlError
from fsctl.openflow.rules import FLOW_SWITCH, GUARD, MTU, WAYS, GotoTable, RuleChange
from fsctl.pipeline.fixed_rules import BRIDGE
from fsctl.pipeline.layout import Layout
from fsctl.runtime import Runtime

_LOG = logging.getLogger(__name__)
SHOWN = 10
"""Rejected rules that the log names at a time; a full table rejects thousands."""
Pieces = Iterable[Mapping[str, list[RuleChange]]]


class Installer:
    """The connected switches by bridge."""

    def __init__(
        self, runtime: Runtime, report: Callable[[BridgeWorker, Report], None], pause: Callable[[], None] | None = None
    ) -> None:
        """`pause` is called between the pieces of long work."""
        self._runtime, self._report, self._pause = runtime, report, pause or runtime.pause
        self.bridges: dict[str, BridgeState] = {}

    def in_step(self, bridge: str) -> bool:
        """Whether the switch has confirmed everything that is wanted."""
        return bridge in self.bridges and not self.bridges[bridge].trouble(self._runtime.now())

    def connect(self, switch: Switch, datapath_id: int | None) -> None:
        """A new connection; it replaces an older one of the same bridge."""
        old = self.bridges.get(switch.bridge)
        worker = BridgeWorker(switch, self._runtime, self._report)
        here = BridgeState(worker, datapath_id)
        if old is not None:
            old.worker.stop()
            here.doors, here.repairs = old.doors, old.repairs
        self.bridges[switch.bridge] = here
        self._runtime.spawn(worker.run)

    def disconnect(self, switch: Switch) -> bool:
        """False if a newer connection of the same bridge has taken its place."""
        here = self.bridges.get(switch.bridge)
        if here is None or here.worker.switch is not switch:
            return False
        here.worker.stop()
        del self.bridges[switch.bridge]
        return True

    def current(self, worker: BridgeWorker) -> BridgeState | None:
        """The state of the bridge that `worker` works for; None if it has been replaced."""
        here = self.bridges.get(worker.switch.bridge)
        return here if here is not None and here.worker is worker else None

    def quarantined(self) -> frozenset[str]:
        """Bridges that reject a rule that every bypass needs."""
        return frozenset(name for name, here in self.bridges.items() if here.is_quarantined)

    # --- telling the switches ----------------------------------------------------------------------------

    def send(self, pieces: Pieces, layout: Callable[[], Layout]) -> dict[str, int]:
        """One bundle per bridge, filled as the changes are found. Returns the number of each bridge's bundle.

        `layout` gives what the changes lead to, once all are found.
        """
        open_: set[str] = set()
        try:
            for piece in pieces:
                for bridge, changes in piece.items():
                    if changes and self._add(bridge, changes):
                        open_.add(bridge)
                self._pause()
            for bridge in open_:
                self._keep_demoted(bridge, layout)
        except BaseException:
            for bridge in open_ & self.bridges.keys():
                self.bridges[bridge].worker.abandon()
            raise
        return {bridge: here.worker.commit() for bridge in open_ if (here := self.bridges.get(bridge)) is not None}

    def _add(self, bridge: str, changes: list[RuleChange]) -> bool:
        here = self.bridges.get(bridge)
        if here is None or not here.is_tracked:
            return False
        if here.worker.add(here.anew(changes)):
            return True
        here.lose("the switch is too far behind")
        return False

    def _keep_demoted(self, bridge: str, layout: Callable[[], Layout]) -> None:
        """What has changed must not catch the packets of rules that were rejected before."""
        here = self.bridges.get(bridge)
        if here is not None and here.is_tracked and here.rejected:
            demoted = to_demote(layout(), bridge, here.rejected, here.demoted, self._pause)
            here.demoted.update(demoted)
            here.worker.add([RuleChange(key, BRIDGE, False) for key in demoted])

    def overtake(self, bridge: str, changes: list[RuleChange]) -> None:
        """Changes that are made before all that the bridge is still sent. A bridge of unknown state gets them when compared."""
        here = self.bridges.get(bridge)
        if here is not None and here.is_tracked and changes:
            here.worker.overtake(changes)

    def sync(self, bridge: str, layout: Layout) -> None:
        """Compare the bridge as a whole with what is wanted now, and send the difference."""
        here = self.bridges.get(bridge)
        if here is not None and here.is_dumped:
            here.begin_sync(layout.table(bridge), self._runtime.now())

    def due(self) -> list[str]:
        """Bridges to be compared as a whole now: repairs, retries, audits."""
        now = self._runtime.now()
        return [name for name, here in self.bridges.items() if here.sync_at() <= now]

    def next_due(self) -> float:
        return min((here.sync_at() for here in self.bridges.values()), default=float("inf"))

    # --- hearing of them -----------------------------------------------------------------------------------

    def take(self, here: BridgeState, report: Report, layout: Layout) -> None:
        """Take in a report of a bridge's worker."""
        now = self._runtime.now()
        if report.error is not None:
            unexpected = not isinstance(report.error, FsctlError)
            here.lose((f"a mistake of fsctl: {report.error!r}" if unexpected else str(report.error)), now, comes_back=True)
        elif report.is_back:
            here.back(now)
        elif report.drift is not None:
            here.drift(now, hits_us=report.drift is Drift.OURS)
        else:
            here.confirm(report, now)
            if report.rejections and not here.is_superseded(report):
                self._rejected(here, report, layout)
            if report.table is not None and here.demoted and not here.is_superseded(report):
                here.promote(to_demote(layout, here.bridge, here.rejected, (), self._pause), now)

    def _rejected(self, here: BridgeState, report: Report, layout: Layout) -> None:
        """Note what was rejected; no other rule may bypass its packets instead."""
        bridge, words = here.bridge, {r.key: r.error for r in report.rejections}
        here.rejected.update(words)
        here.try_again(self._runtime.now())
        for key, error in islice(words.items(), SHOWN):
            _LOG.error("bridge %s rejected %s: %s", bridge, key, error)
        if len(words) > SHOWN:
            _LOG.error("bridge %s rejected %d more rules", bridge, len(words) - SHOWN)
        fixes = [RuleChange(c.key, None, False) for c in report.changes if c.key in words and not c.is_new]
        if any(key.table not in (FLOW_SWITCH, WAYS, MTU) for key in words):
            fixes += self._quarantine(here, layout)
        demoted = to_demote(layout, bridge, here.rejected.keys() & words.keys(), here.demoted, self._pause)
        here.demoted.update(demoted)
        fixes += [RuleChange(key, BRIDGE, False) for key in demoted]
        if fixes and here.is_tracked:
            here.worker.add(fixes)
            here.fix = here.worker.commit()

    def _quarantine(self, here: BridgeState, layout: Layout) -> list[RuleChange]:
        """A fixed rule is missing: no packet may enter the flow switch on this bridge, nor be sent there."""
        here.is_quarantined = True
        _LOG.error("bridge %s: nothing is bypassed: it rejected a rule that the bypass needs", here.bridge)
        frame = layout.frames[here.bridge].rules
        doors = [k for k, actions in frame.items() if k.table == GUARD and GotoTable(FLOW_SWITCH) in actions]
        return [RuleChange(k, None, False) for k in doors if k not in here.rejected]
