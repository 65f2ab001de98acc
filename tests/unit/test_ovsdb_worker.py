"""The ledger's pauses, and the worker's steps against a connection made of plain rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from fsctl.ovsdb import OvsdbLinks
from fsctl.ovsdb.connection import Outcome
from fsctl.ovsdb.edits import Change
from fsctl.ovsdb.ledger import AT_ONCE, Ledger
from fsctl.ovsdb.rows import Database
from tests.unit.ovsdb_rows import TARGET, Rows

CHANGE = Change(("fail_mode", "a"), "bridge a: fail_mode", ())
RIGHT = frozenset((CHANGE.key,))


def test_first_time_is_no_repair() -> None:
    ledger = Ledger()
    ledger.done(CHANGE, 0)
    assert not ledger.repairs
    ledger.saw(RIGHT, (), 1)
    ledger.done(CHANGE, 2)
    assert ledger.repairs == {"fail_mode": 1}
    ledger.forget(lambda _key: False)
    ledger.done(CHANGE, 3)
    assert ledger.repairs == {"fail_mode": 1}


def test_pauses_double_to_half_a_minute_and_end() -> None:
    ledger = Ledger()
    ledger.saw(RIGHT, (), 0)
    now, times = 0.0, []
    while now < 300:
        if ledger.due([CHANGE], now):
            ledger.done(CHANGE, now)
            times.append(now)
        now += 0.5
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[: AT_ONCE - 1] == [0.5] * (AT_ONCE - 1)
    assert gaps[AT_ONCE - 1 :][:6] == [1, 2, 4, 8, 16, 30]
    assert ledger.contested() == RIGHT
    ledger.saw(RIGHT, (), now + 100)
    assert ledger.contested() == frozenset()
    assert not ledger.is_busy
    assert ledger.due([CHANGE], now + 100)


def test_urgent_changes_go_alone() -> None:
    urgent = Change(("link", "a", "b"), "unsafe", (), is_urgent=True)
    ledger = Ledger()
    assert ledger.due([CHANGE, urgent], 0) == [urgent]
    for now in range(AT_ONCE):
        ledger.done(urgent, now)
    assert ledger.due([CHANGE, urgent], AT_ONCE - 0.5) == [CHANGE], "what is paused holds up nothing else"


class PaperConnection:
    """Answers at the next step; refuses transactions that contain what `bad` says."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.database = rows.database
        self.bad: set[tuple[str, ...]] = set()
        self.sent: list[list[tuple[str, ...]]] = []
        self.is_known = self.is_current = True
        self.answers = True
        self.conflicts = 0
        self._pending: list[Change] = []

    def run(self) -> None:
        return

    def problem(self) -> str:
        return ""

    def send(self, changes: Iterable[Change]) -> None:
        self._pending = list(changes)
        self.sent.append([change.key for change in self._pending])

    def outcome(self) -> Outcome | None:
        if not self.answers:
            return None
        if self.conflicts:
            self.conflicts -= 1
            return Outcome(False)
        if self.bad & {change.key for change in self._pending}:
            return Outcome(False, "constraint violation")
        self.rows.carry_out(self._pending)
        self.database = self.rows.database
        return Outcome(True)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> tuple[OvsdbLinks, PaperConnection]:
    rows = Rows()
    for n in range(10):
        rows.bridge(f"b{n}")
    links, connection = OvsdbLinks("unix:/nowhere"), PaperConnection(rows)
    monkeypatch.setattr(links, "_connection", connection)
    return links, connection


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("fsctl.ovsdb.worker.time.monotonic", lambda: self.now)

    def pass_by(self, links: OvsdbLinks, seconds: float) -> None:
        for _ in range(int(seconds / 0.05)):
            self.now += 0.05
            links.step()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def every_pair(count: int) -> frozenset[frozenset[str]]:
    return frozenset(frozenset((f"b{a}", f"b{b}")) for a in range(count) for b in range(a))


def test_one_refused_change_holds_up_no_other(paper: tuple[OvsdbLinks, PaperConnection], clock: Clock) -> None:
    links, connection = paper
    connection.bad = {("link", "b3", "b4")}
    links.manage([f"b{n}" for n in range(10)], TARGET)
    links.want(every_pair(10))
    clock.pass_by(links, 3)
    assert sum(map(len, links.view().links.values())) == 88
    assert "constraint violation" in links.problem
    assert "constraint violation" in links.view().link_problems[frozenset(("b3", "b4"))]
    before = len(connection.sent)
    clock.pass_by(links, 60)
    assert 4 <= len(connection.sent) - before <= 12, "tried again, ever more rarely"
    connection.bad = set()
    clock.pass_by(links, 11)
    assert sum(map(len, links.view().links.values())) == 90
    assert links.problem == ""
    assert links.view().link_problems == {}


def test_conflicts_are_tried_again_with_pauses(paper: tuple[OvsdbLinks, PaperConnection], clock: Clock) -> None:
    links, connection = paper
    connection.conflicts = 5
    links.manage(["b0"], TARGET)
    clock.pass_by(links, 0.5)
    assert 2 <= len(connection.sent) <= 4
    clock.pass_by(links, 4)
    assert len(connection.sent) == 6
    assert not links.repairs


def test_one_transaction_at_a_time(paper: tuple[OvsdbLinks, PaperConnection], clock: Clock) -> None:
    links, connection = paper
    connection.answers = False
    links.manage(["b0", "b1"], TARGET)
    clock.pass_by(links, 1)
    links.want(every_pair(2))
    clock.pass_by(links, 1)
    assert len(connection.sent) == 1
    connection.answers = True
    clock.pass_by(links, 0.2)
    assert len(connection.sent) == 2
    assert links.view().links
    clock.pass_by(links, 60)
    assert len(connection.sent) == 2


def test_flapping_wants_do_not_flap_ports(paper: tuple[OvsdbLinks, PaperConnection], clock: Clock) -> None:
    links, connection = paper
    links.manage(["b0", "b1"], TARGET)
    for _ in range(10):
        links.want(every_pair(2))
        clock.pass_by(links, 3)
        links.want(frozenset())
        clock.pass_by(links, 8)
        assert links.view().links
    assert len(connection.sent) == 1
    clock.pass_by(links, 3)
    assert links.view().links == {}
    assert len(connection.sent) == 2


def test_view_starts_unknown() -> None:
    links = OvsdbLinks("unix:/nowhere")
    links.step()
    assert links.view() == type(links.view())()
    assert links._connection.database == Database()
