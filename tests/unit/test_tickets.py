"""B3: what a ticket says when its patience is over is what is true: of the queue, the store and the switches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from fsctl.answers import Answers
from fsctl.controller import Controller
from fsctl.errors import ConflictError, StoreError, UnavailableError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, Forward, Match
from fsctl.model.fib import Fib, change_of
from fsctl.runtime import Threads
from fsctl.status import InterfaceChange, NexthopMove, SessionRequest, Ticket, Write, WriteResult
from fsctl.writes import Pending, Submitted, Together

from .paper import MAC, Lab

TO_S = Forward("eth1", MAC["s0"])
CHANGE = change_of(Match("eth0", Prefix.parse("10.0.0.0/8")), TO_S)
PATIENCE_S = 0.1


def asked(controller: Controller) -> list[Ticket]:
    """One write of every kind."""
    return [
        controller.write(Write("r", [CHANGE])),
        controller.change_interface(InterfaceChange("r", "eth0", mtu=1400)),
        controller.move_nexthop(NexthopMove("r", "eth1", MAC["s0"], 0x02AA)),
    ]


def nothing_stored(lab: Lab) -> bool:
    stored = lab.store.load()
    return not len(stored.fibs.get("r", Fib())) and not stored.interfaces and not stored.revision


def test_fault_B3_a_dead_loop_changes_nothing_and_says_so() -> None:
    lab = Lab()
    lab.stop()
    for way in (Pending.wait, Pending.stored):
        for ticket in asked(lab.controller):
            assert isinstance(ticket, Pending)
            with pytest.raises(UnavailableError, match="nothing was changed"):
                way(ticket, PATIENCE_S)
    assert nothing_stored(lab)


def test_fault_B3_a_busy_loop_skips_what_was_given_up() -> None:
    lab = Lab()
    try:
        lab.settle()
        busy = threading.Event()
        lab.controller._jobs.add(lambda: busy.wait(10))  # type: ignore[arg-type, return-value]
        tickets = asked(lab.controller)
        for ticket in tickets:
            with pytest.raises(UnavailableError, match="nothing was changed"):
                ticket.wait(PATIENCE_S)
        busy.set()
        lab.settle()
        assert nothing_stored(lab)
        assert not lab.flow_rules("x")
    finally:
        busy.set()
        lab.stop()


def test_fault_B3_a_write_that_has_begun_may_still_be_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lab, slow = Lab(), threading.Event()
    try:
        lab.settle()
        whole = lab.store.commit_all
        monkeypatch.setattr(lab.store, "commit_all", lambda commits: slow.wait(10) and whole(commits))
        ticket = lab.controller.write(Write("r", [CHANGE]))
        for _ in range(2):
            with pytest.raises(UnavailableError, match="not stored yet, and may still be carried out"):
                ticket.wait(PATIENCE_S)
        slow.set()
        assert ticket.wait(10).added == 1
        assert len(lab.store.load().fibs["r"]) == 1
    finally:
        slow.set()
        lab.stop()


def test_fault_B3_what_is_stored_names_the_bridges_that_have_not_confirmed() -> None:
    lab, slow = Lab(), threading.Event()
    try:
        lab.settle()
        switch = lab.switches["x"]
        whole = switch.apply
        switch.apply = lambda update: slow.wait(10) and whole(update)  # type: ignore[method-assign, assignment, return-value]
        ticket = lab.controller.write(Write("r", [CHANGE]))
        assert ticket.stored(10).added == 1
        with pytest.raises(UnavailableError, match="the change is stored and will be applied"):
            ticket.wait(PATIENCE_S)
        assert len(lab.store.load().fibs["r"]) == 1
    finally:
        slow.set()
        lab.stop()


@pytest.mark.parametrize(("names", "words"), [(("x", "y"), "not confirmed it in time: x, y$"), ((), "it is not confirmed yet$")])
def test_what_is_said_of_bridges(names: tuple[str, ...], words: str) -> None:
    ticket = Pending(Threads(), lambda: names)
    assert ticket.begin()
    ticket.committed(WriteResult(1))
    with pytest.raises(UnavailableError, match=words):
        ticket.wait(0)


def test_who_is_first_decides() -> None:
    """A hundred times: either the loop carries out, or the sender hears that nothing was changed."""
    for _ in range(100):
        ticket, begun = Pending(Threads()), list[bool]()
        loop = threading.Thread(target=lambda t=ticket, b=begun: b.append(t.begin()))
        loop.start()
        with pytest.raises(UnavailableError) as told:
            ticket.wait(0)
        loop.join()
        assert begun == ["nothing was changed" not in told.value.detail]


# --- B4, D9: a store that fails --------------------------------------------------------------------------------


def failing(lab: Lab, monkeypatch: pytest.MonkeyPatch, method: str) -> Callable[[], None]:
    """The store's disk is full, until what is returned is called."""
    whole = getattr(lab.store, method)
    state = {"full": True}

    def maybe(*args: object, **more: object) -> object:
        if state["full"]:
            raise StoreError("the store failed, nothing was changed: disk full")
        return whole(*args, **more)

    monkeypatch.setattr(lab.store, method, maybe)
    return lambda: state.update(full=False)


