"""The books that the soak test keeps, and the switch that it compares them with."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ovs_wire import Wire

from fsctl.model.addresses import format_mac
from fsctl.model.delegations import Delegation, Forward, Match, Verdict
from fsctl.model.fib import Fib, match_of_change
from fsctl.model.network import Address, Bridge, Interface, Network, Router
from fsctl.openflow import FlowDecoder, decode_ports, requests
from fsctl.openflow.ports import Port
from fsctl.openflow.rules import RuleTable, SetField
from fsctl.schema.bodies import read_replacement
from tests.strategies import ROUTER_MACS
from topologies.sandbox import Sandbox

BRIDGES = ("s0", "s1", "s2")
PLACES = {"r0": ("s0", "s1"), "r1": ("s1", "s2", "s0"), "r2": ("s2", "s0"), "r3": ("s1", "s0")}
Flows = dict[Match, Verdict]


def _routers() -> dict[str, Router]:
    macs = iter(ROUTER_MACS)
    return {
        name: Router(name, {f"eth{n}": Interface(name, f"eth{n}", b, f"{name}-{n}", next(macs)) for n, b in enumerate(bridges)})
        for name, bridges in PLACES.items()
    }


class Books:
    """What was accepted: delegations, addresses."""

    def __init__(self) -> None:
        self.routers = _routers()
        self.flows: dict[str, Flows] = {name: {} for name in self.routers}

    def config(self) -> dict[str, Any]:
        """fsctl.yaml's bridges and routers."""
        routers = {
            name: {
                "interfaces": {
                    i.name: {"bridge": i.bridge, "port": i.port, "mac": format_mac(i.mac), "addresses": []}
                    for i in router.interfaces.values()
                }
            }
            for name, router in self.routers.items()
        }
        return {"bridges": list(BRIDGES), "routers": routers}

    def places(self) -> list[tuple[str, str]]:
        """(bridge, port) of every interface."""
        return [(i.bridge, i.port) for r in self.routers.values() for i in r.interfaces.values()]

    def ports(self) -> list[str]:
        return [port for _, port in self.places()]

    def may(self, router: str, verdict: Verdict) -> bool:
        """fsctl refuses a next hop that is the interface itself."""
        return not isinstance(verdict, Forward) or verdict.eth_dst != self.routers[router].interfaces[verdict.out].mac

    @staticmethod
    def delegations(flows: Mapping[Match, Verdict]) -> list[Delegation]:
        return [Delegation(*item) for item in flows.items()]

    def read(self, router: str, flows: Iterable[Mapping[str, Any]]) -> Flows:
        """Flows as fsctl shows them."""
        shown = [{k: f[k] for k in ("match", "action", "set", "out") if k in f} for f in flows]
        changes = read_replacement(self.routers[router], {"flows": shown}).changes
        return {match_of_change(c.part, c.key): c.verdict for c in changes if c.verdict is not None}

    def readdress(self, router: str, name: str, addresses: tuple[Address, ...], mtu: int) -> None:
        interfaces = dict(self.routers[router].interfaces)
        interfaces[name] = replace(interfaces[name], addresses=addresses, mtu=mtu)
        self.routers[router] = Router(router, interfaces)

    def network(self, wiring: Wiring) -> Network:
        """All that is known, as the compiler wants it."""
        ports, links, ids = wiring.ports(), wiring.links(), wiring.ids()
        routers = {
            name: Router(name, {i.name: _plugged(i, ports[i.bridge]) for i in router.interfaces.values()})
            for name, router in self.routers.items()
        }
        bridges = {
            b: Bridge(
                b,
                {peer: ports[b][port].ofport for peer, port in links[b].items()},
                sender_ports={p.ofport: 4096 for name, p in ports[b].items() if name not in links[b].values()},
                port_ids={p.ofport: ids[name] for name, p in ports[b].items() if name in ids},
            )
            for b in BRIDGES
        }
        return Network(bridges, routers, {name: Fib(self.delegations(flows)) for name, flows in self.flows.items()})


def _plugged(interface: Interface, ports: Mapping[str, Port]) -> Interface:
    port = ports.get(interface.port)
    return replace(interface, ofport=port and port.ofport, up=port is not None and port.up)


def unused_ways(table: RuleTable) -> set[int]:
    """Ways that no rule leads to."""
    there = {f.value for key in table.rules for f in key.match if f.name == "reg1"}
    used = {a.value for actions in table.rules.values() for a in actions if isinstance(a, SetField) and a.name == "reg1"}
    return there - used


class Wiring:
    """The switch, as it says it is."""

    def __init__(self, ovs: Sandbox) -> None:
        self.ovs = ovs

    def build(self, books: Books) -> None:
        """Bridges and the interfaces' ports."""
        for bridge in BRIDGES:
            self.ovs.add_bridge(bridge)
        for bridge, port in books.places():
            self.ovs.vsctl("add-port", bridge, port, "--", "set", "interface", port, "type=dummy")

    def set_state(self, port: str, state: str) -> None:
        self.ovs.appctl("netdev-dummy/set-admin-state", port, state)

    def replug(self, bridge: str, port: str, wanted: int) -> int:
        """Take a port out and put it back; its new number (another one if `wanted` is taken)."""
        self.ovs.vsctl("del-port", bridge, port)
        self.ovs.vsctl("add-port", bridge, port, "--", "set", "interface", port, "type=dummy", f"ofport_request={wanted}")
        return int(self.ovs.vsctl("get", "interface", port, "ofport"))

    def ports(self) -> dict[str, dict[str, Port]]:
        """Ports by bridge and name."""
        found = {}
        for bridge in BRIDGES:
            with Wire(self.ovs.management(bridge)) as wire:
                bodies = wire.ask(requests.port_desc(next(wire.xids)))
            found[bridge] = {port.name: port for body in bodies for port in decode_ports(body)}
        return found

    def ids(self) -> dict[str, int]:
        """What tells a port from an earlier one with its number."""
        listed = json.loads(self.ovs.vsctl("--format=json", "--columns=name,_uuid", "list", "interface"))
        return {name: zlib.crc32(uuid.encode()) for name, (_, uuid) in listed["data"]}

    def links(self) -> dict[str, dict[str, str]]:
        """Bridge -> peer bridge -> patch port, where both ends are there."""
        home = {port: b for b in BRIDGES for port in self.ovs.vsctl("list-ports", b).split()}
        listed = json.loads(self.ovs.vsctl("--format=json", "--columns=name,options", "find", "interface", "type=patch"))
        peers = {name: dict(options[1]).get("peer", "") for name, options in listed["data"]}
        found: dict[str, dict[str, str]] = {b: {} for b in BRIDGES}
        for port, peer in peers.items():
            if peers.get(peer) == port:
                found[home[port]][home[peer]] = port
        return found

    def dump(self) -> dict[str, RuleTable]:
        """fsctl's rules."""
        found = {}
        for bridge in BRIDGES:
            flows = FlowDecoder()
            with Wire(self.ovs.management(bridge)) as wire:
                for body in wire.ask(requests.flow_stats(next(wire.xids), only_ours=False)):
                    flows.feed(body)
            found[bridge] = RuleTable(flows.dump.rules)
        return found
