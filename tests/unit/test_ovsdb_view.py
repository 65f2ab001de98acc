"""Rows -> view, on plain rows: what a real Open vSwitch does not easily say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from fsctl.ovsdb.admission import Mirrors, exempt, has_senders, unfit
from fsctl.ovsdb.marks import link_name
from fsctl.ovsdb.rows import BridgeRow, InterfaceRow, PortRow
from fsctl.ovsdb.view import view_of
from fsctl.ovsdb.wanted import Wanted
from fsctl.status import OvsdbView
from tests.unit.ovsdb_rows import TARGET, Rows

WANTED = Wanted(frozenset("ab"), TARGET, frozenset((frozenset("ab"),)))
BOND = "is a bond member that Open vSwitch may not receive from"
ONE, TWO = (InterfaceRow(uuid=uuid4(), name=f"m{n}", mac_in_use=f"02:00:00:00:00:0{n}") for n in (1, 2))


def view(rows: Rows) -> OvsdbView:
    return view_of(rows.database, WANTED, {})


@pytest.fixture
def rows() -> Rows:
    value = Rows()
    for name in "ba":
        value.bridge(name)
        for port in ("z", "y"):
            value.port(name, f"{name}-{port}")
    return value


def test_order_is_that_of_names(rows: Rows) -> None:
    assert list(view(rows).bridges) == ["a", "b"]
    assert [port for _, port in view(rows).ports] == ["a-y", "a-z", "b-y", "b-z"]
    assert view(rows) == view(rows)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("60", 60), ("5", 15), ("99999", 3600), ("", 300), ("much", 300), ("0", 300), ("-7", 300), ("0x40", 64)],
)
def test_ageing_time_is_vswitchds(rows: Rows, said: str, meant: int) -> None:
    bridge = rows.named("Bridge", "a")
    rows.update("Bridge", bridge.uuid, other_config={"mac-aging-time": said})
    assert view(rows).bridges["a"].mac_age_s == meant
    rows.update("Bridge", bridge.uuid, rstp_enable=True)
    assert view(rows).bridges["a"].mac_age_s == 15


@pytest.mark.parametrize("broken", ["type", "options", "error", "gone", "datapath_type"])
def test_a_link_that_carries_nothing_is_none(rows: Rows, broken: str) -> None:
    rows.half("a", "b", TARGET)
    rows.half("b", "a", TARGET)
    assert set(view(rows).links) == {"a", "b"}
    name = link_name("b", "a")
    if broken == "gone":
        rows.update("Bridge", rows.named("Bridge", "b").uuid, ports=())
    elif broken == "datapath_type":
        rows.update("Bridge", rows.named("Bridge", "b").uuid, datapath_type="netdev")
    else:
        value = {"type": "dummy", "options": {"peer": "x"}, "error": "No usable peer"}[broken]
        rows.update("Interface", rows.named("Interface", name).uuid, **{broken: value})
    assert view(rows).links == {}
    assert not any(port.startswith("fsl") for _, port in view(rows).ports)


def test_only_the_active_member_of_the_right_kind_of_bond() -> None:
    port = PortRow(uuid=uuid4(), name="bond", interfaces=(ONE.uuid, TWO.uuid), bond_active_slave=ONE.mac_in_use)
    both = (ONE, TWO)
    assert [exempt(port, member, both, Mirrors()) for member in both] == ["", BOND]
    for change in ({"bond_mode": "balance-slb"}, {"lacp": "active"}, {"bond_active_slave": None}, {"bond_active_slave": ""}):
        changed = replace(port, **change)
        assert [exempt(changed, member, both, Mirrors()) for member in both] == [BOND, BOND]
    twins = (ONE, replace(TWO, mac_in_use=ONE.mac_in_use))
    assert [exempt(port, member, twins, Mirrors()) for member in twins] == [BOND, BOND], "which of them it is cannot be told"


def test_states_of_a_tree_that_is_off_mean_nothing() -> None:
    bridge = BridgeRow(uuid=uuid4(), name="a")
    port = PortRow(uuid=uuid4(), name="p", status={"stp_state": "blocking"}, rstp_status={"rstp_port_state": "Discarding"})
    assert unfit(bridge, port, ONE, (ONE,), Mirrors()) == ""
    assert "STP: blocking" in unfit(replace(bridge, stp_enable=True), port, ONE, (ONE,), Mirrors())
    assert "RSTP: discarding" in unfit(replace(bridge, rstp_enable=True), port, ONE, (ONE,), Mirrors())


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, True), ({"protected": True}, True), ({"tag": 0}, True), ({"tag": 7}, False), ({"trunks": (0, 7)}, True),
        ({"trunks": (7,)}, False), ({"tag": 7, "vlan_mode": "trunk", "trunks": (0,)}, True),
        ({"tag": 7, "vlan_mode": "native-untagged"}, False), ({"tag": 0, "vlan_mode": "native-tagged", "trunks": (7,)}, True),
        ({"tag": 0, "vlan_mode": "dot1q-tunnel"}, False),
    ],
)  # fmt: skip
def test_untagged_frames_are_of_vlan_0_where_the_port_says_so(columns: dict[str, Any], expected: bool) -> None:
    port = replace(PortRow(uuid=uuid4(), name="p"), **columns)
    assert has_senders(port, ONE, (ONE,), Mirrors()) is expected


def test_senders_are_not_looked_for_where_the_bridge_takes_nothing() -> None:
    port = PortRow(uuid=uuid4(), name="bond", interfaces=(ONE.uuid, TWO.uuid), bond_active_slave=ONE.mac_in_use)
    both = (ONE, TWO)
    assert [has_senders(port, member, both, Mirrors()) for member in both] == [True, False]
    assert [has_senders(replace(port, bond_mode="balance-slb"), member, both, Mirrors()) for member in both] == [True, True]
    assert not has_senders(port, ONE, both, Mirrors(outputs=frozenset({port.uuid})))
