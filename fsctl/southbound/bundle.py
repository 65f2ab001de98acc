"""An OpenFlow bundle: filled in pieces, then committed as a whole, or discarded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ryu.lib import hub

from fsctl.errors import FsctlError, SwitchError
from fsctl.openflow import Encoder, OpenFlowError, bundle_control, const, decode_error, requests
from fsctl.openflow.rules import RuleChange, RuleKey
from fsctl.pipeline.diff import order
from fsctl.southbound.replies import Connection
from fsctl.status import Rejection

LOG = logging.getLogger(__name__)
TIMEOUT_S = 10.0
CHANGES_PER_S = 2000
"""A switch that commits fewer changes per second counts as dead (OVS commits about 50,000)."""
CHUNK = 1024
"""Changes that are encoded and sent before other green threads run: about 100 kB, a few milliseconds."""


class Bundle:
    """An atomic, ordered bundle. Always call `forget` at the end, also after an error.

    Methods raise UnavailableError, and SwitchError if the switch rejects the bundle itself. `room` is how many changes
    it can take.
    """

    def __init__(self, connection: Connection, number: int, room: int) -> None:
        self.left = room
        self._connection, self._number, self._filled = connection, number, 0
        self._stack = ExitStack()
        self._talk = self._stack.enter_context(connection.conversation(room + 3))
        self._encoder = Encoder(number)
        # Sent together with the next message: each send costs a wake-up.
        self._unsent = [bundle_control(const.BUNDLE_OPEN, number, self._talk.first)]

    def add(self, changes: Sequence[RuleChange]) -> None:
        """Encode these changes, and send those that were added before."""
        for start in range(0, len(changes), CHUNK):
            chunk = changes[start : start + CHUNK]
            if self._filled:
                self._send()
                hub.sleep(0)
            self._unsent.append(self._encoder.encode(chunk, self._talk.first + 1 + self._filled))
            self._filled += len(chunk)
            self.left -= len(chunk)

    def close(self) -> dict[int, OpenFlowError]:
        """Commit. Empty if committed; else the errors by the index of the change, and nothing was changed."""
        deadline = time.monotonic() + TIMEOUT_S + self._filled / CHANGES_PER_S
        self._unsent.append(requests.barrier(self._barrier))
        self._send()
        errors = self._collect(const.BARRIER_REPLY, self._barrier, deadline)
        self._control(const.BUNDLE_DISCARD if errors else const.BUNDLE_COMMIT)
        rejected = self._collect(const.BUNDLE_CONTROL, self._talk.last, deadline)
        return {xid - self._talk.first - 1: error for xid, error in (errors or rejected).items()}

    def discard(self) -> None:
        """Discard, and wait until the switch has."""
        self._control(const.BUNDLE_DISCARD)
        self._collect(const.BUNDLE_CONTROL, self._talk.last, time.monotonic() + TIMEOUT_S)

    def drop(self) -> None:
        """Discard, without waiting for the answer."""
        self._control(const.BUNDLE_DISCARD)

    def forget(self) -> None:
        """Release the xids; later answers are not taken."""
        self._stack.close()

    @property
    def _barrier(self) -> int:
        return self._talk.last - 1

    def _control(self, kind: int) -> None:
        self._unsent.append(bundle_control(kind, self._number, self._talk.last))
        self._send()

    def _send(self) -> None:
        self._connection.send(b"".join(self._unsent))
        self._unsent.clear()

    def _collect(self, kind: int, xid: int, deadline: float) -> dict[int, OpenFlowError]:
        """Collect errors about single changes until the answer `kind` to `xid` arrives, or an error in its place.

        Raises SwitchError for an error about the bundle itself, if no error about a change explains it.
        """
        errors: dict[int, OpenFlowError] = {}
        while True:
            raw = self._talk.receive(deadline)
            got = int.from_bytes(raw[4:8], "big")
            if raw[1] != const.ERROR:
                if raw[1] == kind and got == xid:
                    return errors
                continue  # the bundle was opened
            error = decode_error(raw)
            if got == xid and errors:
                return errors
            if got in (self._talk.first, self._barrier, self._talk.last):
                raise SwitchError(f"{self._connection.bridge}: {error.name}", type=error.type, code=error.code)
            errors.setdefault(got, error)


class Filling:
    """See `bridge_worker.Filling`. If the switch rejects anything, all changes are made anew, in the order of `diff`."""

    def __init__(
        self,
        bundle: Bundle,
        foreign: frozenset[RuleKey],
        carefully: Callable[[Sequence[RuleChange]], list[Rejection]],
        release: Callable[[], None],
    ) -> None:
        self.changes: list[RuleChange] = []
        self._bundle, self._foreign = bundle, foreign
        self._carefully, self._release = carefully, release
        self._fits = True

    def add(self, changes: Sequence[RuleChange]) -> None:
        """Changes, made after those that were added before. Raises UnavailableError."""
        self.changes += changes
        in_the_way = bool(self._foreign) and any(c.key in self._foreign for c in changes)
        self._fits = self._fits and not in_the_way and len(changes) <= self._bundle.left
        if self._fits:
            self._bundle.add(changes)

    def finish(self) -> list[Rejection]:
        """As `Southbound.apply`."""
        try:
            if self._fits and self._committed():
                return []
            if not self._fits:
                self._bundle.discard()
            return self._carefully(order(self.changes))
        finally:
            self._end()

    def _committed(self) -> bool:
        """False if nothing was changed. (Open vSwitch also discards a bundle that gets no message for ten seconds.)"""
        try:
            return not self._bundle.close()
        except SwitchError as e:
            LOG.info("a bundle is sent anew: %s", e)
            return False

    def abandon(self) -> None:
        """Change nothing. The switch's answer is not waited for: it may be silent."""
        try:
            self._bundle.drop()
        except FsctlError as e:
            LOG.info("a bundle was discarded: %s", e)
        finally:
            self._end()

    def _end(self) -> None:
        self._bundle.forget()
        self._release()
