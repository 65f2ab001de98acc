"""The store: what is committed is loaded, whole writes or nothing, and a file that cannot be used stays as it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.errors import StoreError
from fsctl.model.addresses import BITS, Prefix
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match
from fsctl.model.fib import Change, Fib, change_of
from fsctl.model.network import Address
from fsctl.status import InterfaceChange
from fsctl.store import Override, SqliteStore, Stored
from fsctl.store_file import MIGRATIONS

NEAR, FAR = Forward("eth1", 0x0200_0000_0001), Forward("eth2", 0x0200_0000_0002)
ROUTE = Match("eth0", Prefix.parse("10.0.2.0/24"))


def write(store: SqliteStore, fib: Fib, changes: list[Change], router: str = "vr1") -> int:
    """A write as the controller does it: the store first, then the FIB."""
    nexthops = fib.new_nexthops(changes)
    revision = store.commit(router, changes, nexthops)
    for number, nexthop in nexthops.items():
        fib.add_nexthop(number, nexthop)
    for change in changes:
        fib.apply(change)
    return revision


def contents(fib: Fib) -> set[Delegation]:
    return set(fib)


def loaded(path: Path) -> Stored:
    store = SqliteStore(str(path))
    try:
        return store.load()
    finally:
        store.close()


def test_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "a" / "new" / "directory" / "fsctl.db"
    assert loaded(path) == Stored({}, {}, 0)
    assert path.is_file()


@pytest.mark.parametrize("memory", [False, True])
def test_writes_count_and_last(tmp_path: Path, memory: bool) -> None:
    path = ":memory:" if memory else str(tmp_path / "fsctl.db")
    store, fib = SqliteStore(path), Fib()
    assert store.load().revision == 0
    assert write(store, fib, [change_of(ROUTE, NEAR)]) == 1
    assert write(store, fib, [change_of(ROUTE, FAR), change_of(Match("eth0", Prefix.parse("::/0")), PUNT)]) == 2
    again = store.load()
    assert (contents(again.fibs["vr1"]), again.revision) == (contents(fib), 2)
    store.close()
    if not memory:
        assert contents(loaded(tmp_path / "fsctl.db").fibs["vr1"]) == contents(fib)


MATCHES = st.sampled_from(
    [
        Match(in_port, Prefix(version, 0, length), eth_src)
        for in_port in ("eth0", "eth1")
        for version in BITS
        for length in (0, 1, BITS[version])
        for eth_src in (None, 0, (1 << 48) - 1)
    ]
    + [
        Match("eth0", Prefix.host(v, (1 << BITS[v]) - 1), None, FiveTuple(v, src, (1 << BITS[v]) - 1, 6, 0, port))
        for v in BITS
        for src in (0, (1 << BITS[v]) - 1)
        for port in (0, 65535)
    ]
)
VERDICTS = st.sampled_from([None, PUNT, DROP, NEAR, FAR, Forward("eth1", (1 << 48) - 1)])
WRITES = st.lists(
    st.tuples(st.sampled_from(("vr1", "vr2")), st.dictionaries(MATCHES, VERDICTS, max_size=8), st.booleans()), max_size=6
)


@given(WRITES)
def test_any_history_is_loaded_as_it_ended(history: list[tuple[str, dict[Match, object], bool]]) -> None:
    """The third value of a write: the controller starts anew after it."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/fsctl.db"
        store, fibs = SqliteStore(path), {"vr1": Fib(), "vr2": Fib()}
        store.load()
        for router, wanted, restarts in history:
            changes = [change_of(match, verdict) for match, verdict in wanted.items()]  # type: ignore[arg-type]
            write(store, fibs[router], changes, router)
            if restarts:
                store.close()
                store = SqliteStore(path)
                again = store.load().fibs
                assert {r: contents(again.get(r, Fib())) for r in fibs} == {r: contents(fib) for r, fib in fibs.items()}
                fibs = {r: again.get(r, Fib()) for r in fibs}
        end = store.load()
        store.close()
        assert {r: contents(end.fibs.get(r, Fib())) for r in fibs} == {r: contents(fib) for r, fib in fibs.items()}
        assert end.revision == len(history)


def test_a_moved_next_hop_takes_its_delegations_along(tmp_path: Path) -> None:
    store, fib = SqliteStore(str(tmp_path / "fsctl.db")), Fib()
    store.load()
    write(store, fib, [change_of(Match("eth0", Prefix.parse(f"10.0.{n}.0/24")), NEAR) for n in range(3)])
    number = fib.number(NEAR)
    moved = Forward("eth1", 0x0200_0000_0099)
    store.commit("vr1", [], {number: moved})
    fib.move_nexthop(number, moved)
    write(store, fib, [change_of(ROUTE, NEAR)])  # the old next hop again: another number
    store.close()
    assert contents(loaded(tmp_path / "fsctl.db").fibs["vr1"]) == contents(fib)
    assert {d.verdict for d in fib} == {moved, NEAR}


