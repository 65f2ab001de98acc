"""The configuration and what switches and OVSDB report, combined to a `Network`.

Pure. An interface keeps its name and MAC while its port comes, goes or changes its number: delegations
belong to the interface, and only `ofport` and `up` follow the port.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fsctl.config import Config, InterfaceConfig
from fsctl.foreign import policy_for
from fsctl.model.fib import Fib
from fsctl.model.network import Address, Bridge, Interface, Network, Router
from fsctl.openflow.decode import ForeignRule
from fsctl.openflow.ports import Port
from fsctl.status import BridgeInfo, Override, OvsdbView, PortInfo

GUEST_SENDERS, MOST_SENDERS = 256, 4096
"""How many MAC addresses are learned at the port of a guest, and at any other port (never more than the bridge learns).

Open vSwitch counts what it has learned at a port for every MAC address that is new there: 0.4 ms where it is 8,192.
"""


@dataclass(slots=True)
class SwitchState:
    """What a bridge's switch has confirmed: see `model.Bridge`; `policies` are rules of others in its first table."""

    arrivals: frozenset[int] = frozenset()
    delivers: frozenset[tuple[int, int]] = frozenset()
    policies: tuple[ForeignRule, ...] = ()


class Inventory:
    """The latest report of every source. `has_changed`: the network may differ from the last one that was built."""

    def __init__(self, config: Config, overrides: dict[tuple[str, str], Override] | None = None) -> None:
        self.config = config
        self.ports: dict[str, dict[str, Port]] = {}
        self.ovsdb = OvsdbView()
        self.overrides = overrides or {}
        self.quarantined: frozenset[str] = frozenset()
        self.switches: dict[str, SwitchState] = {}
        self.has_changed = False

    # --- the sources ---------------------------------------------------------------------------------------

    def take_ports(self, bridge: str, ports: dict[str, Port]) -> None:
        """All ports of a bridge, by name."""
        self.has_changed |= self.ports.get(bridge) != ports
        self.ports[bridge] = ports

    def take_ovsdb(self, view: OvsdbView) -> None:
        self.has_changed |= self.ovsdb != view
        self.ovsdb = view

    def take_switch(self, bridge: str, state: SwitchState) -> None:
        self.has_changed |= self.switches.get(bridge) != state
        self.switches[bridge] = state

    def take_quarantined(self, bridges: frozenset[str]) -> None:
        """Bridges that reject the rules that every bypass needs."""
        self.has_changed |= self.quarantined != bridges
        self.quarantined = bridges

    # --- the network ---------------------------------------------------------------------------------------

    def network(self, fibs: Mapping[str, Fib]) -> Network:
        """The present network."""
        routers = {
            name: Router(
                name,
                {i.name: self._interface(name, i) for i in router.interfaces.values()},
                router.max_flows,
                router.max_rules,
            )
            for name, router in self.config.routers.items()
        }
        by_bridge: dict[str, list[PortInfo]] = {name: [] for name in self.config.bridges}
        for (bridge, _), info in self.ovsdb.ports.items():
            by_bridge.setdefault(bridge, []).append(info)
        bridges = {name: self._bridge(name, by_bridge[name]) for name in self.config.bridges}
        return Network(bridges, _without_twins(routers), fibs, self.config.max_hops)

    def _bridge(self, name: str, infos: list[PortInfo]) -> Bridge:
        ports = self.ports.get(name, {})
        present = {info.name: info for info in infos if info.name in ports}
        links = {
            peer: ports[port].ofport
            for peer, port in self.ovsdb.links.get(name, {}).items()
            if self._carries(name, port) and self._carries(peer, self.ovsdb.links.get(peer, {}).get(name, ""))
        }
        own = [i for r in self.config.routers.values() for i in r.interfaces.values() if i.bridge == name]
        mtus = [info.mtu for info in infos] + [i.mtu for i in own]
        bridge = self.ovsdb.bridges.get(name, BridgeInfo(name))
        state, most = self.switches.get(name, SwitchState()), min(MOST_SENDERS, bridge.mac_table_size)
        return Bridge(
            name,
            dict(sorted(links.items())),
            max(mtus, default=1500),
            {ports[port].ofport: info.exempt for port, info in sorted(present.items()) if info.exempt},
            {
                ports[port].ofport: GUEST_SENDERS if info.attached_mac or info.iface_id else most
                for port, info in sorted(present.items())
                if info.has_senders
            },
            self._pinned(present, ports),
            bridge.mac_age_s,
            {ports[port].ofport: zlib.crc32(info.uuid.encode()) for port, info in sorted(present.items())},
            state.arrivals,
            state.delivers,
        )

    def _carries(self, bridge: str, port: str) -> bool:
        """Whether a patch port is there and lets everything through."""
        found = self.ports.get(bridge, {}).get(port)
        return found is not None and found.up and not found.barred

    @staticmethod
    def _pinned(present: Mapping[str, PortInfo], ports: Mapping[str, Port]) -> dict[int, int]:
        """The ports of MAC addresses that OVSDB knows at exactly one port of the bridge (attached-mac)."""
        known = Counter(info.attached_mac for info in present.values())
        return {
            info.attached_mac: ports[port].ofport
            for port, info in sorted(present.items())
            if info.attached_mac is not None and known[info.attached_mac] == 1 and not info.exempt
        }

    def _interface(self, router: str, declared: InterfaceConfig) -> Interface:
        addresses, mtu = self.said(router, declared)
        found = self._port_names(declared)
        name = found[0] if len(found) == 1 else ""
        info = self.ovsdb.ports.get((declared.bridge, name))
        mac = declared.mac
        if mac is None and info is not None:
            mac = info.attached_mac
        interface = Interface(router, declared.name, declared.bridge, name, mac or 0, mtu, addresses)
        port = self.ports.get(declared.bridge, {}).get(name)
        why = self._why_down(declared, found, mac, port, info)
        return replace(interface, ofport=port.ofport if port else None, up=not why, why_down=why)

    def _why_down(
        self, declared: InterfaceConfig, found: Sequence[str], mac: int | None, port: Port | None, info: PortInfo | None
    ) -> str:
        bridge, known = declared.bridge, self.ovsdb.is_known
        name = found[0] if len(found) == 1 else ""
        if known and bridge not in self.ovsdb.bridges:
            return f"Open vSwitch has no bridge {bridge}"
        if len(found) > 1:
            return f"ports {', '.join(found)} all have its MAC address (external_ids:attached-mac); name one as port"
        if mac is None:
            return f"no MAC address: neither configured nor in OVSDB (external_ids:attached-mac of {name or 'its port'})"
        if port is None or (known and info is None):
            return f"port {name or 'with that MAC'} is not on bridge {bridge}"
        if not port.up:
            return f"port {name} is down"
        if port.barred:
            return f"port {name} {port.barred}"
        if bridge in self.quarantined:
            return f"bridge {bridge} rejects the rules that the bypass needs"
        if info is not None and info.unfit:
            return f"port {name} {info.unfit}"
        policy = policy_for(self.switches.get(bridge, SwitchState()).policies, port.ofport, mac)
        return f"a rule of somebody else may apply to its packets: {policy}" if policy else ""

    def _port_names(self, declared: InterfaceConfig) -> list[str]:
        """The configured port, or those that OVSDB says have this MAC (Xen and libvirt set external_ids:attached-mac)."""
        if declared.port is not None:
            return [declared.port]
        ports = self.ovsdb.ports.items()
        return sorted(i.name for (b, _), i in ports if b == declared.bridge and declared.mac and i.attached_mac == declared.mac)

    # --- what routers say of themselves ----------------------------------------------------------------------

    def said(self, router: str, declared: InterfaceConfig) -> tuple[tuple[Address, ...], int]:
        """Addresses and MTU (bytes): what the router said over REST, else what the configuration says."""
        addresses, mtu = self.overrides.get((router, declared.name), Override())
        return declared.addresses if addresses is None else addresses, declared.mtu if mtu is None else mtu

    def disagreements(self) -> Iterator[str]:
        """Texts: where a router said something over REST that differs from the configuration (and overrides it)."""
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


