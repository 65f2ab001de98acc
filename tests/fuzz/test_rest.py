"""Requests at random: 0 hangs, 0 crashes, 0 answers of 500, 0 half-applied writes, nobody's data to another.

FSCTL_FUZZ_REQUESTS says how many, FSCTL_FUZZ_SECONDS for how long at most. FSCTL_FUZZ_SEED replays a run, one client's
exactly with FSCTL_FUZZ_CLIENTS=1.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.waiting import eventually

from .books import Books
from .client import Outcome, Task, work
from .host import PAIRS, Crowd, pair

REQUESTS = int(os.environ.get("FSCTL_FUZZ_REQUESTS", "1000000"))
SECONDS = float(os.environ.get("FSCTL_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("FSCTL_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
CLIENTS = min(PAIRS, int(os.environ.get("FSCTL_FUZZ_CLIENTS", str(PAIRS))))


def tasks(crowd: Crowd) -> list[Task]:
    seeds = range(SEED, SEED + CLIENTS)
    shares = (REQUESTS // CLIENTS, SECONDS)
    return [Task(crowd.control.url, crowd.control.tokens, pair(n), seed, *shares) for n, seed in enumerate(seeds)]


def run(todo: list[Task]) -> list[tuple[Outcome, Books]]:
    """All clients, each a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(todo), mp_context=context) as clients:
        others_failed = manager.Event()
        return [f.result() for f in [clients.submit(work, task, others_failed) for task in todo]]


def differences(crowd: Crowd, books: list[Books]) -> list[str]:
    found = [one.difference(router, crowd.client.flows(router)) for one in books for router in one.tables]
    return [difference for difference in found if difference]


@pytest.mark.timeout(SECONDS + 180)
def test_requests_at_random(crowd: Crowd) -> None:
    begins = time.monotonic()
    done = run(tasks(crowd))
    took, seen = time.monotonic() - begins, sum((outcome.seen for outcome, _ in done), Counter[int]())
    count, looks = (sum(getattr(outcome, name) for outcome, _ in done) for name in ("requests", "looks"))
    print(f"{count} requests and {looks} looks in {took:.0f} s, seed {SEED}: {dict(sorted(seen.items()))}")
    wrong = [outcome.wrong for outcome, _ in done if outcome.wrong]
    assert not wrong, f"FSCTL_FUZZ_SEED={SEED}: {wrong}"
    assert seen[200] > 0
    assert crowd.client.call("GET", "/healthz") == {"status": "ok"}
    books = [one for _, one in done]
    assert not differences(crowd, books)
    eventually(crowd.is_ready)
    changed_in_place = crowd.all_rules()
    crowd.control.kill()
    crowd.control.start()
    assert not differences(crowd, books), "something else was stored than was accepted"
    assert crowd.all_rules() == changed_in_place, "changes one by one led to other rules than the tables as a whole"
