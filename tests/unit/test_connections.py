"""A switch proves that it is the bridge that it says it is (D5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsctl.connections import MOST_WAITING, Connections
from fsctl.openflow.ports import Port
from fsctl.runtime import Threads
from fsctl.status import BridgeInfo, OvsdbView
from tests.waiting import eventually

from .paper import PaperSwitch

REAL, FAKE = 0x1111, 0x2222
PORTS = {"p1": Port("p1", 1, True)}


class Desk:
    """Connections over a paper installer and inventory; what is to run later runs in `turn`."""

    def __init__(self, *, is_local: bool) -> None:
        self.used: dict[str, PaperSwitch] = {}
        self.ports: dict[str, Any] = {}
        self.ovsdb = OvsdbView()
        self._jobs: list[Callable[[], None]] = []
        me: Any = self
        self.connections = Connections(me, me, Threads(), self._jobs.append, is_local=is_local)

    def connect(self, switch: PaperSwitch, _datapath_id: int | None) -> None:
        self.used[switch.bridge] = switch

    def disconnect(self, switch: PaperSwitch) -> None:
        del self.used[switch.bridge]

    def take_ports(self, bridge: str, ports: Any) -> None:
        self.ports[bridge] = ports

    def comes(self, datapath_id: int) -> PaperSwitch:
        switch: Any = PaperSwitch("b0")
        self.connections.connected(switch, PORTS, datapath_id)
        return switch

    def tells(self, datapath_id: int | None) -> None:
        """OVSDB says which datapath id b0 has."""
        self.ovsdb = OvsdbView(bridges={"b0": BridgeInfo("b0", datapath_id=datapath_id)}, is_known=True)
        self.connections.review()

    def turn(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()

    def uses(self, switch: PaperSwitch) -> bool:
        self.turn()
        return self.used.get("b0") is switch


def test_d5_only_the_switch_that_ovsdb_names_is_used() -> None:
    desk = Desk(is_local=True)
    desk.tells(REAL)
    fake = desk.comes(FAKE)
    assert fake.is_closed
    assert not desk.used
    real = desk.comes(REAL)
    assert desk.uses(real)
    assert desk.ports["b0"] == PORTS


def test_d5_where_guests_can_connect_nobody_is_used_before_ovsdb_has_told() -> None:
    desk = Desk(is_local=False)
    fake, real = desk.comes(FAKE), desk.comes(REAL)
    assert not desk.used
    assert "OVSDB has not told" in desk.connections.waits_for("b0")
    desk.tells(REAL)
    assert desk.uses(real)
    assert fake.is_closed
    assert not real.is_closed
    assert not desk.connections.waits_for("b0")


def test_d5_on_this_host_ovsdbs_silence_delays_nobody_and_its_word_counts_later() -> None:
    desk = Desk(is_local=True)
    first = desk.comes(FAKE)
    assert desk.uses(first)
    desk.tells(REAL)
    assert first.is_closed
    assert not desk.used


def test_d5_the_connection_in_use_is_kept_while_it_answers() -> None:
    desk = Desk(is_local=True)
    desk.tells(REAL)
    real, again = desk.comes(REAL), desk.comes(REAL)
    eventually(lambda: desk.uses(real) and again.is_closed)
    assert not real.is_closed


def test_d5_a_connection_that_does_not_answer_is_replaced() -> None:
    desk = Desk(is_local=True)
    desk.tells(REAL)
    dead = desk.comes(REAL)
    dead.gone = True
    again = desk.comes(REAL)
    eventually(lambda: desk.uses(again))
    assert dead.is_closed
    desk.connections.gone(dead)  # type: ignore[arg-type]
    assert desk.uses(again)


def test_d5_the_next_one_is_used_when_a_connection_ends() -> None:
    desk = Desk(is_local=True)
    desk.tells(REAL)
    first, second = desk.comes(REAL), desk.comes(REAL)
    desk.connections.gone(first)  # type: ignore[arg-type]
    eventually(lambda: desk.uses(second))
    assert not second.is_closed


def test_d5_those_that_wait_are_few() -> None:
    desk = Desk(is_local=False)
    switches = [desk.comes(FAKE) for _ in range(MOST_WAITING + 3)]
    assert [s.is_closed for s in switches] == [False] * MOST_WAITING + [True] * 3


def test_d5_a_bridge_with_a_new_datapath_id_is_followed() -> None:
    desk = Desk(is_local=True)
    desk.tells(REAL)
    old = desk.comes(REAL)
    desk.tells(FAKE)
    assert old.is_closed
    assert desk.uses(desk.comes(FAKE))
