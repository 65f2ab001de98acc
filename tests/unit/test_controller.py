"""The loop with switches made of paper: what is installed after each thing that can happen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import pytest

from fsctl.collapse.node import Emission
from fsctl.errors import NotFoundError, TooLargeError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, PUNT, Forward, Match
from fsctl.model.fib import change_of
from fsctl.model.network import Address
from fsctl.model.packet import Packet
from fsctl.model.prefix_keys import key_of
from fsctl.openflow.rules import EGRESS, WAYS, RuleChange, RuleTable
from fsctl.pipeline.fixed_rules import BRIDGE
from fsctl.pipeline.flow_rules import flow_key
from fsctl.status import InterfaceChange, NexthopMove, SessionRequest, Write

from .paper import MAC, Lab

TO_S, TO_B, ELSEWHERE = Forward("eth1", MAC["s0"]), Forward("eth1", MAC["b"]), Forward("eth1", MAC["a"])


def test_chain_is_collapsed_and_confirmed(lab: Lab) -> None:
    result = lab.write("s", ("10.0.3.0/24", TO_B))
    assert (result.added, result.failed, result.waiting_for) == (1, (), ())
    lab.write("r", ("0.0.0.0/0", TO_S))
    assert len(lab.flow_rules("x")) == 2
    lab.check_in_step()
    states = {f.delegation.match.dst.length: f for r in "rs" for f in lab.controller.flows(r)}
    assert {(f.state, f.hops) for f in states.values()} == {("installed", 1)}
    chains = {r.key.priority: [hop[0] for hop in r.chain] for r in lab.controller.rules() if r.bridge == "x"}
    assert chains == {1048: ["r", "s"], 1000: ["r"]}


def test_counts_of_a_write(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_S), ("11.0.0.0/8", PUNT))
    result = lab.write("r", ("10.0.0.0/8", TO_B), ("11.0.0.0/8", PUNT), ("12.0.0.0/8", DROP))
    assert (result.added, result.changed, result.removed, result.unchanged) == (1, 1, 0, 1)
    result = lab.write("r", ("12.0.0.0/8", DROP), replace=True)
    assert (result.added, result.changed, result.removed, result.unchanged) == (0, 0, 2, 1)
    lab.check_in_step()
    assert len(lab.store.load().fibs["r"]) == 1


def test_restart_touches_no_rule(lab: Lab) -> None:
    lab.write("s", ("10.0.3.0/24", TO_B))
    lab.write("r", ("0.0.0.0/0", TO_S))
    lab.stop()
    before = {b: len(s.updates) for b, s in lab.switches.items()}
    lab.start()
    lab.check_in_step()
    for bridge, switch in lab.switches.items():
        touched = [c for u in switch.updates[before[bridge] :] for c in u.changes]
        assert touched == []


def test_port_down_withdraws_and_up_restores(lab: Lab) -> None:
    lab.write("s", ("10.0.3.0/24", TO_B))
    lab.write("r", ("0.0.0.0/0", TO_S))
    whole = lab.flow_rules("x")
    lab.controller.ports_changed(lab.switches["z"], lab.ports("z", down="s1"))
    lab.check_in_step()
    assert len(lab.flow_rules("x")) == 1
    assert next(iter(lab.controller.flows("s"))).state == "slow_path"
    assert "s1 is down" in next(iter(lab.controller.flows("s"))).reason
    lab.controller.ports_changed(lab.switches["z"], lab.ports("z"))
    lab.check_in_step()
    assert lab.flow_rules("x") == whole


def test_refused_rule_is_not_left_to_a_shorter_prefix(lab: Lab) -> None:
    """10.1/16 goes elsewhere than 10/8: without its rule the packets must not follow 10/8's."""
    probe = lab.controller.now.compiler.graphs[4].node_of["r", "eth0", None]
    narrow = flow_key(probe, key_of(Prefix.parse("10.1.0.0/16")))
    wide = flow_key(probe, key_of(Prefix.parse("10.0.0.0/8")))
    lab.switches["x"].refuse.add(narrow)
    lab.write("r", ("10.0.0.0/8", TO_S))
    result = lab.write("r", ("10.1.0.0/16", TO_B))
    assert [(str(f.match.dst), f.bridge, f.error) for f in result.failed] == [("10.1.0.0/16", "x", "OFPFMFC_TABLE_FULL")]
    assert narrow not in lab.switches["x"].table.rules
    assert lab.switches["x"].table.rules[wide] == BRIDGE
    states = {str(f.delegation.match.dst): f.state for f in lab.controller.flows("r")}
    assert states == {"10.1.0.0/16": "refused", "10.0.0.0/8": "slow_path"}
    assert lab.controller.not_ready()
    # The switch has room again: the next connection brings everything back.
    lab.switches["x"].refuse.clear()
    lab.reconnect("x")
    lab.check_in_step()
    assert not lab.controller.not_ready()


