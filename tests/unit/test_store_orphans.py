"""A3: what the configuration no longer has is kept aside, shown, and never installed again by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsctl.errors import StoreError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, PUNT, Forward, Match, Verdict
from fsctl.model.fib import Fib, change_of
from fsctl.model.network import Address
from fsctl.status import CLEAR, InterfaceChange, Session
from fsctl.store import Commit, SqliteStore
from fsctl.store_orphans import ORPHAN_DAYS, ORPHANS_PER_ROUTER

HOP, LOST = Forward("eth1", 0x0200_0000_0001), Forward("eth9", 0x0200_0000_0009)
NOW, DAY = 1_800_000_000, 86400
BOTH = {"vr1": ("eth0", "eth1", "eth9"), "vr9": ("eth0", "eth1")}
ONE = {"vr1": ("eth0", "eth1", "eth9")}


def put(store: SqliteStore, router: str, *flows: tuple[str, str, Verdict]) -> None:
    fib = store.load().fibs.get(router, Fib())
    changes = [change_of(Match(in_port, Prefix.parse(text)), verdict) for in_port, text, verdict in flows]
    store.commit(router, changes, fib.new_nexthops(changes))


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(str(tmp_path / "fsctl.db"))
    put(store, "vr1", ("eth0", "10.0.0.0/8", HOP), ("eth0", "10.9.0.0/16", LOST), ("eth9", "0.0.0.0/0", HOP))
    put(store, "vr9", ("eth0", "10.1.0.0/16", HOP), ("eth0", "10.2.0.0/16", DROP))
    for router in BOTH:
        store.commit_session(Session(router, "agent", 10.0, 0.0, 0.0))
        store.commit_interface(InterfaceChange(router, "eth0", (Address.parse("10.0.0.1/24"),)))
    store.commit_interface(InterfaceChange("vr1", "eth9", mtu=1400))
    return store


def verdicts(store: SqliteStore, router: str) -> dict[tuple[str, str], Verdict]:
    return {(d.match.in_port, str(d.match.dst)): d.verdict for d in store.load().fibs.get(router, Fib())}


def test_fault_A3_a_router_that_is_gone_is_kept_aside_and_not_installed_again(store: SqliteStore) -> None:
    assert store.set_aside(BOTH, NOW) == []
    (orphan,) = store.set_aside(ONE, NOW)
    assert (orphan.router, orphan.since, orphan.count) == ("vr9", NOW, 2)
    assert "no such router" in orphan.why
    assert {flow["match"]["ipv4_dst"] for flow in orphan.flows} == {"10.1.0.0/16", "10.2.0.0/16"}  # type: ignore[index]
    assert verdicts(store, "vr9") == {}
    assert store.load_sessions().keys() == {"vr1"}
    assert set(store.load().interfaces) == {("vr1", "eth0"), ("vr1", "eth9")}
    assert store.set_aside(BOTH, NOW + 1) == []  # it is back: its owner has to send its flows anew
    assert verdicts(store, "vr9") == {}
    assert [(o.router, o.count, o.flows == ()) for o in store.orphans(with_flows=False)] == [("vr9", 2, True)]


def test_fault_A3_an_interface_that_is_gone(store: SqliteStore) -> None:
    """A punt stays where a delegation left by it: otherwise its packets would follow 10.0.0.0/8."""
    known = {"vr1": ("eth0", "eth1"), "vr9": ("eth0", "eth1")}
    (orphan,) = store.set_aside(known, NOW)
    assert (orphan.router, orphan.count) == ("vr1", 2)
    assert "eth9" in orphan.why
    assert verdicts(store, "vr1") == {("eth0", "10.0.0.0/8"): HOP, ("eth0", "10.9.0.0/16"): PUNT}
    assert set(store.load().interfaces) == {("vr1", "eth0"), ("vr9", "eth0")}
    assert store.set_aside(BOTH, NOW) == []
    assert verdicts(store, "vr1")[("eth0", "10.9.0.0/16")] == PUNT
    put(store, "vr1", ("eth0", "10.9.0.0/16", LOST))
    assert verdicts(store, "vr1")[("eth0", "10.9.0.0/16")] == LOST


def test_fault_A3_a_withdrawal_takes_what_is_kept_aside_along(store: SqliteStore) -> None:
    store.set_aside(ONE, NOW)
    revision = store.load().revision
    assert store.commit_all([Commit("vr9", [], {}, withdraws=True)]) == revision + 1
    assert store.orphans() == []
    assert store.commit_all([Commit("vr9", [], {}, withdraws=True)]) == revision + 1  # nothing left: not counted


def test_fault_A3_what_is_kept_aside_is_deleted_after_a_week(store: SqliteStore) -> None:
    store.set_aside(ONE, NOW)
    store.set_aside(ONE, NOW + ORPHAN_DAYS * DAY)
    assert len(store.orphans()) == 1
    store.set_aside(ONE, NOW + ORPHAN_DAYS * DAY + 1)
    assert store.orphans() == []


def test_fault_A3_several_add_up_and_are_bounded(store: SqliteStore) -> None:
    for n in range(ORPHANS_PER_ROUTER + 3):
        store.set_aside(BOTH, NOW + n)
        put(store, "vr9", ("eth0", f"10.{n}.0.0/16", HOP))
        store.set_aside(ONE, NOW + n)
    kept = store.orphans()
    assert [o.since for o in kept] == [NOW + n for n in range(ORPHANS_PER_ROUTER + 2, 2, -1)]


def test_fault_A3_all_or_nothing(store: SqliteStore) -> None:
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    put(store, "vr9", *(("eth0", f"10.{n >> 8}.{n & 255}.0/24", HOP) for n in range(2000)))
    before = verdicts(store, "vr9")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.set_aside(ONE, NOW)
    assert verdicts(store, "vr9") == before
    assert store.orphans() == []


def test_an_interface_said_and_taken_back(store: SqliteStore) -> None:
    store.commit_interface(InterfaceChange("vr1", "eth0", mtu=1400))
    store.commit_interface(InterfaceChange("vr1", "eth0", CLEAR))
    said = store.load().interfaces["vr1", "eth0"]
    assert (said.addresses, said.mtu) == (None, 1400)
    store.commit_interface(InterfaceChange("vr1", "eth0", mtu=CLEAR))
    assert ("vr1", "eth0") not in store.load().interfaces


def test_fault_E15_what_is_kept_aside_is_forgotten_for_good(store: SqliteStore, tmp_path: Path) -> None:
    store.set_aside(ONE, NOW)
    assert not store.forget_orphans("vr1")
    assert store.forget_orphans("vr9")
    assert not store.forget_orphans("vr9")
    store.close()
    again = SqliteStore(str(tmp_path / "fsctl.db"))
    assert again.orphans() == []
    assert verdicts(again, "vr1"), "what is in force stays"
    again.close()
