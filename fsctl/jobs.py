"""What the controller is to do, in order; and which writes it had better do together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsctl.runtime import Runtime
from fsctl.writes import Submitted

LARGE = 1000
"""Changes in a write that waits for others which are just being read: compiled together they cost less."""
GATHER_S = 0.25
"""How long it waits at most."""
_DOOR_S = 0.001
"""How long for requests of which nothing has been read yet."""

Job = Callable[[], None] | Submitted


class Jobs:
    """A queue of one reader, the controller's loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queue: deque[Job] = deque()
        self._awake = runtime.event()
        self._incoming = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, job: Job) -> None:
        self._queue.append(job)
        self._awake.set()

    def wake(self) -> None:
        """End `wait`, although there may be nothing to do."""
        self._awake.set()

    def wait(self, patience: float) -> None:
        """Until there is something to do, or for `patience` seconds."""
        if not self._queue:
            self._awake.wait(patience)
        self._awake.clear()

    @contextmanager
    def incoming(self) -> Iterator[None]:
        """A write is being read; it is added before this is left, or comes to nothing."""
        self._incoming += 1
        try:
            yield
        finally:
            self._incoming -= 1
            self._awake.set()

    def next(self) -> Job:
        """The first job; a large write once those that are being read have come in, or it has waited long enough."""
        job = self._queue.popleft()
        if isinstance(job, Submitted) and len(job.write.changes) >= LARGE:
            self._gather()
        return job

    def _gather(self) -> None:
        """Routers that start together send their tables together."""
        until, patience = self._runtime.now() + GATHER_S, _DOOR_S
        while patience > 0:
            self._awake.clear()
            self._awake.wait(patience)
            patience = until - self._runtime.now() if self._incoming else 0.0

    def join(self, takes: Callable[[Submitted], bool]) -> bool:
        """Take the first job out if it is a write that `takes` accepts."""
        if not self._queue:
            return False
        job = self._queue[0]
        if not isinstance(job, Submitted) or not takes(job):
            return False
        self._queue.popleft()
        return True
