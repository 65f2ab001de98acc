"""What goes wrong around the loop, by the number of the fault: with switches made of paper."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fsctl.config import Config, InterfaceConfig, RouterConfig
from fsctl.desired import Desired
from fsctl.errors import StoreError, UnavailableError
from fsctl.inventory import Inventory
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Forward, Match
from fsctl.model.fib import Fib, change_of
from fsctl.openflow.ports import Port
from fsctl.status import BridgeInfo, OvsdbView, PortInfo, SessionRequest, Write
from tests.waiting import eventually

from .paper import MAC, Lab, PaperSwitch

TO_B = Forward("eth1", MAC["b"])


def stored(lab: Lab) -> Any:
    """What the store holds; it takes one caller at a time."""
    return lab.controller.durable._call(lambda: (lab.store.load().fibs, lab.store.load_sessions()))


def broken(*_: object, **__: object) -> Any:
    raise StoreError("database or disk is full", field="store")


def test_fault_B1_readers_see_one_snapshot(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a port's going is compiled, whoever reads sees a network, walks and tables that belong together."""
    lab.write("s", *((f"10.0.{n}.0/24", TO_B) for n in range(200)))
    seen: list[bool] = []

    def look() -> None:
        now = lab.controller.now
        seen.append(now.compiler.network is now.network and now.layout.network is now.network)

    monkeypatch.setattr(lab.controller.desired, "_pause", look)
    lab.controller.ports_changed(lab.switches["z"], lab.ports("z", down="s1"))
    eventually(lambda: not lab.controller.network.routers["s"].interfaces["eth1"].up)
    assert len(seen) > 1
    assert all(seen)


