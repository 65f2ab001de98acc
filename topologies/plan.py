"""Where everything is in a topology: stations, their interfaces, addresses, routes and what a router delegates.

Pure values; Mininet is not needed to think about them. Subnet number S is 10.0.S.0/24 and fd00:0:0:S::/64;
station number N in it has .N and ::N (in hexadecimal), and its interface the MAC 02:00:00:00:SS:NN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from topologies.mn import Topo

DEFAULT_MTU = 1500


def subnet_of(version: int, subnet: int) -> IPv4Network | IPv6Network:
    """The prefix of a subnet number."""
    return IPv4Network(f"10.0.{subnet}.0/24") if version == 4 else IPv6Network(f"fd00:0:0:{subnet:x}::/64")


@dataclass(frozen=True, slots=True)
class Port:
    """A station's interface: plugged into `bridge`, number `number` in each of `subnets`."""

    station: str
    name: str
    bridge: str
    subnets: tuple[int, ...]
    number: int
    mtu: int = DEFAULT_MTU

    @property
    def mac(self) -> str:
        return f"02:00:00:00:{self.subnets[0]:02x}:{self.number:02x}"

    @property
    def label(self) -> str:
        """The name of its port on the bridge, without the lab's prefix; as Xen names vifs."""
        return f"{self.station}.{self.name.removeprefix('eth')}"

    def address(self, version: int, subnet: int) -> str:
        return str(subnet_of(version, subnet)[self.number])

    def addresses(self) -> Iterator[str]:
        """All of them, with the subnets' prefix lengths."""
        for version in (4, 6):
            for subnet in self.subnets:
                yield f"{self.address(version, subnet)}/{subnet_of(version, subnet).prefixlen}"


@dataclass(slots=True)
class Station:
    """A host or a router. `delegates`: the router is known to fsctl; others are somebody else's."""

    name: str
    is_router: bool = False
    delegates: bool = False
    ports: list[Port] = field(default_factory=list)

    def port_in(self, subnet: int) -> Port | None:
        return next((p for p in self.ports if subnet in p.subnets), None)


@dataclass(frozen=True, slots=True)
class Route:
    """To a subnet, out of `port`, through the neighbour `via`."""

    subnet: int
    port: Port
    via: Port


class RoutedTopo(Topo):  # type: ignore[misc, unused-ignore]
    """A Mininet topology that knows its subnets and routes. Subclasses describe themselves in `build`."""

    ROUTERS_ARE_TOLD = True
    """Routers are given their routes, and all stations permanent neighbours; else routing daemons and ARP find them."""

    def __init__(self, *args: Any, **params: Any) -> None:
        self.stations: dict[str, Station] = {}
        self.managed: list[str] = []
        super().__init__(*args, **params)

    # Building

    def bridge(self, name: str, managed: bool = True) -> str:
        """A bridge; one that is not `managed` is a plain learning switch that fsctl does not know."""
        if managed:
            self.managed.append(name)
        self.addSwitch(name)
        return name

    def uplink(self, bridge: str, other: str) -> None:
        """A cable between two bridges: they are one L2 segment."""
        self.addLink(bridge, other, label1=f"{bridge}.up", label2=f"{other}.down")

    def host(self, name: str, bridge: str, subnet: int, number: int = 10, mtu: int = DEFAULT_MTU) -> Station:
        station = self._station(Station(name))
        self.attach(station, bridge, subnet, number, mtu)
        return station

    def router(self, name: str, *ports: tuple[str, int | tuple[int, ...], int], mtu: int = DEFAULT_MTU,
               delegates: bool = True) -> Station:  # fmt: skip
        """Each of `ports` is (bridge, subnet or subnets, number there); `mtu` is that of the last one."""
        station = self._station(Station(name, is_router=True, delegates=delegates))
        for port in ports[:-1]:
            self.attach(station, *port)
        self.attach(station, *ports[-1], mtu=mtu)
        return station

    def attach(self, station: Station, bridge: str, subnets: int | tuple[int, ...], number: int, mtu: int = DEFAULT_MTU) -> Port:
        """One more interface of a station."""
        subnets = (subnets,) if isinstance(subnets, int) else subnets
        port = Port(station.name, f"eth{len(station.ports)}", bridge, subnets, number, mtu)
        station.ports.append(port)
        self.addLink(station.name, bridge, intfName1=port.name, label2=port.label, addr1=port.mac)
        return port

    def _station(self, station: Station) -> Station:
        self.stations[station.name] = station
        # No address from Mininet: the lab gives every interface its own.
        self.addHost(station.name, ip=None)
        return station

    # Asking

    def routers(self) -> list[Station]:
        """The routers that fsctl knows."""
        return [s for s in self.stations.values() if s.delegates]

    def subnets(self) -> set[int]:
        return {subnet for s in self.stations.values() for p in s.ports for subnet in p.subnets}

    def neighbours(self, station: Station) -> Iterator[tuple[Port, Port, int]]:
        """(own port, other station's port, subnet) for all that `station` reaches without a router."""
        for port in station.ports:
            for subnet in port.subnets:
                for other in self.stations.values():
                    peer = other.port_in(subnet)
                    if peer is not None and other is not station:
                        yield port, peer, subnet

    def routes(self, station: Station) -> list[Route]:
        """One shortest route to every subnet that `station` is not in."""
        found = []
        for subnet in sorted(self.subnets()):
            if station.port_in(subnet) is not None:
                continue
            distances = self._distances(subnet)
            ways = [
                (distances[peer.station], peer.station, port, peer)
                for port, peer, _ in self.neighbours(station)
                if peer.station in distances
            ]
            if ways:
                _, _, port, peer = min(ways, key=lambda way: way[:2])
                found.append(Route(subnet, port, peer))
        return found

    def _distances(self, subnet: int) -> dict[str, int]:
        """How many routers lie between each router and `subnet`."""
        routers = [s for s in self.stations.values() if s.is_router]
        distances = {s.name: 0 for s in routers if s.port_in(subnet) is not None}
        frontier = list(distances)
        while frontier:
            name = frontier.pop(0)
            for _, peer, _ in self.neighbours(self.stations[name]):
                if self.stations[peer.station].is_router and peer.station not in distances:
                    distances[peer.station] = distances[name] + 1
                    frontier.append(peer.station)
        return distances

    def flows(self, router: Station) -> list[dict[str, Any]]:
        """What `router` delegates, as REST takes it: its routes and its neighbours, at each of its interfaces."""
        targets = [(str(subnet_of(v, r.subnet)), v, r.port, r.via) for r in self.routes(router) for v in (4, 6)]
        for port, peer, subnet in self.neighbours(router):
            targets += [(peer.address(v, subnet), v, port, peer) for v in (4, 6)]
        return [
            {
                "match": {"in": ingress.name, f"ipv{version}_dst": destination},
                "action": "forward",
                "set": {"eth_dst": peer.mac},
                "out": out.name,
            }
            for ingress in router.ports
            for destination, version, out, peer in targets
            # Back out of where it came from: the router sends a redirect instead, unless it is on a stick.
            if out is not ingress or len(ingress.subnets) > 1
        ]
