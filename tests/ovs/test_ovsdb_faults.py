"""What others do to fsctl's rows, to the bridges and to the daemons, and that it is put right."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from ovsdb_lab import CONTROLLER, SOON_S, Box, are_made, pairs, stepping

from fsctl.ovsdb import OvsdbLinks, link_name
from tests.waiting import eventually
from topologies.sandbox import DATABASE, SWITCH, available

pytestmark = [pytest.mark.ovs, pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")]
A, B = "br-a", "br-b"
HERE, THERE = link_name(A, B), link_name(B, A)


@pytest.fixture
def links(box: Box) -> Iterator[OvsdbLinks]:
    """Both bridges managed and joined."""
    with stepping(box) as value:
        value.manage([A, B], CONTROLLER)
        value.want(pairs((A, B)))
        eventually(lambda: are_made(value, (A, B)), "patch ports")
        yield value


def is_repaired(links: OvsdbLinks, kind: str, times: int = 1) -> bool:
    return links.repairs[kind] >= times


# --- spanning trees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["stp_enable", "rstp_enable"])
def test_fault_A4_patch_ports_take_no_part_in_stp(box: Box, setting: str) -> None:
    box.vsctl("set", "bridge", A, f"{setting}=true", "--", "set", "bridge", B, f"{setting}=true")
    with stepping(box) as links:
        links.manage([A, B], CONTROLLER)
        links.want(pairs((A, B)))
        eventually(lambda: are_made(links, (A, B)), "patch ports")
        command = "stp/show" if setting == "stp_enable" else "rstp/show"
        shown = box.appctl(command, A)
        assert f"{A}-p1" in shown
        assert HERE not in shown
        box.vsctl("set", "port", f"{A}-p1", "other_config:stp-enable=false", "other_config:rstp-enable=false")
        assert box.goes_through(A, B)
        assert any(setting in warning for warning in links.view().bridges[A].warnings)
        assert links.view().bridges[A].mac_age_s == 15


def test_fault_A4_a_router_port_that_is_not_forwarding_is_unfit(box: Box, links: OvsdbLinks) -> None:
    port = (A, f"{A}-p1")
    assert links.view().ports[port].unfit == ""
    box.vsctl("set", "bridge", A, "stp_enable=true")
    took = eventually(lambda: links.view().ports[port].unfit, "STP state")
    assert links.view().ports[port].unfit == "is not forwarding (STP: listening)"
    assert links.view().ports[port].exempt == ""
    assert took < SOON_S
    box.vsctl("set", "bridge", A, "stp_enable=false", "rstp_enable=true")
    eventually(lambda: links.view().ports[port].unfit == "is not forwarding (RSTP: discarding)", "RSTP state")
    eventually(lambda: links.view().ports[port].unfit == "", "RSTP forwards")


def test_fault_A5_switch_survives_rstp_before_and_after(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("set", "bridge", A, "rstp_enable=true", "--", "set", "bridge", B, "rstp_enable=true")
    for _ in range(2):
        box.vsctl("--timeout=5", "set", "bridge", A, "rstp_enable=false")
        box.vsctl("--timeout=5", "set", "bridge", A, "rstp_enable=true")
    links.want(pairs())
    links.want(pairs((A, B)))
    box.vsctl("del-port", HERE, "--", "del-port", THERE)
    eventually(lambda: is_repaired(links, "link"), "made again")
    eventually(lambda: are_made(links, (A, B)), "made again")
    time.sleep(0.5)  # a state machine runs at every tick
    assert box.is_running(SWITCH)
    assert "rstp.c" not in (box.directory / "vswitchd.log").read_text()


def test_fault_F1_unsafe_ports_of_an_earlier_fsctl_are_made_safe_first(box: Box) -> None:
    """With them ovs-vswitchd ends at every start; the database alone is there to put it right."""
    box.kill(SWITCH)
    box.make_first_edition_link(A, B)
    box.vsctl("--no-wait", "set", "bridge", A, "rstp_enable=true", "--", "set", "bridge", B, "rstp_enable=true")
    box.launch(SWITCH)
    eventually(lambda: not box.is_running(SWITCH), "ovs-vswitchd 3.1 ends: the bug that this is about")
    seen: list[tuple[str, str]] = []
    with stepping(box) as links:
        links.on_change(lambda: seen.append((box.get("port", HERE, "other_config"), box.get("bridge", A, "controller"))))
        links.manage([A, B], CONTROLLER)
        links.want(pairs((A, B)))
        eventually(lambda: "rstp-enable" in box.get("port", THERE, "other_config"), "made safe")
        eventually(lambda: CONTROLLER in box.get("port", THERE, "external_ids"), "and marked")
        box.kill(SWITCH)
        box.launch(SWITCH)
        box.vsctl("--timeout=10", "set", "bridge", A, "other_config:hwaddr=02:00:00:00:00:0a")
        time.sleep(0.5)
        assert box.is_running(SWITCH)
        assert are_made(links, (A, B))
        assert not links.repairs["link"]


# --- rows that somebody removes or changes ---------------------------------------------------------------


CHANGES = {
    "del-port": (["del-port", HERE], "link"),
    "del both": (["del-port", HERE, "--", "del-port", THERE], "link"),
    "tag": (["clear", "port", HERE, "tag"], "link"),
    "other tag": (["set", "port", HERE, "tag=7", "vlan_mode=native-tagged"], "link"),
    "trunks": (["set", "port", THERE, "trunks=4,5"], "link"),
    "stp": (["clear", "port", HERE, "other_config"], "link"),
    "peer": (["set", "interface", THERE, "options:peer=elsewhere"], "link"),
    "type": (["set", "interface", THERE, "type=dummy"], "link"),
    "marks": (["clear", "port", HERE, "external_ids", "--", "clear", "interface", HERE, "external_ids"], "link"),
    "fail mode": (["set-fail-mode", A, "standalone"], "fail_mode"),
    "no fail mode": (["del-fail-mode", A], "fail_mode"),
    "protocols": (["set", "bridge", A, "protocols=OpenFlow10,OpenFlow13"], "protocols"),
    "del-controller": (["del-controller", A], "controller"),
    "set-controller": (["set-controller", A, "tcp:127.0.0.1:1"], "controller"),
    "flow tables": (["clear", "bridge", A, "flow_tables"], "flow_tables"),
}


def state(box: Box) -> list[object]:
    """What must come back: all that fsctl sets, in the words of ovs-vsctl."""
    ports = [[box.get("port", name, column) for column in ("tag", "trunks", "vlan_mode", "external_ids", "other_config")]
             for name in (HERE, THERE)]  # fmt: skip
    interfaces = [[box.get("interface", name, column) for column in ("type", "options", "external_ids")]
                  for name in (HERE, THERE)]  # fmt: skip
    protocols = "OpenFlow14" in box.get("bridge", A, "protocols")
    tables = box.get("bridge", A, "flow_tables").count("=")
    return [ports, interfaces, box.get("bridge", A, "fail_mode"), protocols, tables,
            CONTROLLER in box.vsctl("get-controller", A).split(), box.patch_ports(A), box.patch_ports(B)]  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_fault_A7_A8_A17_what_others_change_is_put_right(
    box: Box, links: OvsdbLinks, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    command, kind = CHANGES[what]
    before = state(box)
    assert not links.repairs
    caplog.set_level(logging.INFO, "fsctl.ovsdb")
    box.vsctl("--no-wait", *command)
    took = eventually(lambda: is_repaired(links, kind) and state(box) == before, what)
    assert took < SOON_S
    eventually(lambda: are_made(links, (A, B)), "joined")
    repairs = [record for record in caplog.records if record.message.startswith("repaired: ")]
    assert len(repairs) == sum(links.repairs.values()) == 1
    assert any(name in repairs[0].message for name in (HERE, THERE, A))


def test_fault_A7_A17_repaired_within_a_second(box: Box, links: OvsdbLinks) -> None:
    """Thirty links, each broken a few times: the repairs' times as a distribution."""
    peers = [f"br-{n}" for n in range(15)]
    box.vsctl("--no-wait", *[w for n in peers for w in ("--", "add-br", n, "--", "set", "bridge", n, "datapath_type=dummy")][1:])
    links.manage([A, B, *peers], CONTROLLER)
    joined = [(end, peer) for end in (A, B) for peer in peers]
    links.want(pairs(*joined))
    eventually(lambda: are_made(links, *joined), "30 links")
    times = []
    for turn, (end, peer) in enumerate(joined * 2):
        name = link_name(end, peer)
        before = links.repairs["link"]
        box.vsctl("--no-wait", *(["del-port", name] if turn % 2 else ["clear", "port", name, "tag"]))
        times.append(eventually(lambda before=before: links.repairs["link"] > before, "repaired"))
    assert sorted(times)[int(len(times) * 0.9)] < 1.0
    assert max(times) < SOON_S
    eventually(lambda: are_made(links, *joined), "30 links")


