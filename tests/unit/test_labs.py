"""The parts of the labs that need no machine: plan, cache, kernel images, traces, snapshots, reports."""

from __future__ import annotations

import json
import lzma
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from topologies.labs import cache, debian, report, station
from topologies.labs.fsctl_setup import Tokens, configuration
from topologies.labs.measure import RTT, TCP, UDP, Run, Sample
from topologies.labs.plan import DIRECT, SPARE, Nic, Plan, destination, way_back
from topologies.labs.qmp import Qmp
from topologies.labs.remote import LabError
from topologies.labs.vm import qemu, snapshot
from topologies.labs.vm.__main__ import up_after
from topologies.labs.vm.lab import Saved, copy_database
from topologies.labs.vm.qemu import EMULATION, KVM
from topologies.labs.xen.lab import domain_config
from topologies.labs.xen.page import write_page


def test_every_card_has_a_mac_of_its_own() -> None:
    macs = [nic.mac for guest in Plan(3).guests for nic in guest.nics] + [SPARE.mac]
    assert len(macs) == len(set(macs))


@pytest.mark.parametrize("chain", [1, 2, 3])
def test_destination_is_behind_as_many_routers_as_its_name_says(chain: int) -> None:
    plan = Plan(3)
    foot = next(nic for nic in plan.nodeb.nics if nic.address.split("/")[0] == destination(chain))
    assert foot.bridge == plan.routers[chain - 1].nics[1].bridge
    assert way_back(chain).endswith(plan.routers[chain - 1].nics[1].address.split("/")[0])


def test_direct_destination_is_on_nodeas_bridge() -> None:
    plan = Plan(1)
    assert plan.nodeb.nics[0].address.startswith(destination(DIRECT))
    assert plan.nodeb.nics[0].bridge == plan.nodea.nics[0].bridge


def test_guest_reads_its_network_from_the_kernel_command_line() -> None:
    words = Plan(2).routers[0].command_line().split()
    assert "lab.nic=00:16:3e:00:01:00,eth0,10.0.1.1/24" in words
    assert "lab.route=10.0.3.0/24,10.0.2.254" in words
    assert words[-1] == "lab.router"


def test_configuration_declares_macs_and_no_ports(tmp_path: Path) -> None:
    from fsctl import config  # noqa: PLC0415 - the labs themselves do without

    plan = Plan(3)
    path = tmp_path / "fsctl.yaml"
    path.write_text(configuration(plan, Tokens.for_plan(plan), store=":memory:", ovsdb="unix:/run/db.sock"))
    loaded = config.load(path)
    assert set(loaded.routers) == {"vr1", "vr2", "vr3"}
    assert [i.port for i in loaded.routers["vr1"].interfaces.values()] == [None, None, None]


def test_domain_uses_the_hotplug_script_for_every_vif() -> None:
    guest = Plan(1).routers[0]
    assert domain_config(guest).count("script=vif-fsctl") == len(guest.nics)


def test_interrupted_build_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSCTL_LAB_CACHE", str(tmp_path))

    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.build("thing", "0123456789ab", broken)
    assert not (tmp_path / "thing-0123456789ab").exists()
    built = cache.build("thing", "0123456789ab", lambda path: path.write_text("whole") and None)
    assert built.read_text() == "whole"
    cache.build("thing", "ba9876543210", lambda path: path.write_text("newer") and None)
    assert not built.exists()


def test_kernel_is_taken_out_of_its_bzimage() -> None:
    elf = b"\x7fELF" + bytes(100)
    payload = lzma.compress(elf) + struct.pack("<I", len(elf))
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 0, len(payload))
    assert debian.decompress(debian.bzimage_payload(bytes(image) + payload)) == elf
    with pytest.raises(ValueError, match="not a bzImage"):
        debian.bzimage_payload(bytes(2048))


def test_station_answers_with_output_and_status() -> None:
    assert station.answer({"shell": "echo out; echo err >&2; exit 3"}) == {"rc": 3, "out": "out\nerr\n"}
    assert station.answer({"shell": "sleep 5", "timeout": 0.1})["rc"] == 124


def test_switches_and_wakes_are_counted_from_a_trace(tmp_path: Path) -> None:
    def record(event: int, *words: int) -> bytes:
        return struct.pack(f"<IQ{len(words)}I", 1 << 31 | len(words) << 28 | event, 7, *words)

    trace = tmp_path / "trace"
    trace.write_bytes(
        record(0x2800A, 0, 0, 3, 0) + record(0x2800A, 3, 0, 3, 0) + record(0x28004, 3, 0) + record(0x2800A, 3, 0, 0x7FFF, 0)
    )
    program = cache.TREE / "topologies/labs/xen/dom0/switches.py"
    done = subprocess.run([sys.executable, program, trace], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"switches": 2, "into": {"3": 1}, "wakes": {"3": 1}, "lost": 0}


