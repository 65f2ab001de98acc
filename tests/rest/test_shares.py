"""What one caller may hold at a time: long bodies and long lists."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from fsctl.errors import BusyError
from fsctl.northbound.shares import ADMINISTRATOR, LONG_BODY, MOST_LISTS, MOST_OF_ADMINISTRATOR, Bodies, Lists, Pieces

LONG = LONG_BODY + 1


def test_a_router_sends_one_long_body_at_a_time_and_any_number_of_short_ones() -> None:
    bodies = Bodies()
    with bodies.reading("r1", LONG):
        with pytest.raises(BusyError, match="being read already"), bodies.reading("r1", LONG):
            pass
        with bodies.reading("r1", LONG_BODY), bodies.reading("r2", LONG):
            pass
    with bodies.reading("r1", LONG):
        pass


def test_all_long_bodies_together_have_a_bound_and_one_alone_is_always_read() -> None:
    bodies = Bodies(most=3 * LONG)
    with ExitStack() as held:
        for n in range(3):
            held.enter_context(bodies.reading(f"r{n}", LONG))
        with pytest.raises(BusyError, match="more than"), bodies.reading("r9", LONG):
            pass
    with bodies.reading("r9", 100 * LONG):
        pass


def test_a_body_that_fails_is_not_held() -> None:
    bodies = Bodies()
    for _ in range(3):
        with pytest.raises(ValueError), bodies.reading("r1", LONG):
            raise ValueError


@pytest.mark.parametrize(("who", "most"), [("r1", MOST_LISTS), (ADMINISTRATOR, MOST_OF_ADMINISTRATOR)])
def test_long_lists_of_one_caller(who: str, most: int) -> None:
    lists = Lists()
    ends = [lists.open(who) for _ in range(most)]
    with pytest.raises(BusyError, match="limit="):
        lists.open(who)
    lists.open("another")
    ends[0]()
    ends[0]()  # twice is once
    lists.open(who)
    with pytest.raises(BusyError):
        lists.open(who)


@pytest.mark.parametrize("how", ["read", "closed", "dropped", "failed"])
def test_an_answer_ends_once_however_it_ends(how: str) -> None:
    ended: list[int] = []

    def values() -> object:
        yield b"a"
        if how == "failed":
            raise ValueError
        yield b"b"

    pieces = Pieces(values(), lambda: ended.append(1))  # type: ignore[arg-type]
    if how == "read":
        assert list(pieces) == [b"a", b"b"]
    elif how == "closed":
        pieces.close()
    elif how == "failed":
        next(pieces)
        with pytest.raises(ValueError):
            next(pieces)
    del pieces
    assert ended
