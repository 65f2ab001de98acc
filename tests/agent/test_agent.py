"""The whole agent as a process of its own in a router's namespace, against a fake fsctl on a real socket."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fsctl.errors import UnavailableError
from fsctl.model.fib import Fib
from tests.waiting import PATIENCE_S, eventually

from .guest import Guest, mac
from .netns import needs_root

pytestmark = needs_root
LARGE, SLOW_S = 20_000, 8.0


def test_routes_and_neighbours_become_flows_and_go_with_them(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    far, near = {"10.9.0.0/16": mac(guest, 1)}, {"10.0.1.9/32": mac(guest, 1)}
    guest.waits_for(far | near)  # the gateway was resolved on purpose: nobody has sent it a packet
    guest.ns.ip("route add 10.8.0.0/16 via 10.0.1.9")
    guest.waits_for(far | near | {"10.8.0.0/16": mac(guest, 1)})
    guest.ns.ip("route add blackhole 10.8.7.0/24")
    guest.waits_for(far | near | {"10.8.0.0/16": mac(guest, 1), "10.8.7.0/24": "punt"})
    guest.ns.ip("route del 10.8.7.0/24")
    guest.ns.ip("route del 10.8.0.0/16")
    guest.waits_for(far | near)
    guest.ns.ip("link set r1 down")
    guest.waits_for({})


def test_hazard_13_neighbours_in_use_are_kept_alive(guest: Guest) -> None:
    for key, value in (("base_reachable_time_ms", 400), ("delay_first_probe_time", 1), ("retrans_time_ms", 50)):
        guest.ns.sysctl(f"ipv4/neigh/r1/{key}", str(value))
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    guest.waits_for({"10.9.0.0/16": mac(guest, 1), "10.0.1.9/32": mac(guest, 1)})
    guest.hosts.ip("addr del 10.0.1.9/24 dev h1")
    guest.waits_for({})  # found out by the kernel's own probes: no packet was sent to it
    guest.hosts.ip("addr add 10.0.1.9/24 dev h1")
    guest.ns.run("ping -c 1 -W 1 10.0.1.9", check=False)  # as the router's traffic would, which it has again
    guest.waits_for({"10.9.0.0/16": mac(guest, 1), "10.0.1.9/32": mac(guest, 1)})
    assert "managed" not in guest.neigh("10.0.1.9"), "the agent changes no entry"


def test_hazard_14_a_changed_mac_follows(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    guest.waits_for({"10.9.0.0/16": mac(guest, 1), "10.0.1.9/32": mac(guest, 1)})
    before = len(guest.patches())
    guest.hosts.ip("link set h1 address 02:aa:00:00:00:01")
    guest.ns.ip("neigh replace 10.0.1.9 lladdr 02:aa:00:00:00:01 dev r1 nud reachable")
    guest.waits_for({"10.9.0.0/16": "02:aa:00:00:00:01", "10.0.1.9/32": "02:aa:00:00:00:01"})
    assert [flows for _, _, flows in guest.patches()[before:]] == [2 * 2], "one PATCH of both, for each interface"


def test_hazard_08_a_firewall_ends_the_bypass_with_a_reason(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(guest.flows, "no flows")
    guest.ns.run("nft add table ip f")
    guest.ns.run("nft add chain ip f forwarded { type filter hook forward priority 0 ; policy drop ; }")
    guest.waits_for({})
    eventually(lambda: guest.fake.session and guest.fake.session.reasons, "the reason is shown on the router")
    assert guest.fake.session is not None
    assert guest.fake.session.reasons[0]["name"] == "firewall"
    assert "policy drop [firewall]" in guest.status()
    guest.ns.run("nft flush ruleset")
    eventually(guest.flows, "bypassed again")


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="no iptables-legacy")
def test_hazard_08_the_older_iptables_is_inspected_without_more_capabilities(guest: Guest) -> None:
    guest.ns.run("iptables-legacy -A INPUT -p tcp", check=False)
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(guest.flows, "an older table without rules for forwarded packets is no obstacle")
    assert "inspect" not in guest.status()


def test_hazard_30_killed_it_loses_its_flows_and_ended_it_withdraws_them(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    process = guest.start()
    eventually(guest.flows, "no flows")
    process.kill()
    eventually(lambda: guest.fake.tick() or not guest.flows(), "the lease ends")
    second = guest.start()
    eventually(guest.flows, "no flows again")
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE_S) == 0
    assert guest.flows() == {}
    assert guest.fake.session is None


def test_a_second_agent_is_refused(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(guest.flows, "no flows")
    same_place = guest.start()
    assert same_place.wait(PATIENCE_S) == 1
    assert "another agent runs here" in (same_place.stderr.read() if same_place.stderr else "")
    assert guest.fake.session is not None
    first = guest.fake.session.id
    elsewhere = guest.start(run_dir=guest.run_dir / "other")
    command = guest.command("status", "--json", "--run-dir", str(guest.run_dir / "other"))

    def problem() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return str(json.loads(done.stdout)["session"]["problem"]) if done.returncode == 0 else ""

    eventually(lambda: "another agent holds this router" in problem(), "refused with 409")
    assert guest.fake.session.id == first
    assert elsewhere.poll() is None, "it stands by"


def test_fsctl_away_and_back_without_its_memory(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(guest.flows, "no flows")
    guest.fake.refuse = lambda _method, _path: UnavailableError("away")
    guest.fake.fib, guest.fake.session = Fib(), None
    guest.ns.ip("route add 10.8.0.0/16 via 10.0.1.9")
    time.sleep(1)
    guest.fake.refuse = lambda _method, _path: None
    guest.waits_for({p: mac(guest, 1) for p in ("10.9.0.0/16", "10.8.0.0/16", "10.0.1.9/32")})


def test_status_for_people_programs_and_prometheus(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(guest.flows, "no flows")
    access = ("--url", guest.url, "--router", "vr1", "--token-file", str(guest.run_dir / "token"))
    text = guest.status("--flows", *access)
    assert "eth0 is r0, eth1 is r1" in text
    assert "10.9.0.0/16" in text
    assert json.loads(guest.status("--json"))["router"] == "vr1"
    assert 'fsctl_bypassed_packets_total{in="eth0",dst="10.9.0.0/16",router="vr1"} 7' in guest.status("--prometheus", *access)


def test_ten_thousand_routes_are_few_calls_and_little_memory(guest: Guest, tmp_path: Path) -> None:
    process = guest.start()
    eventually(lambda: guest.fake.session is not None and guest.fake.session.synced, "no session")
    batch = tmp_path / "routes"
    batch.write_text("".join(f"route add 20.{n >> 8}.{n & 255}.0/24 via 10.0.1.9\n" for n in range(10_000)))
    guest.ns.ip("neigh replace 10.0.1.9 lladdr 02:aa:00:00:00:01 dev r1 nud permanent")
    guest.ns.ip(f"-batch {batch}")
    eventually(lambda: len(guest.fake.fib) == 2 * 10_001, "not all routes arrived")
    calls = [entry for entry in list(guest.fake.log) if entry[1] == "flows"]
    assert len(calls) < 60
    assert guest.rss_kib(process) < 60 * 1024
    batch.write_text(batch.read_text().replace("route add", "route del"))
    guest.ns.ip(f"-batch {batch}")
    eventually(lambda: len(guest.fake.fib) == 2, "not all routes went")


@pytest.mark.skipif(not shutil.which("nft"), reason="no nft")
@pytest.mark.timeout(120)
def test_fault_C4_C8_a_firewall_ends_the_bypass_past_a_slow_write_and_a_large_table(guest: Guest) -> None:
    """The withdrawal waited for the write under way, and for the differences of the whole table."""
    lines = [f"route add 10.{100 + n // 65025}.{n // 255 % 255}.{n % 255}/32 via 10.0.1.9" for n in range(LARGE)]
    subprocess.run(["ip", "-n", guest.ns.name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
    guest.start()
    eventually(lambda: len(guest.fake.fib) > LARGE, "all is delegated", 60.0)
    guest.fake.takes_s = lambda method, path: SLOW_S if (method, path[-6:]) in (("PATCH", "/flows"), ("PUT", "/flows")) else 0.0
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    time.sleep(0.5)  # it is under way
    begun = time.monotonic()
    guest.ns.run("nft add table inet f")
    guest.ns.run("nft add chain inet f forwarded { type filter hook forward priority 0 ; policy drop ; }")
    eventually(lambda: not len(guest.fake.fib), "withdrawn", SLOW_S)
    assert time.monotonic() - begun < SLOW_S / 2
    time.sleep(SLOW_S)
    assert not len(guest.fake.fib), "what was written before does not come back"
