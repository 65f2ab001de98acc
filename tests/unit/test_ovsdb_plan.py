"""What is wanted against what is there: the changes, on plain rows."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from fsctl.openflow.rules import TABLES
from fsctl.ovsdb.edits import Set
from fsctl.ovsdb.marks import OWNER, PREFIXES, link_name
from fsctl.ovsdb.plan import plan
from fsctl.ovsdb.schema import _CLASSES, _MONITOR_ONLY, COLUMNS
from fsctl.ovsdb.view import view_of
from fsctl.ovsdb.wanted import Wanted
from tests.unit.ovsdb_rows import TARGET, Rows, field_names

OTHER = "tcp:127.0.0.1:9999"


def pair(a: str, b: str) -> frozenset[str]:
    return frozenset((a, b))


AB, BC = pair("a", "b"), pair("b", "c")
WANTED = Wanted(frozenset("ab"), TARGET, frozenset((AB,)))


@pytest.fixture
def rows() -> Rows:
    value = Rows()
    for name in "abc":
        value.bridge(name, protocols=("OpenFlow13",))
        value.port(name, f"vif-{name}")
    return value


def settle(rows: Rows, wanted: Wanted, lingered: frozenset[frozenset[str]] = frozenset()) -> int:
    """Carry out plans until there is nothing to do; how many it took."""
    for turn in itertools.count():
        found = plan(rows.database, wanted, lingered)
        if not found.changes:
            return turn
        assert turn < 5, found.changes
        rows.carry_out([change for change in found.changes if change.is_urgent] or found.changes)
    raise AssertionError


@pytest.mark.parametrize("table", COLUMNS)
def test_row_classes_have_the_columns_of_the_schema(table: str) -> None:
    asked = set(COLUMNS[table]) - _MONITOR_ONLY.get(table, frozenset())
    assert field_names(_CLASSES[table]) == asked | {"uuid"}


def test_nothing_is_planned_before_anything_is_wanted(rows: Rows) -> None:
    rows.half("a", "b")
    assert plan(rows.database, Wanted()).changes == ()
    assert plan(rows.database, Wanted(links=frozenset((AB,)))).changes == ()


def test_one_plan_makes_everything(rows: Rows) -> None:
    assert settle(rows, WANTED) == 1
    for name in "ab":
        bridge = rows.named("Bridge", name)
        assert (bridge.fail_mode, bridge.protocols) == ("secure", ("OpenFlow13", "OpenFlow14"))
        assert [rows.tables["Flow_Table"][uuid].prefixes for uuid in bridge.flow_tables.values()] == [PREFIXES] * len(TABLES)
        controller = rows.tables["Controller"][bridge.controller[0]]
        assert (controller.target, controller.connection_mode) == (TARGET, "out-of-band")
    untouched = rows.named("Bridge", "c")
    assert (untouched.fail_mode, untouched.controller, len(untouched.ports)) == (None, (), 1)
    assert view_of(rows.database, WANTED, {}).links == {"a": {"b": link_name("a", "b")}, "b": {"a": link_name("b", "a")}}
    assert plan(rows.database, WANTED).right >= {("link", "a", "b"), ("fail_mode", "a"), ("controller", "b")}


def test_unsafe_ports_come_first_and_alone(rows: Rows) -> None:
    rows.half("a", "b")
    rows.half("b", "a")
    urgent = [change for change in plan(rows.database, WANTED).changes if change.is_urgent]
    assert len(urgent) == 2
    assert all(isinstance(edit, Set) and edit.table == "Port" for change in urgent for edit in change.edits)
    assert settle(rows, WANTED) == 2
    assert rows.named("Port", link_name("a", "b")).external_ids[OWNER] == TARGET


def test_any_damage_is_put_right_in_two_plans(rows: Rows) -> None:
    """Random damage to fsctl's rows, many times; the same rows as before must come out."""
    rng = random.Random(10)
    wanted = Wanted(frozenset("abc"), TARGET, frozenset((AB, BC)))
    settle(rows, wanted)

    def shape() -> object:
        ports = {port.name: replace(port, uuid=None, interfaces=None) for port in rows.tables["Port"].values()}
        interfaces = {row.name: replace(row, uuid=None) for row in rows.tables["Interface"].values()}
        bridges = [
            (b.name, b.fail_mode, b.protocols, sorted(b.flow_tables), sorted(rows.tables["Port"][u].name for u in b.ports),
             [rows.tables["Controller"][u].target for u in b.controller])
            for b in sorted(rows.tables["Bridge"].values(), key=lambda b: b.name)
        ]  # fmt: skip
        return ports, interfaces, bridges

    right = shape()
    damage = {
        "Port": {"tag": (None, 7), "trunks": ((1,), ()), "vlan_mode": ("trunk", None),
                 "other_config": ({}, {"stp-enable": "true"}),
                 "external_ids": ({}, {"fsctl": "link", "fsctl-peer": "z", OWNER: TARGET})},
        "Interface": {"type": ("dummy", ""), "options": ({}, {"peer": "x"}), "external_ids": ({},)},
        "Bridge": {"fail_mode": (None, "standalone"), "controller": ((),), "flow_tables": ({},)},
        "Controller": {"target": ("tcp:1.2.3.4:5",), "connection_mode": (None, "in-band"), "max_backoff": (None, 9)},
    }  # fmt: skip
    for _ in range(300):
        table = rng.choice(list(damage))
        for row in rng.sample(list(rows.tables[table].values()), 2):
            if row in rows.tables[table].values() and not getattr(row, "name", "").startswith("vif-"):
                column = rng.choice(list(damage[table]))
                rows.update(table, row.uuid, **{column: rng.choice(damage[table][column])})
        if rng.random() < 0.3:
            bridge = rows.named("Bridge", rng.choice("abc"))
            lost = rng.choice(bridge.ports)
            if rows.tables["Port"][lost].name.startswith("fsl"):
                rows.update("Bridge", bridge.uuid, ports=tuple(u for u in bridge.ports if u != lost))
        rows.carry_out([])
        settle(rows, wanted)
        assert shape() == right


