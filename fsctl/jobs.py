"""What the controller is to do, and in which order; and which writes it had better do together.

What switches and databases report comes first. Then routers take turns: each is charged the time that its writes took, and
the one that has used the least goes next. So a router that writes much, or what is dear, waits for itself and not others
for it. A withdrawal goes before all other writes, and takes the place of its router's earlier ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from fsctl.errors import BusyError, ConflictError
from fsctl.runtime import Runtime
from fsctl.writes import Pending, Submitted

LARGE = 1000
"""Changes in a write that waits for others which are just being read: compiled together they cost less."""
GATHER_S = 0.25
"""How long it waits at most."""
MOST_QUEUED = 64
"""Writes of one router that wait for their turn."""
MOST_CHANGES = 1_000_000
"""Changes in all of them."""
TOGETHER_S = 0.25
"""Writes of two routers are done together only if these have used the same time but for so many seconds."""
BEHIND_S = 0.05
"""A router's next write waits while those that are not confirmed have taken so long: others use the same switches."""
REPORTS = 16
"""Reports in a row, while a router waits."""
_DOOR_S = 0.001
"""How long for requests of which nothing has been read yet."""


class Asked:
    """Something else that a router asks for: it takes its turn among the router's writes."""

    def __init__(self, router: str, ticket: Pending, do: Callable[[], None]) -> None:
        self.router, self.ticket, self.do = router, ticket, do


OfRouter = Submitted | Asked
Job = Callable[[], None] | OfRouter


class _Line:
    """The writes of one router that wait, and the time that it has used."""

    def __init__(self) -> None:
        self.jobs: deque[OfRouter] = deque()
        self.changes = 0
        self.used_s = 0.0
        self._unanswered: list[tuple[Pending, float]] = []
        """What was done and is not confirmed by the switches, and the time that it took."""

    def take_down(self, ticket: Pending, seconds: float) -> None:
        """A write was done in so many seconds."""
        self.used_s += seconds
        self._unanswered.append((ticket, seconds))

    def may_go(self) -> bool:
        """Whether there is something to do, and the switches are not too far behind with what was done."""
        if not self.jobs:
            return False
        self._unanswered = [(t, s) for t, s in self._unanswered if not t.is_answered]
        return sum(s for _, s in self._unanswered) < BEHIND_S

    def append(self, job: OfRouter) -> None:
        self.jobs.append(job)
        self.changes += _size(job)

    def popleft(self) -> OfRouter:
        job = self.jobs.popleft()
        self.changes -= _size(job)
        return job


class Jobs:
    """Queues of one reader, the controller's loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reports: dict[Hashable, Callable[[], None]] = {}
        self._counter = 0
        self._lines: dict[str, _Line] = {}
        self._awake = runtime.event()
        self._incoming = 0
        self._floor_s = 0.0
        """A router that has been idle begins here: it has saved nothing up."""
        self._in_a_row = 0

    def __bool__(self) -> bool:
        return bool(self._reports) or any(line.may_go() for line in self._lines.values())

    def add(self, report: Callable[[], None], key: Hashable = None) -> None:
        """What the controller itself has to do. One of the same `key` that waits is out of date: this one takes its place."""
        self._counter += 1
        self._reports[self._counter if key is None else key] = report
        self._awake.set()

    def submit(self, job: OfRouter) -> None:
        """What a router asks for. Raises BusyError if too much of it waits already."""
        router = _router(job)
        line = self._lines.setdefault(router, _Line())
        if _withdraws(job):
            self._supersede(line)
        if len(line.jobs) >= MOST_QUEUED or (line.jobs and line.changes + _size(job) > MOST_CHANGES):
            detail = f"{len(line.jobs)} writes of router {router} wait for their turn"
            raise BusyError(detail, field="router", value=router)
        if not line.jobs:
            line.used_s = max(line.used_s, self._floor_s)
        line.append(job)
        self._awake.set()

    @staticmethod
    def _supersede(line: _Line) -> None:
        """A write that comes before a withdrawal makes no difference any more."""
        for _ in range(len(line.jobs)):
            job = line.popleft()
            if isinstance(job, Asked):
                line.append(job)  # what a router says of its interfaces holds for later writes too
            elif job.ticket.begin():
                job.ticket.fail(ConflictError("a later withdrawal of this router has overtaken this write"))

    def wake(self) -> None:
        """End `wait`, although there may be nothing to do."""
        self._awake.set()

    def wait(self, patience: float) -> None:
        """Until there is something to do, or for `patience` seconds."""
        if not self:
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
        """The next job; a large write once those that are being read have come in, or it has waited long enough."""
        router = self._next_router()
        if self._reports and (router is None or self._in_a_row < REPORTS):
            self._in_a_row += 1
            return self._reports.pop(next(iter(self._reports)))
        assert router is not None
        self._in_a_row = 0
        line = self._lines[router]
        self._floor_s = max(self._floor_s, line.used_s)
        job = line.popleft()
        if isinstance(job, Submitted) and len(job.write.changes) >= LARGE:
            self._gather()
        return job

    def charge(self, done: Sequence[OfRouter], seconds: float) -> None:
        """These were done together, in so many seconds."""
        for job in done:
            line = self._lines.get(_router(job))
            if line is not None:
                line.take_down(job.ticket, seconds / len(done))

    def _next_router(self) -> str | None:
        """Who has used the least time; whoever withdraws goes first."""
        waiting = [(not _withdraws(line.jobs[0]), line.used_s, router) for router, line in self._lines.items() if line.may_go()]
        return min(waiting)[2] if waiting else None

    def _gather(self) -> None:
        """Routers that start together send their tables together. Nobody else is kept waiting for that."""
        until, patience = self._runtime.now() + GATHER_S, _DOOR_S
        while patience > 0 and not self._is_pressing():
            self._awake.clear()
            self._awake.wait(patience)
            patience = until - self._runtime.now() if self._incoming else 0.0

    def _is_pressing(self) -> bool:
        return bool(self._reports) or any(line.jobs and _size(line.jobs[0]) < LARGE for line in self._lines.values())

    def join(self, takes: Callable[[Submitted], bool]) -> bool:
        """Take the next router's write out if `takes` accepts it, and the router has not used much more than its share."""
        router = self._next_router()
        if router is None or self._reports:
            return False
        line = self._lines[router]
        job = line.jobs[0]
        if not isinstance(job, Submitted) or line.used_s > self._floor_s + TOGETHER_S or not takes(job):
            return False
        line.popleft()
        return True


def _router(job: OfRouter) -> str:
    return job.write.router if isinstance(job, Submitted) else job.router


def _size(job: OfRouter) -> int:
    return len(job.write.changes) if isinstance(job, Submitted) else 1


def _withdraws(job: OfRouter) -> bool:
    return isinstance(job, Submitted) and job.write.replace and not job.write.changes
