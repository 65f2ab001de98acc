"""Which writes the loop does together."""

from __future__ import annotations

import threading
import time

from fsctl.fib import change_of
from fsctl.jobs import GATHER_S, LARGE, Jobs
from fsctl.model import DROP, Match, Prefix
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
            jobs.add(second)

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait()
    jobs.add(first)
    assert jobs.next() is first
    joined: list[Submitted] = []
    assert jobs.join(lambda job: joined.append(job) is None)
    assert joined == [second]
    reader.join()


def test_a_small_write_waits_for_nobody_and_a_large_one_not_for_ever() -> None:
    jobs = Jobs(Threads())
    for write in (a_write(LARGE - 1), a_write(LARGE)):
        jobs.add(write)
    with jobs.incoming():
        assert [len(job.write.changes) for job in (jobs.next(), jobs.next()) if isinstance(job, Submitted)] == [LARGE - 1, LARGE]
    assert not jobs.join(lambda _: True)


def test_a_write_is_joined_only_if_it_is_next_and_wanted() -> None:
    jobs = Jobs(Threads())
    jobs.add(lambda: None)
    jobs.add(a_write(1))
    assert not jobs.join(lambda _: True)
    jobs.next()
    assert not jobs.join(lambda _: False)
    assert jobs.join(lambda _: True)
    assert not jobs
