"""The rules of the flow switch, the rewrites and the MTU tables, one at a time."""

from __future__ import annotations

from functools import lru_cache

from fsctl.collapse.effects import DROPPED, FORWARD, Effect, Place
from fsctl.collapse.node import Node
from fsctl.model.addresses import BITS, IPV4
from fsctl.model.delegations import FiveTuple, Fragments
from fsctl.model.ip_protocols import TCP
from fsctl.model.network import Network
from fsctl.openflow.rules import (
    EGRESS,
    FLOW_SWITCH,
    LINK_MARK,
    MTU,
    WAYS,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Output,
    Resubmit,
    Rule,
    RuleKey,
    SetField,
)
from fsctl.pipeline.fixed_rules import BRIDGE, eth_type, rule

ETHERNET_HEADER = 14


BY_PREFIX, BY_CONNECTION = 1000, 5000


def actions_of(network: Network, bridge: str, effect: Effect) -> tuple[Action, ...]:
    """What the whole chain does to a packet that no MTU stops."""
    if effect.kind != FORWARD:
        return () if effect.kind == DROPPED else BRIDGE
    hop = network.fibs[effect.router].nexthops[effect.nexthop]
    out = network.routers[effect.router].interfaces[hop.out]
    links = network.bridges[bridge].links
    if out.bridge == bridge:
        away: Action = Resubmit(EGRESS)
    elif out.bridge in links and network.bridges[out.bridge].takes(bridge, out.mac, out.ofport):
        away = Output(links[out.bridge])
    else:
        return BRIDGE  # no patch port, or the last bridge has not confirmed its rules yet: the slow path
    rewrite = (DecTtl(effect.hops), SetField("eth_src", out.mac), SetField("eth_dst", hop.eth_dst))
    return (*rewrite, SetField("pkt_mark", LINK_MARK), away)


def way_of(network: Network, bridge: str, effect: Effect, number: int) -> tuple[Rule, ...]:
    """The rules of way `number`: one; or, with an MTU to watch, the check and the rule for packets that pass it.

    They match on the IP version because dec_ttl requires it (otherwise OFPBAC_MATCH_INCONSISTENT).
    """
    actions = actions_of(network, bridge, effect)
    taken = (eth_type(effect.version), Field("reg1", number))
    if not effect.limit or actions == BRIDGE:
        return (rule(WAYS, 10, actions, *taken),)
    check = (CheckLarger(effect.limit + ETHERNET_HEADER), GotoTable(MTU))
    return rule(WAYS, 10, check, *taken), rule(MTU, 10, actions, *taken)


_MASKS = {v: [((1 << n) - 1) << (bits - n) for n in range(bits)] + [None] for v, bits in BITS.items()}


def _connection_fields(connection: FiveTuple) -> tuple[Field, ...]:
    family, ports = f"ipv{connection.version}", "tcp" if connection.ip_proto == TCP else "udp"
    return (
        Field(f"{family}_src", connection.src),
        Field(f"{family}_dst", connection.dst),
        Field("ip_proto", connection.ip_proto),
        Field("nw_frag", 0),
        Field(f"{ports}_src", connection.sport),
        Field(f"{ports}_dst", connection.dport),
    )


def _fragment_fields(fragments: Fragments) -> tuple[Field, ...]:
    family = f"ipv{fragments.version}"
    return (
        Field(f"{family}_src", fragments.src),
        Field(f"{family}_dst", fragments.dst),
        Field("ip_proto", fragments.ip_proto),
        Field("nw_frag", 1, 1),
    )


@lru_cache(maxsize=4096)
def _node_fields(mac: int, eth_src: int | None, version: int) -> tuple[Field, ...]:
    """What all rules of a node match on. Hot path: hence the cache."""
    sender = () if eth_src is None else (Field("eth_src", eth_src),)
    return (Field("eth_dst", mac), *sender, eth_type(version))


def flow_key(node: Node, key: Place) -> RuleKey:
    """The key of a collapsed rule."""
    head = _node_fields(node.interface.mac, node.eth_src, node.version)
    of_class = node.eth_src is not None
    if isinstance(key, FiveTuple):
        return RuleKey(FLOW_SWITCH, BY_CONNECTION + of_class, head + _connection_fields(key))
    if isinstance(key, Fragments):
        return RuleKey(FLOW_SWITCH, BY_CONNECTION + of_class, head + _fragment_fields(key))
    length = key & 0xFF
    if not length:
        return RuleKey(FLOW_SWITCH, BY_PREFIX + of_class, head)
    dst = Field("ipv4_dst" if node.version == IPV4 else "ipv6_dst", key >> 8, _MASKS[node.version][length])
    return RuleKey(FLOW_SWITCH, BY_PREFIX + 2 * length + of_class, (*head, dst))
