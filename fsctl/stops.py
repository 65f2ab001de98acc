"""The routers whose delegations are about to be withdrawn: their bypass ends before the withdrawal is carried out.

A withdrawal of 100,000 delegations takes seconds, and it waits for the write that is under way. Stop rules (`stop_rules`)
end the bypass in a few milliseconds: they are added as soon as the withdrawal is asked for, before all that waits for the
switches, and they go in the same bundle with the rules that they stop.
"""

from __future__ import annotations

import logging
from collections import deque

from fsctl.desired import Desired
from fsctl.errors import FsctlError
from fsctl.installer import Installer
from fsctl.pipeline.stop_rules import rules_concerned
from fsctl.sessions import Sessions
from fsctl.status import Write
from fsctl.writes import Pending

_LOG = logging.getLogger(__name__)
LEAST = 1000
"""A withdrawal that changes fewer rules takes a few milliseconds itself, and needs no stop rules."""


class Stops:
    """What is to be stopped. `ask` may be called from any thread, everything else from the controller's loop only."""

    def __init__(self, desired: Desired, installer: Installer, sessions: Sessions) -> None:
        self._desired, self._installer, self._sessions = desired, installer, sessions
        self._asked: deque[tuple[Write, Pending]] = deque()
        self._undecided: dict[str, list[Pending]] = {}
        """By router, the withdrawals for which it is stopped."""

    def ask(self, write: Write, ticket: Pending) -> None:
        """Stop the bypass past the router until this withdrawal has been carried out or refused."""
        self._asked.append((write, ticket))

    def serve(self) -> bool:
        """Stop what was asked for; true if there was anything. Called between the pieces of long work too; it raises nothing."""
        if not self._asked:
            return False
        while self._asked:
            write, ticket = self._asked.popleft()
            try:
                self._stop(write, ticket)
            except Exception:  # noqa: BLE001 - the withdrawal itself follows
                _LOG.exception("router %s could not be stopped before its withdrawal", write.router)
        return True

    def _stop(self, write: Write, ticket: Pending) -> None:
        router, layout = write.router, self._desired.now.layout
        if not self._desired.has_begun or ticket.is_decided or rules_concerned(layout.compiler, router) < LEAST:
            return
        try:
            self._sessions.check(write)
        except FsctlError:
            return  # it will be refused
        self._undecided.setdefault(router, []).append(ticket)
        if router not in layout.stopped:
            for bridge, changes in layout.stop(router).items():
                self._installer.overtake(bridge, changes)

    def forget(self) -> None:
        """After a bug: nobody may ever decide these withdrawals."""
        self._undecided.clear()

    def wanted(self) -> frozenset[str]:
        """The routers that are to stay stopped."""
        self._undecided = {
            router: left for router, tickets in self._undecided.items() if (left := [t for t in tickets if not t.is_decided])
        }
        return frozenset(self._undecided)
