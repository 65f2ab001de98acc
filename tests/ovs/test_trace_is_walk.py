"""The third witness: Open vSwitch itself ends where `specification.walk` ends, header for header.

Random networks are built as real bridges (dummy datapath) with fsctl's rules in them, and
`ofproto/trace` is asked what it would do with packets drawn at match boundaries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4, MULTICAST_BIT, format_ip, format_mac
from fsctl.model.ip_protocols import ICMPV6, TCP, UDP
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.openflow import ovs_ofctl_text
from fsctl.openflow.rules import Rule
from fsctl.pipeline.layout import tables
from fsctl.specification.interpreter import learned_rule
from fsctl.specification.walk import BRIDGED, DROPPED, SLOW_PATH, Learned, Walk, delivered, walk
from tests.strategies import HOST_MACS, HOST_PORTS, cases, of_hypothesis, some_senders
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.ovs
NETWORKS = 40


@dataclass(frozen=True)
class Header:
    """What a receiver sees, and where."""

    port: str
    eth_src: int
    eth_dst: int
    ttl: int | None


class Build:
    """One network as bridges of the sandbox."""

    def __init__(self, ovs: Sandbox, network: Network, senders: list[Learned]) -> None:
        self.ovs, self.network = ovs, network
        self.ports: dict[tuple[str, int], str] = {}
        self.home: dict[tuple[str, int], int] = {}
        args: list[str] = []
        for bridge in network.bridges.values():
            args += ["--", "add-br", bridge.name, "--", "set", "bridge", bridge.name, "datapath_type=dummy", "fail_mode=secure"]
            for peer, number in bridge.links.items():
                both = bridge.name in network.bridges[peer].links
                kind = f"type=patch options:peer={peer}-{bridge.name}" if both else "type=dummy"
                args += self._port(bridge.name, f"{bridge.name}-{peer}", number, kind, "tag=4095")
            for number in HOST_PORTS:
                args += self._port(bridge.name, f"{bridge.name}h{number}", number, "type=dummy")
            for n, mac in enumerate(HOST_MACS):
                self.home[bridge.name, mac] = HOST_PORTS[n % len(HOST_PORTS)]
        for i in network.interfaces():
            if i.ofport is not None:
                args += self._port(i.bridge, f"{i.bridge}r{i.ofport}", i.ofport, "type=dummy")
                self.home[i.bridge, i.mac] = i.ofport
        ovs.vsctl(*args[1:])
        self.compiler = Compiler(network)
        for name, table in tables(network, self.compiler).items():
            text = "\n".join(ovs_ofctl_text(Rule(key, actions)) for key, actions in table.rules.items())
            flows = ovs.directory / f"{name}.flows"
            flows.write_text(text + "\n")
            ovs.ofctl("add-flows", name, str(flows))
        for (bridge, mac), number in self.home.items():
            self._learn(bridge, mac, number)
        self.senders = [s for s in senders if s.port is None or (s.bridge, s.port) in self.ports]
        for sender in self.senders:
            ovs.ofctl("add-flow", sender.bridge, ovs_ofctl_text(learned_rule(sender)))
        shown = ovs.appctl("dpif/show")
        self.names = {dp: name for name, dp in re.findall(r"^\s+(\S+) \d+/(\d+):", shown, re.M)}

    def _port(self, bridge: str, name: str, number: int, kind: str, *options: str) -> list[str]:
        self.ports[bridge, number] = name
        return ["--", "add-port", bridge, name, *options, "--", "set", "interface", name,
                f"ofport_request={number}", *kind.split()]  # fmt: skip

    def _learn(self, bridge: str, mac: int, number: int) -> None:
        self.ovs.appctl("fdb/add", bridge, self.ports[bridge, number], "0", format_mac(mac))

    def remove(self) -> None:
        self.ovs.vsctl(*[a for name in self.network.bridges for a in ("--", "--if-exists", "del-br", name)][1:])

    def trace(self, packet: Packet) -> list[Header]:
        """Every frame that would leave a port. The sender is known on the port that it sends from."""
        home = self.home[packet.bridge, packet.eth_src]
        if home != packet.in_port:
            self._learn(packet.bridge, packet.eth_src, packet.in_port)
        try:
            shown = self.ovs.appctl("ofproto/trace", packet.bridge, flow_text(packet))
        finally:
            if home != packet.in_port:
                self._learn(packet.bridge, packet.eth_src, home)
        actions = re.search(r"^Datapath actions: (.*)$", shown, re.M)
        assert actions is not None, shown
        return list(headers(chosen(actions[1], packet.length + 14), packet, self.names))

    def expected(self, packet: Packet) -> list[list[Header]]:
        """What may happen: what `walk` says; or, where a TTL is within reach of the longest chain from that interface
        or a patch port is missing, the packet comes to the first router as it is."""
        end = walk(self.network, packet)
        if end.end not in (BRIDGED, DROPPED):
            assert end.final == packet
        said = self._received(packet, end)
        into = self.network.by_mac.get((packet.bridge, packet.eth_dst))
        longest = into and self.compiler.longest_chain(into.router, into.name)
        as_it_came = self._received(packet, Walk((), SLOW_PATH, "", packet))
        here, there = (self.network.bridges[name] for name in (packet.bridge, end.final.bridge))
        linked = here == there or (there.name in here.links and here.name in there.links)
        return [said, as_it_came] if packet.ttl <= (longest or 0) or not linked else [said]

    def _received(self, packet: Packet, end: Walk) -> list[Header]:
        """By whom; what is for the bridge itself to deliver goes where it knows the receiver to be."""
        found = []
        for final, port in delivered(self.network, end, self.senders):
            to_sender = (final.bridge, final.eth_dst) == (packet.bridge, packet.eth_src)
            known = packet.in_port if to_sender else self.home[final.bridge, final.eth_dst]
            number = known if port is None else port
            if number != final.in_port:
                found.append(Header(self.ports[final.bridge, number], final.eth_src, final.eth_dst, final.ttl))
        return found


def flow_text(packet: Packet) -> str:
    """The packet in ovs-ofctl's flow syntax."""
    text = f"in_port={packet.in_port},dl_src={format_mac(packet.eth_src)},dl_dst={format_mac(packet.eth_dst)}"
    family = {IPV4: "ip", 6: "ipv6"}[packet.version or IPV4]
    src, dst = ("nw_src", "nw_dst") if family == "ip" else ("ipv6_src", "ipv6_dst")
    version = packet.version or IPV4
    text += f",{family},{src}={format_ip(version, packet.src)},{dst}={format_ip(version, packet.dst)}"
    text += f",nw_ttl={packet.ttl},nw_proto={packet.ip_proto}"
    if packet.fragment:
        return text + f",nw_frag={'first' if packet.sport or packet.dport else 'later'}"
    if packet.ip_proto in (TCP, UDP):
        name = "tcp" if packet.ip_proto == TCP else "udp"
        text += f",{name}_src={packet.sport},{name}_dst={packet.dport}"
    elif packet.ip_proto == ICMPV6 and packet.icmpv6_type is not None:
        text += f",icmpv6_type={packet.icmpv6_type}"
    return text


