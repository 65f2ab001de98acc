"""Carries calls to fsctl and answers back, one thread per lane, so that the agent's loop never waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from fsctl.agent.sync import LANES, Call
from fsctl.client import Client
from fsctl.errors import FsctlError

Send = Callable[[Call], Mapping[str, Any]]
"""Carries one call out; raises FsctlError."""


class Outcome(NamedTuple):
    """A call and its answer, or what was raised."""

    call: Call
    answer: Mapping[str, Any]
    error: FsctlError | None


class Lanes:
    """One worker thread per lane; `fileno` becomes readable when outcomes are there."""

    def __init__(self, send: Mapping[str, Send]) -> None:
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._jobs: dict[str, SimpleQueue[Call | None]] = {lane: SimpleQueue() for lane in send}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for lane, carry in send.items():
            Thread(target=self._work, args=(self._jobs[lane], carry), name=f"lane-{lane}", daemon=True).start()

    def _work(self, jobs: SimpleQueue[Call | None], carry: Send) -> None:
        while (call := jobs.get()) is not None:
            try:
                outcome = Outcome(call, carry(call), None)
            except FsctlError as e:
                outcome = Outcome(call, {}, e)
            except Exception as e:  # noqa: BLE001 - whatever it is, the loop must hear of it
                outcome = Outcome(call, {}, FsctlError(f"{type(e).__name__}: {e}"))
            self._outcomes.put(outcome)
            os.eventfd_write(self._wake, 1)

    def fileno(self) -> int:
        return self._wake

    def start(self, call: Call) -> None:
        """Hand a call to its lane's thread."""
        self._jobs[call.lane].put(call)

    def outcomes(self) -> list[Outcome]:
        """What has come back."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        found = []
        while not self._outcomes.empty():
            found.append(self._outcomes.get())
        return found

    def close(self) -> None:
        """Let the threads end once they are done."""
        for jobs in self._jobs.values():
            jobs.put(None)


def http(url: str, token: str, ca_file: str | None, timeout_s: float) -> dict[str, Send]:
    """A connection of its own for each lane: neither a heartbeat nor a withdrawal must wait behind a large write."""

    def sender() -> Send:
        client = Client(url, token, ca_file=ca_file, timeout_s=timeout_s)
        return lambda call: client.call(call.method, call.path, call.body, call.query)

    return {lane: sender() for lane in LANES}
