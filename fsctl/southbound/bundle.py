"""An OpenFlow bundle on its way: filled bit by bit, then committed as one, or discarded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ryu.lib import hub

from fsctl.errors import FsctlError, SwitchError
from fsctl.openflow import Encoder, OpenFlowError, bundle_control, const, decode_error, requests
from fsctl.reconcile import order
from fsctl.rules import RuleChange, RuleKey
from fsctl.southbound.replies import Connection
from fsctl.status import Rejection

LOG = logging.getLogger(__name__)
TIMEOUT_S = 10.0
CHANGES_PER_S = 2000
"""A switch slower than this (OVS commits some 50,000 a second) is taken for dead."""
CHUNK = 1024
"""Changes encoded and sent at a stretch: some 100 kB, a few milliseconds, before others get their turn."""


class Bundle:
    """Atomic and ordered; to be forgotten in the end, whatever has happened.

    Methods raise UnavailableError, and SwitchError if the switch refuses bundles as such. `room` is how many changes
    it can take.
    """

    def __init__(self, connection: Connection, number: int, room: int) -> None:
        self.left = room
        self._connection, self._number, self._filled = connection, number, 0
        self._stack = ExitStack()
        self._talk = self._stack.enter_context(connection.conversation(room + 3))
        self._encoder = Encoder(number)
        # Sent with what comes next: each message costs a wake-up.
        self._unsent = [bundle_control(const.BUNDLE_OPEN, number, self._talk.first)]

    def add(self, changes: Sequence[RuleChange]) -> None:
        """Send what was added before, and encode these."""
        for start in range(0, len(changes), CHUNK):
            chunk = changes[start : start + CHUNK]
            if self._filled:
                self._send()
                hub.sleep(0)
            self._unsent.append(self._encoder.encode(chunk, self._talk.first + 1 + self._filled))
            self._filled += len(chunk)
            self.left -= len(chunk)

    def close(self) -> dict[int, OpenFlowError]:
        """Commit. Empty if done, else the errors by the number of the change (from 0); nothing was changed then."""
        deadline = time.monotonic() + TIMEOUT_S + self._filled / CHANGES_PER_S
        self._unsent.append(requests.barrier(self._barrier))
        self._send()
        errors = self._collect(const.BARRIER_REPLY, self._barrier, deadline)
        self._control(const.BUNDLE_DISCARD if errors else const.BUNDLE_COMMIT)
        refused = self._collect(const.BUNDLE_CONTROL, self._talk.last, deadline)
        return {xid - self._talk.first - 1: error for xid, error in (errors or refused).items()}

    def discard(self) -> None:
        """Nothing of it is wanted any more."""
        self._control(const.BUNDLE_DISCARD)
        self._collect(const.BUNDLE_CONTROL, self._talk.last, time.monotonic() + TIMEOUT_S)

    def drop(self) -> None:
        """Discard, without waiting for the answer."""
        self._control(const.BUNDLE_DISCARD)

    def forget(self) -> None:
        """Nobody waits for answers any more."""
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
        """Errors about single changes, until the answer `kind` to `xid` comes, or an error in its stead.

        An error about the bundle itself, with none about a change to explain it, raises SwitchError.
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
    """See `installer.Filling`. If the switch refuses anything, all is done anew in an order of which every cut is safe."""

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
        """False if nothing was changed. Open vSwitch also gives up a bundle that gets nothing for ten seconds."""
        try:
            return not self._bundle.close()
        except SwitchError as e:
            LOG.info("a bundle is filled anew: %s", e)
            return False

    def abandon(self) -> None:
        """Change nothing. The switch's answer is not waited for: it may be silent."""
        try:
            self._bundle.drop()
        except FsctlError as e:
            LOG.info("a bundle was given up: %s", e)
        finally:
            self._end()

    def _end(self) -> None:
        self._bundle.forget()
        self._release()
