"""Carrying updates to the switches, and what to do when a switch refuses.

A refused rule must not leave its packets to a shorter prefix that sends them somewhere else. So the
rules that would catch them are made slow-path rules (`demoted`): the bypass may be absent, never wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from fsctl import reconcile
from fsctl.errors import FsctlError
from fsctl.fib import mask
from fsctl.fixed_rules import BRIDGE, FROM_LINK
from fsctl.model import BITS
from fsctl.outcome import SLOW, Node, Place, Point
from fsctl.pipeline import Layout, flow_key
from fsctl.rules import EGRESS, FLOW_SWITCH, GUARD, GotoTable, RuleChange, RuleKey, RuleTable, Update
from fsctl.runtime import Runtime
from fsctl.status import Port, Rejection

_LOG = logging.getLogger(__name__)


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
    """One connected bridge. Every call may raise UnavailableError: the connection is gone."""

    bridge: str

    def apply(self, update: Update) -> list[Rejection]: ...
    def fill(self) -> Filling: ...
    def dump(self) -> tuple[RuleTable, list[str]]: ...
    def counters(self) -> Mapping[RuleKey, tuple[int, int]]: ...
    def ports(self) -> list[Port]: ...


class Installed:
    """One bridge's switch, and how it stands. `refused` are rules it would not take, with its words."""

    def __init__(self, switch: Switch, datapath_id: int | None) -> None:
        self.switch, self.datapath_id = switch, datapath_id
        self.in_step = False
        self.warnings: list[str] = []
        self.refused: dict[RuleKey, str] = {}
        self.demoted: set[RuleKey] = set()
        self.broken = ""
        self.closed = False

    def forget(self, changes: Iterable[RuleChange]) -> None:
        """What was refused in these places: they are about to change."""
        if self.refused or self.demoted:
            for change in changes:
                self.refused.pop(change.key, None)
                self.demoted.discard(change.key)


