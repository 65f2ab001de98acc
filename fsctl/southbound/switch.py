"""The live datapath of one bridge: apply, dump, counters, ports, the flow monitor."""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ryu.lib import hub

from fsctl.errors import SilentError, SwitchError, UnavailableError
from fsctl.openflow import (
    FlowDecoder,
    FlowUpdate,
    OpenFlowError,
    const,
    decode_error,
    decode_flow_updates,
    decode_ports,
    flow_mod,
    flow_monitor,
    requests,
)
from fsctl.openflow.monitor import ADDED, MODIFIED, REMOVED, RESUMED
from fsctl.openflow.ports import Port
from fsctl.openflow.rules import (
    COOKIE,
    COOKIE_MASK,
    FLOW_SWITCH,
    GUARD,
    LEARNED_COOKIE,
    LEARNED_MASK,
    TABLES,
    RuleChange,
    RuleKey,
    RuleTable,
    Update,
)
from fsctl.pipeline.fixed_rules import FROM_LINK, RESERVED_VLAN
from fsctl.southbound.bundle import TIMEOUT_S, Bundle, Filling
from fsctl.southbound.refusal import Refusals
from fsctl.southbound.replies import Connection, Datapath, bridge_name
from fsctl.status import Dump, Rejection

LOG = logging.getLogger(__name__)
READER_PATIENCE_S = 1.0
ROOM = 1 << 20
"""The xids reserved for a bundle of unknown size; one change takes one."""


def _may_hit_us(update: FlowUpdate) -> bool:
    """False only for a rule of others in table 0 that has none of fsctl's priorities: it took no place of fsctl's."""
    is_beside = update.table == GUARD and RESERVED_VLAN < update.priority < FROM_LINK
    return not (update.event in (ADDED, REMOVED, MODIFIED) and is_beside and update.cookie & COOKIE_MASK != COOKIE)


