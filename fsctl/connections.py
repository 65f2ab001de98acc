"""Which connection speaks for a bridge: the newest one that lives.

A switch that lost its connection comes back before the old one is known to be dead; so the newest counts. Another switch
may use a bridge's name by mistake: when it goes, the one before it is taken up again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fsctl.bridge_worker import Switch
from fsctl.installer import Installer
from fsctl.inventory import Inventory
from fsctl.status import Port

_LOG = logging.getLogger(__name__)
Ports = dict[str, Port]


@dataclass(slots=True, eq=False)
class _Connection:
    switch: Switch
    datapath_id: int | None
    ports: Ports


class Connections:
    """The connections of each bridge, the newest last."""

    def __init__(self, installer: Installer, inventory: Inventory) -> None:
        self._installer, self._inventory = installer, inventory
        self._of: dict[str, list[_Connection]] = {}

    def connected(self, switch: Switch, ports: Ports, datapath_id: int | None) -> None:
        """A new connection."""
        here = self._of.setdefault(switch.bridge, [])
        if here:
            _LOG.warning("bridge %s has connected again: the new connection counts", switch.bridge)
        here.append(_Connection(switch, datapath_id, ports))
        self._use(here[-1])

    def ports_changed(self, switch: Switch, ports: Ports) -> None:
        """All ports, as one connection tells of them."""
        here = self._of.get(switch.bridge, [])
        for connection in here:
            if connection.switch is switch:
                connection.ports = ports
        if here and here[-1].switch is switch:
            self._inventory.take_ports(switch.bridge, ports)

    def gone(self, switch: Switch) -> None:
        """A connection has ended."""
        here = self._of.get(switch.bridge, [])
        was_current = bool(here) and here[-1].switch is switch
        here[:] = [connection for connection in here if connection.switch is not switch]
        if not was_current:
            return
        self._installer.disconnect(switch)
        if here:
            _LOG.warning("bridge %s: a connection ended, the one before it counts again", switch.bridge)
            self._use(here[-1])
        else:
            _LOG.warning("bridge %s: disconnected; it keeps its rules", switch.bridge)

    def _use(self, connection: _Connection) -> None:
        self._installer.connect(connection.switch, connection.datapath_id)
        self._inventory.take_ports(connection.switch.bridge, connection.ports)
