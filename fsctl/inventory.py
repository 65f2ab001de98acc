"""Configuration and what the switches and OVSDB report, put together as a `Network`.

Pure. An interface keeps its name and MAC while its port comes, goes or changes its number: delegations
belong to the interface, and only `ofport` and `up` follow the port.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from fsctl.config import Config, InterfaceConfig
from fsctl.fib import Fib
from fsctl.model import Address, Bridge, Interface, Network, Router
from fsctl.status import Override, OvsdbView, Port


@dataclass(slots=True)
class Inventory:
    """The latest word of every source."""

    config: Config
    ports: dict[str, dict[str, Port]] = field(default_factory=dict)
    ovsdb: OvsdbView = field(default_factory=OvsdbView)
    overrides: dict[tuple[str, str], Override] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    """Bridges that refuse the rules that every bypass needs."""

    def network(self, fibs: Mapping[str, Fib]) -> Network:
        """The network as it is now."""
        bridges = {name: self._bridge(name) for name in self.config.bridges}
        routers = {
            name: Router(
                name,
                {i.name: self._interface(name, i) for i in router.interfaces.values()},
                router.max_flows,
            )
            for name, router in self.config.routers.items()
        }
        return Network(bridges, _without_twins(routers), fibs, self.config.max_hops)

    def _bridge(self, name: str) -> Bridge:
        ports = self.ports.get(name, {})
        known = [info for (bridge, _), info in self.ovsdb.ports.items() if bridge == name]
        links = {
            peer: ports[port].ofport
            for peer, port in self.ovsdb.links.get(name, {}).items()
            if port in ports and name in self.ovsdb.links.get(peer, {})
        }
        mtus = [info.mtu for info in known] + [
            i.mtu for r in self.config.routers.values() for i in r.interfaces.values() if i.bridge == name
        ]
        exempt = {ports[info.name].ofport: info.exempt for info in known if info.exempt and info.name in ports}
        return Bridge(name, dict(sorted(links.items())), max(mtus, default=1500), dict(sorted(exempt.items())))

    def _interface(self, router: str, declared: InterfaceConfig) -> Interface:
        addresses, mtu = self.said(router, declared)
        name, mac = declared.port, declared.mac
        if name is None:
            name = self._port_of(declared.bridge, mac)
        info = self.ovsdb.ports.get((declared.bridge, name))
        if mac is None and info is not None:
            mac = info.attached_mac
        interface = Interface(router, declared.name, declared.bridge, name, mac or 0, mtu, addresses)
        port = self.ports.get(declared.bridge, {}).get(name)
        why = ""
        if mac is None:
            why = f"no MAC address: neither configured nor in OVSDB (external_ids:attached-mac of {name or 'its port'})"
        elif port is None:
            why = f"port {name or 'with that MAC'} is not on bridge {declared.bridge}"
        elif not port.up:
            why = f"port {name} is down"
        elif declared.bridge in self.closed:
            why = f"bridge {declared.bridge} refuses the rules that the bypass needs"
        elif info is not None and info.unfit:
            why = f"port {name} {info.unfit}"
        return replace(interface, ofport=port.ofport if port else None, up=not why, why_down=why)

    def said(self, router: str, declared: InterfaceConfig) -> tuple[tuple[Address, ...], int]:
        """Addresses and MTU: the router's own word, else the configuration's."""
        addresses, mtu = self.overrides.get((router, declared.name), Override())
        return declared.addresses if addresses is None else addresses, declared.mtu if mtu is None else mtu

    def disagreements(self) -> Iterator[str]:
        """Where what a router said over REST holds in place of something else in the configuration; in words."""
        for (router, name), override in self.overrides.items():
            declared = self.config.routers[router].interfaces[name]
            values = []
            if override.mtu not in (None, declared.mtu):
                values.append(("mtu", str(override.mtu), str(declared.mtu)))
            if override.addresses not in (None, declared.addresses):
                said, file = (" ".join(map(str, a or ())) or "none" for a in (override.addresses, declared.addresses))
                values.append(("addresses", said, file))
            for what, said, file in values:
                yield f"router {router}, interface {name}: {what} {said} was set over REST; the configuration says {file}"

    def _port_of(self, bridge: str, mac: int | None) -> str:
        """The port that OVSDB says has this MAC (Xen and libvirt set external_ids:attached-mac)."""
        found = [i.name for (b, _), i in self.ovsdb.ports.items() if b == bridge and mac and i.attached_mac == mac]
        return found[0] if len(found) == 1 else ""


def _without_twins(routers: dict[str, Router]) -> dict[str, Router]:
    """Two interfaces with one MAC on one bridge: neither can be told apart, so neither is used."""
    seen = Counter((i.bridge, i.mac) for r in routers.values() for i in r.interfaces.values() if i.mac)
    if all(count == 1 for count in seen.values()):
        return routers
    return {
        name: replace(
            router,
            interfaces={
                i.name: replace(i, up=False, why_down="another interface on this bridge has the same MAC address")
                if seen[i.bridge, i.mac] > 1
                else i
                for i in router.interfaces.values()
            },
        )
        for name, router in routers.items()
    }


def unlinked(network: Network) -> dict[str, Bridge]:
    """The bridges but for their patch links."""
    return {name: replace(bridge, links={}) for name, bridge in network.bridges.items()}
