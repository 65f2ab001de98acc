"""What a store refuses (D21), what it does while the disk is full (D9) or somebody else has the file (D19)."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsctl import store_load, store_rows
from fsctl.errors import StoreError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, PUNT, FiveTuple, Forward, Match
from fsctl.model.fib import Change, Fib, change_of
from fsctl.model.network import Address
from fsctl.status import InterfaceChange, Session
from fsctl.store import Commit, SqliteStore
from fsctl.store_file import MIGRATIONS

HOP = Forward("eth1", 0x0200_0000_0001)
OWNER = 1


def drops(count: int, version: int = 4) -> list[Change]:
    shift, length = (8, 32) if version == 4 else (8, 128)
    return [Change(("eth0", version, None), n << shift | length, DROP) for n in range(count)]


def fill(store: SqliteStore) -> None:
    """Something in every table."""
    fib = Fib()
    connection = FiveTuple(4, 1, 2, 6, 3, 4)
    connection6 = FiveTuple(6, 1, 2, 17, 3, 4)
    changes = [
        *drops(300),
        *drops(100, 6),
        change_of(Match("eth0", Prefix.parse("10.0.0.0/8")), HOP),
        change_of(Match("eth1", Prefix.parse("fd00::/8"), 0x0200_0000_0009), PUNT),
        change_of(Match("eth0", Prefix.host(4, 2), None, connection), DROP),
        change_of(Match("eth0", Prefix.host(6, 2), None, connection6), DROP),
    ]
    store.commit("vr1", changes, fib.new_nexthops(changes))
    store.commit_interface(InterfaceChange("vr1", "eth0", (Address.parse("10.0.0.1/8"),), 1400))
    store.commit_session(Session("vr1", "agent", 10.0, 30.0, 0.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "fsctl.db"
    store = SqliteStore(str(path))
    store.set_aside({}, 0)
    store.load()
    fill(store)
    store.close()
    return path


def everything(path: Path) -> object:
    store = SqliteStore(str(path))
    try:
        store.set_aside({"vr1": ("eth0", "eth1")}, 0)
        stored = store.load()
        fibs = {name: set(fib) for name, fib in stored.fibs.items()}
        return fibs, stored.interfaces, stored.revision, store.load_sessions(), list(store.orphans())
    finally:
        store.close()


def change_row(path: Path, statement: str) -> None:
    """As somebody does with sqlite3, who knows how checksums are made."""
    db = sqlite3.connect(path, isolation_level=None)
    db.create_function("seal", -1, store_rows.checksum)
    db.create_function("prefix_seal", 3, store_load._checksum_of_columns)
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.execute(statement)
    db.execute("UPDATE prefix SET checksum = prefix_seal(part, key, verdict)")
    for table, columns in store_load._CHECKED.items():
        db.execute(f"UPDATE {table} SET checksum = seal({', '.join(columns)})")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def refused(path: Path, words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match=words):
        everything(path)
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match=words):  # and the lock was given back
        everything(path)


# --- D21 -----------------------------------------------------------------------------------------------------


def test_fault_D21_an_empty_file_is_refused_and_a_missing_one_made(path: Path) -> None:
    path.write_bytes(b"")
    refused(path, r"empty \(0 bytes\).*move it and fsctl\.db-wal away")
    path.unlink()
    assert everything(path) == ({}, {}, 0, {}, [])
    everything(path)


def test_fault_D21_a_log_without_its_store_is_refused(path: Path) -> None:
    path.unlink()
    log = path.with_name("fsctl.db-wal")
    log.write_bytes(b"the last writes")
    with pytest.raises(StoreError, match=r"fsctl\.db-wal is there"):
        everything(path)
    assert log.read_bytes() == b"the last writes"
    assert not path.exists()


def test_fault_D21_flipped_bits_are_refused_or_mean_nothing(path: Path) -> None:
    """The file is refused as it is, or what is loaded is what was stored."""
    good, whole, dice = path.read_bytes(), everything(path), random.Random(10)
    refusals = 0
    for _ in range(300):
        place, bit = dice.randrange(len(good)), 1 << dice.randrange(8)
        bad = bytearray(good)
        bad[place] ^= bit
        path.write_bytes(bad)
        path.with_name("fsctl.db-wal").unlink(missing_ok=True)
        try:
            found = everything(path)
        except StoreError:
            refusals += 1
            assert path.read_bytes() == bad
        else:
            assert found == whole, f"bit {bit} of byte {place}"
    assert refusals > 50


def killed(path: Path, into: Path) -> None:
    """The files as a killed fsctl leaves them: with a log that nobody has taken into the store."""
    store = SqliteStore(str(path))
    store.set_aside({"vr1": ("eth0", "eth1")}, 0)
    store.load()
    for n in range(10):
        store.commit("vr1", [change_of(Match("eth1", Prefix.parse(f"10.{n}.0.0/16")), DROP)], {})
    into.mkdir()
    for name in ("fsctl.db", "fsctl.db-wal", "fsctl.db.lock"):
        shutil.copy(path.with_name(name), into / name)
    store.close()


def test_fault_D21_flipped_bits_in_the_log_lose_no_write_silently(path: Path, tmp_path: Path) -> None:
    killed(path, tmp_path / "killed")
    whole, dice, refusals = everything(path), random.Random(11), 0
    for n in range(60):
        copy = tmp_path / f"copy{n}" / "fsctl.db"
        shutil.copytree(tmp_path / "killed", copy.parent)
        log = copy.with_name("fsctl.db-wal")
        bad = bytearray(log.read_bytes())
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        log.write_bytes(bad)
        try:
            assert everything(copy) == whole
        except StoreError:
            refusals += 1
            assert log.read_bytes() == bad
    assert refusals > 30


def test_fault_D21_a_log_that_is_missing_is_missed(path: Path, tmp_path: Path) -> None:
    killed(path, tmp_path / "killed")
    copy = tmp_path / "killed" / "fsctl.db"
    copy.with_name("fsctl.db-wal").unlink()
    refused(copy, r"ends at write 2, and write 12 was answered.*fsctl\.db-wal is damaged or missing.*remove fsctl\.db\.lock if")
    copy.with_name("fsctl.db.lock").unlink()  # an older copy, on purpose
    everything(copy)


NONSENSE: dict[str, tuple[str, str]] = {
    "a verdict without next hop": ("UPDATE prefix SET verdict = 77 WHERE key = 32", "next hops that are not there"),
    "a verdict below drop": ("UPDATE prefix SET verdict = -7 WHERE key = 32", "next hops that are not there"),
    "a verdict that is a text": ("UPDATE prefix SET verdict = 'x' WHERE key = 32", "table prefix, row .*'x'"),
    "host bits": ("UPDATE prefix SET key = 256 + 8 WHERE key = 32", "table prefix, row .*264.*host bits"),
    "a length of 40": ("UPDATE prefix SET key = 40 WHERE key = 32", "table prefix, row .*host bits"),
    "a text as prefix": ("UPDATE prefix SET key = 'ten' WHERE key = 32", "table prefix, row .*'ten'"),
    "bytes as IPv4 prefix": ("UPDATE prefix SET key = x'00' WHERE key = 32", "table prefix, row"),
    "a number as IPv6 prefix": ("UPDATE prefix SET key = 1 WHERE length(key) = 17 AND substr(key, -2) = x'0080'", "table prefix"),
    "a short IPv6 prefix": ("UPDATE prefix SET key = x'0080' WHERE substr(key, -2) = x'0180'", "table prefix, row"),
    "a prefix of no part": ("INSERT INTO prefix VALUES (99, 32, 0, 0)", "table prefix.*belong to no router"),
    "a part of no router": ("UPDATE part SET router = 99", "table part, row .*no such router"),
    "version 5": ("UPDATE part SET version = '5x' WHERE version = 4", "table part|damaged"),
    "a negative MAC address": ("UPDATE part SET eth_src = -2 WHERE eth_src >= 0", "table part, row .*MAC address"),
    "a router that is a blob": ("UPDATE router SET name = x'00'", "table router, row .*name"),
    "a next hop's MAC": ("UPDATE nexthop SET eth_dst = 1 << 50", "table nexthop, row .*MAC address"),
    "a next hop's name": ("UPDATE nexthop SET out = x'00'", "table nexthop, row"),
    "a protocol": ("UPDATE connection SET ip_proto = 300 WHERE ip_proto = 6", "table connection, row .*ip_proto"),
    "a port": ("UPDATE connection SET sport = 70000", "table connection, row .*ports"),
    "an address": ("UPDATE connection SET src = 'x'", "table connection, row .*addresses"),
    "an interface's addresses": ("UPDATE interface SET addresses = '10.0.0.1'", "table interface, row .*address/length"),
    "an interface's MTU": ("UPDATE interface SET mtu = 5", "table interface, row .*MTU"),
    "an interface's MTU as text": ("UPDATE interface SET mtu = 'big'", "table interface, row .*MTU"),
    "a session's lease": ("UPDATE session SET lease_s = 'long'", "table session, row .*'long'"),
    "two revisions": ("UPDATE state SET revision = 'many'", "table state, row .*'many'"),
    "no revision": ("DELETE FROM state", "table state.*one row"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_fault_D21_rows_that_mean_nothing_are_refused_by_table_and_row(path: Path, case: str) -> None:
    statement, words = NONSENSE[case]
    change_row(path, statement)
    refused(path, words)


@pytest.mark.parametrize("table", [*store_load._CHECKED, "prefix"])
def test_fault_D21_a_row_with_a_wrong_checksum_is_refused(path: Path, table: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {table} SET checksum = checksum + 1")
    db.close()
    refused(path, f"table {table}, row .*checksum")


def old_file(path: Path, nonsense: str = "") -> None:
    """A file as fsctl wrote it before there were checksums."""
    db = sqlite3.connect(path)
    for step in MIGRATIONS[:2]:
        for statement in step:
            assert isinstance(statement, str)
            db.execute(statement)
    db.execute("INSERT INTO router VALUES (1, 'vr1')")
    db.execute("INSERT INTO part VALUES (1, 1, 'eth0', 4, -1)")
    db.execute("INSERT INTO nexthop VALUES (1, 1, 'eth1', 7)")
    db.execute("INSERT INTO prefix VALUES (1, 32, 1)")
    db.execute("INSERT INTO session VALUES ('vr1', 'agent', 10, 0)")
    if nonsense:
        db.execute(nonsense)
    db.execute(f"PRAGMA application_id = {0x66736374}")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()


def test_a_file_of_the_format_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old_file(path)
    for _ in range(2):
        fibs, _, _, sessions, _ = everything(path)  # type: ignore[misc]
        assert [(str(d.match.dst), d.verdict) for d in fibs["vr1"]] == [("0.0.0.0/32", Forward("eth1", 7))]
        assert sessions["vr1"].lease_s == 10


def test_fault_D21_nonsense_in_an_old_file_leaves_it_old(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old_file(path, "UPDATE prefix SET key = 'ten'")
    with pytest.raises(StoreError, match=r"table prefix, row .*'ten'"):
        everything(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()


# --- D19 -----------------------------------------------------------------------------------------------------


def test_fault_D19_nobody_else_gets_in_while_fsctl_runs(path: Path) -> None:
    store = SqliteStore(str(path))
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT revision FROM state").fetchone()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    store.load()
    began = time.monotonic()
    store.commit("vr1", drops(1), {})
    assert time.monotonic() - began < 3
    other.close()
    store.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "SELECT count(*) FROM prefix"])
def test_fault_D19_a_file_that_somebody_holds_is_refused_at_once(path: Path, statement: str) -> None:
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
    program += "rows = db.execute(sys.argv[2]); rows.fetchone(); print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path), statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"another process .* has the store open"):
            SqliteStore(str(path))
        assert time.monotonic() - began < 3
        other.communicate()
    everything(path)


def test_fault_D19_a_snapshot_of_file_and_log_is_a_backup(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(str(path))
    store.load()
    store.commit("vr1", drops(1000), {})
    copy = tmp_path / "copy" / "fsctl.db"
    copy.parent.mkdir()
    for name in ("fsctl.db", "fsctl.db-wal"):
        shutil.copy(path.with_name(name), copy.with_name(name))
    store.close()
    assert everything(copy) == everything(path)


def test_another_thread_may_use_the_store(path: Path) -> None:
    store, failures = SqliteStore(str(path)), list[BaseException]()

    def work() -> None:
        try:
            store.load()
            store.commit("vr1", drops(5), {})
            store.replace_fib("vr1", Fib())
        except BaseException as e:  # noqa: BLE001 - whatever it is
            failures.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert len(store.load().fibs.get("vr1", Fib())) == 0
    store.close()


# --- D9 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(path: Path) -> Iterator[tuple[SqliteStore, Callable[[], None]]]:
    """A store whose disk is full, and what makes room again."""
    store = SqliteStore(str(path))
    store.load()
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")

    def make_room() -> None:
        store._db.execute("PRAGMA max_page_count = 1000000")

    yield store, make_room
    store.close()


def test_fault_D9_a_full_disk_changes_nothing_and_is_survived(full: tuple[SqliteStore, Callable[[], None]]) -> None:
    store, make_room = full
    before = set(store.load().fibs["vr1"])
    with pytest.raises(StoreError, match="full"):
        store.commit("vr1", drops(50_000), {})
    assert set(store.load().fibs["vr1"]) == before
    make_room()
    store.commit("vr1", drops(50_000), {})
    assert len(store.load().fibs["vr1"]) >= 50_000


def test_fault_D9_what_a_failing_store_missed_is_made_good(full: tuple[SqliteStore, Callable[[], None]]) -> None:
    """The loop goes on with its own FIB, and writes it down whole when the store works again."""
    store, make_room = full
    fib = Fib(d for d in store.load().fibs["vr1"] if d.verdict != DROP)
    changes = drops(50_000)
    with pytest.raises(StoreError):
        store.commit("vr1", changes, fib.new_nexthops(changes))
    fib = Fib()  # a withdrawal, carried out although it could not be stored
    fib.set(Match("eth0", Prefix.parse("10.9.0.0/16")), HOP)
    make_room()
    revision = store.replace_fib("vr1", fib)
    assert set(store.load().fibs["vr1"]) == set(fib)
    more = [change_of(Match("eth0", Prefix.parse("10.8.0.0/16")), HOP)]
    assert store.commit("vr1", more, fib.new_nexthops(more)) == revision + 1
    assert len(store.load().fibs["vr1"]) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
def test_fault_D9_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False).returncode:
        pytest.skip("no tmpfs here")
    store = None
    try:
        store = SqliteStore(str(disk / "fsctl.db"))
        store.load()
        store.commit("vr1", drops(100), {})
        with pytest.raises(StoreError):
            store.commit("vr1", drops(50_000), {})
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        assert store.commit_all([Commit("vr1", [], {}, withdraws=True), Commit("vr2", drops(10), {})]) == 2
        fibs = store.load().fibs
        assert (len(fibs["vr1"]), len(fibs["vr2"])) == (0, 10)
    finally:
        if store is not None:
            store.close()
        subprocess.run(["umount", disk], check=True)
