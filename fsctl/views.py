"""What the controller can be asked: delegations with their status, rules with their chains, walks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import islice
from operator import itemgetter
from typing import Protocol

from fsctl import narrow
from fsctl.collapse import cuts
from fsctl.collapse.effects import FORWARD, SLOW, Effect, Place
from fsctl.collapse.node import Node
from fsctl.config import Config
from fsctl.desired import Snapshot
from fsctl.durable import Durable
from fsctl.errors import FsctlError, NotFoundError
from fsctl.installer import Installer
from fsctl.inventory import Inventory
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Delegation, FiveTuple, Fragments, Match
from fsctl.model.fib import Page, PartKey, RulePage, match_of_change, rank_of_key, rank_of_part
from fsctl.model.ip_protocols import TCP, UDP
from fsctl.model.packet import Packet
from fsctl.model.prefix_keys import Key
from fsctl.openflow.rules import COOKIE, RuleKey
from fsctl.pipeline.fixed_rules import BRIDGE
from fsctl.pipeline.flow_rules import actions_of, flow_key, way_of
from fsctl.pipeline.rewrites import has_way
from fsctl.runtime import Runtime
from fsctl.specification import walk as oracle
from fsctl.status import (
    INSTALLED,
    REFUSED,
    SLOW_PATH,
    BridgeStatus,
    FlowStatus,
    HopReport,
    RuleStatus,
    WalkReport,
)

Counts = Mapping[RuleKey, tuple[int, int]]
FRESH_S = 1.0
"""A switch is asked for counters at most this often; OVS itself updates them every few seconds."""
_BREATH = 256
"""Rules or delegations that are read before others run."""


class PatchLinks(Protocol):
    """The part that keeps patch ports and releases bridges; it may not work now."""

    @property
    def problem(self) -> str: ...
    @property
    def to_release(self) -> Collection[str]: ...
    @property
    def released_with_rules(self) -> Collection[str]: ...


class Waiting(Protocol):
    """Connections of switches that are not used yet."""

    def waits_for(self, bridge: str) -> str: ...


class Known(Protocol):
    """The parts of the controller that are read. `now` is swapped as a whole when the network changes."""

    config: Config
    runtime: Runtime
    inventory: Inventory
    installer: Installer
    durable: Durable

    @property
    def links(self) -> PatchLinks: ...
    @property
    def connections(self) -> Waiting: ...
    @property
    def now(self) -> Snapshot: ...
    def between_turns(self) -> None:
        """Wait, for at most `controller.READER_PATIENCE_S`, while the loop changes the snapshot in place."""
        ...

    @property
    def is_starting(self) -> bool: ...


class Views:
    """Reads of what a controller knows."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._counters: dict[str, tuple[float, Counts]] = {}
        self._sums: dict[tuple[str, Delegation], tuple[int, int]] = {}
        self._summed_at = -FRESH_S

    # --- bridges -----------------------------------------------------------------------------------------

    def notices(self) -> list[str]:
        """What an operator should know and no single bridge or router tells."""
        links = self._known.links
        waiting = [
            f"bridge {name} is not configured any more; it is released once all bridges are in sync" for name in links.to_release
        ]
        return (
            waiting
            + [cuts.notice(place) for place in sorted(self._known.now.network.cuts)]
            + [
                f"bridge {name} was released and keeps fsctl's rules, because it has another controller: "
                f'ovs-ofctl -O OpenFlow14 del-flows {name} "cookie={COOKIE:#x}/-1" removes them'
                for name in sorted(links.released_with_rules)
            ]
        )

    def bridges(self) -> list[BridgeStatus]:
        return [self._bridge(name) for name in self._known.config.bridges]

    def _bridge(self, name: str) -> BridgeStatus:
        here = self._known.installer.bridges.get(name)
        ports = self._known.inventory.ports.get(name, {})
        rules = sum(len(n.rules) for _, n in self._known.now.compiler.nodes() if n.interface.bridge == name)
        layout = self._known.now.layout
        info = self._known.inventory.ovsdb.bridges.get(name)
        trouble = "" if here is None else here.trouble(self._known.runtime.now())
        warnings = [*(info.warnings if info is not None else ()), *(here.warnings if here is not None else ())]
        if trouble:
            warnings.append(trouble)
        if here is not None and here.is_quarantined:
            warnings.append("the switch rejects a rule that every bypass needs; nothing is bypassed on this bridge")
        if here is not None and here.rejected:
            warnings.append(f"the switch rejected {len(here.rejected)} rules; what they are for takes the slow path")
        return BridgeStatus(
            name,
            connected=here is not None,
            in_sync=here is not None and not trouble and not here.rejected,
            datapath_id=here.datapath_id if here else None,
            rules=rules + len(layout.frames[name].rules),
            ways=len(layout.ways[name].numbers),
            ports=tuple(sorted(ports)),
            ofports={port.name: port.ofport for port in ports.values()},
            links=tuple(self._known.now.network.bridges[name].links),
            warnings=tuple(warnings),
            repairs=here.repairs if here is not None else 0,
        )

    def not_ready(self) -> Sequence[str]:
        reasons = ["fsctl is starting: not everything is known yet"] if self._known.is_starting else []
        for status in self.bridges():
            if not status.connected:
                why = self._known.connections.waits_for(status.name)
                reasons.append(f"bridge {status.name} is not connected{f': {why}' if why else ''}")
            elif not status.in_sync:
                reasons.append(f"bridge {status.name} is not in sync: {'; '.join(status.warnings) or 'connecting'}")
        problem = self._known.links.problem
        if problem:
            reasons.append(f"OVSDB: {problem}")
        if self._known.durable.problem:
            reasons.append(f"store: {self._known.durable.problem}")
        return reasons

    # --- counters ------------------------------------------------------------------------------------------

    def _counts(self, bridge: str) -> Counts:
        now = self._known.runtime.now()
        at, counts = self._counters.get(bridge, (-FRESH_S, {}))
        here = self._known.installer.bridges.get(bridge)
        if here is None or now - at < FRESH_S or here.trouble(now):
            return counts  # do not wait for a silent switch
        try:
            counts = here.worker.switch.counters()
        except FsctlError:
            # It is silent, or the connection is going: the last known figures. One process may serve all bridges.
            for name in self._known.config.bridges:
                self._counters[name] = self._known.runtime.now(), self._counters.get(name, (0.0, {}))[1]
            return counts
        self._counters[bridge] = now, counts
        return counts

    def _counted(self) -> dict[tuple[str, Delegation], tuple[int, int]]:
        """Packets and bytes by (router, delegation), over all rules whose chain has it; of the last second."""
        now = self._known.runtime.now()
        if now - self._summed_at < FRESH_S:
            return self._sums
        sums: dict[tuple[str, Delegation], tuple[int, int]] = {}
        for node, key, counts in self._rules_counted():
            for hop in self._chain(node, key):
                packets, size = sums.get(hop, (0, 0))
                sums[hop] = packets + counts[0], size + counts[1]
        self._summed_at, self._sums = self._known.runtime.now(), sums
        return sums

    def _rules_counted(self) -> Iterator[tuple[Node, Place, tuple[int, int]]]:
        """The rules that have been used."""
        bridges = self._known.config.bridges
        counts = {name: {rule: c for rule, c in self._counts(name).items() if c[0]} for name in bridges}
        for _, node in self._known.now.compiler.nodes():
            here = counts[node.interface.bridge]
            for key in self._one_by_one(node, tuple(node.rules) if here else ()):
                counted = here.get(flow_key(node, key))
                if counted is not None:
                    yield node, key, counted

    def _one_by_one(self, node: Node, keys: Iterable[Place]) -> Iterator[Place]:
        """Those that are still among a node's rules when it is their turn; others run between them."""
        for number, key in enumerate(keys):
            if not number % _BREATH:
                self._breathe()
            if key in node.rules:
                yield key

    def _chain(self, node: Node, key: Place) -> tuple[tuple[str, Delegation], ...]:
        part = (node.interface.name, node.version, node.eth_src)
        compiler = self._known.now.compiler
        if isinstance(key, Fragments):
            some = FiveTuple(key.version, key.src, key.dst, key.ip_proto, 0, 0)
            return compiler.chain(node.interface.router, match_of_change(part, some), fragment=True)
        return compiler.chain(node.interface.router, match_of_change(part, key))

    # --- delegations -------------------------------------------------------------------------------------

    def flows(self, router: str, page: Page | None = None) -> Iterator[FlowStatus]:
        """The router's delegations, or a page of them; the list is taken at once, the states as it is read."""
        self._known.between_turns()
        counted = self._counted() if page is None or page.only is None else {}
        fib = self._known.now.network.fibs[router]
        for n, (part, key, number) in enumerate(list(fib.numbered() if page is None else fib.page(page))):
            if not n % _BREATH:
                self._breathe()
            verdict = fib.nexthops.get(number) if number > 0 else fib.verdict(number)
            if verdict is None:
                continue  # its next hop has been freed, so it is gone
            delegation = Delegation(match_of_change(part, key), verdict)
            state, reason, hops = self._quick(router, part, key) or self._state(router, delegation.match)
            packets, size = counted.get((router, delegation), (0, 0)) if counted else (0, 0)
            yield FlowStatus(delegation, state, reason, hops, packets, size)

    def _quick(self, router: str, part: PartKey, key: Key | FiveTuple) -> tuple[str, str, int] | None:
        """The state of a delegation that has a rule of its own on a bridge where all is well; None: look closer."""
        in_port, version, eth_src = part
        node = self._known.now.compiler.graphs[version].node_of.get((router, in_port, eth_src))
        effect = node.rules.get(key) if node is not None else None
        if node is None or effect is None or effect.kind == SLOW or self._known.is_starting:
            return None
        bridge = node.interface.bridge
        here = self._known.installer.bridges.get(bridge)
        if here is None or here.rejected or here.demoted or here.trouble(self._known.runtime.now()):
            return None
        if effect.kind == FORWARD and actions_of(self._known.now.network, bridge, effect) == BRIDGE:
            return None
        return INSTALLED, "", effect.hops

    def _state(self, router: str, match: Match) -> tuple[str, str, int]:
        if self._known.is_starting:
            return SLOW_PATH, "fsctl is starting", 0
        outcome = self._known.now.compiler.outcome(router, match)
        if outcome.kind == SLOW:
            return SLOW_PATH, outcome.reason, 0
        bridge = self._known.now.network.routers[router].interfaces[match.in_port].bridge
        here = self._known.installer.bridges.get(bridge)
        if here is None:
            return SLOW_PATH, f"bridge {bridge} is not connected", 0
        trouble = here.trouble(self._known.runtime.now())
        if trouble:
            return SLOW_PATH, f"bridge {bridge}: {trouble}", 0
        place = self._known.now.compiler.rule_at(router, match)
        if place is None:
            return SLOW_PATH, "not compiled", 0
        node, key = place
        rule = flow_key(node, key)
        if rule in here.rejected:
            return REFUSED, here.rejected[rule], 0
        if rule in here.demoted:
            return SLOW_PATH, "the switch rejected a rule for a part of it", 0
        effect = node.rules[key]
        error = self._rejected_way(bridge, effect)
        if error:
            return REFUSED, error, 0
        if effect.kind == FORWARD and actions_of(self._known.now.network, bridge, effect) == BRIDGE:
            return SLOW_PATH, self._why_no_link(bridge, effect), 0
        return INSTALLED, "", outcome.hops

    def _why_no_link(self, bridge: str, effect: Effect) -> str:
        """Why frames cannot reach the last bridge of a chain."""
        network = self._known.now.network
        out = network.routers[effect.router].interfaces[network.fibs[effect.router].nexthops[effect.nexthop].out]
        problem = self._known.inventory.ovsdb.link_problems.get(frozenset((bridge, out.bridge)))
        if problem:
            return f"no patch ports between {bridge} and {out.bridge}: {problem}"
        if out.bridge in network.bridges[bridge].links:
            return f"bridge {out.bridge} has not confirmed yet that it delivers for {out.router}.{out.name}"
        return f"no patch ports between {bridge} and {out.bridge} yet"

    def _breathe(self) -> None:
        """Let others run; go on between two jobs of the loop, when the snapshot is consistent."""
        self._known.runtime.pause()
        self._known.between_turns()

    def _rejected_way(self, bridge: str, effect: Effect) -> str:
        """The switch's error, if it rejected a rule of an effect's way out; else empty."""
        here = self._known.installer.bridges[bridge]
        if not here.rejected or not has_way(effect):
            return ""
        rules = way_of(self._known.now.network, bridge, effect, self._known.now.layout.ways[bridge].numbers[effect])
        return next((here.rejected[r.key] for r in rules if r.key in here.rejected), "")

    # --- rules and walks ---------------------------------------------------------------------------------

    def rules(self, bridge: str | None = None, page: RulePage | None = None) -> Iterator[RuleStatus]:
        """The collapsed rules of one bridge, or of all; or a page of them, in the order of their places."""
        self._known.between_turns()
        bridges = self._known.config.bridges if bridge is None else (bridge,)
        counts = {name: self._counts(name) for name in bridges}
        nodes = [node for _, node in self._known.now.compiler.nodes() if node.interface.bridge in counts]
        places = self._whole(nodes) if page is None else self._ordered(nodes, page)
        found = (
            self._rule(node, key, counts[node.interface.bridge].get(flow_key(node, key), (0, 0)))
            for node, key in places
            if self._installed(node, key)
        )
        return islice(found, None if page is None else page.limit)

    def _whole(self, nodes: Iterable[Node]) -> Iterator[tuple[Node, Place]]:
        return ((node, key) for node in nodes for key in self._one_by_one(node, tuple(node.rules)))

    def _ordered(self, nodes: Iterable[Node], page: RulePage) -> Iterator[tuple[Node, Place]]:
        """The rules behind a page's place, in batches of its size, so that few of them need sorting."""
        begin = None if page.after is None else rank_of_part(*page.after[:2])
        ranked = sorted(((rank_of_part(*_part_of(node)), node) for node in nodes), key=itemgetter(0))
        for rank, node in ranked:
            if begin is not None and rank < begin:
                continue
            after = page.after[2] if page.after is not None and rank == begin else None
            while batch := _behind(after, node, page.limit):
                yield from ((node, key) for key in self._one_by_one(node, batch))
                after = batch[-1]

    def _installed(self, node: Node, key: Place) -> bool:
        here = self._known.installer.bridges.get(node.interface.bridge)
        return here is not None and not here.trouble(self._known.runtime.now()) and flow_key(node, key) not in here.rejected

    def _rule(self, node: Node, key: Place, counts: tuple[int, int]) -> RuleStatus:
        bridge, effect = node.interface.bridge, node.rules[key]
        rule, layout = flow_key(node, key), self._known.now.layout
        actions = actions_of(self._known.now.network, bridge, effect)
        if rule in self._known.installer.bridges[bridge].demoted:
            actions = BRIDGE
        way = layout.ways[bridge].numbers.get(effect)
        return RuleStatus(bridge, rule, actions, (*_part_of(node), key), way, self._chain(node, key), counts[0], counts[1])

    def walk(self, packet: Packet) -> WalkReport:
        self._known.between_turns()
        if packet.bridge not in self._known.now.network.bridges:
            raise NotFoundError("no such bridge", field="bridge", value=packet.bridge)
        found = oracle.walk(narrow.for_packet(self._known.now.network, packet), packet)
        hops = tuple(HopReport(h.interface.router, h.interface.name, h.delegation) for h in found.hops)
        rule = None if found.end == oracle.SLOW_PATH else self._rule_for(packet)
        return WalkReport(hops, found.end, found.reason, found.final, rule)

    def _rule_for(self, packet: Packet) -> RuleStatus | None:
        into = self._known.now.network.by_mac.get((packet.bridge, packet.eth_dst))
        if into is None or packet.version is None:
            return None
        connection = None
        if packet.ip_proto in (TCP, UDP):
            ports = (packet.ip_proto, packet.sport, packet.dport)
            connection = FiveTuple(packet.version, packet.src, packet.dst, *ports)
        match = Match(into.name, Prefix.host(packet.version, packet.dst), packet.eth_src, connection)
        place = self._known.now.compiler.rule_at(into.router, match, fragment=packet.fragment)
        if place is None or not self._installed(*place):
            return None
        counts = self._counts(packet.bridge).get(flow_key(*place), (0, 0))
        return self._rule(*place, counts)


def _part_of(node: Node) -> tuple[str, PartKey]:
    return node.interface.router, (node.interface.name, node.version, node.eth_src)


def _behind(after: Place | None, node: Node, count: int) -> list[Place]:
    """The first of a node's rules behind `after`; None: from the beginning."""
    keys = tuple(node.rules)
    if after is not None:
        last = rank_of_key(after)
        return nsmallest(count, (key for key in keys if rank_of_key(key) > last), key=rank_of_key)
    return nsmallest(count, keys, key=rank_of_key)
