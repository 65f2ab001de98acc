"""What may be bypassed, and why not. Pure: facts about the guest in, a policy and its reasons out.

A bypassed packet meets nothing that the guest has put in the forwarding path: no netfilter rule, NAT, tc filter,
shaper, IPsec policy, policy routing, reverse path filter; and nobody sends a redirect for it. Where such a thing is
found, what it could concern is refused with the reason, unless the operator allows it by name (`--allow`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from fsctl.agent.decide import Policy
from fsctl.agent.events import MAIN, UNICAST, Link, Route, Rule
from fsctl.agent.state import VERSIONS, State
from fsctl.model.addresses import IPV4, IPV6, format_ip

ALLOWABLE = {
    "firewall": "netfilter rules or a drop policy that forwarded packets meet",
    "nat": "address translation of forwarded packets",
    "tc": "tc filters, shapers and policers",
    "xdp": "XDP and tcx programs",
    "xfrm": "IPsec policies",
    "mtu": "an MTU for IPv6 below the link's; path MTUs that IPv4 has learned",
    "rules": "policy routing (ip rule) beyond the kernel's default rules",
    "rp_filter": "reverse path filtering that drops what comes from some sources",
    "redirects": "ICMP redirects for packets that leave by the interface they came in by",
}
"""Names for `--allow`, and what each gives up."""
NOT_FORWARDING = "forwarding"
"""Cannot be allowed: the router would not forward the packet at all."""

STRICT = 1
"""rp_filter, as ip-sysctl.rst numbers it."""
PLAIN_QDISCS = frozenset({"noqueue", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "sfq", "mq", "noop"})
"""Queues that neither drop by rule nor limit the rate below the link's."""
DEFAULT_RULES = {
    IPV4: frozenset({Rule(IPV4, 0, 255), Rule(IPV4, 32766, 254), Rule(IPV4, 32767, 253)}),
    IPV6: frozenset({Rule(IPV6, 0, 255), Rule(IPV6, 32766, 254)}),
}
FORWARD_HOOKS = frozenset({"prerouting", "forward", "postrouting", "ingress", "egress"})
"""Where forwarded packets pass (netfilter's other hooks see the router's own traffic)."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A netfilter base chain. `devices`: for netdev chains, the interfaces it is bound to ("eth*": all that begin so)."""

    versions: tuple[int, ...]
    name: str
    hook: str
    type: str = "filter"
    drops: bool = False
    rules: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """What the guest does on one interface. `filters_in`, `filters_out`: words for tc filters and programs found;
    `rp_filter`: the one in force, 0, STRICT or 2 (loose); `ipv6_mtu`: of its own (a router advertisement's, or set by
    hand), 0 without IPv6."""

    forwarding: Mapping[int, bool] = field(default_factory=lambda: {IPV4: True, IPV6: True})
    rp_filter: int = 0
    redirects: Mapping[int, bool] = field(default_factory=lambda: {IPV4: False, IPV6: False})
    ipv6_mtu: int = 0
    xdp: bool = False
    qdiscs: tuple[str, ...] = ()
    filters_in: tuple[str, ...] = ()
    filters_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is looked at, apart from the kernel state that the fold follows. `xfrm`: IP version -> words.

    `rules`: every routing policy rule, also those that differ in nothing but a selector.
    `learns_mtu`: IPv4 packets are measured by learned path MTUs when they are forwarded (ip_forward_use_pmtu).
    """

    interfaces: Mapping[int, InterfaceFacts] = field(default_factory=dict)
    chains: tuple[Chain, ...] = ()
    xfrm: Mapping[int, str] = field(default_factory=dict)
    learns_mtu: bool = False
    rules: tuple[Rule, ...] = ()


MAX_REASON = 500
"""Characters of a reason; fsctl takes no longer one."""


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """Something not bypassed. `interface` "" is the whole router; `direction` is in, out, both or hairpin."""

    name: str
    reason: str
    version: int = 0
    interface: str = ""
    direction: str = "both"

    def json(self) -> dict[str, object]:
        """As the session and `fsctl-agent status` show it."""
        scope = self.interface or "router"
        reason = self.reason[:MAX_REASON]
        return {"name": self.name, "scope": scope, "ip": self.version, "direction": self.direction, "reason": reason}

    def __str__(self) -> str:
        where = f"{self.interface} ({self.direction})" if self.interface else "the whole router"
        return f"{where}, IPv{self.version}: {self.reason} [{self.name}]"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`overridden` would have been refused, but the operator allows it; `notes` are worth knowing."""

    policy: Policy
    refused: tuple[Refusal, ...]
    overridden: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    facts: Facts, state: State, names: Mapping[int, str], allow: Collection[str] = (), also: Iterable[Refusal] = ()
) -> Judgement:
    """`names`: interface index -> fsctl's name, for the interfaces of the router that fsctl knows.

    `also`: what is left to the router for other reasons; shown with the rest, but no policy follows from it.
    """
    links = {index: state.links[index] for index in names if index in state.links}
    found = [
        *_netfilter(facts.chains, {link.name: names[i] for i, link in links.items()}),
        *(Refusal("xfrm", words, version) for version, words in facts.xfrm.items()),
        *_rules(facts.rules, state),
        *_interfaces(facts, state, links, names),
    ]
    if facts.learns_mtu:
        found.append(Refusal("mtu", "learned path MTUs count for what is forwarded (ip_forward_use_pmtu)", IPV4))
    unique = sorted(set(found))
    refused = tuple(r for r in unique if r.name not in allow)
    policy = _policy(refused, names)
    shown = tuple(sorted({*refused, *also}))
    return Judgement(policy, shown, tuple(r for r in unique if r.name in allow), tuple(_notes(policy, names)))