def test_next_hops_without_delegations_are_forgotten(tmp_path: Path) -> None:
    store, fib = SqliteStore(str(tmp_path / "fsctl.db")), Fib()
    store.load()
    write(store, fib, [change_of(ROUTE, NEAR)])
    write(store, fib, [change_of(ROUTE, FAR)])
    assert list(store.load().fibs["vr1"].nexthops.values()) == [FAR]
    store.close()


def test_interfaces(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "fsctl.db"))
    addresses = (Address.parse("10.0.1.1/24"), Address.parse("fd00::1/64"))
    assert store.commit_interface(InterfaceChange("vr1", "eth0", addresses)) == 1
    assert store.commit_interface(InterfaceChange("vr1", "eth0", mtu=1400)) == 2
    assert store.commit_interface(InterfaceChange("vr1", "eth1", ())) == 3
    store.close()
    expected = {("vr1", "eth0"): Override(addresses, 1400), ("vr1", "eth1"): Override((), None)}
    assert loaded(tmp_path / "fsctl.db").interfaces == expected


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store, fib = SqliteStore(str(tmp_path / "fsctl.db")), Fib()
    store.load()
    write(store, fib, [change_of(ROUTE, NEAR)])
    too_large = Forward("eth1", 1 << 64)
    with pytest.raises(StoreError, match="nothing was changed"):
        store.commit("vr1", [change_of(Match("eth0", Prefix.parse("10.0.3.0/24")), FAR)], {2: FAR, 3: too_large})
    assert contents(store.load().fibs["vr1"]) == contents(fib)
    with pytest.raises(KeyError):  # a next hop without a number is the caller's mistake
        store.commit("vr1", [change_of(ROUTE, PUNT), change_of(Match("eth1", Prefix.parse("::/0")), FAR)], {})
    assert write(store, fib, [change_of(ROUTE, FAR)]) == 2
    store.close()
    assert contents(loaded(tmp_path / "fsctl.db").fibs["vr1"]) == contents(fib)


def test_a_killed_process_leaves_whole_writes(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: every answered write is there, none by half."""
    path = tmp_path / "fsctl.db"
    program = """
import sys
from fsctl.model.fib import Change
from fsctl.model.delegations import DROP
from fsctl.store import SqliteStore
store = SqliteStore(sys.argv[1])
store.load()
for n in range(100000):
    store.commit("vr1", [Change(("eth0", 4, None), (n * 100 + i) << 8 | 32, DROP) for i in range(100)], {})
    print(n, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    answered = [next(writer.stdout) for _ in range(20)]
    writer.kill()
    answered += writer.stdout.readlines()
    writer.stdout.close()
    writer.wait()
    stored = loaded(path)
    assert len(stored.fibs["vr1"]) == stored.revision * 100
    assert stored.revision - len(answered) in (0, 1)


def made(path: Path) -> bytes:
    """A store with something in it, closed."""
    store = SqliteStore(str(path))
    store.load()
    drops = [Change(("eth0", 4, None), n << 8 | 32, DROP) for n in range(2000)]
    store.commit("vr1", drops, {})
    store.close()
    return path.read_bytes()


def refused(path: Path, words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match=words) as caught:
        SqliteStore(str(path))
    assert path.read_bytes() == before
    assert str(path) in str(caught.value)
    with pytest.raises(StoreError, match=words):  # and the lock was given back
        SqliteStore(str(path))


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fsctl.db"
    good = made(path)
    for damage in (good[:5000], good[: len(good) // 2], good[:8192] + b"\xff" * 512 + good[8704:], b"\0" * 100 + good[100:]):
        path.write_bytes(damage)
        refused(path, "damaged|no database")
    path.write_bytes(b"this is a text file, not a database\n" * 10)
    refused(path, "no database")
    path.write_bytes(good)
    assert len(loaded(path).fibs["vr1"]) == 2000


def test_a_newer_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fsctl.db"
    made(path)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    refused(path, f"newer fsctl .format {len(MIGRATIONS) + 1}")


def test_somebody_elses_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    refused(path, "not fsctl's")


def test_one_process_only(tmp_path: Path) -> None:
    path = tmp_path / "fsctl.db"
    first = SqliteStore(str(path))
    with pytest.raises(StoreError, match=f"process {os.getpid()} uses this store"):
        SqliteStore(str(path))
    first.close()
    assert loaded(path).revision == 0


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="directory cannot be made"):
        SqliteStore(str(tmp_path / "file" / "fsctl.db"))
    (tmp_path / "isdir.db").mkdir()
    with pytest.raises(StoreError):
        SqliteStore(str(tmp_path / "isdir.db"))
