"""The live datapath of one bridge, as the controller wants it: apply, dump, counters, ports."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Iterator

from ryu.lib import hub

from fsctl.errors import SwitchError
from fsctl.openflow import (
    Encoder,
    FlowDecoder,
    OpenFlowError,
    bundle_control,
    const,
    decode_error,
    decode_ports,
    requests,
)
from fsctl.rules import FLOW_SWITCH, RuleChange, RuleKey, RuleTable, Update
from fsctl.southbound.refusal import Refusals
from fsctl.southbound.replies import Connection, Conversation, Datapath, bridge_name
from fsctl.status import Port, Rejection

TIMEOUT_S = 10.0
CHANGES_PER_S = 2000
"""A switch slower than this (OVS commits some 50,000 a second) is taken for dead."""
CHUNK = 1024
"""Changes encoded and sent at a stretch: some 100 kB, a few milliseconds, before others get their turn."""


class Southbound:
    """One connected switch. Methods wait (the calling green thread only) and raise UnavailableError if it goes away."""

    def __init__(self, datapath: Datapath, bridge: str | None = None) -> None:
        self.bridge = bridge or bridge_name(datapath)
        self._connection = Connection(datapath, self.bridge)
        self._one_at_a_time = hub.Semaphore(1)
        self._bundles = itertools.count(1)
        self._foreign: frozenset[RuleKey] = frozenset()

    def close(self) -> None:
        """The datapath is gone: whoever waits gets UnavailableError."""
        self._connection.close()

    # --- changing ---------------------------------------------------------------------------------------

    def apply(self, update: Update) -> list[Rejection]:
        """Make the changes, in their order, as one bundle: all at once for the packets.

        What the switch refuses is taken out, with all that would do wrong without it, and the rest tried again; the
        refused changes are returned. A rule of somebody else in the same place (as of the last dump) is never
        replaced: that change is refused here. Raises UnavailableError, and SwitchError if the switch refuses
        bundles as such; either way, dump() tells what is installed then.
        """
        with self._one_at_a_time:
            refusals = Refusals(update.changes)
            refusals.keep_off(self._foreign)
            while refusals.changes:
                errors = self._try(refusals.changes)
                if not errors:
                    break
                refusals.refuse(errors)
            return refusals.rejections

    def _try(self, changes: list[RuleChange]) -> dict[int, OpenFlowError]:
        """One bundle: empty if committed, else the switch's errors by index into `changes`; then nothing was changed."""
        bundle = next(self._bundles) & const.ANY
        deadline = time.monotonic() + TIMEOUT_S + len(changes) / CHANGES_PER_S
        with self._connection.conversation(len(changes) + 3) as talk:
            barrier, commit = talk.last - 1, talk.last
            self._send_changes(changes, bundle, talk)
            errors = self._collect(talk, const.BARRIER_REPLY, barrier, deadline)
            if errors:
                self._connection.send(bundle_control(const.BUNDLE_DISCARD, bundle, commit))
                self._collect(talk, const.BUNDLE_CONTROL, commit, deadline)
            else:
                self._connection.send(bundle_control(const.BUNDLE_COMMIT, bundle, commit))
                errors = self._collect(talk, const.BUNDLE_CONTROL, commit, deadline)
            return {xid - talk.first - 1: error for xid, error in errors.items()}

    def _send_changes(self, changes: list[RuleChange], bundle: int, talk: Conversation) -> None:
        """Open the bundle, fill it, ask for a barrier: in one piece where there are few changes, since each costs a wake-up."""
        encoder = Encoder(bundle)
        pieces = [bundle_control(const.BUNDLE_OPEN, bundle, talk.first)]
        for start in range(0, len(changes), CHUNK):
            pieces.append(encoder.encode(changes[start : start + CHUNK], talk.first + 1 + start))
            if start + CHUNK < len(changes):
                self._connection.send(b"".join(pieces))
                pieces.clear()
                hub.sleep(0)
        pieces.append(requests.barrier(talk.last - 1))
        self._connection.send(b"".join(pieces))

    def _collect(self, talk: Conversation, kind: int, xid: int, deadline: float) -> dict[int, OpenFlowError]:
        """Errors about single changes, until the answer `kind` to `xid` comes, or an error in its stead.

        An error about the bundle itself, with none about a change to explain it, raises SwitchError.
        """
        errors: dict[int, OpenFlowError] = {}
        while True:
            raw = talk.receive(deadline)
            got = int.from_bytes(raw[4:8], "big")
            if raw[1] != const.ERROR:
                if raw[1] == kind and got == xid:
                    return errors
                continue  # the bundle was opened
            error = decode_error(raw)
            if got == xid and errors:
                return errors
            if got in (talk.first, talk.last - 1, talk.last):
                raise SwitchError(f"{self.bridge}: {error.name}", type=error.type, code=error.code)
            errors.setdefault(got, error)

    # --- asking -----------------------------------------------------------------------------------------

    def dump(self) -> tuple[RuleTable, list[str]]:
        """What fsctl has installed in the bridge, and the rules of others there, for people to read."""
        with self._one_at_a_time:
            flows = FlowDecoder()
            for body in self._ask(lambda xid: requests.flow_stats(xid, only_ours=False)):
                flows.feed(body)
        found = flows.dump
        self._foreign = frozenset(found.foreign_keys)
        warnings = list(found.foreign)
        if found.foreign_count > len(warnings):
            warnings.append(f"... and {found.foreign_count - len(warnings)} more")
        return RuleTable(found.rules), warnings

    def counters(self) -> dict[RuleKey, tuple[int, int]]:
        """(packets, bytes) of each rule in the flow switch table."""
        flows = FlowDecoder()
        for body in self._ask(lambda xid: requests.flow_stats(xid, FLOW_SWITCH)):
            flows.feed(body)
        return flows.dump.counters

    def ports(self) -> list[Port]:
        """The bridge's ports, its local port among them."""
        return [port for body in self._ask(requests.port_desc) for port in decode_ports(body)]

    def _ask(self, request: Callable[[int], bytes]) -> Iterator[bytes]:
        """The bodies of a multipart request's replies. Each must come within TIMEOUT_S."""
        with self._connection.conversation() as talk:
            self._connection.send(request(talk.first))
            more = True
            while more:
                raw = talk.receive(time.monotonic() + TIMEOUT_S)
                if raw[1] == const.ERROR:
                    error = decode_error(raw)
                    raise SwitchError(f"{self.bridge}: {error.name}", type=error.type, code=error.code)
                (flags,) = struct.unpack_from("!H", raw, 10)
                more = bool(flags & const.MP_REPLY_MORE)
                yield raw[16:]
                hub.sleep(0)
