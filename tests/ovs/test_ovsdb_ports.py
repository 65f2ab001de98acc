"""Which ports may take part, by what a real Open vSwitch says of them (dummy datapath)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from ovsdb_lab import SOON_S, Box, stepping

from fsctl.ovsdb import OvsdbLinks
from fsctl.status import PortInfo
from tests.waiting import eventually
from topologies.sandbox import available

pytestmark = [pytest.mark.ovs, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]
BOND = "is a bond member that Open vSwitch may not receive from"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    value = Box()
    try:
        value.start()
        yield value
    finally:
        value.stop()


@pytest.fixture
def bridge(box: Box) -> Iterator[str]:
    box.add_bridge("br-p", ports=3)
    yield "br-p"
    box.vsctl("--all", "destroy", "qos", "--", "del-br", "br-p")


@pytest.fixture
def links(box: Box, bridge: str) -> Iterator[OvsdbLinks]:
    with stepping(box) as value:
        eventually(lambda: (bridge, "br-p-p3") in value.view().ports, "ports")
        yield value


def info(links: OvsdbLinks, name: str) -> PortInfo:
    return links.view().ports["br-p", name]


def add_bond(box: Box, *settings: str) -> None:
    box.vsctl("add-bond", "br-p", "bond0", "m1", "m2", *settings, "--", "set", "interface", "m1", "type=dummy",
              "--", "set", "interface", "m2", "type=dummy")  # fmt: skip


@pytest.mark.parametrize("settings", [[], ["bond_mode=active-backup"], ["lacp=off"]])
def test_fault_A11_F3_of_an_active_backup_bond_the_active_member_alone(box: Box, links: OvsdbLinks, settings: list[str]) -> None:
    add_bond(box, *settings)
    eventually(lambda: ("br-p", "m2") in links.view().ports and len({info(links, m).exempt for m in ("m1", "m2")}) == 2, "active")
    active, backup = sorted(("m1", "m2"), key=lambda m: info(links, m).exempt)
    for member, may_receive in ((active, True), (backup, False)):
        ofport = box.get("interface", member, "ofport")
        box.ofctl("add-flow", "br-p", "priority=0,actions=NORMAL")
        trace = box.appctl("ofproto/trace", "br-p", f"in_port={ofport},dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:99")
        assert ("Datapath actions: drop" not in trace) == may_receive, trace
    assert (info(links, active).exempt, info(links, backup).exempt) == ("", BOND)
    assert info(links, active).unfit == "is a bond member"
    assert info(links, backup).unfit == BOND
    box.appctl("bond/set-active-slave", "bond0", backup)
    took = eventually(lambda: info(links, active).exempt == BOND and info(links, backup).exempt == "", "the other one")
    assert took < SOON_S


@pytest.mark.parametrize("settings", [["bond_mode=balance-slb"], ["bond_mode=balance-tcp", "lacp=active"], ["lacp=passive"]])
def test_fault_A11_of_other_bonds_no_member(box: Box, links: OvsdbLinks, settings: list[str]) -> None:
    add_bond(box, *settings)
    eventually(lambda: ("br-p", "m2") in links.view().ports, "members")
    time.sleep(0.2)
    assert {info(links, member).exempt for member in ("m1", "m2")} == {BOND}
    box.vsctl("clear", "port", "bond0", "lacp", "--", "set", "port", "bond0", "bond_mode=active-backup")
    eventually(lambda: {info(links, member).exempt for member in ("m1", "m2")} == {BOND, ""}, "once the mode allows it")


REASONS = {
    "tag=5": ("port", "has a VLAN configuration", True),
    "tag=0": ("port", "has a VLAN configuration", True),
    "trunks=3,4": ("port", "has a VLAN configuration", True),
    "vlan_mode=dot1q-tunnel": ("port", "has a VLAN configuration", True),
    "cvlans=3": ("port", "has a VLAN configuration", True),
    "protected=true": ("port", "is protected", True),
    "ingress_policing_rate=1000": ("interface", "has ingress policing", False),
    "ingress_policing_kpkts_rate=10": ("interface", "has ingress policing", False),
}


@pytest.mark.parametrize("setting", REASONS)
def test_fault_A12_settings_of_a_port(box: Box, links: OvsdbLinks, setting: str) -> None:
    table, reason, is_exempt = REASONS[setting]
    assert info(links, "br-p-p1").unfit == ""
    box.vsctl("--no-wait", "set", table, "br-p-p1", setting)
    assert eventually(lambda: info(links, "br-p-p1").unfit == reason, reason) < SOON_S
    assert info(links, "br-p-p1").exempt == (reason if is_exempt else "")
    assert info(links, "br-p-p2").unfit == ""


def test_fault_A12_F4_qos(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("--no-wait", "--id=@q", "create", "qos", "type=linux-htb", "other-config:max-rate=1000000", "--", "set", "port",
              "br-p-p1", "qos=@q")  # fmt: skip
    eventually(lambda: info(links, "br-p-p1").unfit == "has QoS", "QoS")
    assert info(links, "br-p-p1").exempt == ""
    box.vsctl("--no-wait", "clear", "port", "br-p-p1", "qos")
    eventually(lambda: info(links, "br-p-p1").unfit == "", "no QoS any more")


@pytest.mark.parametrize("select", ["select_src_port=@one", "select_dst_port=@one", "select_all=true"])
def test_fault_A12_mirrors(box: Box, links: OvsdbLinks, select: str) -> None:
    box.vsctl("--no-wait", "--id=@one", "get", "port", "br-p-p1", "--", "--id=@out", "get", "port", "br-p-p3",
              "--", "--id=@m", "create", "mirror", "name=m", select, "output_port=@out",
              "--", "set", "bridge", "br-p", "mirrors=@m")  # fmt: skip
    eventually(lambda: info(links, "br-p-p1").unfit == "is mirrored", "mirrored")
    assert info(links, "br-p-p1").exempt == ""
    assert info(links, "br-p-p3").exempt == info(links, "br-p-p3").unfit == "is a mirror's output port"
    assert info(links, "br-p-p2").unfit == ("is mirrored" if select == "select_all=true" else "")


def test_bridge_settings_that_matter(box: Box, links: OvsdbLinks) -> None:
    told = links.view().bridges["br-p"]
    assert (told.datapath_type, told.mac_age_s, told.mac_table_size, told.warnings) == ("dummy", 300, 8192, ())
    box.vsctl("--no-wait", "set", "bridge", "br-p", "other_config:mac-aging-time=60", "other_config:mac-table-size=100",
              "flood_vlans=0")  # fmt: skip
    eventually(lambda: links.view().bridges["br-p"].mac_age_s == 60, "ageing time")
    told = links.view().bridges["br-p"]
    assert told.mac_table_size == 100
    assert "flood_vlans" in told.warnings[0]
    assert box.appctl("fdb/stats-show", "br-p").count("100")