def test_a_refused_change_removes_the_old_rule(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_S))
    (key,) = lab.flow_rules("x")
    lab.switches["x"].refuse.add(key)
    assert lab.write("r", ("10.0.0.0/8", TO_B)).failed
    assert key not in lab.switches["x"].table.rules


def test_a_refused_way_is_the_slow_path(lab: Lab) -> None:
    """Its rules lead to the ways table, which sends what it does not know to the router."""
    lab.write("r", ("10.0.0.0/8", TO_S))
    way = next(k for k in lab.switches["x"].table.rules if k.table == WAYS and k.priority)
    lab.write("r", replace=True)
    lab.switches["x"].refuse.add(way)
    lab.write("r", ("10.0.0.0/8", TO_S))
    lab.settle()
    assert way not in lab.switches["x"].table.rules
    assert [(f.state, f.reason) for f in lab.controller.flows("r")] == [("refused", "OFPFMFC_TABLE_FULL")]


def test_a_bridge_that_refuses_its_frame_is_in_no_chain(lab: Lab) -> None:
    lab.write("s", ("10.0.3.0/24", TO_B))
    frame = lab.controller.now.layout.frames["z"].rules
    lab.switches["z"].refuse.update(key for key in frame if key.table == EGRESS)
    lab.switches["z"].table = RuleTable()
    lab.reconnect("z")
    lab.settle()
    assert not lab.flow_rules("y")
    assert "rejects the rules" in next(iter(lab.controller.flows("s"))).reason


def test_bridge_away_is_named_and_catches_up(lab: Lab) -> None:
    lab.controller.switch_gone(lab.switches["x"])
    result = lab.write("r", ("10.0.0.0/8", TO_S))
    assert result.waiting_for == ("x",)
    assert next(iter(lab.controller.flows("r"))).reason == "bridge x is not connected"
    assert list(lab.controller.not_ready()) == ["bridge x is not connected"]
    lab.reconnect("x")
    lab.check_in_step()


def test_connection_lost_in_the_middle_of_a_write(lab: Lab) -> None:
    lab.settle()
    lab.switches["x"].gone = True
    assert lab.write("r", ("10.0.0.0/8", TO_S)).waiting_for == ("x",)
    lab.switches["x"].gone = False
    lab.reconnect("x")
    lab.check_in_step()


