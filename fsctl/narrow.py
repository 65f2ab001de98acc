"""The part of a network's delegations that one packet can meet: `specification.walk` reads all that it is given.

Addresses do not change on a walk. So what matters are the prefixes that cover the destination, at most one of each length,
and the connections between these hosts.
"""

from __future__ import annotations

from dataclasses import replace

from fsctl.model.addresses import BITS
from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.fib import Fib, Part
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.model.prefix_keys import Key, mask


def for_packet(network: Network, packet: Packet) -> Network:
    """The network with the delegations that decide about this packet, or may."""
    if packet.version is None:
        return network
    return replace(network, fibs={name: _of_fib(fib, packet, packet.version) for name, fib in network.fibs.items()})


def _of_fib(fib: Fib, packet: Packet, version: int) -> Fib:
    found = Fib()
    found.nexthops = fib.nexthops
    keys: list[Key] = [(packet.dst & mask(version, n)) << 8 | n for n in range(BITS[version] + 1)]
    for part_key, part in fib.parts.items():
        if part_key[1] == version:
            prefixes = {key: part.prefixes[key] for key in keys if key in part.prefixes}
            connections = _connections(part, packet, version)
            if prefixes or connections:
                found.parts[part_key] = Part(prefixes, connections)
    return found


def _connections(part: Part, packet: Packet, version: int) -> dict[FiveTuple, int]:
    hosts = Fragments(version, packet.src, packet.dst, packet.ip_proto)
    if packet.fragment:
        if hosts not in part.fragments:
            return {}
        return {c: number for c, number in part.connections.items() if c.fragments == hosts}
    connection = FiveTuple(version, packet.src, packet.dst, packet.ip_proto, packet.sport, packet.dport)
    number = part.connections.get(connection)
    return {} if number is None else {connection: number}
