"""The parts of the labs that need no machine: plan, cache, kernel images, traces, reports."""

from __future__ import annotations

import json
import lzma
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from topologies.labs import cache, debian, report, station
from topologies.labs.fsctl_setup import Tokens, configuration
from topologies.labs.measure import RTT, TCP, UDP, Run, Sample
from topologies.labs.plan import DIRECT, SPARE, Plan, destination, way_back
from topologies.labs.remote import LabError
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