def _netfilter(chains: Iterable[Chain], known: Mapping[str, str]) -> Iterable[Refusal]:
    for chain in chains:
        if chain.hook not in FORWARD_HOOKS or not (chain.rules or chain.drops):
            continue
        name = "nat" if chain.type == "nat" else "firewall"
        what = f"{chain.rules} rule{'s' * (chain.rules > 1)}" if chain.rules else "policy drop"
        reason = f"{chain.name} (hook {chain.hook}): {what}"
        if chain.hook not in ("ingress", "egress"):
            yield from (Refusal(name, reason, version) for version in chain.versions)
            continue
        direction = "in" if chain.hook == "ingress" else "out"
        for (device, ours), pattern, version in product(known.items(), chain.devices, VERSIONS):
            if device == pattern or (pattern.endswith("*") and device.startswith(pattern[:-1])):
                yield Refusal(name, reason, version, ours, direction)


def _rules(rules: Iterable[Rule], state: State) -> Iterable[Refusal]:
    for version in VERSIONS:
        there = {r for r in rules if r.version == version}
        extra, missing = there - DEFAULT_RULES[version], DEFAULT_RULES[version] - there
        if extra:
            priorities = ", ".join(str(r.priority) for r in sorted(extra, key=lambda r: r.priority))
            yield Refusal("rules", f"ip rules beyond the default ones (priority {priorities})", version)
        if missing and (there or len(state.ribs[version])):
            priorities = ", ".join(str(r.priority) for r in sorted(missing, key=lambda r: r.priority))
            yield Refusal("rules", f"default ip rules are missing (priority {priorities})", version)


