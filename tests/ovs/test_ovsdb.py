"""OvsdbLinks against a real ovsdb-server and ovs-vswitchd (dummy datapath): what it shows, makes and keeps."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ovsdb_lab import CONTROLLER, Box, are_made, pairs, stepping

from fsctl.errors import UnavailableError
from fsctl.openflow.rules import TABLES
from fsctl.ovsdb import INACTIVITY_PROBE_MS, OvsdbLinks, link_name
from tests.waiting import eventually
from topologies.sandbox import DATABASE, available

pytestmark = [pytest.mark.ovs, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def links(box: Box) -> Iterator[OvsdbLinks]:
    with stepping(box) as value:
        eventually(lambda: value.ready, "the database's contents")
        eventually(lambda: ("br-b", "br-b-p1") in value.view().ports, "ports")
        yield value


def test_view_shows_ports_as_ovsdb_has_them(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("set", "interface", "br-a-p1", "external_ids:attached-mac=02:00:00:00:00:01", "external_ids:iface-id=vm1",
              "--", "set", "port", "br-a-p2", "tag=7", "--", "set", "interface", "br-b-p1",
              "external_ids:attached-mac=nonsense", "mtu_request=9000")  # fmt: skip
    eventually(lambda: links.view().ports["br-b", "br-b-p1"].mtu == 9000, "MTU")
    view = links.view()
    assert view.is_known
    assert list(view.bridges) == ["br-a", "br-b"]
    assert list(view.ports) == sorted(view.ports)
    first = view.ports["br-a", "br-a-p1"]
    assert (first.attached_mac, first.iface_id, first.unfit, first.mtu) == (0x020000000001, "vm1", "", 1500)
    assert first.uuid == box.get("interface", "br-a-p1", "_uuid")
    assert view.ports["br-a", "br-a-p2"].exempt
    assert view.ports["br-b", "br-b-p1"].attached_mac is None
    assert view.links == {}


def test_a_change_is_told_once_and_makes_a_new_view(box: Box, links: OvsdbLinks) -> None:
    seen: list[int] = []
    links.on_change(lambda: seen.append(len(links.view().ports)))
    before = links.view()
    copy = dict(before.ports)
    box.vsctl("--no-wait", "add-port", "br-a", "new0", "--", "set", "interface", "new0", "type=dummy")
    eventually(lambda: seen and seen[-1] == len(copy) + 1, "added")
    assert before.ports == copy
    box.vsctl("--no-wait", "del-port", "new0")
    eventually(lambda: seen[-1] == len(copy), "removed")
    told = len(seen)
    box.vsctl("set", "bridge", "br-a", "external_ids:nobody=cares", "--", "set", "port", "br-a-p1", "other_config:x=y")
    time.sleep(0.3)
    assert len(seen) == told


def test_manage_makes_bridges_controllable(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("set", "bridge", "br-a", "protocols=OpenFlow13", "fail_mode=standalone")
    before = box.dump()
    time.sleep(0.2)
    assert box.dump() == before, "nothing is written before `manage`"
    links.manage(["br-a", "br-none"], CONTROLLER)
    eventually(lambda: box.vsctl("get-controller", "br-a").split() == [CONTROLLER], "controller")
    assert box.get("bridge", "br-a", "fail_mode") == "secure"
    assert set(box.get("bridge", "br-a", "protocols").strip("[]").split(", ")) == {"OpenFlow13", "OpenFlow14"}
    assert box.column("controller", "inactivity_probe") == [str(INACTIVITY_PROBE_MS)]
    assert box.column("controller", "connection_mode") == ["out-of-band"]
    assert box.column("flow_table", "prefixes") == ["ipv6_dst", "nw_dst", "nw_src"] * len(TABLES)
    before = box.dump()
    links.manage(["br-a"], CONTROLLER)
    time.sleep(0.2)
    assert box.dump() == before
    assert not links.repairs
    box.add_bridge("br-none")
    links.manage(["br-a", "br-none"], CONTROLLER)
    eventually(lambda: box.vsctl("get-controller", "br-none").split() == [CONTROLLER], "a bridge that came later")


def test_manage_keeps_what_an_operator_has_set(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("clear", "bridge", "br-b", "protocols", "--", "set-controller", "br-b", CONTROLLER, "tcp:127.0.0.1:6698",
              "--", "--id=@t", "create", "flow_table", "name=theirs", "--", "set", "bridge", "br-b", "flow_tables:1=@t",
              "flow_tables:9=@t", "--", "clear", "bridge", "br-b", "fail_mode")  # fmt: skip
    for row in box.column("controller", "_uuid"):
        box.vsctl("set", "controller", row, "inactivity_probe=7000")
    links.manage(["br-b"], CONTROLLER)
    eventually(lambda: box.get("bridge", "br-b", "fail_mode") == "secure", "settings")
    assert set(box.vsctl("get-controller", "br-b").split()) == {CONTROLLER, "tcp:127.0.0.1:6698"}
    assert box.get("bridge", "br-b", "protocols") == "[]"
    assert set(box.column("controller", "inactivity_probe")) == {"7000"}
    theirs = box.get("flow_table", "theirs", "_uuid")
    tables = box.get("bridge", "br-b", "flow_tables")
    assert f"1={theirs}" in tables
    assert f"9={theirs}" in tables
    assert box.get("flow_table", "theirs", "prefixes") == "[]"


def test_link_is_a_patch_pair_that_nothing_floods_into(box: Box, links: OvsdbLinks) -> None:
    links.manage(["br-a", "br-b"], CONTROLLER)
    links.want(pairs(("br-a", "br-b")))
    eventually(lambda: are_made(links, ("br-a", "br-b")), "patch ports")
    here, there = link_name("br-a", "br-b"), link_name("br-b", "br-a")
    assert links.view().links == {"br-a": {"br-b": here}, "br-b": {"br-a": there}}
    assert ("br-a", here) not in links.view().ports
    assert links.view().link_problems == {}
    assert max(map(len, (here, there))) <= 15
    box.ofctl("add-flow", "br-a", "priority=0,actions=NORMAL")
    flood = box.appctl("ofproto/trace", "br-a", "in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:99")
    assert "flooding" in flood
    assert "br-b" not in flood
    assert box.goes_through("br-a", "br-b")


def test_links_of_an_earlier_fsctl_are_taken_over(box: Box, links: OvsdbLinks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsctl.ovsdb.worker.LINK_LINGER_S", 0.3)
    box.make_first_edition_link("br-a", "br-b")
    box.add_bridge("br-c")
    box.make_first_edition_link("br-b", "br-c")
    links.manage(["br-a", "br-b", "br-c"], CONTROLLER)
    eventually(lambda: "stp-enable" in box.get("port", link_name("br-c", "br-b"), "other_config"), "made safe")
    time.sleep(0.5)
    assert are_made(links, ("br-a", "br-b"), ("br-b", "br-c")), "nobody has said that they are not wanted"
    links.want(pairs(("br-a", "br-b")))
    eventually(lambda: "br-c" not in links.view().links, "removed")
    assert CONTROLLER in box.get("port", link_name("br-a", "br-b"), "external_ids")
    assert not links.repairs


def test_an_fsctl_that_listens_elsewhere_now_leaves_no_controller_behind(box: Box, links: OvsdbLinks) -> None:
    links.manage(["br-a", "br-b"], CONTROLLER)
    links.want(pairs(("br-a", "br-b")))
    eventually(lambda: are_made(links, ("br-a", "br-b")), "patch ports")
    links.manage(["br-a", "br-b"], "tcp:127.0.0.1:6697")
    eventually(lambda: box.column("controller", "target") == ["tcp:127.0.0.1:6697"] * 2, "one controller each")
    eventually(lambda: "6697" in box.get("port", link_name("br-a", "br-b"), "external_ids"), "the links' owner")
    assert are_made(links, ("br-a", "br-b"))
    assert not links.repairs


def test_database_server_restarts(box: Box, links: OvsdbLinks) -> None:
    links.manage(["br-a", "br-b"], CONTROLLER)
    links.want(pairs(("br-a", "br-b")))
    eventually(lambda: are_made(links, ("br-a", "br-b")), "patch ports")
    old = links.view()
    box.kill(DATABASE)
    time.sleep(0.2)
    assert links.view().links == old.links
    eventually(lambda: "no connection" in links.problem, "told")
    box.start_again(DATABASE)
    box.vsctl("--no-wait", "add-port", "br-a", "after0", "--", "set", "interface", "after0", "type=dummy",
              "--", "del-port", link_name("br-b", "br-a"))  # fmt: skip
    assert eventually(lambda: ("br-a", "after0") in links.view().ports, "seen") < 10.0
    eventually(lambda: links.repairs["link"] == 1, "repaired")
    assert links.problem == ""


def test_no_such_database(tmp_path: Path) -> None:
    away = OvsdbLinks(f"unix:{tmp_path}/none.sock")
    with pytest.raises(UnavailableError, match=r"none\.sock"):
        away.wait_ready(0.2)
    assert not away.ready
    assert not away.view().is_known
    away.want(pairs(("br-a", "br-b")))


def test_a_mistake_ends_no_loop(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsctl.ovsdb.worker.MISTAKE_PAUSE_S", 0.01)
    with stepping(box) as links:
        eventually(lambda: links.ready, "ready")
        raised = []

        def fail() -> None:
            if len(raised) < 3:
                raised.append(1)
                raise KeyError("a mistake")

        links.on_change(fail)
        box.add_bridge("br-c")
        eventually(lambda: len(raised) == 3, "three mistakes")
        links.manage(["br-c"], CONTROLLER)
        eventually(lambda: CONTROLLER in box.vsctl("get-controller", "br-c"), "goes on")


def test_nothing_to_do_costs_nothing(box: Box, links: OvsdbLinks, monkeypatch: pytest.MonkeyPatch) -> None:
    """No comparison while neither rows nor wants have changed, and a step that takes microseconds."""
    links.manage(["br-a", "br-b"], CONTROLLER)
    links.want(pairs(("br-a", "br-b")))
    eventually(lambda: are_made(links, ("br-a", "br-b")), "patch ports")
    time.sleep(0.5)
    compared: list[float] = []
    compare = links._compare
    monkeypatch.setattr(links, "_compare", lambda now: (compared.append(now), compare(now))[1])
    start = time.process_time()
    for _ in range(1_000):
        links.step()
    spent = time.process_time() - start
    assert len(compared) <= 2
    assert spent / 1_000 < 0.002


GREEN = """
import eventlet
eventlet.monkey_patch(thread=False)  # as ryu-manager does
import sys, time
from fsctl.ovsdb import OvsdbLinks
links = OvsdbLinks(sys.argv[1], sleep=eventlet.sleep)
gaps, stop = [0.0], []
def tick():
    last = time.monotonic()
    while not stop:
        eventlet.sleep(0.001)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
eventlet.spawn(tick)
loop = eventlet.spawn(links.run, lambda: bool(stop))
links.on_change(lambda: links.want(frozenset([frozenset(["br-a", "br-b"])])))
links.manage(["br-a", "br-b"], "tcp:127.0.0.1:6699")
while not links.view().links:
    eventlet.sleep(0.01)
stop.append(1)
loop.wait()
assert len(gaps) > 10 and max(gaps) < 0.5, (len(gaps), max(gaps))
print(sorted(links.view().links))
"""


def test_green_threads_are_not_blocked(box: Box) -> None:
    command = [sys.executable, "-c", GREEN, box.remote]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['br-a', 'br-b']"