def test_fault_B2_a_mistake_that_repeats_ends_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("r", ("10.0.0.0/8", TO_B))
    with monkeypatch.context() as harm:
        harm.setattr(Desired, "rebuild", lambda _self: 1 // 0)
        lab.controller.recovery.needed()
        eventually(lab.controller.unhealthy)
        assert "cannot compile" in lab.controller.unhealthy()
        eventually(lambda: not lab.flow_rules("x"))  # nothing may be bypassed by a state that may be wrong
        with pytest.raises(UnavailableError, match="nothing was changed"):
            lab.write("r", ("11.0.0.0/8", TO_B))
        assert lab.thread.is_alive()
    eventually(lambda: not lab.controller.unhealthy())
    lab.check_in_step()
    assert len(lab.flow_rules("x")) == 1
    assert lab.write("r", ("11.0.0.0/8", TO_B)).added == 1


def test_fault_B2_a_dead_loop_is_reported(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    lab.controller._jobs.add(lambda: hold.wait(5) and None)
    now = lab.controller.runtime.now
    try:
        monkeypatch.setattr(lab.controller.runtime, "now", lambda: now() + 60)
        assert "has not finished a turn" in lab.controller.unhealthy()
    finally:
        hold.set()


def test_fault_D9_a_lease_ends_although_the_store_is_full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.controller.sessions.open(SessionRequest("r", "agent", 1.0))
    write = Write("r", [change_of(Match("eth0", Prefix.parse("10.0.0.0/8")), TO_B)], replace=True, session="agent", seq=1)
    lab.controller.write(write).wait(5)
    assert lab.flow_rules("x")
    with monkeypatch.context() as full:
        for method in ("commit_all", "commit", "replace_fib", "forget_session"):
            full.setattr(lab.store, method, broken)
        began = time.monotonic()
        eventually(lambda: not lab.flow_rules("x"))
        assert time.monotonic() - began < 3.0
        assert any("full" in reason for reason in lab.controller.not_ready())
        assert len(stored(lab)[0]["r"]) == 1
    eventually(lambda: not lab.controller.not_ready())
    eventually(lambda: not lab.controller.durable.owed)
    fibs, sessions = stored(lab)
    assert not fibs.get("r")
    assert not sessions


def test_fault_D9_a_withdrawal_is_carried_out_although_the_store_is_full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("r", ("10.0.0.0/8", TO_B))
    with monkeypatch.context() as full:
        for method in ("commit_all", "replace_fib"):
            full.setattr(lab.store, method, broken)
        with pytest.raises(StoreError):
            lab.write("r", ("11.0.0.0/8", TO_B))
        assert len(lab.flow_rules("x")) == 1
        assert not lab.write("r", replace=True).is_stored
        assert not lab.flow_rules("x")
        with pytest.raises(StoreError):  # nothing is added that would be lost
            lab.write("r", ("11.0.0.0/8", TO_B))
    eventually(lambda: not lab.controller.durable.owed)
    lab.write("r", ("11.0.0.0/8", TO_B))
    lab.check_in_step()


def test_a_store_that_works_again_is_noticed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        for method in ("commit_all", "probe"):
            full.setattr(lab.store, method, broken)
        with pytest.raises(StoreError):
            lab.write("r", ("11.0.0.0/8", TO_B))
        time.sleep(1.2)
        assert any("full" in reason for reason in lab.controller.not_ready())
    eventually(lambda: not lab.controller.not_ready())


def test_a_store_that_hangs_keeps_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsctl.durable.PATIENCE_S", 1.0)
    hold = threading.Event()
    whole = lab.store.commit_all

    def late(commits: Any) -> int:
        hold.wait(5)
        return whole(commits)

    with monkeypatch.context() as slow:
        slow.setattr(lab.store, "commit_all", late)
        with pytest.raises(StoreError, match="has not answered"):
            lab.write("r", ("10.0.0.0/8", TO_B))
        began = time.monotonic()
        with pytest.raises(StoreError, match="has not answered"):  # nobody waits behind it
            lab.write("s", ("10.0.0.0/8", TO_B))
        assert time.monotonic() - began < 0.8
    assert not lab.flow_rules("x")
    hold.set()  # the store carries the write out after all: it is put right
    eventually(lambda: not lab.controller.durable.owed)
    assert not stored(lab)[0].get("r")


def test_fault_A15_a_silent_switch_keeps_nobody(lab: Lab) -> None:
    lab.settle()
    lab.switches["y"].gone = True
    began = time.monotonic()
    assert lab.write("s", ("10.0.3.0/24", TO_B)).waiting_for == ("y",)
    assert time.monotonic() - began < 3.0
    lab.write("r", ("10.0.0.0/8", TO_B))
    assert lab.flow_rules("x")
    lab.switches["y"].gone = False
    lab.check_in_step()
    assert lab.flow_rules("y")


def test_fault_A2_foreign_changes_are_repaired_and_counted(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_B))
    for _ in range(30):  # beyond what is repaired at once, it is repaired later
        lab.switches["x"].table.rules.clear()
        lab.switches["x"].drift(True)
        lab.switches["x"].drift(True)
    eventually(lambda: lab.flow_rules("x"))
    lab.check_in_step()
    repairs = {bridge.name: bridge.repairs for bridge in lab.controller.bridges()}
    assert repairs["x"] > 10
    assert not repairs["y"]


def inventory(port: str | None) -> Inventory:
    """One router interface; another guest's port carries its MAC address too."""
    interface = InterfaceConfig("eth0", "x", port, MAC["r0"], 1500, ())
    found = Inventory(Config("test", "0" * 64, ("x",), {"r": RouterConfig("r", {"eth0": interface})}, store=":memory:"))
    found.take_ports("x", {name: Port(name, n, True) for n, name in enumerate(("r0", "evil"), 1)})
    ports = {("x", name): PortInfo(name, "x", MAC["r0"]) for name in ("r0", "evil")}
    found.take_ovsdb(OvsdbView(ports, bridges={"x": BridgeInfo("x")}, is_known=True))
    return found


def test_fault_D23_two_ports_with_a_routers_mac_are_both_named() -> None:
    interface = inventory(None).network({"r": Fib()}).routers["r"].interfaces["eth0"]
    assert not interface.up
    assert "ports evil, r0 all have its MAC address" in interface.why_down


def test_fault_F8_two_interfaces_of_one_router_with_one_mac_on_one_bridge_are_both_named() -> None:
    """OVSDB says so (attached-mac); a configuration that says so is refused."""
    interfaces = {name: InterfaceConfig(name, "x", port, None, 1500, ()) for name, port in (("eth0", "r0"), ("eth1", "evil"))}
    found = Inventory(Config("test", "0" * 64, ("x",), {"r": RouterConfig("r", interfaces)}, store=":memory:"))
    found.take_ports("x", {name: Port(name, n, True) for n, name in enumerate(("r0", "evil"), 1)})
    ports = {("x", name): PortInfo(name, "x", MAC["r0"]) for name in ("r0", "evil")}
    found.take_ovsdb(OvsdbView(ports, bridges={"x": BridgeInfo("x")}, is_known=True))
    shown = found.network({"r": Fib()}).routers["r"].interfaces
    assert not any(i.up for i in shown.values())
    assert shown["eth0"].why_down == "eth1 of this router has the same MAC address on this bridge"
    assert shown["eth1"].why_down == "eth0 of this router has the same MAC address on this bridge"


def test_fault_D23_a_configured_port_is_not_taken_over() -> None:
    network = inventory("r0").network({"r": Fib()})
    interface = network.routers["r"].interfaces["eth0"]
    assert (interface.up, interface.ofport) == (True, 1)
    assert MAC["r0"] not in network.bridges["x"].pinned  # where it is seen twice, OVSDB's word pins nothing


def test_a_port_that_is_barred_is_down(lab: Lab) -> None:
    lab.settle()
    barred = Port("s1", 1, True, "sends nothing (no-forward)")
    ports = [barred if port.name == "s1" else port for port in lab.ports("z")]
    lab.controller.ports_changed(lab.switches["z"], ports)
    eventually(lambda: "no-forward" in lab.controller.network.routers["s"].interfaces["eth1"].why_down)


def test_a_silent_switch_is_named_although_writes_go_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write waits for its own bundle; that a later one was sent a moment ago says nothing."""
    lab.settle()
    hold, whole = threading.Event(), lab.switches["x"].apply
    monkeypatch.setattr(lab.switches["x"], "apply", lambda update: (hold.wait(10), whole(update))[1])
    tickets = []
    for n in range(12):
        change = change_of(Match("eth0", Prefix.parse(f"10.{n}.0.0/16")), TO_B)
        tickets.append(lab.controller.write(Write("r", [change])))
        time.sleep(0.2)
    try:
        assert tickets[0].wait(1).waiting_for == ("x",)
        assert lab.controller.not_ready()
    finally:
        hold.set()


def test_an_error_that_is_heard_of_after_the_comparison_has_begun(lab: Lab) -> None:
    """The loop asks for a comparison before it has heard of the error; the worker then never says that it is back."""
    lab.settle()
    gate, worker = threading.Event(), lab.controller.installer.bridges["x"].worker
    lab.controller._jobs.add(lambda: gate.wait(5) and None)

    def fails() -> None:
        raise UnavailableError("no answer in time")

    lab.switches["x"].drift(True)
    worker._attempt(fails)
    gate.set()
    eventually(lambda: not lab.controller.not_ready())
    lab.write("r", ("10.0.0.0/8", TO_B))
    lab.check_in_step()


def test_a_rejection_that_is_heard_of_after_a_comparison_has_begun(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison tries the rule again, and the switch takes it: nothing is left of the rejection."""
    lab.write("r", ("10.1.0.0/16", TO_B))
    (key,) = lab.flow_rules("x")
    lab.write("r", replace=True)
    lab.settle()
    switch, gate = lab.switches["x"], threading.Event()
    whole = switch.apply

    def slow(update: Any) -> Any:
        rejections = whole(update)
        gate.wait(5)
        return rejections

    switch.refuse.add(key)
    monkeypatch.setattr(switch, "apply", slow)
    change = change_of(Match("eth0", Prefix.parse("10.1.0.0/16")), TO_B)
    ticket = lab.controller.write(Write("r", [change]))
    eventually(lambda: len(switch.updates[-1].changes) and any(c.key == key for c in switch.updates[-1].changes))
    monkeypatch.setattr(switch, "apply", whole)
    switch.refuse.clear()
    switch.drift(True)
    eventually(lambda: lab.controller.installer.bridges["x"].has_drifted)
    time.sleep(0.05)
    gate.set()
    assert not ticket.wait(5).failed
    eventually(lambda: not lab.controller.not_ready())
    lab.check_in_step()


def test_a_loop_that_is_busy_is_not_stuck(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always one more job."""
    monkeypatch.setattr("fsctl.controller.STUCK_S", 0.2)
    until = time.monotonic() + 0.6

    def again() -> None:
        if time.monotonic() < until:
            time.sleep(0.005)
            lab.controller._jobs.add(again)

    again()
    while time.monotonic() < until:
        assert not lab.controller.unhealthy()
        time.sleep(0.01)


def test_a_switch_that_hangs_as_it_connects_is_taken_in_later(lab: Lab) -> None:
    """It answers for its ports, and then not for its rules."""
    lab.write("r", ("10.0.0.0/8", TO_B))
    lab.settle()
    again, old = PaperSwitch("x"), lab.switches["x"]
    again.table, again.gone, old.gone = old.table, True, True
    lab.switches["x"] = again
    lab.controller.switch_connected(again, lab.ports("x"))
    eventually(lambda: any("gone" in reason for reason in lab.controller.not_ready()))
    again.gone = False
    eventually(lambda: not lab.controller.not_ready())
    lab.check_in_step()


def test_d5_another_switch_of_the_same_name_is_refused_while_the_first_one_lives(lab: Lab) -> None:
    lab.write("r", ("10.0.0.0/8", TO_B))
    lab.settle()
    other = PaperSwitch("x")
    lab.controller.switch_connected(other, [])
    eventually(lambda: other.is_closed)
    assert lab.controller.installer.bridges["x"].worker.switch is lab.switches["x"]
    lab.controller.ports_changed(other, [])
    lab.controller.switch_gone(other)
    lab.settle()
    assert lab.controller.network.routers["r"].interfaces["eth0"].up
    lab.check_in_step()
    assert lab.flow_rules("x")
    assert not other.updates


def test_d5_a_new_connection_takes_the_place_of_one_that_does_not_answer(lab: Lab) -> None:
    lab.settle()
    old, again = lab.switches["x"], PaperSwitch("x")
    again.table, lab.switches["x"], old.gone = old.table, again, True
    lab.controller.switch_connected(again, lab.ports("x"))
    eventually(lambda: lab.controller.installer.bridges["x"].worker.switch is again)
    assert old.is_closed
    lab.write("r", ("10.0.0.0/8", TO_B))
    lab.check_in_step()


def test_an_old_connection_that_ends_late_changes_nothing(lab: Lab) -> None:
    lab.settle()
    old, again = lab.switches["x"], PaperSwitch("x")
    again.table, lab.switches["x"], old.gone = old.table, again, True
    lab.controller.switch_connected(again, lab.ports("x"))
    lab.settle()
    lab.controller.switch_gone(old)
    lab.write("r", ("10.0.0.0/8", TO_B))
    lab.check_in_step()