class Southbound:
    """One connected switch. Methods block the calling green thread only; they raise UnavailableError when it disconnects."""

    def __init__(self, datapath: Datapath, bridge: str | None = None) -> None:
        self.bridge = bridge or bridge_name(datapath)
        self._connection = Connection(datapath, self.bridge)
        self._one_at_a_time = hub.Semaphore(1)
        self._bundles = itertools.count(1)
        self._foreign: frozenset[RuleKey] = frozenset()
        self._on_drift: Callable[[bool], None] | None = None
        self._is_monitored = False

    def close(self) -> None:
        """The datapath is gone: calls under way raise UnavailableError."""
        self._connection.close()

    def disconnect(self) -> None:
        """End the connection."""
        self._connection.disconnect()

    @property
    def is_closed(self) -> bool:
        """The connection is gone for good."""
        return self._connection.is_closed

    # --- changing ---------------------------------------------------------------------------------------

    def apply(self, update: Update) -> list[Rejection]:
        """Make the changes, in their order, as one bundle: all at once for the packets.

        What the switch rejects is taken out, with all changes that depend on it, and the rest is tried again; returns
        the rejected changes. A rule of somebody else with the same key (as of the last dump, without those in `reclaim`)
        is not replaced: that change counts as rejected. Raises UnavailableError, and SwitchError if the switch rejects
        bundles themselves; then only dump() tells what is installed.
        """
        with self._one_at_a_time:
            return self._carefully(update.changes)

    def _carefully(self, changes: Sequence[RuleChange]) -> list[Rejection]:
        refusals = Refusals(changes)
        refusals.keep_off(self._foreign)
        while refusals.changes:
            errors = self._try(refusals.changes)
            if not errors:
                break
            refusals.refuse(errors)
        return refusals.rejections

    def fill(self) -> Filling:
        """A bundle that is sent while its changes are still being found. Other calls wait until it is finished or abandoned."""
        self._one_at_a_time.acquire()
        try:
            return Filling(self._bundle(ROOM), self._foreign, self._carefully, self._one_at_a_time.release)
        except BaseException:
            self._one_at_a_time.release()
            raise

    def overtake(self, changes: Sequence[RuleChange]) -> list[Rejection]:
        """Make these changes one by one, whatever bundle is being filled: in one message, not in three as a bundle needs."""
        with self._connection.conversation(len(changes) + 1) as talk:
            mods = [flow_mod(change, talk.first + n) for n, change in enumerate(changes)]
            self._connection.send(b"".join((*mods, requests.barrier(talk.last))))
            rejections: list[Rejection] = []
            while (raw := talk.receive(time.monotonic() + TIMEOUT_S))[1] == const.ERROR:
                error, number = decode_error(raw), int.from_bytes(raw[4:8], "big") - talk.first
                if number >= len(changes):
                    raise SwitchError(f"{self.bridge}: {error.name}", type=error.type, code=error.code)
                rejections.append(Rejection(changes[number].key, error.name, error.type, error.code))
            return rejections

    def _bundle(self, room: int) -> Bundle:
        return Bundle(self._connection, next(self._bundles) & const.ANY, room)

    def _try(self, changes: list[RuleChange]) -> dict[int, OpenFlowError]:
        """Try one bundle. Empty if committed; else the errors by index into `changes`, and nothing was changed."""
        bundle = self._bundle(len(changes))
        try:
            bundle.add(changes)
            return bundle.close()
        finally:
            bundle.forget()

    # --- asking -----------------------------------------------------------------------------------------

    def dump(self) -> Dump:
        """What fsctl has installed in the bridge, and what others have there."""
        with self._one_at_a_time:
            flows = FlowDecoder()
            for body in self._ask(lambda xid: requests.flow_stats(xid, only_ours=False)):
                flows.feed(body)
        found = flows.dump
        self._foreign = frozenset(found.foreign_keys)
        warnings = list(found.foreign)
        if found.foreign_count > len(warnings):
            warnings.append(f"... and {found.foreign_count - len(warnings)} more")
        return Dump(RuleTable(found.rules), tuple(warnings), self._foreign, tuple(found.policies))

    def reclaim(self, keys: Iterable[RuleKey]) -> None:
        """These keys were fsctl's, and others have put rules there: the next `apply` may replace them."""
        self._foreign -= frozenset(keys)

    def counters(self) -> dict[RuleKey, tuple[int, int]]:
        """(packets, bytes) of each rule in the flow switch table. Somebody waits for the answer: not for long."""
        flows = FlowDecoder()
        for body in self._ask(lambda xid: requests.flow_stats(xid, FLOW_SWITCH), READER_PATIENCE_S):
            flows.feed(body)
        return flows.dump.counters

    def ports(self) -> list[Port]:
        """The bridge's ports, its local port among them."""
        return [port for body in self._ask(requests.port_desc) for port in decode_ports(body)]

    def watch(self, on_drift: Callable[[bool], None]) -> None:
        """From now on, `on_drift` is called when anybody else changes a rule; with true if it may be one of fsctl's.

        It must not wait: it runs in the thread that receives. The switch is asked once: Open vSwitch refuses a monitor
        that it has, and 3.1 does so with an answer that belongs to no request.
        """
        self._on_drift = on_drift
        self._connection.on_flow_updates = self._updates
        if self._is_monitored:
            return
        self._is_monitored = True
        for body in self._ask(lambda xid: flow_monitor(xid, TABLES)):
            self._updates(body)

    def _updates(self, body: bytes) -> None:
        try:
            updates = [update for update in decode_flow_updates(body) if update.cookie & LEARNED_MASK != LEARNED_COOKIE]
        except ValueError as e:
            LOG.warning("bridge %s: a malformed flow update: %s", self.bridge, e)
            updates = [FlowUpdate(RESUMED)]
        if updates and self._on_drift is not None:
            self._on_drift(any(map(_may_hit_us, updates)))

    def probe(self) -> None:
        """Returns once the switch answers. Raises UnavailableError only when the connection is gone."""
        with self._connection.conversation() as talk:
            self._connection.send(requests.barrier(talk.first))
            while True:
                try:
                    talk.receive(time.monotonic() + TIMEOUT_S)
                except SilentError:
                    continue
                return

    def answers(self, within_s: float) -> bool:
        """Whether the switch answers within so many seconds."""
        try:
            with self._connection.conversation() as talk:
                self._connection.send(requests.barrier(talk.first))
                talk.receive(time.monotonic() + within_s)
        except UnavailableError:
            return False
        return True

    def _ask(self, request: Callable[[int], bytes], patience_s: float = TIMEOUT_S) -> Iterator[bytes]:
        """The bodies of a multipart request's replies. Each must come within `patience_s`."""
        with self._connection.conversation() as talk:
            self._connection.send(request(talk.first))
            more = True
            while more:
                raw = talk.receive(time.monotonic() + patience_s)
                if raw[1] == const.ERROR:
                    error = decode_error(raw)
                    raise SwitchError(f"{self.bridge}: {error.name}", type=error.type, code=error.code)
                (flags,) = struct.unpack_from("!H", raw, 10)
                more = bool(flags & const.MP_REPLY_MORE)
                yield raw[16:]
                hub.sleep(0)
