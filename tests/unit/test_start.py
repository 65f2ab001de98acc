"""What a start does with what is stored and no longer configured (A3), or said over REST and by the file too (B8)."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fsctl.config import Config
from fsctl.model.delegations import Forward
from fsctl.model.network import Address
from fsctl.status import CLEAR, InterfaceChange, SessionRequest

from .paper import MAC, Lab

TO_S, TO_B = Forward("eth1", MAC["s0"]), Forward("eth1", MAC["b"])


def without(config: Config, router: str, interface: str | None = None) -> Config:
    """The configuration without a router, or without one of its interfaces."""
    routers = dict(config.routers)
    if interface is None:
        del routers[router]
    else:
        kept = {name: i for name, i in routers[router].interfaces.items() if name != interface}
        routers[router] = replace(routers[router], interfaces=kept)
    return replace(config, routers=routers)


def restart(lab: Lab, config: Config) -> None:
    lab.stop()
    lab.config = config
    lab.start()


@pytest.mark.parametrize("interface", [None, "eth0", "eth1"])
def test_fault_A3_what_comes_back_is_not_installed_by_itself(
    lab: Lab, interface: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    whole = lab.config
    lab.controller.sessions.open(SessionRequest("s", "agent", 60.0))
    lab.write("r", ("10.0.0.0/8", TO_S))
    assert lab.flow_rules("x")
    with caplog.at_level(logging.WARNING):
        restart(lab, without(whole, "r", interface))
    assert any("router r" in m and "1 delegations are kept aside" in m for m in caplog.messages)
    assert [(o.router, o.count) for o in lab.controller.orphans()] == [("r", 1)]
    assert lab.store.load_sessions().keys() == {"s"}
    restart(lab, whole)
    lab.check_in_step()
    assert not lab.flow_rules("x")
    assert [f for f in lab.controller.flows("r") if f.state == "installed"] == []
    lab.write("r", ("10.0.0.0/8", TO_S))
    assert lab.flow_rules("x")
    assert len(lab.controller.orphans()) == 1
    lab.write("r", replace=True)
    assert lab.controller.orphans() == []


def test_fault_A3_withdrawn_while_it_was_gone(lab: Lab) -> None:
    """The row of the list: an interface is taken out, PUT {"flows": []}, the interface is put back."""
    whole = lab.config
    lab.write("r", ("10.0.0.0/8", TO_S))
    restart(lab, without(whole, "r", "eth1"))
    lab.write("r", replace=True)
    assert lab.controller.orphans() == []
    restart(lab, whole)
    lab.check_in_step()
    assert not list(lab.controller.flows("r"))
    assert not lab.flow_rules("x")


def test_fault_A3_a_hole_stays_a_hole(lab: Lab) -> None:
    """What left by the interface that is gone must not follow the shorter prefix."""
    lab.write("r", ("10.0.0.0/8", TO_B), ("10.0.3.0/24", Forward("eth0", MAC["a"])))
    whole = lab.config
    only = replace(whole.routers["r"].interfaces["eth0"], name="eth7")
    interfaces = {"eth0": whole.routers["r"].interfaces["eth0"], "eth1": whole.routers["r"].interfaces["eth1"]}
    extra = replace(whole.routers["r"], interfaces={**interfaces, "eth7": replace(only, port="r7", mac=0x02_77)})
    restart(lab, replace(whole, routers={**whole.routers, "r": extra}))
    lab.write("r", ("10.0.3.0/24", Forward("eth7", MAC["a"])))
    restart(lab, whole)
    lab.check_in_step()
    verdicts = {str(f.delegation.match.dst): f.reason for f in lab.controller.flows("r")}
    assert "punt" in verdicts["10.0.3.0/24"]
    lab.check_in_step()


def test_fault_B8_a_start_warns_where_rest_and_the_file_differ(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    def change(said: InterfaceChange) -> None:
        lab.controller.change_interface(said).wait(10)

    change(InterfaceChange("r", "eth0", mtu=1400))
    change(InterfaceChange("r", "eth1", (Address.parse("10.9.9.1/24"),), 1500))
    with caplog.at_level(logging.WARNING):
        restart(lab, lab.config)
    warned = [m for m in caplog.messages if "over REST" in m]
    assert warned == [
        "router r, interface eth0: mtu 1400 was set over REST; the configuration says 1500",
        "router r, interface eth1: addresses 10.9.9.1/24 was set over REST; the configuration says none",
    ]
    assert lab.controller.overrides("r")["eth0"].mtu == 1400
    caplog.clear()
    change(InterfaceChange("r", "eth0", mtu=CLEAR))
    change(InterfaceChange("r", "eth1", CLEAR))
    with caplog.at_level(logging.WARNING):
        restart(lab, lab.config)
    assert [m for m in caplog.messages if "over REST" in m] == []
    assert lab.controller.network.routers["r"].interfaces["eth0"].mtu == 1500


def test_fault_B8_a_word_that_the_file_says_too_is_stored(lab: Lab) -> None:
    """Acknowledged, it holds although the file is changed later."""
    lab.controller.change_interface(InterfaceChange("r", "eth0", mtu=1500)).wait(10)
    routers = dict(lab.config.routers)
    declared = routers["r"].interfaces["eth0"]
    routers["r"] = replace(routers["r"], interfaces={**routers["r"].interfaces, "eth0": replace(declared, mtu=9000)})
    restart(lab, replace(lab.config, routers=routers))
    assert lab.controller.network.routers["r"].interfaces["eth0"].mtu == 1500
