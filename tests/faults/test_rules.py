"""What is wanted and what is in the switch are one (A2, A8, A9, A10, A15, F2, F5, D11)."""

from __future__ import annotations

import time

import pytest

from fsctl.client import Client
from tests.waiting import eventually
from topologies.sandbox import DATABASE, SWITCH

from .host import A_TO_B, BRIDGES, MAC, PREFIX, Host

REPAIRED_S = 3.0
"""fsctl repairs within a second (docs/benchmarks.md measures it); here other programs use the machine, and looking takes time."""
ANSWERED_S = 3.0
"""A write waits for 1.5 s at most, however long a switch or the database is silent; the rest as above."""


@pytest.mark.parametrize(
    "harm",
    [
        ("del-flows", "{b}"),
        ("del-flows", "{b}", "table=1"),
        ("del-flows", "{b}", "table=2"),
        ("add-flow", "{b}", "table=0,priority=1,actions=drop"),
        ("mod-flows", "{b}", "table=1,actions=drop"),
        ("mod-flows", "{b}", "table=5,actions=drop"),
    ],
    ids=lambda harm: " ".join(harm).replace("{b} ", "").replace(" {b}", ""),
)
def test_fault_A2_rules_that_somebody_else_changes_are_repaired(host: Host, harm: tuple[str, ...]) -> None:
    host.chain()
    wanted = host.all_rules()
    for bridge in BRIDGES:
        command, *rest = (word.format(b=bridge) for word in harm)
        host.ovs.ofctl(command, *rest)
        eventually(lambda: host.all_rules() == wanted, f"{harm} on {bridge}", REPAIRED_S)
    assert host.is_bypassed()
    eventually(host.is_ready, within_s=REPAIRED_S)
    assert sum(bridge["repairs"] for bridge in host.client.bridges()) > 0


def test_fault_A2_a_write_restores_no_fragments(host: Host) -> None:
    """All rules go, and a write comes before anybody can have noticed."""
    host.chain()
    for _ in range(5):
        host.ovs.ofctl("del-flows", "b0")
        host.delegate("r1", "r2.eth0", "10.0.4.0/24")
        host.client.patch_flows("r1", remove=[{"in": "eth0", "ipv4_dst": "10.0.4.0/24"}])
        eventually(host.is_bypassed, within_s=REPAIRED_S)
        rules = host.rules("b0")
        assert "priority=8,dl_src=01:00:00:00:00:00/01:00:00:00:00:00" in rules
        assert f"dl_src={MAC['r1.eth0']}" in rules


def test_fault_A2_a_rule_that_was_there_before_is_left_alone(host: Host) -> None:
    host.control.stop()
    host.ovs.ofctl("del-flows", "b0")
    host.ovs.ofctl("add-flow", "b0", "cookie=0x7,table=0,priority=1,actions=drop")
    host.control.launch()
    eventually(lambda: "table=1" in host.rules("b0"))
    time.sleep(1)
    assert "cookie=0x7" in host.ovs.ofctl("dump-flows", "b0")
    assert not host.is_ready()


@pytest.mark.parametrize(
    ("harm", "is_right"),
    [
        (("set-fail-mode", "b1", "standalone"), ("get-fail-mode", "b1", "secure")),
        (("del-controller", "b1"), ("get-controller", "b1", "tcp:127.0.0.1:")),
        (("set", "bridge", "b1", "protocols=OpenFlow10"), ("get", "bridge", "b1", "protocols", "OpenFlow14")),
        (("clear", "bridge", "b1", "flow_tables"), ("get", "bridge", "b1", "flow_tables", "5=")),
    ],
    ids=lambda case: case[0],
)
def test_fault_A8_settings_are_kept(host: Host, harm: tuple[str, ...], is_right: tuple[str, ...]) -> None:
    host.chain()
    host.ovs.vsctl(*harm)
    *question, answer = is_right
    eventually(lambda: answer in host.ovs.vsctl(*question), within_s=REPAIRED_S)
    eventually(host.is_bypassed)
    eventually(host.is_ready)


def test_fault_A8_a_bridge_that_is_made_anew_is_taken_in(host: Host) -> None:
    host.chain()
    host.ovs.del_bridge("b0")
    assert "b0" in host.client.put_flows("r1", [])["waiting_for"]
    host.ovs.add_bridge("b0", ports=9)
    host.delegate("r1", "r2.eth0")
    eventually(host.is_bypassed)
    eventually(host.is_ready)


def test_fault_A9_a_bridge_that_is_gone_is_in_no_chain(host: Host) -> None:
    host.chain()
    host.ovs.del_bridge("b1")
    eventually(lambda: not host.is_bypassed(), within_s=REPAIRED_S)
    interfaces = host.client.router("r1")["interfaces"]
    assert (interfaces["eth0"]["up"], interfaces["eth1"]["up"]) == (True, False)
    assert "no bridge b1" in interfaces["eth1"]["why_down"]


def test_fault_A9_a_port_that_is_gone_while_its_bridge_is_disconnected(host: Host) -> None:
    host.chain()
    host.ovs.vsctl("set", "controller", "b1", 'target="tcp:127.0.0.1:1"')  # somewhere else, for a moment
    host.ovs.vsctl("del-port", "b1", "b1-p1")
    eventually(lambda: not host.is_bypassed(), within_s=REPAIRED_S)


