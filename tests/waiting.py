"""Waiting for what happens in other threads, processes and switches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 20.0
"""For what works at all. How fast it has to be is for the test to say, and for docs/benchmarks.md."""
_LOOK_S = 0.005


def waited_for(what: Callable[[], Any], within_s: float) -> bool:
    """Whether `what()` became true within so many seconds."""
    ends = time.monotonic() + within_s
    while not what():
        if time.monotonic() > ends:
            return False
        time.sleep(_LOOK_S)
    return True


def eventually(what: Callable[[], Any], why: str = "", within_s: float = PATIENCE_S) -> float:
    """Seconds until `what()` is true; the test fails if it is not within `within_s` seconds."""
    begins = time.monotonic()
    assert waited_for(what, within_s), f"not within {within_s:g} s: {why or what}"
    return time.monotonic() - begins