def _without_twins(routers: dict[str, Router]) -> dict[str, Router]:
    """Interfaces with the same MAC on one bridge cannot be told apart: none of them is used."""
    seen = Counter((i.bridge, i.mac) for r in routers.values() for i in r.interfaces.values() if i.mac)
    if all(count == 1 for count in seen.values()):
        return routers
    return {
        name: replace(
            router,
            interfaces={
                i.name: replace(i, up=False, why_down=_of_twins(i, router)) if seen[i.bridge, i.mac] > 1 else i
                for i in router.interfaces.values()
            },
        )
        for name, router in routers.items()
    }


def _of_twins(one: Interface, router: Router) -> str:
    """Its twins of the same router by name; a router is not told what others there are."""
    own = [i.name for i in router.interfaces.values() if (i.bridge, i.mac) == (one.bridge, one.mac) and i.name != one.name]
    who = f"{', '.join(own)} of this router has" if own else "another interface has"
    return f"{who} the same MAC address on this bridge"


def without_switch_state(network: Network) -> dict[str, Bridge]:
    """The bridges without patch links, and without the other things that no walk depends on."""
    return {
        name: replace(b, links={}, arrivals=None, delivers=None, sender_ports={}, pinned={}, mac_age_s=0, port_ids={})
        for name, b in network.bridges.items()
    }
