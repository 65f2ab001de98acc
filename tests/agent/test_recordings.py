"""The fold over what a real kernel said (recordings/, made by `recorder`): told whole, split, squashed, duplicated, reversed
where that is legal, it ends with the one FIB that the kernel's last dump gives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fsctl.agent.codec import event
from fsctl.agent.events import Event
from fsctl.agent.fib import Fold
from fsctl.agent.netlink import DUMPS
from fsctl.model.addresses import IPV4, parse_mac

from .recorder import FOLDER, message_of

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
SEEDS = range(5)
BY_MESSAGES_ALONE = ("nexthops",)
"""In the others something happened that messages do not tell exactly, so that a dump is part of the story."""
Shuffle = Callable[[list[Event]], list[Event]]


class Recording:
    """One of them, decoded."""

    def __init__(self, name: str) -> None:
        found = json.loads((FOLDER / f"{name}.json").read_text())
        self.known = {parse_mac(mac): called for mac, called in found["known"].items()}
        self.events = list(decoded(found["events"]))
        self.before, self.after = ([list(decoded(d)) for d in found[when]] for when in ("before", "after"))

    def begun(self) -> Fold:
        """In step with the kernel before anything happened."""
        fold = Fold(self.known)
        take_dump(fold, self.before)
        return fold

    def end(self, fold: Fold, order: Shuffle = list) -> dict[Any, Any]:
        """The FIB, once the dump is taken that the fold may have asked for (the kernel deletes routes without a word)."""
        if fold.wants_resync():
            take_dump(fold, self.after, order)
        fold.settle()
        return {part: entries for part, entries in fold.fib.items() if entries}

    def truth(self) -> dict[Any, Any]:
        """What the last dump alone says."""
        fold = Fold(self.known)
        take_dump(fold, self.after)
        return self.end(fold)


def decoded(texts: Iterable[str]) -> Iterable[Event]:
    return (found for text in texts if (found := event(message_of(text))) is not None)


def take_dump(fold: Fold, dump: list[list[Event]], order: Shuffle = list) -> None:
    for (kind, _, version), events in zip(DUMPS, dump, strict=True):
        fold.resync(kind, [e.value for e in order(events) if isinstance(e.value, kind)], version or IPV4)
    fold.resynced()


@pytest.fixture(params=NAMES)
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording(request.param)


def test_recordings_say_something(recording: Recording) -> None:
    assert len(recording.events) >= 15
    assert recording.truth() not in ({}, recording.end(recording.begun()))


@pytest.mark.parametrize("name", BY_MESSAGES_ALONE)
def test_messages_suffice(name: str) -> None:
    fold = Recording(name).begun()
    for told in Recording(name).events:
        fold.apply(told)
    assert not fold.wants_resync()


@pytest.mark.parametrize("seed", SEEDS)
def test_told_whole_and_split(recording: Recording, seed: int) -> None:
    """Settled after every few messages, or once: the same, and what the kernel has in the end."""
    fold, dice = recording.begun(), random.Random(seed)
    for told in recording.events:
        fold.apply(told)
        if seed and dice.random() < 0.5:
            fold.settle()
    assert recording.end(fold) == recording.truth()


def test_every_message_twice(recording: Recording) -> None:
    fold = recording.begun()
    for told in recording.events:
        fold.apply(told)
        fold.apply(told)
        fold.settle()
    assert recording.end(fold) == recording.truth()


@pytest.mark.parametrize("seed", SEEDS)
def test_squashed(recording: Recording, seed: int) -> None:
    """Lost from some message on: only a dump says what came of it, and in no order."""
    fold, dice = recording.begun(), random.Random(seed)
    for told in recording.events[: dice.randrange(len(recording.events))]:
        fold.apply(told)
    take_dump(fold, recording.after, lambda events: dice.sample(events, len(events)))
    assert recording.end(fold) == recording.truth()


def test_a_dump_reversed(recording: Recording) -> None:
    fold = recording.begun()
    take_dump(fold, recording.after, lambda events: events[::-1])
    assert recording.end(fold) == recording.truth()


def test_reversed_where_two_messages_are_about_different_things(recording: Recording) -> None:
    """Neighbours' messages and routes' come by different paths in the kernel; neither waits for the other."""
    routes = [e for e in recording.events if type(e.value).__name__ in ("Route", "Nexthop", "Link", "Addr")]
    others = [e for e in recording.events if e not in routes]
    for order in (routes + others, others + routes):
        fold = recording.begun()
        for told in order:
            fold.apply(told)
        assert recording.end(fold) == recording.truth()
