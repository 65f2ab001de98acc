"""A store that fails, hangs, or finishes too late: what was acknowledged stays, and what was refused does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fsctl.errors import StoreError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Forward, Match
from fsctl.model.fib import change_of
from fsctl.status import InterfaceChange, Override, SessionRequest, Write

from .paper import MAC, Lab

TO_B = Forward("eth1", MAC["b"])


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr("fsctl.durable.PATIENCE_S", 0.3)
    monkeypatch.setattr("fsctl.durable.RETRY_S", 0.1)
    lab = Lab()
    yield lab
    lab.stop()


def eventually(what: Callable[[], Any], within_s: float = 3.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stored(lab: Lab) -> Any:
    return lab.controller.durable._call(lambda: (lab.store.load(), lab.store.load_sessions()))


def broken(*_: object, **__: object) -> Any:
    raise StoreError("database or disk is full", field="store")


def hold(monkeypatch: pytest.MonkeyPatch, lab: Lab, *methods: str) -> threading.Event:
    """These methods do what they do, but only once the event is set."""
    gate = threading.Event()
    for method in methods:
        whole = getattr(lab.store, method)

        def late(*arguments: Any, whole: Callable[..., Any] = whole) -> Any:
            gate.wait(20)
            return whole(*arguments)

        monkeypatch.setattr(lab.store, method, late)
    return gate


def is_settled(lab: Lab) -> bool:
    return not lab.controller.durable._debts and not lab.controller.not_ready()


def test_a_store_that_hangs_for_long_holds_the_loop_up_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsctl.durable.PATIENCE_S", 1.5)
    lab.write("r", ("10.0.0.0/8", TO_B))
    with monkeypatch.context() as slow:
        gate = hold(slow, lab, "commit_all", "replace_fib")
        assert not lab.write("r", replace=True).is_stored
        for n in range(20):
            began = time.monotonic()
            is_up = bool(n % 2)
            lab.controller.ports_changed(lab.switches["z"], lab.ports("z", down="" if is_up else "s1"))
            eventually(lambda: lab.controller.network.routers["s"].interfaces["eth1"].up == is_up)  # noqa: B023
            with pytest.raises(StoreError, match="not answered"):
                lab.write("s", ("10.0.3.0/24", TO_B))
            assert time.monotonic() - began < 1.0
            time.sleep(0.06)
        gate.set()
    eventually(lambda: is_settled(lab))
    assert not stored(lab)[0].fibs.get("r")


def test_a_commit_that_ends_as_patience_does(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, yet carried out, and not busy any more when the loop looks: it is put right all the same."""
    lab.settle()

    def offload(function: Callable[[], Any], _patience: float, _meanwhile: object = None) -> Any:
        function()
        raise TimeoutError

    with monkeypatch.context() as late:
        late.setattr(lab.runtime, "offload", offload)
        with pytest.raises(StoreError):
            lab.write("r", ("10.0.0.0/8", TO_B))
    eventually(lambda: is_settled(lab))
    assert not stored(lab)[0].fibs.get("r")


def test_what_a_router_said_of_its_interface_too_late_is_taken_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.controller.change_interface(InterfaceChange("r", "eth1", mtu=1400)).wait(5)
    with monkeypatch.context() as slow:
        gate = hold(slow, lab, "commit_interface")
        with pytest.raises(StoreError):
            lab.controller.change_interface(InterfaceChange("r", "eth1", mtu=1300)).wait(5)
        gate.set()
        eventually(lambda: is_settled(lab))
    assert stored(lab)[0].interfaces["r", "eth1"] == Override(mtu=1400)
    assert lab.controller.network.routers["r"].interfaces["eth1"].mtu == 1400


def test_a_table_that_is_stored_too_late_is_stored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk always takes longer than anybody waits."""
    lab.write("r", ("10.0.0.0/8", TO_B))
    whole = lab.store.replace_fib

    def slow(*arguments: Any) -> int:
        time.sleep(0.5)
        return whole(*arguments)

    with monkeypatch.context() as disk:
        disk.setattr(lab.store, "commit_all", broken)
        disk.setattr(lab.store, "replace_fib", slow)
        assert not lab.write("r", replace=True).is_stored
        eventually(lambda: is_settled(lab))
    assert not stored(lab)[0].fibs.get("r")


def test_the_end_of_a_session_is_stored_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that came back after a restart would run out, and take with it what others have delegated since."""
    lab.controller.sessions.open(SessionRequest("r", "agent", 1.0))
    with monkeypatch.context() as full:
        full.setattr(lab.store, "forget_session", broken)
        lab.controller.write(Write("r", (), replace=True, session="agent", ends_session=True)).wait(5)
    assert lab.write("r", ("10.0.0.0/8", TO_B)).is_stored
    eventually(lambda: is_settled(lab))
    assert not stored(lab)[1]
    lab.stop()
    lab.start()
    time.sleep(1.3)
    assert len(lab.controller.network.fibs["r"]) == 1


def test_a_session_that_was_refused_is_not_stored_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as slow:
        gate = hold(slow, lab, "commit_session")
        with pytest.raises(StoreError):
            lab.controller.sessions.open(SessionRequest("r", "agent", 1.0))
        gate.set()
        eventually(lambda: is_settled(lab))
    assert lab.controller.sessions.get("r") is None
    assert not stored(lab)[1]


def test_a_session_that_was_used_while_it_was_refused_is_stored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next heartbeat is a renewal, which stores nothing."""

    def used(_: object) -> None:
        lab.controller.sessions.admit(Write("r", (), session="agent", seq=1))
        broken()

    with monkeypatch.context() as full:
        full.setattr(lab.store, "commit_session", used)
        with pytest.raises(StoreError):
            lab.controller.sessions.open(SessionRequest("r", "agent", 30.0))
    lab.controller.sessions.open(SessionRequest("r", "agent", 30.0))
    eventually(lambda: is_settled(lab))
    assert stored(lab)[1]["r"].id == "agent"


def test_a_store_that_has_failed_once_is_looked_at_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes any more; it is not called broken for ever."""
    with monkeypatch.context() as full:
        full.setattr(lab.store, "commit_all", broken)
        full.setattr(lab.store, "probe", broken)
        with pytest.raises(StoreError):
            lab.write("r", ("10.0.0.0/8", TO_B))
        time.sleep(0.3)
        assert any("full" in reason for reason in lab.controller.not_ready())
    eventually(lambda: not lab.controller.not_ready())
    assert not stored(lab)[1]


def test_a_router_that_is_owed_holds_up_no_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their writes wait side by side, and are joined where they can be."""
    with monkeypatch.context() as full:
        full.setattr(lab.store, "replace_fib", broken)
        with monkeypatch.context() as once:
            once.setattr(lab.store, "commit_all", broken)
            assert not lab.write("r", replace=True).is_stored
        gate = threading.Event()
        lab.controller._jobs.add(lambda: gate.wait(3) and None)
        change = [change_of(Match("eth0", Prefix.parse("10.0.3.0/24")), TO_B)]
        tickets = [lab.controller.write(Write(router, change)) for router in "rs"]
        gate.set()
        with pytest.raises(StoreError, match="still lacks"):
            tickets[0].wait(5)
        assert tickets[1].wait(5).added == 1
    eventually(lambda: is_settled(lab))