def test_links_need_two_managed_bridges_of_one_type(rows: Rows) -> None:
    wanted = Wanted(frozenset("abz"), TARGET, frozenset((AB, BC, pair("a", "z"))))
    rows.update("Bridge", rows.named("Bridge", "b").uuid, datapath_type="netdev")
    found = plan(rows.database, wanted)
    assert found.link_problems == {
        AB: "a is system, b is netdev: patch ports between them carry nothing",
        BC: "bridge c is not one that fsctl manages",
        pair("a", "z"): "Open vSwitch has no bridge z",
    }
    assert not any(change.key[0] == "link" for change in found.changes)
    rows.update("Bridge", rows.named("Bridge", "a").uuid, datapath_type="netdev")
    assert set(plan(rows.database, wanted).link_problems) == {BC, pair("a", "z")}


def test_system_is_the_default_type(rows: Rows) -> None:
    rows.update("Bridge", rows.named("Bridge", "b").uuid, datapath_type="system")
    settle(rows, WANTED)
    assert view_of(rows.database, WANTED, {}).links


def test_unwanted_links_go_when_they_have_lingered(rows: Rows) -> None:
    settle(rows, WANTED)
    nothing = replace(WANTED, links=frozenset())
    assert plan(rows.database, nothing).changes == ()
    assert plan(rows.database, nothing).unwanted == {AB}
    assert plan(rows.database, replace(WANTED, links=None)).unwanted == frozenset()
    settle(rows, nothing, frozenset((AB,)))
    assert rows.names("Port") == ["vif-a", "vif-b", "vif-c"]


def test_what_another_fsctl_owns_is_not_touched(rows: Rows) -> None:
    for name in "ab":
        rows.controller(name, OTHER, external_ids={"fsctl": "controller", OWNER: OTHER}, is_connected=True)
    unsafe = rows.half("a", "b", OTHER)
    rows.half("b", "a", OTHER)
    found = plan(rows.database, WANTED)
    assert not any(change.is_urgent for change in found.changes)
    assert OTHER in found.link_problems[AB]
    settle(rows, WANTED, frozenset((AB,)))
    assert rows.tables["Port"][unsafe.uuid] == unsafe
    view = view_of(rows.database, WANTED, {})
    assert OTHER in view.bridges["a"].warnings[0]
    assert view.ports["a", unsafe.name].exempt


def test_links_without_owner_belong_to_who_manages_a_bridge(rows: Rows) -> None:
    rows.half("b", "c")
    rows.half("c", "b")
    away = Wanted(frozenset("a"), TARGET, frozenset(), may_release=True)
    assert not any("b" in change.key or "c" in change.key for change in plan(rows.database, away, frozenset((BC,))).changes)
    assert link_name("b", "c") not in {port for _, port in view_of(rows.database, replace(WANTED), {}).ports}


def test_a_bridge_is_released_only_when_that_is_allowed(rows: Rows) -> None:
    settle(rows, Wanted(frozenset("abc"), TARGET, frozenset((AB, BC))))
    later = Wanted(frozenset("ab"), TARGET, frozenset((AB,)))
    assert plan(rows.database, later, frozenset((BC,))).changes == ()
    assert plan(rows.database, later).to_release == ("c",)
    assert settle(rows, replace(later, may_release=True)) == 1
    bridge = rows.named("Bridge", "c")
    assert (bridge.fail_mode, bridge.controller, bridge.flow_tables) == (None, (), {})
    assert set(rows.names("Port")) == {"vif-a", "vif-b", "vif-c", link_name("a", "b"), link_name("b", "a")}


def test_release_beside_another_controller_keeps_the_fail_mode(rows: Rows) -> None:
    settle(rows, Wanted(frozenset("abc"), TARGET, frozenset()))
    rows.controller("c", OTHER)
    later = Wanted(frozenset("ab"), TARGET, frozenset(), may_release=True)
    assert plan(rows.database, later).keeps_rules == {"c"}
    settle(rows, later)
    bridge = rows.named("Bridge", "c")
    assert bridge.fail_mode == "secure"
    assert [rows.tables["Controller"][u].target for u in bridge.controller] == [OTHER]


def test_no_controller_of_ones_own(rows: Rows) -> None:
    settle(rows, replace(WANTED, controller=None))
    assert not rows.tables["Controller"]
    assert rows.named("Bridge", "a").fail_mode == "secure"
    assert view_of(rows.database, replace(WANTED, controller=None), {}).links


def test_an_operators_keys_in_external_ids_stay(rows: Rows) -> None:
    settle(rows, WANTED)
    port = rows.named("Port", link_name("a", "b"))
    rows.update("Port", port.uuid, external_ids={"site": "x"}, other_config={"more": "y"}, tag=None)
    settle(rows, WANTED)
    port = rows.named("Port", port.name)
    assert port.external_ids["site"] == "x"
    assert port.external_ids[OWNER] == TARGET
    assert port.other_config == {"more": "y", "stp-enable": "false", "rstp-enable": "false"}
