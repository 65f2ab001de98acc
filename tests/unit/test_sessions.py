"""Leases: who may write, until when, and what is left when nobody is heard of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fsctl.errors import ConflictError, StoreError, UnsyncedError
from fsctl.sessions import Sessions
from fsctl.status import Session, SessionRequest, Write
from fsctl.store import SqliteStore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> SqliteStore:
    return SqliteStore(":memory:")


@pytest.fixture
def sessions(store: SqliteStore, clock: Clock) -> Sessions:
    return Sessions(store, clock)


def request(id: str = "a", lease: float = 10, grace: float = 0) -> SessionRequest:
    return SessionRequest("r", id, lease, grace)


def test_a_second_agent_is_refused_until_the_lease_is_over(sessions: Sessions, clock: Clock) -> None:
    sessions.open(request("a", grace=5))
    clock.now += 9
    with pytest.raises(ConflictError):
        sessions.open(request("b"))
    sessions.open(request("a", grace=5))  # a heartbeat
    clock.now += 9
    with pytest.raises(ConflictError):
        sessions.open(request("b"))
    clock.now += 2
    assert sessions.expired() == []  # held for the grace
    assert not sessions.open(request("b")).is_synced


def by(id: str | None, seq: int | None = None, *, is_admin: bool = False) -> Write:
    return Write("r", (), replace=True, session=id, seq=seq, is_admin=is_admin)


def carry_out(sessions: Sessions, write: Write) -> None:
    sessions.admit(write)
    sessions.carried_out(write, replaces=write.replace)


def test_lease_over_then_grace_over(sessions: Sessions, clock: Clock) -> None:
    sessions.open(request(grace=30))
    clock.now += 10 + 30
    assert sessions.expired() == []
    clock.now += 0.1
    assert sessions.expired() == ["r"]
    assert sessions.expired() == []
    with pytest.raises(ConflictError):
        sessions.admit(by("a", 1))


def test_writes_renew_the_lease_and_come_in_order(sessions: Sessions, clock: Clock) -> None:
    sessions.open(request())
    clock.now += 9
    carry_out(sessions, by("a", 5))
    clock.now += 9
    assert sessions.expired() == []
    with pytest.raises(ConflictError, match="later write"):
        sessions.admit(by("a", 5))
    with pytest.raises(ConflictError, match="not the router's session"):
        sessions.admit(by("b", 6))
    assert (sessions.open(request()).seq, sessions.open(request()).is_synced) == (5, True)


def test_without_a_session_only_while_there_is_none(sessions: Sessions) -> None:
    carry_out(sessions, by(None))
    sessions.open(request())
    with pytest.raises(ConflictError, match="missing"):
        sessions.admit(by(None))
    carry_out(sessions, by("a", 1))
    assert sessions.open(request()).is_synced
    carry_out(sessions, by(None, is_admin=True))
    assert not sessions.open(request()).is_synced


def test_fault_B4_what_was_only_admitted_counts_for_nothing(sessions: Sessions) -> None:
    sessions.open(request())
    sessions.admit(by("a", 7))
    session = sessions.open(request())
    assert (session.seq, session.is_synced) == (0, False)


def test_fault_B5_a_change_needs_a_session_that_has_sent_everything(sessions: Sessions) -> None:
    sessions.open(request())
    with pytest.raises(UnsyncedError, match="send PUT flows first"):
        sessions.admit(by("a", 1), needs_sync=True)
    carry_out(sessions, by("a", 1))
    sessions.admit(by("a", 2), needs_sync=True)


def test_fault_B5_a_late_write_of_the_session_before_does_not_sync_the_next(sessions: Sessions, clock: Clock) -> None:
    sessions.open(request("a"))
    late = by("a", 1)
    sessions.admit(late)
    clock.now += 11
    sessions.open(request("b"))
    sessions.carried_out(late, replaces=True)
    assert not sessions.open(request("b")).is_synced


def test_a_restart_begins_every_lease_anew(sessions: Sessions, store: SqliteStore, clock: Clock) -> None:
    sessions.open(request())
    clock.now += 50
    again = Sessions(store, clock)
    assert again.expired() == []
    with pytest.raises(ConflictError):
        again.open(request("b"))
    clock.now += 11
    assert again.expired() == ["r"]
    assert Sessions(store, clock).get("r") is None


def test_an_agent_that_ends_in_order(sessions: Sessions, store: SqliteStore) -> None:
    sessions.open(request())
    sessions.end("r", "b")
    assert sessions.get("r") is not None
    sessions.end("r", "a")
    sessions.end("r", "a")
    assert sessions.get("r") is None
    assert store.load_sessions() == {}
    store.forget_session("r")  # again: no error


class SlowStore(SqliteStore):
    """Others run while it works: `meanwhile` is called once, in the middle of the next call."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.meanwhile: Callable[[], object] = lambda: None
        self.fails = False

    def _others(self) -> None:
        run, self.meanwhile = self.meanwhile, lambda: None
        run()

    def commit_session(self, session: Session) -> None:
        self._others()
        if self.fails:
            raise StoreError("disk full")
        super().commit_session(session)

    def forget_session(self, router: str) -> None:
        self._others()
        super().forget_session(router)


def test_of_two_agents_that_open_at_once_one_is_refused(clock: Clock) -> None:
    store = SlowStore()
    sessions, refused = Sessions(store, clock), list[ConflictError]()

    def second() -> None:
        with pytest.raises(ConflictError) as caught:
            sessions.open(request("b"))
        refused.append(caught.value)

    store.meanwhile = second
    assert sessions.open(request("a")).id == "a"
    assert refused
    assert store.load_sessions()["r"].id == "a"


def test_a_write_carried_out_during_a_heartbeat_is_not_forgotten(clock: Clock) -> None:
    store = SlowStore()
    sessions = Sessions(store, clock)
    sessions.open(request())
    store.meanwhile = lambda: carry_out(sessions, by("a", 3))
    session = sessions.open(request(lease=20))
    assert (session.seq, session.is_synced, session.lease_s) == (3, True, 20)


def test_a_session_that_is_not_stored_is_not_open(clock: Clock) -> None:
    store = SlowStore()
    sessions = Sessions(store, clock)
    store.fails = True
    with pytest.raises(StoreError):
        sessions.open(request())
    assert sessions.get("r") is None
    store.fails = False
    sessions.open(request("a", grace=5))
    clock.now += 11
    store.fails = True
    with pytest.raises(StoreError):
        sessions.open(request("b"))
    clock.now += 5
    assert sessions.expired() == ["r"], "the one before still ends"


def test_a_session_opened_while_the_one_before_is_forgotten_stays_stored(clock: Clock) -> None:
    store = SlowStore()
    sessions = Sessions(store, clock)
    sessions.open(request("a"))
    clock.now += 11
    store.meanwhile = lambda: sessions.open(request("b"))
    assert sessions.expired() == ["r"]
    assert store.load_sessions()["r"].id == "b"
