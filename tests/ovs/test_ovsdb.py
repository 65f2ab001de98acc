"""OvsdbLinks against a real ovsdb-server and ovs-vswitchd (dummy datapath)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsctl.errors import UnavailableError
from fsctl.ovsdb import INACTIVITY_PROBE_MS, OvsdbLinks, link_name
from topologies.sandbox import Sandbox, available

pytestmark = [pytest.mark.ovs, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]
CONTROLLER = "tcp:127.0.0.1:6699"
ROOT = Path(__file__).resolve().parents[2]


class Restartable(Sandbox):
    """A sandbox whose ovsdb-server can go and come back."""

    def stop_database(self) -> None:
        server = self._daemons.pop(0)
        server.terminate()
        server.wait(10)

    def start_database(self) -> None:
        self._spawn("ovsdb-server", str(self.directory / "conf.db"), f"--remote=punix:{self.db_socket}",
                    "--unixctl=" + self._ctl("db"))  # fmt: skip
        self._wait_for(self.db_socket)
        self.vsctl("--retry", "--timeout=20", "--no-wait", "init")


@pytest.fixture
def sandbox() -> Iterator[Restartable]:
    box = Restartable()
    try:
        box.start()
        box.add_bridge("br-a", ports=2)
        box.add_bridge("br-b", ports=1)
        yield box
    finally:
        box.stop()


@pytest.fixture
def links(sandbox: Sandbox) -> Iterator[OvsdbLinks]:
    value = OvsdbLinks(f"unix:{sandbox.db_socket}")
    value.wait_ready()
    yield value
    value.close()


def get(sandbox: Sandbox, table: str, record: str, column: str) -> str:
    return sandbox.vsctl("get", table, record, column).strip().strip('"')


def dump(sandbox: Sandbox) -> str:
    """The whole database but for what ovs-vswitchd keeps counting."""
    columns = {
        "Bridge": "name,ports,controller,fail_mode,protocols,flow_tables",
        "Port": "name,tag,interfaces,external_ids",
        "Interface": "name,type,options,external_ids",
        "Controller": "target,max_backoff,inactivity_probe",
        "Flow_Table": "prefixes",
    }
    return "".join(sandbox.vsctl("-f", "csv", "--columns", c, "list", table) for table, c in columns.items())


def eventually(links: OvsdbLinks, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        links.step()
        time.sleep(0.02)


def test_view_shows_ports_as_ovsdb_has_them(sandbox: Sandbox, links: OvsdbLinks) -> None:
    sandbox.vsctl("set", "interface", "br-a-p1", "external_ids:attached-mac=02:00:00:00:00:01", "external_ids:iface-id=vm1",
                  "--", "set", "port", "br-a-p2", "tag=7", "--", "set", "interface", "br-b-p1",
                  "external_ids:attached-mac=nonsense", "mtu_request=9000")  # fmt: skip
    eventually(links, lambda: links.view().ports["br-b", "br-b-p1"].mtu == 9000)
    view = links.view()
    assert set(view.bridges) == {"br-a", "br-b"}
    first = view.ports["br-a", "br-a-p1"]
    assert (first.attached_mac, first.iface_id, first.unfit, first.mtu) == (0x020000000001, "vm1", "", 1500)
    assert first.uuid == get(sandbox, "interface", "br-a-p1", "_uuid")
    assert view.ports["br-a", "br-a-p2"].exempt
    assert view.ports["br-b", "br-b-p1"].attached_mac is None
    assert view.links == {}


def test_a_change_is_told_once(sandbox: Sandbox, links: OvsdbLinks) -> None:
    links.step()
    seen: list[int] = []
    links.on_change(lambda: seen.append(len(links.view().ports)))
    ports = len(links.view().ports)
    sandbox.vsctl("--no-wait", "add-port", "br-a", "new0", "--", "set", "interface", "new0", "type=dummy")
    eventually(links, lambda: ("br-a", "new0") in links.view().ports)
    assert seen[-1] == ports + 1
    sandbox.vsctl("del-port", "new0")
    eventually(links, lambda: ("br-a", "new0") not in links.view().ports)
    assert seen[-1] == ports
    told = len(seen)
    assert not links.step()
    assert len(seen) == told


def test_ensure_bridge_makes_it_controllable(sandbox: Sandbox, links: OvsdbLinks) -> None:
    sandbox.vsctl("set", "bridge", "br-a", "protocols=OpenFlow13", "fail_mode=standalone")
    links.ensure_bridge("br-a", CONTROLLER)
    assert get(sandbox, "bridge", "br-a", "fail_mode") == "secure"
    assert set(get(sandbox, "bridge", "br-a", "protocols").strip("[]").split(", ")) == {"OpenFlow13", "OpenFlow14"}
    assert sandbox.vsctl("get-controller", "br-a").split() == [CONTROLLER]
    assert sandbox.vsctl("--columns", "inactivity_probe", "--bare", "list", "controller").strip() == str(INACTIVITY_PROBE_MS)
    assert sandbox.vsctl("--columns", "prefixes", "--bare", "list", "flow_table").split() == ["ipv6_dst", "nw_dst", "nw_src"] * 4
    before = dump(sandbox)
    links.ensure_bridge("br-a", CONTROLLER)
    assert dump(sandbox) == before


def test_ensure_bridge_keeps_what_an_operator_has_set(sandbox: Sandbox, links: OvsdbLinks) -> None:
    sandbox.vsctl("clear", "bridge", "br-b", "protocols", "--", "set-controller", "br-b", CONTROLLER, "tcp:127.0.0.1:6698",
                  "--", "--id=@t", "create", "flow_table", "name=theirs", "--", "set", "bridge", "br-b", "flow_tables:1=@t",
                  "flow_tables:9=@t")  # fmt: skip
    for row in sandbox.vsctl("--columns", "_uuid", "--bare", "list", "controller").split():
        sandbox.vsctl("set", "controller", row, "inactivity_probe=7000")
    eventually(links, lambda: set(links.view().bridges) == {"br-a", "br-b"})
    links.ensure_bridge("br-b", CONTROLLER)
    assert set(sandbox.vsctl("get-controller", "br-b").split()) == {CONTROLLER, "tcp:127.0.0.1:6698"}
    assert get(sandbox, "bridge", "br-b", "protocols") == "[]"
    assert set(sandbox.vsctl("--columns", "inactivity_probe", "--bare", "list", "controller").split()) == {"7000"}
    theirs = get(sandbox, "flow_table", "theirs", "_uuid")
    tables = get(sandbox, "bridge", "br-b", "flow_tables")
    assert f"1={theirs}" in tables
    assert f"9={theirs}" in tables
    assert get(sandbox, "flow_table", "theirs", "prefixes") == "[]"


def test_link_is_a_patch_pair_that_nothing_floods_into(sandbox: Sandbox, links: OvsdbLinks) -> None:
    links.ensure_link("br-a", "br-b")
    here, there = link_name("br-a", "br-b"), link_name("br-b", "br-a")
    assert links.view().links == {"br-a": {"br-b": here}, "br-b": {"br-a": there}}
    assert ("br-a", here) not in links.view().ports
    assert get(sandbox, "interface", here, "options:peer") == there
    assert max(map(len, (here, there))) <= 15
    sandbox.ofctl("add-flow", "br-a", "priority=0,actions=NORMAL")
    flood = sandbox.appctl("ofproto/trace", "br-a", "in_port=1,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:99")
    assert "flooding" in flood
    assert "br-b" not in flood
    into = sandbox.vsctl("get", "interface", here, "ofport").strip()
    sandbox.ofctl("add-flow", "br-a", f"priority=9,in_port=1,actions=output:{into}")
    assert 'bridge("br-b")' in sandbox.appctl("ofproto/trace", "br-a", "in_port=1")


def test_links_come_and_go_and_stay_alone(sandbox: Sandbox, links: OvsdbLinks) -> None:
    before = dump(sandbox)
    links.ensure_link("br-a", "br-b")
    with_link = dump(sandbox)
    links.ensure_link("br-b", "br-a")
    assert dump(sandbox) == with_link
    sandbox.vsctl("del-port", link_name("br-b", "br-a"))
    eventually(links, lambda: links.view().links == {})
    links.ensure_link("br-a", "br-b")
    assert set(links.view().links) == {"br-a", "br-b"}
    links.remove_link("br-a", "br-b")
    links.remove_link("br-a", "br-b")
    assert links.view().links == {}
    assert dump(sandbox) == before


def test_a_foreign_port_with_a_link_name_is_left_alone(sandbox: Sandbox, links: OvsdbLinks) -> None:
    name = link_name("br-b", "br-a")
    sandbox.vsctl("add-port", "br-b", name, "--", "set", "interface", name, "type=dummy")
    eventually(links, lambda: ("br-b", name) in links.view().ports)
    before = dump(sandbox)
    with pytest.raises(UnavailableError, match=name):
        links.ensure_link("br-a", "br-b")
    links.remove_link("br-a", "br-b")
    assert dump(sandbox) == before


def test_no_such_bridge_and_no_such_database(links: OvsdbLinks, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="br-none"):
        links.ensure_bridge("br-none", CONTROLLER)
    away = OvsdbLinks(f"unix:{tmp_path}/none.sock", timeout_s=0.2)
    with pytest.raises(UnavailableError, match=r"none\.sock"):
        away.ensure_link("br-a", "br-b")
    assert not away.ready


def test_database_server_restarts(sandbox: Restartable, links: OvsdbLinks) -> None:
    links.ensure_link("br-a", "br-b")
    old = links.view()
    sandbox.stop_database()
    links.step()
    assert links.view().links == old.links
    sandbox.start_database()
    sandbox.vsctl("--no-wait", "add-port", "br-a", "after0", "--", "set", "interface", "after0", "type=dummy")
    eventually(links, lambda: ("br-a", "after0") in links.view().ports)
    links.remove_link("br-a", "br-b")
    assert links.view().links == {}


def test_threads_share_one_connection(sandbox: Sandbox, links: OvsdbLinks) -> None:
    for n in range(4):
        sandbox.add_bridge(f"br-{n}")
    eventually(links, lambda: "br-3" in links.view().bridges)
    done = threading.Event()
    loop = threading.Thread(target=links.run, args=(done.is_set,))
    loop.start()
    try:
        workers = [threading.Thread(target=links.ensure_link, args=("br-a", f"br-{n}")) for n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
    finally:
        done.set()
        loop.join(20)
    assert set(links.view().links["br-a"]) == {f"br-{n}" for n in range(4)}


GREEN = """
import eventlet
eventlet.monkey_patch(thread=False)  # as ryu-manager does
import sys
from fsctl.ovsdb import OvsdbLinks
links = OvsdbLinks(sys.argv[1], sleep=eventlet.sleep)
ticks, stop = [], []
def tick():
    while not stop:
        ticks.append(1)
        eventlet.sleep(0.001)
eventlet.spawn(tick)
loop = eventlet.spawn(links.run, lambda: bool(stop))
callbacks = []
links.on_change(lambda: callbacks.append(links.ensure_link("br-a", "br-b")))
eventlet.spawn(links.ensure_bridge, "br-a", "tcp:127.0.0.1:6699").wait()
while not links.view().links:
    eventlet.sleep(0.01)
stop.append(1)
loop.wait()
assert callbacks and len(ticks) > 1, (callbacks, ticks)
print(sorted(links.view().links))
"""


def test_green_threads_share_one_connection_and_do_not_block(sandbox: Sandbox) -> None:
    command = [sys.executable, "-c", GREEN, f"unix:{sandbox.db_socket}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['br-a', 'br-b']"
