"""Which connection is a bridge's: that of the switch which OVSDB names; while the one in use lives, it is kept.

A connection that says it is a bridge waits until OVSDB has told that bridge's datapath id. Where only processes of this
host can connect, OVSDB's silence is no reason to wait. A second connection of a bridge is used only if the first does not
answer: a switch that lost its connection may be back before anybody knows that the old one is dead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fsctl.bridge_worker import Switch
from fsctl.installer import Installer
from fsctl.inventory import Inventory
from fsctl.openflow.ports import Port
from fsctl.runtime import Runtime

_LOG = logging.getLogger(__name__)
Ports = dict[str, Port]
ALIVE_S = 2.0
"""How long the connection in use has to answer when another one claims its bridge."""
MOST_WAITING = 4
"""Connections of a bridge that wait; a further one is closed."""
MOST_SAID = 1000
"""Different refusals that are logged; all later ones are silent."""


class Client(Switch, Protocol):
    """A connection that can be ended."""

    def answers(self, within_s: float) -> bool:
        """Whether the switch answers in time; waits for it."""
        ...

    def disconnect(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Connection:
    switch: Client
    datapath_id: int | None
    ports: Ports
    is_asked: bool = False
    """The connection in use is being asked whether it lives, because of this one."""


class Connections:
    """The connection in use of each bridge, and those that wait."""

    def __init__(
        self,
        installer: Installer,
        inventory: Inventory,
        runtime: Runtime,
        later: Callable[[Callable[[], None]], None],
        *,
        is_local: bool = True,
    ) -> None:
        """`later` runs a function in the controller's loop; `is_local`: only processes of this host can connect."""
        self._installer, self._inventory = installer, inventory
        self._runtime, self._later, self._is_local = runtime, later, is_local
        self._used: dict[str, _Connection] = {}
        self._waiting: dict[str, list[_Connection]] = {}
        self._proven: dict[str, int] = {}
        """The datapath ids that OVSDB has told last."""
        self._said: set[str] = set()

    # --- what switches do ----------------------------------------------------------------------------------

    def connected(self, switch: Client, ports: Ports, datapath_id: int | None) -> None:
        """A new connection."""
        waiting = self._waiting.setdefault(switch.bridge, [])
        if len(waiting) >= MOST_WAITING:
            self._refuse(_Connection(switch, datapath_id, ports), "too many connections say that they are this bridge")
            return
        waiting.append(_Connection(switch, datapath_id, ports))
        self._look(switch.bridge)

    def ports_changed(self, switch: Client, ports: Ports) -> None:
        """All ports that one connection reports."""
        for connection in self._all(switch.bridge):
            if connection.switch is switch:
                connection.ports = ports
        used = self._used.get(switch.bridge)
        if used is not None and used.switch is switch:
            self._inventory.take_ports(switch.bridge, ports)

    def gone(self, switch: Client) -> None:
        """A connection has ended."""
        bridge, used = switch.bridge, self._used.get(switch.bridge)
        self._waiting[bridge] = [c for c in self._waiting.get(bridge, []) if c.switch is not switch]
        if used is not None and used.switch is switch:
            _LOG.warning("bridge %s: disconnected; it keeps its rules", bridge)
            self._let_go(bridge)
        self._look(bridge)

    def _all(self, bridge: str) -> list[_Connection]:
        used = self._used.get(bridge)
        return [*([used] if used is not None else []), *self._waiting.get(bridge, [])]

    # --- who is it -----------------------------------------------------------------------------------------

    def review(self) -> None:
        """OVSDB may have told more: judge all connections again."""
        for bridge, info in self._inventory.ovsdb.bridges.items():
            if info.datapath_id is not None:
                self._proven[bridge] = info.datapath_id
        for bridge, used in tuple(self._used.items()):
            if self._is_proven(bridge, used) is False:
                self._let_go(bridge)
                self._refuse(used, "OVSDB says now that the bridge has another datapath id")
        for bridge in self._waiting:
            self._look(bridge)

    def waits_for(self, bridge: str) -> str:
        """Why nobody is used as this bridge although somebody says he is it; empty otherwise."""
        if bridge in self._used or not self._waiting.get(bridge):
            return ""
        return "a switch has connected; OVSDB has not told yet which datapath id the bridge has"

    def _is_proven(self, bridge: str, connection: _Connection) -> bool | None:
        """None: it cannot be told yet."""
        if connection.datapath_id is None:
            return True
        known = self._proven.get(bridge)
        if known is None:
            return True if self._is_local else None
        return known == connection.datapath_id

    def _look(self, bridge: str) -> None:
        """Use the oldest waiting connection that is the bridge's, unless the one in use lives."""
        for connection in tuple(self._waiting.get(bridge, ())):
            is_proven = self._is_proven(bridge, connection)
            if is_proven is None:
                continue
            if not is_proven:
                self._waiting[bridge].remove(connection)
                self._refuse(connection, "OVSDB says that the bridge has another datapath id")
            elif bridge not in self._used:
                self._waiting[bridge].remove(connection)
                self._use(connection)
            elif not connection.is_asked:
                connection.is_asked = True
                self._ask(self._used[bridge], connection)

    def _ask(self, used: _Connection, other: _Connection) -> None:
        """Does the connection in use live? Asked in a thread of its own."""

        def ask() -> None:
            is_alive = used.switch.answers(ALIVE_S)
            self._later(lambda: self._heard(used, other, is_alive))

        self._runtime.spawn(ask)

    def _heard(self, used: _Connection, other: _Connection, is_alive: bool) -> None:
        bridge = other.switch.bridge
        if other not in self._waiting.get(bridge, ()):
            return
        if self._used.get(bridge) is not used:
            other.is_asked = False  # another one is used meanwhile: that is to be asked
            self._look(bridge)
        elif is_alive:
            self._waiting[bridge].remove(other)
            self._refuse(other, "the bridge's connection is alive, and is kept")
        else:
            _LOG.warning("bridge %s: its connection does not answer; a new one takes its place", bridge)
            self._let_go(bridge)
            used.switch.disconnect()
            self._look(bridge)

    def _use(self, connection: _Connection) -> None:
        bridge = connection.switch.bridge
        self._used[bridge] = connection
        self._installer.connect(connection.switch, connection.datapath_id)
        self._inventory.take_ports(bridge, connection.ports)

    def _let_go(self, bridge: str) -> None:
        self._installer.disconnect(self._used.pop(bridge).switch)

    def _refuse(self, connection: _Connection, why: str) -> None:
        known = "none" if connection.datapath_id is None else f"{connection.datapath_id:016x}"
        text = f"bridge {connection.switch.bridge}: a connection with datapath id {known} is refused: {why}"
        if text not in self._said and len(self._said) < MOST_SAID:
            self._said.add(text)
            _LOG.warning("%s", text)
        connection.switch.disconnect()
