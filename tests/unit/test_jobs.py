"""Which writes the loop does together."""

from __future__ import annotations

import threading
import time

import pytest

from fsctl.errors import BusyError, ConflictError
from fsctl.jobs import GATHER_S, LARGE, MOST_QUEUED, Asked, Jobs
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, Match
from fsctl.model.fib import change_of
from fsctl.runtime import Threads
from fsctl.status import Write
from fsctl.writes import Pending, Submitted

CHANGE = change_of(Match("eth0", Prefix.parse("10.0.0.0/8")), DROP)


def a_write(changes: int) -> Submitted:
    return Submitted(Write("r", [CHANGE] * changes), Pending(Threads()))


def test_a_large_write_waits_for_the_one_that_is_being_read() -> None:
    jobs = Jobs(Threads())
    first, second = a_write(LARGE), a_write(1)
    reading = threading.Event()

    def read() -> None:
        with jobs.incoming():
            reading.set()
            time.sleep(GATHER_S / 10)
            jobs.submit(second)

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait()
    jobs.submit(first)
    assert jobs.next() is first
    joined: list[Submitted] = []
    assert jobs.join(lambda job: joined.append(job) is None)
    assert joined == [second]
    reader.join()


def test_a_small_write_waits_for_nobody_and_a_large_one_not_for_ever() -> None:
    jobs = Jobs(Threads())
    for write in (a_write(LARGE - 1), a_write(LARGE)):
        jobs.submit(write)
    with jobs.incoming():
        assert [len(job.write.changes) for job in (jobs.next(), jobs.next()) if isinstance(job, Submitted)] == [LARGE - 1, LARGE]
    assert not jobs.join(lambda _: True)


def test_a_write_is_joined_only_if_it_is_next_and_wanted() -> None:
    jobs = Jobs(Threads())
    jobs.add(lambda: None)
    jobs.submit(a_write(1))
    assert not jobs.join(lambda _: True)
    jobs.next()
    assert not jobs.join(lambda _: False)
    assert jobs.join(lambda _: True)
    assert not jobs


def of(router: str, changes: int = 1, *, withdraws: bool = False) -> Submitted:
    return Submitted(Write(router, [] if withdraws else [CHANGE] * changes, replace=withdraws), Pending(Threads()))


def order(jobs: Jobs, cost: dict[str, float]) -> str:
    """Who has his turn, one after the other."""
    turns = ""
    while jobs:
        job = jobs.next()
        assert isinstance(job, Submitted)
        turns += job.write.router
        job.ticket.fail(BusyError("answered"))
        jobs.charge([job], cost[job.write.router])
    return turns


def test_d6_who_has_used_the_least_goes_next() -> None:
    jobs = Jobs(Threads())
    for _ in range(10):
        jobs.submit(of("h"))
    first = jobs.next()
    assert isinstance(first, Submitted)
    first.ticket.fail(BusyError("answered"))
    jobs.charge([first], 1.0)
    for _ in range(5):
        jobs.submit(of("v"))
    assert order(jobs, {"h": 1.0, "v": 0.01}) == "v" * 5 + "h" * 9


def test_d6_who_was_idle_has_saved_nothing_up() -> None:
    jobs = Jobs(Threads())
    for _ in range(20):
        job = of("h")
        job.ticket.fail(BusyError("answered"))
        jobs.submit(job)
        jobs.next()
        jobs.charge([job], 1.0)
    for _ in range(3):
        jobs.submit(of("v"))
        jobs.submit(of("h"))
    assert order(jobs, {"h": 1.0, "v": 1.0}) in ("vhvhvh", "vvhvhh")


def test_d6_what_waits_is_bounded_for_each_router() -> None:
    jobs = Jobs(Threads())
    for _ in range(MOST_QUEUED):
        jobs.submit(of("h"))
    with pytest.raises(BusyError):
        jobs.submit(of("h"))
    jobs.submit(of("v"))


def test_d6_a_withdrawal_goes_first_and_takes_the_place_of_earlier_writes() -> None:
    jobs = Jobs(Threads())
    early, asked = of("h"), Asked("h", Pending(Threads()), lambda: None)
    for job in (of("v"), early, asked):
        jobs.submit(job)
    done = of("h")
    done.ticket.fail(BusyError("answered"))
    jobs.charge([done], 5.0)
    jobs.submit(of("h", withdraws=True))
    with pytest.raises(ConflictError, match="overtaken"):
        early.ticket.wait(1.0)
    first, second = jobs.next(), jobs.next()
    assert isinstance(first, Submitted)
    assert (first.write.router, second) == ("v", asked)  # what the router says of itself is not dropped, nor brought forward
    assert isinstance(jobs.next(), Submitted)
    jobs.submit(of("v"))
    jobs.submit(of("h", withdraws=True))
    third = jobs.next()
    assert isinstance(third, Submitted)
    assert third.write.router == "h"


def test_b6_reports_of_one_kind_are_merged() -> None:
    jobs, done = Jobs(Threads()), list[int]()
    for n in range(100):
        jobs.add(lambda n=n: done.append(n), "ports")  # type: ignore[misc]
    jobs.submit(of("v"))
    report = jobs.next()
    assert callable(report)
    report()
    assert done == [99]
    assert isinstance(jobs.next(), Submitted)


def test_b6_reports_do_not_keep_routers_waiting() -> None:
    jobs = Jobs(Threads())
    jobs.submit(of("v"))
    for _ in range(100):
        jobs.add(lambda: None)
    assert any(isinstance(jobs.next(), Submitted) for _ in range(20))


def test_d6_a_cheap_write_is_not_done_together_with_a_dear_routers() -> None:
    jobs = Jobs(Threads())
    dear = of("h")
    dear.ticket.fail(BusyError("answered"))
    jobs.submit(dear)
    jobs.next()
    jobs.charge([dear], 10.0)
    jobs.submit(of("v"))
    jobs.submit(of("h"))
    first = jobs.next()
    assert isinstance(first, Submitted)
    assert first.write.router == "v"
    assert not jobs.join(lambda _: True)


def test_d6_a_router_waits_until_the_switches_have_confirmed_what_was_dear() -> None:
    jobs = Jobs(Threads())
    dear, cheap = of("h"), of("v")
    for job in (dear, of("h"), cheap, of("v")):
        jobs.submit(job)
    jobs.charge([dear], 1.0)
    jobs.charge([cheap], 0.001)
    while jobs:
        job = jobs.next()
        assert isinstance(job, Submitted)
        assert job.write.router == "v"
    dear.ticket.fail(BusyError("answered"))
    assert jobs