def test_fault_B4_a_store_error_leaves_seq_and_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    try:
        sessions = lab.controller.sessions
        sessions.open(SessionRequest("r", "a", 60.0))
        make_room = failing(lab, monkeypatch, "commit_all")
        with pytest.raises(StoreError):
            lab.controller.write(Write("r", [CHANGE], replace=True, session="a", seq=1)).wait(10)
        session = sessions.get("r")
        assert session is not None
        assert (session.seq, session.is_synced) == (0, False)
        make_room()
        assert lab.controller.write(Write("r", [CHANGE], replace=True, session="a", seq=1)).wait(10).added == 1
        session = sessions.get("r")
        assert session is not None
        assert (session.seq, session.is_synced) == (1, True)
    finally:
        lab.stop()


def test_fault_B4_the_session_ends_after_its_withdrawal_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    try:
        sessions = lab.controller.sessions
        sessions.open(SessionRequest("r", "a", 60.0))
        lab.controller.write(Write("r", [CHANGE], replace=True, session="a", seq=1)).wait(10)
        order = list[tuple[str, int]]()
        for name in ("commit_all", "forget_session"):
            whole = getattr(lab.store, name)

            def noted(argument: object, name: str = name, whole: Callable[[object], object] = whole) -> object:
                order.append((name, len(lab.store.load_sessions())))
                return whole(argument)

            monkeypatch.setattr(lab.store, name, noted)
        end = Write("r", (), replace=True, session="a", ends_session=True)
        assert lab.controller.write(end).wait(10).removed == 1
        assert order == [("commit_all", 1), ("forget_session", 1)]
        assert sessions.get("r") is None
        assert lab.store.load_sessions() == {}
        with pytest.raises(ConflictError):
            lab.controller.write(end).wait(10)
    finally:
        lab.stop()


def test_fault_D9_withdrawals_are_kept_when_the_store_fails() -> None:
    """What the loop needs to carry them out all the same."""
    lab = Lab()
    lab.stop()
    sessions, fibs = lab.controller.sessions, {"r": Fib(), "s": Fib()}
    fibs["r"].apply(CHANGE)
    tickets = [Pending(Threads()) for _ in range(2)]
    together = Together(fibs, lab.config, sessions, Submitted(Write("s", [CHANGE._replace(verdict=DROP)]), tickets[0]))
    assert together.takes(Submitted(Write("r", (), replace=True, is_admin=True), tickets[1]))
    assert {c.router: c.withdraws for c in together.commits(lambda: None)} == {"s": False, "r": True}
    (kept,) = together.keep_withdrawals(StoreError("disk full"))
    assert (kept.router, kept.withdraws, [c.verdict for c in kept.changes]) == ("r", True, [None])
    assert together.replaced.keys() == {"r"}
    assert [(s.write.router, counts.removed) for s, counts in together.accepted()] == [("r", 1)]
    with pytest.raises(StoreError, match="disk full"):
        tickets[0].wait(0)
    with pytest.raises(UnavailableError):
        tickets[1].wait(0)


def test_a_sessions_writes_are_not_joined() -> None:
    """Whether the second is admitted depends on what the first comes to."""
    lab = Lab()
    lab.stop()

    def write(router: str, session: str | None) -> Submitted:
        return Submitted(Write(router, [CHANGE], session=session), Pending(Threads()))

    together = Together({"r": Fib(), "s": Fib()}, lab.config, lab.controller.sessions, write("r", "a"))
    assert not together.takes(write("r", "a"))
    assert not together.takes(write("r", None))
    assert together.takes(write("s", None))
    assert together.takes(write("s", None))
    assert not together.takes(write("s", "b"))


def test_many_answers_that_are_late_take_no_time() -> None:
    """A hung switch, or a loop that was held up, makes thousands of them late at once."""
    runtime = Threads()
    lab = Lab()
    try:
        answers = Answers(runtime, lab.controller.installer, lab.controller.desired)
        tickets = [Pending(runtime) for _ in range(3000)]
        for ticket in tickets:
            answers.add(ticket, lambda: WriteResult(1), {}, early_until=time.monotonic() - 100)
        time.sleep(1.6)
        began = time.monotonic()
        answers.resolve_due(is_starting=True)
        assert time.monotonic() - began < 1.5
        assert {ticket.wait(0).revision for ticket in tickets} == {1}
    finally:
        lab.stop()