def test_fault_A10_no_link_between_datapaths_of_different_types(host: Host) -> None:
    host.delegate("r2", "b")
    host.ovs.vsctl("set", "bridge", "b2", "datapath_type=system")
    answer = host.delegate("r1", "r2.eth0")
    assert answer["failed"] == []
    eventually(lambda: "ttl=6" not in host.trace(), within_s=REPAIRED_S)
    reasons = [reason for router in ("r1", "r2") for _, reason in host.reasons(router)]
    assert any("b1 is dummy, b2 is system" in reason for reason in reasons), reasons


def test_fault_A15_a_withdrawal_is_in_force_as_soon_as_the_switch_answers(host: Host) -> None:
    host.chain()
    with host.ovs.paused(SWITCH):
        time.sleep(0.2)
        began = time.monotonic()
        answer = host.client.put_flows("r1", [{"match": {"in": "eth0", "ipv4_dst": PREFIX}, "action": "drop"}])
        assert time.monotonic() - began < ANSWERED_S
        assert "b0" in answer["waiting_for"]
        assert not host.is_ready()
        time.sleep(11)
    eventually(lambda: host.trace() == "drop", within_s=REPAIRED_S)
    eventually(host.is_ready, within_s=REPAIRED_S)


def test_fault_F2_many_new_ports_stop_nobody(host: Host) -> None:
    host.chain()
    args = []
    for n in range(200):
        args += ["--", "add-port", "b0", f"d{n}", "--", "set", "interface", f"d{n}", "type=dummy"]
    host.ovs.vsctl(*args[1:])
    for router in ("r1", "r2"):
        began = time.monotonic()
        assert host.client.delete_flows(router)["waiting_for"] == []
        assert time.monotonic() - began < ANSWERED_S
    eventually(host.is_ready, within_s=ANSWERED_S)
    assert "table=1, priority=10" not in host.rules("b0")
    assert "ttl=" not in host.trace()


@pytest.mark.parametrize(
    ("rule", "is_past"),
    [
        ("in_port=1,udp actions=drop", False),
        ("ip,nw_src=10.0.1.1 actions=drop", False),
        (f"dl_src={MAC['r2.eth1']} actions=drop", False),
        ("in_port=9 actions=drop", True),
        ("in_port=1,arp actions=drop", True),
        ("in_port=1 actions=NORMAL", True),
    ],
)
def test_fault_F5_a_rule_for_the_last_routers_port_is_not_evaded(host: Host, rule: str, is_past: bool) -> None:
    """r2's port on b2 has number 1."""
    host.chain()
    host.ovs.ofctl("add-flow", "b2", f"cookie=0x5,table=0,priority=100,{rule}")
    if is_past:
        time.sleep(0.5)
        assert host.is_bypassed()
        return
    eventually(lambda: not host.is_bypassed(), within_s=REPAIRED_S)
    interface = host.client.router("r2")["interfaces"]["eth1"]
    assert "cookie=0x5" in interface["why_down"]
    assert any("cookie=0x5" in warning for bridge in host.client.bridges() for warning in bridge["warnings"])
    host.ovs.ofctl("del-flows", "b2", "cookie=0x5/-1")
    eventually(host.is_bypassed, within_s=REPAIRED_S)


def test_fault_D11_a_database_that_hangs_holds_up_no_write(host: Host) -> None:
    host.chain()
    host.ovs.pause(DATABASE)
    for n in range(5):
        began = time.monotonic()
        host.delegate("r1", "r2.eth0", f"10.0.3.{n}")
        assert time.monotonic() - began < 1.0  # less than a write that waits for something
    began = time.monotonic()
    host.delegate("r1", "r2.eth0", "10.9.0.0/16")  # this one needs a link that is not there
    assert time.monotonic() - began < ANSWERED_S
    host.ovs.resume(DATABASE)
    eventually(lambda: "ttl=63" in host.trace(A_TO_B.replace("10.0.3.1", "10.9.2.1")), within_s=ANSWERED_S)


def test_a_client_of_a_router_sees_no_other(host: Host) -> None:
    with Client(host.control.url, host.control.tokens["r1"]) as client:
        assert [r["name"] for r in client.routers()] == ["r1"]


def test_a_hung_switch_keeps_no_reader_and_no_lease(host: Host) -> None:
    """Nobody has written meanwhile, so nobody can know yet that it hangs."""
    host.chain()
    host.ovs.pause(SWITCH)
    body = {"id": "agent", "lease": 3, "graceful_restart": 0, "reasons": []}
    host.client.call("PUT", "/v1/routers/r1/session", body)
    began = time.monotonic()
    assert len(host.client.flows("r1")) == 1
    assert time.monotonic() - began < 1.0 + ANSWERED_S
    eventually(lambda: not host.client.flows("r1"), 3 + ANSWERED_S)
    host.ovs.resume(SWITCH)
    eventually(lambda: not host.is_bypassed(), within_s=REPAIRED_S)