def split(actions: str) -> Iterator[str]:
    """A datapath action list, cut at the commas outside parentheses."""
    depth, start = 0, 0
    for n, char in enumerate(actions):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            yield actions[start:n]
            start = n + 1
    yield actions[start:]


def chosen(actions: str, frame_bytes: int) -> Iterator[str]:
    """The actions that a frame of this length meets (check_pkt_len has a branch for longer ones)."""
    for action in split(actions):
        check = re.fullmatch(r"check_pkt_len\(size=(\d+),gt\((.*)\),le\((.*)\)\)", action)
        if check is None:
            yield action
            continue
        branches = dict(zip(("gt", "le"), _branches(action), strict=True))
        yield from chosen(branches["gt" if frame_bytes > int(check[1]) else "le"], frame_bytes)


def _branches(check: str) -> list[str]:
    inner = list(split(check.removeprefix("check_pkt_len(").removesuffix(")")))
    return [part[3:-1] for part in inner if part.startswith(("gt(", "le("))]


def headers(actions: Iterator[str], packet: Packet, names: dict[str, str]) -> Iterator[Header]:
    """What leaves by each output, after the set actions before it."""
    eth_src, eth_dst, ttl = packet.eth_src, packet.eth_dst, packet.ttl
    for action in actions:
        for field, text in re.findall(r"\b(src|dst)=((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", action):
            mac = int(text.replace(":", ""), 16)
            eth_src, eth_dst = (mac, eth_dst) if field == "src" else (eth_src, mac)
        new_ttl = re.search(r"\b(?:ttl|hlimit)=(\d+)", action)
        ttl = int(new_ttl[1]) if new_ttl else ttl
        if action in names:
            yield Header(names[action], eth_src, eth_dst, ttl)


@st.composite
def cases_with_senders(draw: st.DrawFn) -> tuple[Network, list[Packet], list[Learned]]:
    network, packets = draw(cases(count=12))
    return network, packets, some_senders(of_hypothesis(draw), network)


@pytest.mark.timeout(900)
@settings(max_examples=NETWORKS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases_with_senders())
def test_trace_ends_where_walk_ends(ovs: Sandbox, case: tuple[Network, list[Packet], list[Learned]]) -> None:
    network, drawn, senders = case
    assume(network.routers)
    build = Build(ovs, network, senders)
    try:
        for packet in drawn:
            if packet.version is None or packet.vlan or packet.eth_src & MULTICAST_BIT:
                continue  # never enters the flow switch; ovs/test_datapath_facts shows it
            here = (packet.bridge, packet.eth_src) in build.home and (packet.bridge, packet.in_port) in build.ports
            if not here or (packet.bridge, packet.eth_dst) not in build.home:
                continue  # NORMAL would flood it: no place to compare
            final = walk(network, packet).final
            if (final.bridge, final.eth_dst) not in build.home:
                continue
            assert build.trace(packet) in build.expected(packet), walk(network, packet)
    finally:
        build.remove()