def test_fault_A8_bridge_deleted_and_made_again(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("--no-wait", "del-br", A)
    eventually(lambda: not links.view().links, "no link")
    assert links.view().link_problems == {frozenset((A, B)): f"Open vSwitch has no bridge {A}"}
    assert A not in links.view().bridges
    assert not any(bridge == A for bridge, _ in links.view().ports)
    box.add_bridge(A, ports=1)
    took = eventually(lambda: CONTROLLER in box.vsctl("get-controller", A) and box.patch_ports(A) == {HERE}, "as before")
    assert took < SOON_S
    eventually(lambda: are_made(links, (A, B)), "joined")
    assert links.view().link_problems == {}
    assert {"controller", "flow_tables", "link"} <= set(links.repairs)


def test_who_changes_it_back_again_and_again_is_answered_ever_more_rarely(
    box: Box, links: OvsdbLinks, caplog: pytest.LogCaptureFixture
) -> None:
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        if box.get("bridge", A, "fail_mode") == "secure":
            box.vsctl("--no-wait", "set-fail-mode", A, "standalone")
        time.sleep(0.01)
    assert 5 <= links.repairs["fail_mode"] <= 9
    assert len(caplog.records) <= 12
    assert any("fail_mode" in warning for warning in links.view().bridges[A].warnings)
    box.vsctl("--no-wait", "del-port", HERE)
    assert eventually(lambda: is_repaired(links, "link"), "others need not wait") < SOON_S


# --- bridges that cannot be joined -------------------------------------------------------------------------


def test_fault_A10_bridges_of_different_datapath_types_are_not_joined(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("--no-wait", "add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type=netdev")
    links.manage([A, B, "br-other"], CONTROLLER)
    links.want(pairs((A, B), (A, "br-other")))
    eventually(lambda: links.view().link_problems, "the reason")
    expected = f"{A} is dummy, br-other is netdev: patch ports between them carry nothing"
    assert links.view().link_problems == {frozenset((A, "br-other")): expected}
    assert set(links.view().links) == {A, B}
    assert not box.patch_ports("br-other")
    box.vsctl("--no-wait", "set", "bridge", "br-other", "datapath_type=dummy")
    eventually(lambda: are_made(links, (A, "br-other")), "joined once they can be")
    box.vsctl("--no-wait", "set", "bridge", B, "datapath_type=netdev")
    eventually(lambda: not are_made(links, (A, B)), "not joined any more")
    assert frozenset((A, B)) in links.view().link_problems


def test_fault_A10_a_foreign_port_with_a_links_name_is_left_alone(box: Box) -> None:
    box.vsctl("add-port", B, THERE, "--", "set", "interface", THERE, "type=dummy")
    with stepping(box) as links:
        links.manage([A, B], CONTROLLER)
        links.want(pairs((A, B)))
        eventually(lambda: links.view().link_problems, "the reason")
        assert THERE in links.view().link_problems[frozenset((A, B))]
        eventually(lambda: "secure" in box.get("bridge", B, "fail_mode"), "the rest is done")
        assert links.view().links == {}
        assert not box.patch_ports(A)
        box.vsctl("--no-wait", "del-port", THERE)
        eventually(lambda: are_made(links, (A, B)), "joined once the name is free")


# --- how many, and how long ----------------------------------------------------------------------------------


def test_fault_A18_many_links_are_one_transaction_and_go_when_unused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsctl.ovsdb.worker.LINK_LINGER_S", 0.5)
    names = [f"br{n}" for n in range(31)]
    box.vsctl("--no-wait", *[w for n in names for w in ("--", "add-br", n, "--", "set", "bridge", n, "datapath_type=dummy")][1:])
    every = pairs(*[(a, b) for n, a in enumerate(names) for b in names[:n]])
    with stepping(box) as links:
        links.manage(names, CONTROLLER)
        eventually(lambda: all("secure" in box.get("bridge", n, "fail_mode") for n in names[:2]), "managed")
        sent: list[int] = []
        send = links._connection.send
        monkeypatch.setattr(links._connection, "send", lambda changes: (sent.append(len(changes)), send(changes)))
        links.want(every)
        took = eventually(lambda: sum(map(len, links.view().links.values())) == 930, "930 patch ports", within_s=20)
        assert sent == [465]
        assert took < 15.0
        few = pairs(("br0", "br1"), ("br1", "br2"))
        links.want(every - few)
        time.sleep(0.2)
        links.want(every)  # within the time that a link lingers: nothing happens
        time.sleep(0.6)
        assert sum(map(len, links.view().links.values())) == 930
        links.want(few)
        eventually(lambda: sum(map(len, links.view().links.values())) == 4, "all others removed", within_s=20)
        assert sum(len(box.patch_ports(n)) for n in names) == 4
        assert sent == [465, 463]
        assert not links.repairs


def test_fault_D11_a_frozen_database_holds_up_nobody(box: Box, links: OvsdbLinks) -> None:
    box.vsctl("--no-wait", "add-br", "br-c", "--", "set", "bridge", "br-c", "datapath_type=dummy")
    eventually(lambda: "br-c" in links.view().bridges, "seen")
    with box.paused(DATABASE):
        start = time.monotonic()
        links.manage([A, B, "br-c"], CONTROLLER)
        links.want(pairs((A, B), (A, "br-c")))
        assert are_made(links, (A, B))
        assert time.monotonic() - start < 0.5
        eventually(lambda: links.problem, "a problem is told")
        assert "for 2 s" in links.problem
        time.sleep(4.0)  # beyond the transaction's deadline
        slowest = max(_timed(links) for _ in range(50))
        assert slowest < 0.5
        assert are_made(links, (A, B))
    took = eventually(lambda: are_made(links, (A, "br-c")), "after it goes on")
    assert took < 2 * SOON_S
    assert links.problem == ""
    assert len(box.patch_ports(A)) == 2
    assert box.vsctl("get-controller", "br-c").split() == [CONTROLLER]
    assert sorted(box.column("controller", "target")) == [CONTROLLER] * 3


def _timed(links: OvsdbLinks) -> float:
    start = time.monotonic()
    links.step()
    return time.monotonic() - start


# --- bridges that are taken out of the configuration -----------------------------------------------------------


def test_fault_A6_a_bridge_that_is_not_configured_any_more_is_released(box: Box, links: OvsdbLinks) -> None:
    eventually(lambda: CONTROLLER in box.vsctl("get-controller", B), "controlled")
    box.ofctl("add-flow", B, "cookie=0x66736374,priority=7,actions=drop")
    with stepping(box) as later:  # the fsctl after a restart with another configuration
        later.manage([A], CONTROLLER)
        later.want(pairs())
        links.manage([A], CONTROLLER)
        links.want(pairs())
        eventually(lambda: later.to_release == (B,), "to be released")
        time.sleep(0.3)
        assert box.patch_ports(B) == {THERE}
        assert box.get("bridge", B, "fail_mode") == "secure"
        later.allow_release()
        eventually(lambda: not later.to_release, "released")
        box.vsctl("--timeout=5", "set", "bridge", B, "external_ids:seen=true")
        assert box.vsctl("get-controller", B).split() == []
        assert box.get("bridge", B, "fail_mode") == "[]"
        assert box.get("bridge", B, "flow_tables") == "{}"
        assert not box.patch_ports(A) | box.patch_ports(B)
        flows = box.ofctl("dump-flows", B)
        assert "0x66736374" not in flows
        assert "NORMAL" in flows
        assert later.released_with_rules == frozenset()
        assert CONTROLLER in box.vsctl("get-controller", A)


def test_fault_A6_with_another_controller_the_rules_remain_and_that_is_said(box: Box, links: OvsdbLinks) -> None:
    eventually(lambda: CONTROLLER in box.vsctl("get-controller", B), "controlled")
    row = box.column("controller", "_uuid")
    box.vsctl("--no-wait", "--id=@c", "create", "controller", 'target="tcp:127.0.0.1:6698"', "--", "add", "bridge", B,
              "controller", "@c")  # fmt: skip
    box.ofctl("add-flow", B, "cookie=0x66736374,priority=7,actions=drop")
    links.manage([A], CONTROLLER)
    links.want(pairs())
    links.allow_release()
    eventually(lambda: links.released_with_rules == {B}, "said")
    assert box.vsctl("get-controller", B).split() == ["tcp:127.0.0.1:6698"]
    assert box.get("bridge", B, "fail_mode") == "secure"
    assert not box.patch_ports(A) | box.patch_ports(B)
    assert "0x66736374" in box.ofctl("dump-flows", B)
    assert len(row) == 2
    links.manage([A, B], CONTROLLER)
    eventually(lambda: not links.released_with_rules, "managed again")


def test_two_fsctl_share_one_database(box: Box, links: OvsdbLinks) -> None:
    other = "tcp:127.0.0.1:6700"
    for name in ("br-x", "br-y"):
        box.vsctl("--no-wait", "add-br", name, "--", "set", "bridge", name, "datapath_type=dummy")
    with stepping(box) as second:
        second.manage(["br-x", "br-y"], other)
        second.want(pairs(("br-x", "br-y")))
        eventually(lambda: are_made(second, ("br-x", "br-y")), "joined")
        for each in (links, second):
            each.allow_release()
        before = box.dump()
        links.want(pairs((A, B)))
        second.want(pairs(("br-x", "br-y")))
        time.sleep(0.5)
        assert box.dump() == before
        assert set(second.view().links) == {"br-x", "br-y"}
        assert set(links.view().links) == {A, B}
        assert ("br-x", link_name("br-x", "br-y")) in links.view().ports
        assert links.view().ports["br-x", link_name("br-x", "br-y")].exempt
        assert not links.repairs
        assert not second.repairs