def _interfaces(facts: Facts, state: State, links: Mapping[int, Link], names: Mapping[int, str]) -> Iterable[Refusal]:
    gap = unrouted_sources(state)
    addressed = {a.index for a in state.addrs if a.version == IPV4}
    for index, link in links.items():
        name, at = names[index], facts.interfaces.get(index, InterfaceFacts())
        for version in VERSIONS:
            if not at.forwarding[version]:
                what = "forwarding is off" if version == IPV4 else "forwarding is off, or IPv6 is disabled here"
                yield Refusal(NOT_FORWARDING, what, version, name, "in")
            if at.redirects[version]:
                yield Refusal("redirects", "the router sends ICMP redirects", version, name, "hairpin")
            if at.xdp:
                yield Refusal("xdp", "an XDP program is attached", version, name, "in")
            shapers = [q for q in at.qdiscs if q not in PLAIN_QDISCS and q not in ("ingress", "clsact")]
            if shapers:
                yield Refusal("tc", f"qdisc {', '.join(shapers)}", version, name, "out")
            for direction, filters in (("in", at.filters_in), ("out", at.filters_out)):
                for what in filters:
                    yield Refusal("xdp" if what.startswith("tcx") else "tc", what, version, name, direction)
        if 0 < at.ipv6_mtu < link.mtu:
            yield Refusal("mtu", f"IPv6's MTU is {at.ipv6_mtu}, the link's {link.mtu}", IPV6, name, "out")
        if why := _reverse_path(at.rp_filter, index in addressed, gap):
            yield Refusal("rp_filter", why, IPV4, name, "in")


def _reverse_path(how: int, has_address: bool, gap: str) -> str:
    """Why the router drops what comes in from some sources, where nothing else looks at them; "" if it drops none.

    `how` is the rp_filter in force, `gap` is `unrouted_sources` (__fib_validate_source(); RFC 3704, 2.2 and 2.4).
    """
    if how == STRICT:
        return "rp_filter is strict: packets from sources that are not behind this interface are dropped"
    if how and not has_address:
        return "rp_filter is on, and strict here: the interface has no IPv4 address"
    return f"rp_filter is loose, and some sources have no route: {gap}" if how and gap else ""


def unrouted_sources(state: State) -> str:
    """Which IPv4 sources a loose rp_filter would drop, in words; "" if every source has a route. Takes no time to speak of."""
    rib = state.ribs[IPV4]
    if rib.closed:
        first = min(rib.closed)
        kind = next(r.kind for r in rib.at(first) if r.table == MAIN and r.kind != UNICAST)
        more = f" and {len(rib.closed) - 1} more" if len(rib.closed) > 1 else ""
        return f"{format_ip(IPV4, first >> 8)}/{first & 0xFF} is {kind}{more}"
    if any(nexthop.blackhole for nexthop in state.nexthops.values()):
        return "a next-hop object is a blackhole"
    alive = (r for r in rib.at(0) if r.table == MAIN and not (r.tos or r.special) and _leads_somewhere(r, state))
    return "" if any(alive) else "there is no default route"


def _leads_somewhere(route: Route, state: State) -> bool:
    legs = route.legs
    if route.nhid:
        numbers = [route.nhid, *(n.group if (n := state.nexthops.get(route.nhid)) else ())]
        legs = tuple(n.leg for number in numbers if (n := state.nexthops.get(number)) and n.leg)
    return any(not leg.dead and leg.index in state.links and state.links[leg.index].up for leg in legs)


def _policy(refused: Iterable[Refusal], names: Mapping[int, str]) -> Policy:
    sets: dict[str, set[tuple[int, int]]] = {"in": set(), "out": set(), "hairpin": set()}
    for refusal in refused:
        places = {(i, refusal.version) for i, name in names.items() if refusal.interface in ("", name)}
        for direction in ("in", "out") if refusal.direction == "both" else (refusal.direction,):
            sets[direction] |= places
    return Policy(frozenset(sets["in"]), frozenset(sets["out"]), frozenset(sets["hairpin"]))


def _notes(policy: Policy, names: Mapping[int, str]) -> Iterable[str]:
    """One-way bypass (a firewall or a strict filter elsewhere sees one direction only)."""
    for version, (what, refused) in product(VERSIONS, (("in", policy.no_ingress), ("out", policy.no_egress))):
        there = sorted(names[i] for i, v in refused if v == version and i in names)
        if there and len(there) < len(names):
            towards = "from" if what == "in" else "to"
            yield f"IPv{version}: one-way: packets {towards} {', '.join(there)} are not bypassed, those the other way may be"