def _run() -> Run:
    run = Run("a scheduler")
    for chain, bypass, factor in ((DIRECT, False, 2.0), (1, False, 1.0), (1, True, 2.0)):
        for kind, size in ((TCP, 256), (TCP, 65536), (UDP, 64), (UDP, 1500)):
            ttl = (64 - chain, 64 - chain) if kind == UDP else None
            run.samples.append(Sample(kind, chain, bypass, size, 100 * factor, 0 if bypass else 9, ttl))
        run.samples.append(Sample(RTT, chain, bypass, 0, 1 / factor))
    run.facts["switches"] = [{"chain": 1, "bypass": True, "packets": 5, "switches": 0.5, "wakes": {"dom0": 0.1, "vr1": 0.2}}]
    return run


def test_ratios_are_gains_for_rates_and_for_times() -> None:
    run = _run()
    assert [run.ratio(kind, 1, size) for kind, size in ((TCP, 65536), (UDP, 64), (RTT, 0))] == [2.0, 2.0, 2.0]
    with pytest.raises(LabError, match="no udp sample"):
        run.median(UDP, 3, True, 64)


def test_results_survive_their_file(tmp_path: Path) -> None:
    runs, facts = [_run()], {"date": "today"}
    assert report.load(report.save(runs, facts, tmp_path, "x")) == (runs, facts)


def test_xen_page_says_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    facts = {"date": "today", "lifecycle": [{"what": "xl destroy", "seconds": 0.5, "seen": "back"}]}
    write_page([_run()], facts, tmp_path, lambda _: None)
    page = (tmp_path / "xen.md").read_text()
    assert "| a scheduler | 2.00 | 2.00 |" in page
    assert "| xl destroy | 0.5 | back |" in page
    assert (tmp_path / "xen-throughput.png").stat().st_size > 1000


class FakeLab:
    """Stands for a VmLab; a snapshot is a folder with one file."""

    broken_saves = False

    def __init__(self, plan: Plan, images: object, saved: Path | None = None) -> None:
        self.set_up_with = (plan, images)
        self.resumed, self.closed, self.calls = saved is not None, False, list[bool]()

    def bypass(self, enabled: bool) -> None:
        self.calls.append(enabled)

    def save(self, folder: Path) -> None:
        folder.mkdir()
        if self.broken_saves:
            raise LabError("no space")
        (folder / "state").write_text("fine")

    def close(self) -> None:
        self.closed = True


def _load_fake(folder: Path) -> Path:
    if (folder / "state").read_text() != "fine":
        raise ValueError("this is no state")
    return folder


@pytest.fixture
def vm_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSCTL_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(snapshot, "VmLab", FakeLab)
    monkeypatch.setattr(snapshot.Saved, "load", _load_fake)
    monkeypatch.setattr(snapshot.Images, "built", lambda: None)
    monkeypatch.setattr(snapshot, "_key", lambda *_: "0123456789ab")
    return tmp_path / "vm-1-0123456789ab"


def test_vm_lab_boots_once_and_is_resumed_from_then_on(vm_cache: Path) -> None:
    booted, resumed = snapshot.lab(Plan(1)), snapshot.lab(Plan(1))
    assert (booted.resumed, resumed.resumed) == (False, True)
    assert booted.calls == [True], "agents have delegated before it is saved"
    assert not booted.closed


def test_vm_snapshot_that_cannot_be_resumed_is_made_anew(vm_cache: Path) -> None:
    said: list[str] = []
    snapshot.lab(Plan(1))
    (vm_cache / "state").write_text("torn")
    assert not snapshot.lab(Plan(1), said.append).resumed
    assert "cannot be resumed: this is no state" in " ".join(said)
    assert snapshot.lab(Plan(1)).resumed