def test_a_mistake_while_sending_is_made_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in one bridge's update, that bridge is out of step until it has been compared again."""
    lab.settle()
    with monkeypatch.context() as broken:
        broken.setattr(lab.switches["x"], "apply", lambda _update: 1 // 0)
        assert lab.write("r", ("10.0.0.0/8", TO_S)).waiting_for == ("x",)
    assert any("division" in reason for reason in lab.controller.not_ready())
    lab.reconnect("x")
    lab.check_in_step()


def test_connection_lost_between_two_pieces_of_a_write(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other bridges get all of it."""
    lab.settle()
    whole = lab.controller.now.layout.apply

    def pieces(emissions: Iterable[Sequence[Emission]]) -> Iterator[dict[str, list[RuleChange]]]:
        for piece in whole(emissions):
            for bridge, changes in piece.items():
                for change in changes:
                    yield {bridge: [change]}
                    lab.switches["x"].gone = True

    with monkeypatch.context() as in_between:
        in_between.setattr(lab.controller.now.layout, "apply", pieces)
        assert lab.write("r", ("10.0.0.0/8", TO_S), ("10.1.0.0/16", TO_S)).waiting_for == ("x",)
    assert lab.switches["x"].abandoned == 1
    lab.switches["x"].gone = False
    lab.reconnect("x")
    lab.check_in_step()


def test_a_mistake_while_compiling_is_made_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent of it is given up, and everything compiled anew."""
    lab.settle()
    whole = lab.controller.now.layout.apply

    def pieces(emissions: Iterable[Sequence[Emission]]) -> Iterator[dict[str, list[RuleChange]]]:
        yield next(piece for piece in whole(emissions) if piece)
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(lab.controller.now.layout, "apply", pieces)
        ticket = lab.controller.write(Write("r", [change_of(Match("eth0", Prefix.parse("10.0.0.0/8")), TO_B)]))
        assert ticket.stored(10).added == 1
        assert ticket.wait(10).waiting_for == ()
    lab.check_in_step()
    assert lab.flow_rules("x")


def test_addresses_of_a_router_become_holes(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_B))
    change = InterfaceChange("r", "eth1", (Address.parse("10.9.9.1/24"),))
    assert lab.controller.change_interface(change).wait(10).changed == 1
    assert lab.controller.change_interface(change).wait(10).unchanged == 1
    lab.check_in_step()
    assert list(lab.flow_rules("x").values()).count(BRIDGE) == 3  # address, network, broadcast
    assert lab.store.load().interfaces["r", "eth1"].addresses == change.addresses


def test_a_changed_mac_is_one_rule(lab: Lab) -> None:
    lab.write("s", *((f"10.0.{n}.0/24", TO_B) for n in range(50)))
    before = len(lab.switches["y"].updates)
    assert lab.controller.move_nexthop(NexthopMove("s", "eth1", MAC["b"], 0x02AA)).wait(10).changed == 1
    changes = [c for u in lab.switches["y"].updates[before:] for c in u.changes]
    assert [c.key.table for c in changes] == [WAYS]
    lab.check_in_step()
    assert {d.verdict for d in lab.store.load().fibs["s"]} == {Forward("eth1", 0x02AA)}
    assert lab.controller.move_nexthop(NexthopMove("s", "eth1", MAC["b"], 0x02BB)).wait(10).changed == 0


def test_a_mac_that_becomes_a_router_extends_the_chain(lab: Lab) -> None:
    lab.write("s", ("10.0.3.0/24", TO_B))
    lab.write("r", ("10.0.0.0/8", Forward("eth1", 0x02AA)), ("10.0.3.0/24", Forward("eth1", 0x02AA)))
    lab.controller.move_nexthop(NexthopMove("r", "eth1", 0x02AA, MAC["s0"])).wait(10)
    lab.check_in_step()
    assert [f.hops for f in lab.controller.flows("r")] == [1, 2]


def test_unknown_router_and_interface(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        lab.controller.write(Write("nobody", []))
    with pytest.raises(NotFoundError, match="eth7"):
        lab.controller.change_interface(InterfaceChange("r", "eth7"))


def test_quota_refuses_the_whole_write() -> None:
    lab = Lab(max_flows=2)
    try:
        with pytest.raises(TooLargeError):
            lab.write("r", ("10.0.0.0/8", TO_S), ("11.0.0.0/8", TO_S), ("12.0.0.0/8", TO_S))
        assert not list(lab.controller.flows("r"))
        lab.check_in_step()
    finally:
        lab.stop()


def test_walk_names_hops_and_rule(lab: Lab) -> None:
    lab.write("s", ("10.0.3.0/24", TO_B))
    lab.write("r", ("0.0.0.0/0", TO_S))
    destination = Prefix.parse("10.0.3.7").value
    packet = Packet("x", 9, MAC["a"], MAC["r0"], 4, Prefix.parse("10.0.1.1").value, destination)
    report = lab.controller.walk(packet)
    assert [(h.router, h.interface) for h in report.hops[:2]] == [("r", "eth0"), ("s", "eth0")]
    assert (report.end, report.final.bridge, report.final.ttl, report.final.eth_dst) == ("bridged", "z", 62, MAC["b"])
    assert report.rule is not None
    assert report.rule.bridge == "x"
    assert report.rule.packets == 3


def test_a_lease_that_runs_out_withdraws_the_fib(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_S))
    lab.controller.sessions.open(SessionRequest("r", "agent", 1.0))
    assert lab.flow_rules("x")
    time.sleep(1.2)
    lab.check_in_step()
    lab.controller.sessions.open(SessionRequest("s", "still there", 60.0))
    assert not lab.flow_rules("x")
    assert lab.store.load_sessions().keys() == {"s"}