class Installer:
    """The connected switches by bridge."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.bridges: dict[str, Installed] = {}

    def in_step(self, bridge: str) -> bool:
        return bridge in self.bridges and self.bridges[bridge].in_step

    def connect(self, switch: Switch, datapath_id: int | None) -> None:
        self.bridges[switch.bridge] = Installed(switch, datapath_id)

    def disconnect(self, switch: Switch) -> bool:
        """False if a newer connection of the same bridge has taken its place."""
        here = self.bridges.get(switch.bridge)
        if here is None or here.switch is not switch:
            return False
        del self.bridges[switch.bridge]
        return True

    def need_another_try(self) -> list[str]:
        """Connected bridges that refused something or fell out of step."""
        return [name for name, here in self.bridges.items() if here.refused or not here.in_step]

    def closed(self) -> frozenset[str]:
        """Bridges that do not take the rules that every bypass needs."""
        return frozenset(name for name, here in self.bridges.items() if here.closed)

    def apply(self, layout: Layout, changes: Mapping[str, list[RuleChange]]) -> None:
        """Egress rules first in and last out; in between, one bundle per bridge, all bridges at once."""
        first: dict[str, list[RuleChange]] = {}
        main: dict[str, list[RuleChange]] = {}
        last: dict[str, list[RuleChange]] = {}
        for bridge, todo in changes.items():
            if not self.in_step(bridge):
                continue
            for change in todo:
                if not _is_egress(change):
                    main.setdefault(bridge, []).append(change)
                else:
                    (last if change.actions is None else first).setdefault(bridge, []).append(change)
        for phase in (first, main, last):
            self._everywhere(phase, layout)

    def stream(self, layout: Layout, pieces: Iterable[Mapping[str, list[RuleChange]]]) -> None:
        """Changes without egress rules, sent as they are found; made all at once on each bridge, when all are there."""
        open_: dict[str, Filling] = {}
        try:
            for piece in pieces:
                for bridge, changes in piece.items():
                    if self.in_step(bridge):
                        self._fill(open_, bridge, changes)
                self._runtime.pause()
        except BaseException:
            for filling in open_.values():
                filling.abandon()
            raise
        for wait in [self._runtime.spawn(partial(self._finish, b, f, layout)) for b, f in open_.items()]:
            wait()

    def _fill(self, open_: dict[str, Filling], bridge: str, changes: list[RuleChange]) -> None:
        here = self.bridges[bridge]
        here.forget(changes)
        try:
            if bridge not in open_:
                open_[bridge] = here.switch.fill()
            open_[bridge].add(changes)
        except Exception as e:  # noqa: BLE001 - nobody else hears of it, and what is installed is unknown now
            self._lost_step(here, e)
            if bridge in open_:
                open_.pop(bridge).abandon()

    def _finish(self, bridge: str, filling: Filling, layout: Layout) -> None:
        self._confirm(self.bridges[bridge], filling.finish, filling.changes, layout)

    def _confirm(
        self, here: Installed, send: Callable[[], list[Rejection]], changes: list[RuleChange], layout: Layout
    ) -> None:
        try:
            rejections = send()
            if rejections:
                self._refused(here, changes, rejections, layout)
        except Exception as e:  # noqa: BLE001 - likewise
            self._lost_step(here, e)

    def _everywhere(self, changes: Mapping[str, list[RuleChange]], layout: Layout) -> None:
        waits: list[Callable[[], None]] = []
        for number, (bridge, todo) in enumerate(changes.items(), 1):
            if number == len(changes):
                self._one(bridge, todo, layout)
            else:
                waits.append(self._runtime.spawn(lambda b=bridge, t=todo: self._one(b, t, layout)))  # type: ignore[misc]
        for wait in waits:
            wait()

    def _one(self, bridge: str, changes: list[RuleChange], layout: Layout) -> None:
        here = self.bridges.get(bridge)
        if here is None:
            return
        here.forget(changes)
        self._confirm(here, lambda: here.switch.apply(Update(bridge, reconcile.order(changes))), changes, layout)

    def sync_all(self, bridges: Iterable[str], layout: Layout) -> None:
        """All these bridges at once: one answers while another's dump is read."""
        for wait in [self._runtime.spawn(lambda b=b: self.sync(b, layout)) for b in bridges]:  # type: ignore[misc]
            wait()

    def sync(self, bridge: str, layout: Layout) -> None:
        """Dump, diff, send the difference."""
        here, desired = self.bridges.get(bridge), layout.table(bridge)
        if here is None:
            return
        here.refused.clear()
        here.demoted.clear()
        here.closed = False
        try:
            installed, here.warnings = here.switch.dump()
            update = reconcile.diff(desired, installed, bridge)
            rejections = here.switch.apply(update) if update else []
            here.in_step, here.broken = True, ""
            _LOG.info("bridge %s: in step, %d changes of %d rules", bridge, len(update.changes), len(desired.rules))
            if rejections:
                self._refused(here, list(update.changes), rejections, layout)
        except Exception as e:  # noqa: BLE001 - likewise
            self._lost_step(here, e)

    @staticmethod
    def _lost_step(here: Installed, error: Exception) -> None:
        """What was applied is found out by the next dump: when it connects again, or is tried again."""
        here.in_step, here.broken = False, str(error) or repr(error)
        unexpected = None if isinstance(error, FsctlError) else error
        _LOG.warning("bridge %s is out of step: %s", here.switch.bridge, here.broken, exc_info=unexpected)

    # --- refusals ------------------------------------------------------------------------------------

    def _refused(self, here: Installed, changes: list[RuleChange], rejections: list[Rejection], layout: Layout) -> None:
        """Note what was refused, and keep its packets out of other rules."""
        words = {r.key: r.error for r in rejections}
        if any(key.table in (GUARD, EGRESS) for key in words):
            self._close(here, layout)
        fixes: list[RuleChange] = []
        known = {change.key: change for change in changes}
        places = _places(layout, here.switch.bridge, words) if words else {}
        here.refused.update(words)
        for key, error in words.items():
            _LOG.error("bridge %s refused %s: %s", here.switch.bridge, key, error)
            if key in known and not known[key].is_new:
                fixes.append(RuleChange(key, None, False))
            if key in places:
                fixes += [RuleChange(k, BRIDGE, False) for k in self._demote(here, layout, *places[key])]
        if fixes and here.switch.apply(Update(here.switch.bridge, reconcile.order(fixes))):
            self._close(here, layout)

    def _demote(self, here: Installed, layout: Layout, node: Node, key: Place) -> list[RuleKey]:
        """The rules that would now catch the packets of a refused one, unless these are slow-path rules."""
        demoted = []
        plane = layout.compiler.planes[node.version]
        base = plane.node_of[node.interface.router, node.interface.name, None]
        for view in (node,) if node.eth_src is not None else (base, *base.classes):
            for other, other_key in _next_best(view, base, key):
                rule = flow_key(other, other_key)
                if rule in here.refused:
                    continue
                if other.rules[other_key].kind != SLOW and rule not in here.demoted:
                    here.demoted.add(rule)
                    demoted.append(rule)
                break
        return demoted

    def _close(self, here: Installed, layout: Layout) -> None:
        """The frame itself is not whole: nothing may enter the flow switch on this bridge, nor be sent there."""
        here.closed = True
        here.broken = "the switch refused a rule that the bypass needs; nothing is bypassed on this bridge"
        _LOG.error("bridge %s: %s", here.switch.bridge, here.broken)
        frame = layout.frames[here.switch.bridge].rules
        doors = [k for k, actions in frame.items() if k.table == GUARD and GotoTable(FLOW_SWITCH) in actions]
        here.switch.apply(Update(here.switch.bridge, [RuleChange(k, None, False) for k in doors]))


def _is_egress(change: RuleChange) -> bool:
    table, priority, _ = change.key
    return table == EGRESS or (table == GUARD and priority == FROM_LINK)


def _places(layout: Layout, bridge: str, wanted: Mapping[RuleKey, str]) -> dict[RuleKey, tuple[Node, Place]]:
    """Where rules of the flow switch come from."""
    return {
        rule: (node, key)
        for _, node in layout.compiler.nodes()
        if node.interface.bridge == bridge
        for key in node.rules
        if (rule := flow_key(node, key)) in wanted
    }


def _next_best(view: Node, base: Node, key: Place) -> Iterable[tuple[Node, Place]]:
    """The rules that catch the packets of `key` in the eyes of one sender class, best first."""
    bits = BITS[view.version]
    nodes = dict.fromkeys((view, base))
    if isinstance(key, Point):
        yield from ((node, key) for node in nodes if key in node.rules)
        value, longest = key.dst, bits
    else:
        value, longest = key >> 8, key & 0xFF
    for length in range(longest, -1, -1):
        covering = (value & mask(view.version, length)) << 8 | length
        yield from ((node, covering) for node in nodes if covering in node.rules)