def test_vm_lab_that_cannot_be_saved_runs_all_the_same(vm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(FakeLab, "broken_saves", True)
    running = snapshot.lab(Plan(1), said.append)
    assert (running.resumed, running.closed) == (False, False)
    assert "going on without a snapshot: no space" in said
    assert not vm_cache.exists()


def test_vm_lab_that_is_interrupted_while_saved_is_ended(vm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeLab] = []

    def interrupted(lab: FakeLab, folder: Path) -> None:
        made.append(lab)
        sys.exit(143)

    monkeypatch.setattr(FakeLab, "save", interrupted)
    with pytest.raises(SystemExit):
        snapshot.lab(Plan(1))
    assert made[0].closed


def test_saved_vm_lab_survives_its_file(tmp_path: Path) -> None:
    saved = Saved(tmp_path, Tokens.for_plan(Plan(2)), 20.5)
    saved.write()
    assert Saved.load(tmp_path) == saved


def _key(accelerated: tuple[str, ...], cpuinfo: str = "", plan: Plan | None = None, qemu: str = "7.2") -> str:
    kernel = SimpleNamespace(root=Path("linux-image-6.1-abc"))
    images = SimpleNamespace(kernel=kernel, host=Path("host.cpio.gz-1"), router=Path("router.cpio.gz-2"))
    return snapshot.key(images, plan or Plan(1), accelerated, qemu, cpuinfo)  # type: ignore[arg-type]


def test_vm_snapshot_is_for_one_length_one_qemu_and_with_kvm_one_processor() -> None:
    this = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2000.1\nflags\t\t: fpu vme\n\nprocessor\t: 1\nmodel name\t: A\n"
    other = this.replace("name\t: A", "name\t: B")
    faster = this.replace("2000.1", "2600.0")
    assert _key(EMULATION, this) == _key(EMULATION, other)
    assert _key(KVM, this) == _key(KVM, faster)
    keys = [
        _key(EMULATION), _key(EMULATION, plan=Plan(2)), _key(EMULATION, qemu="8.0"),
        _key(KVM, this), _key(KVM, other), _key(KVM, this.replace("vme", "vme avx")),
    ]  # fmt: skip
    assert len(keys) == len(set(keys))


class FakeQemu:
    """Answers a QMP client with prepared lines, then ends."""

    def __init__(self, path: Path, *answers: object) -> None:
        self._listener = socket.create_server(str(path), family=socket.AF_UNIX)
        self.asked: list[dict[str, object]] = []
        self._thread = threading.Thread(target=self._serve, args=(answers,), daemon=True)
        self._thread.start()

    def _serve(self, answers: tuple[object, ...]) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener, connection.makefile("rw") as file:
            file.write('{"QMP": {"version": {}, "capabilities": []}}\n')
            for answer in ({"return": {}}, *answers):
                file.flush()
                self.asked.append(json.loads(file.readline()))
                file.write('{"event": "STOP"}\n' + json.dumps(answer) + "\n")


def test_qmp_passes_over_events_and_tells_what_qemu_refuses(tmp_path: Path) -> None:
    refusal = {"error": {"class": "GenericError", "desc": "not now"}}
    fake = FakeQemu(tmp_path / "qmp", {"return": {"status": "paused"}}, refusal)
    qmp = Qmp(tmp_path / "qmp")
    assert qmp.ask("query-status") == {"status": "paused"}
    with pytest.raises(LabError, match="QEMU refused migrate: not now"):
        qmp.ask("migrate", {"uri": "exec:false"})
    with pytest.raises(LabError, match="cont"):
        qmp.ask("cont")
    assert [request["execute"] for request in fake.asked] == ["qmp_capabilities", "query-status", "migrate"]


class FakeHost:
    """Notes what it would plug in and start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plugged, self.started = folder, list[tuple[str, Nic]](), dict[str, list[str]]()

    def plug(self, tap: str, nic: Nic) -> None:
        self.plugged.append((tap, nic))

    def spawn(self, name: str, argv: list[str]) -> None:
        self.started[name] = argv


def test_machine_with_a_saved_state_waits_until_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "accelerator", lambda _: EMULATION)
    images = qemu.Images(SimpleNamespace(image=Path("vmlinuz")), Path("host"), Path("router"))  # type: ignore[arg-type]
    booting, resuming, guest = FakeHost(tmp_path), FakeHost(tmp_path), Plan(1).nodea
    qemu.Machine(booting, guest, images)  # type: ignore[arg-type]
    qemu.Machine(resuming, guest, images, state=Path("/a cache/nodea.state"))  # type: ignore[arg-type]
    waits = ["-S", "-incoming", "exec:cat '/a cache/nodea.state'"]
    assert resuming.started == {"nodea": [*booting.started["nodea"], *waits]}
    assert resuming.plugged == [(f"nodea.{number}", nic) for number, nic in enumerate(guest.nics)]


def test_database_is_copied_while_it_is_in_use(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old", isolation_level=None)) as used:
        used.execute("PRAGMA journal_mode = WAL")
        used.execute("PRAGMA user_version = 2")
        used.execute("CREATE TABLE t (x)")
        used.execute("INSERT INTO t VALUES (7)")
        copy_database(tmp_path / "old", tmp_path / "new")
        used.execute("INSERT INTO t VALUES (8)")
    assert sorted(file.name for file in tmp_path.glob("new*")) == ["new"]
    with closing(sqlite3.connect(tmp_path / "new")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(7,)]
        assert copy.execute("PRAGMA user_version").fetchone() == (2,)


def test_vm_conditions_tell_whether_guests_were_booted_or_resumed() -> None:
    booted = SimpleNamespace(resumed=False, up_s=21.04, booted_s=21.04)
    resumed = SimpleNamespace(resumed=True, up_s=4.4, booted_s=21.04)
    assert up_after(booted) == "21.0, booted"  # type: ignore[arg-type]
    assert up_after(resumed) == "4.4, resumed from a snapshot and bypassed again (booted: 21.0)"  # type: ignore[arg-type]
