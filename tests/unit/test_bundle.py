"""A bundle that is sent while its changes are being found, without a switch. With one: tests/ovs/test_filling.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fsctl.errors import UnavailableError
from fsctl.openflow import OpenFlowError
from fsctl.openflow.rules import RuleChange, RuleKey
from fsctl.southbound.bundle import Filling
from fsctl.status import Rejection

RULES = [RuleChange(RuleKey(1, priority, ()), ()) for priority in (1000, 1002, 1004)]
REJECTION = Rejection(RULES[0].key, "refused")


class Bundle:
    """As much of the real one as Filling uses."""

    def __init__(self, left: int = 100, errors: dict[int, OpenFlowError] | None = None) -> None:
        self.left, self.errors = left, errors or {}
        self.said: list[str] = []

    def add(self, changes: Sequence[RuleChange]) -> None:
        self.left -= len(changes)
        self.said.append(f"add {len(changes)}")

    def close(self) -> dict[int, OpenFlowError]:
        self.said.append("close")
        return self.errors

    def drop(self) -> None:
        self.said.append("drop")
        raise UnavailableError("gone")

    def discard(self) -> None:
        self.said.append("discard")
        raise UnavailableError("gone")

    def forget(self) -> None:
        self.said.append("forget")


class Rest:
    """What Filling asks of its switch."""

    def __init__(self) -> None:
        self.careful: list[list[RuleChange]] = []
        self.released = 0

    def carefully(self, changes: Sequence[RuleChange]) -> list[Rejection]:
        self.careful.append(list(changes))
        return [REJECTION]

    def release(self) -> None:
        self.released += 1


def filling(bundle: Bundle, rest: Rest) -> Filling:
    return Filling(bundle, frozenset(), rest.carefully, rest.release)  # type: ignore[arg-type]


def test_what_the_switch_takes_is_sent_once() -> None:
    bundle, rest = Bundle(), Rest()
    it = filling(bundle, rest)
    it.add(RULES[:2])
    it.add(RULES[2:])
    assert it.finish() == []
    assert bundle.said == ["add 2", "add 1", "close", "forget"]
    assert (rest.careful, rest.released, it.changes) == ([], 1, RULES)


def test_what_it_refuses_is_done_anew_the_most_specific_first() -> None:
    bundle, rest = Bundle(errors={0: OpenFlowError(1, 5, 1, b"")}), Rest()
    it = filling(bundle, rest)
    it.add(RULES)
    assert it.finish() == [REJECTION]
    assert rest.careful == [RULES[::-1]]
    assert rest.released == 1


def test_more_than_there_is_room_for_is_done_anew() -> None:
    bundle, rest = Bundle(left=2), Rest()
    bundle.discard = lambda: bundle.said.append("discard")  # type: ignore[method-assign]
    it = filling(bundle, rest)
    it.add(RULES[:1])
    it.add(RULES[1:])
    it.finish()
    assert bundle.said == ["add 1", "discard", "forget"]
    assert rest.careful == [RULES[::-1]]


def test_others_get_their_turn_whatever_happens() -> None:
    for end in ("finish", "abandon"):
        bundle, rest = Bundle(left=0), Rest()
        it = filling(bundle, rest)
        it.add(RULES)
        if end == "abandon":
            it.abandon()
        else:
            with pytest.raises(UnavailableError):
                it.finish()
        assert (bundle.said[-1], rest.released) == ("forget", 1)
